"""Who is judged on what, that a stop costs little, and that the pages say what was recorded."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core_models.errors import NotFound, Refused
from core_models.segmentation import cohorts, registry, settling
from core_models.segmentation.cohorts import Case
from core_models.segmentation.engine import Alternative, Mask
from core_models.segmentation.judging import evaluation, evaluation_plot, evaluation_report, judged, sources, summary
from core_models.segmentation.judging.evaluation import Contender
from core_models.segmentation.region_growing import RegionGrowing
from tests.segmentation.phantoms import affine_of, ct, ellipsoid
from webapp import settings

DATA = settings.load().data
SHAPE = (16, 40, 40)
LAZY = dict.fromkeys(cohorts.COHORTS, "lazy")


def made(name: str, cohort: str = "demo-ct", side: str = "test") -> Case:
    """Two balls in fat, the larger in two labels and with a crumb that is not connected to it."""

    def load():
        affine = affine_of((2.0, 1.0, 1.0))
        one = ellipsoid(SHAPE, affine, (12, 12, 8), (7, 7, 9))
        other = ellipsoid(SHAPE, affine, (29, 29, 8), (6, 6, 8))
        labels = np.zeros(SHAPE, np.uint8)
        labels[one], labels[other] = 1, 3
        labels[:, :12][one[:, :12]] = 2
        labels[0, 39, 0] = 1
        return ct([(one, 100), (other, 250)], SHAPE, affine, noise=4.0), labels

    return Case(cohort, name, side, load, {"spleen": (1, 2), "rib 101": (3,), "absent": (9,)})


class Counting(RegionGrowing):
    """The lazy engine, which tells how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def segment(self, prepared, prompts, cancelled=lambda: False):
        self.asked += 1
        return super().segment(prepared, prompts, cancelled)


def contender(engine, name="lazy", digest="d1", fits=lambda modality: True) -> Contender:
    return Contender(name, "1", "none", digest, fits, lambda: engine)


def test_only_test_sides_judge_and_the_training_scan_says_so():
    cases = [
        made("a", side="train"), made("b"), made("c", side="validation"), made("d", "totalseg-example", "train"),
        made("e", "la2018", "train"), made("f", "la2018"),
    ]  # fmt: skip
    chosen = judged.judged(cases)
    assert [c.name for c in chosen] == ["b", "d", "f"]
    assert {c.cohort for c in chosen if c.side != "test"} == {judged.TRAINS}


def test_of_acdc_one_slice_that_shows_everything_is_taken_for_each_frame():
    def slice_of(name: str, values: tuple[int, ...]) -> Case:
        labels = np.zeros((1, 8, 8), np.uint8)
        labels[0, 0, : len(values)] = values
        return Case("acdc", name, "test", lambda: (None, labels), cohorts.CARDIAC)

    whole, part = (1, 2, 3), (1, 2)
    cases = [slice_of(f"patient001_frame01_slice_{n}", whole if 2 <= n <= 10 else part) for n in range(1, 13)]
    cases += [slice_of("patient001_frame12_slice_3", part), slice_of("patient002_frame01_slice_7", whole)]
    chosen = judged.judged(cases[::-1])
    assert [c.name for c in chosen] == ["patient001_frame01_slice_6", "patient002_frame01_slice_7"]
    assert [judged.patient_of(c) for c in chosen] == ["patient001", "patient002"]


def test_the_sample_of_radiographs_is_always_the_same_and_a_larger_one_holds_a_smaller():
    cases = [Case("jsrt", f"JPCLN{n:03d}", "test", lambda: None, cohorts.CHEST) for n in range(2, 124, 2)]
    usual = [c.name for c in judged.judged(cases)]
    assert usual == [c.name for c in judged.judged(list(cases))]
    assert len(usual) == judged.JSRT_CASES
    assert {c.name for c in judged.judged(cases, 5)} < set(usual) < {c.name for c in judged.judged(cases, 40)}


@pytest.mark.skipif(not (DATA / "acdc").is_dir(), reason="the data folder is not here")
def test_no_training_case_of_the_data_is_judged():
    every = list(cohorts.cases(DATA, None))
    chosen = judged.judged(every)
    trains = {(c.cohort, judged.patient_of(c)) for c in every if c.side != "test"}
    assert {c.cohort for c in chosen if (c.cohort, judged.patient_of(c)) in trains} <= {judged.TRAINS}
    counts = {cohort: sum(c.cohort == cohort for c in chosen) for cohort in cohorts.COHORTS}
    assert counts["jsrt"] == judged.JSRT_CASES
    assert counts["la2018"] == sum(c.cohort == "la2018" and c.side == "test" for c in every)
    frames = [c.name.rsplit("_slice_", 1)[0] for c in chosen if c.cohort == "acdc"]
    assert len(frames) == len(set(frames)) > 30


