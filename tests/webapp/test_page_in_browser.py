"""The page in Chromium: hostile names stay text, nothing scrolls but lists, the keyboard suffices, reload reopens."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core_models.segmentation.edits import Stroke
from core_models.segmentation.engine import Alternative, Click, Mask, Segmentation, never
from tests.builders import ct_files
from tests.webapp.conftest import BallEngine
from tests.webapp.fakes import prior, statement
from tests.webapp.served import Served
from webapp.report import Edit

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=document.title='pwned'>${7*7}{{7*7}}"


def _open(page: Any, served: Served, study: str) -> None:
    page.goto(f"{served.address}/#study={study}")
    page.wait_for_selector(".rr-reading-open .rp-series .rp-line")
    page.wait_for_selector(".rp-cards > *")


def test_hostile_text_is_shown_as_text_everywhere(served: Served, page: Any) -> None:
    study = served.add(
        patient="RR-X",
        PatientName=HOSTILE,
        StudyDescription=HOSTILE[:60],
        SeriesDescription=HOSTILE[:60],
        StudyInstanceUID="2.25.901",
        SeriesInstanceUID="2.25.902",
    )
    served.search.hits = (prior(1, HOSTILE),)
    served.services.store.set_indication(study, HOSTILE)
    served.services.board.add_finding(study, HOSTILE)
    served.services.priors.find(study)
    served.writer.queue.append([statement(1, HOSTILE, "E1", "P1", note=HOSTILE)])
    page.reload()
    row = page.wait_for_selector(f"tr[data-study='{study}']")
    assert HOSTILE in row.inner_text()
    _open(page, served, study)
    assert HOSTILE in page.inner_text(".rp-who")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".rp-statements .rp-statement")
    page.click(".rp-card summary")
    assert page.input_value(".rp-statements .rp-statement textarea") == HOSTILE
    assert page.inner_text(".rp-cards").count(HOSTILE) >= 4
    assert page.locator("img[src='x']").count() == 0
    assert "49" not in page.inner_text("body")
    assert "pwned" not in page.title()


@pytest.mark.parametrize(("width", "height"), [(1100, 700), (1366, 768), (1920, 1080)])
def test_the_page_fills_the_window_and_never_scrolls(served: Served, page: Any, width: int, height: int) -> None:
    study = served.add(patient="RR-S", StudyInstanceUID="2.25.911", SeriesInstanceUID="2.25.912")
    page.set_viewport_size({"width": width, "height": height})
    size = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight, document.body.scrollHeight]"
    assert page.evaluate(size) == [width, height, height]
    footer = page.locator(".rp-footer").bounding_box()
    assert footer["y"] + footer["height"] <= height
    assert "not a medical device" in page.inner_text(".rp-footer")
    _open(page, served, study)
    assert page.evaluate(size) == [width, height, height]
    for panel in ("#rr-left", "#rr-centre", "#rr-right"):
        box = page.locator(panel).bounding_box()
        assert box["y"] + box["height"] == pytest.approx(height, abs=1), panel
    assert page.locator("footer:not(.rp-footer):visible").count() == 0, "Gradio's own footer is hidden"


@pytest.mark.parametrize("width", [1100, 1279, 1280, 1366])
def test_the_viewers_tools_stand_in_one_row(served: Served, page: Any, width: int) -> None:
    study = served.add(patient="RR-T", StudyInstanceUID="2.25.915", SeriesInstanceUID="2.25.916")
    page.set_viewport_size({"width": width, "height": 700})
    _open(page, served, study)
    page.wait_for_function("window.__viewer && window.__viewer.state().ready")
    bar = page.locator(".rr-toolbar").bounding_box()
    tools = [t.bounding_box() for t in page.locator(".rr-toolbar :is(.rr-button, .rr-presets)").all()]
    assert len(tools) > 15
    middles = {round(t["y"] + t["height"] / 2 - bar["y"]) for t in tools}
    assert max(middles) - min(middles) <= 1
    rights = [t["x"] + t["width"] for t in tools]
    assert all(right <= tool["x"] for right, tool in zip(rights, tools[1:], strict=False)), "none covers another"
    assert rights[-1] <= bar["x"] + bar["width"]


def test_reading_with_the_keyboard_reload_and_back(served: Served, page: Any) -> None:
    served.search.hits = ()
    study = served.add(patient="RR-K", StudyInstanceUID="2.25.921", SeriesInstanceUID="2.25.922")
    page.reload()
    page.wait_for_selector(f"tr[data-study='{study}']")
    page.fill(".rp-filters input", "RR-K")
    page.wait_for_function("document.querySelectorAll('.rp-table tbody tr').length === 1")
    page.focus(f"tr[data-study='{study}']")
    page.keyboard.press("Enter")
    page.wait_for_selector(".rr-reading-open")
    assert page.url.endswith(f"#study={study}")
    page.keyboard.press("/")
    page.keyboard.press("/")  # once more, already there
    page.keyboard.type("cardiomegaly/mild")
    assert page.evaluate("document.activeElement.value") == "cardiomegaly/mild"
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-card='E1']")
    served.writer.queue.append([statement(1, "The heart is enlarged.", "E1")])
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".rp-statements .rp-statement.supported")
    page.click(".rp-statements .rp-statement .rp-origin")
    page.wait_for_selector("[data-card='E1'].lit")
    page.click("[data-card='E1'] .rp-text")
    page.wait_for_selector(".rp-statement.lit")
    page.fill(".rp-statements .rp-statement textarea", "The heart is clearly enlarged.")
    page.wait_for_function("document.querySelector('.rp-report h2').textContent.includes('saved')")
    page.reload()
    page.wait_for_selector(".rp-statements .rp-statement")
    assert page.input_value(".rp-statements .rp-statement textarea") == "The heart is clearly enlarged."
    assert page.inner_text(".rp-statements .rp-origin") == "edited"
    page.click("text=Worklist")
    page.wait_for_selector(f"tr[data-study='{study}']:visible")
    assert "#study" not in page.url
    page.go_back()
    page.wait_for_selector(".rr-reading-open .rp-statements .rp-statement")


def test_two_editors_the_second_keeps_their_text_and_sees_the_difference(served: Served, page: Any) -> None:
    study = served.add(patient="RR-C", StudyInstanceUID="2.25.931", SeriesInstanceUID="2.25.932")
    _open(page, served, study)
    page.click("[data-section='findings'] .rp-add-statement")
    served.services.reports.save(study, [], "Theirs.", 0)
    page.keyboard.type("Mine.")
    page.wait_for_selector(".rp-conflict:visible")
    assert page.input_value(".rp-statements textarea") == "Mine."
    assert "Mine" in page.inner_text(".rp-conflict ins")
    assert "Theirs" in page.inner_text(".rp-conflict del")
    page.click("text=Worklist")
    page.wait_for_selector(f"tr[data-study='{study}']:visible")
    page.go_back()
    page.wait_for_selector(".rp-conflict:visible")
    assert page.input_value(".rp-statements textarea") == "Mine.", "leaving loses nothing"
    page.click("text=Keep mine")
    page.wait_for_selector(".rp-conflict", state="hidden")
    page.wait_for_function("document.querySelector('.rp-report h2').textContent.includes('saved')")
    assert [s.text for s in served.services.store.report(study).statements] == ["Mine."]


def test_signing_asks_for_the_name_and_freezes_the_page(served: Served, page: Any) -> None:
    study = served.add(patient="RR-F", StudyInstanceUID="2.25.941", SeriesInstanceUID="2.25.942")
    _open(page, served, study)
    page.click("[data-section='impression'] .rp-add-statement")
    page.keyboard.type("Normal.")
    page.click(".rp-bar button:has-text('Sign')")
    page.wait_for_selector(".rp-dialog input:focus")
    page.keyboard.type("Dr. Able")
    page.keyboard.press("Enter")
    page.wait_for_selector(".rp-signed")
    assert "Dr. Able" in page.inner_text(".rp-signed")
    assert page.locator(".rp-statements textarea").get_attribute("readonly") is not None
    assert page.locator(".rp-draft").is_disabled()
    page.click(".rp-bar button:has-text('Addendum')")
    page.wait_for_selector(".rp-dialog textarea:focus")
    page.keyboard.type("A rib fracture was added.")
    page.click(".rp-dialog button.primary")
    page.wait_for_selector(".rp-addendum")
    assert "A rib fracture" in page.inner_text(".rp-addendum")


def test_a_report_that_could_not_be_saved_is_not_signed(served: Served, page: Any) -> None:
    study = served.add(patient="RR-U", StudyInstanceUID="2.25.981", SeriesInstanceUID="2.25.982")
    _open(page, served, study)
    page.click("[data-section='impression'] .rp-add-statement")
    page.keyboard.type("Normal.")
    page.wait_for_function("document.querySelector('.rp-report h2').textContent.includes('saved')")
    page.route("**/report", lambda route: route.abort())
    page.locator(".rp-statements textarea").fill("A nodule.")
    page.click(".rp-bar button:has-text('Sign')")
    page.wait_for_selector("text=The report is not saved")
    assert page.locator(".rp-dialog").count() == 0
    assert page.input_value(".rp-statements textarea") == "A nodule."
    assert served.services.store.report(study).state != "signed"


def test_what_is_on_its_way_while_a_draft_is_stored_is_kept(served: Served, page: Any) -> None:
    study = served.add(patient="RR-W", StudyInstanceUID="2.25.983", SeriesInstanceUID="2.25.984")
    _open(page, served, study)
    served.search.hits = ()
    served.writer.gate = threading.Semaphore(0)
    served.writer.queue.append([statement(1, "Drafted.")])
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".rp-stop:visible")
    held: list[Any] = []

    def hold_the_first_save(route: Any) -> None:
        if route.request.method == "PUT" and not held:
            held.append(route)
        else:
            route.continue_()

    page.route("**/report", hold_the_first_save)
    with page.expect_request(lambda r: r.method == "PUT"):
        page.fill(".rp-free", "Mine.")
    served.writer.gate.release()
    page.wait_for_selector(".rp-statements .rp-statement")
    served.writer.gate = None
    held[0].continue_()
    page.wait_for_function("document.querySelector('.rp-report h2').textContent.includes('saved')")
    assert page.input_value(".rp-free") == "Mine."
    _until(page, lambda: served.services.store.report(study).free_text == "Mine.")
    assert [s.text for s in served.services.store.report(study).statements] == ["Drafted."]
    assert page.locator(".rp-conflict:visible").count() == 0


def _hold(page: Any, method: str, study: str) -> list[Any]:
    """Hold what the page asks of a study's report by that method; the held requests."""
    held: list[Any] = []

    def hold(route: Any) -> None:
        if route.request.method == method:
            held.append(route)
        else:
            route.continue_()

    page.route(f"**/{study}/report", hold)
    return held


