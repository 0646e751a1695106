"""torchxrayvision's networks in the format they are published in → converted, loaded and equal to the library's own."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core_models import registry
from core_models.drafting.evidence import REGIONS
from core_models.errors import ModelMissing, Refused
from core_models.foundation.bigger import convert, pickled, xrv, xrv_anatomy
from core_models.foundation.reading import Context
from tests.foundation.scans import ct, radiograph

KEY = "densenet121-res224-all"
package = xrv.library()
PUBLISHED = package.models.model_urls[KEY]["weights_url"].rpartition("/")[2]


def _shaken(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The model with biases and running statistics that a test can tell from the defaults."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if "running_var" in name:
            tensor.copy_(1 + torch.rand(tensor.shape, generator=generator))
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the library's own cache: the DenseNet as a module pickled whole, by the old torch format."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published")
    model = _shaken(package.models.DenseNet(num_classes=18), 1)
    torch.nn.init.normal_(model.classifier.weight, std=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(model, folder / PUBLISHED, _use_new_zipfile_serialization=False)
    return folder


@pytest.fixture(scope="module")
def weights(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    convert.convert(published / PUBLISHED, folder)
    return folder


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    kept, threads = dict(registry._OPEN), torch.get_num_threads()
    registry._OPEN.clear()
    yield
    registry._OPEN.clear()
    registry._OPEN.update(kept)
    torch.set_num_threads(threads)


def eyes(folder: Path) -> Any:
    return registry.eyes_for("DX", f"xrv:{folder}", threads=1)


def test_findings_equal_the_library_s_own_reading_of_its_own_file(published: Path, weights: Path) -> None:
    volume = radiograph(200, 170)
    model = package.models.DenseNet(weights=KEY, cache_dir=str(published))  # the library's loader, of our own file
    image = package.datasets.normalize(volume.array[0], 255)[None]
    image = package.datasets.XRayResizer(224)(package.datasets.XRayCenterCrop()(image))
    with torch.inference_mode():
        expected = model(torch.from_numpy(image)[None])[0].numpy()
    reading = eyes(weights).read(volume)
    assert [f.name for f in reading.findings] == model.targets
    np.testing.assert_allclose([f.probability for f in reading.findings], expected, atol=1e-5)
    assert np.ptp(expected) > 0.05  # random weights that told nothing apart would prove nothing


def test_a_reading_says_what_it_is_and_what_it_is_not(weights: Path) -> None:
    reading = eyes(weights).read(radiograph(200, 170), Context(view="PA"))
    assert reading.quality.usable
    assert reading.embedding is None
    assert not reading.structures
    assert all(f.region in REGIONS and not f.calibrated and f.threshold == 0.5 for f in reading.findings)
    said = " ".join((*reading.missing, *reading.notes, *reading.quality.notes))
    for words in ("not calibrated", "image alone", "middle square", "did not check"):
        assert words in said
    assert reading.model.startswith("xrv/1.5.7 densenet121-res224-all (")
    assert "not for commercial use" in reading.licence


def test_a_deep_image_is_read_too_and_the_same_twice(weights: Path) -> None:
    volume = radiograph(256, 256, "CR", np.uint16)
    first, second = (eyes(weights).read(volume).findings for _ in range(2))
    assert first == second


def test_weights_for_fewer_findings_show_only_those(published: Path, tmp_path: Path) -> None:
    urls = package.models.model_urls["densenet121-res224-rsna"]
    source = tmp_path / urls["weights_url"].rpartition("/")[2]
    source.write_bytes((published / PUBLISHED).read_bytes())
    assert convert.convert(source, tmp_path / "out").name == "densenet121-res224-rsna.safetensors"
    reading = eyes(tmp_path / "out").read(radiograph())
    assert [f.name for f in reading.findings] == ["Pneumonia", "Lung Opacity"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Any]:
    """(a folder with a converted PSPNet of one block a stage, the library's own wrapper around the same weights)."""
    from torchxrayvision.baseline_models import chestx_det as module

    small_net = partial(module.pspnet, block_config=[1, 1, 1, 1])
    torch.manual_seed(3)
    net = _shaken(small_net(14), 4)
    torch.nn.init.normal_(net.classification.weight, std=0.5)
    source = tmp_path / "pspnet_chestxray_best_model_4.pth"
    torch.save({f"module.{name}": tensor for name, tensor in net.state_dict().items()}, source)
    monkeypatch.setattr(module, "pspnet", small_net)
    wrapper = module.PSPNet(cache_dir=str(tmp_path))
    convert.convert(source, tmp_path / "out")
    return tmp_path / "out", wrapper


@pytest.mark.filterwarnings("ignore:.*upsample.*:UserWarning")
def test_structures_equal_the_library_s_own_masks(small: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert xrv_anatomy.SIDE == 512
    folder, wrapper = small
    # 512 pixels a side take ten seconds here: both sides of the comparison run at 128 instead
    monkeypatch.setattr(xrv_anatomy, "SIDE", 128)
    monkeypatch.setattr(package.utils, "fix_resolution", lambda x, resolution, model: x)
    volume = radiograph(320, 400)
    image = package.datasets.normalize(volume.array[0], 255)[None]
    image = package.datasets.XRayResizer(128)(package.datasets.XRayCenterCrop()(image))
    with torch.inference_mode():
        expected = torch.sigmoid(wrapper(torch.from_numpy(image)[None]))[0]  # (14, 128, 128)
    model = eyes(folder)
    logits = model._anatomy.logits(volume.array[0].astype(np.float32) / 255)
    np.testing.assert_allclose(torch.sigmoid(logits), expected, atol=1e-4)
    reading = model.read(volume)
    assert reading.structures
    assert not reading.findings
    resized = torch.nn.functional.interpolate(expected[None], size=(320, 320), mode="bilinear")[0] >= 0.5
    areas = sorted(int(plane.sum()) for plane in resized if plane.any())
    got = sorted(structure.mask.count for structure in reading.structures)
    np.testing.assert_allclose(got, areas, atol=3)
    for structure in reading.structures:
        whole = structure.mask.full()
        assert whole.shape == (1, 320, 400)
        assert not whole[0, :, :40].any()  # the middle square begins at column 40
        assert not whole[0, :, 360:].any()
        assert 0.5 <= structure.confidence <= 1
    assert any("patient's" in note for note in reading.notes)


def test_sides_are_the_patient_s_by_position_whatever_the_channel() -> None:
    named = xrv_anatomy.sides({"Left Lung": 100.0, "Right Lung": 300.0, "Heart": 220.0, "Spine": 200.0}, 200.0)
    assert named == {"Left Lung": "right lung", "Right Lung": "left lung", "Heart": "heart", "Spine": "spine"}
    swapped = xrv_anatomy.sides({"Left Lung": 300.0, "Right Lung": 100.0}, 200.0)
    assert swapped == {"Left Lung": "left lung", "Right Lung": "right lung"}


def test_one_of_a_pair_is_told_by_the_spine_then_by_the_middle() -> None:
    assert xrv_anatomy.sides({"Left Lung": 240.0, "Spine": 260.0}, 200.0)["Left Lung"] == "right lung"
    assert xrv_anatomy.sides({"Right Lung": 240.0}, 200.0)["Right Lung"] == "left lung"


def test_every_structure_of_the_library_has_a_label() -> None:
    from torchxrayvision.baseline_models.chestx_det import PSPNet

    pairs = {name for first, second, _ in xrv_anatomy.PAIRS for name in (first, second)}
    assert pairs | set(xrv_anatomy.SINGLE) == set(PSPNet.targets)


# ---- conversion: nothing in a file is run


@pytest.mark.parametrize("new", [False, True], ids=["before torch 1.6", "zip"])
def test_a_module_pickled_whole_converts_to_its_own_state(tmp_path: Path, new: bool) -> None:
    torch.manual_seed(5)
    model = _shaken(package.models.DenseNet(growth_rate=4, block_config=(1, 2, 1, 1), num_init_features=8), 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(model, tmp_path / PUBLISHED, _use_new_zipfile_serialization=new)
    got = load_file(convert.convert(tmp_path / PUBLISHED, tmp_path / "out"))
    expected = model.state_dict()
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("new", [False, True], ids=["before torch 1.6", "zip"])
def test_what_a_training_script_left_on_the_network_is_passed_over(tmp_path: Path, new: bool) -> None:
    model = package.models.DenseNet(growth_rate=4, block_config=(1, 1, 1, 1), num_init_features=8)
    model.pathologies = np.array(["Effusion", "Mass"], dtype=object)
    model.seen = {"mean": np.float64(0.5), "shape": (1, 224, 224)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(model, tmp_path / PUBLISHED, _use_new_zipfile_serialization=new)
    got = load_file(convert.convert(tmp_path / PUBLISHED, tmp_path / "out"))
    assert torch.equal(got["classifier.weight"], model.classifier.weight)


class Mischief:
    """Opened with full trust it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("new", [False, True], ids=["before torch 1.6", "zip"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, new: bool) -> None:
    torch.save(
        {"features.conv0.weight": Mischief(tmp_path / "ran")}, tmp_path / PUBLISHED, _use_new_zipfile_serialization=new
    )
    with pytest.raises(Refused, match="not opened"):
        convert.convert(tmp_path / PUBLISHED, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("new", [False, True], ids=["before torch 1.6", "zip"])
def test_a_small_file_does_not_become_a_huge_tensor(tmp_path: Path, new: bool) -> None:
    huge = torch.zeros(1).expand(200_000, 200_000)
    torch.save({"features.conv0.weight": huge}, tmp_path / PUBLISHED, _use_new_zipfile_serialization=new)
    with pytest.raises(Refused, match="not opened"):
        convert.convert(tmp_path / PUBLISHED, tmp_path / "out")


def test_names_that_only_look_like_networks_are_not_looked_up() -> None:
    for module, name in (("torch.nnx", "X"), ("torch.hub", "load"), ("os", "system"), ("builtins", "eval")):
        with pytest.raises(pickle.UnpicklingError):
            pickled._Reader(io.BytesIO()).find_class(module, name)
    assert pickled._Reader(io.BytesIO()).find_class("torch.nn.modules.conv", "Conv2d") is pickled.Inert


@pytest.mark.parametrize("keep", [0, 1, 40, 3000, -5])
def test_a_file_cut_short_is_one_sentence(published: Path, tmp_path: Path, keep: int) -> None:
    (tmp_path / PUBLISHED).write_bytes((published / PUBLISHED).read_bytes()[:keep])
    with pytest.raises(Refused) as caught:
        convert.convert(tmp_path / PUBLISHED, tmp_path / "out")
    assert str(caught.value).count(". ") == 0
    assert not (tmp_path / "out").exists()


def test_a_densenet_under_another_file_name_is_refused(published: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes((published / PUBLISHED).read_bytes())
    with pytest.raises(Refused, match="file name does not say"):
        convert.convert(tmp_path / "model.pt", tmp_path / "out")


def test_another_model_s_weights_are_not_converted(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "x.pt")
    with pytest.raises(Refused, match="none of the models"):
        convert.convert(tmp_path / "x.pt", tmp_path / "out")


def test_the_command_says_one_sentence_and_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert.main([str(tmp_path / "absent.pt"), str(tmp_path)]) == 2
    assert "absent.pt" in capsys.readouterr().err
    assert convert.main([]) == 2


# ---- folders that will not do


def test_pickled_weights_are_refused(published: Path) -> None:
    with pytest.raises(Refused, match=r"can run code.*convert"):
        eyes(published)


def test_nan_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights / f"{KEY}.safetensors")
    tensors["classifier.bias"][3] = float("nan")
    save_file(tensors, tmp_path / f"{KEY}.safetensors")
    with pytest.raises(Refused, match="not finite"):
        eyes(tmp_path)


@pytest.mark.parametrize("name", [KEY, "pspnet"])
def test_another_architecture_is_refused(tmp_path: Path, name: str) -> None:
    save_file({"layer.weight": torch.zeros(3, 3)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(Refused, match="are not those of"):
        eyes(tmp_path)


@pytest.mark.parametrize("name", ["model", "densenet121-res224-mine"])
def test_a_file_of_an_unknown_name_is_refused(tmp_path: Path, name: str) -> None:
    save_file({"layer.weight": torch.zeros(3, 3)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(Refused, match=r"densenet121-res224-all\.safetensors"):
        eyes(tmp_path)


def test_two_densenets_are_refused(weights: Path, tmp_path: Path) -> None:
    for name in ("all", "nih"):
        (tmp_path / f"densenet121-res224-{name}.safetensors").symlink_to(weights / f"{KEY}.safetensors")
    with pytest.raises(Refused, match="2 DenseNets"):
        eyes(tmp_path)


def test_a_damaged_file_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="no safetensors"):
        eyes(tmp_path)
    (tmp_path / f"{KEY}.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(Refused, match="damaged"):
        eyes(tmp_path)


def test_another_modality_or_several_slices_are_refused(weights: Path) -> None:
    model = eyes(weights)
    with pytest.raises(Refused, match="not trained on CT"):
        model.read(ct())
    volume = radiograph()
    stack = type(volume)(np.repeat(volume.array, 3, axis=0), np.eye(4), "DX", "1")
    with pytest.raises(Refused, match="3 slices"):
        model.read(stack)
    with pytest.raises(Refused, match="8 pixels or more"):
        model.read(radiograph(4, 100))
