"""The frame rate of a multi-frame file, from whichever element of its header says it."""

from __future__ import annotations

import numpy as np
import pytest

from core_models.study.cine import frame_rate
from tests.builders import dataset, encoded


def write(path, **attributes):
    path.write_bytes(encoded(dataset(np.zeros((4, 6), np.uint8), **{"NumberOfFrames": "1", **attributes})))
    return path


@pytest.mark.parametrize(
    ("attributes", "rate"),
    [
        ({"CineRate": "25"}, 25.0),
        ({"RecommendedDisplayFrameRate": "15", "CineRate": "25"}, 15.0),
        ({"FrameTime": "40"}, 25.0),
        ({"FrameTimeVector": ["0", "100", "100", "100"]}, 10.0),
        ({"CineRate": "0", "FrameTime": "50"}, 20.0),
        ({"FrameTime": "0.1"}, 60.0),
        ({"FrameTime": "5000"}, 1.0),
        ({}, None),
        ({"FrameTime": "0"}, None),
    ],
)
def test_the_rate_is_read(tmp_path, attributes, rate):
    assert frame_rate(write(tmp_path / "a", **{**attributes, "NumberOfFrames": "4"})) == rate


def test_a_single_frame_and_a_file_that_is_none_have_no_rate(tmp_path):
    assert frame_rate(write(tmp_path / "a", CineRate="25")) is None
    (tmp_path / "b").write_bytes(b"not a file")
    assert frame_rate(tmp_path / "b") is None
    assert frame_rate(tmp_path / "missing") is None
