"""A client of the real one's signature, and where it is installed the real one with a server of its protocol."""

from __future__ import annotations

import inspect
import json
import sys
import threading
import time
from importlib import import_module
from importlib.util import find_spec

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Request, Response

from core_models.errors import Busy, Cancelled, ModelMissing, Refused
from core_models.segmentation import optional
from core_models.segmentation.engine import Box, Click, Lasso, Scribble
from core_models.study.volume import Volume
from tests.segmentation import foreign

REAL = find_spec("nnInteractive") is not None
SHAPE = (9, 30, 32)
ADDRESS = "http://127.0.0.1:1527"


@pytest.fixture
def volume() -> Volume:
    values = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)
    return Volume(values, np.diag([0.7, 0.8, 2.5, 1.0]), modality="CT", unit="HU")


@pytest.fixture
def client(tmp_path, monkeypatch):
    """The stand-in's module, the only client that can be imported."""
    for name in [name for name in sys.modules if name.split(".")[0] == "nnInteractive"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.syspath_prepend(str(foreign.nninteractive(tmp_path)))
    yield import_module("nnInteractive.inference.remote")
    for name in [name for name in sys.modules if name.split(".")[0] == "nnInteractive"]:
        del sys.modules[name]


def opened(volume, address=ADDRESS, **options):
    return optional.chooser(f"nninteractive:{address}", **options)(volume)


def ball(*centres) -> np.ndarray:
    z, y, x = np.indices(SHAPE)
    return np.any([(x - i) ** 2 + (y - j) ** 2 + (z - k) ** 2 <= 9 for i, j, k in centres], axis=0)


def test_nothing_is_sent_before_a_prompt_and_every_answer_says_where_the_voxels_went(client, volume) -> None:
    engine = opened(volume, key="secret")
    prepared = engine.prepare(volume)
    assert client.LOG == []
    answer = engine.segment(prepared, (Click((10, 11, 4)),))
    np.testing.assert_array_equal(answer.mask.full(), ball((10, 11, 4)))
    assert answer.note == (
        "The voxels of this series were sent to the nnInteractive server 127.0.0.1:1527. Licence of its weights: "
        "CC BY-NC-SA 4.0."
    )
    kinds = [entry[0] for entry in client.LOG]
    assert kinds == ["open", "image", "buffer", "point"]
    assert client.LOG[0] == ("open", ADDRESS, "secret")
    image, properties = client.LOG[1][1:]
    np.testing.assert_array_equal(image, volume.array[None].astype(np.float32))
    assert properties == {"spacing": [2.5, 0.8, 0.7]}
    assert client.LOG[3] == ("point", [4, 11, 10], True)


def test_without_a_key_none_is_taken_from_the_environment(client, volume, monkeypatch) -> None:
    monkeypatch.setenv("NN_INTERACTIVE_API_KEY", "another's")
    engine = opened(volume)
    engine.segment(engine.prepare(volume), (Click((10, 11, 4)),))
    assert client.LOG[0] == ("open", ADDRESS, "")


def test_further_prompts_are_told_alone_and_others_from_the_beginning(client, volume) -> None:
    engine = opened(volume)
    prepared = engine.prepare(volume)
    first, second, third = Click((10, 11, 4)), Click((20, 11, 4)), Click((10, 11, 4), False)
    engine.segment(prepared, (first,))
    del client.LOG[:]
    both = engine.segment(prepared, (first, second))
    assert [entry[0] for entry in client.LOG] == ["point"]
    np.testing.assert_array_equal(both.mask.full(), ball((10, 11, 4), (20, 11, 4)))
    del client.LOG[:]
    undone = engine.segment(prepared, (first,))
    assert [entry[0] for entry in client.LOG] == ["reset", "point"]
    np.testing.assert_array_equal(undone.mask.full(), ball((10, 11, 4)))
    removed = engine.segment(prepared, (first, second, third))
    np.testing.assert_array_equal(removed.mask.full(), ball((20, 11, 4)) & ~ball((10, 11, 4)))


def test_another_series_is_another_image(client, volume) -> None:
    engine = opened(volume)
    one, other = engine.prepare(volume), engine.prepare(volume)
    engine.segment(one, (Click((10, 11, 4)),))
    answer = engine.segment(other, (Click((20, 11, 4)),))
    assert [entry[0] for entry in client.LOG].count("image") == 2
    np.testing.assert_array_equal(answer.mask.full(), ball((20, 11, 4)))


def test_boxes_lines_and_rings_go_in_the_arrays_axes(client, volume) -> None:
    engine = opened(volume)
    prepared = engine.prepare(volume)
    engine.segment(
        prepared,
        (
            Box((5, 6, 4), (15, 18, 4)),
            Box((5, 6, 2), (15, 18, 6)),
            Scribble(((3, 4, 5), (6, 4, 5), (7, 9, 5))),
            Scribble(((20, 20, 5),), False),
            Lasso(((3, 4, 2), (9, 4, 2), (9, 9, 2), (3, 9, 2))),
        ),
    )
    rectangle, cuboid, line, dot, loop = client.LOG[3:]
    assert rectangle[1:] == ([[4, 5], [6, 19], [5, 16]], True)
    assert cuboid[1] == [[4, 5], [6, 19], [5, 16]]
    assert (line[0], line[2], line[3]) == ("scribble", True, [[5, 6], [4, 10], [3, 8]])
    assert line[1].sum() == 3
    assert (dot[0], dot[2]) == ("scribble", False)
    assert (loop[0], loop[3]) == ("lasso", [[2, 3], [4, 10], [3, 10]])
    assert loop[1].all()


def test_cancelled_between_prompts_the_next_answer_goes_on_from_what_was_told(client, volume) -> None:
    engine = opened(volume)
    prepared = engine.prepare(volume)
    prompts = (Click((10, 11, 4)), Click((20, 11, 4)))
    answers = iter([False, False, True])
    with pytest.raises(Cancelled):
        engine.segment(prepared, prompts, lambda: next(answers))
    np.testing.assert_array_equal(engine.segment(prepared, prompts).mask.full(), ball((10, 11, 4), (20, 11, 4)))
    assert [entry[0] for entry in client.LOG].count("point") == 2


def test_a_conversation_that_the_server_forgot_is_begun_anew_once(client, volume) -> None:
    engine = opened(volume)
    prepared = engine.prepare(volume)
    engine.segment(prepared, (Click((10, 11, 4)),))
    client.FAIL.append(("prompt", client.SessionExpiredError("gone")))
    answer = engine.segment(prepared, (Click((10, 11, 4)), Click((20, 11, 4))))
    np.testing.assert_array_equal(answer.mask.full(), ball((10, 11, 4), (20, 11, 4)))
    client.FAIL += [("prompt", client.SessionExpiredError("gone"))] * 2
    with pytest.raises(Busy, match="forgot this conversation twice"):
        engine.segment(prepared, (Click((1, 1, 1)),))
    assert not engine.segment(prepared, (Click((1, 1, 1)),)).mask.empty


def status(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", ADDRESS)
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(code, request=request))


@pytest.mark.parametrize(
    ("when", "raised", "error", "said"),
    [
        ("open", httpx.ConnectError("no"), ModelMissing, "does not answer: install the client"),
        ("open", status(401), Refused, "READING_ROOM_SEGMENTER_KEY"),
        ("open", status(302), Refused, "sends elsewhere"),
        ("open", KeyError("lease_token"), Refused, "another form"),
        ("prompt", status(400), Refused, "does not take"),
        ("prompt", status(500), Busy, "failed"),
        ("prompt", httpx.ReadTimeout("slow"), Busy, "took too long"),
        ("prompt", ValueError("bad magic"), Refused, "another form"),
    ],
)
def test_what_goes_wrong_over_there_is_one_sentence_and_the_next_click_begins_anew(
    client, volume, when, raised, error, said
) -> None:
    engine = opened(volume)
    prepared = engine.prepare(volume)
    client.FAIL.append((when, raised))
    with pytest.raises(error, match=said):
        engine.segment(prepared, (Click((10, 11, 4)),))
    np.testing.assert_array_equal(engine.segment(prepared, (Click((10, 11, 4)),)).mask.full(), ball((10, 11, 4)))


def test_a_full_server_is_busy_and_closing_ends_the_conversation(client, volume) -> None:
    engine = opened(volume)
    prepared = engine.prepare(volume)
    client.FAIL.append(("open", client.ServerAtCapacityError("3 sessions")))
    with pytest.raises(Busy, match="no room"):
        engine.segment(prepared, (Click((10, 11, 4)),))
    engine.segment(prepared, (Click((10, 11, 4)),))
    engine.close()
    assert client.LOG[-1] == ("close",)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1527",
        "ftp://127.0.0.1",
        "http://",
        "http://user@127.0.0.1",
        "http://127.0.0.1/?a=b",
        "http://127.0.0.1:x",
    ],
)
def test_an_address_of_another_form_is_refused(client, volume, address) -> None:
    with pytest.raises(Refused, match="is set as nninteractive:http"):
        opened(volume, address)


