"""DICOM element values → plain Python ones; whatever is absent or malformed becomes None, never an exception."""

from __future__ import annotations

import math

import pydicom

from core_models.study.text import clean


def date(value: object) -> str:
    """YYYYMMDD, or "" for anything else."""
    text = clean(value, 10).replace(".", "").replace("-", "")
    return text if len(text) == 8 and text.isdigit() else ""


def values(value: object) -> list:
    """The element's values as a list; [] where there is none."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, pydicom.multival.MultiValue | list | tuple) else [value]


def first(values: object):
    """The first of several values or items, or None."""
    return values[0] if values is not None and len(values) else None  # type: ignore[arg-type, index]


def whole(value: object) -> int | None:
    """An int, or None for what is none."""
    try:
        return int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None


def number(value: object, default: float | None = None) -> float | None:
    """A finite float, `default` where there is none, None where it is not finite."""
    if value is None or value == "":
        return default
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def pair(value: object) -> tuple[float, float] | None:
    """Two finite positive numbers, or None."""
    numbers = [number(v) for v in values(value)]
    if len(numbers) != 2 or any(v is None or not 1e-6 < v < 1e4 for v in numbers):
        return None
    return numbers[0], numbers[1]  # type: ignore[return-value]


def floats(value: object, count: int) -> tuple[float, ...] | None:
    """`count` floats (perhaps not finite: geometry judges them), or None where the element is absent or empty."""
    items = values(value)
    if not items:
        return None
    try:
        numbers = tuple(float(v) for v in items)
    except (TypeError, ValueError):
        return (math.nan,) * count
    return numbers if len(numbers) == count else (math.nan,) * count
