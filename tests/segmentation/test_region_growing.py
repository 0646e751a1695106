"""The lazy baseline: connected voxels of nearly the clicked value, and nothing else."""

import numpy as np

from core_models.segmentation.engine import Click
from core_models.segmentation.region_growing import RegionGrowing
from core_models.study.volume import Volume


def _volume() -> Volume:
    array = np.full((10, 20, 30), -1000, np.int16)
    array[2:8, 4:16, 3:12] = 50
    array[2:8, 4:16, 18:27] = 60  # the same tissue, not connected
    array[4:6, 8:12, 5:9] = 300  # something else inside
    return Volume(array, np.eye(4), modality="CT", unit="HU")


def test_a_click_takes_its_own_connected_tissue() -> None:
    volume, engine = _volume(), RegionGrowing()
    mask = engine.segment(engine.prepare(volume), (Click((10, 6, 3)),)).mask.full()
    assert mask[3, 6, 10]
    assert not mask[:, :, 15:].any()
    assert not mask[5, 10, 7], "300 HU is far from 50"


def test_a_removing_click_takes_its_tissue_away() -> None:
    volume, engine = _volume(), RegionGrowing()
    prepared = engine.prepare(volume)
    both = (Click((10, 6, 3)), Click((20, 6, 3)))
    assert engine.segment(prepared, both).mask.full()[3, 6, 20]
    removed = engine.segment(prepared, (*both, Click((21, 7, 3), positive=False))).mask.full()
    assert removed[3, 6, 10]
    assert not removed[3, 6, 20]