def _stored(served: Served, study: str, *texts: str, free: str = "") -> None:
    served.services.reports.save(study, [Edit(f"s{n}", "impression", text) for n, text in enumerate(texts)], free, 0)


def test_what_is_written_before_the_stored_report_is_here_is_saved_on_top_of_it(served: Served, page: Any) -> None:
    study = served.add(patient="RR-Y", StudyInstanceUID="2.25.9085", SeriesInstanceUID="2.25.9086")
    _stored(served, study, "No nodule.", free="Compared with 2019.")
    held = _hold(page, "GET", study)
    _open(page, served, study)
    page.click("[data-section='impression'] .rp-add-statement")
    page.keyboard.type("A rib")
    assert page.locator(".rp-free").evaluate("free => free.readOnly")
    page.wait_for_timeout(800)  # longer than a change waits until it is saved
    assert [s.text for s in served.services.store.report(study).statements] == ["No nodule."]
    held[0].continue_()
    page.wait_for_function("document.querySelectorAll('.rp-statements .rp-statement').length === 2")
    page.keyboard.type(" fracture.")
    _until(page, lambda: [s.text for s in served.services.store.report(study).statements][1:] == ["A rib fracture."])
    report = served.services.store.report(study)
    assert [s.text for s in report.statements] == ["No nodule.", "A rib fracture."]
    assert report.free_text == "Compared with 2019." == page.input_value(".rp-free")
    assert page.locator(".rp-conflict:visible").count() == 0


