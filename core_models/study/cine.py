"""A stored multi-frame file in → the frames a second at which it was made to be shown, where it says so."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from core_models.study.elements import number

SLOWEST, FASTEST = 1.0, 60.0
_TAGS = ("NumberOfFrames", "RecommendedDisplayFrameRate", "CineRate", "FrameTime", "FrameTimeVector")


def frame_rate(path: Path) -> float | None:
    """Frames a second, held to what a screen shows; None for a single frame, an unreadable file or a silent header.

    In the order of PS3.3 C.7.6.5: the recommended display rate, the cine rate, then the time from frame to frame.
    """
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        frames = number(header.get("NumberOfFrames"))
        rates = [number(header.get(keyword)) for keyword in ("RecommendedDisplayFrameRate", "CineRate")]
        step = number(header.get("FrameTime"))
        steps = [number(value) for value in header.get("FrameTimeVector") or ()]
    except (OSError, InvalidDicomError, ValueError, TypeError, AttributeError):
        return None
    if not frames or frames < 2:
        return None
    known = [value for value in steps[1:] if value and value > 0]  # the first one is 0: nothing came before it
    if not step and known:
        step = sum(known) / len(known)
    if step and step > 0:
        rates.append(1000.0 / step)
    rate = next((value for value in rates if value and value > 0), None)
    return None if rate is None else min(FASTEST, max(SLOWEST, rate))
