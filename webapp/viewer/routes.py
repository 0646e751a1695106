"""Store and segment service → the viewer's routes: voxels, masks, prompts and edits, undo and redo."""

from __future__ import annotations

import itertools
import json
import time
import zlib
from collections import OrderedDict
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from core_models.errors import Refused
from core_models.segmentation.engine import Mask
from core_models.study.cine import frame_rate
from core_models.study.volume import Volume
from webapp.routes import shapes
from webapp.viewer.prompts import ActionBody
from webapp.viewer.service import SegmentService, SegmentStore
from webapp.viewer.voxels import Coding, Packed, chunks, coding_of, slice_bytes

CODINGS_HELD = 64
# Projections and plain pictures have no patient axes: the affine is a convention there, so no letters come from it.
PROJECTIONS = frozenset({"CR", "DX", "RG", "MG", "XA", "RF", "IO", "PX"})
BINARY = "application/octet-stream"


class ClickBody(BaseModel):
    """A prompt at (i, j, k); `segment` null begins a new one."""

    model_config = ConfigDict(extra="forbid")
    index: Annotated[list[StrictInt], Field(min_length=3, max_length=3)]
    positive: StrictBool = True
    segment: str | None = None


class PromptBody(BaseModel):
    """A prompt or an edit; `segment` null begins a new one, for which `begins` is the page's own word until it is."""

    model_config = ConfigDict(extra="forbid")
    prompt: ActionBody
    segment: str | None = None
    begins: Annotated[str, Field(max_length=64)] = ""


class LooksBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    label: str | None = None
    colour: str | None = None
    visible: StrictBool | None = None
    outline: StrictBool | None = None


