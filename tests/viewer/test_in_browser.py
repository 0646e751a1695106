"""The viewer in Chromium: what is drawn is the volume, the right way round, and every input does what it says."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.viewer.harness import SPACING, ct, radiograph
from tests.viewer.screen import BLOCK, BODY, CANVAS, PLANES, Screen
from webapp.store import schema

pytestmark = pytest.mark.browser

# Where the middle of the block lies in the body's rectangle, from its left and its top, and the rectangle's own form.
RIGHT, FRONT, TOP = (45 - 7) / 45, (9.5 - 5) / 30, 2.5 / 20
WIDE, DEEP, HIGH = 45 * SPACING[0], 30 * SPACING[1], 20 * SPACING[2]


@pytest.mark.parametrize(
    ("plane", "across", "down", "form"),
    [
        ("axial", RIGHT, FRONT, WIDE / DEEP),
        ("coronal", RIGHT, TOP, WIDE / HIGH),
        ("sagittal", FRONT, TOP, DEEP / HIGH),
    ],
    ids=PLANES,
)
def test_the_block_is_drawn_to_the_left_the_front_and_the_top(
    view: Screen, plane: str, across: float, down: float, form: float
) -> None:
    view.goto(BLOCK)
    assert view.state("position") == list(BLOCK)
    view.page.evaluate("window.__viewer.viewer.crosshair = false")
    view.page.evaluate("window.__viewer.viewer.setPreset(2)")  # bone: the body is dark grey, the block light grey
    greys = np.asarray(Image.open(io.BytesIO(base64.b64decode(view.page.evaluate(CANVAS, plane)))).convert("L"))
    view.page.evaluate("window.__viewer.viewer.crosshair = true")
    (top, bottom), (left, right) = _extent(greys > 38, 1), _extent(greys > 38, 0)  # half of the body's 76
    y, x = np.median(np.argwhere(greys[top:bottom, left:right] > 123), 0) + 0.5  # half way to the block's 170
    assert (right - left) / (bottom - top) == pytest.approx(form, rel=0.03)
    assert x / (right - left) == pytest.approx(across, abs=0.015)
    assert y / (bottom - top) == pytest.approx(down, abs=0.015)


def _extent(mask: np.ndarray, axis: int) -> tuple[int, int]:
    """First and last line that is set for a good part; the scale bar's lines are not."""
    counts = mask.sum(axis)
    lines = np.flatnonzero(counts > counts.max() / 3)
    return int(lines[0]), int(lines[-1]) + 1


