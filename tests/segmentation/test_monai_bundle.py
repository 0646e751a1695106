"""Bundles as the model zoo has them, with networks whose answers are known → structures at native resolution."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core_models.errors import Cancelled, ModelMissing, Refused
from core_models.segmentation import optional
from core_models.segmentation.bigger import bundle, monai_bundle
from core_models.segmentation.engine import Click
from core_models.study.volume import Volume
from tests.segmentation.phantoms import affine_of, ct, ellipsoid

SHAPE = (14, 40, 44)
AFFINE = affine_of((3.0, 1.2, 1.2))
LIVER = ellipsoid(SHAPE, AFFINE, (14, 20, 7), (12, 12, 15))
SPLEEN = ellipsoid(SHAPE, AFFINE, (34, 20, 7), (7, 9, 12))

METADATA: dict[str, Any] = {
    "version": "0.2.0",
    "task": "Decathlon spleen segmentation",
    "network_data_format": {
        "inputs": {
            "image": {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1,
                      "spatial_shape": [16, 16, 16], "dtype": "float32", "channel_def": {"0": "image"}}
        },
        "outputs": {
            "pred": {"type": "image", "format": "segmentation", "num_channels": 3,
                     "channel_def": {"0": "background", "1": "spleen", "2": "liver"}}
        },
    },
}  # fmt: skip
INFERENCE: dict[str, Any] = {
    "imports": ["$import glob"],
    "bundle_root": ".",
    "output_dir": "$@bundle_root + '/eval'",
    "image_key": "image",
    "pixdim": [1.5, 1.5, 2.0],
    "displayable_configs": {"overlap": 0.5},
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network_def": {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8],
                    "strides": [2], "num_res_units": 1, "norm": "batch"},
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "@image_key"},
            {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
            {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "@pixdim", "mode": "bilinear"},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -100, "a_max": 300, "b_min": 0,
             "b_max": 1, "clip": True},
            {"_target_": "EnsureTyped", "keys": "image"},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "sw_batch_size": 4,
                "overlap": "@displayable_configs#overlap", "device": "$torch.device('cpu')"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        ],
    },
    "run": ["$@evaluator.run()"],
}  # fmt: skip


class ByValue(torch.nn.Module):
    """Channel 1 where the scaled value is about 0.7 (180 HU), channel 2 where it is about 0.45 (80 HU)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.12 - x, 0.1 - (x - 0.7).abs(), 0.12 - (x - 0.45).abs()], 1)


