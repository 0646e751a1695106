"""Prompts → a mask that an nnInteractive server draws (Isensee et al., "nnInteractive", 2025), through its own client.

The voxels of a series leave this process at the first prompt on it, and only then; every answer says so.  The server
keeps one picture and one conversation: what a reader did is told to it prompt by prompt, in order, each answered before
the next, as its network was trained; where the new prompts go on from the last ones only the new are sent, else all.
One lock guards the conversation, so series take turns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np

from core_models.drafting.remote import loopback
from core_models.errors import Busy, Cancelled, ModelMissing, ReadingRoomError, Refused
from core_models.segmentation.bigger.picked import ring
from core_models.segmentation.engine import Box, Click, Mask, Prompt, Scribble, Segmentation, never
from core_models.segmentation.prompts import as_clicks
from core_models.study.volume import Volume

if TYPE_CHECKING:
    from core_models.segmentation.optional import OptionalRow

UNCALIBRATED = 0.5  # the server says nothing of how sure it is
CONNECT_S, READ_S, UPLOAD_S = 5.0, 120.0, 600.0


@dataclass(eq=False)
class Prepared:
    """A series; nothing was sent yet."""

    volume: Volume


@dataclass
class _Told:
    """What the server knows: whose voxels, and which prompts since the last reset."""

    prepared: Prepared
    prompts: tuple[Prompt, ...] | None  # None: an interrupted conversation, which begins anew


class NnInteractiveEngine:
    """The engine over one server.

    Raises, at construction:
        Refused: the address has another form, is another machine's without leave, or a proxy lies before it.
    """

    def __init__(self, row: OptionalRow, where: str, threads: int, key: str = "", allow_remote: bool = False) -> None:
        self._address, self._host = _checked(where, allow_remote)
        self._row, self._key = row, key
        self._lock = threading.Lock()
        self._session: Any = None
        self._told: _Told | None = None
        self.name, self.version, self.licence = row.name, row.version, row.licence

    def prepare(self, volume: Volume) -> Prepared:
        """Nothing is sent before a prompt is."""
        return Prepared(volume)

    def segment(
        self, prepared: Prepared, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool] = never
    ) -> Segmentation:
        """Send what is new and take the answer.

        Raises:
            Refused: a prompt outside the volume, none that adds, or the server does not take them.
            ModelMissing, Busy: the server is not there, is full, or broke off.
            Cancelled: asked before every prompt is sent.
        """
        as_clicks(prepared.volume, prompts)  # checks that they lie inside
        if not any(getattr(p, "positive", True) for p in prompts):
            raise Refused("A segment needs at least one positive click; negative clicks only take away from one.")
        with self._lock:
            try:
                full = self._talk(prepared, prompts, cancelled)
            except Cancelled:
                raise
            except Exception as error:
                self._hang_up()
                raise self._sentence(error) from error
            licence = str(getattr(self._session, "license", None) or "")[:60]
        note = f"The voxels of this series were sent to the nnInteractive server {self._host}."
        if licence and licence != "!!MISSING!!":
            note += f" Licence of its weights: {licence}."
        return Segmentation(Mask.from_full(full), UNCALIBRATED, len(prompts), note)

    def close(self) -> None:
        """End the conversation, so that the server has room for another."""
        with self._lock:
            self._hang_up()

    # ---- the conversation; all of it under the lock ------------------------------------------------------------------

    def _talk(self, prepared: Prepared, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool]) -> np.ndarray:
        from nnInteractive.inference.remote import SessionExpiredError

        for attempt in (1, 2):
            try:
                return self._said(prepared, prompts, cancelled)
            except SessionExpiredError:  # nobody clicked for ten minutes, or the server was started anew
                self._hang_up()
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def _said(self, prepared: Prepared, prompts: tuple[Prompt, ...], cancelled: Callable[[], bool]) -> np.ndarray:
        def go_on() -> None:
            if cancelled():
                raise Cancelled("Another click came before this one was answered.")

        go_on()
        session = self._session or self._open()
        if self._told is None or self._told.prepared is not prepared:
            array = prepared.volume.array
            self._told = None
            session.set_image(np.ascontiguousarray(array[None], np.float32), {"spacing": list(prepared.volume.spacing)})
            session.set_target_buffer(np.zeros(array.shape, np.uint8))
            self._told = _Told(prepared, ())
        before = self._told.prompts
        if before is None or prompts[: len(before)] != before:
            session.reset_interactions()
            before = ()
        self._told.prompts = None
        for prompt in prompts[len(before) :]:
            try:
                go_on()
            except Cancelled:
                self._told.prompts = before
                raise
            self._add(session, prepared.volume, prompt)
            before = (*before, prompt)
        self._told.prompts = before
        return np.asarray(session.target_buffer) > 0

    def _open(self) -> Any:
        from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession

        self._session = nnInteractiveRemoteInferenceSession(
            self._address,
            api_key=self._key,  # "" and not None, which would take one from the environment
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            set_image_read_timeout=UPLOAD_S,
        )
        return self._session

    def _hang_up(self) -> None:
        session, self._session, self._told = self._session, None, None
        if session is not None:
            session.close()

    @staticmethod
    def _add(session: Any, volume: Volume, prompt: Prompt) -> None:
        """One prompt in the server's axes, which are the array's: (z, y, x)."""
        if isinstance(prompt, Click):
            session.add_point_interaction(list(prompt.index[::-1]), prompt.positive)
        elif isinstance(prompt, Box):
            low, high = np.minimum(prompt.first, prompt.last)[::-1], np.maximum(prompt.first, prompt.last)[::-1]
            if (low < high).all() and not session.supported_interactions.get("bbox3d", False):
                low[0] = high[0] = (low[0] + high[0]) // 2  # most models know rectangles only
            session.add_bbox_interaction([[int(a), int(b) + 1] for a, b in zip(low, high, strict=True)], True)
        else:
            inside = np.asarray(prompt.points)[:, ::-1] if isinstance(prompt, Scribble) else ring(prompt, volume)
            low, high = inside.min(axis=0), inside.max(axis=0) + 1
            crop = np.zeros(high - low, np.uint8)
            crop[tuple((inside - low).T)] = 1
            where = [[int(a), int(b)] for a, b in zip(low, high, strict=True)]
            send = session.add_scribble_interaction if isinstance(prompt, Scribble) else session.add_lasso_interaction
            positive = prompt.positive if isinstance(prompt, Scribble) else True
            send(crop, positive, interaction_bbox=where)

    def _sentence(self, error: Exception) -> Exception:
        """The error that a person is shown for what the client raised; the same one where it is a bug."""
        import httpx
        from nnInteractive.inference.remote import ServerAtCapacityError, SessionExpiredError

        host = f"The nnInteractive server {self._host}"
        if isinstance(error, ReadingRoomError):
            return error
        if isinstance(error, ServerAtCapacityError):
            return Busy(f"{host} has no room for another reader: try again in a moment.")
        if isinstance(error, SessionExpiredError):
            return Busy(f"{host} forgot this conversation twice: try again in a moment.")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ModelMissing(f"{host} does not answer: {self._row.obtain}. Licence: {self._row.licence}.")
        if isinstance(error, httpx.HTTPStatusError):
            status = error.response.status_code
            if status in (401, 403):
                return Refused(f"{host} wants another key: set READING_ROOM_SEGMENTER_KEY.")
            if 300 <= status < 400:
                return Refused(f"{host} sends elsewhere ({status}), which is not followed.")
            if status in (400, 413, 415, 422):
                return Refused(f"{host} does not take what it was sent ({status}).")
            return Busy(f"{host} failed ({status}).")
        if isinstance(error, httpx.HTTPError):
            return Busy(f"{host} took too long or broke off its answer: try again in a moment.")
        if isinstance(
            error, ValueError | KeyError | TypeError | IndexError | AttributeError | MemoryError | RuntimeError
        ):
            return Refused(f"{host} answered in another form than nnInteractive's.")
        return error


def _checked(where: str, allow_remote: bool) -> tuple[str, str]:
    """(address, host as told to a reader).

    Raises:
        Refused: another form, a host that is not this machine while `allow_remote` is not set, or a proxy that the
            client would send the voxels through.
    """
    try:
        parts = urlsplit(where)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not host or not plain:
        raise Refused(
            "An nnInteractive server is set as nninteractive:http://127.0.0.1:1527, without a user or a query."
        )
    if not allow_remote and not loopback(host):
        raise Refused(
            f"The nnInteractive server {host} is another machine, and a click would send it the voxels of the series: "
            "set READING_ROOM_SEGMENTER_ALLOW_REMOTE=1 where that may be."
        )
    proxies = getproxies()  # as the client reads them; only what is named there by itself surely goes past them
    direct = {name.strip().lower() for name in proxies.get("no", "").split(",")}
    if {parts.scheme, "all"} & set(proxies) and not {host, "*"} & direct:
        raise Refused(
            f"A proxy is set in this environment, and the voxels would pass it on their way to {host}: name that host "
            "in NO_PROXY."
        )
    return where.rstrip("/"), parts.netloc