def test_what_was_written_in_a_study_left_before_its_report_was_here_is_not_lost(served: Served, page: Any) -> None:
    study = served.add(patient="RR-4", StudyInstanceUID="2.25.9087", SeriesInstanceUID="2.25.9088")
    _stored(served, study, "No nodule.", free="Compared with 2019.")
    held = _hold(page, "GET", study)
    _open(page, served, study)
    page.click("[data-section='impression'] .rp-add-statement")
    page.keyboard.type("A rib fracture.")
    page.evaluate("location.hash = ''")
    page.wait_for_selector(f"tr[data-study='{study}']:visible")
    held[0].continue_()
    _until(page, lambda: len(served.services.store.report(study).statements) == 2)
    report = served.services.store.report(study)
    assert [s.text for s in report.statements] == ["No nodule.", "A rib fracture."]
    assert report.free_text == "Compared with 2019."


def test_who_wrote_into_a_signed_report_before_it_was_here_keeps_the_words(served: Served, page: Any) -> None:
    study = served.add(patient="RR-2", StudyInstanceUID="2.25.9089", SeriesInstanceUID="2.25.9090")
    _stored(served, study, "No nodule.")
    served.services.reports.sign(study, "Dr. A", served.services.store.report(study).revision)
    held = _hold(page, "GET", study)
    _open(page, served, study)
    page.click("[data-section='impression'] .rp-add-statement")
    page.keyboard.type("A rib fracture.")
    held[0].continue_()
    page.wait_for_selector(".rp-conflict:visible")
    assert "A rib fracture." in page.inner_text(".rp-conflict")
    page.click(".rp-conflict button")
    assert [s.input_value() for s in page.locator(".rp-statements textarea").all()] == ["No nodule."]
    assert [s.text for s in served.services.store.report(study).statements] == ["No nodule."]


