"""The command line: serve (default), prepare, index, train.  A refusal is one sentence and exit code 2."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from core_models.errors import ReadingRoomError
from webapp import settings as settings_module
from webapp.settings import Settings


def main(argv: list[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="app.py", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="the page (the default)")
    commands.add_parser("prepare", help="once: convert the language model, build the index, fetch the demo scan")
    index = commands.add_parser("index", help="build the index of prior reports")
    index.add_argument("--corpus", default="open-i", help="open-i, or a folder or CSV of reports")
    train = commands.add_parser("train", help="train a part")
    train.add_argument("part", choices=("adapter",))
    train.add_argument("--out", default="assets/adapter", help="the adapter's folder")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    train.add_argument("--compile", action="store_true", help="through torch.compile: faster, needs a C++ compiler")
    options = parser.parse_args(argv)
    settings = settings_module.load()
    work = {
        None: _serve,
        "serve": _serve,
        "prepare": _prepare,
        "index": _index,
        "train": _train,
    }[options.command]
    try:
        work(settings, options)
    except ReadingRoomError as error:
        print(f"{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _serve(settings: Settings, options: argparse.Namespace) -> None:
    from webapp.server import serve

    serve(settings)


def _bar(description: str):
    """A progress callback (done, total, text) over a tqdm bar."""
    from tqdm import tqdm

    bar = tqdm(total=1, desc=description, unit="")

    def say(done: int, total: int, text: str = "") -> None:
        bar.total, bar.n = max(total, done, 1), done
        bar.set_postfix_str(text[:60])

    return say


def _prepare(settings: Settings, options: argparse.Namespace) -> None:
    from core_models.drafting import language_model
    from retrieval import index
    from webapp import demo

    language_model.prepare(settings.models, progress=_bar("language model"))
    try:
        index.open_index(settings.index)
    except ReadingRoomError:
        _build_index(settings, "open-i")
    try:
        demo.fetch(settings, _bar("demo scan"))
    except ReadingRoomError as error:  # the page works without it, and says what is missing
        print(f"The demo CT could not be fetched: {error}", file=sys.stderr)


def _index(settings: Settings, options: argparse.Namespace) -> None:
    _build_index(settings, options.corpus)


def _build_index(settings: Settings, corpus: str) -> None:
    from retrieval import corpora, index
    from retrieval.embedding import TextEncoder

    source = corpus if corpus == "open-i" else Path(corpus)
    reports = corpora.read(source)
    built = index.build(reports, TextEncoder(settings.threads), settings.index, progress=_bar("index"))
    print(f"\nindexed with digest {built.digest[:12]}")


def _train(settings: Settings, options: argparse.Namespace) -> None:
    from core_models.drafting import adapter, language_model
    from core_models.drafting.dataset import Dataset
    from retrieval.training import source_reports

    train, test = source_reports("open-i")
    held = Dataset(test)
    base = language_model.load(settings.models, None, settings.threads)
    pairs = Dataset(train)
    held_out = [e for k in range(len(held)) if (e := held.example(k, None))]
    summary = adapter.train(
        base,
        pairs.examples,
        held_out,
        Path(options.out),
        adapter.Recipe(),
        resume=options.resume,
        compiled=options.compile,
        log=lambda text: print(text, flush=True),
    )
    print(summary)


if __name__ == "__main__":
    sys.exit(main())
