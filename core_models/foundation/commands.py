"""What the command line asks of the foundation room: train the encoder, calibrate it, evaluate it, record the figures.

Nothing heavy is imported before it is asked for: the page starts without torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core_models.errors import Refused

ROOT = Path(__file__).resolve().parents[2]
FOLDER, DOCS = ROOT / "assets" / "foundation", ROOT / "docs"
Progress = Callable[[int, int, str], None]
EVALUATIONS = ("anatomy", "findings", "gate", "retrieval", "fusion", "pretraining", "experts")
LIMITED = ("anatomy", "findings", "gate", "retrieval")
RECORD = "evaluation.json"
SUMMARY = "training.json"
REFERENCES, REFERENCES_OF = 300, ("nih-cxr14-1000", "rocov2-cxr")
"""Training radiographs of each source whose embeddings say what is near to any radiograph."""


def train_encoder(
    data_folder: Path,
    out: Path,
    work: Path,
    config: Path | None = None,
    *,
    resume: bool = False,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train by a recipe, calibrate on validation, write encoder, heads, text tower, calibration and summary to `out`.

    Args:
        work: folder of the checkpoints, outside the repository.

    Raises:
        Refused: no data, a wrong recipe, a checkpoint of another one, a loss that is not finite.
    """
    import torch

    from core_models.foundation import data, model, train, weights
    from core_models.foundation import recipe as recipes
    from core_models.foundation.calibrate import calibrate
    from core_models.foundation.judge import pooled, validate
    from core_models.foundation.refit import refit_findings

    recipe = recipes.read(config or recipes.DEFAULT)
    names = tuple(dict.fromkeys((*recipe.sources, "acdc")))  # other modalities teach the gate what is no radiograph
    pools = data.load(names, data_folder, recipe.store_size, _said(log))
    trained, summary = train.train(
        recipe,
        pools,
        work,
        resume=resume,
        log=log,
        judge=lambda judged, step: validate(judged, pools, recipe.stage_at(step).size),
    )
    trained = trained.to("cpu")
    size, finer = (
        recipe.size_of(t) if t in recipe.tasks else recipe.stages[-1].size for t in ("findings", "segmentation")
    )
    if finer != recipe.store_size:  # a reading makes its pictures by way of the finer size
        pools = data.load(names, data_folder, finer, _said(log))
    if "findings" in recipe.tasks and "nih-cxr14-1000" in pools:
        summary["refit"] = asdict(refit_findings(trained, pools, size))
    model.save(trained, out)
    if {"findings", "gate", "segmentation"} <= set(recipe.tasks) and "nih-cxr14-1000" in pools:
        weights.save_calibration(calibrate(weights.load(out), pools, size, finer), out)
    references = [pools[name] for name in REFERENCES_OF if name in pools]
    if "contrastive" in recipe.tasks and references:
        with torch.inference_mode():
            vectors = [pooled(trained, pool, pool.rows("train")[:REFERENCES], size) for pool in references]
            weights.save_reference(trained.tasks["contrastive"].image(torch.cat(vectors)), out)
    (out / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _said(log: Callable[[str], None]) -> Progress:
    """Tells only of images that were left out."""

    def say(done: int, total: int, text: str) -> None:
        if text.startswith("left out"):
            log(text)

    return say


def evaluate(
    part: str,
    data_folder: Path,
    work: Path,
    say: Progress,
    limit: int = 0,
    scans: dict[str, tuple[Path, Path]] | None = None,
    keep: bool = False,
) -> dict[str, Any]:
    """One evaluation of the shipped weights.

    Args:
        part: one of EVALUATIONS; work: folder for what a long one keeps between interruptions.
        limit: only the first test cases, of a part in LIMITED; 0 for all.
        scans: name → (CT, its label map), for the experts.
        keep: write the fusion network or the experts that the evaluation trains to assets/.

    Raises:
        Refused: no data, an unknown part, a limit that the part does not know or whose figures would be kept.
        ModelMissing: no weights.
    """
    if part not in EVALUATIONS:
        raise Refused(f"There is no evaluation {part!r}; there are {', '.join(EVALUATIONS)}.")
    if limit and (keep or part not in LIMITED):
        why = "figures of a part of the cases are not kept" if keep else f"{part} takes all cases"
        raise Refused(f"--limit cannot be used here: {why}.")
    from core_models import registry
    from core_models.foundation import weights
    from core_models.foundation.embedded import EmbeddedEyes

    if part in ("anatomy", "findings"):
        row = next(row for row in registry.MODELS if row.name == registry.EMBEDDED)
        eyes = EmbeddedEyes(row, every=True)
        if part == "anatomy":
            from core_models.foundation import evaluate_anatomy

            return evaluate_anatomy.run(data_folder, eyes, say, limit)
        from core_models.foundation import evaluate_findings

        labels = weights.load_calibration(FOLDER).labels
        shown = frozenset(name for name, one in labels.items() if one.shown)
        return evaluate_findings.run(data_folder, eyes, say, limit, shown)
    if part == "gate":
        from core_models.foundation import evaluate_gate

        return evaluate_gate.run(data_folder, FOLDER, say, limit)
    if part == "fusion":
        from core_models.foundation import evaluate_fusion

        encoder = weights.load(FOLDER).encoder
        result = evaluate_fusion.run(data_folder, encoder, lambda text: say(0, 1, text))
        if keep:
            evaluate_fusion.ship(data_folder, encoder, result)
        return result
    if part == "pretraining":
        from core_models.foundation import evaluate_pretraining

        return evaluate_pretraining.run(data_folder, work, say)
    if part == "experts":
        from core_models.foundation import forgetting, train_experts

        size = weights.load_calibration(FOLDER).size
        kept = train_experts.FOLDER if keep else None
        return forgetting.run(data_folder, FOLDER, scans or {}, size, None, kept, lambda text: say(0, 1, text))
    from core_models.foundation import evaluate_retrieval

    return evaluate_retrieval.run(data_folder, FOLDER, say, limit)


def record(part: str, result: dict[str, Any], folder: Path = FOLDER, docs: Path = DOCS) -> Path:
    """Keep a result beside the weights, for the application's evaluation page, the card and docs/experiments.md."""
    from core_models.foundation import experiments

    path = folder / RECORD
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept[part] = _rounded(result)
    experiments.write(kept, docs)
    experiments.fill_card(kept, folder / "README.md")
    # Last: what cannot be shown is not kept.  Keys keep their order, which is that of the tables' rows.
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return path


def _rounded(value: Any) -> Any:
    """Floats to four digits and nan to None, so that the file is JSON and its changes are readable."""
    if isinstance(value, dict):
        return {str(k): _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return None if value != value else round(value, 4)
    return value