def test_a_reader_who_writes_while_a_draft_ends_stays_where_they_write(served: Served, page: Any) -> None:
    study = served.add(patient="RR-3", StudyInstanceUID="2.25.9091", SeriesInstanceUID="2.25.9092")
    _open(page, served, study)
    served.search.hits = ()
    served.writer.gate = threading.Semaphore(0)
    served.writer.queue.append([statement(1, "Drafted.")])
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".rp-stop:visible")
    page.click("[data-section='impression'] .rp-add-statement")
    page.keyboard.type("A rib")
    served.writer.gate.release()
    page.wait_for_function("document.querySelectorAll('.rp-statements .rp-statement').length === 2")
    served.writer.gate = None
    page.keyboard.type(" fracture.")
    _until(page, lambda: "A rib fracture." in [s.text for s in served.services.store.report(study).statements])


def test_a_draft_waits_for_the_indication_that_was_just_typed(served: Served, page: Any) -> None:
    study = served.add(patient="RR-I", StudyInstanceUID="2.25.985", SeriesInstanceUID="2.25.986")
    _open(page, served, study)
    served.search.hits = ()
    served.writer.gate = None
    served.writer.queue.append([statement(1, "Drafted.")])
    held: list[Any] = []
    page.route("**/indication", lambda route: held.append(route))
    with page.expect_request("**/indication"):
        page.fill(".rp-indication", "Cough.")
        page.click(".rp-draft")
    drafts: list[str] = []
    page.on("request", lambda r: r.url.endswith("/draft") and drafts.append(r.url))
    page.wait_for_timeout(300)
    assert drafts == []
    held[0].continue_()
    page.wait_for_selector(".rp-statements .rp-statement")
    assert served.writer.asked[-1].indication == "Cough."