def router(store: SegmentStore, service: SegmentService) -> APIRouter:
    """The routes as of docs/architecture.md; errors are raised as `ReadingRoomError` for the application to show."""
    routes = APIRouter(prefix="/api")
    packed = Packed()
    codings: OrderedDict[str, Coding] = OrderedDict()
    rates: OrderedDict[str, float | None] = OrderedDict()
    orders = itertools.count(int(time.time() * 1000))  # goes on rising when the server starts anew under an open page

    def coding(series_id: str, volume: Volume) -> Coding:
        if series_id not in codings:
            codings[series_id] = coding_of(volume)
            while len(codings) > CODINGS_HELD:
                codings.popitem(last=False)
        return codings[series_id]

    def rate(series_id: str, slices: int) -> float | None:
        """Frames a second of a series that came as one multi-frame file; read once."""
        if series_id not in rates:
            files = store.sources(series_id) if slices > 1 else ()
            rates[series_id] = frame_rate(files[0]) if len(files) == 1 else None
            while len(rates) > CODINGS_HELD:
                rates.popitem(last=False)
        return rates[series_id]

    def changed(study_id: str, segment_id: str | None) -> dict[str, Any]:
        """The segments as they are now; of two answers the one with the higher `order` has all that the other has."""
        order = next(orders)  # before the rows are read, so that they hold every change answered with a lower one
        return {
            "segment": segment_id,
            "order": order,
            "segments": [shapes.segment(row) for row in store.segments(study_id)],
        }

    @routes.get("/series/{series_id}/volume")
    def volume(
        series_id: str,
        z: str | None = None,
        raw: bool = False,
        full: bool = False,
        if_none_match: Annotated[str, Header()] = "",
        accept_encoding: Annotated[str, Header()] = "",
    ) -> Response:
        """One slice (`z` an index or "mid"), or all voxels: gzip level 1, or as they are with `raw` (same machine).

        A volume too large for a browser goes with every second voxel in plane; a slice with `full` has them all.
        """
        store.series(series_id)  # before anything that is held in memory is given away
        found = store.volume(series_id)
        code = coding(series_id, found)
        if full and z is not None:
            code = replace(code, stride=1)
        k = _slice_index(z, found.shape[0]) if z is not None else None
        headers = _headers(found, code, k, rate(series_id, found.shape[0]))
        if k is not None:
            if z == "mid":
                service.prepare(series_id)
            return Response(slice_bytes(found, code, k), media_type=BINARY, headers=headers)
        squeezed = not raw and "gzip" in accept_encoding
        headers["etag"] = f'"{series_id}-{code.stride}{"-gz" if squeezed else ""}"'
        headers["vary"] = "accept-encoding"
        if headers["etag"] in if_none_match:
            return Response(status_code=304, headers=headers)
        if squeezed:
            headers["content-encoding"] = "gzip"
            return StreamingResponse(packed.gzip(series_id, found, code), media_type=BINARY, headers=headers)
        return StreamingResponse(chunks(found, code), media_type=BINARY, headers=headers)

    @routes.get("/studies/{study_id}/segments")
    def segments(study_id: str) -> list[dict[str, Any]]:
        return changed(study_id, None)["segments"]

    @routes.get("/segments/{segment_id}/mask")
    def mask(segment_id: str, since: Annotated[str, Query(max_length=32)] = "") -> Response:
        """The mask's box as uint8 (dz, dy, dx); `x-box` is [x0, y0, z0, dx, dy, dz] in voxels.

        With `since`, a version that the page has: only the smallest box that holds every voxel that is another one
        now, where that is smaller; `x-since` repeats that version then, and `x-whole` is the box of the whole mask.
        """
        from core_models.segmentation.editing import difference  # not needed to show the page

        version, found = service.mask(segment_id)
        headers = {"content-encoding": "gzip", "cache-control": "private, no-store", "x-version": version}
        old = service.earlier(segment_id, since) if since else None
        changed = difference(old, found) if old is not None else found
        if changed.voxels.size < found.voxels.size:
            headers |= {"x-since": since, "x-whole": json.dumps(_box(found))}
            found = changed
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        body = packer.compress(np.ascontiguousarray(found.voxels, dtype=np.uint8).tobytes()) + packer.flush()
        return Response(body, media_type=BINARY, headers={**headers, "x-box": json.dumps(_box(found))})

    @routes.post("/series/{series_id}/click")
    def click(series_id: str, body: ClickBody) -> dict[str, Any]:
        i, j, k = body.index
        row = service.click(series_id, (i, j, k), body.positive, body.segment)
        return changed(row.study_id, row.id)

    @routes.post("/series/{series_id}/prompt")
    def prompt(series_id: str, body: PromptBody) -> dict[str, Any]:
        row = service.add(series_id, body.prompt.action(), body.segment, body.begins)
        return changed(row.study_id, row.id)

    @routes.post("/segments/{segment_id}/undo")
    def undo(segment_id: str) -> dict[str, Any]:
        return changed(service.undo(segment_id).study_id, segment_id)

    @routes.post("/segments/{segment_id}/redo")
    def redo(segment_id: str) -> dict[str, Any]:
        return changed(service.redo(segment_id).study_id, segment_id)

    @routes.patch("/segments/{segment_id}")
    def edit(segment_id: str, body: LooksBody) -> dict[str, Any]:
        row = service.edit(segment_id, **body.model_dump())
        return changed(row.study_id, segment_id)

    @routes.delete("/segments/{segment_id}")
    def delete(segment_id: str) -> dict[str, Any]:
        return changed(service.delete(segment_id), None)

    @routes.post("/segments/{segment_id}/restore")
    def restore(segment_id: str) -> dict[str, Any]:
        return changed(service.restore(segment_id).study_id, segment_id)

    return routes


def _box(mask: Mask) -> list[int]:
    """[x0, y0, z0, dx, dy, dz] in voxels."""
    return [*mask.offset[::-1], *mask.voxels.shape[::-1]]


def _slice_index(z: str, slices: int) -> int:
    if z == "mid":
        return slices // 2
    if not z.isascii() or not z.isdigit() or len(z) > 6:
        raise Refused("A slice is asked for by its index, counted from 0, or by 'mid'.")
    return int(z)


def _headers(volume: Volume, code: Coding, k: int | None, rate: float | None) -> dict[str, str]:
    """What the viewer must know of the bytes; numbers only, nothing from the patient's part of a header."""
    depth, rows, columns = volume.shape
    unoriented = depth == 1 and (volume.modality in PROJECTIONS or not volume.spacing_known)
    geometry = {
        "dims": [columns, rows, depth],
        "affine": volume.affine.tolist(),
        "modality": volume.modality if volume.modality.isascii() else "OT",
        "unit": volume.unit,
        "spacing_known": volume.spacing_known,
        "letters_known": not unoriented,
        "window": [float(v) for v in volume.window],
        "index": k,
        "frame_rate": rate,
    }
    return {
        "cache-control": "private, no-cache",
        "x-geometry": json.dumps(geometry),
        "x-slope": repr(code.slope),
        "x-intercept": repr(code.intercept),
        "x-stride": str(code.stride),
    }
