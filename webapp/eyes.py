"""A study's radiographs → what the image models say of each, read in the background once per series.

Concurrency: one worker thread reads, one image after the other; `_lock` guards the tables here and is never held while
anything is read or stored.  The model is loaded by the worker at its first image, so a server that shows no radiograph
never imports torch.  A reading is kept for the process's one choice of model; another choice is another process.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from core_models.drafting.evidence import Evidence
from core_models.errors import Busy, ModelMissing, NotFound, ReadingRoomError, Refused
from core_models.foundation.reading import Context, Eyes, Finding, Reading, Structure
from webapp.anatomy import is_radiograph, lps
from webapp.errors import logged
from webapp.settings import Settings
from webapp.store import SegmentRow, SeriesRow, Store, StudyRow

if TYPE_CHECKING:
    import numpy as np

    from webapp.viewer.service import SegmentService

State = Literal["waiting", "reading", "done", "missing", "failed"]
Load = Callable[[str], Eyes]

HELD = 8  # readings kept, each with its masks; all of the study that is read now, however many
WAITING = 32  # images that may wait; more are asked for again by the next look
RETRY_S = 5.0  # after a failure, so that a page that asks often does not make it fail often
PATIENCE_S = 120.0  # for one image with the loading of its model
TICK_S = 0.05
FRONTAL = 0.5
SEXES = frozenset({"F", "M"})
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


@dataclass(frozen=True)
class Look:
    """Where the reading of one series stands; `sentence` says why there is none, `reading` is there when done."""

    series_id: str
    state: State
    reading: Reading | None = None
    sentence: str = ""
    ended: float = 0.0
    study_id: str = ""

    @property
    def over(self) -> bool:
        return self.state in ("done", "missing", "failed")

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What may be shown: nothing of an image that did not pass the gate."""
        return self.reading.findings if self.reading is not None and self.reading.quality.usable else ()

    @property
    def structures(self) -> tuple[Structure, ...]:
        """The anatomy of a frontal radiograph; nothing of any other image."""
        if self.reading is None or not self.reading.quality.usable or self.reading.quality.frontal < FRONTAL:
            return ()
        return self.reading.structures