class OneByValue(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - 0.3


@pytest.fixture
def volume() -> Volume:
    return ct([(LIVER, 80), (SPLEEN, 180)], SHAPE, AFFINE, noise=2.0)


def made(folder: Path, network: torch.nn.Module | None = None, metadata=METADATA, inference=INFERENCE) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    if network is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            torch.jit.script(network).save(str(folder / "models" / "model.ts"))
    return folder


def opened(folder: Path, volume: Volume):
    return optional.chooser(f"monai:{folder}", 1)(volume)


def answered(folder: Path, volume: Volume):
    engine = opened(folder, volume)
    return engine.segment(engine.prepare(volume), (Click((34, 20, 7)),))


def changed(config: dict, path: str, value: Any) -> dict:
    out = json.loads(json.dumps(config))
    *parents, last = path.split("/")
    at: Any = out
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if value is None:
        del at[last]
    else:
        at[int(last) if isinstance(at, list) else last] = value
    return out


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_what_the_network_draws_on_its_own_grid_comes_back_on_the_series(tmp_path, volume) -> None:
    engine = opened(made(tmp_path / "b", ByValue()), volume)
    prepared = engine.prepare(volume)
    assert prepared.found is None
    spleen = engine.segment(prepared, (Click((34, 20, 7)),))
    drawn, true = (np.argwhere(full).mean(0) for full in (spleen.mask.full(), SPLEEN))
    np.testing.assert_allclose(drawn, true, atol=0.15)
    assert dice(spleen.mask.full(), SPLEEN) > 0.85  # its rim, half spleen and half fat, has the value of liver
    assert spleen.label == "spleen"
    assert engine.version == "Decathlon spleen segmentation 0.2.0"
    drawn = prepared.found
    liver = engine.segment(prepared, (Click((14, 20, 7)),))
    assert prepared.found is drawn
    assert dice(liver.mask.full(), LIVER) > 0.9
    assert "drew no structure" in engine.segment(prepared, (Click((1, 1, 1)),)).note


def test_channels_that_decide_by_themselves_may_overlap(tmp_path, volume) -> None:
    metadata = changed(
        METADATA, "network_data_format/outputs/pred", {"num_channels": 1, "channel_def": {"0": "tumour"}}
    )
    engine = opened(made(tmp_path / "b", OneByValue(), metadata), volume)
    answer = engine.segment(engine.prepare(volume), (Click((14, 20, 7)),))
    assert answer.label == "tumour"
    assert dice(answer.mask.full(), LIVER) > 0.9  # the part under the click; the spleen is another


def test_a_series_smaller_than_the_window_is_padded_and_windows_that_overlap_are_averaged() -> None:
    seen = []

    class Mean(torch.nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return x * 2

    plain = bundle.Bundle("t", "1", "CT", (), (8, 8, 8), 0.5, False, {0: "a"}, 1, False, None, Path("x"))
    values = torch.arange(5 * 20 * 9, dtype=torch.float32).reshape(5, 20, 9)
    for bell in (False, True):
        got = monai_bundle.slid(
            Mean(), values, plain.__class__(**{**vars(plain), "bell": bell}), torch.device("cpu"), lambda: False
        )
        torch.testing.assert_close(got[0], values * 2)
    assert set(seen) == {(1, 1, 8, 8, 8)}
    assert monai_bundle._starts(20, 8, 0.5) == [0, 4, 8, 12]
    assert monai_bundle._starts(9, 8, 0.5) == [0, 1]


def test_cancelled_between_windows_leaves_the_series_undrawn(tmp_path, volume) -> None:
    engine = opened(made(tmp_path / "b", ByValue()), volume)
    prepared = engine.prepare(volume)
    answers = iter([False, False, True])
    with pytest.raises(Cancelled):
        engine.segment(prepared, (Click((34, 20, 7)),), lambda: next(answers))
    assert prepared.found is None
    assert not engine.segment(prepared, (Click((34, 20, 7)),)).mask.empty


def test_the_steps_that_are_read_are_the_steps_that_are_there() -> None:
    assert set(monai_bundle.STEPS) == bundle.STEPS


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("preprocessing/transforms/3/pixdim", "$[1.5, 1.5, 2.0]", "expressions are not run"),
        ("pixdim", "$__import__('os').system('touch /tmp/ran')", "expressions are not run"),
        ("preprocessing/transforms/2", {"_target_": "mine.Evil", "keys": "image"}, "'Evil' before its network"),
        ("preprocessing/transforms/2", "$mine()", "before its network"),
        ("preprocessing/transforms/3/pixdim", "@nowhere", "which is not there"),
        ("preprocessing/transforms/4/magic", 7, "arguments that are not known"),
        ("preprocessing", "$mine()", "no list of steps"),
        ("inferer/roi_size", "$[96] * 3", "expressions are not run"),
        ("inferer/roi_size", [16, 16], "window"),
        ("inferer/roi_size", [16, 16, 99999], "window"),
        ("inferer/overlap", 1.0, "window"),
        ("inferer/_target_", "mine.Inferer", "not known here"),
        ("pixdim", "@pixdim", "refers to itself"),
    ],
)
def test_an_expression_or_a_class_of_its_own_is_refused_and_never_run(tmp_path, volume, path, value, said) -> None:
    folder = made(tmp_path / "b", ByValue(), inference=changed(INFERENCE, path, value))
    with pytest.raises(Refused, match=said):
        answered(folder, volume)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("network_data_format", None, "no single input"),
        ("network_data_format/inputs/image/num_channels", 4, "several images"),
        ("network_data_format/outputs/pred/num_channels", 99999, "99999 channels"),
        ("network_data_format/outputs/pred/num_channels", None, "channels are"),
        ("network_data_format/outputs/pred/num_channels", 2, "does not take this series"),
        ("network_data_format/inputs/image/modality", "MRI", "made for MR, not CT"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(tmp_path, volume, path, value, said) -> None:
    folder = made(tmp_path / "b", ByValue(), changed(METADATA, path, value))
    with pytest.raises(Refused, match=said):
        answered(folder, volume)


def test_weights_that_are_missing_damaged_or_no_tensors_are_refused(tmp_path, volume, monkeypatch) -> None:
    with pytest.raises(ModelMissing, match="not there"):
        opened(tmp_path / "nowhere", volume)
    folder = made(tmp_path / "b")
    with pytest.raises(ModelMissing, match="no models/model"):
        opened(folder, volume)
    (folder / "models" / "model.ts").write_bytes(b"not a program")
    with pytest.raises(Refused, match="damaged"):
        opened(folder, volume)
    (folder / "models" / "model.ts").unlink()
    torch.save({}, folder / "models" / "model.pt")
    monkeypatch.setattr(monai_bundle, "find_spec", lambda name: None)
    with pytest.raises(ModelMissing, match=r"pip install monai.*Licence"):
        opened(folder, volume)


def test_a_tilted_series_is_refused(tmp_path) -> None:
    affine = affine_of((3.0, 1.2, 1.2), shear=0.8)
    volume = ct([(LIVER, 80)], SHAPE, affine)
    engine = opened(made(tmp_path / "b", ByValue()), volume)
    with pytest.raises(Refused, match="tilted"):
        engine.segment(engine.prepare(volume), (Click((14, 20, 7)),))


# ---- beside MONAI itself, where it is installed ----------------------------------------------------------------------

monai = pytest.mark.skipif(find_spec("monai") is None, reason="monai is not installed")


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


@monai
def test_a_state_dict_goes_into_a_known_network_and_a_pickle_is_refused(tmp_path, volume) -> None:
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    network = UNet(3, 1, 3, channels=[4, 8], strides=[2], num_res_units=1, norm="batch").eval()
    folder = made(tmp_path / "b")
    torch.save({"model": network.state_dict()}, folder / "models" / "model.pt")
    engine = opened(folder, volume)
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(engine._network(x), network(x))
    engine.segment(engine.prepare(volume), (Click((34, 20, 7)),))
    torch.save({"model": Evil()}, folder / "models" / "model.pt")
    with pytest.raises(Refused, match="damaged"):
        opened(folder, volume)


@monai
@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("network_def", None, "no network_def"),
        ("network_def/_target_", "os.system", "none that is built here"),
        ("network_def/_target_", "mine.UNet", "none that is built here"),
        ("network_def/channels", "$[4, 8]", "expressions are not run"),
        ("network_def/norm", {"_target_": "mine.Norm"}, "builds other objects"),
    ],
)
def test_a_network_that_is_not_known_is_not_built(tmp_path, volume, path, value, said) -> None:
    folder = made(tmp_path / "b", inference=changed(INFERENCE, path, value))
    torch.save({}, folder / "models" / "model.pt")
    with pytest.raises(Refused, match=said):
        opened(folder, volume)