def _until(page: Any, condition: Any) -> None:
    for _ in range(300):
        if condition():
            return
        page.wait_for_timeout(20)
    pytest.fail("the condition never came true")


def test_a_prior_shows_the_sentence_it_was_chosen_for_under_a_tag_in_its_colour(served: Served, page: Any) -> None:
    study = served.add(patient="RR-P", StudyInstanceUID="2.25.987", SeriesInstanceUID="2.25.988")
    served.services.board.add_finding(study, "Cardiomegaly")
    nearest = "Cough and fever were reported."
    says = {"supports": "The heart is enlarged.", "contradicts": "The heart is normal in size."}
    hits = (prior(n, f"{nearest} {text}") for n, text in enumerate(says.values(), 1))
    served.search.hits = tuple(replace(hit, matched=(nearest,)) for hit in hits)
    _open(page, served, study)
    page.click("text=Find similar reports")
    page.wait_for_selector("[data-card='P2']")
    colour = "e => getComputedStyle(e).color"
    for card, (stance, text) in zip(("P1", "P2"), says.items(), strict=True):
        assert page.inner_text(f"[data-card='{card}'] .rp-text") == text
        tag = page.locator(f"[data-card='{card}'] .rp-flag")
        assert tag.inner_text() == f"{stance} E1"
        assert tag.get_attribute("title") == f"E1: “{text}”"
        red, green, _ = map(int, tag.evaluate(colour).removeprefix("rgb(").removesuffix(")").split(","))
        assert (green > red) == (stance == "supports")


def test_a_prior_that_speaks_of_another_card_than_it_shows_quotes_that_too(served: Served, page: Any) -> None:
    study = served.add(patient="RR-Q", StudyInstanceUID="2.25.989", SeriesInstanceUID="2.25.990")
    for term in ("Cardiomegaly", "Nodule"):
        served.services.board.add_finding(study, term)
    served.search.hits = (prior(1, "The heart is enlarged. There is a nodule in the left lung."),)
    _open(page, served, study)
    page.click("text=Find similar reports")
    tag = page.locator("[data-card='P1'] .rp-flag")
    tag.wait_for()
    assert tag.inner_text() == "supports E1, E2"
    page.click("[data-card='E1'] button[title='Reject']")
    page.wait_for_selector("[data-card='E1'].rejected")
    assert tag.inner_text() == "supports E2: “There is a nodule in the left lung.”"


def test_an_upload_opens_its_study_and_a_bad_one_is_a_toast(served: Served, page: Any, tmp_path: Path) -> None:
    bad = tmp_path / "notes.txt"
    bad.write_text("not a scan")
    page.set_input_files("input[aria-label='Scan files']", str(bad))
    toast = page.wait_for_selector(".rp-toast.error")
    assert toast.inner_text().endswith(".")
    assert page.locator(".rp-toasts").get_attribute("aria-live") == "polite"
    paths = []
    for n, data in enumerate(ct_files(n=6, patient="RR-U", StudyInstanceUID="2.25.951", SeriesInstanceUID="2.25.952")):
        paths.append(tmp_path / f"{n}.dcm")
        paths[-1].write_bytes(data)
    page.set_input_files("input[aria-label='Scan files']", [str(p) for p in paths])
    page.wait_for_selector(".rr-reading-open .rp-badge")
    page.wait_for_function("document.querySelector('.rp-badge').textContent.includes('6')")


