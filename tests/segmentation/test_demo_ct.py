"""The default engine on the demo CT, against its organ labels; thresholds are measured values less a margin."""

import numpy as np
import pytest

from core_models.segmentation import registry
from core_models.segmentation.engine import Mask
from core_models.segmentation.judging import reader
from core_models.segmentation.naming import labels
from core_models.study.intake import read_scan


@pytest.fixture(scope="module")
def scan(demo_ct):
    """(volume, label map, engine, prepared) of the demo CT."""
    volume = read_scan(demo_ct)[0].series[0].volume
    label_volume = read_scan(demo_ct.with_name("mask.nii.gz"))[0].series[0].volume
    assert np.allclose(volume.affine, label_volume.affine)
    engine = registry.engine_for(volume)
    return volume, label_volume.array, engine, engine.prepare(volume)


# Measured on the whole scan at 1 and 3 clicks: spleen .92 .91, liver .84 .88, left lung .97 .97, left kidney .91 .94.
@pytest.mark.parametrize(
    ("values", "at_one", "at_three"),
    [((1,), 0.87, 0.87), ((5,), 0.79, 0.83), ((10, 11), 0.94, 0.94), ((3,), 0.85, 0.88)],
    ids=["spleen", "liver", "left lung", "left kidney"],
)
def test_clicks_reach_the_measured_overlap(scan, values, at_one, at_three):
    volume, label_map, engine, prepared = scan
    target = Mask.from_full(reader.largest_part(np.isin(label_map, values)))
    trace = reader.read(engine, prepared, target, volume.spacing, 3)
    assert trace.dice[0] >= at_one
    assert trace.dice[2] >= at_three


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("spleen", (1,)),
        ("right kidney", (2,)),
        ("left kidney", (3,)),
        ("liver", (5,)),
        ("left lung", (10, 11)),
        ("right lung", (12, 13, 14)),
        ("trachea", (16,)),
        ("heart", (51,)),
        ("aorta", (52,)),
        ("vertebra", (31,)),
    ],
)
def test_the_suggested_name_is_the_organs(scan, name, values):
    volume, label_map, _, _ = scan
    assert labels.suggest(volume, Mask.from_full(np.isin(label_map, values))).label == name
