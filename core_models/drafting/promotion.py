"""A trained candidate and its scores beside the present adapter's → promoted or not; and the way back.

    <home>/adapters/<name>/         candidates trained from signed reports
    <home>/adapters/current.json    {"current": name or "shipped", "history": [promotion, ...]}

The history is a record and a pile at once: going back marks the newest promotion that is not yet marked, and the one
beneath it is current again; beneath all lies the shipped adapter.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from core_models.errors import Conflict, ModelMissing, NotFound, Refused

SHIPPED = "shipped"
SHIPPED_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "adapter"
WEIGHTS = "adapter_model.safetensors"
PICKLED = (".bin", ".pkl", ".pt", ".pth", ".ckpt", ".joblib")
MIN_CASES = 20  # signed cases below which no difference is believed
MARGIN = 0.01  # how much worse the fixed held-out set may get, at the bound of the 95 % interval
RESAMPLES = 1000

_NAME = re.compile(r"[a-z0-9-]{1,40}")
_COUNTS = ("given", "stated", "drafted", "supported_drafted", "statements", "unsupported", "contradicted")

Row = Mapping[str, Any]
Rate = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate is promoted, and why or why not, a sentence each."""

    promote: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Promotion:
    """One entry of the history; times are ISO 8601 UTC, `left_at` is "" while it was not gone back from."""

    name: str
    digest: str
    promoted_at: str
    reasons: tuple[str, ...]
    left_at: str = ""


@dataclass(frozen=True)
class Adapter:
    """One adapter that can be loaded, or why not.

    Attributes:
        label: as drafts name it, "folder@digest".
        promotions: its own entries of the history, oldest first; () for the shipped one and for candidates.
        problem: a sentence why it cannot be used; "" where it can.
    """

    name: str
    label: str
    current: bool
    promotions: tuple[Promotion, ...]
    problem: str = ""


# ---- which adapter ---------------------------------------------------------------------------------------------------


def folder(home: Path, name: str) -> Path:
    """Where the candidate of that name lies or will lie.  Raises Refused on a name that is none."""
    if not _NAME.fullmatch(name) or name == SHIPPED:
        raise Refused(
            "An adapter's name has 1 to 40 small letters, digits and hyphens, and is not that of the shipped one."
        )
    place = home / "adapters" / name
    if place.is_symlink():
        raise Refused(f"The adapter {name!r} is a link to another place and is not followed.")
    return place


def resolve(home: Path, setting: str) -> Path:
    """The folder of the adapter to load: the one set, else the promoted one, else the shipped one.

    Raises:
        ModelMissing: the promoted one is gone; Refused: its weights are others than were promoted, or the registry is
            damaged.
    """
    if setting:
        return Path(setting)
    pile = _pile(_history(home))
    if not pile:
        return SHIPPED_FOLDER
    problem = _problem(home, pile[-1].name, pile[-1].digest)
    if problem is not None:
        raise problem
    return folder(home, pile[-1].name)


def listed(home: Path) -> tuple[Adapter, ...]:
    """The shipped adapter, then everything promoted or trained here by name.  Raises Refused on a damaged registry."""
    history = _history(home)
    pile, current = _pile(history), _current(history)
    missing = "" if (SHIPPED_FOLDER / WEIGHTS).is_file() else "The shipped adapter is not here: train it anew."
    out = [Adapter(SHIPPED, "" if missing else _label(SHIPPED_FOLDER), current == SHIPPED, (), missing)]
    for name in sorted({p.name for p in history} | _trained(home)):
        own = tuple(p for p in history if p.name == name)
        problem = _problem(home, name, pile[-1].digest if name == current else None)
        label = _label(folder(home, name)) if problem is None else f"{name}@{own[-1].digest[:12]}" if own else name
        out.append(Adapter(name, label, name == current, own, "" if problem is None else str(problem)))
    return tuple(out)


def promote(home: Path, name: str, verdict: Verdict) -> Promotion:
    """Make a candidate the adapter that the next start loads.

    Raises:
        Refused: the verdict is against it, the name is none, or the folder holds anything but safetensors weights.
        NotFound: there is no such candidate; Conflict: it is the current one already.
    """
    place = folder(home, name)
    if not verdict.promote:
        raise Refused(f"The adapter {name!r} is not promoted: {' '.join(verdict.reasons)}")
    if not place.is_dir():
        raise NotFound(f"There is no trained adapter {name!r} here.")
    problem = _problem(home, name, None)
    if problem is not None:
        raise problem
    history = _history(home)
    pile = _pile(history)
    digest = _digest(place / WEIGHTS)
    if pile and (pile[-1].name, pile[-1].digest) == (name, digest):
        raise Conflict(f"The adapter {name!r} is the current one already.")
    entry = Promotion(name, digest, _now(), verdict.reasons)
    _write(home, [*history, entry])
    return entry


