"""Folders → pools: what a wrong table or image does, and that no patient and no near twin is on two sides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core_models.errors import Refused
from core_models.foundation import data
from core_models.foundation.labels import NAMES
from core_models.foundation.split import clusters, difference_hash, side, sides_of_clusters
from tests.foundation.pools import pool

NIH = ("file", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
SIZE = 48


def picture(seed: int, side: int = 96) -> Image.Image:
    """A smooth random picture unlike any other seed's."""
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 9)).astype(np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def nih(root: Path, rows: list[tuple[str, ...]], columns: tuple[str, ...] = NIH) -> Path:
    folder = root / "nih-cxr14-1000"
    (folder / "images").mkdir(parents=True)
    text = "\n".join([",".join(columns), *(",".join(row) for row in rows)])
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    for number, row in enumerate(rows):
        picture(number).save(folder / "images" / f"{Path(row[0]).stem}.jpg")
    return root


def row(number: int, patient: int | None = None, labels: str = "No Finding") -> tuple[str, ...]:
    return (f"{number:04d}.png", labels, str(number if patient is None else patient), "50", "F", "PA")


def test_a_pool_holds_what_the_table_says(tmp_path):
    nih(tmp_path, [row(0, labels="Effusion|Edema|Hernia"), row(1)])
    one = data.load(["nih-cxr14-1000"], tmp_path, SIZE)["nih-cxr14-1000"]
    assert one.images.shape == (2, SIZE, SIZE)
    assert one.images.dtype == np.uint8
    assert {NAMES[i] for i in np.flatnonzero(one.findings[0])} == {"Effusion", "Edema"}
    assert not one.findings[1].any()
    assert one.finding_weight.all()
    assert one.context[0].tolist() == pytest.approx([1, 0, 1, 0.5, 1, 1])


def test_the_missing_data_folder_is_named_without_its_path(tmp_path):
    with pytest.raises(Refused, match=r"'absent'.*--data") as caught:
        data.load(["nih-cxr14-1000"], tmp_path / "absent", SIZE)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("name", list(data.SOURCES))
def test_a_source_that_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(Refused, match=name):
        data.load([name], tmp_path, SIZE)


def test_an_unknown_source_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"no data source 'mimic'; there are rocov2-cxr"):
        data.load(["mimic"], tmp_path, SIZE)


def test_a_table_without_a_column_names_it_and_what_was_found(tmp_path):
    nih(tmp_path, [row(0)], ("file", "Finding Labels", "Patient", "Patient Age", "Patient Gender", "View Position"))
    with pytest.raises(Refused, match=r"lacks the column\(s\) Patient ID; it has file, Finding Labels"):
        data.load(["nih-cxr14-1000"], tmp_path, SIZE)


def test_columns_that_nobody_asked_for_do_no_harm(tmp_path):
    nih(tmp_path, [(*row(0), "x")], (*NIH, "Hospital"))
    assert len(data.load(["nih-cxr14-1000"], tmp_path, SIZE)["nih-cxr14-1000"]) == 1


@pytest.mark.parametrize("text", ["", ",".join(NIH) + "\n"], ids=["empty", "header alone"])
def test_a_table_without_rows_is_refused(tmp_path, text):
    nih(tmp_path, [row(0)])
    (tmp_path / "nih-cxr14-1000" / "labels.csv").write_text(text)
    with pytest.raises(Refused, match="lacks"):
        data.load(["nih-cxr14-1000"], tmp_path, SIZE)


def test_a_table_that_is_no_text_is_refused(tmp_path):
    nih(tmp_path, [row(0)])
    (tmp_path / "nih-cxr14-1000" / "labels.csv").write_bytes(b"\xff\xfe\x00\x81" * 50)
    with pytest.raises(Refused, match="not a CSV file"):
        data.load(["nih-cxr14-1000"], tmp_path, SIZE)


def test_a_row_that_ends_early_is_read_as_unknown(tmp_path):
    nih(tmp_path, [row(0), ("0001.png", "Mass", "1")])
    one = data.load(["nih-cxr14-1000"], tmp_path, SIZE)["nih-cxr14-1000"]
    assert not one.context[1].any()


