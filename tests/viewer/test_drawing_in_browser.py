"""The drawing tools in Chromium: what is shown while drawn is what is stored, on any plane, by pointer and by key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core_models.segmentation.editing import grown, interpolated, painted
from core_models.segmentation.edits import Grow, Interpolation, Stroke
from core_models.segmentation.engine import Alternative, Box, Click, Lasso, Scribble
from tests.viewer.harness import TwoBoxEngine, ct
from tests.viewer.screen import BLOCK, BODY, Screen

pytestmark = pytest.mark.browser
AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
# The voxels of the region that a pane shows while it is drawn, as [i, j, k].
SHOWN = """(plane) => {
  const { viewer } = window.__viewer;
  const drawn = viewer.drawing.now;
  const { region } = drawn;
  const out = [];
  const { dims } = viewer.geometry;
  for (let q = 0; q < region.rows; q++) for (let p = 0; p < region.columns; p++) {
    if (!region.voxels[q * region.columns + p]) continue;
    const up = dims[2] - 1 - q;
    out.push({ axial: [p, q, drawn.slice], coronal: [p, drawn.slice, up], sagittal: [drawn.slice, p, up] }[plane]);
  }
  return out;
}"""


def press(view: Screen, plane: str, *points: tuple[int, int, int]) -> None:
    """Press at the first voxel and drag over the others; the button stays down."""
    view.page.mouse.move(*view.point(plane, points[0]))
    view.page.mouse.down()
    for point in points[1:]:
        view.page.mouse.move(*view.point(plane, point), steps=4)


def release(view: Screen) -> Any:
    """Let go and wait for the answer; answers the active segment's row."""
    view.page.mouse.up()
    view.until("viewer.flying.size === 0")
    return view.harness.store.segment(view.state("active")) if view.state("active") else None


def shown(view: Screen, plane: str) -> np.ndarray:
    full = np.zeros(ct().shape, bool)
    for i, j, k in view.page.evaluate(SHOWN, plane):
        full[k, j, i] = True
    return full


@pytest.mark.parametrize(
    ("plane", "points"),
    [
        ("axial", ((15, 12, 8), (30, 20, 8), (34, 12, 8))),
        ("coronal", ((15, 16, 4), (30, 16, 12))),
        ("sagittal", ((20, 10, 4), (20, 25, 12))),
    ],
)
def test_what_the_brush_shows_is_what_is_stored_on_every_plane(view: Screen, plane: str, points: Any) -> None:
    view.goto(points[0])
    view.hover(plane, points[0])
    view.page.keyboard.press("Shift+B")
    view.page.keyboard.press("[")
    assert view.state("radius") == 4
    press(view, plane, *points)
    preview = shown(view, plane)
    row = release(view)
    (step,) = row.steps
    assert (step.action.axis, step.action.radius_mm, step.action.positive) == (AXES[plane], 4, True)
    stored = view.harness.store.mask(row.id).full()
    assert np.array_equal(preview, stored)
    assert np.array_equal(stored, painted(ct(), step.action).full())
    assert view.page.evaluate("window.__viewer.viewer.drawing.sent.size") == 0
    view.page.evaluate("window.__viewer.viewer.drawing.setRadius(5)")


