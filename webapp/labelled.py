"""Labelled scans that judge segmentation engines → where they lie, fetched as data out of a package."""

from __future__ import annotations

import sys
from pathlib import Path

from core_models.errors import ReadingRoomError
from webapp import demo
from webapp.settings import Settings

MANIFEST = Path(__file__).resolve().parents[1] / "assets" / "segmentation" / "scans.json"


def vertebrae(settings: Settings, progress: demo.Progress | None = None) -> Path | None:
    """The folder of the vertebra crops; None, said on stderr, where they cannot be fetched."""
    (scan,) = demo.manifest(MANIFEST)
    try:
        demo.fetch(settings, progress, scans=(scan,))
    except ReadingRoomError as error:
        print(f"Without the vertebra crops: {error}", file=sys.stderr)
        return None
    return settings.demo / scan.name
