"""A database URL → an engine at the newest revision, and transactions whose failures a reader understands.

Concurrency: one lock for writers in the process; on SQLite a writing transaction begins with BEGIN IMMEDIATE, so two
processes queue (30 s) instead of failing half-way; readers see a snapshot (WAL).
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import OperationalError

from core_models.errors import Busy, ReadingRoomError
from webapp.store.encoding import dumps

BUSY_TIMEOUT_S = 30
MIGRATIONS = Path(__file__).parent / "migrations"


def disk_full() -> ReadingRoomError:
    """The error for a full disk, with the HTTP status 507 (insufficient storage)."""
    error = ReadingRoomError("The disk is full: the change was not stored, and what was there before is unharmed.")
    error.status = 507
    return error


class Database:
    """An engine, its writers' lock, and its schema."""

    def __init__(self, url: str, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.lock = threading.RLock()
        sqlite = sa.make_url(url).get_backend_name() == "sqlite"
        self.engine = sa.create_engine(
            url, json_serializer=dumps, connect_args={"timeout": busy_timeout_s} if sqlite else {}
        )
        if sqlite:
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads."""
        with self.plain_errors(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that commits when the block ends and leaves no trace when it raises.

        Raises:
            Busy: another process held the database for too long.
            ReadingRoomError: the disk is full (status 507).
        """
        with (
            self.plain_errors(),
            self.lock,
            self.engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    @staticmethod
    @contextmanager
    def plain_errors() -> Iterator[None]:
        """Turn what a database or a disk says into the errors a reader understands."""
        try:
            yield
        except OperationalError as e:
            text = str(e.orig).lower()
            if "full" in text and "disk" in text:
                raise disk_full() from e
            if "locked" in text or "busy" in text or "deadlock" in text or "timeout" in text:
                raise Busy("The store is in use by another process: nothing was lost, try again in a moment.") from e
            raise
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full() from e
            raise

    def migrate(self, revision: str = "head") -> None:
        """Upgrade (or, for an older `revision` such as "base", downgrade) the schema in one transaction."""
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        with self.write() as connection:
            config.attributes["connection"] = connection
            if revision == "head":
                command.upgrade(config, "head")
            else:
                command.downgrade(config, revision)

    def close(self) -> None:
        self.engine.dispose()


def _prepare_sqlite(connection, _record) -> None:
    connection.isolation_level = None  # the driver must not begin or commit on its own: _begin_sqlite does
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # a signed report survives a power cut
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