def test_a_series_that_comes_to_a_signed_study_is_said_to_be_in_no_report(
    served: Served, page: Any, tmp_path: Path
) -> None:
    study = served.add(patient="RR-Z", StudyInstanceUID="2.25.997", SeriesInstanceUID="2.25.998")
    served.services.store.save_report(study, statements=(), free_text="Read.", base_revision=0)
    served.services.store.sign(study, author="Dr. Able", base_revision=1)
    paths = []
    for n, data in enumerate(ct_files(n=6, patient="RR-Z", StudyInstanceUID="2.25.997", SeriesInstanceUID="2.25.999")):
        paths.append(tmp_path / f"{n}.dcm")
        paths[-1].write_bytes(data)
    page.set_input_files("input[aria-label='Scan files']", [str(p) for p in paths])
    assert "report stays as it was" in page.wait_for_selector(".rp-toast.warning").inner_text()
    page.wait_for_selector(".rp-addenda .rp-note:has-text('1 series arrived after signing')")
    assert "Dr. Able" in page.inner_text(".rp-signed")
    page.click(".rp-series .rp-line:has(.rp-warn)")
    page.wait_for_selector(".rp-receipt .rp-note:has-text('arrived after the report was signed')")
    assert page.locator(".rp-badge.warned").is_visible()


@pytest.mark.parametrize("leave", ["another page", "closed"])
def test_leaving_the_page_stops_its_upload(
    served: Served, browser: Any, page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leave: str
) -> None:
    (path := tmp_path / "scan").write_bytes(ct_files(n=1, StudyInstanceUID="2.25.995", SeriesInstanceUID="2.25.996")[0])
    services, started = served.services, threading.Event()
    before, read, jobs = services.store.studies(), services.read_scan, dict(services.jobs._jobs)

    def slow(files: Any, *, progress: Any, cancelled: Any) -> Any:
        started.set()
        for _ in range(2000):
            if cancelled():
                break
            threading.Event().wait(0.01)
        return read(files, progress=progress, cancelled=cancelled)

    monkeypatch.setitem(vars(services), "read_scan", slow)
    tab = page.context.new_page()
    tab.goto(served.address)
    tab.wait_for_selector(".rp-demo")
    tab.set_input_files("input[aria-label='Scan files']", str(path))
    tab.wait_for_selector(".rp-upload:has-text('Reading')")
    assert started.wait(20)
    (job,) = (job for name, job in services.jobs._jobs.items() if name not in jobs)
    if leave == "closed":
        tab.close(run_before_unload=True)
    else:
        tab.goto("about:blank")
    _until(page, job.finished.is_set)
    assert job.state == "cancelled"
    assert services.store.studies() == before
    assert list((services.settings.home / "incoming").iterdir()) == []


