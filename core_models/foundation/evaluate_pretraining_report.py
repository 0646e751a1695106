"""The summary of the comparison → a section of docs/experiments.md with its plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core_models.foundation.evaluate_pretraining_starts import PROXIES
from core_models.foundation.evaluate_pretraining_tasks import DOWNSTREAM

COLOURS = {
    "scratch": "#9a9a9a",
    "imagenet": "#111111",
    "masked": "#0072b2",
    "contrastive": "#d55e00",
    "supervised": "#009e73",
    "segmentation": "#cc79a7",
    "hybrid": "#e69f00",
}
"""Okabe and Ito's colours, told apart with a colour vision deficiency too; the two baselines are black and grey."""
UNLEARNT = 0.05
"""Dice under which a structure counts as not learnt."""
WIDTH_INCHES, HEIGHT_INCHES, DPI = 8.0, 4.0, 150
APART = 0.012
"""How far the lines of two starts stand apart, as a factor of the share, so that their bars do not cover each other."""


def markdown(result: Mapping[str, Any]) -> str:
    """The section, headed "## Pretraining tasks": a table a task, what they say, and what they do not."""
    proxies = "; ".join(f"{name}: {PROXIES[name].words}" for name in result["starts"] if name in PROXIES)
    budget = result["budget"]
    lines = [
        "## Pretraining tasks",
        "",
        "`python app.py evaluate pretraining`: what pretraining is worth where few labels are at hand. Each proxy is "
        f"trained from ImageNet with {budget['pictures_per_proxy']} pictures of {budget['size']} px, none of a test or "
        f"validation side or a near twin of one, none of JSRT, and without NIH's labels ({proxies}). Shares are of the "
        "training patients, nested, the same for all starts; figures are of the test side, mean ± sd of "
        f"{len(budget['seeds'])} seeds. The last column is the difference to ImageNet at 5-10 % of the labels with the "
        "same labelled pictures, and its 95 % interval over the seeds (Student's t).",
        "",
    ]
    for task in DOWNSTREAM.values():
        shares = list(next(iter(result["starts"].values()))[task.name])
        lines += [f"**{task.source}: {task.figure}**", ""]
        lines += ["| start | " + " | ".join(f"{float(s):.0%}" for s in shares) + " | minus ImageNet at 5-10 % |"]
        lines += ["|---|" + "---|" * (len(shares) + 1)]
        beats = result["best_at_5_10"]["beats_imagenet"].get(task.name, {})
        for name, tasks in result["starts"].items():
            cells = " | ".join(_plus_minus(tasks[task.name][s]) for s in shares)
            lines.append(f"| {name} | {cells} | {_difference(beats.get(name))} |")
        lines += ["", _reading(task.name, result) + _parts(task.name, result), ""]
    return "\n".join([*lines, _limits(result)]) + "\n"


def _plus_minus(cell: Mapping[str, Any]) -> str:
    if cell["mean"] is None:
        return "–"
    return f"{cell['mean']:.3f}" + (f" ± {cell['sd']:.3f}" if cell["sd"] is not None else "")


def _difference(found: Mapping[str, Any] | None) -> str:
    if not found or found["mean"] is None:
        return "–"
    text = f"{found['mean']:+.3f}"
    if found["interval"][0] is not None:
        text += f" ({found['interval'][0]:+.3f} to {found['interval'][1]:+.3f})"
    return text


def _reading(task: str, result: Mapping[str, Any]) -> str:
    """The best proxy against ImageNet, and how sure that is."""
    best = result["best_at_5_10"][task]
    found = result["best_at_5_10"]["beats_imagenet"].get(task, {}).get(best)
    if not found or found["mean"] is None:
        return "There is no comparison with ImageNet here."
    better = "is above" if found["mean"] > 0 else "is not above"
    seeds = "leaves 0 out" if found["excludes_zero"] else "does not leave 0 out"
    text = (
        f"The proxy that the validation side prefers, {best}, {better} ImageNet: {found['mean']:+.3f} at 5-10 % of the "
        f"labels, better in {found['better_in']}; the interval over the seeds {seeds}."
    )
    patients = found.get("interval_over_test_patients")
    if patients and patients["interval"][0] is not None:
        low, high = patients["interval"]
        text += f" Drawing the test patients anew, the runs kept, gives {low:+.3f} to {high:+.3f}."
    return text


def _parts(task: str, result: Mapping[str, Any]) -> str:
    """What the figure is made of at the smallest share, ImageNet beside the best; and what no start learns there."""
    best, starts = result["best_at_5_10"][task], result["starts"]
    share = next(iter(next(iter(starts.values()))[task]))
    if task != "jsrt" or best is None or "imagenet" not in starts:
        return ""
    before_parts, after_parts = (starts[name][task][share]["parts"] for name in ("imagenet", best))
    pairs = zip(before_parts.items(), after_parts.values(), strict=True)
    each = ", ".join(f"{name} {before:.2f} and {after:.2f}" for (name, before), after in pairs)
    parts = next(iter(starts.values()))[task][share]["parts"]
    missed = [n for n in parts if all(tasks[task][share]["parts"][n] < UNLEARNT for tasks in starts.values())]
    text = f" At {float(share):.0%}, ImageNet and {best}: {each}."
    if missed:
        text += f" No start learns the {' and the '.join(missed)} in so few steps: they pull every mean down alike."
    return text


def _limits(result: Mapping[str, Any]) -> str:
    budget, cases = result["budget"], result["cases"]
    return (
        f"Small on purpose: structures by {budget['anatomy_steps']} steps of {budget['anatomy_batch']} pictures "
        "whatever the share, so that the Dice says how fast a start learns, not how far it can get; findings by a "
        "linear probe of the frozen encoder, which with all labels is the same for every seed unless the start is from "
        "scratch. Each proxy is trained once: the spread is that of the labelled part, the new layers and the order of "
        "the pictures, not of the pretraining. Rates are the same for all starts; the few that were tried were "
        "compared on the validation side. The segmentation and hybrid starts bring their decoder along, the others "
        "begin with a new one. The masked and hybrid proxies see NIH's training pictures, without labels. "
        f"Test patients: {cases['jsrt']['test']['patients']} for the structures, "
        f"{cases['nih']['test']['patients']} for the findings."
    )


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Write a PNG, 1200 px wide: the figure over the share of the labels, one line a start, mean ± sd."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DPI)
    for axes, task in zip(figure.subplots(1, len(DOWNSTREAM)), DOWNSTREAM.values(), strict=True):
        for number, (name, tasks) in enumerate(result["starts"].items()):
            rows = {float(s): cell for s, cell in tasks[task.name].items() if cell["mean"] is not None}
            shift = 1 + APART * (number - (len(result["starts"]) - 1) / 2) * 2
            axes.errorbar(
                [share * shift for share in rows],
                [cell["mean"] for cell in rows.values()],
                [cell["sd"] or 0.0 for cell in rows.values()],
                color=COLOURS.get(name),
                linewidth=2 if name in ("scratch", "imagenet") else 1.2,
                marker="o",
                markersize=3,
                capsize=2,
                elinewidth=0.8,
                label=name,
            )
        shares = [float(s) for s in next(iter(result["starts"].values()))[task.name]]
        axes.set_xscale("log")
        axes.set_xticks(shares, [f"{share:.0%}" for share in shares])
        axes.minorticks_off()
        axes.set_title(f"{task.source}: {task.figure}", fontsize=8)
        axes.set_xlabel("share of the labelled patients", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=len(names), frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
