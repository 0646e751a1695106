"""Measuring in Chromium: by mouse and keyboard, stored as drawn, moved, deleted, undone in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core_models.segmentation.lines import measure
from core_models.study.volume import Volume
from tests.viewer.harness import SPACING, ct, radiograph
from tests.viewer.screen import BODY, Screen

pytestmark = pytest.mark.browser


@pytest.fixture
def tool(view: Screen):
    """A viewer with one axial image, and a drag between two voxels with a tool."""
    view.layout("single")

    def drag(key: str, a: tuple[int, int, int], b: tuple[int, int, int]) -> None:
        view.page.keyboard.press(key)
        view.page.mouse.move(*view.point("axial", a))
        view.page.mouse.down()
        view.page.mouse.move(*view.point("axial", b), steps=4)
        view.page.mouse.up()

    yield drag
    view.page.evaluate("window.__viewer.viewer.setTool('segment')")


def rows(view: Screen, count: int) -> list[Any]:
    view.until(
        f"viewer.annotations.rows.length === {count} && !viewer.annotations.drawing && !viewer.annotations.saving.size"
    )
    stored = view.harness.store.annotations(view.study.id)
    assert [row.id for row in stored] == [row["id"] for row in view.state("annotations")]
    return list(stored)


def test_a_length_is_stored_where_it_was_drawn_and_outlives_a_reload(view: Screen, tool) -> None:
    tool("m", (10, 20, 10), (30, 20, 10))
    (row,) = rows(view, 1)
    assert (row.kind, row.plane) == ("length", "axial")
    np.testing.assert_allclose(row.points, [(10, 20, 10), (30, 20, 10)], atol=0.1)
    assert row.numbers[0].value == pytest.approx(20 * SPACING[0], abs=0.15)
    assert view.harness.changes[-1] == view.study.id, "the board hears of it"
    view.open(ct())
    view.until("viewer.annotations.rows.length === 0")
    view.page.evaluate(
        "async (id) => { const { emit } = await import('/static/js/bus.js');"
        " emit('study:open', await (await fetch(`/api/studies/${id}`)).json()); }",
        view.study.id,
    )
    view.until("viewer.annotations.rows.length === 1 && viewer.stored")
    assert view.state("annotations")[0]["id"] == row.id


def test_what_is_shown_while_drawing_is_what_is_stored(view: Screen, tool) -> None:
    tool("e", (12, 8, 10), (40, 30, 10))
    tool("m", (5, 6, 10), (50, 33, 10))
    ellipse, line = rows(view, 2)
    for row in (ellipse, line):
        live = view.page.evaluate(
            "async ([kind, points]) => { const { measure } = await import('/static/js/viewer/lines.js');"
            " const found = measure(window.__viewer.viewer, kind, 'axial', points);"
            " return found.map(({ key, value, unit }) => [key, value, unit]); }",
            [row.kind, [list(p) for p in row.points]],
        )
        assert [(k, u) for k, _, u in live] == [(n.key, n.unit) for n in row.numbers]
        assert [v for _, v, _ in live] == pytest.approx([n.value for n in row.numbers], rel=1e-6)
        assert measure(ct(), row.kind, row.plane, row.points) == row.numbers


def test_an_angle_by_a_drag_and_a_click_and_a_value_by_a_click(view: Screen, tool) -> None:
    tool("q", (10, 20, 10), (30, 20, 10))
    view.click("axial", (30, 10, 10))
    (angle,) = rows(view, 1)
    assert angle.numbers[0].value == pytest.approx(90, abs=0.6)
    view.page.keyboard.press("d")
    view.click("axial", (*BODY[:2], 10))
    assert rows(view, 2)[1].numbers[0].value == 40


def test_click_and_click_draws_too_and_escape_gives_up(view: Screen, tool) -> None:
    view.page.keyboard.press("m")
    view.click("axial", (10, 12, 10))
    view.hover("axial", (22, 12, 10))
    assert view.page.evaluate("window.__viewer.viewer.annotations.drawing.points.length") == 2
    view.page.keyboard.press("Escape")
    assert view.page.evaluate("window.__viewer.viewer.annotations.drawing") is None
    view.click("axial", (10, 12, 10))
    view.click("axial", (25, 12, 10))
    (row,) = rows(view, 1)
    assert row.numbers[0].value == pytest.approx(15 * SPACING[0], abs=0.15)


def test_everything_is_measured_without_a_mouse(view: Screen, tool) -> None:
    view.hover("axial")
    view.goto((20, 20, 10))
    view.page.keyboard.press("m")
    view.page.keyboard.press("Enter")
    for _ in range(10):
        view.page.keyboard.press("Shift+ArrowRight")
    for _ in range(5):
        view.page.keyboard.press("Shift+ArrowDown")
    assert view.state("position") == [30, 25, 10]
    view.page.keyboard.press("Enter")
    (row,) = rows(view, 1)
    assert row.points == ((20, 20, 10), (30, 25, 10))
    assert row.numbers[0].value == pytest.approx(np.hypot(10 * SPACING[0], 5 * SPACING[1]))
    view.page.keyboard.press("Delete")
    rows(view, 0)
    view.page.keyboard.press("s")
    view.page.keyboard.press("Enter")
    view.until("viewer.masks.byId.size === 1")
    assert [c.index for c in view.harness.store.segments(view.study.id)[0].clicks] == [(30, 25, 10)]


def test_undo_goes_back_through_clicks_and_measurements_in_their_order(view: Screen, tool) -> None:
    tool("m", (10, 20, 10), (30, 20, 10))
    rows(view, 1)
    view.page.keyboard.press("s")
    view.click("axial", (20, 16, 10))
    view.until("viewer.activeRow?.clicks.length === 1")
    tool("m", (10, 25, 10), (40, 25, 10))
    rows(view, 2)

    def state() -> tuple[int, int]:
        segments = view.harness.store.segments(view.study.id)
        return len(view.harness.store.annotations(view.study.id)), sum(len(s.clicks) for s in segments)

    for key, expected in [
        ("Control+z", (1, 1)),
        ("u", (1, 0)),
        ("Control+z", (0, 0)),
        ("Control+Shift+z", (1, 0)),
        ("Control+y", (1, 1)),
        ("Control+Shift+z", (2, 1)),
    ]:
        view.page.keyboard.press(key)
        view.until(
            f"viewer.annotations.rows.length === {expected[0]} && "
            f"viewer.allRows.reduce((n, row) => n + row.clicks.length, 0) === {expected[1]}"
        )
        assert state() == expected, key


def test_a_point_is_moved_and_the_move_and_the_deletion_are_undone(view: Screen, tool) -> None:
    tool("m", (10, 20, 10), (30, 20, 10))
    (before,) = rows(view, 1)
    view.page.mouse.move(*view.point("axial", (30, 20, 10)))
    view.page.mouse.down()
    view.page.mouse.move(*view.point("axial", (30, 30, 10)), steps=4)
    view.page.mouse.up()
    view.until("viewer.annotations.rows[0].points[1][1] > 29")
    (moved,) = rows(view, 1)
    assert moved.id == before.id
    assert moved.numbers[0].value == pytest.approx(np.hypot(20 * SPACING[0], 10 * SPACING[1]), abs=0.2)
    view.page.keyboard.press("Delete")
    rows(view, 0)
    view.page.keyboard.press("u")
    assert rows(view, 1)[0].points == moved.points
    view.page.keyboard.press("u")
    view.until("viewer.annotations.rows[0].points[1][1] < 21")
    assert rows(view, 1)[0].points == before.points


def test_it_is_drawn_on_its_own_slice_only_and_marked_on_the_slider(view: Screen, tool) -> None:
    tool("m", (10, 27, 10), (50, 27, 10))
    (row,) = rows(view, 1)
    view.hover("axial", (3, 3, 10))
    view.page.evaluate("window.__viewer.viewer.annotations.select(null)")
    assert view.pixel("axial", (30, 27, 10))[2] < 160, "yellow"
    assert view.page.evaluate("window.__viewer.viewer.annotations.marks('axial')") == [{"slice": 10, "chosen": False}]
    view.goto((30, 27, 9))
    view.page.evaluate("window.__viewer.viewer.crosshair = false")
    assert len(set(view.pixel("axial", (30, 27, 9)))) == 1
    view.page.evaluate("window.__viewer.viewer.crosshair = true")
    view.page.evaluate("(id) => window.__viewer.viewer.goto(null, null, id)", row.id)
    view.until("viewer.position[2] === 10")
    assert view.state("selected") == row.id


def test_without_spacing_it_says_pixels(view: Screen, tool) -> None:
    plain = ct()
    row = view.open(Volume(plain.array, plain.affine, modality="CT", unit="HU", spacing_known=False))
    view.layout("single")
    view.study = row
    tool("m", (10, 20, 10), (30, 20, 10))
    (drawn,) = rows(view, 1)
    assert (drawn.numbers[0].unit, drawn.numbers[0].value) == ("px", pytest.approx(20, abs=0.2))


def test_the_cardiothoracic_ratio_takes_two_lines_on_a_radiograph(view: Screen, tool) -> None:
    view.page.keyboard.press("k")
    assert view.state("tool") != "ratio", "not on a CT"
    view.study = view.open(radiograph())
    tool("k", (90, 150, 0), (160, 150, 0))
    view.page.wait_for_function(
        "document.querySelector('[data-plane=axial] .rr-top-left').textContent.includes('now the thorax')"
    )
    tool("k", (40, 200, 0), (180, 200, 0))
    (row,) = rows(view, 1)
    assert row.numbers[0].value == pytest.approx(0.5, abs=0.01)


def test_a_signed_study_is_not_measured(view: Screen, tool) -> None:
    view.page.evaluate("window.__viewer.viewer.study.state = 'signed'")
    tool("m", (10, 20, 10), (30, 20, 10))
    assert view.page.evaluate("window.__viewer.viewer.annotations.drawing") is None
    assert view.harness.store.annotations(view.study.id) == ()