def test_a_suggested_name_tells_what_it_rests_on_until_it_is_confirmed(
    served: Served, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core_models.segmentation.naming import labels

    found = labels.Suggestion("spleen", 0.83, "position, HU and shape, 83 %")
    monkeypatch.setattr(labels, "suggest", lambda volume, mask: found)
    study = served.add(patient="RR-4", StudyInstanceUID="2.25.9731", SeriesInstanceUID="2.25.9732")
    series = served.services.store.study(study).series[0].id
    row = served.services.segments.click(series, (16, 12, 6), True)
    _open(page, served, study)
    name = page.locator(f"[data-segment='{row.id}'] .rp-name.suggested")
    name.wait_for()
    assert name.input_value() == "spleen"
    title = "Suggested from position, HU and shape, 83 %: type the right one, or Enter to confirm"
    assert name.get_attribute("title") == title
    name.press("Enter")
    page.wait_for_selector(f"[data-segment='{row.id}'] .rp-name[title='spleen']:not(.suggested)")
    assert served.services.store.segment(row.id).suggested is False


def test_a_segment_is_listed_measured_and_drawn_in_3d(served: Served, page: Any) -> None:
    study = served.add(patient="RR-3", StudyInstanceUID="2.25.961", SeriesInstanceUID="2.25.962")
    series = served.services.store.study(study).series[0].id
    row = served.services.segments.click(series, (16, 12, 6), True)
    _open(page, served, study)
    page.wait_for_selector(".rr-slot-3d #rr-surface.shown .js-plotly-plot")
    name = page.locator(f"[data-segment='{row.id}'] .rp-name")
    name.fill("liver")
    name.press("Enter")
    page.wait_for_function(
        "[...document.querySelectorAll('.rp-card')].some(c => c.innerText.includes('liver: volume'))"
    )
    assert served.services.store.segment(row.id).label == "liver"
    shown = page.inner_text(f"[data-segment='{row.id}']")
    assert "40 ± 0 HU" in shown
    assert "⌀" in shown
    page.hover(f"[data-segment='{row.id}']")
    page.click(f"[data-segment='{row.id}'] button[title='Hide']")
    page.wait_for_selector("#rr-surface:not(.shown)", state="attached")
    page.hover(f"[data-segment='{row.id}']")
    page.click(f"[data-segment='{row.id}'] button[title='Delete']")
    page.wait_for_selector(".rp-segment", state="detached")
    assert served.services.store.segments(study) == ()


def test_the_list_asks_for_the_other_answer_to_the_same_clicks(
    served: Served, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = BallEngine.segment

    def both(engine: Any, prepared: Any, prompts: Any, cancelled: Any = never) -> Segmentation:
        answer = real(engine, prepared, tuple(p for p in prompts if isinstance(p, Click)), cancelled)
        lower = Mask(answer.mask.offset, answer.mask.voxels[:2], answer.mask.shape)
        return answer if len(prompts) % 2 else replace(answer, mask=lower)

    for name, value in (("segment", both), ("name", "click"), ("alternatives", True)):
        monkeypatch.setattr(BallEngine, name, value, raising=False)
    study = served.add(patient="RR-A", StudyInstanceUID="2.25.965", SeriesInstanceUID="2.25.966")
    series = served.services.store.study(study).series[0].id
    first = served.services.segments.click(series, (16, 12, 6), True)
    painted = served.services.segments.add(series, Stroke(((4, 4, 2),), 3.0))
    _open(page, served, study)
    page.wait_for_function("window.__viewer?.state().ready")
    page.hover(f"[data-segment='{painted.id}']")
    assert page.locator(f"[data-segment='{painted.id}'] button[title^='The other answer']").count() == 0
    page.hover(f"[data-segment='{first.id}']")
    page.click(f"[data-segment='{first.id}'] button[title^='The other answer']")
    page.wait_for_selector(f"[data-segment='{first.id}'][aria-current='true'] summary:has-text('2 steps')")
    row = served.services.store.segment(first.id)
    assert (row.engine, [type(s.action) for s in row.steps]) == ("click", [Click, Alternative])
    page.click(f"[data-segment='{first.id}'] summary")
    assert "other" in page.inner_text(f"[data-segment='{first.id}'] .rp-history li")
    tools = page.locator(f"[data-segment='{first.id}'] .rp-tools")
    assert tools.evaluate("(e) => e.scrollWidth <= e.clientWidth"), "seven icons have room in the list"


def test_a_deleted_segment_is_brought_back_from_its_toast_or_by_ctrl_z(served: Served, page: Any) -> None:
    study = served.add(patient="RR-D", StudyInstanceUID="2.25.963", SeriesInstanceUID="2.25.964")
    series = served.services.store.study(study).series[0].id
    row = served.services.segments.click(series, (16, 12, 6), True)
    row = served.services.segments.edit(row.id, label="liver")
    _open(page, served, study)
    there = f"window.__viewer.viewer.masks.has('{row.id}', [16, 12, 6])"
    page.wait_for_function(f"window.__viewer?.state().ready && {there}")
    cards = [card.id for card in served.services.board.sync(study)]

    def delete() -> Any:
        page.hover(f"[data-segment='{row.id}']")
        page.click(f"[data-segment='{row.id}'] button[title='Delete']")
        page.wait_for_selector(".rp-segment", state="detached")
        assert served.services.store.segments(study) == ()
        assert not page.evaluate(there)
        return page.wait_for_selector(".rp-toast:has-text('liver')")

    delete()
    assert page.locator(".rp-toast button").all_inner_texts() == ["“liver” is deleted.", "UndoCtrl+Z"]
    page.focus(".rp-toast .rp-act")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"[data-segment='{row.id}'][aria-current='true']")
    page.wait_for_function(there)
    assert page.locator(".rp-toast").count() == 0
    assert served.services.store.segments(study) == (row,)
    page.wait_for_selector(f"[data-card='{cards[0]}']")

    delete()
    page.keyboard.press("Control+z")
    page.wait_for_selector(f"[data-segment='{row.id}']")
    page.wait_for_function(there)
    page.wait_for_selector(".rp-toast", state="detached")
    assert served.services.store.segments(study) == (row,)
    assert [card.id for card in served.services.board.sync(study)] == cards

    delete()
    page.click("button[title='Back to the worklist']")
    page.wait_for_selector(".rp-toast", state="detached")


def test_leaving_the_page_stops_its_draft(served: Served, page: Any) -> None:
    study = served.add(patient="RR-L", StudyInstanceUID="2.25.971", SeriesInstanceUID="2.25.972")
    _open(page, served, study)
    served.search.hits = ()
    served.writer.gate = threading.Semaphore(1)
    served.writer.queue.append([statement(1, "First."), statement(2, "Second.")])
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".rp-stream .rp-statement")
    run = served.services.drafting._runs[study]
    page.goto("about:blank")
    assert run.finished.wait(20), "the slot is freed"
    served.writer.gate = None
    assert [s.text for s in served.services.store.report(study).statements] == ["First."]


