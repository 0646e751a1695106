"""Engines and held-out cases → the figures of each by simulated clicks, kept target by target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from core_models.errors import Refused
from core_models.segmentation import region_growing, registry
from core_models.segmentation.clicks.running import arithmetic
from core_models.segmentation.cohorts import COHORTS, Case
from core_models.segmentation.engine import Engine, Mask
from core_models.segmentation.judging import judged, reader, sources
from core_models.segmentation.judging.evaluation_report import EITHER  # light: the page of figures loads no engine
from core_models.segmentation.judging.summary import Row, summary

Progress = Callable[[int, int, str], None]
CLASSICAL, BASELINE = "watershed", region_growing.RegionGrowing.name
DEMO = "demo-ct"


@dataclass(frozen=True)
class Contender:
    """An engine that is judged.

    Attributes:
        digest: of its code, its weights and the reader's code; what was computed under another one is not taken.
        fits: a DICOM modality → whether it was made for it.
        either: the reader looks at both of its answers.
    """

    name: str
    version: str
    licence: str
    digest: str
    fits: Callable[[str], bool]
    load: Callable[[], Engine]
    either: bool = False


def shipped() -> list[str]:
    """The engines that ship, those with two answers also as read by somebody who looks at both."""
    return [name for row in registry.ENGINES for name in (row.name, *[row.name + EITHER] * row.alternatives)]


def contenders(names: Sequence[str]) -> list[Contender]:
    """The engines of these names: of the registry, with `EITHER` behind it, or the lazy baseline.

    Raises:
        NotFound, ModelMissing: as `registry.engine`.
        Refused: both answers are asked for of an engine that has one.
    """
    found = []
    for name in dict.fromkeys(names):
        if name == BASELINE:
            kind = region_growing.RegionGrowing
            digest = sources.digest(kind.__module__)
            found.append(Contender(name, kind.version, kind.licence, digest, lambda modality: True, kind))
            continue
        own = name.removesuffix(EITHER)
        registry.engine(own)  # is there, and its packages are
        row = next(r for r in registry.ENGINES if r.name == own)
        if own != name and not row.alternatives:
            raise Refused(f"The segmentation engine {own} has one answer alone.")
        digest = sources.digest(row.entry.partition(":")[0])
        load = lambda own=own: registry.engine(own)  # noqa: E731
        found.append(Contender(name, row.version, row.licence, digest, row.fits, load, own != name))
    return found


def run(
    engines: Sequence[Contender],
    cases: Sequence[Case],
    default: Mapping[str, str],
    work: Path,
    threads: int,
    say: Progress = lambda done, total, text: None,
) -> dict[str, Any]:
    """Judge each engine on each case that it was made for.

    Args:
        cases: as `judged.judged` chose them; default: cohort → the engine that the page takes for its
            scans.
        work: folder in which the answers are kept; what is there of the same code is taken from it.
        threads: that the engines may use; it is told in the result with the network's arithmetic on this processor,
            since times depend on both, and answers a little on the second.

    Returns:
        {"default": a CT's engine, "defaults": cohort → engine, "engines": name → the summary of the demo CT's lower
        part, and "cohorts": name → summary of the others, "data": cohort → what was judged, "clicks", "threads",
        "arithmetic"}.  For a summary see `summary.summary`.

    Raises:
        Refused: there is no case.
    """
    if not cases:
        raise Refused("There are no labelled scans: fetch the demo CT with `make run`, or name a folder with --data.")
    rows: dict[str, list[Row]] = {one.name: [] for one in engines}
    prepared: dict[str, dict[str, list[float]]] = {one.name: {} for one in engines}
    steps, done = len(cases) * len(engines), 0
    data: dict[str, dict[str, Any]] = {}
    for case in cases:
        scan = _Scan(case)
        for one in engines:
            say(done, steps, f"{one.name}: {case.name}")
            found = _case(one, scan, work, lambda text, at=done: say(at, steps, text))
            done += 1
            if found is not None:
                rows[one.name] += found.rows
                prepared[one.name].setdefault(case.cohort, []).append(found.prepare_s)
        told = data.setdefault(case.cohort, {"cases": 0, "patients": set(), "trains": case.side == "train"})
        told["cases"] += 1
        told["patients"].add(judged.patient_of(case))
    say(steps, steps, "")
    present = [c for c in COHORTS if c in data]
    result: dict[str, Any] = {
        "default": default[DEMO],
        "defaults": {c: default[c] for c in present},
        "clicks": reader.CLICKS,
        "threads": threads,
        "arithmetic": arithmetic(),
        "data": {c: data[c] | {"patients": len(data[c]["patients"])} for c in present},
        "engines": {},
    }
    for one in engines:
        of = {
            cohort: summary([r for r in rows[one.name] if r.cohort == cohort], prepared[one.name].get(cohort, []))
            for cohort in present
        }
        own = of.pop(DEMO, summary([], []))
        about = {"version": one.version, "licence": one.licence, "digest": one.digest}
        result["engines"][one.name] = own | about | {"cohorts": {c: s for c, s in of.items() if s["n"]}}
    return result


@dataclass(frozen=True)
class _Found:
    rows: list[Row]
    prepare_s: float


class _Scan:
    """A case that is read when the first engine needs it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._read: tuple[Any, list[tuple[str, Mask]]] | None = None

    def read(self) -> tuple[Any, list[tuple[str, Mask]]]:
        """(volume, its targets)."""
        if self._read is None:
            volume, labels = self.case.load()
            self._read = volume, list(judged.targets(self.case, labels))
        return self._read