def test_a_damaged_image_is_left_out_with_a_word(tmp_path):
    nih(tmp_path, [row(n) for n in range(3)])
    images = tmp_path / "nih-cxr14-1000" / "images"
    (images / "0000.jpg").write_bytes((images / "0000.jpg").read_bytes()[:200])
    (images / "0001.jpg").unlink()
    said = []
    one = data.load(["nih-cxr14-1000"], tmp_path, SIZE, lambda done, total, words: said.append(words))
    assert one["nih-cxr14-1000"].files == ("0002",)
    told = [words for words in said if words.startswith("left out")]
    assert len(told) == 2
    assert "0000.jpg" in told[0]
    assert str(tmp_path) not in " ".join(told)


def test_a_folder_of_damaged_images_is_refused(tmp_path):
    nih(tmp_path, [row(0)])
    (tmp_path / "nih-cxr14-1000" / "images" / "0000.jpg").write_bytes(b"no image")
    with pytest.raises(Refused, match="no image that can be read"):
        data.load(["nih-cxr14-1000"], tmp_path, SIZE)


def test_a_damaged_mask_leaves_its_image_out(tmp_path):
    folder = tmp_path / "jsrt"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
        for number in (1, 3):
            picture(number).save(folder / part / f"JPCLN{number:03d}.png")
    (folder / "masks" / "JPCLN001.png").write_bytes(b"no image")
    said = []
    one = data.load(["jsrt"], tmp_path, SIZE, lambda done, total, words: said.append(words))["jsrt"]
    assert one.files == ("JPCLN003",)
    assert any("JPCLN001" in words for words in said)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "a/../../secret.png"])
def test_a_table_that_names_a_file_outside_its_folder_is_refused(tmp_path, name):
    nih(tmp_path, [row(0)])
    picture(7).save(tmp_path / "nih-cxr14-1000" / "secret.jpg")
    table = tmp_path / "nih-cxr14-1000" / "labels.csv"
    table.write_text(table.read_text().replace("0000.png", name))
    with pytest.raises(Refused, match="outside its folder"):
        data.load(["nih-cxr14-1000"], tmp_path, SIZE)
    for source, columns, values in (
        ("rocov2-cxr", "file,caption", f"{name},a chest"),
        ("acdc", "file,patient", f"{name},1"),
    ):
        folder = tmp_path / source
        (folder / "images").mkdir(parents=True)
        (folder / ("captions.csv" if source == "rocov2-cxr" else "slices.csv")).write_text(f"{columns}\n{values}\n")
        with pytest.raises(Refused, match="outside its folder"):
            data.load([source], tmp_path, SIZE)


def test_sixteen_bits_are_stretched_not_clipped(tmp_path):
    ramp = np.linspace(0, 60_000, 96 * 96).reshape(96, 96).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    grey = data.open_grey(tmp_path / "deep.png", SIZE)
    assert np.all(np.diff(grey.mean(1)) > 0)
    assert abs(float(grey.mean()) - 127) < 5


# Sides


