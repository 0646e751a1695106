"""Standalone program: DICOM files on stdin → decoded frames on stdout, so a broken codec kills only it.

Request: 8 bytes length (big endian), then the file.  Answer: messages of 4 bytes length, JSON head, `size` bytes;
heads are {"shape", "dtype", "size"} per frame, then {"done": true}, or {"error": class name, "unsupported": bool}.
Argument 1: address-space limit in bytes.
"""

from __future__ import annotations

import io
import json
import sys
import warnings


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

    while len(prefix := source.read(8)) == 8:
        data = source.read(int.from_bytes(prefix, "big"))
        try:
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
            for index in range(int(dataset.get("NumberOfFrames") or 1)):
                # not iter_array: it fails on images whose codestream and header disagree about the sign
                array, _ = decoder.as_array(dataset, index=index, raw=False)
                payload = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
                send({"shape": array.shape, "dtype": array.dtype.newbyteorder("<").str, "size": len(payload)}, payload)
        except Exception as error:
            send({"error": type(error).__name__, "unsupported": "does not support" in str(error)})
        else:
            send({"done": True})


if __name__ == "__main__":
    main()