def test_a_measurement_is_listed_named_a_card_and_led_back_to(served: Served, page: Any) -> None:
    study = served.add(patient="RR-M", StudyInstanceUID="2.25.9907", SeriesInstanceUID="2.25.9908")
    page.goto(f"{served.address}/#study={study}")
    page.wait_for_function("window.__viewer && window.__viewer.state().ready")
    page.keyboard.press("m")
    for ijk, act in (([8, 12, 6], page.mouse.down), ([20, 12, 6], page.mouse.up)):
        page.mouse.move(*page.evaluate("(ijk) => window.__viewer.pointOf('axial', ijk)", ijk), steps=3)
        act()
    page.wait_for_selector(".rp-measure")
    (row,) = served.services.store.annotations(study)
    page.wait_for_selector("[data-card='E1']")
    assert page.inner_text("[data-card='E1'] .rp-text") == f"Length, axial slice 7{row.numbers[0].value:.1f} mm"
    name = page.locator(f"[data-annotation='{row.id}'] .rp-name")
    name.fill("liver")
    name.press("Enter")
    page.wait_for_function("document.querySelector('[data-card=E1]').innerText.includes('liver: length')")
    page.evaluate("window.__viewer.viewer.moveTo([3, 3, 0]), window.__viewer.viewer.annotations.select(null)")
    page.click("[data-card='E1'] .rp-text")
    page.wait_for_function("window.__viewer.state().position[2] === 6 && window.__viewer.state().selected")
    page.reload()
    page.wait_for_selector(f"[data-annotation='{row.id}']")
    assert page.input_value(f"[data-annotation='{row.id}'] .rp-name") == "liver"
    page.focus(f"[data-annotation='{row.id}']")
    page.keyboard.press("Delete")
    page.wait_for_selector("[data-card='E1']", state="detached")
    assert served.services.store.annotations(study) == ()