def test_brush_eraser_and_filling_in_are_steps_that_are_undone(view: Screen) -> None:
    view.page.keyboard.press("Shift+B")
    for k in (5, 9):
        view.goto((20, 16, k))
        press(view, "axial", (16, 16, k), (26, 16, k))
        row = release(view)
    view.page.keyboard.press("Shift+I")
    view.until("viewer.activeRow.steps.length === 3 && viewer.masks.has(viewer.active, [20, 16, 7])")
    row = view.harness.store.segment(row.id)
    strokes = tuple(step.action for step in row.steps[:2])
    assert all(isinstance(stroke, Stroke) for stroke in strokes)
    assert row.steps[2].action == Interpolation(2)
    both = painted(ct(), strokes[0]).full() | painted(ct(), strokes[1]).full()
    expected = interpolated(ct(), _mask(both), 2, strokes).full()
    assert np.array_equal(view.harness.store.mask(row.id).full(), expected)

    view.page.keyboard.press("Shift+E")
    view.goto((20, 16, 7))
    press(view, "axial", (20, 16, 7))
    assert view.state("tool") == "eraser"
    release(view)
    view.until("viewer.activeRow.steps.length === 4 && !viewer.masks.has(viewer.active, [20, 16, 7])")
    for steps in (3, 2, 1, 0):
        view.page.keyboard.press("u")
        view.until(f"viewer.activeRow.steps.length === {steps}")
    view.page.keyboard.press("Control+Shift+z")
    view.until("viewer.activeRow.steps.length === 1 && viewer.masks.has(viewer.active, [20, 16, 5])")


def _mask(full: np.ndarray) -> Any:
    from core_models.segmentation.engine import Mask

    return Mask.from_full(full)


def test_a_range_is_seen_growing_and_then_grows_in_all_directions(view: Screen) -> None:
    view.goto(BLOCK)
    view.hover("axial", BLOCK)
    view.page.keyboard.press("Shift+G")
    press(view, "axial", BLOCK)
    narrow = shown(view, "axial").sum()
    x, y = view.point("axial", BLOCK)
    view.page.mouse.move(x + 400, y, steps=4)
    wide = shown(view, "axial").sum()
    assert wide > narrow > 0
    assert " to " in view.text("axial", "target")
    view.page.mouse.move(x, y)
    assert shown(view, "axial").sum() == narrow
    row = release(view)
    grow = row.steps[0].action
    assert isinstance(grow, Grow)
    assert grow.low <= ct().array[BLOCK[::-1]] <= grow.high
    mask = view.harness.store.mask(row.id).full()
    assert np.array_equal(mask, grown(ct(), grow)[0].full())
    assert mask.any(axis=(1, 2)).sum() > 1


def test_lines_and_boxes_go_to_the_engine_as_they_were_drawn(view: Screen) -> None:
    view.goto(BODY)
    view.hover("axial", BODY)
    view.page.keyboard.press("Shift+S")
    press(view, "axial", (12, 16, 8), (26, 16, 8))
    row = release(view)
    assert row.steps[-1].action == Scribble(((12, 16, 8), (26, 16, 8)))
    view.page.keyboard.press("n")
    view.page.keyboard.press("Shift+X")
    press(view, "coronal", (12, 16, 4), (26, 16, 12))
    other = release(view)
    assert other.id != row.id, "another segment, which may overlap the first"
    assert other.steps[-1].action == Box((12, 16, 4), (26, 16, 12))
    view.page.keyboard.press("n")
    view.page.keyboard.press("Shift+O")
    press(view, "axial", (12, 10, 8), (26, 10, 8), (26, 24, 8), (12, 24, 8))
    ring = release(view).steps[-1].action
    assert isinstance(ring, Lasso)
    assert {(12, 10, 8), (26, 10, 8), (26, 24, 8), (12, 24, 8)} <= set(ring.points)
    kinds = [kind for row in view.page.evaluate("window.__viewer.viewer.allRows") for kind in row["steps"]]
    assert [step["kind"] for step in kinds] == ["scribble", "box", "lasso"]


def test_alt_scribbles_outside_and_a_dot_is_a_click(view: Screen) -> None:
    view.goto(BODY)
    view.page.keyboard.press("Shift+S")
    press(view, "axial", BODY)
    assert release(view).steps[-1].action == Click(BODY)
    view.page.keyboard.down("Alt")
    press(view, "axial", (16, 20, 8), (26, 20, 8))
    row = release(view)
    view.page.keyboard.up("Alt")
    assert row.steps[-1].action == Scribble(((16, 20, 8), (26, 20, 8)), False)


