"""A Gemma 3 of two layers with random weights, and a tokenizer of the same make as the packaged one."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

from core_models.drafting.language_model import LanguageModel

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
WORDS = ("heart", "▁enlarged", "lungs", "▁clear", "present", "normal", "▁is", "▁are")
DIGEST = "d" * 64


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


def model(size: int, seed: int = 0) -> Gemma3ForCausalLM:
    torch.manual_seed(seed)
    config = Gemma3TextConfig(
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
    return Gemma3ForCausalLM(config).eval()


def language_model(seed: int = 0) -> LanguageModel:
    words = tokenizer()
    return LanguageModel(model(len(words), seed), words, DIGEST)
