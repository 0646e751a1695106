"""A request → the application's services; the one place that knows where they hang."""

from __future__ import annotations

from fastapi import Request

from webapp.service import Services


def services_of(request: Request) -> Services:
    return request.app.state.services