def test_another_machine_needs_leave(client, volume) -> None:
    for address in ("http://gpu.example:1527", "http://10.0.0.7:1527", "http://127.0.0.1.example"):
        with pytest.raises(Refused, match=r"another machine.*READING_ROOM_SEGMENTER_ALLOW_REMOTE=1"):
            opened(volume, address)
        assert opened(volume, address, allow_remote=True).name == "nninteractive"
    assert opened(volume, "https://localhost:1527/").name == "nninteractive"


@pytest.mark.parametrize(
    ("name", "address"), [("HTTP_PROXY", ADDRESS), ("ALL_PROXY", ADDRESS), ("HTTPS_PROXY", "https://[::1]")]
)
def test_a_proxy_between_is_refused_unless_the_host_is_named_as_direct(
    client, volume, monkeypatch, name, address
) -> None:
    monkeypatch.setenv(name, "http://proxy.example:3128")
    with pytest.raises(Refused, match="NO_PROXY"):
        opened(volume, address)
    monkeypatch.setenv("NO_PROXY", "a.example, 127.0.0.1,::1")
    assert opened(volume, address)


@pytest.mark.parametrize("prompts", [(), (Click((1, 1, 1), False),), (Click((99, 1, 1)),), (Scribble(()),)])
def test_prompts_that_say_nothing_are_refused_before_anything_is_sent(client, volume, prompts) -> None:
    engine = opened(volume)
    with pytest.raises(Refused):
        engine.segment(engine.prepare(volume), prompts)
    assert client.LOG == []


