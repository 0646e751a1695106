"""The recorded results → docs/experiments.md with its plots: every figure there comes from a command's own answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Result = dict[str, Any]
BEGIN, END = "<!-- figures: made by a command -->", "<!-- end of figures -->"
WIDTH_INCHES, DPI = 8.0, 150
HEAD = """# Experiments

Made by `python app.py evaluate PART --record` from the answers of the commands named below; nothing here is typed in.
Data: the public images described in the model card, `assets/foundation/README.md`. Intervals are 95 %, by a bootstrap
over patients (over pairs where no patient is known). Findings, anatomy,
gate and retrieval are figures of the weights that ship; fusion and experts are trained anew on the shipped encoder in
their evaluation, pretraining on encoders of its own.
"""


def write(record: dict[str, Result], docs: Path) -> list[Path]:
    """Write the page and a plot for each part that was recorded; returns the files.

    Args:
        record: part → result, as `commands.record` keeps it (`evaluation.json`).
    """
    docs.mkdir(parents=True, exist_ok=True)
    parts, files = [HEAD], []
    for name, (section, draw) in _sections().items():
        if name not in record:
            continue
        text = section(record[name]).strip()
        if draw is not None:
            picture = draw(record[name], docs)
            files.append(picture)
            text += f"\n\n![{name}]({picture.name})"
        parts.append(text + "\n")
    page = docs / "experiments.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    return [page, *files]


def fill_card(record: dict[str, Result], card: Path) -> None:
    """Put the recorded findings, subgroups and anatomy between the card's two marks; the rest of it stays."""
    text = card.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"the card {card.name} has lost its marks for figures")
    kept = {"findings": findings, "anatomy": anatomy, "gate": gate, "retrieval": retrieval}
    parts = [section(record[name]).replace("## ", "### ") for name, section in kept.items() if name in record]
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    card.write_text(before + BEGIN + "\n\n" + "\n\n".join(parts) + "\n\n" + END + after, encoding="utf-8")


def _sections() -> dict[str, tuple[Callable[[Result], str], Callable[[Result, Path], Path] | None]]:
    from core_models.foundation import evaluate_pretraining_report as pretraining
    from core_models.foundation import forgetting, fusion_report

    def experts(result: Result) -> str:
        return f"## Experts by modality\n\n`python app.py evaluate experts`.\n\n{forgetting.markdown(result)}"

    def draw_experts(result: Result, docs: Path) -> Path:
        path = docs / "experiments-experts.svg"
        path.write_text(forgetting.plot(result), encoding="utf-8")
        return path

    def draw_pretraining(result: Result, docs: Path) -> Path:
        path = docs / "experiments-pretraining.png"
        pretraining.plot(result, path)
        return path

    return {
        "retrieval": (retrieval, draw_retrieval),
        "fusion": (fusion_report.markdown, fusion_report.draw),
        "pretraining": (pretraining.markdown, draw_pretraining),
        "experts": (experts, draw_experts),
        "findings": (findings, draw_findings),
        "anatomy": (anatomy, None),
        "gate": (gate, None),
    }


def _span(value: Any, interval: Any, digits: int = 3) -> str:
    if value is None:
        return "–"
    if not interval or interval[0] is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({interval[0]:.{digits}f}–{interval[1]:.{digits}f})"


def findings(result: Result) -> str:
    """The findings head on NIH's test patients."""
    rows = []
    for name, one in result["per_finding"].items():
        words = name.replace("_", " ") + ("" if one.get("shown", True) else " (not proposed)")
        within = one["auroc_within"]
        rows.append(
            f"| {words} | {one['positives']} | {_span(one['auroc'], one['auroc_ci'])} | {_span(within['AP'], None)} | "
            f"{_span(within['PA'], None)} | {one['ece']:.3f} | {one['threshold']:.2f} | "
            f"{_span(one['sensitivity'], None, 2)} | {_span(one['specificity'], None, 2)} |"
        )
    groups = [
        f"| {kind} {name} | {one['n']} | {_span(one['macro_auroc'], one['ci'])} | {_span(one['ece'], None)} |"
        for kind, options in result["subgroups"].items()
        for name, one in options.items()
    ]
    within = result["macro_auroc_within"]
    return "\n".join(
        [
            "## Findings",
            "",
            f"`python app.py evaluate findings`: {result['data']}; {result['test_images']} test images of "
            f"{result['test_patients']} patients, read as the page reads them. Macro AUROC "
            f"**{_span(result['macro_auroc'], result['macro_auroc_ci'])}**; within AP {within['AP']:.3f}, within PA "
            f"{within['PA']:.3f}. A constant gives 0.5; how often training patients have each label in the same view "
            "(AP or PA), which sees no image, gives "
            f"{result['baselines']['view_alone']:.3f}. Expected calibration error {result['ece']:.3f}, where exactly "
            f"right probabilities would give {result['ece_of_a_perfect_model']:.3f} on so few images. With view, age "
            f"and sex shown to the model: {result['with_view_age_sex']['macro_auroc']:.3f}.",
            "",
            "| finding | positive | AUROC | within AP | within PA | ECE | threshold | sensitivity | specificity |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "| subgroup | images | macro AUROC | ECE |",
            "|---|---|---|---|",
            *groups,
        ]
    )


