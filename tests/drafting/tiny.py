"""Small stand-ins for the language model: a Gemma 3 of two layers with a tokenizer of the packaged one's make, the same
behind our encoder, a tokenizer of another make, and a model that wants to write a given text."""

from __future__ import annotations

import re
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from core_models.drafting.language_model import LanguageModel
from core_models.drafting.vision_language import IMAGE_TOKEN, VisionLanguage
from core_models.foundation.encoder import RadiographEncoderConfig

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
WORDS = ("heart", "▁enlarged", "lungs", "▁clear", "present", "normal", "▁is", "▁are")
DIGEST, EYES = "d" * 64, "e" * 64
SIZE, GRID = 64, 2  # side of a picture, and of the square of its tokens


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level fallback, "▁" for a space, and the words above merged letter by letter."""
    letters = sorted({*"▁\n", *map(chr, range(33, 127))})
    merges = [(word[:n], word[n]) for word in WORDS for n in range(1, len(word))]
    pieces = [*SPECIAL, *(f"<0x{n:02X}>" for n in range(256)), *letters, *(a + b for a, b in merges)]
    vocabulary = {piece: n for n, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )


def text_config(size: int) -> Gemma3TextConfig:
    return Gemma3TextConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=512,
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"],
        initializer_range=0.2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )


def model(size: int, seed: int = 0) -> Gemma3ForCausalLM:
    torch.manual_seed(seed)
    return Gemma3ForCausalLM(text_config(size)).eval()


def language_model(seed: int = 0) -> LanguageModel:
    words = tokenizer()
    return LanguageModel(model(len(words), seed), words, DIGEST)


def seeing_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer above with the token of images."""
    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    return words


def vision_language(seed: int = 0, **values: str | bool) -> VisionLanguage:
    """Our encoder with few tokens before the Gemma above, as `vision_language.join` puts them together, in float32."""
    words = seeing_tokenizer()
    image = words.convert_tokens_to_ids(IMAGE_TOKEN)
    torch.manual_seed(seed)
    made = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=RadiographEncoderConfig(image_size=SIZE, grid=GRID),
            text_config=text_config(len(words)),
            image_token_index=image,
            image_seq_length=GRID**2,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=True,
        )
    ).eval()
    return VisionLanguage(made, words, "tiny@dddd", DIGEST, EYES, SIZE, image, GRID**2, **values)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as Qwen's: digits alone, words with the space before them, a full stop in one with the break."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ("\u0120heart", "\u0120lungs", "\u0120present", "\u0120The", "\u0120is", ".\u010a", "\u0120{")
    merges = [(word[:n], word[n]) for word in words for n in range(1, len(word))]
    pieces = ["<|endoftext|>", *alphabet, *(a + b for a, b in merges)]
    made = Tokenizer(BPE({piece: n for n, piece in enumerate(dict.fromkeys(pieces))}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


class Fake:
    """Stands for a model of `transformers`.

    It keeps what it is fed in the cache that it is given: what is taken back from there, or masked, is gone for it too.

    Attributes:
        read: the prompts that it was given; `pictures`: what came with each, or None.
        passes: how often it was asked.
    """

    device = torch.device("cpu")

    def __init__(self, words: PreTrainedTokenizerFast | None = None) -> None:
        self.words = words or seeing_tokenizer()
        self.strings = [self.words.decode([n]) for n in range(len(self.words))]
        self.read: list[str] = []
        self.pictures: list[torch.Tensor | None] = []
        self.passes = 0

    def get_output_embeddings(self) -> SimpleNamespace:
        return SimpleNamespace(weight=torch.empty(len(self.words), 1))

    def __call__(
        self,
        input_ids: torch.Tensor,
        past_key_values: Any,
        logits_to_keep: int,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **_: Any,
    ) -> SimpleNamespace:
        self.passes += 1
        start = past_key_values.get_seq_length()
        fed = input_ids[:, None, :, None].float()
        kept = past_key_values.update(fed, fed, 0)[0][:, 0, :, 0].long()
        out = torch.zeros(len(kept), logits_to_keep, len(self.words))
        for row, ids in enumerate(kept):
            live = attention_mask[row].bool() if attention_mask is not None else torch.ones_like(ids, dtype=torch.bool)
            for back in range(logits_to_keep):
                end = len(ids) - back
                *prompt, text = re.split(r"(?<=Report:\n)|(?<=Sentences:\n)", self._decoded(ids[:end][live[:end]]))
                if live[end - 1] or not start:
                    out[row, -1 - back] = torch.from_numpy(self.logits(text, ids[:end][live[:end]].numpy()))
            if not start:
                self.read.append("".join(prompt))
                self.pictures.append(pixel_values)
        return SimpleNamespace(logits=out)

    def _decoded(self, ids: torch.Tensor) -> str:
        return self.words.decode(ids.tolist(), skip_special_tokens=True)

    def logits(self, text: str, ids: np.ndarray) -> np.ndarray:
        """(vocabulary,) after the text that it wrote so far; `ids` are all the tokens before."""
        raise NotImplementedError

    def towards(self, wanted: str) -> np.ndarray:
        """Which pieces begin the wanted text, the longest the most; the end of the report where none is wanted."""
        fits = [float(len(s)) if s and wanted.startswith(s) else 0.0 for s in self.strings]
        out = np.array(fits, np.float32)
        out[self.words.eos_token_id] = 0.0 if wanted else 1.0
        return out


class Scripted(Fake):
    """Wants to write the given lines and then to end; what the grammar does not let it write it lets go.

    A line may be several: the first is written first, the next when the first was taken back.  Where a header is not as
    scripted the scripted sentence is written all the same; after the last line it writes nothing of its own.

    Args:
        ends: False: after the last line it goes on without an end.
    """

    def __init__(self, *lines: str | tuple[str, ...], ends: bool = True) -> None:
        super().__init__()
        self.lines = [(line,) if isinstance(line, str) else line for line in lines]
        self.ends = ends
        self._visits: Counter[str] = Counter()

    def logits(self, text: str, ids: np.ndarray) -> np.ndarray:
        self._visits[text] += 1
        done, current = text.count("\n"), text.rpartition("\n")[2]
        if done >= len(self.lines):
            out = np.zeros(len(self.words), np.float32)
            out[self.words.eos_token_id] = 20.0 if self.ends else -20.0
            return out
        head, colon, said = current.partition(":")
        lines = [line for line in self.lines[done] if line.startswith(current)]
        if not lines and colon:
            sentences = [line.partition(":")[2] for line in self.lines[done]]
            lines = [f"{head}:{sentence}" for sentence in sentences if sentence.startswith(said)]
        last = done == len(self.lines) - 1 and self.ends
        if not lines:
            return 30 * self.towards("" if last and colon else "\n")
        line = lines[min(self._visits[text], len(lines)) - 1]
        return 30 * self.towards(line[len(current) :] + ("" if last else "\n"))


def drafting(model: Any, **values: Any) -> VisionLanguage:
    """A fake model as the drafter takes it."""
    words = model.words
    image = words.convert_tokens_to_ids(IMAGE_TOKEN)
    values = {"adapter": "mine@1", "sees": True, "blind": "", **values}
    return VisionLanguage(model, words, "tiny@dddd", DIGEST, EYES, SIZE, image, GRID**2, **values)
