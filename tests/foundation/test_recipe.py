"""The recipe file: what it holds, what names it, and one plain sentence for each thing that can be wrong with it."""

from dataclasses import replace
from pathlib import Path

import pytest

from core_models.errors import Refused
from core_models.foundation import recipe

GOOD = """
start = "imagenet"
[tasks]
findings = 1.0
gate = 1
[[stages]]
size = 64
steps = 3
rate = 1e-3
pseudo = ["jsrt"]
rows = { nih-cxr14-1000 = 4, jsrt = 2 }
[[stages]]
size = 96
steps = 2
rows = { rocov2-cxr = 4 }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_recipe(tmp_path):
    read = recipe.read(write(tmp_path, GOOD))
    assert read.steps == 5
    assert read.sources == ("nih-cxr14-1000", "jsrt", "rocov2-cxr")
    assert read.stages[0].pseudo == ("jsrt",)
    assert read.tasks == {"findings": 1.0, "gate": 1.0}


def test_the_shipped_recipe_is_sound():
    shipped = recipe.read()
    assert set(shipped.tasks) <= set(recipe.TASK_NAMES)
    assert shipped.steps > 100


def test_the_digest_names_all_that_decides_the_outcome(tmp_path):
    read = recipe.read(write(tmp_path, GOOD))
    assert recipe.read(write(tmp_path, GOOD)).digest == read.digest
    for changed in (replace(read, seed=1), replace(read, stages=read.stages[:1]), replace(read, tasks={"gate": 1.0})):
        assert changed.digest != read.digest


WRONG = {
    "not TOML": ("tasks = [", "is not TOML"),
    "no stages": ("[tasks]\nfindings = 1.0", r"no \[\[stages\]\]"),
    "stages that are numbers": ("stages = [1]\n[tasks]\ngate = 1.0", "stages that are no tables"),
    "no tasks": (GOOD.replace("[tasks]\nfindings = 1.0\ngate = 1", ""), "lacks the key 'tasks'"),
    "empty tasks": (GOOD.replace("findings = 1.0\ngate = 1", ""), "names no task"),
    "tasks as a list": (GOOD.replace("[tasks]\nfindings = 1.0\ngate = 1", 'tasks = ["gate"]'), "tasks = None"),
    "unknown task": (GOOD.replace("gate =", "telepathy ="), "'telepathy'; there are findings"),
    "unknown key": (GOOD.replace("start =", "begin ="), "unknown key 'begin'; known are"),
    "unknown stage key": (GOOD.replace("rate =", "speed ="), "unknown key 'speed'"),
    "no size": (GOOD.replace("size = 64\n", ""), "lacks the key 'size'"),
    "odd size": (GOOD.replace("size = 64", "size = 100"), "multiple of 32"),
    "no steps": (GOOD.replace("steps = 3", "steps = 0"), "steps of 1 or more"),
    "no rows": (GOOD.replace("{ rocov2-cxr = 4 }", "{}"), "and rows"),
    "size as text": (GOOD.replace("size = 64", 'size = "big"'), "size = 'big', which is not a whole number"),
    "steps as a share": (GOOD.replace("steps = 3", "steps = 2.5"), "steps = 2.5, which is not a whole number"),
    "yes for a number": (GOOD.replace("rate = 1e-3", "rate = true"), "rate = True, which is not a number"),
    "negative rate": (GOOD.replace("rate = 1e-3", "rate = -1.0"), "rate = -1.0, which is out of range"),
    "rate that is no number": (GOOD.replace("rate = 1e-3", "rate = nan"), "rate = nan, which is out of range"),
    "freeze as a text": (
        GOOD.replace("size = 96", 'size = 96\nfreeze = "all"'),
        "freeze = 'all', which is not a whole",
    ),
    "negative rows": (GOOD.replace("jsrt = 2 }", "jsrt = -2 }"), "rows.jsrt = -2, which is out of range"),
    "negative weight": (GOOD.replace("gate = 1", "gate = -1"), "tasks.gate = -1, which is out of range"),
    "a share over one": (GOOD.replace('start = "imagenet"', "average = 1.5"), "average = 1.5, which is out of range"),
    "pseudo as a text": (GOOD.replace('["jsrt"]', '"jsrt"'), "pseudo = 'jsrt', which is not a list of names"),
    "start as a number": (GOOD.replace('"imagenet"', "3"), "start = 3, which is not a text"),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_recipe_gets_one_sentence(tmp_path, text, words):
    with pytest.raises(Refused, match=words) as caught:
        recipe.read(write(tmp_path, text))
    message = str(caught.value)
    assert "mine.toml" in message
    assert message.endswith(".")
    assert str(tmp_path) not in message


def test_a_recipe_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(Refused, match=r"mine\.toml cannot be read"):
        recipe.read(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Refused, match="not TOML"):
        recipe.read(tmp_path / "mine.toml")


def test_stages_may_be_added_to_a_run_that_is_done_but_not_changed_under_it(tmp_path):
    read = recipe.read(write(tmp_path, GOOD))
    first, second = read.stages
    longer = replace(read, stages=(first, second, replace(second, size=128)))
    assert longer.digest != read.digest
    for step in range(1, read.steps + 1):
        assert longer.digest_to(step) == read.digest_to(step)
    changed = replace(read, stages=(replace(first, rate=2e-3), second))
    assert all(changed.digest_to(step) != read.digest_to(step) for step in range(1, read.steps + 1))
    later = replace(read, stages=(first, replace(second, steps=9)))
    assert later.digest_to(first.steps) == read.digest_to(first.steps)
    assert later.digest_to(first.steps + 1) != read.digest_to(first.steps + 1)
