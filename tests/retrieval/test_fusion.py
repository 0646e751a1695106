"""Reciprocal-rank fusion: answers worked out by hand, and what holds for all lists."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.fusion import CONSTANT, FINDINGS, IMAGE_IMAGE, IMAGE_REPORT, TEXT, WEIGHTS, fuse

LISTS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.dictionaries(st.integers(0, 12), st.integers(-3, 3).map(float), max_size=12).map(
        lambda scores: sorted(scores.items(), key=lambda pair: -pair[1])
    ),
)


def test_the_paper_s_sum() -> None:
    fused = fuse({"one": [("x", 0.9), ("y", 0.8), ("z", 0.1)], "two": [("z", 7.0), ("y", 6.0)]})
    assert CONSTANT == 60
    assert [f.thing for f in fused] == ["z", "y", "x"]
    assert [f.score for f in fused] == pytest.approx([1 / 63 + 1 / 61, 1 / 62 + 1 / 62, 1 / 61], abs=1e-15)
    assert fused[0].found_by == (("one", 3, 0.1), ("two", 1, 7.0))
    assert fused[2].found_by == (("one", 1, 0.9),)


def test_a_list_counts_by_its_weight() -> None:
    lists = {"one": [("x", 0.9), ("y", 0.8)], "two": [("y", 7.0), ("z", 6.0)]}
    fused = fuse(lists, {"two": 4.0})
    assert {f.thing: f.score for f in fused} == pytest.approx(
        {"x": 1 / 61, "y": 1 / 62 + 4 / 61, "z": 4 / 62}, abs=1e-15
    )
    assert [f.thing for f in fused] == ["y", "z", "x"]
    assert fuse(lists, {"one": 1.0, "two": 1.0, "three": 9.0}) == fuse(lists)
    assert [f.thing for f in fuse(lists, {"two": 0.0})] == ["x", "y", "z"]


def test_the_shipped_weights_name_every_list() -> None:
    assert set(WEIGHTS) == {TEXT, FINDINGS, IMAGE_REPORT, IMAGE_IMAGE}
    assert all(weight > 0 for weight in WEIGHTS.values())


def test_two_lists_that_agree_beat_one_list_s_first() -> None:
    far = [(f"other {n}", 1.0 - n / 100) for n in range(40)]
    fused = fuse({"one": [*far, ("agreed", 0.1)], "two": [("lone", 1.0)], "three": [("agreed", 0.2)]})
    assert [f.thing for f in fused[:2]] == ["agreed", "other 0"]


def test_equal_scores_share_a_rank_and_the_next_is_counted_from_all() -> None:
    fused = fuse({"one": [("a", 1.0), ("b", 0.5), ("c", 0.5), ("d", 0.4)]})
    assert [f.found_by[0][1] for f in fused] == [1, 2, 2, 4]


@pytest.mark.parametrize("bad", [[("a", 1.0), ("a", 0.5)], [("a", 0.1), ("b", 0.2)], [("a", float("nan"))]])
def test_what_is_not_a_ranking_is_a_bug(bad: list[tuple[str, float]]) -> None:
    with pytest.raises(ValueError, match="order"):
        fuse({"one": bad})


def test_nothing_gives_nothing() -> None:
    assert fuse({}) == fuse({"one": []}) == ()


@settings(deadline=None)
@given(LISTS)
def test_every_thing_once_best_first_and_within_bounds(lists: dict[str, list[tuple[int, float]]]) -> None:
    fused = fuse(lists)
    assert sorted(f.thing for f in fused) == sorted({t for pairs in lists.values() for t, _ in pairs})
    assert [f.score for f in fused] == sorted((f.score for f in fused), reverse=True)
    for one in fused:
        assert {name for name, _, _ in one.found_by} == {n for n, p in lists.items() if one.thing in dict(p)}
        assert all(lists[name][rank - 1][1] == score for name, rank, score in one.found_by)
        assert 0 < one.score <= len(lists) / (CONSTANT + 1)


@settings(deadline=None)
@given(LISTS, st.randoms())
def test_scores_depend_on_no_order_of_lists_or_equals(
    lists: dict[str, list[tuple[int, float]]], chance: random.Random
) -> None:
    names = list(lists)
    chance.shuffle(names)
    shuffled = {}
    for name in names:
        pairs = list(lists[name])
        chance.shuffle(pairs)
        shuffled[name] = sorted(pairs, key=lambda pair: -pair[1])
    assert {f.thing: f.score for f in fuse(lists)} == {f.thing: f.score for f in fuse(shuffled)}


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), max_size=30))
def test_one_list_alone_comes_out_as_it_went_in(scores: list[float]) -> None:
    pairs = list(enumerate(sorted(scores, reverse=True)))
    assert [f.thing for f in fuse({"one": pairs})] == [n for n, _ in pairs]


@settings(deadline=None)
@given(st.permutations(range(8)), st.permutations(range(8)), st.integers(1, 7))
def test_a_better_place_never_makes_the_score_worse(first: list[int], second: list[int], place: int) -> None:
    def ranked(order: list[int]) -> list[tuple[int, float]]:
        return [(thing, -float(n)) for n, thing in enumerate(order)]

    def score(order: list[int], thing: int) -> float:
        return next(f.score for f in fuse({"one": ranked(order), "two": ranked(second)}) if f.thing == thing)

    risen = [*first]
    risen[place - 1], risen[place] = risen[place], risen[place - 1]
    assert score(risen, first[place]) > score(first, first[place])