def test_escape_takes_a_line_back_before_it_is_sent(view: Screen) -> None:
    view.goto(BODY)
    view.page.keyboard.press("Shift+B")
    press(view, "axial", (16, 16, 8), (26, 16, 8))
    view.page.keyboard.press("Escape")
    view.page.mouse.up()
    assert view.page.evaluate("window.__viewer.viewer.flying.size") == 0
    assert view.harness.store.segments(view.study.id) == ()


def test_too_small_a_box_says_what_to_do(view: Screen) -> None:
    view.goto(BODY)
    view.page.evaluate("import('/static/js/bus.js').then(({ on }) => on('toast', ({ text }) => (window.said = text)))")
    view.page.keyboard.press("Shift+X")
    press(view, "axial", BODY)
    view.page.mouse.up()
    view.page.wait_for_function("window.said === 'Drag a box around the structure, from corner to corner.'")
    assert view.harness.store.segments(view.study.id) == ()


def test_the_keyboard_alone_draws_a_box_and_paints(view: Screen) -> None:
    view.goto((12, 10, 8))
    view.hover("axial", (40, 35, 8))
    view.page.keyboard.press("Shift+X")
    view.page.keyboard.press("Enter")
    for _ in range(4):
        view.page.keyboard.press("Shift+ArrowRight")
        view.page.keyboard.press("Shift+ArrowDown")
    view.page.keyboard.press("Enter")
    view.until("viewer.activeRow?.steps.length === 1")
    view.page.keyboard.press("Shift+B")
    view.page.keyboard.press("Enter")
    view.until("viewer.activeRow.steps.length === 2")
    view.page.keyboard.press("Shift+S")
    view.page.keyboard.press("Enter")
    view.page.keyboard.press("Shift+ArrowRight")
    view.page.keyboard.press("Shift+ArrowRight")
    view.page.keyboard.press("Enter")
    view.page.keyboard.press("Enter")
    view.until("viewer.activeRow.steps.length === 3")
    box, dot, line = (step.action for step in view.harness.store.segment(view.state("active")).steps)
    assert line == Scribble(((16, 14, 8), (18, 14, 8)))
    assert box == Box((12, 10, 8), (16, 14, 8))
    assert dot == Stroke(((16, 14, 8),), 5, 2)


def test_which_segment_is_changed_stands_beside_the_image(view: Screen) -> None:
    view.goto(BODY)
    view.hover("axial")
    view.page.keyboard.press("s")
    view.page.wait_for_function("document.querySelector('[data-plane=axial] .rr-target').textContent === 'new segment'")
    view.click("axial", BODY)
    view.until("viewer.activeRow?.steps.length === 1")
    row = view.harness.store.segments(view.study.id)[0]
    view.page.wait_for_function(
        "(name) => document.querySelector('[data-plane=axial] .rr-target').textContent === name", arg=row.label
    )
    view.page.keyboard.press("w")
    view.page.wait_for_function("document.querySelector('[data-plane=axial] .rr-target').textContent === ''")


