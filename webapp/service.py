"""Settings → the parts the routes work with, wired once; models, index and language model open on first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from core_models.segmentation import optional
from core_models.segmentation.engine import Engine
from core_models.study.study import Study
from core_models.study.volume import Volume
from webapp import eyes as image_models
from webapp.board import Board
from webapp.demos import Demos
from webapp.drafting import Drafting, Writer, loader
from webapp.eyes import EyesService
from webapp.indexing import Indexer, patient_key, salt_of
from webapp.jobs import Jobs
from webapp.priors import Priors, Search, opener, shared_text, text_encoder
from webapp.report import Reports
from webapp.settings import Settings
from webapp.store import Store
from webapp.viewer.annotations import AnnotationService
from webapp.viewer.service import SegmentService


@dataclass(frozen=True)
class Services:
    """Everything behind the routes.

    Attributes:
        read_scan: files → studies (`core_models.study.intake.read_scan`).
    """

    settings: Settings
    store: Store
    jobs: Jobs
    board: Board
    priors: Priors
    reports: Reports
    drafting: Drafting
    segments: SegmentService
    annotations: AnnotationService
    eyes: EyesService
    demos: Demos
    indexer: Indexer
    read_scan: Callable[..., tuple[Study, ...]]

    @classmethod
    def create(
        cls,
        settings: Settings,
        *,
        load_writer: Callable[[], Writer] | None = None,
        open_search: Callable[[], Search] | None = None,
        load_eyes: image_models.Load | None = None,
        segment_options: dict[str, Any] | None = None,
        salt: bytes | None = None,
    ) -> Services:
        """Wire the parts.

        Args:
            load_writer, open_search, load_eyes, segment_options: replacements, for tests that have no weights and no
                index.
            salt: of the patient keys; default: this home's own.
        """
        store = Store(settings)
        eyes = EyesService(store, load_eyes or image_models.loader(settings))
        board = Board(store, eyes.cards)
        salt = salt or salt_of(settings.home)
        key = partial(patient_key, salt=salt)
        priors = Priors(store, open_search or opener(settings), key, eyes.embedding)
        reports = Reports(store, board)
        indexer = Indexer(
            store,
            settings.index,
            salt,
            priors.forget,
            encoder=lambda: text_encoder(settings.threads),
            embedding_of=eyes.embedding,
            shared=lambda: shared_text(settings.threads),
        )

        def read(study_id: str) -> None:
            board.sync(study_id)
            indexer.seen(study_id)

        eyes.on_read = read
        return cls(
            settings=settings,
            store=store,
            jobs=Jobs(),
            board=board,
            priors=priors,
            reports=reports,
            drafting=Drafting(store, board, priors, reports, load_writer or loader(settings), eyes),
            segments=SegmentService(
                store,
                on_change=board.sync,
                **({"engine_for": engine_for(settings), "limit_s": settings.segment_seconds} | (segment_options or {})),
            ),
            annotations=AnnotationService(store, on_change=board.sync),
            eyes=eyes,
            demos=Demos(settings),
            indexer=indexer,
            read_scan=_read_scan(settings, salt),
        )


def engine_for(settings: Settings) -> Callable[[Volume], Engine]:
    """What gives the engine that answers clicks on a volume, by the settings."""
    return optional.chooser(
        settings.segmenter,
        settings.threads,
        key=settings.segmenter_key,
        allow_remote=settings.segmenter_allow_remote,
    )


def _read_scan(settings: Settings, salt: bytes) -> Callable[..., tuple[Study, ...]]:
    def read(files, **options) -> tuple[Study, ...]:
        from core_models.study.deidentify import Deidentifier
        from core_models.study.intake import read_scan  # numpy and pydicom readers: not needed to show the page

        cleaner = Deidentifier(salt) if settings.deidentify else None
        return read_scan(files, deidentifier=cleaner, **options)

    return read
