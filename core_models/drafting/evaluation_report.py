"""The recorded figures of drafts → docs/evaluation.md with its plots: nothing in it is typed in.

No word of a reference report or of an indication is written there: the corpus may not be copied in parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core_models.drafting.scores import RESAMPLES

ROOT = Path(__file__).resolve().parents[2]
RECORD, DOCS = ROOT / "assets" / "adapter" / "evaluation.json", ROOT / "docs"
PAGE, PLOT, PICTURES_PLOT = "evaluation.md", "evaluation-drafts.png", "evaluation-pictures.png"
DPI = 130

Result = dict[str, Any]

NAMES = {
    "model": "**the model**",
    "without_priors": "the model without priors",
    "without_steps": "the model without reasoning",
    "nearest_label": "training report with the nearest headings",
    "nearest_text": "training report with the nearest text",
    "constant_normal": "the same normal report for all",
    "templates": "templates filled from the cards",
    "reference": "what the radiologist wrote",
}
PICTURE_NAMES = {
    "draft": "**draft, with the picture**",
    "draft_without_picture": "draft, without the picture",
    "head": "the findings head itself",
    "always_normal": "always normal",
    "always_every_finding": "always every finding",
}
# (words, group, measure, bound, 1 where more is better and -1 where less is)
AIMS = (
    ("finding recall, the study's headings given", "all", "finding_recall", 0.95, 1),
    ("unsupported share of statements", "all", "unsupported_rate", 0.02, -1),
    ("contradicted share of statements", "all", "contradicted_rate", 0.005, -1),
    ("BLEU-4", "all", "bleu4", 0.20, 1),
    ("BLEU-4, twins of training reports too", "with_twins", "bleu4", 0.20, 1),
    ("ROUGE-L", "all", "rouge_l", 0.40, 1),
    ("ROUGE-L, twins of training reports too", "with_twins", "rouge_l", 0.40, 1),
)
HEAD = """# Evaluation of drafts

Made by `python app.py evaluate drafting{limit} --record`. Model `{model}`, adapter `{adapter}`, index `{index}`.

