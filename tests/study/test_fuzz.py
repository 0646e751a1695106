"""Broken files by the hundred: only a refusal comes out of intake, in a process whose memory is capped."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import app
from core_models.errors import ReadingRoomError
from core_models.study import fuzz

CASES = 80


def test_a_sample_of_broken_files_is_read_or_refused(home, capsys):
    assert app.main(["fuzz", "intake", "--cases", str(CASES), "--seed", "7", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["escaped"] == []
    assert result["cases"] == CASES == result["read"] + sum(result["refused"].values())
    assert result["refused"]["Refused"] > 0
    assert result["peak_mb"] is None or result["peak_mb"] < result["cap_mb"]


def test_what_escapes_is_a_failure_that_says_how_often():
    result = {"cases": 2, "read": 1, "refused": {}, "slowest_s": 0.1, "peak_mb": 90, "cap_mb": 100}
    fuzz.report({**result, "escaped": []}, lambda _: None)
    with pytest.raises(ReadingRoomError, match="1 files: 1 KeyError"):
        fuzz.report({**result, "escaped": [{"file": "a", "error": "KeyError"}]}, lambda _: None)


def test_a_process_that_dies_or_hangs_is_told(monkeypatch):
    monkeypatch.setattr(fuzz.sys, "executable", "/bin/false")
    with pytest.raises(ReadingRoomError, match="exit code 1"):
        fuzz.run(1)


@given(
    st.binary(min_size=1, max_size=9000),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=5),
    st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.tuples(st.floats(0, 1), st.integers(0, 12)),
)
def test_breaking_never_fails_itself(data, flips, cut, odd):
    out = fuzz.broken(data, flips, cut, odd)
    assert len(out) <= len(data) + 8
    assert cut is None or len(out) < len(data) + 8