# ---- the real client -------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """The protocol of nninteractive-server 2.6.0 over the stand-in's drawing: (address, what it was asked)."""
    pytest.importorskip("nnInteractive", reason="nninteractive-client is not installed")
    import uvicorn
    from nnInteractive.inference.remote._protocol import LEASE_HEADER, META_HEADER
    from nnInteractive.inference.remote.serialization import pack_array, unpack_array

    namespace: dict = {}
    exec(foreign.NNINTERACTIVE, namespace)
    session = namespace["nnInteractiveRemoteInferenceSession"]("here")
    asked: list[str] = []
    app = FastAPI()

    def answer() -> Response:
        bbox = [[0, n] for n in session.shape]
        head = {"ran_prediction": True, "bbox": bbox}
        return Response(pack_array(session.target_buffer), headers={META_HEADER: json.dumps(head)})

    @app.api_route("/{path}", methods=["GET", "POST"])
    async def any_route(path: str, request: Request):
        asked.append(path)
        body = await request.body()
        meta = json.loads(request.headers.get(META_HEADER, "{}"))
        if path == "claim":
            return {"lease_token": "lease", "idle_timeout_seconds": 600, "liveness_timeout_seconds": 60}
        assert request.headers[LEASE_HEADER] == "lease"
        assert request.headers["authorization"] == "Bearer key"
        if path == "capabilities":
            return {
                "supported_interactions": session.supported_interactions, "channel_mapping": {"points": [3, 4]},
                "num_interaction_channels": 7, "supports_initial_label": True,
                "supports_zero_shot_label_refinement": False, "preferred_scribble_thickness": [2, 2, 2],
                "interaction_decay": 0.9, "inference_session_version": 2, "license": "CC BY-NC-SA 4.0",
            }  # fmt: skip
        if path == "set_image":
            session.set_image(unpack_array(body), meta["image_properties"])
            return {"original_image_shape": [1, *session.shape]}
        if path == "set_target_buffer":
            told = json.loads(body)
            session.set_target_buffer(np.zeros(told["shape"], told["dtype"]))
            return {}
        if path == "reset_interactions":
            session.reset_interactions()
            return {}
        if path == "add_point_interaction":
            told = json.loads(body)
            session.add_point_interaction(told["coordinates"], told["include_interaction"])
            return answer()
        if path == "add_bbox_interaction":
            told = json.loads(body)
            session.add_bbox_interaction(told["bbox_coords"], told["include_interaction"])
            return answer()
        if path in ("add_scribble_interaction", "add_lasso_interaction"):
            send = getattr(session, path)
            send(unpack_array(body), meta["include_interaction"], interaction_bbox=meta["interaction_bbox"])
            return answer()
        return {"released": True}

    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", asked
    running.should_exit = True
    thread.join(10)


def test_the_real_client_talks_to_a_server_of_its_protocol(server, volume, monkeypatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    address, asked = server
    engine = opened(volume, address, key="key")
    prepared = engine.prepare(volume)
    answer = engine.segment(prepared, (Click((10, 11, 4)), Click((20, 11, 4))))
    np.testing.assert_array_equal(answer.mask.full(), ball((10, 11, 4), (20, 11, 4)))
    assert "CC BY-NC-SA 4.0" in answer.note
    more = engine.segment(
        prepared,
        (
            Box((5, 6, 4), (15, 18, 4)),
            Scribble(((3, 4, 5), (6, 4, 5), (7, 9, 5))),
            Lasso(((3, 4, 2), (9, 4, 2), (9, 9, 2), (3, 9, 2))),
        ),
    )
    assert not more.mask.empty
    engine.close()
    assert asked[:4] == ["claim", "capabilities", "set_image", "set_target_buffer"]
    assert asked[-1] == "release"


@pytest.mark.skipif(not REAL, reason="nninteractive-client is not installed")
def test_the_stand_in_has_the_signatures_of_the_installed_client() -> None:
    real = import_module("nnInteractive.inference.remote")
    namespace: dict = {}
    exec(foreign.NNINTERACTIVE, namespace)
    here, there = (n["nnInteractiveRemoteInferenceSession"] for n in (namespace, vars(real)))
    for name, method in inspect.getmembers(here, inspect.isfunction):
        if not name.startswith("_") or name == "__init__":
            assert list(inspect.signature(method).parameters) == list(
                inspect.signature(getattr(there, name)).parameters
            ), name
