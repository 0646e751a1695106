"""Settings and the 3D callback → the Gradio page: a frame of own ES modules, mounted and left alone.

Gradio templates never hold data.  Each panel is an empty element that its module fills with textContent from the JSON
routes; only the 3D plot is a Gradio output.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from webapp.settings import Settings
from webapp.viewer.component import SliceViewer

TITLE = "Reading Room"
CACHE_S = 600
QUEUE_SIZE = 16

# Linked and not given as `css`: Gradio would rewrite the selectors.
HEAD = (
    '<meta name="color-scheme" content="dark">'
    '<link rel="stylesheet" href="/static/css/viewer.css"><link rel="stylesheet" href="/static/css/page.css">'
    '<link rel="stylesheet" href="/static/css/evaluation.css">'
)
MOUNT = "import('/static/js/panels/{module}.js').then((m) => m.mount(element, {{ trigger, props, watch, server }}));"


def mount_options(settings: Settings) -> dict[str, Any]:
    """The keyword arguments of `gr.mount_gradio_app`; each is asserted by a test."""
    assets = Path(__file__).resolve().parents[2] / "assets"
    local = ("system-ui", "sans-serif")
    return {
        "allowed_paths": [],
        "blocked_paths": [str(settings.home), str(settings.data), str(assets)],
        "max_file_size": f"{settings.max_upload_mb}mb",
        "show_error": False,
        "run_history": False,
        "footer_links": [],
        "ssr_mode": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "theme": gr.themes.Base(font=local, font_mono=("ui-monospace", "monospace")),
        "head": HEAD,
        "app_kwargs": {"docs_url": None, "redoc_url": None, "openapi_url": None},
    }


def build(surfaces: Callable[[Any], Any]) -> gr.Blocks:
    """The page as `gr.Blocks`.

    Args:
        surfaces: (series id) → plotly figure of its visible segments; may raise ReadingRoomError.
    """

    def panel(module: str, elem_id: str, extra: str = "") -> Any:
        return gr.HTML(
            html_template="<div class='rr-mount'></div>",
            js_on_load=extra + MOUNT.format(module=module),
            apply_default_css=False,
            elem_id=elem_id,
            container=False,
            padding=False,
        )

    def draw(event: gr.EventData):
        return surfaces((event._data or {}).get("series"))

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CACHE_S, CACHE_S), fill_width=True) as page:
        panel("topbar", "rr-top")
        panel("worklist", "rr-worklist")
        with gr.Row(elem_id="rr-reading"):
            with gr.Column(elem_id="rr-left", min_width=0):
                panel("series", "rr-series")
                # The quoted name makes Gradio create the event that the module triggers.
                segments = panel("segments", "rr-segments", extra="/* 'surfaces' */ ")
            with gr.Column(elem_id="rr-centre", min_width=0):
                SliceViewer()
            with gr.Column(elem_id="rr-surface", min_width=0):
                plot = gr.Plot(label="3D", show_label=False, container=False, elem_id="rr-plot")
            with gr.Column(elem_id="rr-right", min_width=0):
                panel("evidence", "rr-evidence")
                panel("report", "rr-report")
        panel("evaluation", "rr-evaluation")
        panel("toasts", "rr-toasts")
        segments.surfaces(draw, None, plot, show_progress="hidden", api_visibility="private", concurrency_limit=2)
    page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=4)
    return page
