"""Which adapter is in use: promoted only on proof, brought back by one step, and never another than was promoted."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from core_models.drafting import promotion
from core_models.drafting.promotion import SHIPPED, SHIPPED_FOLDER, Verdict, decide
from core_models.errors import Conflict, ModelMissing, NotFound, Refused

YES = Verdict(True, ("Better.",))


def candidate(home: Path, name: str, seed: int = 0) -> Path:
    folder = home / "adapters" / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"lora": np.random.default_rng(seed).random((2, 3))}, folder / promotion.WEIGHTS)
    return folder


def current(home: Path) -> list[str]:
    return [a.name for a in promotion.listed(home) if a.current]


# ---- the registry ----------------------------------------------------------------------------------------------------


def test_without_any_promotion_the_shipped_one_is_in_use_unless_another_is_set(tmp_path: Path) -> None:
    candidate(tmp_path, "first")
    assert promotion.resolve(tmp_path, "") == SHIPPED_FOLDER
    assert promotion.resolve(tmp_path, "/some/where") == Path("/some/where")
    assert [(a.name, a.current) for a in promotion.listed(tmp_path)] == [(SHIPPED, True), ("first", False)]
    assert promotion.before(tmp_path) is None
    with pytest.raises(Conflict, match="shipped"):
        promotion.back(tmp_path)


def test_promotion_and_return_are_a_pile_whose_record_stays(tmp_path: Path) -> None:
    one, two = candidate(tmp_path, "one", 1), candidate(tmp_path, "two", 2)
    promotion.promote(tmp_path, "one", YES)
    assert promotion.resolve(tmp_path, "") == one
    promotion.promote(tmp_path, "two", YES)
    promotion.promote(tmp_path, "one", Verdict(True, ("Better again.",)))
    seen = [promotion.before(tmp_path), promotion.back(tmp_path)]
    assert seen == ["two", "two"]
    assert promotion.resolve(tmp_path, "") == two
    assert (promotion.before(tmp_path), promotion.back(tmp_path)) == ("one", "one")
    assert (promotion.before(tmp_path), promotion.back(tmp_path)) == (SHIPPED, SHIPPED)
    assert promotion.resolve(tmp_path, "") == SHIPPED_FOLDER
    stored = json.loads((tmp_path / "adapters" / "current.json").read_text())
    assert stored["current"] == SHIPPED
    assert [(p["name"], bool(p["left_at"])) for p in stored["history"]] == [("one", True), ("two", True), ("one", True)]
    (row,) = (a for a in promotion.listed(tmp_path) if a.name == "one")
    assert [p.reasons for p in row.promotions] == [("Better.",), ("Better again.",)]
    assert row.label == f"one@{row.promotions[0].digest[:12]}"


def test_a_promotion_needs_a_verdict_a_candidate_and_another_one_than_is_in_use(tmp_path: Path) -> None:
    candidate(tmp_path, "one")
    with pytest.raises(Refused, match="Worse there"):
        promotion.promote(tmp_path, "one", Verdict(False, ("Worse there.",)))
    with pytest.raises(NotFound):
        promotion.promote(tmp_path, "two", YES)
    assert current(tmp_path) == [SHIPPED]
    promotion.promote(tmp_path, "one", YES)
    with pytest.raises(Conflict):
        promotion.promote(tmp_path, "one", YES)
    assert current(tmp_path) == ["one"]


@pytest.mark.parametrize("name", ["", "../one", "a/b", "One", "a.b", "a" * 41, "one\n", "..", SHIPPED])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused):
        promotion.folder(tmp_path, name)
    with pytest.raises(Refused):
        promotion.promote(tmp_path, name, YES)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = candidate(tmp_path / "outside", "x")
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "linked").symlink_to(outside)
    with pytest.raises(Refused, match="link"):
        promotion.promote(tmp_path, "linked", YES)
    (row,) = (a for a in promotion.listed(tmp_path) if a.name == "linked")
    assert "link" in row.problem


@pytest.mark.parametrize("extra", ["adapter_model.bin", "optimizer.PT", "x.pkl"])
def test_pickled_files_are_refused(tmp_path: Path, extra: str) -> None:
    (candidate(tmp_path, "one") / extra).write_bytes(b"")
    with pytest.raises(Refused, match="pickled"):
        promotion.promote(tmp_path, "one", YES)


def test_a_pickle_by_a_safe_name_is_refused(tmp_path: Path) -> None:
    (candidate(tmp_path, "one") / promotion.WEIGHTS).write_bytes(pickle.dumps({"lora": [1.0]}))
    with pytest.raises(Refused, match="not a safetensors file"):
        promotion.promote(tmp_path, "one", YES)


def test_weights_that_changed_or_went_since_the_promotion_are_not_loaded(tmp_path: Path) -> None:
    folder = candidate(tmp_path, "one", 1)
    promotion.promote(tmp_path, "one", YES)
    candidate(tmp_path, "one", 2)
    with pytest.raises(Refused, match="not those that were promoted"):
        promotion.resolve(tmp_path, "")
    (row,) = (a for a in promotion.listed(tmp_path) if a.name == "one")
    assert "not those" in row.problem
    candidate(tmp_path, "one", 1)
    assert promotion.resolve(tmp_path, "") == folder
    (folder / promotion.WEIGHTS).unlink()
    with pytest.raises(ModelMissing, match="not here any more"):
        promotion.resolve(tmp_path, "")
    assert promotion.back(tmp_path) == SHIPPED, "the way back is open all the same"


def test_the_loaded_adapter_is_named_in_drafts_as_it_is_in_the_list(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from core_models.drafting.vision_language import LORA_MODULES, PROJECTOR, with_adapter
    from tests.drafting import tiny

    base = tiny.vision_language()
    folder = promotion.folder(tmp_path, "one")
    get_peft_model(
        base.model, LoraConfig(r=2, target_modules=LORA_MODULES, modules_to_save=[PROJECTOR])
    ).save_pretrained(folder, save_embedding_layers=False)
    (folder / "reading-room.json").write_text(json.dumps({"base_digest": base.digest}))
    promotion.promote(tmp_path, "one", YES)
    name = with_adapter(tiny.vision_language(), promotion.resolve(tmp_path, "")).adapter
    assert [a.label for a in promotion.listed(tmp_path) if a.current] == [name]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"current": "one", "history": []}',
        '{"current": "../../etc", "history": [{"name": "../../etc", "digest": "", "promoted_at": "", "reasons": []}]}',
    ],
)
def test_a_damaged_registry_is_told_and_loads_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "current.json").write_text(text)
    for call in (promotion.listed, promotion.back, lambda home: promotion.resolve(home, "")):
        with pytest.raises(Refused, match="damaged"):
            call(tmp_path)


def test_a_failing_write_leaves_the_registry_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate(tmp_path, "one", 1)
    candidate(tmp_path, "two", 2)
    promotion.promote(tmp_path, "one", YES)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(promotion.os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        promotion.promote(tmp_path, "two", YES)
    assert current(tmp_path) == ["one"]
    assert {p.name for p in (tmp_path / "adapters").iterdir()} == {"one", "two", "current.json"}, "no half file stays"


# ---- the verdict -----------------------------------------------------------------------------------------------------


def rows(count: int, recall: float, precision: float = 0.9, bad: float = 0.02, seed: int = 0) -> list[dict]:
    """Scores of studies with two to four findings, of which each is stated by chance; paired by the same seed."""
    rng = random.Random(seed)
    out = []
    for n in range(count):
        given = rng.randint(2, 4)
        draws = [rng.random() for _ in range(given)]
        stated = sum(d < recall for d in draws)
        wrong = sum(rng.random() > precision for _ in range(given))
        unsupported = sum(rng.random() < bad for _ in range(6))
        out.append(
            {
                "study": f"s{n}",
                "given": given,
                "stated": stated,
                "drafted": stated + wrong,
                "supported_drafted": stated,
                "statements": 6,
                "unsupported": unsupported,
                "contradicted": 0,
            }
        )
    return out


HELD = rows(200, 0.8)


def test_better_on_signed_cases_and_nothing_forgotten_is_promoted() -> None:
    verdict = decide(HELD, rows(200, 0.82), rows(60, 0.6), rows(60, 0.9))
    assert verdict.promote
    assert len(verdict.reasons) == 4
    assert "60 latest signed cases" in verdict.reasons[0]
    assert "200 held-out studies" in verdict.reasons[1]


def test_the_same_adapter_is_not_better_than_itself() -> None:
    verdict = decide(HELD, HELD, rows(60, 0.6), rows(60, 0.6))
    assert not verdict.promote
    assert verdict.reasons[0].startswith("Not certainly better")


def test_a_gain_that_may_be_chance_is_not_enough() -> None:
    old = rows(30, 0.6)
    new = [dict(row) for row in old]
    lacking = next(row for row in new if row["stated"] < row["given"])
    for name in ("stated", "drafted", "supported_drafted"):
        lacking[name] += 1
    verdict = decide(HELD, HELD, old, new)
    assert not verdict.promote
    assert "+0.0" in verdict.reasons[0], "it is better, but not certainly"


def test_fewer_than_twenty_signed_cases_cannot_tell() -> None:
    verdict = decide(HELD, HELD, rows(19, 0.1), rows(19, 1.0))
    assert not verdict.promote
    assert "too few signed cases to tell: 19" in verdict.reasons[0]
    assert decide(HELD, HELD, rows(20, 0.1), rows(20, 1.0)).promote


def test_recall_bought_with_precision_is_not_better() -> None:
    """All findings and as many more: recall rises, F1 does not."""
    old = [
        {**row, "stated": 2, "drafted": 2, "supported_drafted": 2, "given": 3, "study": n} for n, row in enumerate(HELD)
    ]
    new = [{**row, "stated": 3, "drafted": 9, "supported_drafted": 3} for row in old]
    verdict = decide(HELD, HELD, old, new)
    assert not verdict.promote
    assert verdict.reasons[0].startswith("Not certainly better")


@pytest.mark.parametrize(
    ("held", "word"),
    [
        (rows(200, 0.7), "finding recall"),
        (rows(200, 0.8, bad=0.08), "unsupported"),
        ([{**row, "contradicted": n % 3 == 0} for n, row in enumerate(HELD)], "contradicted"),
        ([{**row, "statements": 0, "unsupported": 0} for row in HELD], "cannot be told"),
    ],
)
def test_what_was_forgotten_on_the_held_out_studies_forbids_it(held: list[dict], word: str) -> None:
    verdict = decide(HELD, held, rows(60, 0.6), rows(60, 0.9))
    assert not verdict.promote
    against = [r for r in verdict.reasons if r.startswith("Perhaps forgotten") or "cannot be told" in r]
    assert against
    assert any(word in reason for reason in against)


def test_a_loss_within_the_margin_is_no_forgetting() -> None:
    """One finding of some six hundred: the interval lies within a hundredth."""
    held = [dict(row) for row in HELD]
    for name in ("stated", "drafted", "supported_drafted"):
        held[0][name] -= 1
    assert decide(HELD, held, rows(60, 0.6), rows(60, 0.9)).promote


def test_the_order_of_studies_does_not_matter_and_the_interval_is_drawn_the_same_each_time() -> None:
    args = (rows(200, 0.82), rows(60, 0.6), rows(60, 0.9))
    assert decide(HELD, *args) == decide(HELD[::-1], *args) == decide(HELD, *args)


def test_scores_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(Refused, match="same studies"):
        decide(HELD, HELD[:-1], rows(60, 0.6), rows(60, 0.9))
    with pytest.raises(Refused, match="twice"):
        decide([*HELD, HELD[0]], HELD, rows(60, 0.6), rows(60, 0.9))


def test_cases_without_findings_prove_nothing() -> None:
    none = [{**row, "given": 0, "stated": 0} for row in HELD]
    verdict = decide(HELD, HELD, none, none)
    assert not verdict.promote
    assert "nothing to be better at" in verdict.reasons[0]
