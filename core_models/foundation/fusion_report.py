"""The result of `evaluate_fusion.run` → a section of docs/experiments.md, its picture as SVG, and the model's card."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

PICTURE = "experiments-fusion.svg"
COLOURS = {"single": "#8a8f98", "with_dropout": "#2f6fb0", "without_dropout": "#d08a2e"}
LABELS = {
    "single": "trained on that input alone",
    "with_dropout": "fusion, inputs dropped in training",
    "without_dropout": "fusion, never dropped",
}
Result = Mapping[str, Any]


def _score(found: Mapping[str, Any], name: str = "auroc") -> str:
    low, high = found[f"{name}_ci"]
    return f"{found[name]:.3f} ({low:.2f}–{high:.2f})"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _order(patterns: Mapping[str, Any]) -> list[str]:
    """Most inputs first, the same however the result was stored."""
    return sorted(patterns, key=lambda name: (-name.count("+"), name))


def _verdict(result: Result) -> str:
    gain, (low, high), best = result["gain"], result["gain_ci"], result["best_single"]
    if gain <= 0:
        return f"**The aim is missed**: fusion is not above its best single input, {best} ({gain:+.3f})."
    sure = "" if low > 0 else ", an interval that holds 0: with this many patients the gain is not certain"
    kept = result["kept_share"]["with_dropout"]
    rest = "; ".join(f"without {name} {_share(value)}" for name, value in kept.items())
    met = "**is met**" if result["keeps_two_thirds"] else "**is missed**"
    words = result["leaks"]["bag_of_words"]
    lazy = ""
    if words and words["auroc"] > result["all"]["auroc"]:
        lazy = (
            f" A bag of words of the masked notes alone reaches {words['auroc']:.2f}, more than fusion: what the notes "
            "still give away (see Shortcuts) weighs more than what the other inputs add."
        )
    return (
        f"Fusion is {gain:+.3f} above its best single input, {best} ({low:+.2f} to {high:+.2f}{sure}). "
        f"The aim that two thirds of the gain are left when any one input is missing {met}: {rest}.{lazy}"
    )


def _remains(result: Result) -> str:
    chance, over = result["over_chance_kept"], result["gain_over_rest"]
    words = "; ".join(
        f"without {n} {_share(v)} (never dropped in training: {_share(chance['without_dropout'][n])}), "
        f"which is {over['with_dropout'][n]:+.3f} on the better of the two inputs left"
        for n, v in chance["with_dropout"].items()
    )
    return (
        "That is the strict reading, in which the missing input may itself be the one to beat. Of what fusion has over "
        f"chance (AUROC − 0.5) there is left: {words}."
    )


def _covid_share(result: Result, *sides: str) -> float:
    """Share of the images of some sides that are of the first-named class."""
    number = {n: sum(result["cases"][s][n]["images"] for s in sides) for n in result["cases"]["test"]}
    return number["COVID-19"] / max(1, sum(number.values()))


def markdown(result: Result) -> str:
    """The section, headed "## Fusion with missing inputs"; its picture is `draw`'s."""
    test = result["cases"]["test"]
    classes = "; ".join(f"{n}: {c['images']} of {c['patients']} patients" for n, c in test.items())
    given = ", ".join(f"{name} {number}" for name, number in result["given"].items())
    lines = [
        "## Fusion with missing inputs",
        "",
        "`python app.py evaluate fusion` (covid-chestxray, split by patient).",
        "",
        f"**Task.** {result['task']}, one radiograph at a time with its clinical notes and values. Diagnoses, "
        'pathogens, tests, travel, places and dates are taken out of the notes first; pictures called "No Finding" are '
        f"left out. Test side: {result['test_images']} images of {result['test_patients']} patients ({classes}). "
        f"Of these images there are: {given}; a missing one is missing in every row of the tables.",
        "",
        "**Method.** One token per input, a learned token for what is missing, gated sum; inputs dropped in training, "
        "the dropped ones predicted from the rest (M3AE, arXiv 2303.05302), the reduced answer taught by the full one. "
        "Temperatures per set of inputs from out-of-fold answers on the train and validation sides: the validation "
        f"side alone holds {result['cases']['validation']['other pneumonia']['images']} image(s) of the rarer class. "
        f"Means of {len(result['seeds'])} seeds; in brackets 95 % intervals by drawing patients.",
        "",
        "| trained on | AUROC | ECE |",
        "|---|---|---|",
    ]
    named = {f"{n} only": f for n, f in result["single"].items()} | {"**all three**": result["all"]}
    named |= {
        "constant": result["baselines"]["constant"],
        "logistic regression on the values": result["baselines"]["logistic_tabular"],
        "logistic regression on *which* inputs are known": result["baselines"]["logistic_what_is_known"],
        "bag of words of the masked notes": result["leaks"]["bag_of_words"],
    }
    lines += [f"| {n} | {_score(f)} | {_score(f, 'ece')} |" for n, f in named.items() if f]
    lines += [
        "",
        "| inputs there | AUROC, dropped in training | ECE | AUROC, never dropped | ECE |",
        "|---|---|---|---|---|",
    ]
    with_, without = result["patterns"]["with_dropout"], result["patterns"]["without_dropout"]
    lines += [
        f"| {n.replace('+', ' + ')} | {_score(f)} | {f['ece']:.3f} | {_score(without[n])} | {without[n]['ece']:.3f} |"
        for n, f in ((n, with_[n]) for n in _order(with_))
    ]
    shares = {s: _covid_share(result, *s.split(" and ")) for s in ("train and validation", "test")}
    lines += [
        "",
        f"**Result.** {_verdict(result)} {_remains(result)}",
        "",
        "**Calibration.** "
        + "; ".join(f"{100 * v:.0f} % of the images of the {s} side are COVID-19" for s, v in shares.items())
        + ": a shift that no temperature can know of, and that is in every ECE above.",
        "",
        f"**Shortcuts.** {_shortcuts(result)}",
        "",
    ]
    return "\n".join(lines)


