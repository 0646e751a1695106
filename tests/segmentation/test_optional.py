"""The rows of optional engines, and what a setting makes of them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from core_models.errors import ModelMissing, Refused
from core_models.segmentation import optional, registry
from core_models.segmentation.engine import Click
from core_models.study.volume import Volume
from tests.segmentation import foreign
from tests.segmentation.phantoms import affine_of, ct, ellipsoid


def test_importing_the_rows_loads_no_engine_and_no_heavy_library() -> None:
    code = (
        "import sys; from core_models.segmentation import optional; "
        "print([m for m in ('torch', 'transformers', 'numpy', 'SimpleITK') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_row_says_what_it_costs_what_its_licence_allows_and_how_to_get_it() -> None:
    names = [row.name for row in optional.OPTIONAL]
    assert len(set(names) | {row.name for row in registry.ENGINES}) == len(names) + len(registry.ENGINES)
    for row in optional.OPTIONAL:
        assert row.form.startswith(row.name)
        assert row.cost
        assert row.task
        assert row.obtain
        assert row.sends
        assert "commercial" in row.licence
    assert "CC BY-NC-SA 4.0: for non-commercial use only" in optional.row_of("nninteractive:http://x").licence


@pytest.mark.parametrize(
    "setting", ["", "watershed", "sam:/models/sam vit", "nninteractive:http://127.0.0.1:1527", "totalsegmentator",
                "totalsegmentator:~/weights", "monai:spleen", " watershed "]
)  # fmt: skip
def test_settings_that_have_the_form_are_taken_and_open_nothing(setting) -> None:
    assert callable(optional.chooser(setting))


@pytest.mark.parametrize(
    "setting", ["sam", "sam:", "sam: ", "monai", "nothing", ":x", "watershed:x", "Sam:/x", "nninteractive"]
)
def test_settings_of_another_form_are_refused_with_the_forms_that_there_are(setting) -> None:
    with pytest.raises(Refused, match=r"READING_ROOM_SEGMENTER is set to .* sam:FOLDER, nninteractive:http"):
        optional.chooser(setting)


def test_without_a_setting_the_registry_decides_and_a_name_of_its_own_is_insisted_on() -> None:
    volume = Volume(np.zeros((3, 4, 5), np.int16), np.eye(4), modality="CT", unit="HU")
    assert optional.chooser("") is registry.engine_for
    assert optional.chooser("watershed")(volume) is registry.engine("watershed")


@pytest.mark.parametrize(
    ("setting", "install", "licence"),
    [
        ("nninteractive:http://127.0.0.1:1527", "pip install nninteractive-client==", "non-commercial use only"),
        ("totalsegmentator", "pip install TotalSegmentator==", "Apache-2.0, commercial use allowed"),
    ],
)
def test_a_missing_engine_says_what_to_install_and_what_its_licence_allows(
    setting, install, licence, monkeypatch
) -> None:
    monkeypatch.setattr(optional, "_there", lambda package: package in ("httpx", "nibabel"))
    volume = Volume(np.zeros((3, 4, 5), np.int16), np.eye(4), modality="CT", unit="HU")
    with pytest.raises(ModelMissing) as caught:
        optional.chooser(setting)(volume)
    assert install in str(caught.value)
    assert licence in str(caught.value)


def test_a_modality_that_it_was_not_made_for_is_the_default_engines_and_the_answer_says_so(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.syspath_prepend(str(foreign.totalsegmentator(tmp_path, values=[])))
    shape, affine = (6, 40, 40), affine_of()
    made = ct([(ellipsoid(shape, affine, (20, 20, 3), (9, 9, 5)), 80)], shape, affine)
    volume = Volume(made.array, affine, modality="PT", unit="1")
    engine = optional.chooser("totalsegmentator")(volume)
    assert (engine.name, engine.version) == (registry.engine_for(volume).name, registry.engine_for(volume).version)
    answer = engine.segment(engine.prepare(volume), (Click((20, 20, 3)),))
    assert answer.note.endswith(f"totalsegmentator was not made for PT: {engine.name} answered.")
    assert not answer.mask.empty
