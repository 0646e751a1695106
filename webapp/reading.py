"""A scan, clicks and an indication → a drafted report and its exports in a folder, without a browser.

The same parts do the work as behind the page; the study lives in a store of its own that is gone at the end.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core_models.errors import ReadingRoomError, Refused
from webapp import attached, uploads
from webapp import eyes as image_models
from webapp.drafting import loader
from webapp.eyes import draw_anatomy
from webapp.indexing import salt_of
from webapp.priors import opener
from webapp.service import Services
from webapp.settings import Settings
from webapp.store import SeriesRow, StudyRow

_PROMPT = re.compile(r"^(?P<label>[^@]{1,80})@(?P<x>[^,]+),(?P<y>[^,]+),(?P<z>[^,]+)$")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Prompt:
    """A click on a named organ at (x, y, z) in LPS mm; `positive` False removes."""

    label: str
    point: tuple[float, float, float]
    positive: bool = True


def prompt(text: str, positive: bool = True) -> Prompt:
    """Parse "ORGAN@x,y,z".

    Raises:
        Refused: it has another form, or a number that is none.
    """
    match = _PROMPT.match(text.strip())
    try:
        if match is None:
            raise ValueError(text)
        x, y, z = (float(match[axis]) for axis in "xyz")
    except ValueError:
        raise Refused(f"A click is written ORGAN@x,y,z in patient millimetres (LPS); {text[:60]!r} is not.") from None
    if not np.isfinite((x, y, z)).all():
        raise Refused(f"A click needs three finite numbers; {text[:60]!r} has others.")
    return Prompt(match["label"].strip(), (x, y, z), positive)


def read(
    settings: Settings,
    scan: Path,
    out: Path,
    *,
    prompts: Sequence[Prompt] = (),
    findings: Sequence[str] = (),
    indication: str = "",
    load_eyes: image_models.Load | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Read one study and write what can be written of it.

    Args:
        scan: a file, a folder or a ZIP.
        out: the folder for report.json, report.pdf, report.dcm, segments.dcm, structures.dcm, segments-nifti.zip,
            surfaces.zip (or segment.stl) and fhir.json; made where needed.
        findings: terms that the reader asserts.
        load_eyes: modality → image model, for tests that have no weights.
        say: called with each line that tells what was done.

    Returns:
        counts, seconds by step and the paths written.

    Raises:
        Refused and its kin: the scan, a click or the draft was refused.  Where the draft fails (no adapter, no card),
            the exports are written without it first.
    """
    began = time.perf_counter()
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return work()
        finally:
            seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - start, 2)

    if not scan.exists():
        raise Refused(f"There is no file or folder {str(scan)!r}.")
    _make_folder(out)
    uploads.sweep(settings.home)  # what a killed run left of its scan
    with tempfile.TemporaryDirectory(prefix="read-", dir=uploads.incoming(settings.home)) as name:
        home = Path(name)
        own = replace(settings, home=home, database_url=f"sqlite:///{home / 'read.sqlite3'}")
        services = Services.create(
            own,
            load_writer=loader(settings),
            open_search=opener(settings),
            load_eyes=load_eyes or image_models.loader(settings),
            salt=salt_of(settings.home),
        )
        try:
            study = timed("read", lambda: _study(services, scan, say))
            if indication.strip():
                services.store.set_indication(study.id, indication)
            timed("look", lambda: _look(services, study, say))
            timed("segment", lambda: _segment(services, study, prompts, say))
            for term in findings:
                services.board.add_finding(study.id, term)
            services.board.sync(study.id)
            failure: ReadingRoomError | None = None
            report: dict[str, Any] = {}
            try:
                report = timed("draft", lambda: _draft(services, study.id, say))
            except ReadingRoomError as error:
                failure = error
                say(f"Draft: none. {error}")
            files = timed("export", lambda: _export(services, study.id, out, say))
            if failure is not None:
                raise failure
        finally:
            services.eyes.close()
            services.segments.close()
            services.store.close()
    return {
        "files": files,
        "segments": len({p.label for p in prompts}),
        "statements": len(report.get("statements", ())),
        "supported": sum(s["support"] == "supported" for s in report.get("statements", ())),
        "seconds": round(time.perf_counter() - began, 2),
        "steps": seconds,
    }


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"The folder {str(out)!r} cannot be made: {error.strerror}.") from error


def _study(services: Services, scan: Path, say: Say) -> StudyRow:
    studies = services.read_scan([scan])
    if len(studies) > 1:
        raise Refused(f"The scan holds {len(studies)} studies; give the files of one of them.")
    study = services.store.study(services.store.add_study(studies[0]))
    if studies[0].attachments:
        attached.draw(services.store, services.segments, study.id, studies[0].attachments)
        attached.receive(services.store, study.id, studies[0].attachments)
        for row in services.store.segments(study.id):
            say(f"Segment: {row.label}, {row.note}")
    for series in study.series:
        receipt = series.receipt
        size = " × ".join(str(n) for n in receipt.dimensions)
        spacing = " × ".join(f"{mm:.2f}" for mm in receipt.spacing) + " mm" if receipt.spacing else "unknown size"
        expected = f" of {receipt.expected}" if receipt.expected != receipt.loaded else ""
        say(f"Series: {series.modality}, {size} voxels of {spacing}, {receipt.loaded}{expected} images loaded")
        for note in receipt.notes:
            say(f"  {note.text}")
    return study


