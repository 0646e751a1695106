"""The JSON and binary routes under /api; each module is one part of the page."""

from __future__ import annotations

from fastapi import FastAPI

from webapp.service import Services


def install(app: FastAPI, services: Services) -> None:
    """Add every router, in an order that does not matter."""
    from webapp.routes import board, draft, exports, eyes, intake, learning, report, studies, why
    from webapp.viewer import annotation_routes
    from webapp.viewer import routes as viewer

    for module in (intake, studies, board, eyes, report, draft, exports, learning, why):
        app.include_router(module.router)
    app.include_router(viewer.router(services.store, services.segments))
    app.include_router(annotation_routes.router(services.store, services.annotations))
