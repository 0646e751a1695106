"""Transfer syntaxes and kinds of image: each opens with the values that went in, or is refused with a reason."""

from __future__ import annotations

import io

import numpy as np
import openjpeg
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from core_models.errors import Refused
from core_models.study.intake import read_scan
from core_models.study.raster import luminance
from core_models.study.study import Series
from tests import builders

NOISE = np.random.default_rng(5)
SIGNED = NOISE.integers(-2000, 3000, (64, 96)).astype(np.int16)
GREY = NOISE.integers(0, 256, (64, 96)).astype(np.uint8)
COLOUR = NOISE.integers(0, 256, (64, 96, 3)).astype(np.uint8)
SMOOTH = np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)


def opened(tmp_path, data: bytes) -> Series:
    path = tmp_path / "scan.dcm"
    path.write_bytes(data)
    (study,) = read_scan(path)
    (series,) = study.series
    return series


def written(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    return builders.encoded(ds, syntax)


def compressed(ds: Dataset, syntax: str) -> bytes:
    """The data set in a lossless syntax."""
    if syntax == JPEG2000Lossless:
        colour = 1 if ds.SamplesPerPixel == 3 else 2  # the encoder's own codes for RGB and MONOCHROME2
        stream = openjpeg.encode(ds_pixels(ds), bits_stored=ds.BitsStored, photometric_interpretation=colour)
        if colour == 1:
            ds.PhotometricInterpretation = "YBR_RCT"
        return wrapped(ds, syntax, stream)
    ds = pydicom.dcmread(io.BytesIO(written(ds)))
    ds.compress(syntax)
    stream = io.BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


def ds_pixels(ds: Dataset) -> np.ndarray:
    return pydicom.dcmread(io.BytesIO(written(ds))).pixel_array


def wrapped(ds: Dataset, syntax: str, *codestreams: bytes) -> bytes:
    """The data set with codestreams in place of its pixels."""
    ds = pydicom.dcmread(io.BytesIO(written(ds)))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate(list(codestreams))
    ds["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


def jpeg(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def colour_dataset(array: np.ndarray, photometric: str = "RGB", **attributes: object) -> Dataset:
    return builders.dataset(
        array,
        sop_class=UltrasoundImageStorage,
        modality="US",
        SamplesPerPixel=3,
        PhotometricInterpretation=photometric,
        **{"PlanarConfiguration": 0, **attributes},
    )


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_uncompressed_values(tmp_path, syntax):
    series = opened(tmp_path, written(builders.dataset(SIGNED, modality="MR"), syntax))
    np.testing.assert_array_equal(series.volume.array[0], SIGNED)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=["RLE", "JPEG-LS", "JPEG 2000"])
@pytest.mark.parametrize("array", [SIGNED, SIGNED.astype(np.uint16), GREY], ids=["signed", "unsigned", "8 bits"])
def test_lossless_values(tmp_path, syntax, array):
    series = opened(tmp_path, compressed(builders.dataset(array, modality="MR"), syntax))
    np.testing.assert_array_equal(series.volume.array[0], array)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=["RLE", "JPEG-LS", "JPEG 2000"])
def test_lossless_colour_becomes_its_luminance(tmp_path, syntax):
    series = opened(tmp_path, compressed(colour_dataset(COLOUR), syntax))
    np.testing.assert_array_equal(series.volume.array[0], luminance(COLOUR))


def test_jpeg_lossless(tmp_path):
    gdcm = pytest.importorskip("gdcm")
    (tmp_path / "plain").write_bytes(written(builders.dataset(SIGNED.astype(np.uint16), modality="MR")))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(tmp_path / "plain"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(tmp_path / "packed"))
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "packed").file_meta.TransferSyntaxUID == JPEGLosslessSV1
    (study,) = read_scan(tmp_path / "packed")
    np.testing.assert_array_equal(study.series[0].volume.array[0], SIGNED.astype(np.uint16))


def test_jpeg_baseline_in_grey_and_colour(tmp_path):
    grey = builders.dataset(SMOOTH, modality="US", LossyImageCompression="01")
    series = opened(tmp_path, wrapped(grey, JPEGBaseline8Bit, jpeg(SMOOTH)))
    assert np.abs(series.volume.array[0].astype(int) - SMOOTH).max() <= 6
    assert any("compressed with loss" in n.text for n in series.receipt.notes)
    colour = np.stack([SMOOTH, SMOOTH[::-1], np.full_like(SMOOTH, 90)], -1)
    data = wrapped(colour_dataset(colour, "YBR_FULL_422"), JPEGBaseline8Bit, jpeg(colour))
    shown = opened(tmp_path, data).volume.array[0]
    assert np.abs(shown.astype(int) - luminance(colour)).max() <= 12


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_uncompressed_colour(tmp_path, photometric, planar):
    stored = COLOUR
    if photometric == "YBR_FULL":
        stored = pydicom.pixels.convert_color_space(COLOUR, "RGB", "YBR_FULL")
    laid = np.moveaxis(stored, -1, 0) if planar else stored
    ds = colour_dataset(stored, photometric, PlanarConfiguration=planar)
    ds.PixelData = np.ascontiguousarray(laid).tobytes()
    got = opened(tmp_path, written(ds)).volume.array[0].astype(int)
    # the way through YBR and back loses a step or two of 255
    assert np.abs(got - luminance(COLOUR)).max() <= (0 if photometric == "RGB" else 3)


