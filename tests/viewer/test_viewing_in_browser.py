"""Slabs, turns, the magnifier, cine, windows that are remembered, outlines: what is drawn is what the voxels say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core_models.study.volume import Volume
from tests.contrast import low, nameless
from tests.viewer.harness import SPACING, ct, radiograph, study
from tests.viewer.screen import BLOCK, BODY, Screen
from webapp.viewer import voxels

pytestmark = pytest.mark.browser
THROUGH = {"axial": 2, "coronal": 1, "sagittal": 0}


def noise() -> Volume:
    """Every voxel its own grey, so that no slab can be mistaken for another."""
    array = np.random.default_rng(5).integers(-150, 230, (20, 40, 60)).astype(np.int16)
    return replace(ct(), array=array)


def grey(value: float) -> float:
    return float(np.clip((float(value) + 160) * 255 / 400, 0, 255))


@pytest.mark.parametrize(("mode", "of"), [("max", np.max), ("mean", np.mean), ("min", np.min)])
@pytest.mark.parametrize("plane", list(THROUGH))
def test_a_slab_is_the_greatest_mean_or_least_of_its_slices(view: Screen, plane: str, mode: str, of: Any) -> None:
    view.open(noise())
    view.page.evaluate("window.__viewer.viewer.crosshair = false")
    index = [31, 19, 9]
    view.page.evaluate("(at) => window.__viewer.viewer.moveTo(at)", index)
    view.page.evaluate("(mode) => window.__viewer.viewer.setSlab(mode, 7.5)", mode)
    axis = THROUGH[plane]
    count = max(1, round(7.5 / SPACING[axis]))
    first = index[axis] - (count - 1) // 2
    lines = np.moveaxis(noise().array, 2 - axis, 0)[first : first + count]  # the slab's slices first
    for step in ((0, 0), (4, 3), (-6, 5)):
        at = list(index)
        for n, other in enumerate(a for a in range(3) if a != axis):
            at[other] += step[n]
        picked = np.delete(at[::-1], 2 - axis)
        expected = of(lines[:, picked[0], picked[1]].astype(float))
        view.hover(plane, tuple(at))
        value = float(view.text(plane, "top-right").split(" HU")[0].replace("−", "-"))
        assert value == pytest.approx(expected, abs=0.51)
        assert (
            view.page.evaluate("window.__viewer.viewer.panes.find((p) => p.plane === '" + plane + "').slabCount")
            == count
        )
    view.page.mouse.move(0, 0)
    assert view.pixel(plane, tuple(at)) == pytest.approx([grey(expected)] * 3, abs=12), "neighbours blend a little"
    view.page.evaluate("window.__viewer.viewer.crosshair = true")


def test_keys_choose_the_slab_and_its_thickness_and_reset_ends_it(view: Screen) -> None:
    view.page.evaluate("window.__viewer.viewer.setSlab('none', 10)")
    view.hover("axial")
    view.page.keyboard.press(".")
    assert view.state("slab") == {"mode": "max", "mm": 10}
    view.page.keyboard.press(".")
    assert view.state("slab")["mm"] == 15
    view.page.wait_for_function(
        "document.querySelector('[data-plane=axial] .rr-top-left').textContent === 'Axial  11/20\\nMIP 15 mm'"
    )
    view.page.keyboard.press(",")
    view.page.keyboard.press("b")
    assert view.state("slab") == {"mode": "mean", "mm": 10}
    view.page.keyboard.press("r")
    assert view.state("slab")["mode"] == "none"


@pytest.mark.parametrize("keys", [("t",), ("t", "t"), ("Shift+T",), ("t", "Shift+T"), ("Shift+T", "t", "t", "t")])
def test_a_turned_or_mirrored_radiograph_is_read_at_the_same_pixels(view: Screen, keys: tuple[str, ...]) -> None:
    view.open(radiograph())
    flat = {at: view.point("axial", at) for at in [(0, 0, 0), (249, 0, 0), (0, 299, 0)]}
    for key in keys:
        view.page.keyboard.press(key)
    values = radiograph().array[0]
    for i, j in [(10, 20), (200, 40), (125, 280)]:
        assert view.pixel("axial", (i, j, 0)) == pytest.approx([float(values[j, i]) * 255 / 65535] * 3, abs=1.5)
        view.hover("axial", (i, j, 0))
        assert view.text("axial", "top-right") == f"{values[j, i]}\n({i}, {j})"
    across = np.subtract(view.point("axial", (249, 0, 0)), view.point("axial", (0, 0, 0)))
    down = np.subtract(view.point("axial", (0, 299, 0)), view.point("axial", (0, 0, 0)))
    before = [np.subtract(flat[(249, 0, 0)], flat[(0, 0, 0)]), np.subtract(flat[(0, 299, 0)], flat[(0, 0, 0)])]
    turn, flip = np.array([[0, -1], [1, 0]]), np.array([[-1, 0], [0, 1]])  # clockwise on a screen whose y runs down
    matrix = np.eye(2)
    for key in keys:
        matrix = (turn if key == "t" else flip) @ matrix
    for now, then in ((across, before[0]), (down, before[1])):
        expected = matrix @ then
        assert now / np.linalg.norm(now) == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
    assert ("mirrored" in view.text("axial", "top-left")) == (sum(k != "t" for k in keys) % 2 == 1)
    view.page.keyboard.press("r")
    assert (view.state("turns"), view.state("mirror")) == (0, False)
    assert view.point("axial", (0, 0, 0)) == pytest.approx(flat[(0, 0, 0)])


def test_a_large_radiograph_of_16_bits_zooms_to_its_own_pixels(view: Screen) -> None:
    array = np.zeros((1, 2500, 3000), np.uint16)
    array[0, :, 1::2] = 65535
    view.open(Volume(array, np.eye(4), modality="DX", unit="1", window=(32768.0, 65535.0)))
    whole = view.pixel("axial", (1500, 1250, 0))
    assert 80 < whole[0] < 175, "in sight as a whole, neighbours are averaged and not left out"
    x, y = view.point("axial", (1500, 1250, 0))
    view.page.evaluate("([clientX, clientY]) => window.__viewer.viewer.focus.zoomAt({ clientX, clientY }, 40)", [x, y])
    for i, grey in ((1499, 255), (1500, 0), (1501, 255), (1502, 0)):
        seen = view.pixel("axial", (i, 1250, 0))
        assert all(abs(value - grey) < 64 for value in seen), "each pixel by itself, not averaged"
    view.hover("axial", (1501, 1250, 0))
    assert view.text("axial", "top-right").split("\n")[0] == "65535"


def test_zoom_keeps_the_point_under_the_mouse_on_a_turned_radiograph(view: Screen) -> None:
    view.open(radiograph())
    view.page.keyboard.press("t")
    view.hover("axial", (200, 60, 0))
    before = view.point("axial", (200, 60, 0))
    view.page.mouse.wheel(0, -300)
    view.until("viewer.panes[0].zoom > 1.2")
    assert view.point("axial", (200, 60, 0)) == pytest.approx(before, abs=0.5)


def test_a_scan_is_neither_turned_nor_mirrored(view: Screen) -> None:
    for key in ("t", "Shift+T"):
        view.page.keyboard.press(key)
    assert (view.state("turns"), view.state("mirror")) == (0, False)
    assert "".join(view.text("axial", side) for side in ("left", "right")) == "RL"


def test_the_magnifier_draws_what_lies_around_the_pointer_larger(view: Screen) -> None:
    view.open(noise())
    view.layout("single")
    centre, beside = (30, 20, 10), (32, 20, 10)
    view.page.keyboard.press("g")
    view.hover("axial", centre)
    x, y = view.point("axial", centre)
    dx = view.point("axial", beside)[0] - x
    view.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    shown = view.page.evaluate(
        "([x, y]) => { const { canvas } = window.__viewer.viewer.panes[0]; const box = canvas.getBoundingClientRect();"
        " const s = canvas.width / box.width;"
        " return canvas.getContext('2d').getImageData((x - box.left) * s, (y - box.top) * s, 1, 1).data[0]; }",
        [x + 2.5 * dx, y],
    )
    assert shown == pytest.approx(grey(noise().array[10, 20, 32]), abs=2)
    view.page.keyboard.press("g")


def test_cine_runs_through_the_slices_and_stops(view: Screen) -> None:
    view.hover("axial")
    view.page.evaluate("window.__viewer.viewer.cine.rate = 30")
    view.page.keyboard.press("v")
    assert view.state("cine")
    seen = {view.state("position")[2]}
    for _ in range(3):
        view.until(f"viewer.position[2] !== {view.state('position')[2]}")
        seen.add(view.state("position")[2])
    view.page.keyboard.press("v")
    assert not view.state("cine")
    assert len(seen) > 2


def test_a_series_opens_with_the_window_it_was_left_with(view: Screen) -> None:
    first = view.study
    view.page.keyboard.press("2")
    view.page.keyboard.press("i")
    view.page.wait_for_function("(id) => localStorage.getItem('rr-windows')?.includes(id)", arg=first.series[0].id)
    view.open(ct())
    assert (view.state("window"), view.state("inverted")) == ([40, 400], False)
    reopen = (
        "async (id) => { const { emit } = await import('/static/js/bus.js');"
        " emit('study:open', await (await fetch(`/api/studies/${id}`)).json()); }"
    )
    view.page.evaluate(reopen, first.id)
    view.until(f"viewer.series?.id === '{first.series[0].id}' && viewer.loadedPart() === 1")
    assert (view.state("window"), view.state("inverted")) == ([-600, 1500], True)
    view.page.keyboard.press("r")
    view.page.wait_for_function("(id) => !localStorage.getItem('rr-windows')?.includes(id)", arg=first.series[0].id)
    view.page.keyboard.press("3")
    view.page.keyboard.press("0")
    assert view.state("window") == [40, 400], "0 is the header's own"


def test_a_segment_is_named_under_the_pointer_outlined_and_found_where_it_is_largest(view: Screen) -> None:
    view.goto(BODY)
    view.click("axial", BODY)
    view.until("viewer.masks.byId.size === 1")
    (row,) = view.harness.store.segments(view.study.id)
    view.hover("axial", (21, 16, 8))
    assert view.text("axial", "top-right").split("\n")[-1] == row.label
    inside = (22, 17, 8)
    red, _, blue = view.pixel("axial", inside)
    assert red - blue > 40
    view.page.keyboard.press("o")
    view.until("viewer.activeRow.outline")
    assert view.harness.store.segment(row.id).outline
    view.page.mouse.move(0, 0)
    assert len(set(view.pixel("axial", (21, 17, 8)))) == 1, "not filled any more"
    view.page.keyboard.press("o")
    view.until("!viewer.activeRow.outline")
    view.goto((20, 16, 2))
    view.hover("axial", (20, 16, 2))
    view.click("axial", (30, 25, 2))  # a second box, of the same segment: its slices are no larger
    view.until("viewer.activeRow.clicks.length === 2 && viewer.masks.has(viewer.active, [30, 25, 2])")
    full = view.harness.store.mask(row.id).full()
    view.page.keyboard.press("j")
    best = int(np.argmax(full.sum(axis=(1, 2))))
    view.until(f"viewer.position[2] === {best}")


def test_opacity_and_the_marks_of_a_segment_beside_each_slider(view: Screen) -> None:
    view.goto(BODY)
    view.click("axial", BODY)
    view.until("viewer.masks.byId.size === 1")
    (row,) = view.harness.store.segments(view.study.id)
    colour = [int(row.colour[n : n + 2], 16) for n in (1, 3, 5)]
    view.page.mouse.move(0, 0)
    inside = (22, 17, 8)  # neither the crosshair nor the click's mark
    seen = {}
    for percent in (0, 50, 100):
        slider = view.page.locator(".rr-opacity")
        slider.evaluate("(node, value) => { node.value = value; node.dispatchEvent(new Event('input')); }", percent)
        seen[percent] = view.pixel("axial", inside)
    assert len(set(seen[0])) == 1, "grey alone"
    assert seen[100] == pytest.approx(colour, abs=2)
    assert seen[50] == pytest.approx([(a + b) / 2 for a, b in zip(seen[0], seen[100], strict=True)], abs=3)
    marked = view.page.evaluate(
        """(colour) => window.__viewer.viewer.panes.map((pane) => {
          const { width, height } = pane.ticks;
          const data = pane.ticks.getContext('2d').getImageData(0, 0, 1, height).data;
          const near = (n) => colour.every((c, m) => Math.abs(data[4 * n + m] - c) < 3);
          return [...Array(height).keys()].filter(near).length / height;
        })""",
        colour,
    )
    size = (3, 5, 5)  # slices of the box through each plane, of all
    for part, count, of in zip(marked, size, (20, 40, 60), strict=True):
        assert 0 < part < 2.5 * count / of


def _frames(view: Screen) -> None:
    """Wait for two frames: a browser hands moves of a finger over with the next one."""
    view.page.evaluate("new Promise((shown) => requestAnimationFrame(() => requestAnimationFrame(shown)))")


def test_two_fingers_zoom_and_pan(view: Screen) -> None:
    """By the browser's own touch events: it makes of them what it makes of a finger on a screen."""
    before = view.point("axial", BLOCK)
    box = view.page.evaluate("(() => { const { x, y, width, height } = window.__viewer.viewer.panes[0].canvas."
                             "getBoundingClientRect(); return [x + width / 2, y + height / 2]; })()")  # fmt: skip
    cdp = view.page.context.new_cdp_session(view.page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        at = [{"x": box[0] + dx, "y": box[1] + dy, "id": n} for n, (dx, dy) in enumerate(points)]
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    touch("touchStart", (-40, 0))
    touch("touchStart", (-40, 0), (40, 0))
    for n in range(1, 5):
        touch("touchMove", (-40 - 10 * n, 0), (40 + 10 * n, 0))
    _frames(view)
    zoom = view.page.evaluate("window.__viewer.viewer.panes[0].zoom")
    assert zoom == pytest.approx(2, rel=0.02)
    spread = view.point("axial", BLOCK)
    assert spread != pytest.approx(before, abs=5)
    for n in range(1, 5):
        touch("touchMove", (-80 + 10 * n, 5 * n), (80 + 10 * n, 5 * n))
    _frames(view)
    touch("touchEnd")
    moved = view.point("axial", BLOCK)
    assert (moved[0] - spread[0], moved[1] - spread[1]) == pytest.approx((40, 20), abs=2)
    assert view.page.evaluate("window.__viewer.viewer.panes[0].zoom") == pytest.approx(zoom, rel=0.02)
    assert view.harness.store.segments(view.study.id) == (), "no click was made"


def test_one_finger_drags_with_the_tool_and_taps(view: Screen) -> None:
    cdp = view.page.context.new_cdp_session(view.page)
    x, y = view.point("axial", BODY)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]})

    view.page.evaluate("window.__viewer.viewer.setTool('pan')")
    touch("touchStart", (x, y))
    for n in range(1, 6):
        touch("touchMove", (x + 10 * n, y + 4 * n))
    _frames(view)
    touch("touchEnd")
    assert view.point("axial", BODY) == pytest.approx((x + 50, y + 20), abs=2)
    view.page.evaluate("window.__viewer.viewer.setTool('window')")
    before = view.state("window")
    touch("touchStart", (x, y))
    touch("touchMove", (x + 30, y + 15))
    touch("touchMove", (x + 60, y + 30))
    _frames(view)
    touch("touchEnd")
    after = view.state("window")
    assert after[1] > before[1]
    assert after[0] > before[0]
    view.page.evaluate("window.__viewer.viewer.setTool('segment')")
    x, y = view.point("axial", BODY)
    touch("touchStart", (x, y))
    touch("touchEnd")
    view.until("viewer.masks.byId.size === 1")