class EyesService:
    """Reads radiographs and remembers what was seen.

    Args:
        load: modality → the model for it; called by the worker.  Raises ModelMissing with a sentence.

    Attributes:
        on_read: called by the worker with the study's id after each image.
    """

    def __init__(self, store: Store, load: Load) -> None:
        self._store, self._load = store, load
        self.on_read: Callable[[str], object] | None = None
        self._lock = threading.Lock()
        self._looks: OrderedDict[str, Look] = OrderedDict()
        self._futures: dict[str, Future[None]] = {}
        self._eyes: dict[str, Eyes] = {}  # the worker's own
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="eyes")

    # ---- asking ----------------------------------------------------------------------------------------------------

    def look(self, study_id: str) -> tuple[Look, ...]:
        """Begin what was not begun, and answer where each radiograph stands, at once.  Raises NotFound."""
        study = self._store.study(study_id)
        return tuple(self._begin(study, series) for series in study.series if is_radiograph(series))

    def wait(
        self, study_id: str, cancelled: Callable[[], bool] = lambda: False, seconds: float = PATIENCE_S
    ) -> tuple[Look, ...]:
        """As `look`, but when every image is read, or the time is over, or the caller gives up."""
        deadline = time.monotonic() + seconds
        looks = self.look(study_id)
        while any(not one.over for one in looks) and time.monotonic() < deadline and not cancelled():
            time.sleep(TICK_S)
            looks = self.look(study_id)
        return looks

    def structures(self, series_id: str) -> tuple[str, tuple[Structure, ...]]:
        """(model, what it drew on one series), read now where it was not.

        Raises:
            NotFound; Refused: nothing was drawn, and why; Busy: the reading takes too long.
        """
        study, series = self._store.series(series_id)
        if not is_radiograph(series):
            raise Refused(untrained(series.modality))
        looks = {one.series_id: one for one in self.wait(study.id)}
        found = looks.get(series_id)
        if found is None or not found.over:
            raise Busy("The image is still being read: try again in a moment.")
        if not found.structures or found.reading is None:
            raise Refused(found.sentence or " ".join(["The model drew no anatomy here.", *_reasons(found.reading)]))
        return found.reading.model, found.structures

    def cards(self, study: StudyRow) -> tuple[tuple[Evidence, ...], bool]:
        """The findings that are proposed, one card a term, and whether all images were read to the end.

        A finding of several images is the card of the one where it is most probable.
        """
        best: dict[str, tuple[float, Evidence]] = {}
        looks = {one.series_id: one for one in self._peek(study.id, study)}
        for series in filter(is_radiograph, study.series):
            one = looks[series.id]
            for found in one.findings if one.reading is not None else ():
                if not found.present or found.probability <= best.get(found.term.casefold(), (-1.0,))[0]:
                    continue
                best[found.term.casefold()] = (found.probability, card(series, found, one.reading.model))
        return tuple(one for _, one in best.values()), all(one.state == "done" for one in looks.values())

    def forget(self, study_id: str) -> None:
        """Let go of what was seen of a study that is deleted."""
        with self._lock:
            for one in [one for one in self._looks.values() if one.study_id == study_id]:
                del self._looks[one.series_id]

    def embedding(self, study_id: str) -> tuple[np.ndarray, str] | None:
        """((d,) vector of the study's first usable radiograph that was read, its model), or None; reads nothing.

        What arrived after the report was signed is not asked: the vector would stand for a report of other images.
        """
        study = self._store.study(study_id)
        for one in self._peek(study_id, replace(study, series=tuple(s for s in study.series if not s.after_signing))):
            r = one.reading
            if r is not None and r.embedding is not None and r.quality.usable:
                return r.embedding, r.model
        return None

    def picture(self, study_id: str) -> np.ndarray | None:
        """(h, w) grey levels of the study's first usable radiograph that was read, bright = dense, or None."""
        for one in self._peek(study_id):
            if one.reading is not None and one.reading.quality.usable:
                pixels = self._store.volume(one.series_id).array[0]
                turned_back = any("inverted" in note for note in one.reading.quality.notes)
                return -pixels.astype("float32") if turned_back else pixels
        return None

    def unseen(self, study_id: str) -> tuple[str, ...]:
        """What no image model saw, each in a sentence."""
        study = self._store.study(study_id)
        out: list[str] = []
        for one in self._peek(study_id, study):
            if one.reading is None:
                out.append(one.sentence if one.over else "The image was not read by a findings model yet.")
                continue
            out += [*one.reading.missing, *one.reading.notes]
            if not one.reading.quality.usable:
                out.append("An image was not read for findings: " + " ".join(one.reading.quality.notes))
        return tuple(dict.fromkeys(text for text in (*out, outlook(study)) if text))

    def _peek(self, study_id: str, study: StudyRow | None = None) -> tuple[Look, ...]:
        study = study or self._store.study(study_id)
        with self._lock:
            return tuple(self._looks.get(s.id, Look(s.id, "waiting")) for s in study.series if is_radiograph(s))

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _begin(self, study: StudyRow, series: SeriesRow) -> Look:
        with self._lock:
            known = self._looks.get(series.id)
            again = known is not None and known.state in ("missing", "failed")
            if known is not None and not (again and time.monotonic() - known.ended > RETRY_S):
                self._looks.move_to_end(series.id)
                return known
            if len(self._futures) >= WAITING:
                return Look(series.id, "waiting")
            look = self._looks[series.id] = Look(series.id, "waiting", study_id=study.id)
            self._futures[series.id] = self._worker.submit(self._run, study, series)
            return look

    def _run(self, study: StudyRow, series: SeriesRow) -> None:
        self._keep(Look(series.id, "reading", study_id=study.id))
        try:
            look = Look(series.id, "done", self._read(study, series))
        except NotFound:  # deleted meanwhile
            self._forget(series.id)
            return
        except ModelMissing as error:
            look = Look(series.id, "missing", sentence=str(error))
        except ReadingRoomError as error:
            look = Look(series.id, "failed", sentence=str(error))
        except MemoryError:
            look = Look(series.id, "failed", sentence="There is not enough memory to read this image.")
        except Exception as error:
            look = Look(series.id, "failed", sentence=f"The image could not be read. {logged(error)}")
        self._keep(replace(look, ended=time.monotonic(), study_id=study.id))
        try:
            if self.on_read is not None:
                self.on_read(study.id)
        except NotFound:  # deleted meanwhile
            self._forget(series.id)
        except ReadingRoomError:  # the store is in use: the next look at the board repeats it
            pass
        except Exception as error:
            logged(error)
        finally:
            with self._lock:
                self._futures.pop(series.id, None)

    def _read(self, study: StudyRow, series: SeriesRow) -> Reading:
        if series.modality not in self._eyes:
            try:
                self._eyes[series.modality] = self._load(series.modality)
            except NotFound as error:  # the setting names no model: that is not a study that was deleted
                raise ModelMissing(str(error)) from error
        return self._eyes[series.modality].read(self._store.volume(series.id), context(study, series))

    def _keep(self, look: Look) -> None:
        with self._lock:
            self._looks[look.series_id] = look
            self._looks.move_to_end(look.series_id)
            over = [one for one in self._looks.values() if one.over]
            for one in over[: max(0, len(over) - HELD)]:
                if one.study_id != look.study_id:
                    del self._looks[one.series_id]

    def _forget(self, series_id: str) -> None:
        with self._lock:
            self._looks.pop(series_id, None)
            self._futures.pop(series_id, None)

    def close(self) -> None:
        """Let the background thread end after what it is doing."""
        self._worker.shutdown(wait=False, cancel_futures=True)


