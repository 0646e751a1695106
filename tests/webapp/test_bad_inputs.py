"""The list of bad files, row by row, by the routes: one sentence, nothing stored, one audit row; or opened as it says.

A row that is no upload of bytes has its test elsewhere: a gzipped body and a body of 4 GB in `test_access`.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import sqlalchemy as sa
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from tests import builders
from tests.builders import ct_files, edited, uid
from tests.webapp.conftest import Room, radiograph_file
from webapp.store import schema


def one() -> bytes:
    return ct_files(n=1)[0]


def archived(make: Callable[[Path], Path]) -> Callable[[Path], bytes]:
    return lambda folder: make(folder / "made.zip").read_bytes()


def zip_named(name: bytes) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        placeholder = b"p" * len(name)
        data = builders.zipped(folder / "a.zip", [("ok.dcm", one()), (placeholder.decode(), b"x")]).read_bytes()
        return data.replace(placeholder, name)

    return make


def nested_zip(folder: Path) -> bytes:
    inner = builders.zipped(folder / "inner.zip", [("a.dcm", one())]).read_bytes()
    return builders.zipped(folder / "outer.zip", [("scan.dcm", inner)]).read_bytes()


def many_entries(folder: Path) -> bytes:
    return builders.zipped(folder / "many.zip", ((str(n), b"") for n in range(20_001))).read_bytes()


def syntaxed(syntax: str, codestream: bytes = b"\0\0") -> bytes:
    ds = pydicom.dcmread(io.BytesIO(one()))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([codestream])
    ds["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    ds.save_as(stream, implicit_vr=False, little_endian=True)
    return stream.getvalue()


def media_directory() -> bytes:
    ds, record = pydicom.Dataset(), pydicom.Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.1.3.10", uid("dir")
    record.ReferencedFileID = ["..", "x"]
    ds.DirectoryRecordSequence = Sequence([record])
    return builders.encoded(ds)


def palette_out_of_range() -> bytes:
    tables = {f"{c}PaletteColorLookupTable{part}": v for c in ("Red", "Green", "Blue")
              for part, v in (("Descriptor", [16, 0, 16]), ("Data", bytes(32)))}  # fmt: skip
    pixels = np.array([[0, 1], [2, 200]], np.uint8)
    return builders.encoded(
        builders.dataset(pixels, modality="US", PhotometricInterpretation="PALETTE COLOR", **tables)
    )


def absurd_nifti() -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((10_000, 10_000, 10_000))
    header["vox_offset"] = 352
    return gzip.compress(header.binaryblock + bytes(4) + bytes(1000))


Made = bytes | Callable[[Path], bytes]
REFUSED: list[tuple[str, Made, int, str]] = [
    ("1 no bytes", b"", 422, "0 bytes"),
    ("3 prefix and a random tail", lambda _: bytes(128) + b"DICM" + np.random.default_rng(1).bytes(4000), 422, ""),
    ("4 truncated pixels", one()[:-100], 422, "1,436 bytes of pixels; 1,536 were expected"),
    ("5 no Rows", edited(one(), Rows=None), 422, "does not state Rows"),
    ("6 absurd size", edited(one(), Rows=65535, Columns=65535, NumberOfFrames=10**6), 413, "65535 × 65535 × 1000000"),
    (
        "7 Rows as UL",
        one().replace(b"\x28\x00\x10\x00US\x02\x00\x18\x00", b"\x28\x00\x10\x00UL\x04\x00\x00\x00\x00\x80"),
        422,
        "2147483648",
    ),
    ("8 BitsAllocated 7", edited(one(), BitsAllocated=7), 422, "BitsAllocated = 7"),
    ("9 negative frames", edited(one(), NumberOfFrames=-1), 422, "NumberOfFrames = -1"),
    ("10 deflate bomb", lambda _: builders.deflated(one(), bytes(200_000_000)), 413, "unpacks to more than"),
    ("11 forged size", archived(lambda p: builders.forged_zip(p, 50_000_000, 1000)), 422, "damaged"),
    ("12 ../", zip_named(b"../../etc/x"), 422, "leads outside"),
    ("12 absolute", zip_named(b"/etc/passwd"), 422, "leads outside"),
    ("12 drive", zip_named(b"C:\\x.dcm"), 422, "leads outside"),
    ("12 NUL", zip_named(b"a\0b.dcm"), 422, "leads outside"),
    ("12 link", archived(builders.link_zip), 422, "symbolic link"),
    ("13 nested ZIP", nested_zip, 422, "another ZIP"),
    ("14 too many entries", many_entries, 413, "20,001 entries"),
    ("15 encrypted", archived(builders.encrypted_zip), 422, "encrypted"),
    ("18 depth 300", builders.deep_sequences(one(), 300), 422, "nests its sequences"),
    (
        "19 length 0xFFFFFFFE",
        b"\x54\x00\x10\x00OB\0\0\xfe\xff\xff\xff".join(builders.without_pixels(one())),
        422,
        "",
    ),
    ("20 bad VR in file meta", one().replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x10\x00ZZ", 1), 422, ""),
    ("22 DICOMDIR", media_directory(), 422, "outside of its folder"),
    ("23 unknown syntax", syntaxed("1.2.3.4"), 422, "1.2.3.4"),
    ("24 corrupt JPEG 2000", syntaxed("1.2.840.10008.1.2.4.90", b"\xff\x4f" + bytes(300)), 422, "cannot be decoded"),
    ("25 palette index", palette_out_of_range(), 422, "palette entry 200"),
    ("29 singular orientation", edited(one(), ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), 422, "singular"),
    ("32 slope 0", edited(one(), RescaleSlope="0"), 422, "slope of zero"),
    ("35 UID of dots", edited(one(), SeriesInstanceUID="../../etc"), 422, "not a valid UID"),
    ("36 10^12 voxels", lambda _: absurd_nifti(), 413, "10000 × 10000 × 10000"),
]


def audited(room: Room) -> list[tuple[str, str]]:
    with room.services.store._db.read() as c:
        return [(a, d) for a, d in c.execute(sa.select(schema.audit.c.action, schema.audit.c.detail))]


def stored(room: Room) -> list[Path]:
    folders = (room.settings.studies, room.settings.home / "incoming")
    return [p for folder in folders if folder.exists() for p in folder.iterdir()]


def test_each_is_one_sentence_that_says_what_was_found_and_nothing_is_stored(room: Room, tmp_path: Path) -> None:
    for n, (row, made, status, said) in enumerate(REFUSED, 1):
        job = room.upload(made(tmp_path) if callable(made) else made)
        assert job["state"] == "failed", (row, job)
        assert job["status"] == status, (row, job["error"])
        assert said in job["error"], (row, job["error"])
        assert job["error"].endswith("."), row
        assert "\n" not in job["error"], row
        assert "Traceback" not in job["error"], row
        assert room.get("/api/studies") == stored(room) == [], row
        refusals = audited(room)
        assert len(refusals) == n, row
        assert refusals[-1][0] == "upload refused", row
    assert not list(tmp_path.rglob("passwd"))
    # The server lives, and reads the next one.
    assert room.study()["series"][0]["receipt"]["loaded"] == 8


def test_26_two_patients_under_one_study(room: Room) -> None:
    job = room.upload(one(), *ct_files(n=2, patient="RR-0002")[1:])
    assert (job["state"], job["status"]) == ("failed", 422)
    assert "mixes patients" in job["error"]


def test_27_the_same_instance_with_other_pixels_in_one_upload_and_in_a_later_one(room: Room) -> None:
    first = ct_files(n=1, SOPInstanceUID=uid("same"))[0]
    other = edited(first, PixelData=bytes(24 * 32 * 2))
    job = room.upload(first, other)
    assert (job["state"], job["status"]) == ("failed", 409)
    assert room.get("/api/studies") == []
    room.upload(first)
    job = room.upload(other)
    assert (job["state"], job["status"]) == ("failed", 409)
    assert len(room.get("/api/studies")) == 1


def accepted(room: Room, *files: bytes) -> dict:
    job = room.upload(*files)
    assert job["state"] == "done", job
    return room.get(f"/api/studies/{job['result']['studies'][0]}")


def notes(study: dict) -> str:
    return " ".join(n["text"] for n in study["series"][0]["receipt"]["notes"])


def test_2_content_decides_and_not_the_name(room: Room) -> None:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(stream, "PNG")
    answer = room.client.post("/api/upload", files=[("files", ("scan.dcm", stream.getvalue()))])
    job = room.wait(answer.json()["job"])
    study = room.get(f"/api/studies/{job['result']['studies'][0]}")
    assert study["series"][0]["receipt"]["format"] == "PNG"


def test_21_an_executable_in_the_preamble_is_not_kept(room: Room) -> None:
    for magic in (b"MZ\x90", b"\x7fELF"):
        name = magic.hex()
        data = edited(one(), StudyInstanceUID=uid(name), SeriesInstanceUID=uid(name, "s"))
        study = accepted(room, magic.ljust(128, b"\1") + data[128:])
        (path,) = room.services.store.sources(study["series"][0]["id"])
        assert path.read_bytes()[:132] == bytes(128) + b"DICM"


def test_28_a_missing_slice_is_told_and_volumes_are_not_measured(room: Room) -> None:
    files = ct_files(n=8)
    study = accepted(room, *files[:3], *files[4:])
    receipt = study["series"][0]["receipt"]
    assert (receipt["expected"], receipt["loaded"], receipt["measurable"]) == (8, 7, False)
    assert "1 slice missing between" in notes(study)
    segment = room.click(study, (12, 10, 3))
    assert segment["measurement"]["volume_ml"] is None


@pytest.mark.parametrize("spacing", [["0", "0"], ["nan", "nan"]])
def test_30_unusable_spacing_opens_and_is_not_measured(room: Room, spacing: list[str]) -> None:
    study = accepted(room, radiograph_file(PixelSpacing=spacing))
    assert study["series"][0]["receipt"]["measurable"] is False
    assert "lengths are not measured" in notes(study)


def test_31_monochrome1_is_inverted_once(room: Room) -> None:
    study = accepted(room, radiograph_file(PhotometricInterpretation="MONOCHROME1"))
    array = room.services.store.volume(study["series"][0]["id"]).array[0]
    assert array[0, 0] == array.max()
    assert array[0, -1] == array.min()
    assert "inverted once" in notes(study)


def test_33_a_broken_character_set_is_shown_with_replacements_and_told(room: Room) -> None:
    data = radiograph_file().replace(b"Phantom^Anna", b"Ph\xffntom^\xfe\xfdna")
    study = accepted(room, data)
    assert "\ufffd" in study["patient"]["name"]
    assert "character set is broken" in notes(study)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "${jndi:ldap://x}", "<img src=x onerror=alert(1)>"])
def test_34_markup_in_a_name_stays_text(room: Room, name: str) -> None:
    study = accepted(room, *ct_files(n=2, PatientName=name))
    assert study["patient"]["name"] == name
    answer = room.client.get(f"/api/studies/{study['id']}")
    assert answer.headers["content-type"].startswith("application/json")
    assert room.client.get(f"/api/studies/{study['id']}/export/pdf").content.startswith(b"%PDF")


def thousand_slices(folder: Path) -> bytes:
    volume = np.zeros((1000, 4, 4), np.int16)
    return builders.zipped(folder / "ct.zip", ((f"{k}.dcm", d) for k, d in enumerate(ct_files(volume)))).read_bytes()


@pytest.mark.parametrize(("stage", "after"), [("Reading files", 400), ("Building volumes", 700)])
def test_a_zip_of_a_thousand_slices_shows_progress_and_leaves_nothing_when_cancelled(
    room: Room, tmp_path: Path, stage: str, after: int
) -> None:
    seen: list[tuple[int, int, str]] = []
    real = room.services.read_scan

    def read(files, *, progress, cancelled):
        def watched(done: int, total: int, text: str) -> None:
            progress(done, total, text)
            if text == stage and done == after:
                (job,) = room.services.jobs._jobs
                shown = room.get(f"/api/jobs/{job}")
                seen.append((shown["done"], shown["total"], shown["text"]))
                assert room.client.delete(f"/api/jobs/{job}").status_code == 200

        return real(files, progress=watched, cancelled=cancelled)

    object.__setattr__(room.services, "read_scan", read)
    job = room.upload(thousand_slices(tmp_path))
    assert (job["state"], job["status"]) == ("cancelled", 499)
    assert seen == [(after, 1000, stage)]
    assert room.get("/api/studies") == stored(room) == []


def test_11_four_gigabytes_that_a_small_zip_declares_are_refused_before_they_are_unpacked(
    room: Room, tmp_path: Path
) -> None:
    data = bytearray(builders.zipped(tmp_path / "a.zip", [("a", bytes(2_000_000))], zipfile.ZIP_DEFLATED).read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    job = room.upload(bytes(data))
    assert (job["state"], job["status"]) == ("failed", 413)
    assert stored(room) == []
