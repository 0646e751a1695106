"""An exception in a route → the JSON a reader is shown: their sentence, or a plain one while the log gets the trace."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from core_models.errors import Busy, ReadingRoomError

log = logging.getLogger("reading_room")

UNEXPECTED = "Something went wrong here; the log holds the details. Nothing that was saved is lost."
RETRY_AFTER_S = 5
PLAIN = {404: "There is nothing at this address.", 405: "This address does not do that."}


def install(app: FastAPI) -> None:
    """Register the handlers that answer ``{"error": sentence}`` for whatever a route raises."""
    app.add_exception_handler(ReadingRoomError, _expected)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def answer(error: ReadingRoomError) -> JSONResponse:
    """The response for an error that has a sentence of its own."""
    headers = {"retry-after": str(RETRY_AFTER_S)} if isinstance(error, Busy) else None
    return JSONResponse({"error": str(error)}, error.status, headers)


def logged(error: BaseException) -> str:
    """Log an unexpected error without its message (it may quote a header) and answer the sentence to show."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
    log.error("%s\n  %s", type(error).__name__, "\n  ".join(frames))
    return UNEXPECTED


async def _expected(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ReadingRoomError)
    return answer(error)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    where = ".".join(str(p) for p in error.errors()[0]["loc"] if p != "body") if error.errors() else ""
    return JSONResponse({"error": f"The request is not well formed{f' at {where!r}' if where else ''}."}, 422)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse(
        {"error": PLAIN.get(error.status_code, "The request could not be answered.")}, error.status_code
    )


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": logged(error)}, 500)