def _reasons(reading: Reading | None) -> tuple[str, ...]:
    return () if reading is None else (*reading.quality.notes, *reading.notes)


def draw_anatomy(
    eyes: EyesService, segments: SegmentService, series_id: str, label: str | None = None
) -> list[SegmentRow]:
    """Store what the model drew under `label`, or all of it, as segments.

    Raises:
        Refused: there is none of that name, or none at all; NotFound, Conflict, Busy.
    """
    model, structures = eyes.structures(series_id)
    chosen = [s for s in structures if (label is None or s.label == label) and not s.mask.empty]
    if not chosen:
        raise Refused(f"The model drew no {label[:40] if label else 'anatomy'} on this image.")
    name, _, version = model.partition("/")
    return [
        segments.place(series_id, s.label, s.mask, engine=name, version=version, confidence=s.confidence)
        for s in chosen
    ]


def context(study: StudyRow, series: SeriesRow) -> Context:
    """What the headers say beside the image."""
    sex = study.patient_sex.strip().upper()
    return Context(series.view, years(study.age, study.birth_date, study.date), sex if sex in SEXES else "")


def years(age: str, birth_date: str, date: str) -> float | None:
    """Age in years of a DICOM age string ("064Y"), else between two dates (YYYYMMDD); None where neither says."""
    match = _AGE.fullmatch(age.strip().upper())
    if match:
        return int(match[1]) * _YEARS[match[2]]
    if re.fullmatch(r"\d{8}", birth_date) and re.fullmatch(r"\d{8}", date):
        born, taken = (int(d[:4]) + (int(d[4:6]) - 1) / 12 + (int(d[6:]) - 1) / 365.25 for d in (birth_date, date))
        return taken - born if 0 <= taken - born < 130 else None
    return None


def card(series: SeriesRow, found: Finding, model: str) -> Evidence:
    """A proposed finding as a card without an id; its place is the middle of its box."""
    location = None
    if found.box is not None:
        x0, y0, x1, y1 = found.box
        location = lps(series, ((x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2))
    return Evidence(
        id="",
        kind="finding",
        region=found.region,
        statement=found.term,
        probability=found.probability if found.calibrated else None,
        location=location,
        source=model,
    )


def untrained(modality: str) -> str:
    return f"The findings model was not trained on this modality ({modality}): no findings are proposed."


def outlook(study: StudyRow) -> str:
    """The sentence on the series that no findings model reads; "" where there is none."""
    others = dict.fromkeys(series.modality for series in study.series if not is_radiograph(series))
    return untrained(", ".join(others)) if others else ""


def loader(settings: Settings) -> Load:
    """A function that gives the model of a modality; torch is imported when it is called."""

    def load(modality: str) -> Eyes:
        from core_models import registry

        return registry.eyes_for(modality, settings.eyes, settings.threads)

    return load