def _look(services: Services, study: StudyRow, say: Say) -> None:
    """What the image models say of each radiograph: its quality first, then findings, anatomy and its measures."""
    for look in services.eyes.wait(study.id):
        if look.reading is None:
            say(f"Image: {look.sentence or 'it could not be read in time.'}")
            continue
        reading = look.reading
        say(f"Image: read by {reading.model} in {reading.seconds:.1f} s; inputs: {', '.join(reading.inputs)}")
        for note in (*reading.quality.notes, *reading.notes):
            say(f"  {note}")
        if not reading.quality.usable:
            say("  No findings: the image did not pass the quality gate.")
        for found in sorted(look.findings, key=lambda f: -f.probability):
            if found.present:
                kind = "p" if found.calibrated else "score"
                say(f"  Proposed: {found.term}, {kind} {found.probability:.2f} (threshold {found.threshold:.2f})")
        if look.structures:
            rows = draw_anatomy(services.eyes, services.segments, look.series_id)
            say(f"  Anatomy: {', '.join(row.label for row in rows)}")
    if sentence := image_models.outlook(study):
        say(sentence)
    for card in services.board.sync(study.id):
        if card.kind == "measurement" and not card.unit:
            say(f"  {card.text}")


def _segment(services: Services, study: StudyRow, prompts: Sequence[Prompt], say: Say) -> None:
    """All clicks of one name make one segment, in their order."""
    made: dict[str, str] = {}
    for p in prompts:
        series, index = _place(study, p)
        row = services.segments.click(series.id, index, p.positive, made.get(p.label))
        if p.label not in made:
            services.segments.edit(row.id, label=p.label)
            made[p.label] = row.id
    for segment_id in made.values():
        row = services.store.segment(segment_id)
        measured = row.measurement or {}
        numbers = [
            f"{measured[key]:.{digits}f} {unit}"
            for key, digits, unit in (
                ("volume_ml", 1, "ml"),
                ("mean", 0, measured.get("unit", "")),
                ("longest_axial_diameter_mm", 0, "mm longest axial diameter"),
            )
            if measured.get(key) is not None
        ]
        say(f"Segment: {row.label}, {len(row.steps)} click(s) → {', '.join(numbers) or 'empty'}")
        if row.note:
            say(f"  {row.note}")


def _place(study: StudyRow, p: Prompt) -> tuple[SeriesRow, tuple[int, int, int]]:
    """The first series that the point lies in, and its voxel there."""
    for series in study.series:
        index = np.linalg.solve(np.array(series.affine), [*p.point, 1.0])[:3]
        i, j, k = (int(v) for v in np.rint(index))
        if all(0 <= at < size for at, size in zip((i, j, k), series.shape[::-1], strict=True)):
            return series, (i, j, k)
    corners = []
    for series in study.series:
        ends = np.array(np.meshgrid(*([0, size - 1] for size in series.shape[::-1]))).reshape(3, -1)
        corners.append(np.array(series.affine)[:3, :3] @ ends + np.array(series.affine)[:3, 3:])
    low, high = np.hstack(corners).min(1), np.hstack(corners).max(1)
    reach = ", ".join(f"{axis} {a:.0f} to {b:.0f}" for axis, a, b in zip("xyz", low, high, strict=True))
    x, y, z = p.point
    raise Refused(f"The click on {p.label!r} at {x:g},{y:g},{z:g} is outside the scan, which spans {reach} mm.")


def _draft(services: Services, study_id: str, say: Say) -> dict[str, Any]:
    run = services.drafting.start(study_id)
    report: dict[str, Any] = {}
    done: dict[str, Any] = {}
    while (item := run.events.get()) is not None:
        name, value = item
        if name == "error":
            raise Refused(value["error"])
        if name == "warning":
            say(f"Priors: {value['text']}")
        if name == "finished":
            cited = " ".join(value["evidence"])
            say(f"  {value['section'][:1].upper()} [{cited}] {value['text']} ({value['support']})")
        if name == "done":
            done, report = value, value["report"] or {}
    say(f"Draft: {len(report.get('statements', ()))} statements in {done.get('seconds')} s")
    for text in report.get("unseen", ()):
        say(f"  {text}")
    return report


def _export(services: Services, study_id: str, out: Path, say: Say) -> list[str]:
    from webapp.exports import EXPORTS, collect

    bundle = collect(services.store, study_id)
    written = []
    for export in EXPORTS.values():
        try:
            content = export.write(bundle)
        except Refused as error:
            say(f"Not written: {export.filename}. {error}")
            continue
        path = out / export.named(bundle)[1]
        path.write_bytes(content)
        written.append(str(path))
        say(f"Wrote {path} ({len(content) / 1000:.0f} kB)")
    return written
