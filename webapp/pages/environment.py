"""Settings → what Gradio reads from the environment at import: a private cache folder and no calls home."""

from __future__ import annotations

import os

from webapp.settings import Settings


def prepare(settings: Settings) -> None:
    """Set the variables; call it before the first import of gradio."""
    cache = settings.home / "gradio"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ["GRADIO_TEMP_DIR"] = str(cache)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
