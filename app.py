"""The command line: serve (default), read, deidentify, engines, prepare, index, train, evaluate, benchmark, fuzz.

A refusal is one sentence and exit code 2.  With --json the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core_models.errors import ReadingRoomError, Refused
from core_models.foundation import commands as foundation
from webapp import benchmarks
from webapp import settings as settings_module
from webapp.settings import Settings

ASSETS = Path(__file__).resolve().parent / "assets"
ADAPTER, ENCODER = ASSETS / "adapter", ASSETS / "foundation"
EVALUATIONS = ("segmentation", "names", "drafting", "checker", "priors", *foundation.EVALUATIONS)

Options = argparse.Namespace


def main(argv: list[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        settings = settings_module.load()
        result = options.work(settings, options)
    except ReadingRoomError as error:
        print(f"{error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"The machine refused it: {error.strerror or error}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if result is not None and options.json:
        print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="app.py", description=__doc__)
    parser.set_defaults(work=_serve, json=False)
    commands = parser.add_subparsers(metavar="command")

    def command(name: str, work: Callable[[Settings, Options], Any], words: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=words, description=words)
        one.set_defaults(work=work)
        return one

    command("serve", _serve, "the page (the default)")
    read = command("read", _read, "read one scan without a browser: report, segments and exports in a folder")
    read.add_argument("scan", type=Path, metavar="SCAN", help="a file, a folder or a ZIP")
    read.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the report goes")
    for flag, words in (
        ("--click", "a click that adds"),
        ("--remove", "a click that takes away, after those that add"),
    ):
        read.add_argument(
            flag,
            dest="clicks",
            action="append",
            default=[],
            metavar="ORGAN@x,y,z",
            type=lambda text, positive=flag == "--click": (text, positive),
            help=f"{words}, in patient millimetres (LPS); may be repeated",
        )
    read.add_argument("--finding", action="append", default=[], metavar="TERM", help="a finding that you assert")
    read.add_argument("--indication", default="", metavar="TEXT")
    read.add_argument("--json", action="store_true", help="one JSON object on the last line")
    deidentify = command("deidentify", _deidentify, "take the patient out of DICOM files, for research")
    deidentify.add_argument("source", type=Path, metavar="FOLDER", help="a folder, a file or a ZIP")
    deidentify.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty folder")
    deidentify.add_argument(
        "--flagged",
        action="store_true",
        help="also images whose pixels may show who the patient is; look at them first",
    )
    deidentify.add_argument("--json", action="store_true", help="one JSON object on the last line")
    engines = command("engines", _engines, "the engines that may answer clicks: how to set each, licence, cost")
    engines.add_argument("--json", action="store_true", help="one JSON object on the last line")
    command("prepare", _prepare, "once: convert the language model, build the index, fetch the demo scan")
    index = command("index", _index, "build the index of prior reports")
    index.add_argument("--corpus", default="open-i", help="open-i, or a folder or CSV of reports")
    train = command("train", _train, "train a part")
    train.add_argument("part", choices=("adapter", "encoder", "segmenter", "atlas"))
    train.add_argument("--out", type=Path, help="where the weights go; default: the shipped ones in assets/")
    train.add_argument("--config", type=Path, metavar="FILE", help="another recipe of encoder or segmenter (TOML)")
    train.add_argument("--data", type=Path, metavar="DIR", help="folder of images; default: READING_ROOM_DATA")
    train.add_argument(
        "--from", dest="start", type=Path, metavar="DIR", help="segmenter: weights to go on from, where others began"
    )
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    train.add_argument(
        "--from-store", action="store_true", help="adapter: learn from the reports signed here; in use if better"
    )
    train.add_argument("--compile", action="store_true", help="through torch.compile: faster, needs a C++ compiler")
    adapters = command("adapter", _adapter, "the adapters that may draft: list them, promote one, go back to the last")
    adapters.add_argument("what", choices=("list", "promote", "return"))
    adapters.add_argument("name", nargs="?", default="", help="of the candidate to promote")
    adapters.add_argument("--json", action="store_true", help="one JSON object on the last line")
    evaluate = command("evaluate", _evaluate, "measure how good a part is, beside lazy baselines")
    evaluate.add_argument("part", choices=EVALUATIONS)
    evaluate.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N test cases")
    evaluate.add_argument("--data", type=Path, metavar="DIR", help="folder of images; default: READING_ROOM_DATA")
    evaluate.add_argument("--record", action="store_true", help="keep the figures for the card and the page")
    evaluate.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="NAME",
        help="segmentation: this engine; may be repeated; default: those that ship and a lazy baseline",
    )
    evaluate.add_argument("--json", action="store_true", help="one JSON object on the last line")
    fuzz = command("fuzz", _fuzz, "read thousands of broken files: only a refusal may come of each")
    fuzz.add_argument("part", choices=("intake",))
    fuzz.add_argument("--cases", type=int, default=2000, metavar="N")
    fuzz.add_argument("--seed", type=int, default=0, metavar="N", help="another one breaks the files differently")
    fuzz.add_argument("--json", action="store_true", help="one JSON object on the last line")
    benchmark = command("benchmark", _benchmark, "measure how fast a part is and what memory it takes")
    benchmark.add_argument("part", choices=benchmarks.NAMES)
    benchmark.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser


def _serve(settings: Settings, options: Options) -> None:
    from webapp.server import serve

    serve(settings)


def _read(settings: Settings, options: Options) -> dict[str, Any]:
    from webapp import reading

    result = reading.read(
        settings,
        options.scan,
        options.out,
        prompts=[reading.prompt(text, positive) for text, positive in options.clicks],
        findings=options.finding,
        indication=options.indication,
    )
    print(f"Done in {result['seconds']} s.")
    return result


def _engines(settings: Settings, options: Options) -> dict[str, Any]:
    from core_models.segmentation import optional, registry

    rows = []
    for row in (*registry.ENGINES, *optional.OPTIONAL):
        own = isinstance(row, optional.OptionalRow)
        told = {
            "set": f"{optional.SETTING}={row.form if own else row.name}",
            "task": row.task,
            "licence": row.licence,
            "cost": row.cost,
            "sends": row.sends if own else "nothing leaves the process",
            "lacks": "" if row.available else f"{', '.join(row.missing if own else row.needs)}",
            "obtain": row.obtain if own else "",
        }
        rows.append({"name": row.name} | told)
        print(row.name)
        for key, text in told.items():
            if text:
                print(f"  {key}: {text}")
    return {"engines": rows, "set": settings.segmenter}


def _deidentify(settings: Settings, options: Options) -> dict[str, Any]:
    from webapp import research
    from webapp.indexing import salt_of

    key = salt_of(settings.home)
    told = research.folder(options.source, options.out, key, options.flagged, _bar("de-identify"))
    left = sum(row["files"] for row in told["left_out"])
    print(f"\n{told['files']} files cleaned, {left} left out; {options.out / research.REPORT} says what was taken out.")
    return told


def _bar(description: str) -> Callable[[int, int, str], None]:
    """A progress callback (done, total, text) over a tqdm bar."""
    from tqdm import tqdm

    bar = tqdm(total=1, desc=description, unit="")

    def say(done: int, total: int, text: str = "") -> None:
        bar.total, bar.n = max(total, done, 1), done
        bar.set_postfix_str(text[:60])

    return say


def _prepare(settings: Settings, options: Options) -> None:
    from core_models.drafting import vision_language
    from retrieval import index
    from webapp import demo
    from webapp.priors import shared_text

    vision_language.prepare(settings.models, progress=_bar("language model"))
    try:
        held = index.open_index(settings.index)
        tower = shared_text(settings.threads)
        if tower is not None and held.shared.model != tower.name:  # other image weights came with this version
            if set(held.manifest.corpora) <= {"open-i", index.SIGNED}:
                _build_index(settings, "open-i")
            else:
                print(
                    "The index of prior reports is of your own corpus and of an earlier image model; it stays. Build "
                    "it again with `python app.py index --corpus …`, so that images find reports.",
                    file=sys.stderr,
                )
    except ReadingRoomError:
        _build_index(settings, "open-i")
    try:
        demo.fetch(settings, _bar("demo scan"))
    except ReadingRoomError as error:  # the page works without it, and says what is missing
        print(f"The demo CT could not be fetched: {error}", file=sys.stderr)


def _index(settings: Settings, options: Options) -> None:
    _build_index(settings, options.corpus)


def _build_index(settings: Settings, corpus: str) -> None:
    from retrieval import corpora, index
    from retrieval.embedding import TextEncoder
    from webapp.priors import reference_images, shared_text

    source = corpus if corpus == "open-i" else Path(corpus)
    reports = corpora.read(source)
    tower = shared_text(settings.threads)
    built = index.build(
        reports,
        TextEncoder(settings.threads),
        settings.index,
        progress=_bar("index"),
        shared=tower,
        calibration_images=reference_images(tower.name) if tower is not None else None,
    )
    print(f"\n{built.manifest.reports} reports indexed, digest {built.digest[:12]}")


def _train(settings: Settings, options: Options) -> None:
    parts = {
        "adapter": _train_adapter,
        "encoder": _train_encoder,
        "segmenter": _train_segmenter,
        "atlas": _train_atlas,
    }
    parts[options.part](settings, options)


def _train_segmenter(settings: Settings, options: Options) -> None:
    from core_models.segmentation.clicks import train_clicks

    scans = _labelled_scans(settings)
    summary = train_clicks.run(
        options.data or settings.data,
        next(iter(scans.values()), None),
        options.out or train_clicks.FOLDER,
        settings.home / "training" / "segmenter",
        options.config,
        start=options.start,
        resume=options.resume,
        threads=settings.threads,
        say=_bar("scans"),
        log=lambda text: print(text, flush=True),
    )
    print(json.dumps(summary))


def _train_atlas(settings: Settings, options: Options) -> None:
    """The table by which CT segments get a suggested name; the recipe and the checkpoints of others mean nothing."""
    from core_models.segmentation.naming import atlas, train_atlas

    if options.config or options.resume:
        raise Refused("The atlas is a table that is made at once: leave out --config and --resume.")
    demo = next(iter(_labelled_scans(settings).values()), None)
    out = options.out or atlas.FILE.parent
    print(json.dumps(train_atlas.run(options.data or settings.data, demo, out, _bar("atlas"))))


def _train_encoder(settings: Settings, options: Options) -> None:
    summary = foundation.train_encoder(
        options.data or settings.data,
        options.out or ENCODER,
        settings.home / "training" / "encoder",
        options.config,
        resume=options.resume,
        log=lambda text: print(text, flush=True),
    )
    print(json.dumps({name: summary[name] for name in ("steps", "seconds", "losses")}))


def _adapter(settings: Settings, options: Options) -> dict[str, Any]:
    from core_models.drafting import promotion

    if options.what == "return":
        print(f"The {promotion.back(settings.home)} adapter drafts again.")
    elif options.what == "promote":
        from webapp import adapters

        adapters.promote(settings, options.name)
        print(f"The {options.name} adapter drafts from the next start of the server on.")
    known = promotion.listed(settings.home)
    for one in known:
        print(f"{'→' if one.current else ' '} {one.name}  {one.label}  {one.problem}")
    return {"adapters": [asdict(one) for one in known]}


def _train_adapter(settings: Settings, options: Options) -> None:
    if options.from_store:
        from webapp import adapters
        from webapp.store import Store

        print(json.dumps(adapters.from_store(settings, Store(settings), lambda text: print(text, flush=True))))
        return
    from core_models.drafting import adapter, pictures, vision_language
    from core_models.drafting.dataset import Dataset
    from retrieval.training import source_reports

    train, test = source_reports("open-i")
    base = vision_language.load(settings.models, None, settings.threads)
    shown = pictures.load(options.data or settings.data, base.image_size, _bar("pictures"))
    pairs, held = Dataset(train, pictures=shown.studies), Dataset(test)
    summary = adapter.train(
        base,
        pairs.examples,
        [e for k in range(len(held)) if (e := held.example(k, None))],
        options.out or ADAPTER,
        adapter.Recipe(),
        pictures=adapter.tokens_of(base, shown.used()),
        resume=options.resume,
        compiled=options.compile,
        log=lambda text: print(text, flush=True),
    )
    print(json.dumps(summary))


def _evaluate(settings: Settings, options: Options) -> dict[str, Any]:
    if options.engine and options.part != "segmentation":
        raise Refused("--engine names segmentation engines; it goes with `evaluate segmentation` alone.")
    own = {
        "segmentation": _segmentation,
        "names": _names,
        "drafting": _drafting,
        "checker": _checker,
        "priors": _priors,
    }
    result = own.get(options.part, _foundation)(settings, options)
    if not options.json:
        print(json.dumps(result, indent=1))
    return result


def _foundation(settings: Settings, options: Options) -> dict[str, Any]:
    result = foundation.evaluate(
        options.part,
        options.data or settings.data,
        settings.home / "evaluation" / options.part,
        _bar(options.part),
        options.limit,
        _labelled_scans(settings) if options.part == "experts" else None,
        options.record,
    )
    if options.record:
        foundation.record(options.part, result)
    return result


def _labelled_scans(settings: Settings) -> dict[str, tuple[Path, Path]]:
    """The demo CT with its label map, where it was fetched."""
    from webapp import demo
    from webapp.benchmarks.scan import NAME

    try:
        return {NAME: (demo.paths(settings, NAME)[0], demo.companion(settings, NAME, "mask.nii.gz"))}
    except ReadingRoomError as error:
        print(f"Without the demo CT: {error}", file=sys.stderr)
        return {}


def _segmentation(settings: Settings, options: Options) -> dict[str, Any]:
    """Simulated clicks on what no engine was trained on: every engine that ships, and the lazy baseline."""
    from core_models.segmentation import cohorts, registry
    from core_models.segmentation.judging import evaluation, judged
    from webapp import labelled

    if options.record and (options.limit or options.engine):
        raise Refused("Figures of a part of the cases or engines are not kept: leave out --limit and --engine.")
    default = {cohort: registry.default_for(modality).name for cohort, modality in cohorts.MODALITY.items()}
    names = options.engine or [*evaluation.shipped(), evaluation.BASELINE]
    demo = next(iter(_labelled_scans(settings).values()), None)
    vertebrae = labelled.vertebrae(settings, _bar("vertebrae"))
    every = cohorts.cases(options.data or settings.data, demo, vertebrae)
    result = evaluation.run(
        evaluation.contenders(names),
        judged.judged(every, options.limit),
        default,
        settings.home / "evaluation" / "segmentation",
        settings.threads,
        _bar("segmentation"),
    )
    if options.record:
        from core_models.segmentation.judging import evaluation_report

        evaluation_report.record(result)
    return result


def _names(settings: Settings, options: Options) -> dict[str, Any]:
    """How often a segment's suggested name is right, with atlases fitted without what is judged."""
    from core_models.segmentation.naming import evaluate_names

    if options.record or options.limit:
        raise Refused("Names are judged all at once and nothing is kept: leave out --limit and --record.")
    demo = next(iter(_labelled_scans(settings).values()), None)
    return evaluate_names.run(options.data or settings.data, demo, _bar("names"))


