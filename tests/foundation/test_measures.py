"""Measures of radiograph structures on phantoms whose numbers are known by construction."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from core_models.errors import Refused
from core_models.foundation.measures import measure
from core_models.segmentation.engine import Mask

ROWS, COLUMNS = 100, 120


def box(rows: tuple[int, int], columns: tuple[int, int], shape: tuple[int, int] = (ROWS, COLUMNS)) -> np.ndarray:
    """A plane with one box set; ends exclusive."""
    plane = np.zeros(shape, bool)
    plane[slice(*rows), slice(*columns)] = True
    return plane


def mask(plane: np.ndarray) -> Mask:
    return Mask.from_full(plane[None])


EMPTY = Mask((0, 0, 0), np.zeros((0, 0, 0), bool), (1, ROWS, COLUMNS))
RIGHT = mask(box((10, 80), (10, 50)))
LEFT = mask(box((10, 80), (70, 110)))
HEART = mask(box((40, 80), (40, 90)))
CHEST = {"heart": HEART, "right lung": RIGHT, "left lung": LEFT}


def values(masks: dict[str, Mask], spacing: tuple[float, float] | None = None) -> dict[str, float]:
    return {m.key: m.value for m in measure(masks, spacing)}


def test_the_ratio_of_boxes_is_width_over_width() -> None:
    (ctr, ratio) = measure(CHEST, None)
    assert (ctr.key, ctr.words, ctr.region, ctr.unit) == ("cardiothoracic_ratio", "cardiothoracic ratio", "heart", "")
    assert ctr.value == pytest.approx(50 / 100)
    assert ctr.point == ((40 + 89) / 2, (40 + 79) / 2)
    assert (ratio.key, ratio.value, ratio.unit) == ("lung_area_ratio", 1.0, "")
    heart, thorax = ctr.calipers
    assert (heart.words, heart.start, heart.end) == ("heart", (40, 59.5), (89, 59.5))
    assert (thorax.words, thorax.start, thorax.end) == ("thorax", (10, 10), (109, 10))


def test_right_and_left_extents_of_the_heart_may_lie_at_different_levels() -> None:
    heart = mask(box((40, 50), (45, 62)) | box((70, 80), (58, 95)))
    assert values(CHEST | {"heart": heart})["cardiothoracic_ratio"] == pytest.approx((95 - 45) / 100)


def test_the_thorax_is_measured_in_the_row_where_it_is_widest_not_from_border_to_border() -> None:
    # The right lung reaches farthest out above, the left one below: no single row spans both borders.
    right = mask(box((10, 80), (20, 50)) | box((10, 40), (10, 50)))
    left = mask(box((10, 80), (70, 100)) | box((50, 80), (70, 116)))
    (ctr, _) = measure(CHEST | {"right lung": right, "left lung": left}, None)
    assert ctr.value == pytest.approx(50 / 96)
    assert (ctr.calipers[1].start, ctr.calipers[1].end) == ((20, 50), (115, 50)), "shown where it was measured"


def test_a_mirrored_image_has_the_same_ratio() -> None:
    flipped = {label: mask(m.full()[0][:, ::-1]) for label, m in CHEST.items()}
    assert values(flipped) == values(CHEST)


def test_the_pixel_size_changes_areas_and_never_the_ratios() -> None:
    plain, sized = values(CHEST), values(CHEST, (0.5, 0.2))
    assert sized["cardiothoracic_ratio"] == plain["cardiothoracic_ratio"]
    assert sized["lung_area_ratio"] == plain["lung_area_ratio"]
    assert sized["lung_area_right"] == pytest.approx(70 * 40 * 0.5 * 0.2 / 100)
    assert "lung_area_right" not in plain


def test_asymmetry_is_right_over_left() -> None:
    small = mask(box((10, 45), (70, 110)))
    found = {m.key: m for m in measure(CHEST | {"left lung": small}, (1.0, 1.0))}
    assert found["lung_area_ratio"].value == pytest.approx(2.0)
    assert found["lung_area_left"].value == pytest.approx(35 * 40 / 100)
    assert found["lung_area_left"].unit == "cm²"
    assert found["lung_area_left"].region == "lungs"


@pytest.mark.parametrize("gone", ["right lung", "left lung"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_a_missing_lung_leaves_out_what_needs_it(gone: str, how: str) -> None:
    masks = {k: v for k, v in CHEST.items() if k != gone} | ({gone: EMPTY} if how == "empty" else {})
    side = "left" if gone == "right lung" else "right"
    assert set(values(masks, (1.0, 1.0))) == {f"lung_area_{side}"}
    assert values(masks) == {}


def test_nothing_measured_from_nothing_or_from_others() -> None:
    assert measure({}, (1.0, 1.0)) == ()
    assert measure({"heart": HEART, "liver": RIGHT}, (1.0, 1.0)) == ()
    assert measure({"heart": EMPTY, "right lung": EMPTY, "left lung": EMPTY}, None) == ()
    assert set(values({"right lung": RIGHT, "left lung": LEFT})) == {"lung_area_ratio"}


def test_lungs_that_share_no_row_are_still_measured() -> None:
    right, left = mask(box((10, 40), (10, 50))), mask(box((50, 80), (70, 110)))
    assert values(CHEST | {"right lung": right, "left lung": left})["cardiothoracic_ratio"] == pytest.approx(0.5)


def test_masks_of_other_images_or_of_a_stack_are_refused() -> None:
    other = mask(box((1, 2), (1, 2), (50, 50)))
    with pytest.raises(Refused, match="different sizes"):
        measure(CHEST | {"heart": other}, None)
    stack = Mask.from_full(np.ones((2, 4, 4), bool))
    with pytest.raises(Refused, match="one radiograph"):
        measure({"heart": stack}, None)


def test_measuring_needs_no_torch() -> None:
    code = "import sys, core_models.foundation.measures; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