def before(home: Path) -> str | None:
    """The adapter that `back` returns to; None where the shipped one is current."""
    pile = _pile(_history(home))
    return (SHIPPED, *(p.name for p in pile))[-2] if pile else None


def back(home: Path) -> str:
    """Return to the adapter before the current one; its name.  Raises Conflict: the shipped one is current."""
    history = _history(home)
    pile = _pile(history)
    if not pile:
        raise Conflict("The shipped adapter is the current one: there is none before it to return to.")
    left = pile[-1]
    entries = [replace(p, left_at=_now()) if p is left else p for p in history]
    _write(home, entries)
    return _current(entries)


def _pile(history: Sequence[Promotion]) -> list[Promotion]:
    return [p for p in history if not p.left_at]


def _current(history: Sequence[Promotion]) -> str:
    pile = _pile(history)
    return pile[-1].name if pile else SHIPPED


def _trained(home: Path) -> set[str]:
    """The names of the folders that hold weights."""
    found = (home / "adapters").glob(f"*/{WEIGHTS}")
    return {p.parent.name for p in found if _NAME.fullmatch(p.parent.name) and p.parent.name != SHIPPED}


def _problem(home: Path, name: str, promoted: str | None) -> ModelMissing | Refused | None:
    """Why the adapter may not be loaded, `promoted` being the digest that it was promoted with; None where it may."""
    try:
        weights = folder(home, name) / WEIGHTS
    except Refused as error:
        return error
    if any(p.suffix.lower() in PICKLED for p in weights.parent.glob("*")):
        return Refused(f"The adapter {name!r} holds pickled files; only safetensors weights are loaded.")
    if not weights.is_file():
        return ModelMissing(f"The adapter {name!r} is not here any more: return to the one before it, or train again.")
    if not _is_safetensors(weights):
        return Refused(f"The weights of the adapter {name!r} are not a safetensors file.")
    if promoted not in (None, _digest(weights)):
        return Refused(
            f"The weights of the adapter {name!r} are not those that were promoted: return to the one before it, or "
            "evaluate and promote it again."
        )
    return None


def _is_safetensors(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return bool(file.keys())
    except (SafetensorError, OSError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _label(place: Path) -> str:
    return f"{place.name}@{_digest(place / WEIGHTS)[:12]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _history(home: Path) -> list[Promotion]:
    path = home / "adapters" / "current.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        history = [Promotion(**entry | {"reasons": tuple(entry["reasons"])}) for entry in stored["history"]]
        if stored["current"] == _current(history) and all(_NAME.fullmatch(p.name) for p in history):
            return history
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise Refused(
        "The list of promoted adapters is damaged: remove adapters/current.json from the application's folder, and the "
        "shipped adapter is used."
    )


def _write(home: Path, history: Sequence[Promotion]) -> None:
    """The registry whole or as it was, whatever happens in between."""
    content = {"current": _current(history), "history": [asdict(p) for p in history]}
    place = home / "adapters"
    place.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix="current-", suffix=".new", dir=place)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place / "current.json")
    except BaseException:
        os.unlink(temporary)
        raise


# ---- whether to promote ----------------------------------------------------------------------------------------------


def decide(old: Sequence[Row], new: Sequence[Row], old_latest: Sequence[Row], new_latest: Sequence[Row]) -> Verdict:
    """Whether the new adapter takes the old one's place.

    It does when on the latest signed cases the F1 of findings is better, or recall at a precision that is no lower,
    with a 95 % interval of the difference above 0; and when on the fixed held-out studies the bound of the 95 %
    interval shows recall no more than `MARGIN` lower and the rates of unsupported and of contradicted statements no
    more than `MARGIN` higher.  Intervals are percentiles of the paired bootstrap over studies (Efron and Tibshirani
    1993; `RESAMPLES`, seed 0).

    Args:
        old, new: a row per held-out study: study (id), given (findings on the cards), stated (of those, by the draft),
            drafted (findings that the draft affirms), supported_drafted (of those, on the cards), statements,
            unsupported, contradicted (of those, struck out or contradicted).
        old_latest, new_latest: the same of the latest signed cases.

    Raises:
        Refused: the rows are not of the same studies, or a study occurs twice.
    """
    held, latest = _paired(old, new), _paired(old_latest, new_latest)
    count = len(latest[0])
    if count < MIN_CASES:
        return Verdict(False, (f"There are too few signed cases to tell: {count}, and {MIN_CASES} are needed.",))
    better = _better(*latest)
    kept = [
        _no_worse(name, sign, rate, *held)
        for name, sign, rate in (
            ("finding recall", 1, _recall),
            ("rate of unsupported statements", -1, _ratio("unsupported", "statements")),
            ("rate of contradicted statements", -1, _ratio("contradicted", "statements")),
        )
    ]
    return Verdict(better[0] and all(good for good, _ in kept), (better[1], *(reason for _, reason in kept)))


