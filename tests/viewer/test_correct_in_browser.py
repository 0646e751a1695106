"""From the file to the screen: a point of the patient has the value under the pointer that its file says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core_models.study.intake import read_scan
from core_models.study.study import Study
from tests import builders
from tests.study.test_agreement import ORIENTATIONS, VALUES, points, tilted
from tests.viewer.screen import PLANES, Screen

pytestmark = pytest.mark.browser
NAMES = ("axial", "feet first", "columns run to the right", "sagittal", "twice oblique", "tilted")


def show(view: Screen, study: Study, name: str) -> None:
    uid = builders.uid("shown", name)
    series = tuple(replace(s, uid=f"{uid}.{n}") for n, s in enumerate(study.series))
    row = view.harness.store.study(view.harness.store.add_study(replace(study, uid=uid, series=series)))
    view.page.evaluate(
        "async (id) => { const { emit } = await import('/static/js/bus.js');"
        " emit('study:open', await (await fetch(`/api/studies/${id}`)).json()); }",
        row.id,
    )
    view.until(f"viewer.series?.id === '{row.series[0].id}' && viewer.loadedPart() === 1")


@pytest.mark.parametrize("name", NAMES)
def test_the_value_under_the_pointer_is_the_files_own(view: Screen, tmp_path: Path, name: str) -> None:
    geometry = tilted(15.0) if name == "tilted" else ORIENTATIONS[name]
    builders.ct_series(tmp_path, VALUES, geometry=geometry)
    show(view, read_scan(tmp_path)[0], name)
    view.layout("mpr")
    values, places = points(geometry)
    for value, lps in list(zip(values, places, strict=True))[:3]:
        view.page.evaluate("async (lps) => { await window.__viewer.goto(lps); }", lps.tolist())
        at = view.state("position")
        for plane in PLANES:
            view.hover(plane, tuple(at))
            said, place = view.text(plane, "top-right").replace("−", "-").split("\n")
            assert said == f"{value} HU"
            assert [float(word) for word in place.split()[1:6:2]] == pytest.approx(lps.tolist(), abs=0.051)


@pytest.mark.parametrize(
    ("name", "axial"), [("axial", "RLAP"), ("feet first", "RLAP"), ("prone", "RLAP"), ("coronal", "RLAP")]
)
def test_left_is_left_whatever_the_scanner_did(view: Screen, tmp_path: Path, name: str, axial: str) -> None:
    builders.ct_series(tmp_path, VALUES, geometry=ORIENTATIONS[name])
    show(view, read_scan(tmp_path)[0], f"letters {name}")
    view.layout("mpr")
    view.page.wait_for_function("document.querySelector('[data-plane=axial] .rr-left').textContent")
    assert "".join(view.text("axial", side) for side in ("left", "right", "top", "bottom")) == axial


def test_an_oblique_scan_has_two_letters_where_it_looks_between_two(view: Screen, tmp_path: Path) -> None:
    builders.ct_series(tmp_path, VALUES, geometry=ORIENTATIONS["twice oblique"])
    volume = read_scan(tmp_path)[0].series[0].volume
    show(view, read_scan(tmp_path)[0], "oblique letters")
    view.layout("mpr")
    view.page.wait_for_function("document.querySelector('[data-plane=axial] .rr-right').textContent.length > 1")
    across = volume.affine[:3, 0] / np.linalg.norm(volume.affine[:3, 0])
    strongest = int(np.argmax(np.abs(across)))
    assert view.text("axial", "right")[0] == ("RAF"[strongest], "LPH"[strongest])[int(across[strongest] > 0)]


def test_a_radiograph_stored_with_white_as_lowest_looks_the_same(view: Screen, tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:256, 0:256]
    pixels = (rows * 9 + columns * 5).astype(np.uint16)
    low, high = int(pixels.min()), int(pixels.max())
    seen = []
    for name, stored, kind, centre in (
        ("plain", pixels, "MONOCHROME2", 1800),
        ("turned", (low + high - pixels).astype(np.uint16), "MONOCHROME1", low + high - 1800),
    ):
        path = builders.radiograph(
            tmp_path / name, stored, PhotometricInterpretation=kind, WindowCenter=str(centre), WindowWidth="3000"
        )
        show(view, read_scan(path)[0], name)
        seen.append([view.pixel("axial", (i, j, 0))[0] for i, j in ((20, 20), (200, 40), (120, 230))])
    assert seen[0] == pytest.approx(seen[1], abs=1)
    assert max(seen[0]) - min(seen[0]) > 50