@monai
@pytest.mark.parametrize(
    "steps",
    [
        INFERENCE["preprocessing"]["transforms"][2:5],
        [
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 1.5], "mode": "bilinear"},
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True},
            {"_target_": "ScaleIntensityd", "keys": "image", "minv": -1.0, "maxv": 1.0},
        ],
    ],
)
def test_the_steps_give_what_monais_give(tmp_path, volume, steps) -> None:
    from monai.data import MetaTensor
    from monai.transforms import (
        Compose,
        NormalizeIntensityd,
        Orientationd,
        ScaleIntensityd,
        ScaleIntensityRanged,
        Spacingd,
    )

    from core_models.study.nifti import ras_affine

    named = {
        c.__name__: c for c in (NormalizeIntensityd, Orientationd, ScaleIntensityd, ScaleIntensityRanged, Spacingd)
    }
    config = INFERENCE | {"preprocessing": steps}
    array = torch.from_numpy(volume.array.transpose(2, 1, 0).astype(np.float32).copy())[None]
    given = {"image": MetaTensor(array, torch.from_numpy(ras_affine(volume)))}
    made_steps = []
    for step in steps:
        arguments = {k: (config[v[1:]] if isinstance(v, str) and v.startswith("@") and k == "pixdim" else v)
                     for k, v in step.items() if k not in ("_target_", "keys")}  # fmt: skip
        made_steps.append(named[step["_target_"]](keys="image", **arguments))
    theirs = Compose(made_steps)(given)["image"]
    ours = monai_bundle.prepared_image(monai_bundle.to_image(volume), tuple(bundle._steps(config)))
    import SimpleITK as sitk

    values = sitk.GetArrayFromImage(ours).transpose(2, 1, 0)
    assert values.shape == tuple(theirs.shape[1:])
    np.testing.assert_allclose(values, theirs[0].numpy(), atol=2e-3)


@monai
def test_the_windows_give_what_monais_inferer_gives() -> None:
    from monai.inferers import sliding_window_inference

    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 3, padding=1).eval()
    values = torch.randn(21, 13, 30)
    plain = bundle.Bundle("t", "1", "CT", (), (16, 16, 16), 0.5, False, {1: "a"}, 2, True, None, Path("x"))
    with torch.inference_mode():
        ours = monai_bundle.slid(network, values, plain, torch.device("cpu"), lambda: False)
        theirs = sliding_window_inference(values[None, None], (16, 16, 16), 4, network, overlap=0.5)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
