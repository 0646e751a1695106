"""Damaged and hostile files: each is refused with one sentence, before memory is taken for what it claims."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import openjpeg
import psutil
import pydicom
import pytest
from pydicom.encaps import encapsulate

from core_models.errors import Cancelled, Refused, TooLarge
from core_models.study import pixels
from core_models.study.intake import read_scan
from core_models.study.limits import Limits
from tests import builders


def one() -> bytes:
    return builders.ct_files(n=1)[0]


def refused(tmp_path, data: bytes, name: str = "scan.dcm", limits: Limits | None = None) -> str:
    """The sentence with which the file is refused."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(Refused) as refusal:
        read_scan(path, **({"limits": limits} if limits else {}))
    text = str(refusal.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert str(tmp_path) not in text
    return text


def test_nothing(tmp_path):
    assert "0 bytes" in refused(tmp_path, b"")
    with pytest.raises(Refused, match="empty"):
        read_scan([])
    (tmp_path / "folder").mkdir()
    with pytest.raises(Refused, match="empty"):
        read_scan(tmp_path / "folder")


def test_random_bytes_and_text(tmp_path):
    assert "none of the formats" in refused(tmp_path, b"hello world" * 100)


def test_prefix_with_a_random_tail(tmp_path):
    tail = np.random.default_rng(1).bytes(4000)
    refused(tmp_path, bytes(128) + b"DICM" + tail)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_in_a_header_never_escape_as_another_error(tmp_path, seed):
    generator = np.random.default_rng(seed)
    data = bytearray(one())
    for at in generator.integers(132, 1200, 6):
        data[at] = int(generator.integers(0, 256))
    path = tmp_path / "a"
    path.write_bytes(bytes(data))
    try:
        (study,) = read_scan(path)
    except Refused:
        return
    assert study.series[0].volume.array.size > 0


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.95])
def test_cut_anywhere(tmp_path, keep):
    data = one()
    refused(tmp_path, data[: int(len(data) * keep)])


def test_truncated_pixels_say_how_many_bytes(tmp_path):
    text = refused(tmp_path, one()[:-100])
    assert "1,436 bytes" in text
    assert "1,536 were expected" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"Rows": None}, "Rows"),
        ({"Columns": 0}, "Columns = 0"),
        ({"BitsAllocated": 7}, "BitsAllocated = 7"),
        ({"BitsAllocated": 64}, "BitsAllocated = 64"),
        ({"BitsStored": 40}, "BitsStored"),
        ({"NumberOfFrames": -1}, "NumberOfFrames = -1"),
        ({"NumberOfFrames": 3}, "4,608 were expected"),
        ({"SamplesPerPixel": 2}, "samples"),
        ({"PhotometricInterpretation": "CMYK"}, "CMYK"),
        ({"RescaleSlope": "0"}, "slope"),
        ({"RescaleSlope": "nan"}, "slope"),
        ({"StudyInstanceUID": "../../etc"}, "StudyInstanceUID"),
        ({"SeriesInstanceUID": "1.2.a"}, "SeriesInstanceUID"),
        ({"SOPInstanceUID": "1" * 65}, "SOPInstanceUID"),
        ({"ImagePositionPatient": ["nan", "0", "0"]}, "not finite"),
    ],
)
def test_bad_element(tmp_path, changes, said):
    assert said in refused(tmp_path, builders.edited(one(), **changes))