def test_a_target_is_its_largest_connected_part():
    case = made("a")
    found = dict(judged.targets(case, case.load()[1]))
    assert list(found) == ["spleen", "rib 101"]
    assert not found["spleen"].full()[0, 39, 0]
    every = dict(judged.targets(replace(case, cohort="tptbox", targets=None), case.load()[1]))
    assert list(every) == ["vertebra 1", "vertebra 2", "vertebra 3"]


def test_the_result_has_the_keys_that_checks_read(tmp_path: Path):
    cases = [made("lower"), made("x", "la2018"), made("y", "la2018")]
    engines = [contender(RegionGrowing()), contender(RegionGrowing(), "ct only", fits=lambda m: m == "CT")]
    result = evaluation.run(engines, cases, LAZY, tmp_path, 2)
    assert result["default"] == "lazy"
    assert json.loads(json.dumps(result)) == result
    for name in ("lazy", "ct only"):
        one = result["engines"][name]
        assert {"1", "3", "5"} <= set(one["dice"])
        assert list(one["targets"]) == ["spleen", "rib 101"]
        for n in ("1", "3", "5"):
            assert one["dice"][n] == pytest.approx(np.mean([t[n] for t in one["targets"].values()]), abs=1e-4)
        assert one["targets"]["spleen"]["1"] > 0.9
        assert one["groups"] == {
            "bones": {n: one["targets"]["rib 101"][n] for n in ("1", "3", "5", "10")},
            "organs": {n: one["targets"]["spleen"][n] for n in ("1", "3", "5", "10")},
        }
        assert one["cohorts"]["la2018"]["n"] == 4
        assert one["cohorts"]["la2018"]["patients"] == 2
        assert len(one["curve"]) == len(one["drop"]) == 10
    assert result["data"]["la2018"] == {"cases": 2, "patients": 2, "trains": False}


def test_an_engine_is_asked_only_about_what_it_was_made_for(tmp_path: Path):
    engine = Counting()
    mr = contender(engine, fits=lambda modality: modality == "MR")
    result = evaluation.run([mr], [made("lower")], LAZY, tmp_path, 2)
    assert engine.asked == 0
    assert result["engines"]["lazy"]["n"] == 0
    assert result["engines"]["lazy"]["dice"] == {}


def test_a_stop_keeps_what_is_done_and_other_code_starts_anew(tmp_path: Path):
    class Stopped(Counting):
        def segment(self, prepared, prompts, cancelled=lambda: False):
            if self.asked == 12:  # in the midst of the second target
                raise KeyboardInterrupt
            return super().segment(prepared, prompts, cancelled)

    cases = [made("lower")]
    with pytest.raises(KeyboardInterrupt):
        evaluation.run([contender(Stopped())], cases, LAZY, tmp_path, 2)
    rest, again, other = Counting(), Counting(), Counting()
    resumed = evaluation.run([contender(rest)], cases, LAZY, tmp_path, 2)
    whole = evaluation.run([contender(other, digest="d2")], cases, LAZY, tmp_path, 2)
    assert 0 < rest.asked <= 10 < other.asked, "one of two targets was left"
    assert evaluation.run([contender(again, digest="d2")], cases, LAZY, tmp_path, 2)["engines"] == whole["engines"]
    assert again.asked == 0
    for key in ("dice", "hausdorff95", "curve", "clicks_to"):
        assert resumed["engines"]["lazy"][key] == whole["engines"]["lazy"][key]
    for damaged in ("{", "[]", "{}"):
        for path in tmp_path.rglob("*.json"):
            path.write_text(damaged)
        assert evaluation.run([contender(Counting(), digest="d2")], cases, LAZY, tmp_path, 2)["engines"]


