"""The Gradio shell: every setting that keeps it private, and a start that loads no model."""

from __future__ import annotations

import os
import subprocess
import sys

import gradio as gr
import pytest

from tests.webapp.conftest import Room
from webapp.pages import shell
from webapp.pages.surfaces import Surfaces
from webapp.settings import Settings

HEAVY = ("torch", "transformers", "faiss", "highdicom", "SimpleITK", "timm", "peft", "skimage", "numba", "plotly")


@pytest.fixture
def blocks(room: Room) -> gr.Blocks:
    """The page as it was mounted."""
    app = next(r.app for r in room.client.app.routes if getattr(r, "path", None) == "" and hasattr(r, "app"))
    return app.get_blocks()


def test_every_private_setting_is_set(room: Room, blocks: gr.Blocks) -> None:
    options = shell.mount_options(room.settings)
    assert options["allowed_paths"] == []
    assert str(room.settings.home) in options["blocked_paths"]
    assert str(room.settings.data) in options["blocked_paths"]
    assert options["max_file_size"] == "4mb"
    for name in ("show_error", "run_history", "ssr_mode", "enable_monitoring", "mcp_server", "pwa"):
        assert options[name] is False, name
    assert options["footer_links"] == []
    # and as mounted
    assert blocks.allowed_paths == []
    assert str(room.settings.home) in blocks.blocked_paths
    assert blocks.max_file_size == 4 * 1024 * 1024
    assert not blocks.show_error
    assert not blocks.run_history
    assert not blocks.ssr_mode
    assert not blocks.enable_monitoring
    assert blocks.footer_links == []
    assert blocks.analytics_enabled is False
    assert blocks.delete_cache == (600, 600)
    assert not blocks.share
    assert not getattr(blocks, "mcp_server", False)


def test_the_queue_is_bounded_and_no_event_is_an_endpoint(blocks: gr.Blocks) -> None:
    assert blocks._queue.max_size == shell.QUEUE_SIZE
    assert blocks._queue.default_concurrency_limit == 4
    assert [f.api_visibility for f in blocks.fns.values()] == ["private"]


def test_gradio_writes_only_under_home(room: Room) -> None:
    assert os.environ["GRADIO_TEMP_DIR"] == str(room.settings.home / "gradio")
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_nothing_of_a_patient_can_be_fetched_through_gradio(room: Room) -> None:
    study = room.study()
    volume = next((room.settings.studies / study["id"]).rglob("volume.npy"))
    answer = room.client.get(f"/gradio_api/file={volume}")
    assert answer.status_code in (403, 404)


def test_no_page_of_gradios_own_documentation(room: Room) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert room.client.get(path).status_code == 404, path


def test_the_page_names_no_other_host(room: Room) -> None:
    config = room.client.get("/config").text
    assert "googleapis" not in config
    assert "cdn" not in config.lower()


def test_templates_never_hold_data(blocks: gr.Blocks) -> None:
    for block in blocks.blocks.values():
        if isinstance(block, gr.HTML):
            assert "${" not in block.html_template
            assert "{{" not in block.html_template


def test_own_modules_are_served_and_revalidated(room: Room) -> None:
    for path in ("/static/js/bus.js", "/static/js/panels/report.js", "/static/js/viewer/viewer.js"):
        answer = room.client.get(path)
        assert answer.status_code == 200, path
        assert "javascript" in answer.headers["content-type"]
        assert answer.headers["cache-control"] == "no-cache"
    assert room.client.get("/static/js/panels/%2e%2e/%2e%2e/demo.json").status_code == 404


def test_the_start_imports_nothing_heavy(settings: Settings) -> None:
    code = (
        "import sys; from webapp.server import create_app; create_app();"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    environment = {**os.environ, "READING_ROOM_HOME": str(settings.home)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_surfaces_show_the_visible_segments_in_patient_space(room: Room) -> None:
    study = room.study(n=12)
    first = room.click(study, (8, 12, 6))
    second = room.click(study, (24, 12, 6))
    draw = Surfaces(room.services)
    series = study["series"][0]["id"]
    figure = draw(series)
    assert [m.color for m in figure.data] == [first["colour"], second["colour"]]
    assert len(figure.data[0].i) <= 12_000
    one, other = (sum(m.x) / len(m.x) for m in figure.data)
    apart = second["measurement"]["centroid_lps"][0] - first["measurement"]["centroid_lps"][0]
    assert other - one == pytest.approx(apart, abs=1.0)
    assert one == pytest.approx(-other, abs=1.0), "the middle of all is the origin, where the light is right"
    size = figure.layout.scene.aspectratio
    assert (size.x, size.y / size.x) == (1, pytest.approx(6 / (6 + apart), abs=0.05))
    room.client.patch(f"/api/segments/{first['id']}", json={"visible": False})
    assert [m.color for m in draw(series).data] == [second["colour"]]


@pytest.mark.parametrize("wrong", [None, "", "none", 7, {"x": 1}])
def test_a_wrong_series_draws_nothing(room: Room, wrong: object) -> None:
    assert len(Surfaces(room.services)(wrong).data) == 0