def test_a_palette_becomes_its_luminance(tmp_path):
    red, green, blue = (NOISE.integers(0, 256, 256).astype(np.uint16) * 257 for _ in range(3))
    tables = {
        f"{name}PaletteColorLookupTable{part}": value
        for name, lut in (("Red", red), ("Green", green), ("Blue", blue))
        for part, value in (("Descriptor", [256, 0, 16]), ("Data", lut.astype("<u2").tobytes()))
    }
    ds = builders.dataset(GREY, modality="US", PhotometricInterpretation="PALETTE COLOR", **tables)
    series = opened(tmp_path, written(ds))
    expected = luminance(np.stack([red[GREY], green[GREY], blue[GREY]], -1))
    np.testing.assert_array_equal(series.volume.array[0], expected)


def test_an_ultrasound_loop_keeps_its_frames_in_order_and_is_not_measured_through(tmp_path):
    frames = NOISE.integers(0, 256, (5, 24, 32, 3)).astype(np.uint8)
    ds = colour_dataset(frames[0], NumberOfFrames=5, FrameTime="40")
    ds.SOPClassUID = UltrasoundMultiFrameImageStorage
    ds.PixelData = frames.tobytes()
    for data in (written(ds), compressed(ds, RLELossless)):
        series = opened(tmp_path, data)
        np.testing.assert_array_equal(series.volume.array, luminance(frames))
        assert not series.receipt.measurable
        assert series.sources == (data,)


def test_an_angiography_run_in_grey(tmp_path):
    frames = NOISE.integers(0, 1024, (6, 24, 32)).astype(np.uint16)
    ds = builders.dataset(
        frames[0],
        sop_class="1.2.840.10008.5.1.4.1.1.12.1",
        modality="XA",
        NumberOfFrames=6,
        BitsStored=10,
        HighBit=9,
        ImagerPixelSpacing=["0.2", "0.2"],
    )
    ds.PixelData = frames.tobytes()
    series = opened(tmp_path, written(ds))
    np.testing.assert_array_equal(series.volume.array, frames)
    assert series.receipt.loaded == 6


def test_an_enhanced_mr_takes_each_frames_own_rescale(tmp_path):
    volume = NOISE.integers(0, 500, (4, 24, 32)).astype(np.int16)
    ds = pydicom.dcmread(io.BytesIO(builders.enhanced_ct(volume, builders.affine())))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    ds.Modality = "MR"
    del ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for n, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        own = Dataset()
        own.RescaleSlope, own.RescaleIntercept, own.RescaleType = n + 1, 10 * n, "US"
        group.PixelValueTransformationSequence = Sequence([own])
    stream = io.BytesIO()
    ds.save_as(stream)
    series = opened(tmp_path, stream.getvalue())
    expected = np.stack([plane.astype(int) * (n + 1) + 10 * n for n, plane in enumerate(volume)])
    np.testing.assert_array_equal(series.volume.array, expected)
    assert (series.modality, series.volume.unit) == ("MR", "1")


@pytest.mark.parametrize("modality", ["MG", "CR", "SC"])
def test_projections_and_captures(tmp_path, modality):
    sop_class = "1.2.840.10008.5.1.4.1.1." + {"MG": "1.2", "CR": "1", "SC": "7"}[modality]
    ds = builders.dataset(GREY, sop_class=sop_class, modality={"SC": "OT"}.get(modality, modality))
    series = opened(tmp_path, written(ds))
    np.testing.assert_array_equal(series.volume.array[0], GREY)


def test_a_modality_table_stands_in_place_of_a_rescale(tmp_path):
    table = Dataset()
    lut = (np.arange(256) ** 2 // 4).astype(np.uint16)
    table.LUTDescriptor = [256, 0, 16]
    table.ModalityLUTType = "US"
    table.LUTData = lut.tolist()
    ds = builders.dataset(GREY, modality="CR", sop_class="1.2.840.10008.5.1.4.1.1.1")
    ds.ModalityLUTSequence = Sequence([table])
    ds.ModalityLUTSequence[0]["LUTDescriptor"].VR = ds.ModalityLUTSequence[0]["LUTData"].VR = "US"
    series = opened(tmp_path, written(ds))
    np.testing.assert_array_equal(series.volume.array[0], lut[GREY])
    assert any("modality look-up table" in n.text for n in series.receipt.notes)
    table.LUTDescriptor = [256, 0, 99]
    table.LUTData = None
    ds.ModalityLUTSequence = Sequence([table])
    with pytest.raises(Refused, match="look-up table"):
        opened(tmp_path, written(ds))


def big_endian(ds: Dataset, meta: bool) -> bytes:
    stream = io.BytesIO()
    ds = pydicom.dcmread(io.BytesIO(written(ds)))
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds["PixelData"].VR = "OW"
    pydicom.dcmwrite(stream, ds, implicit_vr=False, little_endian=False)
    data = stream.getvalue()
    return data if meta else data[144 + int.from_bytes(data[140:144], "little") :]


@pytest.mark.parametrize("meta", [True, False], ids=["with meta information", "without"])
def test_big_endian_is_refused_by_its_name(tmp_path, meta):
    with pytest.raises(Refused, match="Big Endian, which was retired"):
        opened(tmp_path, big_endian(builders.dataset(SIGNED, modality="MR"), meta))


@pytest.mark.parametrize(
    ("syntax", "said"),
    [
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
        ("1.2.840.10008.1.2.4.102", "MPEG-4"),
        ("1.2.840.10008.1.2.4.107", "HEVC"),
        ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000"),
    ],
)
def test_videos_and_new_syntaxes_are_refused_by_their_names(tmp_path, syntax, said):
    with pytest.raises(Refused, match=f"{said}.*not supported"):
        opened(tmp_path, wrapped(builders.dataset(GREY, modality="US"), syntax, b"\0\0"))
