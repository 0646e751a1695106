"""Cleaned reports in → an index on disk that is built, added to and taken from; its form on disk is in `opened`.

One vector stands for one report: its finding terms in words, then findings and impression ("terms first" found reports
with the same findings far more often than the text alone).  Every distinct sentence is embedded too, so that a search
can say at once which sentence matched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from core_models.errors import ModelMissing, Refused
from retrieval import calibration, clean, split, steps
from retrieval import shared as space
from retrieval.embedding import DIMENSIONS, Encoder
from retrieval.generation import REBUILD, in_force, writing
from retrieval.opened import Index, Manifest, open_index, store
from retrieval.report import CorpusReport
from retrieval.shared import ImageVectors, SharedEncoder, SharedVectors
from retrieval.terms import terms_text
from retrieval.vectors import EXACT_BELOW

__all__ = ["SIGNED", "ImageVectors", "Index", "Manifest", "add", "build", "in_force", "open_index", "remove"]

Progress = Callable[[int, int, str], None]
Cancel = Callable[[], bool]
Key = tuple[str, str]

SIGNED = "signed"
"""Source of the reports that this house signed."""


def document(report: CorpusReport) -> str:
    """The text whose embedding stands for the report."""
    return ". ".join(t for t in (terms_text(report.terms), report.text) if t)


def summary_first(report: CorpusReport) -> str:
    """The text that stands for the report in the shared space, whose encoder may read no more than the beginning."""
    return ". ".join(t for t in (terms_text(report.terms), f"{report.impression} {report.findings}".strip()) if t)


def build(
    reports: Sequence[CorpusReport],
    encoder: Encoder,
    folder: Path,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
    *,
    shared: SharedEncoder | None = None,
    calibration_images: ImageVectors | None = None,
    exact_below: int = EXACT_BELOW,
) -> Index:
    """Index the training reports of corpora; test studies are left out here, whoever calls.

    An interrupted build goes on from its last saved step when it is started again with the same reports.  Signed
    reports that the folder's index already holds are carried over, with their image vectors where these are of the
    model of `shared` (or where there is no `shared`).

    Args:
        reports: any cleaned reports; those without text are left out and counted.
        folder: created where needed; its present index stays in force until the new one is whole.
        progress: called with (texts embedded, texts in all, what is being done).
        cancelled: asked between steps.
        shared: the text tower of the shared image-text space; without it images are not compared with report texts,
            and the manifest says so.
        calibration_images: radiographs of the training side, of the model of `shared`, on which to calibrate when an
            image has a close precedent; default: the signed studies' own.
        exact_below: reports from which on the search is approximate (see `vectors`).

    Raises:
        Refused: nothing is left to index, or two reports have the same source and id.
        Busy: another process is writing this folder.
        Cancelled: `cancelled` said so; the finished steps are kept.
        ModelMissing: the encoder is not installed.
        ValueError: `calibration_images` are of another model.
    """
    if calibration_images and (shared is None or calibration_images.model != shared.name):
        raise ValueError(f"images of {calibration_images.model!r} cannot calibrate texts of another model")
    with writing(folder):
        before = _before(folder)
        kept = {} if before is None else {_key(r): r for r in before.reports if r.source == SIGNED}
        chosen, left_out = _indexable(reports)
        for report in chosen:
            if _key(report) in kept and report.source != SIGNED:
                raise Refused(f"Two reports have the same source and id, {report.id!r}: ids must be unique.")
            kept[_key(report)] = report
        rows = list(kept.values())
        if not rows:
            raise Refused("No report is left to index: all are test studies or have no text.")
        sentence_rows, sentences = _sentences_of(rows)
        queries = calibration.text_queries(rows)
        texts = [*map(document, rows), *sentences, *(q for _, q in queries)]
        in_all = len(texts) + (len(rows) if shared else 0)

        def say(done: int) -> None:
            if progress:
                progress(done, in_all, "Embedding reports and sentences")

        every = steps.embed(texts, encoder, DIMENSIONS, folder, say, cancelled)
        vectors, rest = every[: len(rows)], every[len(rows) :]
        model, in_space = "" if before is None else before.shared.model, None
        images = {} if before is None else before.shared.images_of([_key(r) for r in before.reports])
        if shared is not None:
            summaries = [summary_first(r) for r in rows]
            in_space = steps.embed(
                summaries, shared, shared.dimensions, folder, lambda done: say(len(texts) + done), cancelled
            )
            in_space = space.checked(in_space, len(rows))
            images, model = (images if model == shared.name else {}), shared.name
        minimum, told = calibration.text_minimum(rows, vectors, queries, rest[len(sentences) :])
        manifest = _manifest(encoder.name, left_out, minimum, told)
        note = "" if in_space is not None else space.NOT_BUILT
        manifest = replace(manifest, shared_note=note, exact_below=exact_below)
        held = SharedVectors.of(model, in_space, [_key(r) for r in rows], images)
        manifest = _calibrated_for_images(manifest, rows, held, calibration_images)
        store(folder, manifest, rows, vectors, sentences, rest[: len(sentences)], sentence_rows, held)
        steps.forget(folder)
        return open_index(folder)


def add(
    folder: Path,
    reports: Sequence[CorpusReport],
    encoder: Encoder,
    *,
    shared: SharedEncoder | None = None,
    images: ImageVectors | None = None,
) -> Index:
    """Add reports that this house signed; one that is already there (same id) is replaced, so a repeat does no harm.

    The split is a rule about corpora: a house's own signed report is not a test study, so it is not asked here, and
    therefore nothing but signed reports may come this way.

    Args:
        shared: the text tower that made the index's shared text vectors.  Without it, or with another, those vectors
            are dropped as a whole (a report that some searches never see would be worse), and the manifest says so.
        images: the radiographs of these studies.  A replaced report without one here keeps the one it had.  Images of
            another model than the index's texts are left out; in an index without such texts the newest model's stay.

    Raises:
        Refused: a report's source is not "signed".
        Busy, ModelMissing: as `build` and `open_index`.
        ValueError: an image vector is not finite or not of the index's length.
    """
    if any(r.source != SIGNED for r in reports):
        raise Refused("Only signed reports can be added to an index; a corpus is indexed with `python app.py index`.")
    with writing(folder):
        index = open_index(folder)
        new = {_key(r): r for r in reports if r.text}
        gone = {_key(r) for r in reports}
        return _rewrite(index, gone, list(new.values()), encoder, shared, images) if gone else index


def remove(folder: Path, ids: Sequence[str], encoder: Encoder) -> Index:
    """Take signed reports and their images out again, by report id (their study was deleted).  Raises as `add`."""
    with writing(folder):
        index = open_index(folder)
        gone = {(SIGNED, i) for i in ids} & {_key(r) for r in index.reports}
        return _rewrite(index, gone, [], encoder) if gone else index


def _key(report: CorpusReport) -> Key:
    return report.source, report.id


def _before(folder: Path) -> Index | None:
    try:
        return open_index(folder)
    except ModelMissing:
        return None  # none yet, or damaged: the store feeds its signed reports in again


def _indexable(reports: Sequence[CorpusReport]) -> tuple[list[CorpusReport], dict[str, int]]:
    chosen: dict[Key, CorpusReport] = {}
    left_out = {"test split": 0, "no text": 0}
    for report in reports:
        if split.split_of(report.study_id) == "test":
            left_out["test split"] += 1
        elif not report.text:
            left_out["no text"] += 1
        elif _key(report) in chosen:
            raise Refused(f"Two reports have the same source and id, {report.id!r}: ids must be unique.")
        else:
            chosen[_key(report)] = report
    return list(chosen.values()), left_out


def _sentences_of(reports: Sequence[CorpusReport]) -> tuple[list[tuple[int, ...]], list[str]]:
    """For each report the rows of its sentences, and the distinct sentences; lone words ("Chest.") match nothing."""
    rows: dict[str, int] = {}
    per_report = []
    for report in reports:
        own = dict.fromkeys(s for s in clean.sentences(report.text) if len(s.split()) > 1)
        per_report.append(tuple(rows.setdefault(s, len(rows)) for s in own))
    return per_report, list(rows)


def _manifest(embedding_model: str, left_out: dict[str, int], minimum: float, told: str) -> Manifest:
    """A manifest whose counts and digests `store` fills in."""
    return Manifest(
        corpora={},
        reports=0,
        sentences=0,
        left_out=left_out,
        embedding_model=embedding_model,
        dimensions=DIMENSIONS,
        split_rule=split.RULE,
        minimum=minimum,
        calibration=told,
        created_at="",
        files={},
    )


def _calibrated_for_images(
    manifest: Manifest, reports: Sequence[CorpusReport], held: SharedVectors, images: ImageVectors | None
) -> Manifest:
    if images is None:  # the house's own, once there are enough
        images = ImageVectors(held.model, held.images_of([r.study_id for r in reports]))
    minimum, told = calibration.image_minimum(reports, held.texts, images)
    floor = manifest.image_floor if manifest.image_floor is not None else calibration.image_floor(images)
    return replace(manifest, image_minimum=minimum, image_calibration=told, image_floor=floor)


def _rewrite(
    index: Index,
    gone: set[Key],
    new: list[CorpusReport],
    encoder: Encoder,
    shared: SharedEncoder | None = None,
    images: ImageVectors | None = None,
) -> Index:
    """A new generation without the reports `gone` and with `new`; only new texts are embedded."""
    if index.manifest.embedding_model != encoder.name:
        raise ModelMissing(f"The index of prior reports was made by another text encoder: {REBUILD}.")
    stay = [i for i, r in enumerate(index.reports) if _key(r) not in gone]
    rows = [index.reports[i] for i in stay] + new
    if not rows:
        raise Refused("The last report of an index cannot be taken out.")
    old = index.vectors.reconstruct_n(0, index.vectors.ntotal) if index.vectors.ntotal else np.zeros((0, DIMENSIONS))
    vectors = np.concatenate([old[stay], encoder.encode([document(r) for r in new])]).astype(np.float32)
    sentence_rows, sentences = _sentences_of(rows)
    known = {s: i for i, s in enumerate(index.sentences)}
    fresh = [s for s in sentences if s not in known]
    pool = np.concatenate([index.sentence_vectors, encoder.encode(fresh).astype(np.float16)])
    place = known | {s: len(known) + i for i, s in enumerate(fresh)}
    sentence_vectors = pool[[place[s] for s in sentences]] if sentences else np.zeros((0, DIMENSIONS), np.float16)
    held = _shared_after(index, stay, new, shared, images)
    manifest = index.manifest
    if held.texts is None and index.shared.texts is not None:
        manifest = replace(manifest, shared_note=space.DROPPED, image_minimum=None)
    if held.model != index.shared.model:
        manifest = replace(manifest, image_floor=None)
    if manifest.image_minimum is None:
        manifest = _calibrated_for_images(manifest, rows, held, None)
    store(index.folder, manifest, rows, vectors, sentences, sentence_vectors, sentence_rows, held, index.vectors)
    return open_index(index.folder)


def _shared_after(
    index: Index,
    stay: Sequence[int],
    new: Sequence[CorpusReport],
    shared: SharedEncoder | None,
    images: ImageVectors | None,
) -> SharedVectors:
    """The shared space's vectors for the reports that stay and the new ones; what `add` says of them holds here."""
    model, texts = index.shared.model, index.shared.texts
    if texts is not None and new:
        fits = shared is not None and shared.name == model
        summaries = [summary_first(r) for r in new]
        texts = np.concatenate([texts[stay], space.encoded(shared, summaries)]) if fits else None
    elif texts is not None:
        texts = texts[stay]
    pictures: Mapping[Key, np.ndarray] = index.shared.images_of([_key(r) for r in index.reports])
    if images is not None and images.vectors:
        if texts is None and images.model != model:
            model, pictures = images.model, {}
        if images.model == model:
            here = {_key(r): images.vectors[r.study_id] for r in new if r.study_id in images.vectors}
            pictures = {**pictures, **{key: space.unit(vector) for key, vector in here.items()}}
    keys = [_key(index.reports[i]) for i in stay] + [_key(r) for r in new]
    return SharedVectors.of(model, texts, keys, pictures)
