"""A module of this room → a digest of the code and weights that its answers depend on, without importing any of it."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = ROOT / "assets" / "segmentation"
PACKAGE = "core_models.segmentation"
READER = (
    "core_models.segmentation.judging.reader",
    "core_models.segmentation.cohorts",
    "core_models.segmentation.judging.judged",
)
SUFFIXES = (".safetensors", ".npz", ".json")
RECORD = "evaluation.json"


def digest(module: str) -> str:
    """SHA-256 (16 hex digits) of the module, of every module of this room that it imports, directly or not, and of
    what judges it; with the weights in assets/segmentation, where one of an engine's own modules names that folder."""
    own, judges = _reached((module,)), _reached(READER)
    total = hashlib.sha256()
    for path in sorted(own | judges):
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    if any(b"assets" in path.read_bytes() for path in own - judges) and WEIGHTS.is_dir():
        for path in sorted(p for p in WEIGHTS.rglob("*") if p.suffix in SUFFIXES and p.name != RECORD):
            total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def _reached(modules: tuple[str, ...]) -> set[Path]:
    """The files of these modules and of all that they import from this room."""
    found: set[Path] = set()
    waiting = [path for name in modules if (path := _file(name)) is not None]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            waiting += [at for name in names if (at := _file(name)) is not None]
    return found


def _file(module: str) -> Path | None:
    if not module.startswith(f"{PACKAGE}."):
        return None
    base = ROOT.joinpath(*module.split("."))
    return base.with_suffix(".py") if base.with_suffix(".py").is_file() else None