def test_nothing_to_judge_and_unknown_engines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(Refused, match="no labelled scans"):
        evaluation.run([], [], LAZY, tmp_path, 2)
    with pytest.raises(NotFound):
        evaluation.contenders(["nothing"])
    lone = tuple(replace(row, alternatives=False) for row in registry.ENGINES)
    with monkeypatch.context() as patched:
        patched.setattr(registry, "ENGINES", lone)
        with pytest.raises(Refused, match="one answer"):
            evaluation.contenders([evaluation.CLASSICAL + evaluation.EITHER])
    both = evaluation.contenders(["click", "click" + evaluation.EITHER])
    assert [(one.name, one.either) for one in both] == [("click", False), ("click + other answer", True)]
    assert both[0].digest == both[1].digest
    assert {one.name for one in both} <= set(evaluation.shipped())
    names = [evaluation.CLASSICAL, evaluation.BASELINE]
    assert [one.name for one in evaluation.contenders([*names, evaluation.BASELINE])] == names


def test_a_digest_is_of_all_code_below_and_of_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    room = tmp_path / "core_models" / "segmentation"
    room.mkdir(parents=True)
    (room / "judging").mkdir()
    for name in ("judging/reader", "cohorts", "judging/judged", "deep", "beside"):
        (room / f"{name}.py").write_text(f'"""{name}"""\n')
    (room / "one.py").write_text("from core_models.segmentation import two\n")
    (room / "two.py").write_text("import core_models.segmentation.deep\n")
    weights = tmp_path / "assets" / "segmentation"
    weights.mkdir(parents=True)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setattr(sources, "WEIGHTS", weights)
    seen = [sources.digest("core_models.segmentation.one")]

    def after(path: Path, text: str) -> bool:
        path.write_text(text)
        seen.append(sources.digest("core_models.segmentation.one"))
        return seen[-1] != seen[-2]

    assert not after(room / "beside.py", "other = 1\n")
    assert not after(weights / "net.safetensors", "weights that it does not name")
    assert after(room / "deep.py", "other = 1\n")
    assert after(room / "judging" / "judged.py", "other = 1\n")
    assert after(room / "two.py", 'import core_models.segmentation.deep\nFOLDER = "assets"\n')
    assert after(weights / "net.safetensors", "other weights")
    assert not after(weights / sources.RECORD, "{}")


def test_medians_count_what_never_gets_there():
    def row(*scores: float) -> summary.Row:
        return summary.Row("c", "a", "a", "t", list(scores), dict.fromkeys(("1", "3", "5", "10")), [0.1])

    rows = [row(0.5, 0.9), row(0.2, 0.3), row(0.85, 0.8)]
    assert summary.clicks_to(rows, 0.8) == {"median": 2.0, "reached": 2, "of": 3}
    assert summary.clicks_to(rows, 0.9) == {"median": None, "reached": 1, "of": 3}


def test_what_another_click_gave_is_counted_by_what_was_said_before_it():
    def row(dice: list[float], changes: list[float]) -> summary.Row:
        return summary.Row("c", "a", "a", "t", dice, {}, [], changes)

    rows = [row([0.5, 0.6, 0.7, 0.7], [0.3, 0.005, 0.0]), row([0.8, 0.8, 0.9], [0.01, 0.2]), row([0.9, 0.9], [0.5])]
    # Said after the third answer of the first (no gain) and the second of the second (a gain); not said once (a gain).
    assert summary.said(rows) == {"answers": 3, "said": 2, "gained_then": 0.5, "gained_else": 1.0}
    assert summary.said([])["gained_then"] is None


def test_an_answer_is_settled_where_a_click_changed_next_to_nothing():
    def ball(radius: float) -> Mask:
        return Mask.from_full(ellipsoid(SHAPE, affine_of((1.0, 1.0, 1.0)), (20, 20, 8), (radius, radius, 6)))

    old, new = ball(10), ball(10.02)
    assert settling.change(old, old) == 0
    assert settling.change(ball(5), ball(10)) == pytest.approx(1 - ball(5).count / ball(10).count)
    assert settling.settled(old, new) is (settling.change(old, new) <= settling.LITTLE)
    assert settling.settled(old, old)
    assert not settling.settled(ball(9), old)
    assert not settling.settled(None, old), "one click says nothing of the next"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory):
    cases = [made("lower"), *(made(f"p{n}", "la2018") for n in range(5)), made("t", "totalseg-example", "train")]
    engines = [contender(RegionGrowing()), contender(RegionGrowing(), "<other>", fits=lambda m: m == "CT")]
    return evaluation.run(engines, cases, LAZY, tmp_path_factory.mktemp("work"), 2)


@pytest.fixture
def result(once):
    return copy.deepcopy(once)