**Data.** The test side of the Open-i chest radiograph reports (one study in ten by the hash of its id): never indexed,
never trained on, not in the vocabulary. {studies} studies whose text no training report holds, and {twins} whose text
one does ("twins"); the tables are of the former unless they say otherwise. Sentences that compare with an earlier study
are left out of the references. The cards are the study's own finding headings and one card that says that the rest is
normal: this measures the writing, not the reading of images, for which see [the last table](#from-the-image-alone).

**What is counted.** A finding is *recalled* when a sentence that passed the check states its card, on its side, openly
or as a possibility. *Precision* is the share of the findings a draft affirms that a card licenses; "of the text" takes
the findings that the radiologist's own text affirms instead. What the check struck counts as written everywhere but in
recall. Intervals are 95 %, by a bootstrap over studies ({resamples} draws); BLEU-4 (sacrebleu, lower case) and ROUGE-L
run from 0 to 1, so a BLEU of 20 is 0.20 here.

**What this cannot show.** Findings are told by the same table (`core_models/drafting/findings.py`) that the check uses,
and the check decides already while the model writes which sentence is written again and which card is stated in its own
words. High recall of given cards and few struck sentences are therefore in part the machinery's doing, as the templates
show, which reach them without any model; a mistake of the table is invisible in all these figures. The findings of the
radiologist's text, BLEU and ROUGE-L do not go through the cards; what the radiologist wrote, read by the same check,
shows how far the counting itself is off: headings and text of this corpus disagree often.
"""


def record(result: Result, path: Path = RECORD, docs: Path = DOCS) -> Path:
    """Keep the figures beside the adapter that they are of, and write the page."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    write(json.loads(text), docs)
    path.write_text(text + "\n", encoding="utf-8")  # last: what cannot be shown is not kept
    return path


def write(result: Result, docs: Path) -> list[Path]:
    """Write the page and its plots; returns the files."""
    docs.mkdir(parents=True, exist_ok=True)
    files = [docs / PAGE, _draw(result, docs / PLOT)]
    if "pictures" in result:
        files.append(_draw_pictures(result["pictures"], docs / PICTURES_PLOT))
    files[0].write_text(page(result), encoding="utf-8")
    return files


def page(result: Result) -> str:
    """The page in Markdown."""
    names = ("model", "adapter", "studies", "twins")
    head = HEAD.format(
        **{name: result[name] for name in names},
        limit=f" --limit {result['limit']}" if result.get("limit") else "",
        index=result.get("index") or "none",
        resamples=RESAMPLES,
    )
    parts = [
        head,
        _aims(result),
        _systems(result),
        _differences(result),
        _seeds(result["seeds"]),
        _numbers(result["numbers"]),
        _findings(result),
        _pictures(result["pictures"]) if "pictures" in result else "",
        _examples(result["examples"]),
        _failures(result["failures"]),
    ]
    return "\n".join(part.strip() + "\n" for part in parts if part)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _span(one: Result, name: str, digits: int = 3) -> str:
    ends = one["ci95"].get(name)
    if one[name] is None or ends is None or None in ends:
        return _number(one[name], digits)
    return f"{one[name]:.{digits}f} ({ends[0]:.{digits}f}–{ends[1]:.{digits}f})"


def _words(text: str) -> str:
    """Free text in a line of Markdown: nothing in it is markup."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))


def _aims(result: Result) -> str:
    rows = []
    for words, group, measure, bound, sign in AIMS:
        if group == "with_twins" and not result["twins"]:
            continue  # the same studies again
        one = result["systems"]["model"][group]
        value = one[measure]
        met = "–" if value is None else "met" if sign * value >= sign * bound else "**missed**"
        rows.append([words, _span(one, measure), f"{'≥' if sign > 0 else '≤'} {bound:g}", met])
    beside = result["differences"]["nearest_label"]["non_normal"]
    for words, measure in (("finding recall", "finding_recall"), ("ROUGE-L", "rouge_l")):
        one = beside[measure]
        met = "met" if one["apart"] and (one["difference"] or 0) > 0 else "**missed**"
        told = f"{_number(one['one'])} against {_number(one['other'])}"
        rows.append([f"{words}, non-normal studies, beside the nearest headings", told, "intervals apart", met])
    return "## Aims\n\n" + _table(["", "the model", "aim", ""], rows)


def _systems(result: Result) -> str:
    systems = result["systems"]
    main = ("finding_recall", "finding_precision", "text_recall", "text_precision", "unsupported_rate")
    main += ("contradicted_rate", "bleu4", "rouge_l")
    head = ["", "studies", "recall", "precision", "recall of the text", "precision of the text", "unsupported"]
    head += ["contradicted", "BLEU-4", "ROUGE-L"]

    def figures(group: str) -> str:
        rows = [
            [NAMES[name], str(one[group]["studies"]), *(_span(one[group], m) for m in main)]
            for name, one in systems.items()
            if one[group]["studies"]
        ]
        return _table(head, rows)

    other = (
        *("words", "distinct_reports", "distinct_2", "copied_rate", "copied_whole_rate", "finding_recall_written"),
        *("text_contradicted", "text_denied", "negation_recall", "rewritten_rate", "own_words_rate", "left_out_rate"),
    )
    rows = [
        [
            NAMES[name],
            _number(one["all"]["words"], 1),
            *(_number(one["all"][m]) for m in other[1:]),
            f"{one['all']['counts']['side_errors']} of {one['all']['counts']['sided']}, "
            f"{one['all']['counts']['side_errors_passed']} passed",
        ]
        for name, one in systems.items()
    ]
    more = ["", "words", "distinct reports", "distinct-2", "sentences of training", "reports of training"]
    more += ["recall, struck ones too", "denied by the text", "text's findings denied", "negatives recalled"]
    more += ["written again", "in the card's own words", "left out", "wrong sides"]
    return "\n\n".join(
        [
            "## Systems",
            "All studies that no training report holds word for word.",
            figures("all"),
            f"![Recall of given findings, F1 of the text's findings and ROUGE-L, with intervals]({PLOT})",
            "Studies with findings.",
            figures("non_normal"),
            "Normal studies: no finding was given, so there is none to recall, and any that is affirmed is wrong.",
            figures("normal"),
            *(["With the twins of training reports.", figures("with_twins")] if result["twins"] else []),
            'Length, variety, copying, negation and sides. "Sentences of training" stand word for word in a training '
            'report, as many of what radiologists write do (last row). "Denied by the text": share of the affirmed '
            "findings that the radiologist denies; \"text's findings denied\": share of the radiologist's that the "
            "draft denies; left out: sentences for each that stands which called something normal that a card denies, "
            "and were taken back; wrong sides among findings that stand with one, and how many of those the check let "
            "pass.",
            _table(more, rows),
        ]
    )


def _differences(result: Result) -> str:
    words = {"all": "all", "non_normal": "non-normal"}
    measures = {"finding_recall": "recall", "text_f1": "F1 of the text", "bleu4": "BLEU-4", "rouge_l": "ROUGE-L"}
    rows = []
    for other, found in result["differences"].items():
        for group, told in words.items():
            cells = []
            for measure in measures:
                one = found[group][measure]
                ends = one["ci95"]
                if one["difference"] is None or ends is None:
                    cells.append("–")
                    continue
                apart = ", apart" if one["apart"] else ""
                cells.append(f"{one['difference']:+.3f} ({ends[0]:+.3f} to {ends[1]:+.3f}){apart}")
            rows.append([NAMES[other], f"{told}, {found[group]['studies']}", *cells])
    return "\n\n".join(
        [
            "## The model less another system",
            'On the studies that both wrote; paired bootstrap. "Apart": the two systems\' own intervals do not touch.',
            _table(["less", "studies", *measures.values()], rows),
        ]
    )


def _seeds(seeds: Result) -> str:
    measures = ("finding_recall", "finding_precision", "text_f1", "unsupported_rate", "contradicted_rate", "bleu4")
    measures += ("rouge_l",)
    rows = [["greedy", *(_number(seeds["greedy"][m]) for m in measures)]]
    rows += [[f"seed {one['seed']}", *(_number(one[m]) for m in measures)] for one in seeds["runs"]]
    over = [seeds["over_seeds"].get(m) for m in measures]
    rows.append(
        ["mean ± standard deviation", *(f"{_number(o['mean'])} ± {_number(o['sd'])}" if o else "–" for o in over)]
    )
    head = ["", "recall", "precision", "F1 of the text", "unsupported", "contradicted", "BLEU-4", "ROUGE-L"]
    return "\n\n".join(
        [
            "## Drawn at random",
            f"Words drawn at temperature {seeds['temperature']:g}, {seeds['studies']} studies.",
            _table(head, rows),
        ]
    )


def _numbers(one: Result) -> str:
    n = one["counts"]
    return "\n\n".join(
        [
            "## Numbers",
            f"{one['studies']} boards with measurements: radiographs with ratios and areas beside their findings, and "
            f"CT segments; structures and values are drawn. Of {n['measured']} measurement cards the share stated with "
            f"their number is {_span(one, 'number_recall')}. {n['numbers']} numbers were written, "
            f"{n['number_errors']} of them given by no card for a structure of that sentence ("
            f"{n['number_errors_passed']} passed the check). Finding recall there: {_span(one, 'finding_recall')}; "
            f"unsupported {_span(one, 'unsupported_rate')}, contradicted {_span(one, 'contradicted_rate')} of "
            f"{n['statements']} statements.",
        ]
    )


def _findings(result: Result) -> str:
    mine = result["systems"]["model"]["per_finding"]
    lazy = result["systems"]["nearest_label"]["per_finding"]

    def share(one: Result, above: str, below: str) -> str:
        return _number(one[above] / one[below], 2) if one.get(below) else "–"

    rows = [
        [
            name,
            str(one["given"]),
            share(one, "stated", "given"),
            share(lazy.get(name, {}), "stated", "given"),
            str(one["text"]),
            share(one, "text_stated", "text"),
            share(one, "text_stated", "drafted"),
            str(one["denied"]),
            str(one["against_text"]),
            share(one, "denied_both", "denied"),
        ]
        for name, one in mine.items()
    ]
    head = ["finding", "cards", "recall", "nearest headings: recall", "texts that affirm it", "recalled"]
    head += ["precision", "texts that deny it", "affirmed all the same", "denied too"]
    return f"## By finding\n\nThe model, all studies without twins.\n\n{_table(head, rows)}"


def _pictures(p: Result) -> str:
    measures = ("precision", "recall", "f1", "macro_f1", "accuracy", "exact")
    rows = [[PICTURE_NAMES[name], *(_span(one, m) for m in measures)] for name, one in p["systems"].items()]
    labels = [
        [
            label.replace("_", " "),
            str(one["positives"]),
            *(_number(p["systems"][name]["per_label"][label]["f1"], 2) for name in ("draft", "head")),
        ]
        for label, one in p["systems"]["draft"]["per_label"].items()
    ]
    draft = p["systems"]["draft"]
    seen = "" if p["sees"] else " The model was given no picture: its adapter was trained with another encoder."
    return "\n\n".join(
        [
            "## From the image alone",
            f"{p['data']}: {p['images']} images of {p['patients']} test patients, read as the page reads them. What "
            f"the findings head (`{p['model']}`) proposes becomes cards ({p['cards']} in all), the cards a draft, and "
            "the findings that its supported sentences state, openly or not, are held against the labels of "
            f"the {len(p['labels'])} findings that readers are shown. {p['without_card']} images got no card "
            f"({p['refused_by_quality_gate']} of them did not pass the quality gate): there the page writes no draft, "
            f"and an empty report is counted.{seen} Intervals over patients.",
            _table(["", "precision", "recall", "F1", "macro F1", "accuracy", "images all right"], rows),
            f"![F1 against the labels, with intervals]({PICTURES_PLOT})",
            'Accuracy is the share of right answers over images and findings: "always normal" has F1 0 by construction '
            "and looks good there, since most findings are absent in most images. A draft cannot be better than the "
            f"cards allow; it agrees with the head in {_number(p['agrees_with_head'])} of the answers, and with itself "
            f"without the picture in {_number(p['agrees_without_picture'])}: the picture tells the model next to "
            f"nothing where that is near 1. Of {draft['statements']} sentences "
            f"{_number(draft['unsupported_rate'])} were unsupported and {_number(draft['contradicted_rate'])} "
            "contradicted. The labels were made from reports by a program.",
            _table(["finding", "positive images", "F1, draft", "F1, head"], labels),
        ]
    )


def _examples(examples: Sequence[Result]) -> str:
    parts = [
        f"## {len(examples)} drafts, not picked",
        "The first held-out studies by id. What the check found unsupported or contradicted is struck.",
    ]
    for one in examples:
        parts.append(f"**{one['study']}**. Cards: {'; '.join(map(_words, one['cards']))}.")
        parts.append("\n".join(f"- {_line(s)}" for s in one["statements"]) or "- (nothing)")
    return "\n\n".join(parts)


def _line(s: Result) -> str:
    text = _words(s["text"])
    marks = [", ".join(s["evidence"])]
    if s["support"] != "supported":
        text = f"~~{text}~~"
        marks += [s["support"], _words(s["note"])]
    if s["rewritten"]:
        marks.append("second try")
    return f"{s['section'].capitalize()}: {text} ({'; '.join(m for m in marks if m)})"


def _failures(failures: Result) -> str:
    count, kind = failures["count"], failures["kind"]
    none = "" if kind == "contradicted" else "No sentence contradicts a card. "
    shown = "" if count == len(failures["shown"]) else f"; the first {len(failures['shown'])} are"
    lines = [f"- **{one['study']}** {_line(one)}" for one in failures["shown"]]
    about = (
        f"{none}All {count} {kind} sentences of the model, twins included{shown}:" if count else f"{none}There is none."
    )
    return "\n\n".join([f"## All {kind} sentences", about, "\n".join(lines)])


def _draw(result: Result, path: Path) -> Path:
    """Three measures of every system with their intervals, studies with findings."""
    measures = {
        "finding_recall": "recall of given findings",
        "text_f1": "F1 of the text's findings",
        "rouge_l": "ROUGE-L",
    }
    systems = [name for name in result["systems"] if name != "reference"]
    figure, panels = _panels(len(measures), 0.34 * len(systems) + 1.0)
    for axes, (measure, words) in zip(panels, measures.items(), strict=True):
        for at, name in enumerate(systems):
            one = result["systems"][name]["non_normal"]
            _dot(axes, at, one[measure], one["ci95"][measure], name == "model")
        axes.set_title(words, fontsize=9)
        axes.set_xlim(0, 1.02)
    _named(panels, [NAMES[name].strip("*") for name in systems])
    return _saved(figure, path)


def _draw_pictures(p: Result, path: Path) -> Path:
    figure, panels = _panels(2, 0.34 * len(p["systems"]) + 1.0)
    for axes, measure, words in zip(panels, ("f1", "accuracy"), ("F1", "accuracy"), strict=True):
        for at, (name, one) in enumerate(p["systems"].items()):
            _dot(axes, at, one[measure], one["ci95"][measure], name == "draft")
        axes.set_title(words, fontsize=9)
        axes.set_xlim(0, 1.02)
    _named(panels, [PICTURE_NAMES[name].strip("*") for name in p["systems"]])
    return _saved(figure, path)


def _panels(count: int, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, count, figsize=(8.0, height), sharey=True)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="0.9")
        axes.tick_params(labelsize=8)
    return figure, panels


def _dot(axes: Any, at: int, value: float | None, ends: Sequence[float | None] | None, ours: bool) -> None:
    if value is None:
        return
    color = "#2a7fb8" if ours else "0.45"
    if ends and None not in ends:
        axes.plot(ends, [at, at], color=color, linewidth=2, alpha=0.6)
    axes.plot([value], [at], marker="o", markersize=5, color=color)


def _named(panels: Any, names: Sequence[str]) -> None:
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)
    return path
