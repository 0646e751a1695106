"""Search by an image: alone or fused with words, filtered beforehand, of the index's own model, and honest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval import index
from retrieval.index import ImageVectors
from retrieval.search import FINDINGS, IMAGE_IMAGE, IMAGE_REPORT, TEXT, Searcher, SearchResult
from tests.retrieval.conftest import SharedWords, WordEncoder, ids_of, report
from tests.retrieval.test_index_images import as_format_1

CORPUS = [
    "Large heart. Clear lungs.",
    "Small effusion on the left.",
    "Nodule in the right apex.",
    "Rib fracture, healed.",
    "Tube ends above the carina.",
]
SIGNED = {
    "mine": ("Consolidation of the left base.", "left base white", {"patient_key": "p1"}),
    "other": ("Heart and lungs are as before.", "large heart", {"patient_key": "p2"}),
    "knee": ("Fracture of the patella.", "patella fracture", {"region": "knee", "patient_key": "p3"}),
    "ct": ("Liver cyst.", "liver cyst", {"modality": "CT", "region": "abdomen"}),
}


def built(folder: Path, words: WordEncoder, shared: SharedWords, tower: bool = True, calibrate: bool = False) -> None:
    ids = ids_of("train", len(CORPUS))
    reports = [report(i, text) for i, text in zip(ids, CORPUS, strict=True)]
    reports[1] = replace(reports[1], terms=("Pleural Effusion/left/small",))
    given = ImageVectors(
        shared.name, {f"T{n}": shared.image(f"{CORPUS[n % 5]} {CORPUS[(n // 5) % 5]} seen{n}") for n in range(60)}
    )
    index.build(
        reports, words, folder, shared=shared if tower else None, calibration_images=given if calibrate else None
    )
    index.add(
        folder,
        [report(id, text, source="signed", **fields) for id, (text, _, fields) in SIGNED.items()],
        words,
        shared=shared if tower else None,
        images=ImageVectors(shared.name, {id: shared.image(seen) for id, (_, seen, _) in SIGNED.items()}),
    )


@pytest.fixture
def searcher(words: WordEncoder, shared: SharedWords, tmp_path: Path) -> Searcher:
    built(tmp_path, words, shared)
    return Searcher(index.open_index(tmp_path), words)


def ids(result: SearchResult) -> list[str]:
    return [p.report.id for p in result.priors]


def lists_of(result: SearchResult) -> set[str]:
    return {name for p in result.priors for name, _, _ in p.found_by}


def test_the_image_alone_finds_reports_and_images(words: WordEncoder, shared: SharedWords, tmp_path: Path) -> None:
    built(tmp_path, words, shared, calibrate=True)
    searcher = Searcher(index.open_index(tmp_path), words)
    words.seen.clear()
    result = searcher.search("", image=shared.image("nodule right apex"), image_model=shared.name)
    assert words.seen == [], "there is no text to embed"
    assert result.priors[0].report.findings == CORPUS[2]
    assert result.priors[0].found_by[0][:2] == (IMAGE_REPORT, 1)
    assert result.priors[0].matched == ()
    alike = searcher.search("", image=shared.image("left base white"), image_model=shared.name)
    assert ids(alike)[0] == "mine"
    assert (IMAGE_IMAGE, 1) in [f[:2] for f in alike.priors[0].found_by]
    assert {n: s for n, _, s in alike.priors[0].found_by}[IMAGE_IMAGE] > 0.99
    assert lists_of(alike) == {IMAGE_REPORT, IMAGE_IMAGE}


def test_score_is_the_text_s_cosine_where_there_is_text_and_the_image_s_else(
    searcher: Searcher, shared: SharedWords, words: WordEncoder
) -> None:
    picture = shared.image("left base white")
    for prior in searcher.search("small effusion", image=picture, image_model=shared.name, k=9).priors:
        text = float(words.encode([index.document(prior.report)])[0] @ words.encode(["small effusion"])[0])
        assert prior.score == pytest.approx(text, abs=1e-5)
    for prior in searcher.search("", image=picture, image_model=shared.name, k=9).priors:
        text = float(shared.encode([index.summary_first(prior.report)])[0] @ picture)
        assert prior.score == pytest.approx(text, abs=2e-3)


def test_words_findings_and_image_are_fused(searcher: Searcher, shared: SharedWords) -> None:
    result = searcher.search(
        "small effusion",
        terms=["Pleural Effusion/left/small"],
        image=shared.image("effusion on the left"),
        image_model=shared.name,
    )
    first = result.priors[0]
    assert first.report.findings == CORPUS[1]
    assert [f[:2] for f in first.found_by] == [(TEXT, 1), (FINDINGS, 1), (IMAGE_REPORT, 1)]
    assert first.found_by[1][2] == pytest.approx(1.0)
    assert first.found_words == "text, rank 1; findings, rank 1; image to report, rank 1"
    assert first.matched
    assert lists_of(result) == {TEXT, FINDINGS, IMAGE_REPORT, IMAGE_IMAGE}
    assert len({p.report.id for p in result.priors}) == len(result.priors) == 5


def test_filters_hold_for_the_findings_too(searcher: Searcher, shared: SharedWords) -> None:
    effusion, heart = searcher.index.reports[1].study_id, searcher.index.reports[0].study_id
    options = {"terms": ["Pleural Effusion/left"], "image": shared.image("tube"), "image_model": shared.name, "k": 50}
    by_findings = [p for p in searcher.search("", exclude_study=heart, **options).priors if FINDINGS in p.found_words]
    assert [p.report.study_id for p in by_findings] == [effusion]
    assert FINDINGS not in lists_of(searcher.search("", exclude_study=effusion, **options))


def test_second_in_two_lists_beats_first_in_one_however_few_are_asked_for(
    words: WordEncoder, shared: SharedWords, tmp_path: Path
) -> None:
    texts = ["alpha", "omega", "alpha omega", "omega one two three four", "alpha five six seven eight"]
    index.build([report(i, t) for i, t in zip(ids_of("train", 5), texts, strict=True)], words, tmp_path, shared=shared)
    searcher = Searcher(index.open_index(tmp_path), words)
    for k in (1, 5):
        result = searcher.search("alpha", image=shared.image("omega"), image_model=shared.name, k=k)
        assert result.priors[0].report.findings == "alpha omega"
        assert result.priors[0].found_words == "text, rank 2; image to report, rank 2"


def test_the_image_can_change_what_the_words_alone_would_find(searcher: Searcher, shared: SharedWords) -> None:
    words_alone = searcher.search("heart")
    with_image = searcher.search("heart", image=shared.image("left base white"), image_model=shared.name)
    assert "mine" in ids(with_image)[:2]
    assert ids(words_alone)[0] in ids(with_image)
    assert ids(words_alone) != ids(with_image)


def test_without_an_image_nothing_changes(words: WordEncoder, shared: SharedWords, tmp_path: Path) -> None:
    built(tmp_path / "with", words, shared)
    built(tmp_path / "without", words, shared, tower=False)
    queries = [("heart", ()), ("effusion left", ("Pleural Effusion/left/small",)), ("fracture", ()), ("", ("normal",))]
    for query, terms in queries:
        one, two = (
            Searcher(index.open_index(tmp_path / name), words).search(query, terms=terms)
            for name in ("with", "without")
        )
        assert replace(one, milliseconds=0) == replace(two, milliseconds=0)
        assert lists_of(one) == ({TEXT, FINDINGS} if terms == ("Pleural Effusion/left/small",) else {TEXT})
        assert "image" not in one.sentence
        if not terms:  # one list alone: cosine similarity decides
            assert [p.score for p in one.priors] == sorted((p.score for p in one.priors), reverse=True)
            assert [p.found_by[0][1] for p in one.priors] == sorted(p.found_by[0][1] for p in one.priors)


def test_never_the_same_study_or_patient_by_its_image(searcher: Searcher, shared: SharedWords) -> None:
    picture = shared.image("left base white")
    options = {"image": picture, "image_model": shared.name, "k": 50}
    for query in ("", "consolidation of the left base"):
        assert "mine" in ids(searcher.search(query, **options))
        assert "mine" not in ids(searcher.search(query, exclude_study="mine", **options))
        left = searcher.search(query, patient="p1", **options)
        assert "mine" not in ids(left)
        assert "other" in ids(left)
        (by_image,) = [p for p in left.priors if any(f[:2] == (IMAGE_IMAGE, 1) for f in p.found_by)]
        assert by_image.report.id in {"other", "knee", "ct"}, "filtered before the images were compared"


def test_region_and_modality_come_before_the_image(searcher: Searcher, shared: SharedWords) -> None:
    picture = shared.image("left base white")
    assert ids(searcher.search("", image=picture, image_model=shared.name, region="knee")) == ["knee"]
    assert ids(searcher.search("", image=picture, image_model=shared.name, modality="CT")) == ["ct"]
    radiographs = searcher.search("", image=shared.image("liver cyst"), image_model=shared.name, modality="DX", k=50)
    assert "ct" not in ids(radiographs)
    other = searcher.search("", image=picture, image_model=shared.name, modality="MR")
    assert other.other_modality
    assert "modality (MR)" in other.sentence
    none = searcher.search("", image=picture, image_model=shared.name, region="foot")
    assert (none.priors, none.close) == ((), False)
    assert none.sentence == "No prior report is left after the filters."


def test_another_model_s_vectors_are_not_used_and_it_is_said(searcher: Searcher, shared: SharedWords) -> None:
    picture = shared.image("left base white")
    plain = searcher.search("large heart")
    other = searcher.search("large heart", image=picture, image_model="eyes/2")
    assert other.priors == plain.priors
    assert "another model" in other.sentence
    assert "python app.py index" in other.sentence
    alone = searcher.search("", image=picture, image_model="eyes/2")
    assert (alone.priors, alone.close) == ((), False)
    assert "not searched" in alone.sentence
    assert "another model" in alone.sentence
    assert searcher.search("", image=np.ones(3), image_model="eyes/2").priors == (), "nor is its length looked at"


def test_an_index_without_the_shared_space_says_how_to_get_it(
    words: WordEncoder, shared: SharedWords, tmp_path: Path
) -> None:
    index.build([report(i, t) for i, t in zip(ids_of("train", 5), CORPUS, strict=True)], words, tmp_path)
    picture = shared.image("large heart")
    told = Searcher(index.open_index(tmp_path), words).search("heart", image=picture, image_model=shared.name)
    assert told.priors
    assert "built without the shared text encoder" in told.sentence
    assert "python app.py index" in told.sentence
    as_format_1(tmp_path)
    old = Searcher(index.open_index(tmp_path), words)
    told = old.search("", image=picture, image_model=shared.name)
    assert told.priors == ()
    assert "before images could be searched; build it again with `python app.py index`" in told.sentence
    assert old.search("heart").sentence == Searcher(index.open_index(tmp_path), words).search("heart").sentence


def test_images_of_signed_studies_are_found_without_the_text_tower(
    words: WordEncoder, shared: SharedWords, tmp_path: Path
) -> None:
    built(tmp_path, words, shared, tower=False)
    result = Searcher(index.open_index(tmp_path), words).search(
        "", image=shared.image("left base white"), image_model=shared.name
    )
    assert ids(result)[0] == "mine"
    assert result.priors[0].score > 0.99
    assert lists_of(result) == {IMAGE_IMAGE}
    assert "images of signed studies only" in result.sentence
    assert "not calibrated" in result.sentence
    assert not result.close


def test_closeness_of_an_image_is_said_to_be_uncalibrated_until_it_is(
    words: WordEncoder, shared: SharedWords, searcher: Searcher, tmp_path: Path
) -> None:
    picture = shared.image("nodule right apex")
    plain = searcher.search("", image=picture, image_model=shared.name)
    assert (plain.close, plain.threshold) == (False, 0.0)
    assert "not calibrated" in plain.sentence
    built(tmp_path / "calibrated", words, shared, calibrate=True)
    calibrated = Searcher(index.open_index(tmp_path / "calibrated"), words)
    near = calibrated.search("", image=shared.image(CORPUS[2]), image_model=shared.name)
    assert (near.close, near.sentence) == (True, "")
    assert near.threshold == calibrated.index.manifest.image_minimum
    far = calibrated.search("", image=shared.image("unrelated scribble entirely"), image_model=shared.name)
    assert not far.close
    assert "No close precedent" in far.sentence
    worded = calibrated.search("earnings", image=shared.image(CORPUS[2]), image_model=shared.name)
    assert not worded.close, "where there are words, their own threshold decides"
    assert worded.threshold == calibrated.index.manifest.minimum


def test_a_close_report_that_other_lists_outvoted_is_still_a_precedent(searcher: Searcher, shared: SharedWords) -> None:
    query, picture = CORPUS[4], shared.image("left base white")
    outvoted = searcher.search(query, image=picture, image_model=shared.name, k=1)
    assert ids(outvoted) == ["mine"]
    assert outvoted.priors[0].score < outvoted.threshold
    assert outvoted.close
    assert outvoted.sentence == ""
    assert searcher.search(query, k=1).close


def test_the_best_of_few_images_is_no_precedent_below_the_floor(
    words: WordEncoder, shared: SharedWords, tmp_path: Path
) -> None:
    built(tmp_path, words, shared, calibrate=True)
    searcher = Searcher(index.open_index(tmp_path), words)
    floor = searcher.index.manifest.image_floor
    assert 0 < floor < 0.99
    near = searcher.search("", image=shared.image("left base white"), image_model=shared.name, k=50)
    by_image = [s for p in near.priors for n, _, s in p.found_by if n == IMAGE_IMAGE]
    assert by_image
    assert min(by_image) >= floor
    scribble = shared.image("unrelated scribble entirely")
    far = searcher.search("", image=scribble, image_model=shared.name, k=50)
    assert lists_of(far) == {IMAGE_REPORT}
    built(tmp_path / "uncalibrated", words, shared)
    searcher = Searcher(index.open_index(tmp_path / "uncalibrated"), words)
    only = searcher.search("", image=scribble, image_model=shared.name, k=50)
    assert [f[1] for p in only.priors for f in p.found_by if f[0] == IMAGE_IMAGE] == [1], "one image at most, unknown"


def test_reports_that_read_alike_are_one_precedent(words: WordEncoder, shared: SharedWords, tmp_path: Path) -> None:
    names = ids_of("train", 6)
    index.build([report(i, "Clear lungs.") for i in names], words, tmp_path, shared=shared)
    seen = {"a": "clear", "b": "lungs clear today", "c": "tube"}
    index.add(
        tmp_path,
        [report(i, "CLEAR LUNGS" if i != "c" else "Tube.", source="signed") for i in seen],
        words,
        shared=shared,
        images=ImageVectors(shared.name, {i: shared.image(t) for i, t in seen.items()}),
    )
    searcher = Searcher(index.open_index(tmp_path), words)
    result = searcher.search("clear lungs", image=shared.image("lungs clear today"), image_model=shared.name)
    assert ids(result) == ["b", "c"], "the one whose image is like it stands for all that read alike"
    assert [f[:2] for f in result.priors[0].found_by] == [(TEXT, 1), (IMAGE_REPORT, 1), (IMAGE_IMAGE, 1)]
    assert [f[:2] for f in result.priors[1].found_by] == [(TEXT, 2), (IMAGE_REPORT, 2)], "ranks count texts"


@pytest.mark.parametrize("bad", [np.full(64, np.nan), np.zeros(64), np.ones((1, 64)), np.ones(3)])
def test_an_image_that_is_no_vector_of_the_space_is_a_bug(
    searcher: Searcher, shared: SharedWords, bad: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=r"image|embedding"):
        searcher.search("", image=bad, image_model=shared.name)


def test_a_report_that_is_near_to_every_radiograph_is_ranked_lower(
    words: WordEncoder, shared: SharedWords, tmp_path: Path
) -> None:
    texts = ["film shows chest", "film chest nodule", "film chest effusion", "film chest fracture"]
    index.build([report(i, t) for i, t in zip(ids_of("train", 4), texts, strict=True)], words, tmp_path, shared=shared)
    opened = index.open_index(tmp_path)
    usual = {f"T{n}": shared.image("film shows chest") for n in range(9)}
    picture = shared.image("film shows chest nodule film")
    plain = Searcher(opened, words).search("", image=picture, image_model=shared.name, k=4)
    fair = Searcher(opened, words, ImageVectors(shared.name, usual)).search(
        "", image=picture, image_model=shared.name, k=4
    )
    assert plain.priors[0].report.findings == "film shows chest"
    assert fair.priors[0].report.findings == "film chest nodule"
    assert fair.priors[-1].report.findings == "film shows chest"
    score = {p.report.id: p.score for p in plain.priors}
    assert {p.report.id: p.score for p in fair.priors} == pytest.approx(score), "the score shown stays the cosine"
    others = ImageVectors("another model", {"T0": np.ones(3, np.float32)})
    unchanged = Searcher(opened, words, others).search("", image=picture, image_model=shared.name, k=4)
    assert ids(unchanged) == ids(plain), "radiographs of another model say nothing"