def test_absurd_size_is_refused_before_memory_is_taken(tmp_path):
    data = builders.edited(one(), Rows=65535, Columns=65535, NumberOfFrames=10**6)
    tracemalloc.start()
    text = refused(tmp_path, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "65535 × 65535 × 1000000" in text
    assert peak < 20e6


def test_rows_as_a_four_byte_number(tmp_path):
    data = one().replace(b"\x28\x00\x10\x00US\x02\x00\x18\x00", b"\x28\x00\x10\x00UL\x04\x00\x00\x00\x00\x80")
    assert "2147483648" in refused(tmp_path, data)


def test_sequences_nested_300_deep(tmp_path):
    assert "nests" in refused(tmp_path, builders.deep_sequences(one(), 300))
    assert "nests" in refused(tmp_path, builders.deep_sequences(one(), 5000))


def test_a_few_nested_sequences_are_fine(tmp_path):
    (tmp_path / "a").write_bytes(builders.deep_sequences(one(), 10))
    assert read_scan(tmp_path / "a")[0].series[0].receipt.loaded == 1


def test_element_length_near_four_gigabytes(tmp_path):
    head, tail = builders.without_pixels(one())
    refused(tmp_path, head + b"\x54\x00\x10\x00OB\0\0\xfe\xff\xff\xff" + tail)


def test_more_elements_than_any_real_file(tmp_path):
    head, tail = builders.without_pixels(one())
    many = b"".join(b"\x55\x00" + (0x1000 + n).to_bytes(2, "little") + b"SH\x02\x00ab" for n in range(30000))
    assert "header elements" in refused(tmp_path, head + many + tail)


def test_millions_of_sequence_items_are_refused_before_they_become_objects(tmp_path):
    head, tail = builders.without_pixels(one())
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 2_000_000
    sequence = b"\x54\x00\x16\x00SQ\0\0" + len(items).to_bytes(4, "little") + items
    path = tmp_path / "scan.dcm"
    path.write_bytes(head + sequence + tail)
    tracemalloc.start()
    with pytest.raises(TooLarge, match="items in its sequences"):
        read_scan(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(items)


def test_bad_vr_in_file_meta(tmp_path):
    data = one()
    refused(tmp_path, data[:132] + data[132:].replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x10\x00ZZ", 1)[:600])


@pytest.mark.parametrize(("syntax", "said"), [("1.2.840.10008.1.2.4.100", "MPEG2"), ("1.2.3.4", "1.2.3.4")])
def test_unknown_transfer_syntax_is_named(tmp_path, syntax, said):
    assert said in refused(tmp_path, _with_syntax(one(), syntax))


def _with_syntax(data: bytes, syntax: str) -> bytes:
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([b"\0\0"])
    stream = io.BytesIO()
    ds.save_as(stream, implicit_vr=False, little_endian=True)
    return stream.getvalue()


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80"])
def test_corrupt_codestream_is_refused_and_the_next_file_reads(tmp_path, syntax):
    garbage = np.random.default_rng(3).bytes(500)
    text = refused(tmp_path, _with_pixels(_with_syntax(one(), syntax), garbage))
    assert "damaged and cannot be decoded" in text
    (tmp_path / "good").write_bytes(one())
    assert read_scan(tmp_path / "good")[0].series[0].receipt.loaded == 1


def _with_pixels(data: bytes, codestream: bytes) -> bytes:
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.PixelData = encapsulate([codestream])
    ds["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


def test_a_decoder_that_dies_is_a_refusal(tmp_path, monkeypatch):
    child = tmp_path / "child.py"
    child.write_text("import os, sys\nsys.stdin.buffer.read(8)\nos.abort()\n")
    monkeypatch.setattr(pixels, "_CHILD", child)
    assert "cannot be decoded" in refused(tmp_path, _with_syntax(one(), "1.2.840.10008.1.2.4.90"))


def _compressed_series(folder: Path, damaged: int | None = None) -> list[np.ndarray]:
    """Six JPEG 2000 slices, each its own; answers what they hold."""
    planes = [np.full((64, 64), 100 * n, np.int16) + np.arange(64, dtype=np.int16) for n in range(6)]
    for n, path in enumerate(builders.ct_series(folder, np.stack(planes))):
        ds = pydicom.dcmread(path)
        stream = bytes(openjpeg.encode(ds.pixel_array, bits_stored=16, photometric_interpretation=2))
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
        ds.PixelData = encapsulate([b"\0" * 40 if n == damaged else stream])
        ds["PixelData"].is_undefined_length = True
        ds.save_as(path)
    return planes


def _decoders() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "decode_child.py" in " ".join(p.cmdline())]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_slices_decoded_side_by_side_come_in_their_order(tmp_path, processes):
    planes = _compressed_series(tmp_path / "scan")
    (study,) = read_scan(tmp_path / "scan", limits=Limits(decode_processes=processes))
    volume = study.series[0].volume
    np.testing.assert_array_equal(volume.layout.to_source(volume.array), planes)
    assert _decoders() == []


@pytest.mark.parametrize("damaged", [0, 3, 5])
def test_a_damaged_slice_among_good_ones_refuses_all_and_leaves_no_decoder(tmp_path, damaged):
    _compressed_series(tmp_path / "scan", damaged)
    with pytest.raises(Refused, match=f"IM000{damaged + 1}.dcm.*damaged and cannot be decoded"):
        read_scan(tmp_path / "scan")
    assert _decoders() == []


def test_cancelled_while_decoding_it_leaves_no_decoder(tmp_path):
    _compressed_series(tmp_path / "scan")
    seen: list[int] = []

    def cancelled() -> bool:
        seen.append(len(_decoders()))
        return seen[-1] > 1

    with pytest.raises(Cancelled):
        read_scan(tmp_path / "scan", cancelled=cancelled)
    assert max(seen) == 2
    assert _decoders() == []


def test_a_decoder_that_hangs_is_stopped(tmp_path, monkeypatch):
    child = tmp_path / "child.py"
    child.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(pixels, "_CHILD", child)
    data = _with_syntax(one(), "1.2.840.10008.1.2.4.90")
    assert "cannot be decoded" in refused(tmp_path, data, limits=Limits(decode_seconds=-0.5))


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "JPGExtended.dcm"])
def test_compressed_frames_of_another_size_are_refused(tmp_path, name):
    data = Path(pydicom.data.get_testdata_file(name)).read_bytes()
    assert "decode" in refused(tmp_path, builders.edited(data, Rows=32))


def test_deflate_bomb(tmp_path):
    data = builders.deflated(one(), bytes(200_000_000))
    assert len(data) < 300_000
    (tmp_path / "a").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(TooLarge):
        read_scan(tmp_path / "a", limits=Limits(max_file_bytes=40_000_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6


def test_palette_index_outside_its_table(tmp_path):
    pixels_ = np.array([[0, 1], [2, 200]], np.uint8)
    lut = {f"{c}PaletteColorLookupTable{part}": v for c in ("Red", "Green", "Blue")
           for part, v in (("Descriptor", [16, 0, 16]), ("Data", bytes(32)))}  # fmt: skip
    ds = builders.dataset(pixels_, modality="US", PhotometricInterpretation="PALETTE COLOR", **lut)
    assert "palette entry 200" in refused(tmp_path, builders.encoded(ds))


def test_dicomdir_that_points_outside(tmp_path):
    ds = pydicom.Dataset()
    ds.SOPClassUID = "1.2.840.10008.1.3.10"
    ds.SOPInstanceUID = builders.uid("dir")
    record = pydicom.Dataset()
    record.ReferencedFileID = ["..", "x"]
    ds.DirectoryRecordSequence = [record]
    assert "outside" in refused(tmp_path, builders.encoded(ds), "DICOMDIR")


@pytest.mark.parametrize("modality", ["SR", "RTPLAN", "PR", "KO"])
def test_what_is_no_scan_is_named(tmp_path, modality):
    ds = builders.dataset(np.zeros((2, 2), np.uint8), modality=modality)
    assert "not a scan" in refused(tmp_path, builders.encoded(ds))


def test_one_damaged_file_refuses_the_whole_folder(tmp_path):
    paths = builders.ct_series(tmp_path)
    paths[4].write_bytes(paths[4].read_bytes()[:-10])
    with pytest.raises(Refused, match="IM0005"):
        read_scan(tmp_path)


# ZIP files.


@pytest.mark.parametrize("name", ["../x.dcm", "/etc/x", "a/../../x", "C:\\x.dcm", "..\\x", "\\\\host\\x", "a\0b.dcm"])
def test_zip_names_that_lead_outside(tmp_path, name):
    path = tmp_path / "scan.zip"
    builders.zipped(path, [("ok.dcm", one()), ("placeholder", b"x")])
    data = path.read_bytes()
    raw = name.encode().ljust(len("placeholder"), b"x")[: len("placeholder")] if len(name) <= 11 else name.encode()
    path.write_bytes(data.replace(b"placeholder", raw))
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(Refused, match="outside"):
        read_scan(path)
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (builders.encrypted_zip, "encrypted"),
        (builders.link_zip, "symbolic link"),
        (lambda p: builders.forged_zip(p, 50_000_000, 1000), "damaged|declares|bytes"),
        (lambda p: builders.forged_zip(p, 1000, 50_000), "damaged|declares"),
        (lambda p: builders.zipped(p, []), "no scan"),
        (lambda p: builders.zipped(p, [("a.txt", b"hello")]), "no scan"),
    ],
)
def test_hostile_zip(tmp_path, make, said):
    with pytest.raises(Refused, match=said):
        read_scan(make(tmp_path / "a.zip"))


def test_nested_zip(tmp_path):
    inner = builders.zipped(tmp_path / "inner.zip", [("a.dcm", one())]).read_bytes()
    with pytest.raises(Refused, match="another ZIP"):
        read_scan(builders.zipped(tmp_path / "outer.zip", [("harmless.dcm", inner)]))


def test_zip_with_too_many_entries(tmp_path):
    path = builders.zipped(tmp_path / "a.zip", ((f"{n}", b"") for n in range(30)))
    with pytest.raises(TooLarge, match="30 entries"):
        read_scan(path, limits=Limits(max_files=20))


def test_zip_bomb_is_stopped_by_what_it_declares_and_by_what_comes(tmp_path):
    path = builders.zipped(tmp_path / "a.zip", [("a", bytes(5_000_000)), ("b", bytes(5_000_000))], zipfile.ZIP_DEFLATED)
    with pytest.raises(TooLarge, match="would unpack"):
        read_scan(path, limits=Limits(max_bytes=8_000_000))


def test_damaged_zip(tmp_path):
    path = builders.zipped(tmp_path / "a.zip", [("a.dcm", one())])
    data = path.read_bytes()
    refused(tmp_path, data[:-30], "cut.zip")
    refused(tmp_path, data[:300] + bytes(40) + data[340:], "crc.zip")


def test_zip_in_folders_reads_like_the_folder(tmp_path):
    files = builders.ct_files()
    members = [("a/", b""), *((f"a/b/{k}", data) for k, data in enumerate(files)), ("__MACOSX/a/._0", b"x")]
    path = builders.zipped(tmp_path / "a.zip", members, zipfile.ZIP_DEFLATED)
    (study,) = read_scan(path)
    np.testing.assert_array_equal(study.series[0].volume.array, builders.phantom((8, 24, 32)))


def test_total_size_of_an_upload_is_bounded(tmp_path):
    builders.ct_series(tmp_path)
    with pytest.raises(TooLarge):
        read_scan(tmp_path, limits=Limits(max_bytes=5000))
