"""The house rules that a reader of one file cannot see: which way imports run, and that the README tells the truth."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

import app
from webapp import benchmarks
from webapp.server import create_app
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
    for part in (*app.EVALUATIONS, *benchmarks.NAMES):
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


def _shape(route: str) -> str:
    """A route with its parameters nameless."""
    return re.sub(r"\{\w+\}", "{}", route)


def test_every_route_is_in_the_architecture_and_every_one_there_exists(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "restored after the test")
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    told = {_shape(route) for route in re.findall(r"^\| `([A-Z]+ /api/\S+?)`", text, re.MULTILINE)}
    application = create_app()
    paths = application.openapi()["paths"]
    there = {
        _shape(f"{method.upper()} {path}")
        for path, methods in paths.items()
        if path.startswith("/api/")
        for method in methods
    }
    application.state.services.store.close()
    assert told == there


def test_every_event_of_the_bus_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    told = {
        name
        for row in re.findall(r"^\| (`[a-z]+(?::[a-z]+)?`[^|]*) \|", text, re.MULTILINE)
        for name in row.split("`")[1::2]
    }
    modules = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "assets" / "js").rglob("*.js"))
    sent = set(re.findall(r"\bemit(?:AndWait)?\('([a-z:]+)'", modules))
    heard = set(re.findall(r"(?<![.\w])on\('([a-z:]+)'", modules))
    assert sent == heard
    assert sent == {name for name in told if ":" in name or name == "toast"}
