"""Radiographs, notes and values → does fusion beat its best input, and what of that is left when one is missing.

The whole experiment; `run` returns plain data for `--json`, `fusion_report` draws and words it.  Figures are of the
test side, which no choice was made on; settings were chosen on folds of the train and validation sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from core_models.errors import Refused
from core_models.foundation import data as sources
from core_models.foundation.encoder import RadiographEncoder
from core_models.foundation.fusion import FOLDER, Fusion, FusionConfig, digest_of, save
from core_models.foundation.fusion_data import INPUTS, POOL, TASK, Cases, cases, chosen, counts, image_vectors
from core_models.foundation.fusion_masking import bag_of_words
from core_models.foundation.fusion_train import SUBSETS, Training, patient_weights, train
from core_models.foundation.metrics import auroc, bootstrap, calibration_error

SIZE = 224
VERSION = "1"
WITH, WITHOUT = Training(), Training(dropout=False)
TOP_WORDS = 12
REPEATS = 500
"""Drawings of patients for an interval."""
ALLOWED_LOSS = 1 / 3
"""Of fusion's gain, when any one input is missing: the aim."""

Say = Callable[[str], None]


def read_cases(data: Path, encoder: RadiographEncoder, say: Say = print) -> Cases:
    """The task's cases with vectors by this encoder.

    Raises:
        Refused: the data are not there, or hold no case of both classes on the training and the test side.
    """
    say("radiographs and notes")
    pool = sources.load([POOL], data, SIZE)[POOL]
    rows = chosen(pool)
    all_cases = cases(pool, image_vectors(encoder, pool, rows, SIZE), rows)
    for sides in (("train", "validation"), ("test",)):
        if len(set(all_cases.side(*sides).truth.tolist())) < 2:
            raise Refused(f"The {' and '.join(sides)} side of {POOL} lacks a case of each class: {TASK}.")
    return all_cases


