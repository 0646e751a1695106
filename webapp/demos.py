"""The demo scans: which there are, and a name → its files, fetched or found by `webapp.demo`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core_models.errors import NotFound
from webapp.settings import Settings


class Demos:
    """A thin edge to `webapp.demo`, which is imported when first asked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def list(self) -> list[dict[str, Any]]:
        """`[{name, title, description, ready}]` in the order to show them."""
        from webapp import demo

        return [
            {"name": d.name, "title": d.title, "description": d.description, "ready": d.ready}
            for d in demo.available(self._settings)
        ]

    def check(self, name: str) -> None:
        """Raises NotFound when there is no such demo scan."""
        if name not in {d["name"] for d in self.list()}:
            raise NotFound("There is no demo scan of this name.")

    def title(self, name: str) -> str:
        """What the demo scan is called."""
        return next((d["title"] for d in self.list() if d["name"] == name), name)

    def paths(
        self, name: str, progress: Callable[[int, int, str], None], cancelled: Callable[[], bool]
    ) -> Sequence[Path]:
        """The scan's files.  Raises ModelMissing when it is not prepared on this machine."""
        from webapp import demo

        return demo.paths(self._settings, name)
