"""Standalone program: DICOM files on stdin → decoded frames on stdout, so a broken codec kills only it.

Request: 8 bytes length (big endian), then the file.  Answer: messages of 4 bytes length, JSON head, `size` bytes;
heads are {"shape", "dtype", "size"} per frame, then {"done": true}, or {"error": class name, "unsupported": bool}.
Argument 1: address-space limit in bytes.

The program is a plugin of pydicom's decoders as well (`is_available`, `DECODER_DEPENDENCIES`, `decode_frame`), for what
pydicom's own leave out: the newer OpenJPEG, a quarter faster than the one inside GDCM, and JPEG with 12 bits, which
GDCM decodes though pydicom does not ask it to.
"""

from __future__ import annotations

import io
import json
import sys
import warnings

JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
DECODER_DEPENDENCIES = {
    "1.2.840.10008.1.2.4.90": ("pylibjpeg-openjpeg>=2.0",),
    "1.2.840.10008.1.2.4.91": ("pylibjpeg-openjpeg>=2.0",),
    JPEG_EXTENDED: ("python-gdcm>=3.2",),
}
PLUGIN = "reading-room"


def is_available(uid: str) -> bool:
    """Both packages are among the application's own requirements."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(source: bytes, runner) -> bytes | bytearray:
    """One frame's codestream → its samples, as pydicom's `DecodeRunner` expects them."""
    return _extended(source, runner) if runner.transfer_syntax == JPEG_EXTENDED else _jpeg2000(source, runner)


def _jpeg2000(source: bytes, runner) -> bytearray:
    from openjpeg import decode_pixel_data

    samples = decode_pixel_data(source, version=2)
    if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
        runner.set_option("photometric_interpretation", "RGB")  # the codec's own colours, turned back by it
    precision = runner.get_option("j2k_precision", runner.bits_stored)
    runner.set_option("bits_allocated", 8 if precision <= 8 else 16 if precision <= 16 else 32)
    return samples


def _extended(source: bytes, runner) -> bytes:
    import gdcm

    if runner.samples_per_pixel != 1 or precision_of(source) != 12:
        raise NotImplementedError("this plugin does not support it")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, runner.pixel_representation))
    return image.GetBuffer().encode("utf-8", "surrogateescape")  # bytes, which the wrapper calls text


def precision_of(source: bytes) -> int:
    """Bits of a sample as the frame header of a JPEG codestream says (ISO 10918-1 B.2.2); 0 without one."""
    at = 2
    while at + 5 <= len(source) and source[at] == 0xFF:
        marker = source[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return source[at + 4]
        at += 2 + int.from_bytes(source[at + 2 : at + 4], "big")
    return 0


def _limit(address_space: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the parent's time limit still holds
        return
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    _limit(int(sys.argv[1]))
    warnings.simplefilter("ignore")  # pydicom's warnings may quote header values
    import pydicom
    from pydicom.pixels import get_decoder

    source, sink = sys.stdin.buffer, sys.stdout.buffer

    def send(head: dict, payload: bytes = b"") -> None:
        text = json.dumps(head).encode()
        sink.write(len(text).to_bytes(4, "big") + text + payload)
        sink.flush()

    for uid in DECODER_DEPENDENCIES:
        get_decoder(uid).add_plugin(PLUGIN, ("__main__", "decode_frame"))
    while len(prefix := source.read(8)) == 8:
        data = source.read(int.from_bytes(prefix, "big"))
        try:
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            uid = dataset.file_meta.TransferSyntaxUID
            own = uid in DECODER_DEPENDENCIES and (uid != JPEG_EXTENDED or dataset.get("BitsStored", 8) > 8)
            decoder = get_decoder(uid)
            for index in range(int(dataset.get("NumberOfFrames") or 1)):
                # not iter_array: it fails on images whose codestream and header disagree about the sign
                array, _ = decoder.as_array(dataset, index=index, raw=False, decoding_plugin=PLUGIN if own else "")
                payload = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
                send({"shape": array.shape, "dtype": array.dtype.newbyteorder("<").str, "size": len(payload)}, payload)
        except Exception as error:
            send({"error": type(error).__name__, "unsupported": "does not support" in str(error)})
        else:
            send({"done": True})


if __name__ == "__main__":
    main()
