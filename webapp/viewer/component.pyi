"""Nothing in → a `gr.HTML` element that mounts the viewer's ES module; scans and clicks go over the JSON routes."""

from __future__ import annotations

from typing import Any

import gradio as gr

# The template never refers to a value, so Gradio leaves the element alone once it is there and the canvas survives.
TEMPLATE = "<div class='rr-viewer-mount'></div>"
ON_LOAD = (
    "import('/static/js/viewer/viewer.js')"
    ".then((m) => m.mount(element.querySelector('.rr-viewer-mount') || element))"
    ".catch((error) => console.error('The viewer could not start.', error));"
)

from gradio.events import Dependency

class SliceViewer(gr.HTML):
    """The viewer as a Gradio component.  It takes no value and gives none; modules speak over the page's event bus."""

    def __init__(self, elem_id: str = "rr-viewer", **kwargs: Any) -> None:
        super().__init__(
            html_template=TEMPLATE,
            js_on_load=ON_LOAD,
            apply_default_css=False,
            container=False,
            padding=False,
            elem_id=elem_id,
            **kwargs,
        )

    def api_info(self) -> dict[str, Any]:
        return {"type": "null"}

    def get_block_name(self) -> str:
        # Gradio's front end knows the component by its parent's name.
        return "html"
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component
