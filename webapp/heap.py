"""What the C library's heap keeps of freed memory → the system.

Every click is answered in a thread of its own, glibc gives threads heaps of their own, and each keeps what its thread
freed: on the demo CT some hundred megabytes after a few clicks.  Other C libraries have no such calls and are left as
they are.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
ARENAS = 2


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def few_arenas() -> bool:
    """Have all threads share `ARENAS` heaps; to be called before there are many.  Whether that was possible."""
    library = _glibc()
    return library is not None and bool(library.mallopt(ARENA_MAX, ARENAS))


def give_back() -> bool:
    """Return freed memory to the system; some milliseconds.  Whether there was any."""
    library = _glibc()
    return library is not None and bool(library.malloc_trim(0))