def test_every_control_has_a_name_and_the_menus_go_by_keyboard(view: Screen) -> None:
    assert nameless(view.page, ".rr-viewer") == []
    view.page.focus("[data-menu=length]")
    view.page.keyboard.press("Enter")
    view.page.keyboard.press("ArrowDown")
    view.page.keyboard.press("Enter")
    assert view.state("tool") == "angle"
    view.page.focus("[data-menu=view]")
    view.page.keyboard.press("Enter")
    assert view.page.locator("[role=menu]:visible").count() == 1
    view.page.keyboard.press("Escape")
    assert view.page.locator("[role=menu]:visible").count() == 0
    view.page.evaluate("window.__viewer.viewer.setTool('segment')")


def test_the_keyboard_map_names_every_key_and_fits_a_small_screen(view: Screen) -> None:
    view.page.evaluate("document.activeElement.blur()")
    view.page.keyboard.press("?")
    box = view.page.locator(".rr-help").bounding_box()
    assert box["y"] + box["height"] <= 768
    assert view.page.evaluate(
        "(() => { const n = document.querySelector('.rr-help'); return n.scrollHeight <= n.clientHeight; })()"
    )
    keys = view.page.locator(".rr-help dt").all_text_contents()
    told = " ".join(keys)
    for key in "SNHOJAFKUCXWIZPRGTBVLY?/MQED":
        assert key in told.replace(",", " ").split() or key in told, key
    view.page.keyboard.press("Escape")
    assert view.page.locator(".rr-help").is_hidden()