def test_letters_at_the_edges(view: Screen) -> None:
    letters = {p: "".join(view.text(p, side) for side in ("left", "right", "top", "bottom")) for p in PLANES}
    assert letters == {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF"}


def test_wheel_and_keys_scroll_the_plane_under_the_mouse(view: Screen) -> None:
    assert view.state("position") == [30, 20, 10]
    view.hover("axial")
    for act, k in [
        (lambda: view.page.mouse.wheel(0, 100), 9),
        (lambda: view.page.mouse.wheel(0, -100), 10),
        (lambda: view.page.keyboard.press("ArrowDown"), 9),
        (lambda: view.page.keyboard.press("ArrowUp"), 10),
        (lambda: view.page.keyboard.press("ArrowRight"), 9),
        (lambda: view.page.keyboard.press("PageDown"), 0),
        (lambda: view.page.keyboard.press("PageUp"), 10),
        (lambda: view.page.keyboard.press("Home"), 19),
        (lambda: view.page.keyboard.press("ArrowUp"), 19),
        (lambda: view.page.keyboard.press("End"), 0),
    ]:
        act()
        view.until(f"viewer.position[2] === {k}")
    view.page.wait_for_function(
        "document.querySelector('[data-plane=axial] .rr-top-left').textContent === 'Axial  1/20'"
    )
    view.hover("coronal", (30, 20, 10))
    view.page.keyboard.press("PageDown")
    view.hover("sagittal", (30, 30, 10))
    view.page.keyboard.press("ArrowLeft")
    assert view.state("position") == [29, 30, 0]


def test_a_right_drag_changes_the_window(view: Screen) -> None:
    assert view.pixel("axial", BODY) == pytest.approx([127.5] * 3, abs=0.6), "the middle of the window is mid-grey"
    view.drag("right", 30, -15)
    assert view.state("window") == pytest.approx([20, 440])
    assert view.pixel("axial", BODY) == [139] * 3
    assert view.text("axial", "bottom-left") == "W 440  L 20"
    assert view.harness.store.segments(view.study.id) == (), "no click was made"


def test_number_keys_set_the_presets(view: Screen) -> None:
    view.hover("axial")
    shown = []
    for key in "123456":
        view.page.keyboard.press(key)
        shown.append(view.state("window"))
        assert view.page.evaluate("window.__viewer.viewer.currentPreset()") == int(key) - 1
    assert shown == [[40, 400], [-600, 1500], [400, 1800], [40, 80], [60, 160], [50, 350]]
    view.page.wait_for_function("document.querySelector('.rr-presets').selectedOptions[0].text === '6 Mediastinum'")


@pytest.mark.parametrize("plane", PLANES)
def test_the_readout_is_the_voxel_under_the_cursor(view: Screen, plane: str) -> None:
    view.goto(BLOCK)
    volume, across = ct(), {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    for ijk in [(1, 1, 1), (8, 9, 3), (44, 12, 16), (40, 6, 15), (39, 7, 19), (52, 34, 18), (55, 38, 0)]:
        index = list(ijk)
        index[across] = BLOCK[across]
        view.hover(plane, tuple(index))
        value, place = view.text(plane, "top-right").replace("−", "-").split("\n")
        assert value == f"{volume.array[tuple(index[::-1])]} HU", index
        x, y, z = volume.to_world(tuple(index))
        assert place == f"L {x:.1f}  P {y:.1f}  S {z:.1f} mm"


def test_a_click_segments_and_shows_in_all_planes_and_alt_removes(view: Screen) -> None:
    view.goto(BODY)
    near = {"axial": (22, 18, 8), "coronal": (22, 16, 9), "sagittal": (20, 18, 9)}  # in the box, off crosshair and mark
    assert all(len(set(view.pixel(plane, ijk))) == 1 for plane, ijk in near.items())
    view.click("axial", BODY)
    view.until("viewer.masks.byId.size === 1")
    (row,) = view.harness.store.segments(view.study.id)
    assert [(click.index, click.positive) for click in row.clicks] == [(BODY, True)]
    for plane, ijk in near.items():
        red, _, blue = view.pixel(plane, ijk)
        assert red - blue > 40, f"{plane}: tinted in the first colour, orange"
    assert len(set(view.pixel("axial", (24, 18, 8)))) == 1, "beside the box nothing is tinted"

    view.page.keyboard.down("Alt")
    view.click("axial", near["axial"])
    view.page.keyboard.up("Alt")
    view.until("viewer.activeRow.clicks.length === 2 && !viewer.masks.has(viewer.active, [22, 18, 8])")
    assert not view.harness.store.mask(row.id).full()[8, 18, 22]
    view.page.keyboard.press("Control+z")
    view.until("viewer.activeRow.clicks.length === 1 && viewer.masks.has(viewer.active, [22, 18, 8])")
    view.page.keyboard.press("Control+Shift+z")
    view.until("viewer.activeRow.clicks.length === 2 && !viewer.masks.has(viewer.active, [22, 18, 8])")

    view.page.keyboard.press("n")
    view.click("axial", (30, 25, 8))
    view.until("viewer.masks.byId.size === 2")
    assert [len(s.clicks) for s in view.harness.store.segments(view.study.id)] == [2, 1]
    view.page.keyboard.press("h")
    assert len(set(view.pixel("axial", (32, 27, 8)))) == 1, "H hides the overlay"
    view.page.keyboard.press("h")


# What the segment list would send, and the toasts that come of it.
LISTEN = """async () => {
  const { emit, on } = await import('/static/js/bus.js');
  window.offered = [];
  window.drop = (id) => emit('segment:delete', { id });
  window.unhear?.();
  window.unhear = on('toast', (detail) => window.offered.push(detail));
}"""


def test_deleting_a_segment_is_undone_in_its_turn_with_everything_else(view: Screen) -> None:
    view.goto(BODY)
    view.page.evaluate(LISTEN)
    for n, index in enumerate(((20, 16, 8), (30, 25, 8)), 1):
        view.page.keyboard.press("n")
        view.click("axial", index)
        view.until(f"viewer.masks.byId.size === {n}")
    first, second = view.harness.store.segments(view.study.id)
    drawn = view.harness.store.mask(first.id).full()

    view.page.evaluate("(id) => window.drop(id)", first.id)
    view.until("viewer.masks.byId.size === 1")
    assert view.state("active") == second.id, "another one that was chosen stays so"
    assert view.harness.store.segments(view.study.id) == (second,)
    view.page.evaluate("(id) => window.drop(id)", second.id)
    view.until("viewer.masks.byId.size === 0")
    assert view.state("active") is None

    view.page.keyboard.press("Control+z")
    view.until("viewer.masks.byId.size === 1")
    assert view.state("active") == second.id
    view.page.keyboard.press("Control+z")
    view.until("viewer.masks.byId.size === 2 && viewer.masks.has(viewer.active, [20, 16, 8])")
    assert view.harness.store.segments(view.study.id) == (first, second)
    assert (view.harness.store.mask(first.id).full() == drawn).all()
    view.page.keyboard.press("Control+y")
    view.until("viewer.masks.byId.size === 1")
    view.page.keyboard.press("Control+Shift+z")
    view.until("viewer.masks.byId.size === 0")
    view.page.keyboard.press("Control+z")
    view.page.keyboard.press("Control+z")
    view.until("viewer.masks.byId.size === 2")
    view.page.keyboard.press("Control+z")
    view.until("viewer.allRows[1].clicks.length === 0 && viewer.allRows[0].clicks.length === 1")
    said = view.page.evaluate("window.offered.map(({ level, action }) => [level ?? 'info', action?.label ?? ''])")
    assert said == [["info", "Undo"]] * 2


def test_a_deletion_that_was_undone_elsewhere_is_passed_over(view: Screen) -> None:
    view.goto(BODY)
    view.page.evaluate(LISTEN)
    view.page.keyboard.press("n")
    view.click("axial", BODY)
    view.until("viewer.masks.byId.size === 1")
    (row,) = view.harness.store.segments(view.study.id)
    view.page.evaluate("(id) => window.drop(id)", row.id)
    view.until("viewer.masks.byId.size === 0")
    view.page.evaluate("window.offered[0].action.run()")
    view.until("viewer.masks.byId.size === 1")
    assert view.page.evaluate("window.offered[0].action.over.aborted"), "the toast leaves"
    view.page.keyboard.press("Control+z")
    view.until("viewer.activeRow?.clicks.length === 0")
    view.page.keyboard.press("Control+y")
    view.until("viewer.activeRow?.clicks.length === 1")
    view.page.keyboard.press("Control+y")
    view.until("viewer.masks.byId.size === 0")

    # What the server let go of meanwhile is said once, and is no obstacle to what was done before it.
    with view.harness.store._db.write() as c:
        c.execute(schema.segments.delete().where(schema.segments.c.id == row.id))
    view.page.keyboard.press("Control+z")
    view.page.wait_for_function("window.offered.some(({ text }) => text.includes('gone for good'))")
    view.page.keyboard.press("n")
    view.click("axial", (30, 25, 8))
    view.until("viewer.masks.byId.size === 1")
    view.page.keyboard.press("Control+z")
    view.until("viewer.activeRow?.clicks.length === 0")
    assert view.page.evaluate("window.offered.map(({ level }) => level ?? 'info')") == ["info", "warning"]


def test_clicks_faster_than_the_answers_go_to_one_segment(view: Screen) -> None:
    for index in (BODY, (30, 25, 10), (10, 25, 10)):
        view.page.evaluate("(ijk) => void window.__viewer.click('axial', ...ijk)", list(index))
    view.until("viewer.activeRow?.clicks.length === 3")
    (row,) = view.harness.store.segments(view.study.id)
    assert {click.index for click in row.clicks} == {BODY, (30, 25, 10), (10, 25, 10)}


def test_after_clicks_that_newer_ones_took_along_undo_is_free(view: Screen) -> None:
    def overtaken_but_the_last(route: Any) -> None:
        if route.request.post_data_json["prompt"]["index"] == [10, 25, 10]:
            route.continue_()
        else:  # what the server answers to them, and that they count, is tested there
            route.fulfill(status=499, json={"error": "Something newer came."})

    view.page.route("**/prompt", overtaken_but_the_last)
    try:
        for index in (BODY, (30, 25, 10), (10, 25, 10)):
            view.page.evaluate("(ijk) => void window.__viewer.click('axial', ...ijk)", list(index))
        view.until("viewer.activeRow?.clicks.length === 1 && viewer.flying.size === 0")
    finally:
        view.page.unroute("**/prompt")
    view.page.keyboard.press("Control+z")
    view.until("viewer.activeRow?.clicks.length === 0")


def test_a_click_that_arrives_after_the_next_one_was_answered_is_shown_too(view: Screen) -> None:
    held: list[Any] = []

    def hold_the_second(route: Any) -> None:
        if route.request.post_data_json["prompt"]["index"] == [30, 25, 10]:
            held.append(route)
        else:
            route.continue_()

    view.page.route("**/prompt", hold_the_second)
    try:
        for index in (BODY, (30, 25, 10), (10, 25, 10)):
            view.page.evaluate("(ijk) => void window.__viewer.click('axial', ...ijk)", list(index))
        view.until("viewer.activeRow?.clicks.length === 2")
        held[0].continue_()
        view.until("viewer.activeRow?.clicks.length === 3")
    finally:
        view.page.unroute("**/prompt")
    view.page.keyboard.press("Control+z")
    view.until("viewer.activeRow?.clicks.length === 2")


def test_inverting_zooming_panning_and_back(view: Screen) -> None:
    before, grey = view.point("axial", BODY), view.pixel("axial", BLOCK)[0]
    view.page.keyboard.press("i")
    assert view.pixel("axial", BLOCK) == [255 - grey] * 3
    view.hover("axial")
    view.page.keyboard.down("Control")
    view.page.mouse.wheel(0, -120)
    view.page.keyboard.up("Control")
    view.until("viewer.panes[0].zoom > 1.1")
    assert view.point("axial", BODY) == pytest.approx(before, abs=0.5), "the point under the mouse stays"
    assert view.state("position")[2] == 10, "no scrolling"
    view.drag("middle", 40, 25)
    assert view.point("axial", BODY) == pytest.approx((before[0] + 40, before[1] + 25), abs=0.5)
    view.page.keyboard.press("2")
    view.page.keyboard.press("r")
    assert view.point("axial", BODY) == pytest.approx(before)
    assert (view.state("window"), view.state("inverted")) == ([40, 400], False)
    assert view.pixel("axial", BLOCK) == [grey] * 3


def test_keys_typed_into_a_field_do_nothing_here(view: Screen) -> None:
    view.page.evaluate("document.body.prepend(Object.assign(document.createElement('input'), {id: 'typed'}))")
    before = view.page.evaluate("JSON.stringify(window.__viewer.state())")
    view.page.focus("#typed")
    view.page.keyboard.type("2ixlmnr+-?")
    view.page.keyboard.press("ArrowDown")
    view.page.keyboard.press("PageDown")
    assert view.page.input_value("#typed") == "2ixlmnr+-?"
    assert view.page.evaluate("JSON.stringify(window.__viewer.state())") == before
    assert view.page.locator(".rr-help").is_hidden()
    view.page.evaluate("document.querySelector('#typed').remove()")
    view.page.keyboard.press("2")
    assert view.state("window") == [-600, 1500], "and outside they do"


def test_a_radiograph_is_one_image_with_its_own_window(view: Screen) -> None:
    view.open(radiograph())
    assert (view.state("layout"), view.state("window")) == ("single", [32768, 65535])
    values = radiograph().array[0]
    for i, j in [(10, 20), (125, 150), (240, 290)]:
        assert view.pixel("axial", (i, j, 0)) == pytest.approx([float(values[j, i]) * 255 / 65535] * 3, abs=1.5)
        view.hover("axial", (i, j, 0))
        assert view.text("axial", "top-right") == f"{values[j, i]}\n({i}, {j})"
    assert [view.page.locator(f".rr-pane[data-plane={p}]").is_visible() for p in PLANES] == [True, False, False]
    assert "".join(view.text("axial", side) for side in ("left", "right", "top", "bottom")) == ""
    assert view.page.locator("[data-action=mpr]").is_disabled()


def test_the_toolbar_is_one_row_beside_the_side_panels(view: Screen) -> None:
    for width in (748, 1148):  # what the page leaves for it at 1366 and at 1920
        view.page.evaluate("(width) => (window.__viewer.viewer.root.style.width = `${width}px`)", width)
        toolbar, status, last = (
            view.page.locator(part).bounding_box() for part in (".rr-toolbar", ".rr-status", "[data-action=help]")
        )
        assert (toolbar["width"], toolbar["height"]) == (width, pytest.approx(34, abs=2))
        assert last["x"] + last["width"] <= toolbar["x"] + width
        assert status["width"] > 75, "room for 'loading 99 %'"
    view.page.evaluate("window.__viewer.viewer.root.style.width = ''")


def test_nothing_is_left_of_a_closed_study(view: Screen) -> None:
    view.page.evaluate("import('/static/js/bus.js').then(({ emit }) => emit('study:closed'))")
    view.until("!viewer.stored")
    view.page.wait_for_function("document.querySelector('[data-action=reset]').disabled")
    view.page.keyboard.press("r")
    assert view.page.locator(".rr-empty").text_content() == "Open a study to read it here."
    assert view.page.locator(".rr-pane:visible").count() == 0
