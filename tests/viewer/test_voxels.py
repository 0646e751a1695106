"""What the viewer decodes from the sent codes is what the volume holds, for every type of voxel."""

from __future__ import annotations

import gzip
import zlib

import numpy as np
import pytest

from core_models.errors import NotFound
from core_models.study.volume import Volume
from webapp.viewer import voxels
from webapp.viewer.voxels import Packed, chunks, coding_of, slice_bytes

SHAPE = (6, 7, 9)


def _volume(array: np.ndarray) -> Volume:
    return Volume(array, np.eye(4))


def _random(low: float, high: float, dtype: type) -> Volume:
    values = np.random.default_rng(7).uniform(low, high, SHAPE)
    values.flat[0], values.flat[1] = low, high  # both ends of the range are there
    return _volume(values.astype(dtype))


def _decoded(volume: Volume) -> np.ndarray:
    coding = coding_of(volume)
    raw = np.frombuffer(b"".join(chunks(volume, coding)), "<i2")
    z, y, x = volume.shape
    s = coding.stride
    return raw.reshape(z, -(-y // s), -(-x // s)) * coding.slope + coding.intercept


@pytest.mark.parametrize(
    "volume",
    [
        _random(-32768, 32767, np.int16),
        _random(0, 255, np.uint8),
        _random(0, 65535, np.uint16),
        _volume(np.rint(_random(-1000, 3000, np.float32).array)),
    ],
    ids=["int16", "uint8", "uint16", "whole numbers in float32"],
)
def test_whole_numbers_come_back_exactly(volume: Volume) -> None:
    assert np.array_equal(_decoded(volume), volume.array.astype(np.float64))


@pytest.mark.parametrize(("low", "high"), [(-1.5, 2.25), (0.0, 1e-6), (-3e8, 5e9), (40000.5, 40001.5)])
def test_float_values_come_back_within_half_a_step(low: float, high: float) -> None:
    volume = _random(low, high, np.float32)
    error = np.abs(_decoded(volume) - volume.array.astype(np.float64)).max()
    assert error <= coding_of(volume).slope * 0.5 * (1 + 1e-6)
    assert coding_of(volume).slope == pytest.approx((high - low) / 65535, rel=1e-2)


def test_a_constant_float_volume_comes_back() -> None:
    assert np.allclose(_decoded(_volume(np.full(SHAPE, 0.3, np.float32))), 0.3, rtol=1e-6)


def test_what_is_no_number_leaves_the_others_alone() -> None:
    array = _random(-1.5, 2.25, np.float32).array.copy()
    array[2, 3, 4], array[2, 3, 5], array[2, 3, 6] = np.nan, np.inf, -np.inf
    finite = np.isfinite(array)
    decoded = _decoded(_volume(array))
    assert np.allclose(decoded[finite], array[finite], atol=1e-4)
    assert decoded.min() >= -1.51
    assert decoded.max() <= 2.26
    nothing = np.full(SHAPE, np.nan, np.float32)
    assert np.array_equal(_decoded(_volume(nothing)), np.zeros(SHAPE))


def test_a_volume_too_large_is_sent_with_every_second_voxel_in_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = _random(-1000, 1000, np.int16)
    assert coding_of(volume).stride == 1
    monkeypatch.setattr(voxels, "REDUCE_ABOVE", volume.array.size)
    assert coding_of(volume).stride == 2
    assert np.array_equal(_decoded(volume), volume.array[:, ::2, ::2])
    plane = np.frombuffer(slice_bytes(volume, coding_of(volume), 3), "<i2").reshape(4, 5)
    assert np.array_equal(plane, volume.array[3, ::2, ::2])


@pytest.mark.parametrize("k", [-1, SHAPE[0]])
def test_there_are_no_slices_outside(k: int) -> None:
    volume = _random(0, 9, np.int16)
    with pytest.raises(NotFound, match="counted from 0"):
        slice_bytes(volume, coding_of(volume), k)


def test_the_gzip_stream_holds_the_raw_bytes_also_when_it_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxels, "CHUNK", SHAPE[1] * SHAPE[2] * 2 * 4)  # pieces of four slices: the last one is short
    volume = _random(0, 65535, np.uint16)
    coding = coding_of(volume)
    plain = b"".join(chunks(volume, coding))
    assert [len(piece) for piece in chunks(volume, coding)] == [4 * 126, 2 * 126]
    packed = Packed()
    first = b"".join(packed.gzip("a", volume, coding))
    kept = list(packed.gzip("a", volume, coding))
    assert gzip.decompress(first) == plain
    assert kept == [first]


def test_kept_streams_stay_within_their_room() -> None:
    volume = _random(0, 65535, np.uint16)
    coding = coding_of(volume)
    size = len(b"".join(Packed().gzip("a", volume, coding)))
    packed = Packed(room=size)
    for key in ("a", "b"):
        list(packed.gzip(key, volume, coding))
    assert list(packed._held) == ["b"], "the older one makes room"
    small = Packed(room=size - 1)
    assert zlib.decompress(b"".join(small.gzip("a", volume, coding)), 31) == b"".join(chunks(volume, coding))
    assert not small._held, "what does not fit is not kept"