def test_no_patient_is_on_two_sides(tmp_path):
    nih(tmp_path, [row(n, patient=n // 3) for n in range(90)])
    one = data.load(["nih-cxr14-1000"], tmp_path, SIZE)["nih-cxr14-1000"]
    of = {}
    for key, own in zip(one.keys, one.sides, strict=True):
        assert of.setdefault(key, own) == own
    assert set(one.sides) == {"train", "validation", "test"}
    rows = [set(one.rows(s).tolist()) for s in ("train", "validation", "test")]
    assert not rows[0] & rows[1] | rows[0] & rows[2] | rows[1] & rows[2]


def test_the_side_of_a_patient_never_moves():
    # Written down: another rule would put patients that the shipped weights learnt from on the test side.
    assert [side(f"nih:{n}", 25, 13) for n in range(8)] == [
        "train",
        "train",
        "validation",
        "train",
        "test",
        "test",
        "test",
        "validation",
    ]
    counted = [side(f"k{n}", 25, 15) for n in range(4000)]
    assert counted.count("test") / 4000 == pytest.approx(0.25, abs=0.03)
    assert counted.count("validation") / 4000 == pytest.approx(0.15, abs=0.03)


def twin_pools() -> tuple[dict[str, data.Pool], np.ndarray]:
    """Sixteen pictures for training and, on the test side, JPEG copies of the first four with twelve others."""
    import io

    originals = np.stack([np.asarray(picture(n, SIZE)) for n in range(28)])
    copies = []
    for one in originals[:4]:
        file = io.BytesIO()
        Image.fromarray(one).resize((60, 60)).save(file, "JPEG", quality=40)
        copies.append(np.asarray(Image.open(file).convert("L").resize((SIZE, SIZE))))
    train = replace(pool("nih-cxr14-1000", 16, SIZE), images=originals[:16])
    test = replace(pool("covid-chestxray", 16, SIZE, side="test"), images=np.stack([*copies, *originals[16:]]))
    return {"nih-cxr14-1000": train, "covid-chestxray": test}, originals


def test_near_twins_across_sides_are_left_out_of_training():
    pools, originals = twin_pools()
    assert not np.array_equal(pools["covid-chestxray"].images[0], originals[0])  # a twin, not a copy
    clean = data.leave_out_twins(pools)
    assert clean["nih-cxr14-1000"].rows("train").tolist() == list(range(4, 16))
    assert clean["covid-chestxray"].rows("test").tolist() == list(range(16))


def test_the_same_pictures_are_left_out_in_any_order():
    pools, _ = twin_pools()
    expected = data.leave_out_twins(pools)["nih-cxr14-1000"]
    kept = {expected.files[r] for r in expected.rows("train")}
    order = np.random.default_rng(0).permutation(16)
    one = pools["nih-cxr14-1000"]
    shuffled = replace(one, images=one.images[order], files=tuple(one.files[i] for i in order))
    other_way = data.leave_out_twins({"covid-chestxray": pools["covid-chestxray"], "nih-cxr14-1000": shuffled})
    again = other_way["nih-cxr14-1000"]
    assert {again.files[r] for r in again.rows("train")} == kept


def test_a_chain_of_twins_is_one_cluster_on_its_strictest_side():
    base = np.zeros((4, 256), bool)
    base[1, :15] = True
    base[2, :30] = True  # near the second, not near the first
    base[3, 100:200] = True
    found = clusters(base)
    assert found.tolist() == [0, 0, 0, 3]
    assert sides_of_clusters(found, ["train", "train", "test", "train"]) == ["test", "test", "test", "train"]


def test_the_hash_survives_brightness_and_not_another_picture():
    one = np.asarray(picture(1))
    paler = (one.astype(float) * 0.8 + 30).astype(np.uint8)
    assert (difference_hash(one) != difference_hash(paler)).sum() <= 20
    assert (difference_hash(one) != difference_hash(np.asarray(picture(2)))).sum() > 60


def test_a_limit_takes_the_first_rows(tmp_path):
    nih(tmp_path, [row(n) for n in range(5)])
    assert len(data.load(["nih-cxr14-1000"], tmp_path, SIZE, limit=2)["nih-cxr14-1000"]) == 2


# Labels of captions


@pytest.mark.parametrize(
    ("caption", "name", "present", "sure"),
    [
        ("Chest radiograph with a left pleural effusion.", "Effusion", 1.0, True),
        ("No pleural effusion. Right lower lobe consolidation.", "Effusion", 0.0, True),
        ("No pleural effusion. Right lower lobe consolidation.", "Consolidation", 1.0, True),
        ("Chest X-ray without infiltrates.", "Infiltration", 0.0, True),
        ("Normal chest radiograph.", "Pneumonia", 0.0, True),
        ("Pacemaker leads in place.", "Pneumonia", 0.0, False),
    ],
)
def test_what_a_caption_states_denies_or_leaves_out(caption, name, present, sure):
    from core_models.foundation.labels import NAMES, from_caption

    target, weight = from_caption(caption)
    at = NAMES.index(name)
    assert target[at] == present
    assert (weight[at] == 1.0) == sure
