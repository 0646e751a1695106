"""A segmentation dropped on the worklist: its study opens with the segment listed; the receipt tells the spacing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
