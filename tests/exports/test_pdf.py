"""The PDF, read as a reader would: by pdftotext."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import pytest

from webapp.exports import EXPORTS


@pytest.fixture
def text_of():
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext (poppler) is not installed")

    def read(bundle) -> str:
        data = EXPORTS["pdf"].write(bundle)
        assert data.startswith(b"%PDF")
        done = subprocess.run(["pdftotext", "-layout", "-", "-"], input=data, capture_output=True, check=True)
        return done.stdout.decode()

    return read


def test_a_draft_says_so_and_holds_everything(ct, text_of):
    text = text_of(ct.bundle())
    for part in (
        "DRAFT",
        "Müller Anna",
        "1960-01-02",
        "Husten seit 3 Wochen & <i>Fieber</i>",
        "The liver has a volume of 1512 ml. [E1]",
        "Nodule < mass &c. [E2, P1]",
        "Lung nodule. [E2; unsupported]",
        "Seen with Dr Öztürk.",
        "nodule <b>&amp;",
        "1512 ml",
        "p 0.91",
        "rejected",
        "No prior examination was available.",
        "Research use, not a medical device",
        "small-model",
    ):
        assert part in text
    assert "Signed" not in text


def test_what_stands_struck_out_is_not_printed(ct, text_of):
    ct.doubt()
    text = text_of(ct.bundle())
    assert "Pneumothorax" not in text
    assert "Old fracture. [unsupported]" in text, "the reader restored it"
    assert "No nodule. [E2; contradicted]" in text


def test_a_signed_report_has_no_draft_mark_and_names_the_reader(ct, text_of):
    ct.sign()
    text = text_of(ct.bundle())
    assert "DRAFT" not in text
    assert "Signed by Dr A" in text
    ct.store.addendum(ct.study_id, author="Dr B", text="Seen again.")
    text = text_of(ct.bundle())
    assert "Seen again." in text
    assert "Dr B" in text
    assert "Signed by Dr A" in text, "who added did not sign"


def test_a_drafts_number_that_the_board_no_longer_gives_is_marked(ct, text_of):
    card = ct.store.evidence(ct.study_id)[0]
    ct.store.put_evidence(ct.study_id, replace(card, value=1600.0))
    assert "volume of 1512 ml. [E1; a number in it has changed since]" in " ".join(text_of(ct.bundle()).split())


def test_an_earlier_draft_version_of_a_signed_study_is_a_draft(ct, text_of):
    ct.sign()
    assert ct.bundle(version=1).report.kind == "draft"
    assert "DRAFT" in text_of(ct.bundle(version=1))


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "</para><b>x", "${jndi:x}", "a & b <", "<img src='file:///etc/passwd'/>"]
)
def test_markup_in_a_name_is_shown_as_text(ct, text_of, name):
    bundle = ct.bundle()
    text = text_of(replace(bundle, study=replace(bundle.study, patient_name=name)))
    assert "".join(name.split()) in "".join(text.split())


def test_what_the_font_lacks_is_replaced_visibly_and_named(ct, text_of):
    bundle = ct.bundle()
    text = text_of(replace(bundle, study=replace(bundle.study, patient_name="Łukasz 山田 é", description="a\u202eb")))
    assert "Łukasz ◊◊ é" in text
    assert "U+5C71" in text
    assert "ab" in text


def test_long_words_and_long_boards_stay_on_the_page(ct, text_of):
    from tests.store.samples import card

    for n in range(80):
        ct.store.add_evidence(ct.study_id, card(f"card {n} " + "x" * 300))
    ct.store.set_indication(ct.study_id, "y" * 5000)
    text = text_of(ct.bundle())
    assert "card 79" in text
    assert text.count("y") >= 5000


def test_an_empty_report_prints(scene_of, voxels, text_of):
    from tests.exports.dicom_files import ct_files

    assert "still empty" in text_of(scene_of(ct_files(voxels), filled=False).bundle())
