"""Vectors that are near to whatever is asked → how much of their nearness says nothing.

In a space of many dimensions a few things are among the nearest of nearly every query (hubs: Radovanović et al., JMLR
2010).  Their popularity with queries whose answers nobody needs is taken off: the inverted softmax of Smith et al.,
ICLR 2017.
"""

from __future__ import annotations

import numpy as np

SHARPNESS = 20.0
"""1 / temperature of the softmax; best on validation by a little, see `evaluate_retrieval`."""


def popularity(things: np.ndarray, askers: np.ndarray, sharpness: float = SHARPNESS) -> np.ndarray:
    """(n,) float32 in -1..1: how near each thing is to what usually asks; a ranking takes it off the similarity.

    Args:
        things: (n, d) unit vectors; askers: (m, d) unit vectors of queries of the other kind, m of 1 or more.

    Raises:
        ValueError: nothing asks.
    """
    if not len(askers):
        raise ValueError("popularity needs at least one query")
    near = sharpness * (np.asarray(things, np.float32) @ np.asarray(askers, np.float32).T)  # (n, m)
    most = near.max(1, keepdims=True)
    return ((np.log(np.exp(near - most).mean(1)) + most[:, 0]) / sharpness).astype(np.float32)