def _checker(settings: Settings, options: Options) -> dict[str, Any]:
    from core_models.drafting import checker

    return checker.measure()


def _priors(settings: Settings, options: Options) -> dict[str, Any]:
    """Whether priors share the findings of held-out studies, and what a large index misses."""
    from retrieval import corpora, evaluate, large
    from webapp.priors import opener

    searcher = opener(settings)()
    result = evaluate.run(searcher, corpora.read("open-i"), _bar("priors"))
    return result | {"large": large.run(searcher.index, progress=_bar("large index"))}


def _drafting(settings: Settings, options: Options) -> dict[str, Any]:
    """The writer of the settings with the priors that the page would quote to it, on the test split."""
    from core_models import registry
    from core_models.drafting import drafter, evaluate_pictures, evaluation, writers
    from core_models.foundation.embedded import EmbeddedEyes
    from retrieval.training import source_reports
    from webapp.drafting import loader
    from webapp.priors import opener, quoted, text_encoder

    if options.record and settings.writer not in ("", writers.EMBEDDED):
        raise Refused(
            "Only the embedded model's figures are kept beside its adapter: leave out --record, or unset "
            "READING_ROOM_WRITER."
        )
    train, test = source_reports("open-i")
    writer = loader(settings)()
    searcher = opener(settings)()

    def priors(report: Any) -> Sequence[drafter.PriorText]:
        return quoted(searcher, report.id, report.indication, evaluation.board(report))

    encode = text_encoder(settings.threads).encode
    result = evaluation.run(writer, train, test, priors, encode, options.limit, _bar("drafts"))
    eyes = EmbeddedEyes(registry.row_of(registry.EMBEDDED), threads=settings.threads)
    data = options.data or settings.data
    pictures = evaluate_pictures.run(data, eyes, writer, _bar("pictures"))  # all of them, whatever the limit
    result |= {"index": searcher.index.digest[:12], "pictures": pictures}
    if options.record:
        from core_models.drafting import evaluation_report

        evaluation_report.record(result)
    return result


def _fuzz(settings: Settings, options: Options) -> dict[str, Any]:
    from core_models.study import fuzz

    result = fuzz.run(options.cases, options.seed)
    fuzz.report(result, lambda text: print(text, flush=True))
    return result


def _benchmark(settings: Settings, options: Options) -> dict[str, Any]:
    result = benchmarks.run(options.part, settings, lambda text: print(text, flush=True))
    if not options.json:
        print(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    sys.exit(main())