def _case(one: Contender, scan: _Scan, work: Path, say: Callable[[str], None]) -> _Found | None:
    """One engine on one case, None where it was not made for the modality; what was computed before is not again."""
    case = scan.case
    path = work / _safe(one.name) / f"{case.cohort}-{_safe(case.name)}.json"
    kept = _kept(path, one)
    if kept["whole"]:
        return _found(case, kept) if kept["fits"] else None
    volume, named = scan.read()
    kept["fits"] = one.fits(volume.modality)
    if kept["fits"]:
        for row in _rows(one, case, volume, named, kept, say):
            kept["rows"].append(row)
            _keep(path, kept)
    kept["whole"] = True
    _keep(path, kept)
    return _found(case, kept) if kept["fits"] else None


def _rows(
    one: Contender, case: Case, volume: Any, named: list[tuple[str, Mask]], kept: dict[str, Any], say: Any
) -> Iterator[dict[str, Any]]:
    missing = [(name, target) for name, target in named if name not in {r["target"] for r in kept["rows"]}]
    if not missing:
        return
    engine = one.load()
    start = perf_counter()
    prepared = engine.prepare(volume)
    kept["prepare_s"] = round(perf_counter() - start, 4)
    for name, target in missing:
        say(f"{one.name}: {case.name}, {name}")
        trace = reader.read(engine, prepared, target, volume.spacing, either=one.either)
        yield {
            "target": name,
            "dice": [round(d, 5) for d in trace.dice],
            "hausdorff95": {str(n): v if v is None else round(v, 4) for n, v in trace.hausdorff95.items()},
            "seconds": [round(s, 5) for s in trace.seconds],
            "clicks": [asdict(c) for c in trace.clicks],
            "changes": [round(c, 5) for c in trace.changes],
            "others": trace.others,
        }


def _found(case: Case, kept: dict[str, Any]) -> _Found:
    rows = [
        Row(
            *(case.cohort, case.name, judged.patient_of(case)),
            *(r[name] for name in ("target", "dice", "hausdorff95", "seconds", "changes", "others")),
        )
        for r in kept["rows"]
    ]
    return _Found(rows, kept["prepare_s"])


def _kept(path: Path, one: Contender) -> dict[str, Any]:
    """What was computed of this case by this very engine, or an empty start."""
    key = f"{one.name} {one.version} {one.digest} {reader.CLICKS}"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["key"] == key:
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"key": key, "whole": False, "fits": True, "prepare_s": 0.0, "rows": []}


def _keep(path: Path, kept: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(kept), encoding="utf-8")
    partial.replace(path)


def _safe(name: str) -> str:
    """A file's name that stays apart from other cases' names."""
    plain = "".join(c if c.isalnum() else "-" for c in name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
