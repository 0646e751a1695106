"""Settings → the one store of all that outlives the process: rows in a database, voxels in files beside it.

Each part is its own file: `studies`, `segments`, `annotations`, `evidence`, `reports`, `received`, `corrections`,
`explanations`; `database` and `files` are the two edges.
All methods may be called from any thread; writers queue on one lock.
"""

from __future__ import annotations

import logging

import sqlalchemy as sa

from webapp.settings import Settings
from webapp.store import deleted, schema
from webapp.store.annotations import Annotations
from webapp.store.database import Database
from webapp.store.explanations import Explanations
from webapp.store.files import Files
from webapp.store.received import ReceivedReports
from webapp.store.reports import Reports
from webapp.store.segments import Segments
from webapp.store.studies import Studies

log = logging.getLogger(__name__)


class Store(Studies, Segments, Annotations, Reports, ReceivedReports, Explanations):
    """Studies, segments, annotations, evidence, reports, what signing taught, explained drafts, and the audit trail.

    Raises:
        NotFound, Conflict, Refused, TooLarge, Busy, and ReadingRoomError with status 507 when the disk is full.
    """

    def __init__(self, settings: Settings) -> None:
        """Open (or make) the store: migrate the schema to the newest revision, forget old deletions, sweep orphans."""
        super().__init__()
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._db = Database(settings.database_url)
        self._db.migrate()
        self._files = Files(settings.studies)
        with self._db.write() as c:
            files = deleted.past_time(c)
        self._files.drop_masks(files)
        self._sweep()

    def _sweep(self) -> None:
        with self._db.read() as c:
            series: dict[str, set[str]] = {i: set() for (i,) in c.execute(sa.select(schema.studies.c.id))}
            for study_id, series_id in c.execute(sa.select(schema.series.c.study_id, schema.series.c.id)):
                series[study_id].add(series_id)
            masks: dict[str, set[str]] = {}
            t = schema.segments.c
            for study_id, *names in c.execute(sa.select(t.study_id, t.mask_file, t.base_file)):
                masks.setdefault(study_id, set()).update(names)
        removed = self._files.sweep(series, masks)
        if removed:
            log.info("removed %d orphan files or folders", removed)

    def close(self) -> None:
        """Give the database connections back."""
        self._db.close()
