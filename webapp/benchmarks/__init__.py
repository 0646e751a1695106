"""Name → benchmark.  Each measures one part of the running application on the demo CT and answers a dict of figures.

They measure; nothing here passes or fails.  Every one works on a home of its own, so that no study is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from core_models.errors import ModelMissing
from webapp.settings import Settings

NAMES = ("startup", "viewer", "click", "draft", "search")


def run(name: str, settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure one part.

    Raises:
        ModelMissing: the demo CT, a model, the index, the browser or a package is not on this machine.
    """
    try:
        part = import_module(f"webapp.benchmarks.{name}")
    except ModuleNotFoundError as error:  # httpx and playwright stand among the tests' requirements
        raise ModelMissing(f"This benchmark needs the package {error.name!r}.") from error
    return part.measure(settings, say)
