"""One training step's pictures with everything that is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Batch:
    """What a step works on; a task uses the rows it has targets for.

    Attributes:
        images: float (n, 1, h, w) in -1..1.
        findings, finding_weight: (n, labels); weight 0 is unknown.
        source: (n,) number of each row's source, so that sources may differ in how often they name a finding.
        context: (n, 6); gate: (n, 4), negative where unknown.
        text_rows: rows that have a caption, `tokens`: its tokens, `text_like`: (t, 384) unit vectors of plain MiniLM.
        captions: text of each row in `caption_rows`, for tasks with a tokenizer of their own.
        mask_rows: rows that have a mask, `masks`: float (m, c, h, w), `mask_weight`: (m,), of the named structures.
    """

    images: torch.Tensor
    findings: torch.Tensor
    finding_weight: torch.Tensor
    source: torch.Tensor
    context: torch.Tensor
    gate: torch.Tensor
    text_rows: torch.Tensor
    tokens: dict[str, torch.Tensor] = field(default_factory=dict)
    text_like: torch.Tensor | None = None
    captions: tuple[str, ...] = ()
    caption_rows: torch.Tensor | None = None
    mask_rows: torch.Tensor | None = None
    masks: torch.Tensor | None = None
    mask_weight: torch.Tensor | None = None
