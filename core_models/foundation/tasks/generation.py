"""Captioning: an image's 64 tokens → a projector → a causal language model, the loss on the caption's tokens alone.

After Liu et al. (LLaVA), NeurIPS 2023, first stage: the language model stays as it is (or gets LoRA), what learns is
the projector and, through it, the encoder.  This is pretraining on figure captions.  Instruction tuning (which evidence
is on the board, which sentences follow from it) belongs to `core_models.drafting`, and so does all that a reader sees:
nothing that this task writes is shown to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from core_models.errors import Refused
from core_models.foundation.batch import Batch
from core_models.foundation.encoder import EncoderOutput, RadiographEncoder

MAX_TOKENS = 48
"""Of a caption; the median of those at hand has about 20."""
IGNORED = -100
LORA_TARGETS = ("q_proj", "v_proj")


class Projector(nn.Module):
    """LLaVA's: (n, 64, hidden) → (n, 64, width of the language model).  Named as there, so that weights move over."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(hidden, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.linear_2(F.gelu(self.linear_1(tokens)))


class Generation(nn.Module):
    """The task, with a language model that is handed in: `model.add_task("generation", Generation(...))`.

    Args:
        hidden: width of the encoder's tokens.
        language: any causal language model of `transformers` (the prepared Gemma: `language_model.load(...).model`).
        tokenizer: its own.
        lora_rank: 0 leaves the language model frozen; else LoRA of that rank on its attention learns too.

    Raises:
        Refused: a tokenizer without a token for the end of a text.
    """

    def __init__(self, hidden: int, language: Any, tokenizer: Any, lora_rank: int = 0) -> None:
        super().__init__()
        if tokenizer.eos_token_id is None:
            raise Refused("The language model's tokenizer has no end-of-text token, so captions could not end.")
        self.projector = Projector(hidden, language.get_input_embeddings().weight.shape[1])
        language.requires_grad_(False)
        if lora_rank:
            from peft import LoraConfig, get_peft_model

            targets = list(LORA_TARGETS)
            lora = LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules=targets, task_type="CAUSAL_LM")
            language = get_peft_model(language, lora)
        self.language = language
        self.tokenizer = tokenizer

    @property
    def causal(self) -> Any:
        """The language model itself, LoRA's layers inside it where there are some."""
        return self.language.get_base_model() if hasattr(self.language, "get_base_model") else self.language

    def train(self, mode: bool = True) -> Generation:
        """The language model's own dropout stays off: it is frozen."""
        super().train(mode)
        self.language.eval()
        return self

    def frozen(self) -> set[str]:
        """Names of the tensors that training leaves as they are: a checkpoint need not hold them."""
        return {f"language.{k}" for k in self.language.state_dict() if "lora_" not in k}

    def targets(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids of captions with the end token, and labels that are -100 on padding; (n, tokens) each."""
        ids = self.tokenizer(
            list(captions),
            add_special_tokens=False,
            truncation=True,
            max_length=MAX_TOKENS - 1,
            split_special_tokens=True,
        )["input_ids"]
        ids = [[*row, self.tokenizer.eos_token_id] for row in ids]
        width = max(map(len, ids))
        padded = torch.full((len(ids), width), self.tokenizer.eos_token_id)
        labels = torch.full((len(ids), width), IGNORED)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = labels[row, : len(tokens)] = torch.tensor(tokens)
        return padded, labels

    def prefix(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, 64, hidden) image tokens → (n, 1 + 64, width): what the caption is written after.

        The beginning-of-text token stands first where the model has one.
        """
        embed = self.causal.get_input_embeddings()
        image = self.projector(tokens).to(embed.weight.dtype)
        if self.tokenizer.bos_token_id is None:
            return image
        first = torch.full((len(tokens), 1), self.tokenizer.bos_token_id, device=tokens.device)
        return torch.cat((embed(first), image), 1)

    def loss(self, encoder: RadiographEncoder, batch: Batch, out: EncoderOutput) -> torch.Tensor | None:
        """Mean cross-entropy over the captions' tokens; None where the batch has no caption.

        Logits are made for those positions only: the vocabulary is most of what a pass costs.
        """
        if batch.caption_rows is None or not len(batch.caption_rows):
            return None
        device = out.last_hidden_state.device
        ids, labels = (t.to(device) for t in self.targets(batch.captions))
        before = self.prefix(out.last_hidden_state[batch.caption_rows.to(device)])
        inputs = torch.cat((before, self.causal.get_input_embeddings()(ids)), 1)
        # Padding is on the right, where causal attention keeps it from every token that counts: no mask is needed.
        core = self.causal.get_decoder()
        hidden = core(inputs_embeds=inputs, use_cache=False).last_hidden_state[:, before.shape[1] - 1 : -1]
        wanted = labels != IGNORED  # (n, tokens)
        logits = self.causal.get_output_embeddings()(hidden[wanted]).float()  # (tokens in all, vocabulary)
        return F.cross_entropy(logits, labels[wanted])

    @torch.inference_mode()
    def captions(self, encoder: RadiographEncoder, images: torch.Tensor, new_tokens: int = MAX_TOKENS) -> list[str]:
        """(n, 1, h, w) in -1..1 → the likeliest caption of each, word by word (greedy).  To look at, not to show."""
        before = self.prefix(encoder(images).last_hidden_state)
        known = torch.ones(before.shape[:2], dtype=torch.long, device=before.device)
        ids = self.language.generate(
            inputs_embeds=before,
            attention_mask=known,
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.eos_token_id,
        )
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def as_llava(encoder: RadiographEncoder, task: Generation, image_token: int) -> Any:
    """Encoder, projector and language model as one standard `LlavaForConditionalGeneration`, weights copied.

    Its checkpoint opens with `AutoModelForImageTextToText` after `core_models.foundation.encoder` was imported, beside
    any other vision-language model.  LoRA is folded in, in float32.

    Args:
        image_token: id that stands for one image token; a text has 64 of them in a row.

    Raises:
        Refused: the id is outside the language model's vocabulary.
    """
    from copy import deepcopy

    from transformers import LlavaConfig, LlavaForConditionalGeneration

    language = deepcopy(task.language).float()
    language = language.merge_and_unload() if hasattr(language, "merge_and_unload") else language
    if not 0 <= image_token < language.config.vocab_size:
        raise Refused(f"The image token {image_token} is not one of the model's {language.config.vocab_size} tokens.")
    config = LlavaConfig(
        vision_config=encoder.config,
        text_config=language.config,
        image_token_index=image_token,
        image_seq_length=encoder.config.grid**2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    model = LlavaForConditionalGeneration(config).float()
    model.model.vision_tower.load_state_dict(encoder.state_dict())
    model.model.multi_modal_projector.load_state_dict(task.projector.state_dict())
    model.model.language_model.load_state_dict(language.get_decoder().state_dict())
    model.lm_head.load_state_dict(language.get_output_embeddings().state_dict())
    model.tie_weights()
    model.generation_config = language.generation_config
    return model.eval()
