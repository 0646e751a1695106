"""Every HTTP request → let through or refused before a route sees it; every answer → its security headers.

Three guards, all in one ASGI layer so that Gradio's own routes are behind them too:

- the Host header must name this machine, so that a page elsewhere cannot reach the server by rebinding its own name;
- a request that changes something must come from this page (Origin, or Sec-Fetch-Site where a browser sends no Origin);
- the body may not be larger than stated, by its declared length and again while it streams in.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from webapp.errors import logged
from webapp.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_ADDRESS = frozenset({"0.0.0.0", "::", ""})
UPLOAD_PATH = "/api/upload"
UPLOAD_OVERHEAD = 16 * 1024 * 1024  # part headers of some ten thousand files
BODY_LIMIT = 2 * 1024 * 1024  # everything but uploads is small JSON

# Gradio compiles its HTML templates and js_on_load with `new Function` and writes its start-up data inline; plotly
# draws from blob: and data: URLs.  No other host appears anywhere.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-src 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Guard:
    """ASGI middleware: (scope, receive, send) in, the inner app's answer or a refusal as JSON out."""

    def __init__(self, app: Callable, settings: Settings) -> None:
        self.app = app
        self.host = settings.host.strip("[]").lower()
        self.upload_limit = settings.max_upload_mb * 1024 * 1024

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})  # the page uses none
                return
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        refusal = self._refusal(scope, headers)
        send = _with_headers(send, scope["path"])
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        limit = self._limit(scope["path"])
        meter = _Meter(receive, send, limit, self._too_large(limit))
        try:
            await self.app(scope, meter.receive, meter.send)
        except _BodyTooLarge:
            await meter.refuse(413, self._too_large(limit))
        except Exception as error:
            # Here and not in the framework's outermost layer, which would log the message (it may quote a header).
            await meter.refuse(500, logged(error))

    def _limit(self, path: str) -> int:
        return self.upload_limit + UPLOAD_OVERHEAD if path == UPLOAD_PATH else BODY_LIMIT

    @staticmethod
    def _too_large(limit: int) -> str:
        return f"The upload is larger than the limit of {limit // (1024 * 1024)} MB."

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and sentence, or None when the request may pass."""
        host = headers.get("host", "")
        if not self.host_allowed(host):
            return 421, "This address does not name this server: open it as http://127.0.0.1 or http://localhost."
        if scope["method"] not in SAFE_METHODS and not _same_site(headers, host):
            return 403, "The request came from another site and was refused."
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            return 415, "Compressed request bodies are not read: send the files as they are, or as a ZIP file."
        length = headers.get("content-length", "")
        if length:
            limit = self._limit(scope["path"])
            if not length.isdigit():
                return 400, "The request's declared length is not a number."
            if int(length) > limit:
                return 413, self._too_large(limit)
        return None

    def host_allowed(self, host: str) -> bool:
        """Whether a Host header ("name", "name:port", "[v6]:port") names this server."""
        name = _host_name(host)
        if name is None:
            return False
        if name in LOCAL_NAMES or (name == self.host and name not in ANY_ADDRESS):
            return True
        # Listening on every address: rebinding needs a name, so a literal address is safe to accept.
        return self.host in ANY_ADDRESS and _is_address(name)


def _host_name(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
        name = parts.hostname
    except ValueError:
        return None
    if not name or parts.username is not None or parts.path or parts.query:
        return None
    return name.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same_site(headers: dict[str, str], host: str) -> bool:
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).scheme in ("http", "https") and urlsplit(origin).netloc.lower() == host.lower()
    # No Origin: a browser still says where it comes from; a program on this machine says nothing.
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _with_headers(send: Send, path: str) -> Send:
    private = b"no-cache" if path.startswith(("/static/", "/assets/")) else b"private, no-store"

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {k.lower() for k, _ in message["headers"]}
            extra = [(k, v) for k, v in HEADERS if k not in present]
            if b"cache-control" not in present:
                extra.append((b"cache-control", private))
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return wrapped


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})


class _BodyTooLarge(Exception):
    """The body outgrew its limit while streaming; never leaves this module."""


class _Meter:
    """Counts the body as it streams in; past the limit the inner app's answer is replaced by a 413."""

    def __init__(self, receive: Receive, send: Send, limit: int, sentence: str) -> None:
        self._receive, self._send, self._left, self._sentence = receive, send, limit, sentence
        self._started = self._exceeded = self._refused = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                self._exceeded = True
                raise _BodyTooLarge
        return message

    async def send(self, message: Message) -> None:
        # A framework may have turned _BodyTooLarge into an answer of its own.
        if self._exceeded and not self._started:
            await self.refuse(413, self._sentence)
            return
        if self._refused:
            return
        self._started = True
        await self._send(message)

    async def refuse(self, status: int, sentence: str) -> None:
        """Answer with the sentence, unless an answer has begun already."""
        if not self._started and not self._refused:
            self._refused = True
            await _refuse(self._send, status, sentence)
