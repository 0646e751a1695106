"""A page in → what on it does not stand out from what is behind it, by WCAG 2.2, from computed styles.

Text needs 4.5:1 (1.4.3), also that of placeholders.  A control needs 3:1 (1.4.11) for what it is told by: its text or
icon, or its border, or its ground.  What is disabled is exempt, as the standard has it.  Colours of elements behind one
another are laid over each other with their opacity; pictures and canvases count as black, which is what is behind them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8").partition("\n")[2]


def low(page: Any, root: str = "body") -> list[str]:
    """What is too faint, each with its ratio."""
    return page.evaluate(f"(root) => {SCRIPT}.low(root)", root)


def nameless(page: Any, root: str = "body") -> list[str]:
    """Controls that a screen reader has no word for: a sign alone ("×") is none."""
    return page.evaluate(f"(root) => {SCRIPT}.nameless(root)", root)


def small(page: Any, least: float, root: str = "body") -> list[str]:
    """Controls narrower or lower than `least` CSS pixels."""
    return page.evaluate(f"([root, least]) => {SCRIPT}.small(root, least)", [root, least])
