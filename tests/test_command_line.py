"""`python app.py`: a scan is read into files, and what is refused is one sentence and exit code 2."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest

import app
from core_models.errors import ModelMissing, Refused
from core_models.study.intake import read_scan
from tests.builders import ct_files, ct_series, uid, zipped
from tests.study.attached_files import box_contour, structure_set
from tests.webapp.conftest import BallEngine
from tests.webapp.fakes import FakeSearch, FakeWriter, statement
from webapp import reading, uploads
from webapp.service import Services

POINT = "12,10,6"  # inside the phantom's 32 × 24 × 8 voxels of 1 × 1 × 2 mm


@pytest.fixture
def parts(home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeWriter:
    """`read` with a fake engine, index and language model; one draft is queued."""
    writer = FakeWriter([statement(1, "The liver has a volume of 1 ml.", "E1")])
    monkeypatch.setattr(reading, "loader", lambda settings: lambda: writer)
    monkeypatch.setattr(reading, "opener", lambda settings: lambda: FakeSearch())
    create = Services.create

    def with_fake_engine(settings, **options):
        return create(settings, segment_options={"engine_for": lambda volume: BallEngine()}, **options)

    monkeypatch.setattr(Services, "create", staticmethod(with_fake_engine))
    return writer


def run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = app.main([str(a) for a in arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_ct_is_read_into_every_file(parts: FakeWriter, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    scan = zipped(tmp_path / "ct.zip", [(f"{n}.dcm", data) for n, data in enumerate(ct_files())])
    out = tmp_path / "out"
    clicks = ["--click", f"liver@{POINT}", "--click", "liver@14,10,6", "--click", "spleen@20,15,6"]
    code, shown, _ = run(capsys, "read", scan, "--out", out, *clicks, "--indication", "Cough.", "--json")
    assert code == 0
    result = json.loads(shown.splitlines()[-1])
    names = {"report.json", "report.pdf", "report.dcm", "segments.dcm", "structures.dcm", "fhir.json"}
    names |= {"segments-nifti.zip", "surfaces.zip"}
    assert {Path(p).name for p in result["files"]} == names == {p.name for p in out.iterdir()}
    report = json.loads((out / "report.json").read_text())
    assert [(s["label"], len(s["clicks"])) for s in report["segments"]] == [("liver", 2), ("spleen", 1)]
    assert report["study"]["indication"] == "Cough."
    assert [s["text"] for s in report["statements"]] == ["The liver has a volume of 1 ml."]
    assert {e["statement"] for e in report["evidence"]} >= {"liver: volume", "spleen: mean attenuation"}
    assert pydicom.dcmread(out / "report.dcm").Modality == "SR"
    assert [s.SegmentLabel for s in pydicom.dcmread(out / "segments.dcm").SegmentSequence] == ["liver", "spleen"]
    assert json.loads((out / "fhir.json").read_text())["resourceType"] == "Bundle"
    assert (out / "report.pdf").read_bytes().startswith(b"%PDF")
    assert "Segment: liver, 2 click(s)" in shown
    (asked,) = parts.asked
    assert asked.indication == "Cough."


def test_a_structure_set_beside_the_images_becomes_a_segment(
    parts: FakeWriter, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "ct"
    ct_series(folder)
    volume = read_scan(folder)[0].series[0].volume
    contours = [box_contour(volume, k, (5, 12), (8, 20)) for k in (2, 3)]
    (folder / "rt.dcm").write_bytes(structure_set({"liver": contours}, study=uid("study"), series=uid("series")))
    code, shown, _ = run(capsys, "read", folder, "--out", tmp_path / "out")
    assert code == 0
    assert "Segment: liver, From a DICOM RTSTRUCT" in shown
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(s["label"], s["volume_ml"]) for s in report["segments"]] == [
        ("liver", pytest.approx(2 * 7 * 12 * 2 / 1000))
    ]


def test_a_killed_read_leaves_its_scan_where_it_is_swept(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    used: list[Path] = []

    def stopped(settings, **_):
        used.append(settings.home)
        raise Refused("Stopped.")

    monkeypatch.setattr(Services, "create", staticmethod(stopped))
    ct_series(tmp_path / "ct")
    assert run(capsys, "read", tmp_path / "ct", "--out", tmp_path / "out")[0] == 2
    assert used[0].parent == uploads.incoming(home)
    assert not used[0].exists()


def test_remove_and_finding_reach_the_parts(parts: FakeWriter, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "ct"
    ct_series(folder)
    both = ("--click", f"liver@{POINT}", "--remove", "liver@13,10,6")
    code, _, _ = run(capsys, "read", folder, "--out", tmp_path / "out", *both, "--finding", "Cardiomegaly/mild")
    assert code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [c["positive"] for c in report["segments"][0]["clicks"]] == [True, False]
    assert "Cardiomegaly/mild" in {e["statement"] for e in report["evidence"] if e["source"] == "reader"}


def test_without_a_language_model_the_rest_is_written_and_the_end_says_so(
    parts: FakeWriter, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(settings) -> Callable:
        def load():
            raise ModelMissing("The language model is not prepared on this machine.")

        return load

    monkeypatch.setattr(reading, "loader", missing)
    ct_series(tmp_path / "ct")
    code, shown, told = run(capsys, "read", tmp_path / "ct", "--out", tmp_path / "out", "--click", f"liver@{POINT}")
    assert code == 2
    assert told.strip() == "The language model is not prepared on this machine."
    assert "Draft: none." in shown
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"report.json", "report.pdf", "segments.dcm"}


def _two_patients() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for patient in ("A", "B"):
            for n, data in enumerate(ct_files(n=2, patient=patient, StudyInstanceUID="1.2.3")):
                archive.writestr(f"{patient}{n}", data)
    return stream.getvalue()


def _traversing() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../evil.dcm", ct_files(n=1)[0])
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"this is no scan", ct_files(n=1)[0][:700], _traversing(), _two_patients()],
    ids=["empty", "no scan", "truncated", "traversal", "two patients"],
)
def test_a_bad_scan_is_one_sentence_and_leaves_nothing(
    content: bytes, parts: FakeWriter, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    scan = tmp_path / "scan"
    scan.write_bytes(content)
    code, _, told = run(capsys, "read", scan, "--out", tmp_path / "out")
    assert code == 2
    assert re.fullmatch(r"[A-Z\"].+\.", told.strip()), told
    assert "Traceback" not in told
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "evil.dcm").exists()
    assert not list(home.rglob("*.npy"))


@pytest.mark.parametrize("click", ["liver", "liver@1,2", "liver@a,b,c", "liver@1,2,nan", "@1,2,3"])
def test_a_click_without_form_is_refused(
    click: str, parts: FakeWriter, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    ct_series(tmp_path / "ct")
    code, _, told = run(capsys, "read", tmp_path / "ct", "--out", tmp_path / "out", "--click", click)
    assert code == 2
    assert "ORGAN@x,y,z" in told or "finite" in told


def test_a_click_outside_names_the_scans_reach(
    parts: FakeWriter, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    ct_series(tmp_path / "ct")
    code, _, told = run(capsys, "read", tmp_path / "ct", "--out", tmp_path / "out", "--click", "liver@900,0,0")
    assert code == 2
    assert "outside the scan, which spans x" in told


def test_a_missing_scan_and_an_impossible_folder_are_refused(
    parts: FakeWriter, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(capsys, "read", tmp_path / "none", "--out", tmp_path / "out")[0] == 2
    (tmp_path / "file").write_text("")
    ct_series(tmp_path / "ct")
    code, _, told = run(capsys, "read", tmp_path / "ct", "--out", tmp_path / "file" / "out")
    assert code == 2
    assert "cannot be made" in told


def test_a_point_of_an_oblique_scan_finds_its_voxel(home: Path, tmp_path: Path) -> None:
    affine = np.array([[0.0, -2.0, 0.0, 5.0], [1.0, 0.0, 0.0, -3.0], [0.0, 0.0, 3.0, 7.0], [0, 0, 0, 1.0]])

    class Series:
        id = "s"
        shape = (4, 10, 20)

    Series.affine = affine  # type: ignore[attr-defined]

    class Study:
        series = (Series,)

    x, y, z, _ = affine @ [17, 6, 2, 1]
    found, index = reading._place(Study, reading.Prompt("a", (x + 0.3, y - 0.3, z + 1)))  # type: ignore[arg-type]
    assert found is Series
    assert index == (17, 6, 2)


@pytest.fixture
def asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Who is asked to draft by `evaluate drafting`; the measuring itself, its index and images are left out."""
    from core_models.drafting import evaluate_pictures, evaluation
    from core_models.foundation import embedded
    from retrieval import training
    from webapp import priors

    drafters: list[Any] = []
    monkeypatch.setenv("READING_ROOM_WRITER", "server:http://127.0.0.1:9/v1#tiny/model")
    monkeypatch.setattr(training, "source_reports", lambda _: ((), ()))
    monkeypatch.setattr(priors, "opener", lambda _: lambda: SimpleNamespace(index=SimpleNamespace(digest="abc")))
    monkeypatch.setattr(priors, "text_encoder", lambda _: SimpleNamespace(encode=None))
    monkeypatch.setattr(embedded, "EmbeddedEyes", lambda *_, **__: None)
    monkeypatch.setattr(evaluation, "run", lambda writer, *_: drafters.append(writer) or {})
    monkeypatch.setattr(evaluate_pictures, "run", lambda _, __, writer, *___: drafters.append(writer) or {})
    return drafters


