"""The plain data of the room: engines, prompt stacks, organ names and codes; and the scores."""

import subprocess
import sys

import numpy as np
import pytest

from core_models.drafting.evidence import REGIONS
from core_models.errors import NotFound
from core_models.segmentation import registry
from core_models.segmentation.engine import Click, Mask
from core_models.segmentation.history import History
from core_models.segmentation.naming import labels
from core_models.study.volume import Volume
from tests.segmentation.phantoms import affine_of, ct, ellipsoid


def test_the_registry_imports_nothing_heavy():
    code = (
        "import sys; from core_models.segmentation import registry; "
        "print([r.available for r in registry.ENGINES], "
        "[m for m in ('torch', 'SimpleITK', 'skimage', 'scipy', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == f"{[True] * len(registry.ENGINES)} []"


def test_every_row_leads_to_the_engine_it_names():
    for row in registry.ENGINES:
        engine = registry.engine(row.name)
        assert (engine.name, engine.version, engine.licence) == (row.name, row.version, row.licence)
        assert registry.engine(row.name) is engine
    with pytest.raises(NotFound, match="no segmentation engine 'nothing'"):
        registry.engine("nothing")


@pytest.mark.parametrize("modality", ["CT", "MR", "DX", "OT"])
def test_every_modality_has_a_default(modality):
    volume = Volume(np.zeros((1, 4, 4), np.int16), np.eye(4), modality)
    assert registry.engine_for(volume).name == registry.default_for(modality).name


def test_undo_and_redo_have_no_depth_limit():
    history = History()
    clicks = [Click((n, 0, 0), n % 2 == 0) for n in range(300)]
    for click in clicks:
        history = history.add(click)
    empty = history
    for _ in clicks:
        assert empty.can_undo
        empty = empty.undo()
    assert empty.done == ()
    assert not empty.can_undo
    assert empty.undo() is empty
    full = empty
    for _ in clicks:
        full = full.redo()
    assert full == history
    assert full.redo() is full


def test_a_new_click_ends_redo():
    history = History().add(Click((0, 0, 0))).add(Click((1, 0, 0))).undo().add(Click((2, 0, 0)))
    assert [c.index[0] for c in history.done] == [0, 2]
    assert not history.can_redo


def test_every_organ_has_a_region_and_a_code():
    assert len(set(labels.ORGANS)) == len(labels.ORGANS)
    for name in (*labels.ORGANS, "structure", "something typed"):
        code, meaning = labels.code_of(name)
        assert code.isdigit()
        assert meaning
        assert labels.region_of(name) in REGIONS
    assert labels.code_of("Spleen ") == ("78961009", "Spleen")
    assert labels.region_of("Liver") == "abdomen"
    assert labels.code_of("something typed")[0] == "91723000"
    assert set(labels.ORGANS) >= labels.MORPHOLOGICAL


@pytest.fixture(scope="module")
def chest():
    """A trunk with two lungs, a liver to the patient's right and a spine: 4 mm slices."""
    shape, affine = (70, 130, 150), affine_of((4.0, 2.0, 2.0))
    body = ellipsoid(shape, affine, (75, 65, 35), (140, 110, 2000))
    right = ellipsoid(shape, affine, (42, 62, 48), (50, 80, 75))
    left = ellipsoid(shape, affine, (108, 62, 48), (50, 80, 75))
    liver = ellipsoid(shape, affine, (45, 55, 14), (60, 60, 50)) & ~right
    spine = ellipsoid(shape, affine, (75, 100, 20), (18, 18, 20))
    volume = ct([(body, 0), (right, -850), (left, -850), (liver, 70), (spine, 300)], shape, affine, -1000)
    volume.array[spine] += (150 * (np.indices(shape).sum(axis=0)[spine] % 2)).astype(np.int16)
    return volume, {"right lung": right, "left lung": left, "liver": liver, "vertebra": spine}


def test_names_are_suggested_by_place_and_value(chest):
    volume, truth = chest
    for name, mask in truth.items():
        found = labels.suggest(volume, Mask.from_full(mask))
        assert found.label == name
        assert 0.3 <= found.confidence < 1


def test_unsure_is_said_so(chest):
    volume, truth = chest
    small = np.zeros(volume.shape, bool)
    small[30, 60:62, 74:77] = True
    assert labels.suggest(volume, Mask.from_full(small)) == labels.Suggestion("structure", 0.0)
    mr = Volume(volume.array, volume.affine, "MR", "1")
    assert labels.suggest(mr, Mask.from_full(truth["liver"])).label == "structure"
    unknown = Volume(volume.array, volume.affine, "CT", "HU", spacing_known=False)
    assert labels.suggest(unknown, Mask.from_full(truth["liver"])).label == "structure"
    empty = Mask.from_full(np.zeros(volume.shape, bool))
    assert labels.suggest(volume, empty).label == "structure"
