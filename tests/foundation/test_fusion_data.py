"""The task's data: what is masked, which pictures count, and that no patient is on two sides."""

from __future__ import annotations

import csv
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

from core_models.foundation import fusion_data
from core_models.foundation.fusion_data import (
    INPUTS,
    NAMES,
    VALUES,
    Cases,
    cases,
    chosen,
    counts,
    has_words,
    number,
    tabular,
    truth_of,
)
from core_models.foundation.fusion_masking import MARK, bag_of_words, masked, unmarked, words

DATA = Path(os.environ.get("READING_ROOM_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
TABLE = DATA / "covid-chestxray" / "metadata.csv"
with_data = pytest.mark.skipif(not TABLE.is_file(), reason="the covid-chestxray data are not here")

GIVEN_AWAY = (
    "covid", "corona virus", "coronavirus", "ncov", "sars", "wuhan", "hubei", "china", "chinese", "hong kong", "taiwan",
    "italy", "italian", "spain", "korea", "vietnam", "iran", "singapore", "washington", "toronto", "pcr", "swab", "rna",
    "dna", "antigen", "serology", "culture", "tested", "positive", "negative", "pneumocystis", "jiroveci", "carinii",
    "pcp", "streptococcus", "pneumoniae", "klebsiella", "legionella", "mycoplasma", "influenza", "varicella", "lipoid",
    "e.coli", "e. coli", "ards", "acute respiratory distress", "aspiration", "hiv", "aids", "virus", "viral",
    "bacterial", "bacteria", "fungi", "pathogen", "ribavirin", "ritonavir", "lopinavir", "remdesivir", "favipiravir",
    "oseltamivir", "acyclovir", "tamiflu", "hydroxychloroquine", "interferon", "tocilizumab", "pandemic", "epidemic",
    "outbreak", "quarantine", "travel", "traveled", "travelled", "exposure", "contact", "epidemiological", "airport",
    "overseas", "january", "february", "april", "2019", "2020", "2003", "confirmed", "anosmia",
)  # fmt: skip
"""Written down apart from the patterns that mask them."""


def found_in(note: str) -> list[str]:
    return [w for w in GIVEN_AWAY if re.search(rf"(?<![a-z0-9]){re.escape(w)}(?![a-z0-9])", note.lower())]


@pytest.mark.parametrize(
    ("note", "left"),
    [
        ("COVID-19 pneumonia in the right lobe.", f"{MARK} pneumonia in the right lobe."),
        ("On January 22, 2020, a 65-year-old man", f"On {MARK}, a 65-year-old man"),
        ("SARS-CoV-2-RNA was found by RT-PCR", f"{MARK} was found by {MARK}"),
        ("ClassicCOVID-19, throatswab", f"{MARK}"),
        ("the right march of events may follow", "the right march of events may follow"),
        ("a candidate with candidiasis", f"a candidate with {MARK}"),
        ("coronary artery disease, 3 days of fever", "coronary artery disease, 3 days of fever"),
        ("", ""),
    ],
)
def test_what_gives_the_diagnosis_away_is_masked_and_the_rest_stays(note: str, left: str) -> None:
    assert masked(note) == left


@pytest.mark.parametrize("word", GIVEN_AWAY)
def test_every_listed_word_is_masked_in_any_case(word: str) -> None:
    for written in (word, word.title() if not word.isupper() else word):
        note = masked(f"Fever. {written.capitalize()} was noted, then cough.")
        assert not found_in(note), note
        assert "Fever." in note
        assert "cough" in note


def test_masking_twice_changes_nothing_and_marks_come_off() -> None:
    note = masked("Fever after travel to Wuhan, China in January 2020.")
    assert masked(note) == note
    assert unmarked(note) == "Fever after to in ."
    assert words(note) == {"fever", "after", "to", "in"}
    assert not has_words(masked("COVID-19 2020"))


def test_a_long_note_without_spaces_is_masked_in_time() -> None:
    start = time.process_time()
    for hostile in ("-" * 100_000, "a" * 100_000, "covi-" * 20_000, "9/" * 50_000, f"{MARK}," * 15_000):
        masked(hostile)
    assert time.process_time() - start < 20


def test_a_bag_of_words_counts_notes() -> None:
    table, vocabulary = bag_of_words(["fever cough", "fever fever", "fever [MASK]", ""], least=2)
    assert vocabulary == ("fever",)
    assert table.ravel().tolist() == [1, 1, 1, 0]
    assert bag_of_words([])[1] == ()


def test_classes_are_named_diagnoses() -> None:
    assert truth_of("COVID-19") == truth_of("COVID-19, ARDS") == 1.0
    assert truth_of("SARS") == truth_of("Pneumocystis") == 0.0
    assert truth_of("No Finding") is truth_of("todo") is truth_of("") is None


def test_values_out_of_limits_are_unknown() -> None:
    by_name = {v.name: v for v in VALUES}
    assert number(by_name["saturation"], "340") is None
    assert number(by_name["saturation"], "97") == 97
    assert number(by_name["female"], "F") == 1
    assert number(by_name["view_ap"], "AP Supine") == 1
    assert number(by_name["view_ap"], "L") is None
    assert number(by_name["temperature"], "?") is None
    values, known = tabular({"age": 40.0, "temperature": 400.0, "female": None})
    assert known.sum() == 1
    assert values[NAMES.index("age")] == 40


def test_only_takes_inputs_away_and_gives_none() -> None:
    has = np.array([[True, False, True]])
    case = Cases(
        np.zeros((1, 2)),
        np.zeros((1, 2)),
        np.zeros((1, 1)),
        np.zeros((1, 1)),
        has,
        np.zeros(1),
        ("p",),
        ("test",),
        ("",),
    )
    assert case.only(("image", "text")).has.tolist() == [[True, False, False]]
    assert case.only(INPUTS).has.tolist() == has.tolist()


@with_data
def test_no_note_of_the_data_names_what_is_masked() -> None:
    with TABLE.open(encoding="utf-8-sig", newline="") as file:
        notes = {row["clinical_notes"] for row in csv.DictReader(file)}
    assert len(notes) > 300
    left = {note[:60]: words for note in notes if (words := found_in(masked(note)))}
    assert not left


@with_data
def test_patients_are_on_one_side_and_both_classes_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from core_models.foundation import data

    monkeypatch.setattr(fusion_data, "note_vectors", lambda notes: np.zeros((len(notes), 4), np.float32))
    pool = data.load(["covid-chestxray"], DATA, 32)["covid-chestxray"]
    rows = chosen(pool)
    assert {pool.columns["modality"][r] for r in rows} == {"X-ray"}
    found = cases(pool, np.zeros((len(rows), 4), np.float32), rows)
    of: dict[str, set[str]] = {}
    for patient, side in zip(found.patients, found.sides, strict=True):
        of.setdefault(patient, set()).add(side)
    assert all(len(sides) == 1 for sides in of.values())
    table = counts(found)
    assert sum(c["images"] for side in table.values() for c in side.values()) == len(found)
    assert all(c["patients"] >= 15 for c in table["test"].values())
    shared = {n for n, s in zip(found.notes, found.sides, strict=True) if s == "train" and n}
    assert not shared & {n for n, s in zip(found.notes, found.sides, strict=True) if s == "test" and len(n) > 60}
    assert [bool(n) for n in found.notes] == found.has[:, 1].tolist()
