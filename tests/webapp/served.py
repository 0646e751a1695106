"""An empty home in → a running server on a free port, with models that need no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.browser import serving
from tests.builders import ct_files
from tests.webapp.conftest import BallEngine, radiograph_file
from tests.webapp.fakes import NODULE, FakeEyes, FakeSearch, FakeWriter, finding
from webapp.server import create_app
from webapp.settings import load


class Served:
    """A running server on a free port, and what it is made of."""

    def __init__(self, home: Path) -> None:
        self.writer, self.search, engine = FakeWriter(), FakeSearch(), BallEngine()
        self.eyes = FakeEyes(finding(), NODULE)
        settings = load({"READING_ROOM_HOME": str(home)})
        self.app = create_app(
            settings,
            load_writer=lambda: self.writer,
            open_search=lambda: self.search,
            load_eyes=lambda modality: self.eyes,
            segment_options={"engine_for": lambda volume: engine},
        )
        self.services = self.app.state.services
        self.serving = serving(self.app)
        self.address = self.serving.__enter__()

    def add(self, **options: Any) -> str:
        """Read and store a small CT; answers its id."""
        folder = self.services.settings.home / "test-files"
        folder.mkdir(exist_ok=True)
        paths = []
        for n, data in enumerate(ct_files(n=12, **options)):
            path = folder / f"{n}"
            path.write_bytes(data)
            paths.append(path)
        return self.services.store.add_study(self.services.read_scan(paths)[0])

    def add_radiograph(self, **options: Any) -> str:
        """Read and store a small radiograph; answers its id."""
        path = self.services.settings.home / "radiograph"
        path.write_bytes(radiograph_file(**options))
        return self.services.store.add_study(self.services.read_scan([path])[0])

    def stop(self) -> None:
        self.serving.__exit__(None, None, None)
        self.services.eyes.close()
        self.services.segments.close()
        self.services.store.close()
