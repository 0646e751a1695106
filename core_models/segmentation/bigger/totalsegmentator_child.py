"""Standalone program: a scan on stdin → TotalSegmentator's labels on stdout, without a connection to anywhere.

Request and answer are NumPy archives: `array` (x, y, z) and `affine` (RAS mm) with `options` as JSON (task, fast,
device), and `labels` (x, y, z) with `names` as JSON ({"5": "liver", …}).
"""

from __future__ import annotations

import io
import json
import os
import socket
import sys


def _stay_offline() -> None:
    """No connection may be opened to an address of the internet family; pipes of this machine go on."""
    real = socket.socket.connect

    def refuse(self: socket.socket, address):  # type: ignore[no-untyped-def]
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise ConnectionRefusedError("no connection is opened from here")
        return real(self, address)

    socket.socket.connect = refuse  # type: ignore[method-assign]
    socket.socket.connect_ex = refuse  # type: ignore[method-assign]


def main() -> None:
    _stay_offline()
    given = sys.stdin.buffer.read()
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints is no part of the answer
    import nibabel
    import numpy as np
    from totalsegmentator.map_to_binary import class_map
    from totalsegmentator.python_api import totalsegmentator

    with np.load(io.BytesIO(given), allow_pickle=False) as request:
        image = nibabel.Nifti1Image(request["array"], request["affine"])
        options = json.loads(str(request["options"]))
    result = totalsegmentator(image, None, ml=True, quiet=True, nr_thr_resamp=1, nr_thr_saving=1, **options)
    labels = np.asarray(result.dataobj).astype(np.uint8)
    written = io.BytesIO()
    names = {str(number): name for number, name in class_map[options["task"]].items()}
    np.savez(written, labels=labels, names=np.array(json.dumps(names)))
    answer.write(written.getvalue())
    answer.flush()


if __name__ == "__main__":
    main()