def test_text_stands_out_from_what_is_behind_it(view: Screen) -> None:
    assert low(view.page, ".rr-viewer") == []


def test_a_multi_frame_scan_brings_its_own_rate(view: Screen, tmp_path: Any) -> None:
    from tests.builders import dataset, encoded

    frames = np.zeros((4, 16, 16), np.uint8)
    film = encoded(
        dataset(frames[0], NumberOfFrames="4", CineRate="24", Rows=16, Columns=16, PixelData=frames.tobytes())
    )
    made = study(Volume(frames, np.eye(4), modality="US", window=(128, 256)), uid="2.25.4242")
    series = replace(made.series[0], sources=(film,))
    row = view.harness.store.study(view.harness.store.add_study(replace(made, series=(series,))))
    answer = view.page.evaluate(
        "async (id) => { const answer = await fetch(`/api/series/${id}/volume?z=mid`);"
        " return JSON.parse(answer.headers.get('x-geometry')).frame_rate; }",
        row.series[0].id,
    )
    assert answer == 24


def test_of_a_scan_too_large_for_the_browser_a_slice_at_rest_has_every_voxel(
    view: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voxels, "REDUCE_ABOVE", 1000)
    view.open(noise())
    assert view.state("header")["stride"] == 2
    view.page.evaluate("window.__viewer.viewer.crosshair = false")
    for k in (10, 4):
        view.page.evaluate("(k) => window.__viewer.viewer.moveTo([31, 19, k])", k)
        view.until(f"viewer.details.has({k})")
        for i, j in ((31, 19), (17, 8), (40, 33)):
            view.hover("axial", (i, j, k))
            said = view.text("axial", "top-right").split(" HU")[0].replace("−", "-")
            assert int(said) == noise().array[k, j, i]
        view.page.mouse.move(0, 0)
        assert view.pixel("axial", (40, 33, k)) == pytest.approx([grey(noise().array[k, 33, 40])] * 3, abs=12)
    held = view.page.evaluate("[...window.__viewer.viewer.details.keys()]")
    assert sorted(held) == [4, 10]
    view.page.evaluate("window.__viewer.viewer.crosshair = true")


def test_slices_held_with_every_voxel_are_bounded(view: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxels, "REDUCE_ABOVE", 1000)
    view.open(noise())
    for k in range(19):
        view.page.evaluate("(k) => window.__viewer.viewer.moveTo([31, 19, k])", k)
        view.until(f"viewer.details.has({k})")
    assert view.page.evaluate("window.__viewer.viewer.details.size") == 16