def run(data: Path, encoder: RadiographEncoder, say: Say = print, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """The experiment.  Raises Refused as `read_cases` does."""
    return experiment(read_cases(data, encoder, say), say, seeds)


def experiment(all_cases: Cases, say: Say = print, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """Train on the train and validation sides, measure on the test side; one training per setting and seed."""
    learn, test = all_cases.side("train", "validation"), all_cases.side("test")
    config = _config(all_cases)

    def probabilities(inputs: Sequence[str], how: Training, subsets: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """One (seeds, n) array per subset, by networks trained on `inputs`."""
        models = [train(learn.only(inputs), config, how, seed) for seed in seeds]
        return [np.stack([m.predict(test.only(s)) for m in models]) for s in subsets]

    single, scores = {}, {}
    for name in INPUTS:
        say(f"{name} only")
        scores[name] = probabilities((name,), WITHOUT, [(name,)])[0]
        single[name] = measured(test, scores[name])
    patterns: dict[str, dict[str, Any]] = {}
    for key, how in (("with_dropout", WITH), ("without_dropout", WITHOUT)):
        say(f"all inputs, {key.replace('_', ' ')} of inputs in training")
        found = probabilities(INPUTS, how, SUBSETS)
        patterns[key] = {"+".join(s): measured(test, p) for s, p in zip(SUBSETS, found, strict=True)}
        scores |= {(key, "+".join(s)): p for s, p in zip(SUBSETS, found, strict=True)}
    everything = "+".join(INPUTS)
    best = max(INPUTS, key=lambda name: single[name]["auroc"])
    say("baselines")
    return {
        "task": TASK,
        "seeds": list(seeds),
        "cases": counts(all_cases),
        "given": {name: int(test.has[:, i].sum()) for i, name in enumerate(INPUTS)},
        "test_patients": len(set(test.patients)),
        "test_images": len(test),
        "single": single,
        "best_single": best,
        "all": patterns["with_dropout"][everything],
        "patterns": patterns,
        **_gains(test, scores, best),
        "baselines": baselines(learn, test),
        "leaks": leaks(learn, test),
    }


def _config(all_cases: Cases) -> FusionConfig:
    return FusionConfig(image_width=all_cases.image.shape[1], text_width=all_cases.text.shape[1])


def measured(test: Cases, probability: np.ndarray) -> dict[str, Any]:
    """Mean over seeds of AUROC and ECE, 95 % intervals by drawing patients, the range over seeds.

    Args:
        probability: (seeds, n).
    """
    out: dict[str, Any] = {}
    for name, score in (("auroc", auroc), ("ece", calibration_error)):
        each = [score(test.truth, p) for p in probability]
        low, high = bootstrap(
            test.patients,
            lambda rows, score=score: float(np.mean([score(test.truth[rows], p[rows]) for p in probability])),
            repeats=REPEATS,
        )
        out |= {name: float(np.mean(each)), f"{name}_ci": [low, high], f"{name}_seeds": [float(v) for v in each]}
    return out


def _gains(test: Cases, scores: dict[Any, np.ndarray], best: str) -> dict[str, Any]:
    """Fusion minus its best single input, and what is left with one input missing.

    `kept_share`: of that gain, over the same single input even where it is the one that is missing: the strict reading
    of the aim.  `over_chance_kept`: of AUROC - 0.5.  `gain_over_rest`: the two that are left minus the better of them
    alone.  The best single input is chosen on the same test side, which is to fusion's disadvantage.
    """

    def value(p: np.ndarray, rows: np.ndarray) -> float:
        return float(np.mean([auroc(test.truth[rows], one[rows]) for one in p]))

    def difference(key: Any, rows: np.ndarray) -> float:
        return value(scores[key], rows) - value(scores[best], rows)

    every = np.arange(len(test))
    everything = ("with_dropout", "+".join(INPUTS))
    gain = difference(everything, every)
    low, high = bootstrap(test.patients, lambda rows: difference(everything, rows), repeats=REPEATS)
    out: dict[str, Any] = {"gain": gain, "gain_ci": [low, high], "kept_share": {}, "over_chance_kept": {}}
    out["gain_over_rest"] = {}
    for key in ("with_dropout", "without_dropout"):
        whole = difference((key, "+".join(INPUTS)), every)
        above = value(scores[key, "+".join(INPUTS)], every) - 0.5
        for gone in INPUTS:
            left = [n for n in INPUTS if n != gone]
            rest = (key, "+".join(left))
            over = value(scores[rest], every) - max(value(scores[n], every) for n in left)
            out["gain_over_rest"].setdefault(key, {})[gone] = over
            out["kept_share"].setdefault(key, {})[gone] = difference(rest, every) / whole if whole > 0 else None
            out["over_chance_kept"].setdefault(key, {})[gone] = (value(scores[rest], every) - 0.5) / above
    kept = out["kept_share"]["with_dropout"].values()
    out["beats_best_single"] = gain > 0
    out["keeps_two_thirds"] = gain > 0 and all(k is not None and k >= 1 - ALLOWED_LOSS for k in kept)
    return out


def logistic(x: np.ndarray, truth: np.ndarray, weight: np.ndarray, decay: float = 0.01) -> tuple[np.ndarray, float]:
    """L2-regularised logistic regression → (d,) coefficients and intercept.

    Args:
        x: (n, d); decay: of half the squared coefficients, beside the mean loss.
    """
    a, y, w = (torch.from_numpy(np.asarray(v, np.float64)) for v in (x, truth, weight))
    beta = torch.zeros(a.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([beta], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        each = F.binary_cross_entropy_with_logits(a @ beta[:-1] + beta[-1], y, reduction="none")
        value = (each * w).mean() + decay * beta[:-1].square().sum() / 2
        value.backward()
        return value

    optimiser.step(loss)
    found = beta.detach().numpy()
    return found[:-1], float(found[-1])


def _logistic_score(learn: Cases, test: Cases, x: np.ndarray, x_test: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    coefficients, intercept = logistic(x, learn.truth, patient_weights(learn))
    p = 1 / (1 + np.exp(-(x_test @ coefficients + intercept)))
    return measured(test, p[None]), coefficients


def baselines(learn: Cases, test: Cases) -> dict[str, Any]:
    """The training share for everyone, and logistic regressions: on values, and on nothing but what is known."""
    share = float(np.average(learn.truth, weights=patient_weights(learn)))
    model = Fusion(_config(learn))
    model.fit_summaries(learn)
    values = [model.summaries(c)[0][2].numpy() for c in (learn, test)]
    flags = [np.concatenate([c.known, c.has.astype(np.float32)], 1) for c in (learn, test)]
    return {
        "constant": measured(test, np.full((1, len(test)), share)),
        "logistic_tabular": _logistic_score(learn, test, *values)[0],
        "logistic_what_is_known": _logistic_score(learn, test, *flags)[0],
    }


def leaks(learn: Cases, test: Cases) -> dict[str, Any]:
    """What a bag of words still finds in the masked notes, and the words that weigh most for each class."""
    table, vocabulary = bag_of_words([*learn.notes, *test.notes])
    if not vocabulary:
        return {"bag_of_words": None, "for_covid": [], "for_other": []}
    score, weight = _logistic_score(learn, test, table[: len(learn)], table[len(learn) :])
    order = np.argsort(weight)
    return {
        "bag_of_words": score,
        "for_covid": [vocabulary[i] for i in order[::-1][:TOP_WORDS]],
        "for_other": [vocabulary[i] for i in order[:TOP_WORDS]],
    }


def ship(
    data: Path,
    encoder: RadiographEncoder,
    result: dict[str, Any] | None = None,
    folder: Path = FOLDER,
    say: Say = print,
    seed: int = 0,
) -> Fusion:
    """Train the shipped model on the train and validation sides and write it with its card.

    Args:
        result: of `run`, for the card's figures; None measures anew.

    Raises:
        Refused: as `read_cases` does.
    """
    from core_models.foundation.fusion_report import card

    all_cases = read_cases(data, encoder, say)
    result = result or experiment(all_cases, say)
    model = train(all_cases.side("train", "validation"), _config(all_cases), WITH, seed)
    save(model, folder, card(result, VERSION), VERSION, digest_of(encoder), SIZE)
    return model
