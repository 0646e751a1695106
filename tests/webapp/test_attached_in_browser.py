"""A segmentation dropped on the worklist: its study opens with the segment listed; the receipt tells the spacing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core_models.study.received import Received
from tests.webapp.served import Served
from webapp.exports import EXPORTS, collect

pytestmark = pytest.mark.browser


def test_a_segmentation_of_a_study_that_is_here_opens_it_with_its_segment(
    served: Served, page: Any, tmp_path: Path
) -> None:
    ids = {"StudyInstanceUID": "2.25.981", "SeriesInstanceUID": "2.25.982"}
    study = served.add(patient="RR-SEG", **ids)
    services = served.services
    series = services.store.study(study).series[0]
    drawn = services.segments.click(series.id, (12, 10, 4), True)
    services.segments.edit(drawn.id, label="left kidney")
    path = tmp_path / "segments.dcm"
    path.write_bytes(EXPORTS["seg"].write(collect(services.store, study)))
    services.segments.delete(drawn.id)
    page.reload()
    chooser = page.locator("#rr-worklist input[type=file]").first
    chooser.wait_for(state="attached")
    chooser.set_input_files(str(path))
    page.wait_for_selector(".rr-reading-open .rp-series .rp-line")
    page.wait_for_function("[...document.querySelectorAll('input')].some((i) => i.value === 'left kidney')")
    (segment,) = services.store.segments(study)
    assert (segment.label, segment.engine) == ("left kidney", "DICOM SEG")
    page.click(".rp-badge")
    assert "mm (PixelSpacing)" in page.inner_text(".rp-receipt")


def test_a_report_from_elsewhere_is_read_beside_the_own_one_and_taken_over_when_asked(
    served: Served, page: Any, tmp_path: Path
) -> None:
    study = served.add(patient="RR-SR", StudyInstanceUID="2.25.983", SeriesInstanceUID="2.25.984")
    store = served.services.store
    said = Received(
        author="Dr Anna O",
        final=True,
        findings=("The liver is large <img src=x>.",),
        impression=("Large liver.",),
        text="First line.\nSecond.",
        measured=("Liver: volume 1700 ml.",),
    )
    store.add_received(study, uid="2.25.1", date="20240131", report=said)
    page.goto(f"{served.address}/#study={study}")
    box = page.locator(".rp-received")
    box.wait_for()
    assert box.locator("summary").inner_text() == "Report from elsewhere 2024-01-31 · signed, Dr Anna O"
    assert page.locator(".rp-statement").count() == 0, "nothing of it stands in the own report"
    box.locator("summary").click()
    assert [*said.findings, *said.impression, *said.measured, said.text] == box.locator("p").all_inner_texts()
    box.get_by_role("button", name="Take its sentences over").click()
    page.wait_for_function("document.querySelectorAll('.rp-statement').length === 3")
    assert [s.text for s in store.report(study).statements] == [
        said.findings[0],
        "Liver: volume 1700 ml (structured report of 2024-01-31).",
        said.impression[0],
    ]
    box.get_by_role("button", name="Remove").click()
    box.wait_for(state="detached")
    assert store.received(study) == ()