def _shortcuts(result: Result) -> str:
    leak, known = result["leaks"], result["baselines"]["logistic_what_is_known"]
    text = (
        "Each case comes from a publication or a hospital's collection, and those differ by disease: picture size, "
        "contrast, burnt-in marks, supine views of one intensive care unit, the way a case report is written, and "
        "which values it gives. Which inputs are known, without their values, alone reaches an AUROC of "
        f"{known['auroc']:.2f}. "
    )
    if leak["bag_of_words"]:
        text += (
            f"After masking, single words still reach {leak['bag_of_words']['auroc']:.2f}; they point to COVID-19 "
            f"({', '.join(leak['for_covid'])}) or away from it ({', '.join(leak['for_other'])}). "
        )
    return text + (
        "These figures say how fusion behaves when inputs go missing; they say nothing of telling COVID-19 from other "
        "pneumonia in another hospital, and the model must not be used for that."
    )


def card(result: Result, version: str) -> str:
    """README.md of the shipped weights."""
    train = result["cases"]["train"], result["cases"]["validation"]
    number = sum(c["images"] for side in train for c in side.values())
    return "\n".join(
        [
            f"# Fusion of radiograph, notes and values, version {version}",
            "",
            f"Research demonstration of a model that takes any subset of its inputs. Task: {result['task']}. "
            "Not a medical device; not for diagnosis.",
            "",
            "- In: pooled vector of the shared radiograph encoder (no context), vector of the notes by MiniLM-L6-v2 "
            "after masking, and age, sex, view, temperature, saturation, blood counts, days since onset.",
            "- Out: a calibrated probability and the list of inputs it had.",
            f"- Trained on {number} radiographs (train and validation sides) of covid-chestxray-dataset (Cohen et al., "
            "2020, arXiv 2006.11988): images under a licence each, CC BY-NC-SA and CC BY-NC-ND among them. No image or "
            "note is in this folder. Use the weights for research, not commercially.",
            f"- Test side: AUROC {_score(result['all'])}, ECE {_score(result['all'], 'ece')}, "
            f"{result['test_images']} images of {result['test_patients']} patients, mean of {len(result['seeds'])} "
            "seeds (`python app.py evaluate fusion`); these weights are the training with the first seed.",
            f"- {_verdict(result)}",
            f"- Shortcuts: {_shortcuts(result)}",
            "- Files: `config.json`, `model.safetensors`. They fit the encoder they were trained with and no other.",
            "",
        ]
    )


def svg(result: Result) -> str:
    """A bar for each set of inputs and training, with its interval; AUROC from 0.3 to 1."""
    groups = _order(result["patterns"]["with_dropout"])
    left, top, width, height, low = 50, 40, 780, 260, 0.3
    step = width / len(groups)
    bar = step / 4

    def y(value: float) -> float:
        return top + height * (1 - (max(low, min(1.0, value)) - low) / (1 - low))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {top + height + 90}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="20" font-size="14">AUROC by the inputs that are there, test side, 95 % interval</text>',
    ]
    for tick in (0.3, 0.5, 0.7, 0.9, 1.0):
        dash = "" if tick != 0.5 else ' stroke-dasharray="4 3"'
        colour = "#ddd" if tick != 0.5 else "#777"
        parts.append(f'<path d="M{left} {y(tick):.1f}h{width}" stroke="{colour}"{dash}/>')
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>')
    for i, group in enumerate(groups):
        found = {key: result["patterns"][key][group] for key in ("with_dropout", "without_dropout")}
        if group in result["single"]:
            found = {"single": result["single"][group], **found}
        start = left + i * step + (step - bar * len(found)) / 2
        for j, (key, value) in enumerate(found.items()):
            x, middle = start + j * bar, start + (j + 0.5) * bar
            lower, upper = value["auroc_ci"]
            parts.append(
                f'<rect x="{x + 1:.1f}" y="{y(value["auroc"]):.1f}" width="{bar - 2:.1f}" '
                f'height="{top + height - y(value["auroc"]):.1f}" fill="{COLOURS[key]}"/>'
                f'<path d="M{middle:.1f} {y(lower):.1f}V{y(upper):.1f}" stroke="#222"/>'
            )
        for line, word in enumerate(group.split("+")):
            parts.append(
                f'<text x="{left + (i + 0.5) * step:.1f}" y="{top + height + 16 + 13 * line}" text-anchor="middle">'
                f"{escape(word)}</text>"
            )
    for j, (key, words) in enumerate(LABELS.items()):
        x, line = left + j * 260, top + height + 72
        parts.append(f'<rect x="{x}" y="{line - 10}" width="12" height="12" fill="{COLOURS[key]}"/>')
        parts.append(f'<text x="{x + 18}" y="{line}">{escape(words)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def draw(result: Result, folder: Path) -> Path:
    """Write the picture into a folder (docs) and return its path."""
    path = folder / PICTURE
    path.write_text(svg(result), encoding="utf-8")
    return path
