"""A package of TotalSegmentator's name and signature in a process of its own → picked organs."""

from __future__ import annotations

import inspect
import json
from importlib.util import find_spec

import numpy as np
import pytest

from core_models.errors import Cancelled, ModelMissing, Refused
from core_models.segmentation import optional
from core_models.segmentation.bigger.totalsegmentator import words
from core_models.segmentation.engine import Click
from core_models.study.volume import Volume
from tests.segmentation import foreign
from tests.segmentation.phantoms import affine_of, ct, ellipsoid

SHAPE = (8, 30, 34)
AFFINE = affine_of((3.0, 1.0, 1.0))
LIVER = ellipsoid(SHAPE, AFFINE, (10, 15, 4), (6, 6, 9))
KIDNEY = ellipsoid(SHAPE, AFFINE, (25, 15, 4), (5, 5, 6))
FAST, FULL = ("Dataset297_TotalSegmentator_total_3mm_1559subj",), tuple(
    f"Dataset{n}_TotalSegmentator_part" for n in (291, 292, 293, 294, 295)
)  # fmt: skip


@pytest.fixture
def volume() -> Volume:
    return ct([(LIVER, 100), (KIDNEY, 200)], SHAPE, AFFINE, noise=2.0)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """(package folder, weights folder) after `told`, which writes both."""

    def make(*datasets: str, **told):
        package = foreign.totalsegmentator(tmp_path / "packages", **told)
        monkeypatch.syspath_prepend(str(package))
        weights = tmp_path / "weights"
        for name in datasets:
            (weights / name).mkdir(parents=True)
        weights.mkdir(exist_ok=True)
        return package / "totalsegmentator", weights

    return make


def engine(weights, volume):
    return optional.chooser(f"totalsegmentator:{weights}", 1)(volume)


def test_all_organs_are_drawn_once_and_clicks_pick_among_them(installed, volume) -> None:
    package, weights = installed(*FAST, values=[[50, 5], [150, 2]])
    found = engine(weights, volume)
    prepared = found.prepare(volume)
    liver = found.segment(prepared, (Click((10, 15, 4)),))
    np.testing.assert_array_equal(liver.mask.full(), LIVER)
    assert liver.label == "liver"
    (package / "told.json").write_text("gone")  # it is not asked again
    kidney = found.segment(prepared, (Click((25, 15, 4)),))
    np.testing.assert_array_equal(kidney.mask.full(), KIDNEY)
    assert kidney.label == "right kidney"
    assert json.loads((package / "asked.json").read_text()) == {"task": "total", "fast": True, "axes": "LPS"}


@pytest.mark.parametrize(("datasets", "fast"), [(FAST, True), (FULL, False), ((*FAST, *FULL), True)])
def test_the_coarse_weights_are_used_on_a_processor_where_they_are_there(
    installed, volume, monkeypatch, datasets, fast
) -> None:
    monkeypatch.setattr("core_models.segmentation.bigger.totalsegmentator._graphics", lambda: False)
    package, weights = installed(*datasets, values=[[50, 5]])
    found = engine(weights, volume)
    found.segment(found.prepare(volume), (Click((10, 15, 4)),))
    assert json.loads((package / "asked.json").read_text())["fast"] is fast


def test_without_weights_it_says_how_to_get_them_and_fetches_nothing(installed, volume) -> None:
    _, weights = installed(values=[])
    with pytest.raises(ModelMissing, match=r"totalseg_download_weights -t total_fast.*Licence: .*Apache-2.0"):
        engine(weights, volume)
    (weights / FAST[0]).mkdir()
    with pytest.raises(ModelMissing, match="task total_mr"):
        engine(weights, volume).prepare(Volume(volume.array, AFFINE, modality="MR"))


@pytest.mark.parametrize("told", [{"fail": "out of memory"}, {"values": [[50, 5]], "turned": True}])
def test_what_fails_over_there_is_one_sentence_here(installed, volume, told, caplog) -> None:
    _, weights = installed(*FAST, **told)
    found = engine(weights, volume)
    prepared = found.prepare(volume)
    with pytest.raises(Refused, match="could not draw this series"):
        found.segment(prepared, (Click((10, 15, 4)),))
    assert ("out of memory" if "fail" in told else "shape") in caplog.text


def test_a_reader_who_does_not_wait_is_let_go_and_the_drawing_goes_on(installed, volume) -> None:
    _, weights = installed(*FAST, values=[[50, 5]])
    found = engine(weights, volume)
    prepared = found.prepare(volume)
    with pytest.raises(Cancelled):
        found.segment(prepared, (Click((10, 15, 4)),), lambda: True)
    assert not found.segment(prepared, (Click((10, 15, 4)),)).mask.empty


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kidney_right", "right kidney"),
        ("lung_upper_lobe_left", "left lung upper lobe"),
        ("esophagus", "oesophagus"),
        ("vertebrae_T12", "vertebrae T12"),
        ("clavicula_left", "left clavicle"),
    ],
)
def test_names_are_said_as_the_table_of_organs_says_them(name, said) -> None:
    assert words(name) == said


@pytest.mark.skipif(find_spec("totalsegmentator") is None, reason="TotalSegmentator is not installed")
def test_the_stand_in_has_the_signature_of_the_installed_one(tmp_path) -> None:
    from totalsegmentator import python_api

    namespace: dict = {}
    exec(foreign.TOTALSEGMENTATOR, namespace)
    real = inspect.signature(python_api.totalsegmentator).parameters
    assert set(inspect.signature(namespace["totalsegmentator"]).parameters) <= set(real)
