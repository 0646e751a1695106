"""Settings → the FastAPI application: guard, JSON routes, static modules, and the Gradio page at "/"."""

from __future__ import annotations

import logging
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from webapp import errors, uploads
from webapp.access import Guard
from webapp.heap import few_arenas
from webapp.pages import environment
from webapp.settings import Settings, load

ASSETS = Path(__file__).resolve().parents[1] / "assets"


def create_app(settings: Settings | None = None, **services) -> FastAPI:
    """The whole application; nothing heavy is imported or loaded before a route needs it.

    Args:
        settings: default: from the environment.
        services: replacements for parts of `webapp.service.Services`, for tests (a fake drafter, a fake searcher).
    """
    settings = settings or load()
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    uploads.sweep(settings.home)
    environment.prepare(settings)  # before Gradio is imported
    import gradio as gr

    from webapp.pages import shell
    from webapp.pages.surfaces import Surfaces
    from webapp.routes import install
    from webapp.service import Services

    app = FastAPI(title="Reading Room", docs_url=None, redoc_url=None, openapi_url=None)
    errors.install(app)
    app.state.services = Services.create(settings, **services)
    install(app, app.state.services)
    _static(app)
    page = shell.build(Surfaces(app.state.services))
    gr.mount_gradio_app(app, page, path="/", **shell.mount_options(settings))
    app.add_middleware(Guard, settings=settings)
    return app


def _static(app: FastAPI) -> None:
    """Own modules under /static/js and /static/css; Gradio keeps the rest of /static for itself."""
    for folder in sorted(p for p in (ASSETS / "js").iterdir() if p.is_dir()):
        app.mount(f"/static/js/{folder.name}", StaticFiles(directory=folder))
    app.mount("/static/css", StaticFiles(directory=ASSETS / "css"))
    for module in sorted((ASSETS / "js").glob("*.js")):
        app.add_api_route(f"/static/js/{module.name}", _file(module), include_in_schema=False)


def _file(path: Path):
    from fastapi.responses import FileResponse

    def serve_file() -> FileResponse:
        return FileResponse(path, media_type="text/javascript")

    return serve_file


def serve(settings: Settings | None = None) -> None:
    """Listen until interrupted; prints the address once it answers."""
    import uvicorn

    few_arenas()
    settings = settings or load()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    app = create_app(settings)
    app.state.services.indexer.wake()  # what was signed when there was no index yet
    app.state.services.segments.warm()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"Reading Room: http://{host}:{settings.port}  (Ctrl+C stops it)", flush=True)
    # The access log would hold study ids beside the times they were read.
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", access_log=False)
