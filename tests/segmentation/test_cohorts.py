"""What may be trained on and what judges are apart, by patient and, in the demo CT, by height."""

import numpy as np
import pytest

from core_models.segmentation import cohorts
from core_models.segmentation.clicks import train_choice, train_clicks
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


def test_a_quarter_of_the_structures_is_kept_from_the_network(demo_ct, tmp_path, monkeypatch):
    """They tell whether it is better on what trained it; no test side fits the chooser."""
    upper, lower = cohorts.cases(tmp_path, (demo_ct, demo_ct.with_name("mask.nii.gz")))
    labels = {int(n) for n in np.unique(upper.load()[1]) if n}
    back = {n for n in labels if cohorts.kept_back(upper, n)}
    assert 0.15 < len(back) / len(labels) < 0.35
    (source,) = train_clicks.sources(tmp_path, (demo_ct, demo_ct.with_name("mask.nii.gz")), 0, lambda *_: None)
    trained = {int(n) for n in source.labels.unique() if n}
    assert trained
    assert not trained & back
    assert not set(source.deep) & back
    asked = []
    monkeypatch.setattr(train_choice, "_of_case", lambda case, net: asked.append((case.name, case.side)) or [])
    train_choice.pairs([upper, lower, *(_made("acdc", side) for side in ("train", "validation", "test"))], None, _quiet)
    assert asked == [("demo-ct upper", "train"), ("made", "validation")]


def _made(cohort, side):
    return cohorts.Case(cohort, "made", side, lambda: None)


def _quiet(*_):
    pass


def test_bit_flags_may_overlap():
    case = cohorts.Case("jsrt", "made", "test", lambda: None, cohorts.CHEST, flags=True)
    labels = np.array([[[0, 1, 9, 8]]], np.uint8)
    assert case.mask(labels, (1,)).tolist() == [[[False, True, True, False]]]
    assert case.mask(labels, (8,)).tolist() == [[[False, False, True, True]]]