def test_a_key_or_the_menu_asks_for_the_other_answer(view: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    view.goto(BODY)
    view.click("axial", BODY)
    view.until("viewer.activeRow?.steps.length === 1")
    view.until("viewer.activeRow.alternatives === false")
    view.page.keyboard.press("Shift+A")
    view.until("viewer.flying.size === 0")
    assert len(view.harness.store.segments(view.study.id)[0].steps) == 1
    two = TwoBoxEngine()
    for name in ("name", "alternatives", "segment"):
        monkeypatch.setattr(view.harness.engine, name, getattr(two, name), raising=False)
    view.page.keyboard.press("n")
    at = (30, 20, 8)
    view.click("axial", at)
    view.until("viewer.activeRow?.steps.length === 1 && viewer.activeRow.alternatives")
    inside = f"viewer.masks.has(viewer.active, [{at[0]}, {at[1]}, 7])"
    view.until(inside)
    view.page.keyboard.press("Shift+A")
    view.until(f"viewer.activeRow.steps.length === 2 && !{inside}")
    row = view.harness.store.segment(view.state("active"))
    assert [s.action for s in row.steps] == [Click(at), Alternative()]
    view.page.keyboard.press("u")
    view.until(f"viewer.activeRow.steps.length === 1 && {inside}")
    view.page.evaluate("Promise.all([1, 2, 3].map(() => window.__viewer.viewer.alternative()))")
    view.until(f"viewer.activeRow.steps.length === 2 && !{inside}")
    assert view.page.evaluate("window.__viewer.viewer.turning") is None
    view.page.click("[data-menu=scribble]")
    view.page.click(".rr-flyout:visible >> text=The other answer")
    view.until(f"viewer.activeRow.steps.length === 3 && {inside}")
    view.page.keyboard.press("Escape")
    view.page.keyboard.press("u")
    view.until(f"viewer.activeRow.steps.length === 2 && !{inside}")


def test_a_hint_is_marked_until_it_is_put_away(view: Screen) -> None:
    view.goto(BODY)
    view.click("axial", BODY)
    view.until("viewer.activeRow?.steps.length === 1")
    row = view.harness.store.segments(view.study.id)[0]
    hint = (40, 28, 12)
    view.harness.store.save_segment(
        row.id,
        steps=row.steps,
        undone=(),
        mask=view.harness.store.mask(row.id),
        confidence=0.9,
        hint=Click(hint, False),
    )
    view.page.evaluate(
        """async (id) => {
          const { emit } = await import('/static/js/bus.js');
          const segments = await (await fetch(`/api/studies/${id}/segments`)).json();
          emit('segments:changed', { segments, active: segments[0].id });
        }""",
        view.study.id,
    )
    view.page.evaluate("window.__viewer.viewer.crosshair = false")
    view.page.keyboard.press("Shift+J")
    assert tuple(view.state("position")) == hint
    marked = view.pixel("axial", hint)
    assert marked[0] - marked[2] > 60, "amber"
    view.page.keyboard.press("Shift+H")
    plain = view.pixel("axial", hint)
    assert plain[0] == plain[1] == plain[2]
    view.page.keyboard.press("Shift+H")
    view.page.evaluate("window.__viewer.viewer.crosshair = true")


def test_after_a_stroke_only_what_changed_is_fetched(view: Screen) -> None:
    view.goto(BODY)
    view.page.keyboard.press("Shift+G")
    press(view, "axial", BODY)
    release(view)
    answers: list[Any] = []

    def note(answer: Any) -> None:
        answers.append(answer)

    view.page.on("response", note)
    view.page.keyboard.press("Shift+E")
    press(view, "axial", (20, 16, 8), (24, 16, 8))
    row = release(view)
    view.page.remove_listener("response", note)
    (mask,) = (answer for answer in answers if answer.url.split("?")[0].endswith("/mask"))
    assert "x-since" in mask.all_headers()
    inside = "([i, j, k]) => window.__viewer.viewer.masks.has(window.__viewer.state().active, [i, j, k])"
    stored = view.harness.store.mask(row.id).full()
    for index in [(20, 16, 8), (24, 16, 8), (24, 26, 8), (20, 16, 9), (30, 16, 8)]:
        assert view.page.evaluate(inside, list(index)) == bool(stored[index[::-1]]), index


def test_the_keyboard_map_names_every_drawing_key(view: Screen) -> None:
    view.page.keyboard.press("?")
    text = view.page.inner_text(".rr-help")
    for key in (
        "Shift+S",
        "Shift+X",
        "Shift+O",
        "Shift+B",
        "Shift+E",
        "Shift+G",
        "Shift+I",
        "Shift+H",
        "Shift+A",
        "[ and ]",
    ):
        assert key in text
    view.page.keyboard.press("?")


def test_the_menu_of_drawing_tools_chooses_them(view: Screen) -> None:
    view.page.click("[data-menu=scribble]")
    view.page.click(".rr-flyout:visible >> text=Eraser")
    assert view.state("tool") == "eraser"
    view.page.wait_for_function(
        "document.querySelector('[data-menu=scribble]').getAttribute('aria-pressed') === 'true'"
    )