def test_a_record_makes_the_page_its_plot_and_the_table(tmp_path: Path, result):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Head\n\n{evaluation_report.BEGIN}\nstale\n{evaluation_report.END}\n\ntail\n")
    path = evaluation_report.record(result, tmp_path / "evaluation.json", tmp_path / "docs", readme)
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept == result
    page = (tmp_path / "docs" / evaluation_report.PAGE).read_text(encoding="utf-8")
    assert page == evaluation_report.page(kept)
    assert f"{result['engines']['lazy']['dice']['3']:.3f}" in page
    assert "la2018" not in page, "cohorts have names for people"
    assert page.rindex("| *abdominal CT") > page.rindex("| left atrium, MR"), "the training scan comes last"
    text = readme.read_text(encoding="utf-8")
    assert "stale" not in text
    assert text.startswith("# Head")
    assert text.endswith("tail\n")
    assert evaluation_report.brief(kept) in text
    svg = (tmp_path / "docs" / evaluation_report.PLOT).read_text(encoding="utf-8")
    assert svg.count("<polyline") == 6
    assert "&lt;other&gt;" in svg
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="marks"):
        evaluation_report.record(result, tmp_path / "another.json", tmp_path / "docs", readme)
    assert not (tmp_path / "another.json").exists(), "what cannot be shown is not kept"


def test_a_reader_of_both_answers_stands_beside_the_engine(tmp_path: Path):
    class Two(RegionGrowing):
        def segment(self, prepared, prompts, cancelled=lambda: False):
            answer = super().segment(prepared, prompts, cancelled)
            if isinstance(prompts[-1], Alternative):
                return answer
            half = answer.mask.voxels.copy()
            half[::2] = False
            return replace(answer, mask=replace(answer.mask, voxels=half))

    either = replace(contender(Two(), "lazy" + evaluation.EITHER), either=True)
    found = evaluation.run([contender(Two()), either], [made("lower")], LAZY, tmp_path, 2)
    one, both = found["engines"].values()
    assert both["dice"]["1"] > one["dice"]["1"]
    assert (one["others"], both["others"] > 0) == (0, True)
    page = evaluation_report.page(found)
    assert "| demo CT below 132 mm | lazy + other answer | " in page
    assert "## The other answer" in page
    assert evaluation_report.aims(found)[0][1] == one["dice"]["1"], "aims are those of the engine by itself"


def test_aims_are_met_or_missed_as_the_figures_say(result):
    one = result["engines"]["lazy"]
    one["dice"] |= {"1": 0.65, "3": 0.81}
    one["drop"] = [0, 0.02]
    found = {words: (value, bound, more) for words, value, bound, more in evaluation_report.aims(result)}
    assert found["demo CT, mean, 1 click"] == (0.65, 0.65, True)
    assert found["demo CT, mean, 3 clicks"] == (0.81, 0.82, True)
    assert found["spleen, 3 clicks"][0] == one["targets"]["spleen"]["3"]
    assert not any("JSRT" in words for words in found), "what was not run is not aimed at"
    page = evaluation_report.page(result)
    assert "| demo CT, mean, 1 click | 0.650 | ≥ 0.65 | met |" in page
    assert "| demo CT, mean, 3 clicks | 0.810 | ≥ 0.82 | **missed** |" in page
    assert "demo CT, mean, 3 clicks 0.810 (≥ 0.82)" in evaluation_report.brief(result)


@pytest.mark.skipif(not evaluation_report.RECORD.is_file(), reason="not recorded yet: evaluate segmentation --record")
def test_what_ships_is_what_the_command_recorded():
    """Page, plot and README's table are made again from the record and come out as they stand, of today's engines."""
    kept = json.loads(evaluation_report.RECORD.read_text(encoding="utf-8"))
    docs, readme = evaluation_report.DOCS, evaluation_report.README.read_text(encoding="utf-8")
    assert (docs / evaluation_report.PAGE).read_text(encoding="utf-8") == evaluation_report.page(kept)
    titles = [(c, evaluation_report.plain(c)) for c in evaluation_report.cohorts(kept)]
    assert (docs / evaluation_report.PLOT).read_text(encoding="utf-8") == evaluation_plot.svg(kept, titles)
    assert evaluation_report.brief(kept) in readme
    assert set(kept["data"]) == set(cohorts.COHORTS)
    for cohort, name in kept["defaults"].items():
        row = registry.default_for(cohorts.MODALITY[cohort])
        assert (name, kept["engines"][name]["version"]) == (row.name, row.version)
    assert {evaluation.CLASSICAL, evaluation.BASELINE} <= set(kept["engines"])
