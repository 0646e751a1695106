"""Environment in → one frozen Settings out.  Every setting has a default that needs no network and shares nothing."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from core_models.errors import Refused
from core_models.segmentation import optional

PREFIX = "READING_ROOM_"
_EYES = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*(?::\S.*)?")
_WRITER = re.compile(r"embedded|folder:\S.*|server:https?://[^\s#]+#\S+")


@dataclass(frozen=True)
class Settings:
    """All that can be set, by environment variable (`READING_ROOM_` + the upper-case name).

    Attributes:
        home: studies, database, index and prepared models (READING_ROOM_HOME).
        data: images for training and evaluation (READING_ROOM_DATA); may not exist.
        database_url: SQLAlchemy URL; default SQLite in `home`.
        host, port: where the page listens.
        max_upload_mb: the largest upload.
        threads: torch and OpenMP threads for models.
        segment_seconds: how long an engine may take for one answer before it is stopped.
        adapter: folder of the LoRA adapter, or "" for the one in assets/.
        eyes: the model that reads images, as NAME or NAME:FOLDER of `core_models.registry`; "" for the embedded one.
        writer: the model that writes drafts, as in `core_models.drafting.writers`; "" for the embedded one.
        writer_key: sent to a server that writes drafts.
        segmenter: what answers clicks, as in `core_models.segmentation.optional`; "" leaves the choice to the scan.
        segmenter_key: sent to a server that segments.
        segmenter_allow_remote: whether that server may be another machine, which the voxels then reach.
        deidentify: whether the patient is taken out of every DICOM file as it comes in.
        writer_allow_remote: whether that server may be another machine, which patients' images and cards then reach.
    """

    home: Path
    data: Path
    database_url: str
    host: str = "127.0.0.1"
    port: int = 7860
    max_upload_mb: int = 2048
    threads: int = 2
    segment_seconds: int = 60
    adapter: str = ""
    eyes: str = ""
    writer: str = ""
    writer_key: str = field(default="", repr=False)
    writer_allow_remote: bool = False
    segmenter: str = ""
    segmenter_key: str = field(default="", repr=False)
    segmenter_allow_remote: bool = False
    deidentify: bool = False

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def index(self) -> Path:
        return self.home / "index"

    @property
    def studies(self) -> Path:
        return self.home / "studies"

    @property
    def demo(self) -> Path:
        return self.home / "demo"


def load(environ: dict[str, str] | None = None) -> Settings:
    """The settings from the environment (or from `environ`, for tests).  Raises Refused on a wrong number or form."""
    env = os.environ if environ is None else environ

    def get(name: str, default: str) -> str:
        return env.get(PREFIX + name, "") or default

    def number(name: str, default: int) -> int:
        text = get(name, str(default))
        if not re.fullmatch(r"[1-9]\d{0,5}", text):
            raise Refused(f"{PREFIX}{name} is set to {text[:20]!r}; a whole number from 1 is expected.")
        return int(text)

    eyes = get("EYES", "").strip()
    if eyes and not _EYES.fullmatch(eyes):
        raise Refused(f"{PREFIX}EYES is set to {eyes[:40]!r}; NAME or NAME:FOLDER is expected, as in rad-dino:FOLDER.")
    writer = get("WRITER", "").strip()
    if writer and not _WRITER.fullmatch(writer):
        raise Refused(
            f"{PREFIX}WRITER is set to {writer[:40]!r}; folder:PATH or server:http://127.0.0.1:8000/v1#MODEL is "
            "expected."
        )

    def switch(name: str) -> bool:
        text = get(name, "0")
        if text not in ("0", "1"):
            raise Refused(f"{PREFIX}{name} is set to {text[:20]!r}; 0 or 1 is expected.")
        return text == "1"

    def secret(name: str) -> str:
        key = get(name, "").strip()
        if not re.fullmatch(r"[!-~]*", key):  # and is not shown
            raise Refused(f"{PREFIX}{name} holds characters that no key has; letters, digits and signs are expected.")
        return key

    segmenter = get("SEGMENTER", "").strip()
    optional.chooser(segmenter)  # refuses another form; opens nothing
    home = Path(get("HOME", platformdirs.user_data_dir("reading-room", appauthor=False))).expanduser().resolve()
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Settings(
        home=home,
        data=Path(get("DATA", str(beside))),
        database_url=get("DATABASE_URL", f"sqlite:///{home / 'reading-room.sqlite3'}"),
        host=get("HOST", "127.0.0.1"),
        port=number("PORT", 7860),
        max_upload_mb=number("MAX_UPLOAD_MB", 2048),
        threads=number("THREADS", 2),
        segment_seconds=number("SEGMENT_SECONDS", 60),
        adapter=get("ADAPTER", ""),
        eyes=eyes,
        writer=writer,
        writer_key=secret("WRITER_KEY"),
        writer_allow_remote=switch("WRITER_ALLOW_REMOTE"),
        segmenter=segmenter,
        segmenter_key=secret("SEGMENTER_KEY"),
        segmenter_allow_remote=switch("SEGMENTER_ALLOW_REMOTE"),
        deidentify=switch("DEIDENTIFY"),
    )
