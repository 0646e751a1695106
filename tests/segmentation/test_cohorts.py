"""What may be trained on and what judges are apart, by patient and, in the demo CT, by height."""

import numpy as np
import pytest

from core_models.segmentation import cohorts
from webapp import settings

DATA = settings.load().data


def test_no_voxel_of_the_judged_part_of_the_demo_ct_is_in_the_part_that_trains(demo_ct, tmp_path):
    upper, lower = cohorts.cases(tmp_path, (demo_ct, demo_ct.with_name("mask.nii.gz")))
    assert (upper.side, lower.side) == ("train", "test")
    above, below = upper.load()[0], lower.load()[0]
    assert above.affine[2, 3] - below.affine[2, 3] == pytest.approx(np.ceil(cohorts.CUT_MM / 2.5) * 2.5)
    assert below.affine[2, 3] + (below.shape[0] - 1) * below.spacing[0] < above.affine[2, 3]
    labels = lower.load()[1]
    assert all(lower.mask(labels, values).any() for values in cohorts.DEMO_TARGETS.values())


@pytest.mark.skipif(not (DATA / "acdc").is_dir(), reason="the data folder is not here")
def test_no_patient_is_on_two_sides():
    sides: dict[tuple[str, str], set[str]] = {}
    names = set()
    for case in cohorts.cases(DATA, None):
        patient = case.name.split("_")[0] if case.cohort == "acdc" else case.name
        sides.setdefault((case.cohort, patient), set()).add(case.side)
        names.add((case.cohort, case.name, case.side))
    assert all(len(own) == 1 for own in sides.values())
    for cohort in ("acdc", "la2018", "jsrt"):
        assert {s for (c, _), own in sides.items() for s in own if c == cohort} >= {"train", "test"}


def test_bit_flags_may_overlap():
    case = cohorts.Case("jsrt", "made", "test", lambda: None, cohorts.CHEST, flags=True)
    labels = np.array([[[0, 1, 9, 8]]], np.uint8)
    assert case.mask(labels, (1,)).tolist() == [[[False, True, True, False]]]
    assert case.mask(labels, (8,)).tolist() == [[[False, False, True, True]]]