def test_drafts_are_measured_of_the_writer_that_is_set(asked: list[Any], capsys: pytest.CaptureFixture) -> None:
    assert run(capsys, "evaluate", "drafting", "--json")[0] == 0
    assert [writer.model.name for writer in asked] == ["tiny/model@127.0.0.1:9"] * 2


def test_another_writers_figures_are_not_kept_as_the_embedded_models(
    asked: list[Any], capsys: pytest.CaptureFixture
) -> None:
    code, _, told = run(capsys, "evaluate", "drafting", "--record")
    assert (code, asked) == (2, [])
    assert "READING_ROOM_WRITER" in told
    assert told.count(".") == 1


@pytest.mark.parametrize(
    "words",
    [("train", "atlas", "--resume"), ("evaluate", "names", "--record"), ("train", "atlas"), ("evaluate", "names")],
)
def test_the_atlas_takes_no_flags_of_others_and_needs_its_two_scans(
    words: tuple[str, ...], home: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    code, shown, error = run(capsys, *words, "--data", tmp_path, *(("--out", tmp_path) if "train" in words else ()))
    assert (code, shown) == (2, "")
    assert "leave out" in error if len(words) > 2 else "totalseg-example" in error
    assert not (tmp_path / "atlas.json").exists()


def test_an_index_of_no_folder_is_refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code, _, told = run(capsys, "index", "--corpus", tmp_path / "none")
    assert code == 2
    assert told.strip()


@pytest.mark.parametrize(("corpora", "rebuilt"), [({"open-i": 9, "signed": 1}, True), ({"ours": 9}, False)])
def test_other_image_weights_rebuild_the_shipped_corpus_and_leave_a_house_s_own(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, corpora: dict[str, int], rebuilt: bool
) -> None:
    from core_models.drafting import vision_language
    from retrieval import index
    from webapp import demo, priors
    from webapp.settings import load

    held = SimpleNamespace(shared=SimpleNamespace(model="eyes/1"), manifest=SimpleNamespace(corpora=corpora))
    built: list[str] = []
    monkeypatch.setattr(vision_language, "prepare", lambda *_, **__: None)
    monkeypatch.setattr(demo, "fetch", lambda *_: None)
    monkeypatch.setattr(index, "open_index", lambda _: held)
    monkeypatch.setattr(priors, "shared_text", lambda _: SimpleNamespace(name="eyes/2"))
    monkeypatch.setattr(app, "_build_index", lambda _, corpus: built.append(corpus))
    app._prepare(load(), None)
    assert built == (["open-i"] if rebuilt else [])
    assert ("it stays" in capsys.readouterr().err) is not rebuilt