def _paired(old: Sequence[Row], new: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Both systems' counts, (studies, `_COUNTS`) float64, in the same order of studies."""
    tables = []
    for rows in (old, new):
        by_study = {row["study"]: [float(row[name]) for name in _COUNTS] for row in rows}
        if len(by_study) != len(rows):
            raise Refused("A study was scored twice: the two adapters cannot be compared.")
        tables.append(by_study)
    if tables[0].keys() != tables[1].keys():
        raise Refused("The two adapters were not scored on the same studies: they cannot be compared.")
    order = sorted(tables[0])
    first, second = (np.array([table[s] for s in order]).reshape(-1, len(_COUNTS)) for table in tables)
    return first, second


def _ratio(above: str, below: str) -> Rate:
    """Sums (..., `_COUNTS`) → the pooled share (...); NaN where there is nothing to count."""
    top, bottom = _COUNTS.index(above), _COUNTS.index(below)

    def rate(sums: np.ndarray) -> np.ndarray:
        return np.divide(
            sums[..., top], sums[..., bottom], out=np.full(sums.shape[:-1], np.nan), where=sums[..., bottom] > 0
        )

    return rate


_recall, _precision = _ratio("stated", "given"), _ratio("supported_drafted", "drafted")


def _f1(sums: np.ndarray) -> np.ndarray:
    """0 where nothing is stated; NaN where no finding was given."""
    recall, precision = _recall(sums), np.nan_to_num(_precision(sums))
    total = recall + precision
    return np.divide(2 * recall * precision, total, out=np.where(np.isnan(total), np.nan, 0.0), where=total > 0)


def _difference(rate: Rate, old: np.ndarray, new: np.ndarray) -> tuple[float, float, float, float, float] | None:
    """(old, new, their difference, its 95 % interval); None where the rate is not defined."""
    if not len(old):
        return None
    before, after = float(rate(old.sum(0))), float(rate(new.sum(0)))
    if np.isnan(before) or np.isnan(after):
        return None
    drawn = np.random.default_rng(0).integers(0, len(old), (RESAMPLES, len(old)))
    times = np.stack([np.bincount(row, minlength=len(old)) for row in drawn])  # (resamples, studies)
    differences = rate(times @ new) - rate(times @ old)
    low, high = np.nanpercentile(differences, (2.5, 97.5))
    return before, after, after - before, float(low), float(high)


def _better(old: np.ndarray, new: np.ndarray) -> tuple[bool, str]:
    where = f"on the {len(old)} latest signed cases"
    f1, recall, precision = (_difference(rate, old, new) for rate in (_f1, _recall, _precision))
    if f1 is None or recall is None:
        return False, f"No finding was given {where}: there is nothing to be better at."
    if f1[3] > 0:
        return True, f"Better {where}: F1 of findings {_told(f1)}."
    if recall[3] > 0 and precision is not None and precision[2] >= 0:
        return True, f"Better {where}: finding recall {_told(recall)}, at no lower precision ({_told(precision)})."
    return False, f"Not certainly better {where}: F1 of findings {_told(f1)}, recall {_told(recall)}."


def _no_worse(name: str, sign: int, rate: Rate, old: np.ndarray, new: np.ndarray) -> tuple[bool, str]:
    """`sign` is 1 where more is better and -1 where less is."""
    found = _difference(rate, old, new)
    if found is None:
        return False, f"The {name} cannot be told on the held-out studies."
    worst = found[3] if sign > 0 else -found[4]
    good = worst > -MARGIN
    return good, f"{'Kept' if good else 'Perhaps forgotten'} on the {len(old)} held-out studies: {name} {_told(found)}."


def _told(found: tuple[float, float, float, float, float]) -> str:
    before, after, difference, low, high = found
    return f"{before:.3f} → {after:.3f} ({difference:+.3f}, 95 % {low:+.3f} to {high:+.3f})"
