"""Two series side by side: scrolled together by the place in the patient, never by index; earlier ones are offered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core_models.study.study import Patient
from core_models.study.volume import Volume
from tests.builders import affine, phantom
from tests.viewer.harness import ORIGIN, ct, radiograph, study
from tests.viewer.screen import Screen

pytestmark = pytest.mark.browser
PATIENT = Patient("RR-9", "Twice^Tess", "19600101")


def thick() -> Volume:
    """The same body at half the slices, on other columns, moved by 3 mm along the table and 1 mm to the left."""
    return Volume(phantom((12, 40, 50)), affine((1.0, 0.9, 5.0), (ORIGIN[0] + 1, ORIGIN[1], ORIGIN[2] - 3)), "CT", "HU")


@pytest.fixture
def dates(view: Screen, request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """An earlier and a later study of one patient; the later one is open."""
    name = f"{abs(hash(request.node.nodeid)) % 10**9}"
    patient = replace(PATIENT, id=name)
    rows = []
    for n, (volume, date) in enumerate(((thick(), "20240105"), (ct(), "20250607"))):
        made = replace(study(volume, uid=f"2.25.7{n}{name}"), patient=patient, date=date)
        rows.append(view.harness.store.study(view.harness.store.add_study(made)))
    show(view, rows[1])
    view.until("viewer.earlier.length === 1")
    yield rows[0], rows[1]
    view.layout("single")


def show(view: Screen, row: Any) -> None:
    view.page.evaluate(
        "async (id) => { const { emit } = await import('/static/js/bus.js');"
        " emit('study:open', await (await fetch(`/api/studies/${id}`)).json()); }",
        row.id,
    )
    view.until(f"viewer.series?.id === '{row.series[0].id}' && viewer.loadedPart() === 1")


def compare(view: Screen) -> None:
    view.layout("compare")
    view.until("viewer.companion.stored && viewer.companion.loadedPart() === 1")


def places(view: Screen) -> tuple[list[float], list[float]]:
    return view.page.evaluate(
        "async () => { const { toWorld } = await import('/static/js/viewer/geometry.js');"
        " const { viewer } = window.__viewer;"
        " return [viewer, viewer.companion].map((v) => toWorld(v.geometry, v.position)); }"
    )


def test_the_earlier_study_is_offered_and_shown_beside(view: Screen, dates: tuple[Any, Any]) -> None:
    assert view.page.locator("[data-action=compare].rr-offer").count() == 1
    view.page.wait_for_function("document.querySelector('.rr-status').textContent.includes('earlier 2024')")
    assert view.state("layout") == "mpr", "offered and not opened unasked"
    compare(view)
    assert view.page.evaluate("window.__viewer.viewer.companion.series.id") == dates[0].series[0].id
    assert view.text("compare", "top-left").startswith("2024-01-05")
    assert view.page.locator(".rr-link").text_content() == "linked by position"


def test_both_show_the_same_place_whichever_is_scrolled(view: Screen, dates: tuple[Any, Any]) -> None:
    compare(view)
    for k in (2, 7, 13, 18):
        view.page.evaluate("(k) => window.__viewer.viewer.moveTo([30, 20, k])", k)
        here, there = places(view)
        assert abs(here[2] - there[2]) <= 2.5 + 1e-6, "within half of the thicker slice"
        expected = np.rint(thick().to_index(ct().to_world((30, 20, k))))
        assert view.page.evaluate("window.__viewer.viewer.companion.position") == expected.tolist()
    view.page.mouse.move(*centre(view))
    view.page.mouse.wheel(0, 100)
    view.until("viewer.companion.position[2] === 9")
    here, there = places(view)
    assert abs(here[2] - there[2]) <= 1.25 + 1e-6, "within half of the thinner slice"


def centre(view: Screen) -> tuple[float, float]:
    box = view.page.locator("[data-plane=compare] .rr-canvas").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_unlinked_they_move_apart_and_linked_again_they_keep_the_distance(view: Screen, dates: tuple[Any, Any]) -> None:
    compare(view)
    view.page.evaluate("window.__viewer.viewer.moveTo([30, 20, 10])")
    view.page.keyboard.press("Shift+L")
    before = view.page.evaluate("window.__viewer.viewer.companion.position[2]")
    view.page.evaluate("window.__viewer.viewer.moveTo([30, 20, 14])")
    assert view.page.evaluate("window.__viewer.viewer.companion.position[2]") == before
    here, there = places(view)
    apart = there[2] - here[2]
    view.page.keyboard.press("Shift+L")
    view.page.evaluate("window.__viewer.viewer.moveTo([30, 20, 8])")
    here, there = places(view)
    assert there[2] - here[2] == pytest.approx(apart, abs=2.5 + 1e-6)
    view.page.wait_for_function("/^linked, \\d+ mm apart$/.test(document.querySelector('.rr-link').textContent)")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (lambda: Volume(thick().array, thick().affine, "CT", "HU", spacing_known=False), "no known geometry"),
        (lambda: Volume(thick().array, affine((1, 1, 5), (0, 0, 900)), "CT", "HU"), "different parts of the body"),
        (lambda: Volume(thick().array, tilted(35), "CT", "HU"), "differ in angle"),
    ],
    ids=["no spacing", "elsewhere", "oblique"],
)
def test_what_has_no_common_geometry_is_not_linked_and_says_why(view: Screen, other: Any, reason: str) -> None:
    view.open(ct(), other())
    compare(view)
    view.page.wait_for_function(
        "(reason) => document.querySelector('.rr-link').textContent.includes(reason)", arg=reason
    )
    before = view.page.evaluate("window.__viewer.viewer.companion.position")
    view.page.evaluate("window.__viewer.viewer.moveTo([30, 20, 3])")
    assert view.page.evaluate("window.__viewer.viewer.companion.position") == before
    view.layout("single")


def tilted(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    matrix = affine((1, 0.9, 5), ORIGIN)
    matrix[:3, :3] = rotation @ matrix[:3, :3]
    return matrix


def test_other_patients_and_later_studies_are_not_offered(view: Screen, dates: tuple[Any, Any]) -> None:
    old, new = dates
    store = view.harness.store
    assert [row.id for row in store.earlier(new.id)] == [old.id]
    assert store.earlier(old.id) == ()
    twin = replace(study(ct(), uid=f"2.25.8{new.patient_id}"), date="20230101")
    namesake = replace(twin, uid=twin.uid + "1", patient=Patient(new.patient_id, "Other^Olga", "19901231"))
    for made in (twin, namesake):
        store.add_study(made)
    assert [row.id for row in store.earlier(new.id)] == [old.id]


def test_two_radiographs_stand_side_by_side_each_with_its_own_window(view: Screen) -> None:
    view.open(radiograph(), radiograph(200, 260))
    compare(view)
    assert view.page.locator("[data-plane=compare] .rr-canvas").is_visible()
    assert view.page.locator("[data-plane=axial] .rr-canvas").is_visible()
    view.page.mouse.move(*centre(view))
    view.page.keyboard.press("i")
    assert view.page.evaluate("window.__viewer.viewer.companion.inverted")
    assert not view.state("inverted")
    view.layout("single")


def test_alone_there_is_nothing_to_compare_with(view: Screen) -> None:
    assert view.page.locator("[data-action=compare]").is_disabled()
    view.layout("compare")
    assert view.state("layout") == "single"
