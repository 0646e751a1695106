"""Stand-ins for what optional engines need: tiny random weights of the real classes, and packages with the real names.

The packages have the signatures of nninteractive-client 2.6.0 and TotalSegmentator 2.18.0; their answers are known.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    Sam2Config,
    Sam2ImageProcessor,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    SamConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig

SIDE, WIDTH = 64, 16
_DECODER = {
    "hidden_size": WIDTH,
    "mlp_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": WIDTH,
    "iou_head_depth": 2,
}


def sam(folder: Path, seed: int = 0) -> Path:
    """A SamModel of 64 × 64 pixels."""
    torch.manual_seed(seed)
    vision = SamVisionConfig(
        hidden_size=WIDTH,
        output_channels=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
        mlp_dim=32,
        global_attn_indexes=[1],
        window_size=4,
        num_pos_feats=8,
    )
    prompts = SamPromptEncoderConfig(hidden_size=WIDTH, image_size=SIDE, patch_size=8, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(**_DECODER)
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    SamModel(config).save_pretrained(folder)
    SamImageProcessor(
        size={"longest_edge": SIDE},
        pad_size={"height": SIDE, "width": SIDE},
        mask_size={"longest_edge": 32},
        mask_pad_size={"height": 32, "width": 32},
    ).save_pretrained(folder)
    return folder


def sam2(folder: Path, video: bool = False) -> Path:
    """A Sam2Model of 64 × 64 pixels; `video`: named as the hub's checkpoints of SAM 2 and 2.1 are."""
    torch.manual_seed(0)
    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 2, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 1, 1],
        window_size_per_stage=[4, 2, 2, 2],
        global_attention_blocks=[4],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=WIDTH,
    )
    prompts = Sam2PromptEncoderConfig(hidden_size=WIDTH, image_size=SIDE, patch_size=16, mask_input_channels=4)
    decoder = Sam2MaskDecoderConfig(**_DECODER)
    config = Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    Sam2Model(config).save_pretrained(folder)
    Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}, mask_size={"height": 16, "width": 16}).save_pretrained(
        folder
    )
    if video:
        path = folder / "config.json"
        told = json.loads(path.read_text())
        path.write_text(json.dumps(told | {"model_type": "sam2_video", "architectures": ["Sam2VideoModel"]}))
    return folder


NNINTERACTIVE = '''
"""A server's other half in this process: the mask is every voxel within 3 of a prompt that adds, less the removing."""
import numpy as np

LOG = []
FAIL = []


class SessionExpiredError(RuntimeError):
    pass


class ServerAtCapacityError(RuntimeError):
    pass


class nnInteractiveRemoteInferenceSession:
    def __init__(self, server_url, api_key=None, connect_timeout=10.0, read_timeout=60.0,
                 set_image_read_timeout=600.0, write_timeout=120.0, pool_timeout=10.0):
        LOG.append(("open", server_url, api_key))
        if FAIL and FAIL[0][0] == "open":
            raise FAIL.pop(0)[1]
        self.supported_interactions = {"points": True, "bbox2d": True, "bbox3d": False, "scribble": True, "lasso": True}
        self.license = "CC BY-NC-SA 4.0"
        self.target_buffer = None

    def set_image(self, image, image_properties=None):
        assert image.ndim == 4 and image.shape[0] == 1, image.shape
        self.shape = image.shape[1:]
        LOG.append(("image", image.copy(), image_properties))

    def set_target_buffer(self, target_buffer):
        assert target_buffer.shape == self.shape and target_buffer.dtype == np.uint8
        self.target_buffer = target_buffer
        LOG.append(("buffer",))

    def reset_interactions(self):
        self.target_buffer.fill(0)
        LOG.append(("reset",))

    def _draw(self, points, include):
        if FAIL and FAIL[0][0] == "prompt":
            raise FAIL.pop(0)[1]
        z, y, x = np.indices(self.shape)
        for p in points:
            near = (z - p[0]) ** 2 + (y - p[1]) ** 2 + (x - p[2]) ** 2 <= 9
            self.target_buffer[near] = int(include)

    def add_point_interaction(self, coordinates, include_interaction, run_prediction=True,
                              override_capability_checks=False):
        assert all(0 <= c < n for c, n in zip(coordinates, self.shape, strict=True))
        LOG.append(("point", list(coordinates), include_interaction))
        self._draw([coordinates], include_interaction)

    def add_bbox_interaction(self, bbox_coords, include_interaction, run_prediction=True,
                             override_capability_checks=False):
        sizes = [b - a for a, b in bbox_coords]
        assert min(sizes) >= 1 and (1 in sizes), sizes
        LOG.append(("box", bbox_coords, include_interaction))
        self._draw([[(a + b - 1) // 2 for a, b in bbox_coords]], include_interaction)

    def _mask(self, name, image, include, where):
        assert image.shape == tuple(b - a for a, b in where) and 1 in image.shape and image.any()
        LOG.append((name, image.copy(), include, where))
        self._draw(np.argwhere(image) + [a for a, _ in where], include)

    def add_scribble_interaction(self, scribble_image, include_interaction, run_prediction=True,
                                 override_capability_checks=False, interaction_bbox=None):
        self._mask("scribble", scribble_image, include_interaction, interaction_bbox)

    def add_lasso_interaction(self, lasso_image, include_interaction, run_prediction=True,
                              override_capability_checks=False, interaction_bbox=None):
        self._mask("lasso", lasso_image, include_interaction, interaction_bbox)

    def close(self):
        LOG.append(("close",))
'''

