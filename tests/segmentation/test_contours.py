"""Contours enclose the pixel centres that the mask sets, and no others, holes and all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw
from skimage.draw import polygon2mask

from core_models.segmentation.attached import lay
from core_models.segmentation.contours import contours, parts
from core_models.segmentation.engine import Mask
from core_models.study.attachments import Attachment, Drawing
from core_models.study.study import Patient
from core_models.study.volume import SourceLayout, Volume
from tests.segmentation.phantoms import affine_of, ellipsoid


def crossings(ring: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Even-odd by ray casting, written out: bool (rows, columns) of the pixel centres inside a ring."""
    rows, columns = np.indices(shape)
    inside = np.zeros(shape, bool)
    nudged = rows + 1e-7  # so that no ray runs along a channel
    for (r0, c0), (r1, c1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if r0 == r1:
            continue
        at = c0 + (nudged - r0) / (r1 - r0) * (c1 - c0)
        inside ^= ((r0 > nudged) != (r1 > nudged)) & (columns < at)
    return inside


def filled(plane: np.ndarray, fill) -> np.ndarray:
    out = np.zeros(plane.shape, bool)
    for ring in parts(plane):
        out ^= fill(ring, plane.shape)
    return out


def drawn(ring: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A painter's fill (PIL) on a grid four times as fine, read at the pixel centres."""
    image = Image.new("1", (shape[1] * 4 + 4, shape[0] * 4 + 4))
    ImageDraw.Draw(image).polygon([(c * 4 + 4, r * 4 + 4) for r, c in ring.tolist()], fill=1)
    return np.asarray(image)[4::4, 4::4][: shape[0], : shape[1]]


@settings(max_examples=150, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_any_plane_comes_back_pixel_for_pixel(plane: np.ndarray) -> None:
    np.testing.assert_array_equal(filled(plane, crossings), plane)
    np.testing.assert_array_equal(filled(plane, lambda ring, shape: polygon2mask(shape, ring)), plane)


def test_nested_holes_islands_and_holes_side_by_side() -> None:
    plane = np.zeros((30, 40), bool)
    plane[2:28, 2:38] = True
    plane[5:12, 5:12] = False
    plane[7:9, 7:9] = True  # an island in a hole is a part of its own
    plane[5:12, 14:20] = False
    plane[14:25, 5:30] = False
    plane[16:20, 8:26] = True
    plane[17, 10:24] = False
    rings = list(parts(plane))
    assert len(rings) == 3
    for fill in (crossings, lambda ring, shape: polygon2mask(shape, ring), drawn):
        np.testing.assert_array_equal(filled(plane, fill), plane)


def test_points_on_straight_lines_are_left_out() -> None:
    plane = np.zeros((40, 40), bool)
    plane[5:35, 5:35] = True
    (ring,) = parts(plane)
    assert len(ring) == 8


@pytest.mark.parametrize(
    "layout",
    [
        SourceLayout(),
        SourceLayout(flips=(True, False, True)),
        SourceLayout((1, 0, 2), (False, True, False)),
        SourceLayout((2, 0, 1), (True, True, True)),
    ],
)
@pytest.mark.parametrize("shear", [None, 0.9])
def test_a_curved_shape_comes_back_whole_whatever_the_scans_orientation(layout, shear) -> None:
    shape, affine = (14, 31, 35), affine_of((2.5, 0.8, 0.7), shear)
    full = ellipsoid(shape, affine, (17, 15, 7), (9, 8, 13)) & ~ellipsoid(shape, affine, (17, 15, 7), (5, 4, 6))
    volume = Volume(np.zeros(shape, np.int16), affine, "CT", "HU", layout=layout)
    made = list(contours(volume, Mask.from_full(full)))
    assert [c.slice for c in made] == sorted(c.slice for c in made)
    source = layout.to_source(full)
    assert {c.slice for c in made} == set(np.flatnonzero(source.any(axis=(1, 2))).tolist())
    found = Attachment("RTSTRUCT", "a", "1", Patient(), (), (Drawing("x", (), tuple(c.points for c in made)),))
    (one,) = lay(found, volume, {})
    np.testing.assert_array_equal(one.mask.full(), full)
