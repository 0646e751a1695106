"""The house rules that a reader of one file cannot see: which way imports run, and that the README tells the truth."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

import app
from webapp.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("core_models", "retrieval", "webapp")  # each may import itself and those before it
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room: str) -> None:
    forbidden = {*ROOMS[ROOMS.index(room) + 1 :], "app", "tests"}
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        assert not _imports(path) & forbidden, path.relative_to(ROOT)


def test_every_third_party_import_is_pinned_and_has_its_row_in_the_readme() -> None:
    pinned = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert len(pinned) > 20
    table = {name.lower() for name in re.findall(r"^\| `([^`]+)`", README, re.MULTILINE)}
    assert {name.lower() for name in pinned} <= table


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Settings)])
def test_every_setting_is_in_the_readme(field: str) -> None:
    assert f"`{PREFIX}{field.upper()}`" in README


def test_every_command_is_in_the_readme() -> None:
    (commands,) = (a for a in app._parser()._actions if a.dest == "command" or a.metavar == "command")
    for name in commands.choices:
        assert f"app.py {name}" in README or name == "serve"
    for part in (*app.EVALUATIONS, *app.BENCHMARKS):
        assert part in README


def test_the_readmes_pictures_and_links_exist() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert any(t.endswith(".png") for t in targets)
    for target in targets:
        assert (ROOT / target).exists(), target


def test_trained_files_are_safetensors_with_a_card_and_not_large() -> None:
    for path in (ROOT / "assets").rglob("*"):
        assert path.suffix not in {".bin", ".pkl", ".pt", ".pth", ".ckpt", ".onnx", ".joblib"}, path
        if path.is_file():
            assert path.stat().st_size < 40 * 2**20, path
        if path.suffix == ".safetensors":
            assert (path.parent / "README.md").is_file(), path