TOTALSEGMENTATOR = '''
"""Answers with what the file beside it says: {"value": label}; every voxel above a value gets its label."""
import json, os, pathlib, socket
import nibabel as nib
import numpy as np


def totalsegmentator(input, output=None, ml=False, nr_thr_resamp=1, nr_thr_saving=6, fast=False, nora_tag="None",
                     preview=False, task="total", roi_subset=None, statistics=False, radiomics=False, crop_path=None,
                     body_seg=False, force_split=False, output_type="nifti", quiet=False, verbose=False, test=0,
                     skip_saving=False, device="gpu", license_number=None, statistics_exclude_masks_at_border=True,
                     no_derived_masks=False, v1_order=False, fastest=False, roi_subset_robust=None,
                     stats_aggregation="mean", remove_small_blobs=False, statistics_normalized_intensities=False,
                     robust_crop=False, higher_order_resampling_LEGACY=False, higher_order_resampling=False,
                     save_probabilities=None, debug=False, report=None, statistics_extra=False, save_lowres=False,
                     resampling_order=1, plans="nnUNetPlans", model_size="big"):
    print("If you use this tool please cite: ...")
    assert isinstance(input, nib.Nifti1Image) and output is None and ml
    config = json.loads((pathlib.Path(os.environ["TOTALSEG_HOME_DIR"]) / "config.json").read_text())
    assert config["send_usage_stats"] is False
    assert pathlib.Path(os.environ["TOTALSEG_WEIGHTS_PATH"]).is_dir()
    try:
        socket.create_connection(("127.0.0.1", 9), 1)
    except ConnectionRefusedError as error:
        assert "no connection is opened from here" in str(error), error
    told = json.loads(pathlib.Path(__file__).with_name("told.json").read_text())
    if "fail" in told:
        raise RuntimeError(told["fail"])
    told["asked"] = {"task": task, "fast": fast, "axes": "".join(nib.aff2axcodes(input.affine))}
    pathlib.Path(__file__).with_name("asked.json").write_text(json.dumps(told["asked"]))
    data = np.asarray(input.dataobj)
    labels = np.zeros(data.shape, np.uint8)
    for value, label in told["values"]:
        labels[data > value] = label
    if told.get("turned"):
        labels = labels[:, :, :-1]
    return nib.Nifti1Image(labels, input.affine)
'''

MAP_TO_BINARY = """
class_map = {
    "total": {1: "spleen", 2: "kidney_right", 5: "liver", 15: "esophagus"},
    "total_mr": {1: "spleen", 5: "liver"},
}
"""


def nninteractive(folder: Path) -> Path:
    """A folder for sys.path with a client whose server is itself."""
    package = folder / "nnInteractive" / "inference" / "remote"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(NNINTERACTIVE)
    return folder


def totalsegmentator(folder: Path, **told: object) -> Path:
    """A folder for sys.path with a TotalSegmentator that answers what is told, and weights/ of nothing."""
    package = folder / "totalsegmentator"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "python_api.py").write_text(TOTALSEGMENTATOR)
    (package / "map_to_binary.py").write_text(MAP_TO_BINARY)
    (package / "told.json").write_text(json.dumps(told))
    return folder