def anatomy(result: Result) -> str:
    """The anatomy head on JSRT's even images."""
    lazy, ratio = result["baselines"]["mean_mask"], result["cardiothoracic_ratio"]
    rows = [
        f"| {name} | {_span(value, result['dice_ci'][name])} | {result['dice_lowest'][name]:.3f} | {lazy[name]:.3f} |"
        for name, value in result["dice"].items()
    ]
    return "\n".join(
        [
            "## Anatomy",
            "",
            f"`python app.py evaluate anatomy`: {result['data']}; {result['cases']} radiographs, of which "
            f"{result['not_offered']} got no outlines (they count as 0). One radiograph takes "
            f"{result['seconds_median']:.2f} s (median). The cardiothoracic ratio is off by "
            f"{ratio['mean_absolute_error']:.3f} on average, {ratio['p95']:.3f} at the 95th percentile.",
            "",
            "| structure | Dice | lowest | the mean mask of training, for all |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def gate(result: Result) -> str:
    """The quality gate on pictures as they are, inverted and turned."""
    rows = [
        f"| {name} | {one['yes']} / {one['no']} | {_span(one['auroc'], None)} | {_span(one['sensitivity'], None)} | "
        f"{_span(one['specificity'], None)} |"
        for name, one in result["questions"].items()
    ]
    return "\n".join(
        [
            "## Quality gate",
            "",
            f"`python app.py evaluate gate`: {result['data']}; {result['pictures']} pictures, all a little "
            "moved, scaled and changed in grey, a third of them inverted too and a third turned. "
            f"Of {result['plain_frontal']} plain frontal radiographs it lets "
            f"{100 * result['plain_frontal_let_through']:.1f} % through.",
            "",
            "| is it … | yes / no | AUROC | sensitivity | specificity |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def retrieval(result: Result) -> str:
    """Image ↔ text on held-out pairs."""
    ways = {"image to text": "image_to_text", "text to image": "text_to_image"}

    def row(name: str, one: Result, spans: Result | None) -> str:
        cells = (_span(one[f"recall@{k}"], (spans or {}).get(f"recall@{k}")) for k in (1, 5, 10))
        return f"| {name} | {' | '.join(cells)} |"

    notes, fair = result["clinical_notes"], result.get("hubs_taken_off")
    hubs = (
        ' "Hubs taken off", as the page searches: captions that are near to most of the training radiographs in '
        f"`reference.safetensors` are ranked lower (sharpness {fair['sharpness']:g}). "
        "The caption that comes up most often is among the first ten of "
        f"{100 * fair['crowded']['before']:.1f} % of the images before and of "
        f"{100 * fair['crowded']['after']:.1f} % after."
        if fair
        else ""
    )
    return "\n".join(
        [
            "## Contrastive: images and captions",
            "",
            f"`python app.py evaluate retrieval`: {result['data']}; pool of {result['pool']}.{hubs}",
            "",
            "| | recall@1 | recall@5 | recall@10 |",
            "|---|---|---|---|",
            *(row(f"**{name}**", result[key], result[f"{key}_ci"]) for name, key in ways.items()),
            *(
                [row("**image to text, hubs taken off**", fair["image_to_text"], fair["image_to_text_ci"])]
                if fair
                else []
            ),
            *(row(name.replace("_", " "), one, one.get("ci")) for name, one in result["baselines"].items()),
            "",
            f"Another source, radiographs of held-out COVID patients and their clinical notes (pool {notes['pool']}):",
            "",
            "| | recall@1 | recall@5 | recall@10 |",
            "|---|---|---|---|",
            *(row(name, notes[key], notes[f"{key}_ci"]) for name, key in ways.items()),
            row("chance", notes["chance"], None),
        ]
    )


def draw_retrieval(result: Result, docs: Path) -> Path:
    """Recall at 1, 5, 10 of the model beside the baselines, with intervals."""
    figure, axes = _axes()
    fair = result.get("hubs_taken_off")
    systems = {"the model, hubs taken off": (fair["image_to_text"], fair["image_to_text_ci"])} if fair else {}
    systems["the model"] = (result["image_to_text"], result["image_to_text_ci"])
    systems |= {name.replace("_", " "): (one, one.get("ci")) for name, one in result["baselines"].items()}
    for at, (name, (one, spans)) in enumerate(systems.items()):
        for k, rank in enumerate((1, 5, 10)):
            value = one[f"recall@{rank}"]
            low, high = (spans or {}).get(f"recall@{rank}", (value, value))
            axes.bar(k + at * 0.16, value, 0.14, color=f"C{at}", label=name if not k else None)
            axes.errorbar(k + at * 0.16, value, [[value - low], [high - value]], color="black", capsize=2)
    axes.set_xticks([k + 0.3 for k in range(3)], [f"recall@{k}" for k in (1, 5, 10)])
    axes.set_ylabel(f"image → caption, pool of {result['pool']}")
    axes.legend(frameon=False)
    return _saved(figure, docs / "experiments-retrieval.png")


def draw_findings(result: Result, docs: Path) -> Path:
    """Reliability: what was predicted against what was observed."""
    figure, axes = _axes()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, points in result["reliability"].items():
        axes.plot([p["p"] for p in points], [p["observed"] for p in points], marker="o", markersize=3, label=name)
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("observed share, test patients")
    axes.legend(frameon=False)
    return _saved(figure, docs / "experiments-findings.png")


def _axes() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(WIDTH_INCHES, 4.2))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)
    return path
