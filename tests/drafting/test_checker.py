"""The check on hand-made pairs: the pairs themselves, the figures, and what they must reach."""

from __future__ import annotations

from collections import Counter

import pytest

from core_models.drafting import checker
from core_models.drafting import findings as f

KINDS = {"supported", "negated", "other side", "other number", "other finding"}


def test_the_pairs_are_many_distinct_and_split_by_kind() -> None:
    pairs = checker.pairs()
    halves = Counter(p.held_out for p in pairs)
    assert min(halves[True], halves[False]) >= 120
    assert len({(p.statement.template, p.statement.evidence, p.cards) for p in pairs}) == len(pairs)
    per_kind = Counter((p.kind, p.held_out) for p in pairs)
    assert {p.kind for p in pairs} >= KINDS
    assert all(per_kind[kind, False] - per_kind[kind, True] in (0, 1) for kind, _ in per_kind)
    for pair in pairs:
        assert set(pair.statement.evidence) <= {c.id for c in pair.cards}
        assert set(pair.polarity) <= set(f.BY_NAME)
        assert set(pair.polarity.values()) <= {"present", "absent", "possible"}


def test_the_figures_have_their_counts_intervals_and_baselines() -> None:
    report = checker.measure()
    assert report["pairs"] == len(checker.pairs()) == report["tuning"]["pairs"] + report["held_out"]["pairs"]
    for part in (report, report["tuning"], report["held_out"]):
        low, high = part["ci95"]
        assert 0 <= low <= part["accuracy"] <= high <= 1
        assert sum(kind["pairs"] for kind in part["per_kind"].values()) == part["pairs"]
        assert part["baselines"]["always supported"] <= part["baselines"]["most common verdict of the kind"]
    assert report["polarity"]["pairs"] == sum(len(p.polarity) for p in checker.pairs())
    right = sum(k["accuracy"] * k["pairs"] for k in report["per_kind"].values())
    assert right / report["pairs"] == pytest.approx(report["accuracy"], abs=1e-3)
    assert len(report["wrong"]) == report["pairs"] - round(report["accuracy"] * report["pairs"])


def test_the_check_and_the_polarity_are_right_on_nearly_all_pairs() -> None:
    report = checker.measure()
    assert report["accuracy"] >= 0.95
    assert report["held_out"]["accuracy"] >= 0.95
    assert report["polarity"]["accuracy"] >= 0.95


def test_a_check_that_always_agrees_is_measured_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "check", lambda statement, cards: statement)  # "unsupported" as built
    report = checker.measure()
    share = sum(p.verdict == "unsupported" for p in checker.pairs()) / report["pairs"]
    assert report["accuracy"] == pytest.approx(share, abs=1e-4)


def test_the_interval_is_wilsons() -> None:
    assert checker._share([True] * 95 + [False] * 5) == {"pairs": 100, "accuracy": 0.95, "ci95": [0.8882, 0.9785]}
