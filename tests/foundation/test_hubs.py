"""Popularity: what is near to all that asks is told from what is near to one."""

import numpy as np
import pytest

from core_models.foundation.hubs import popularity


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_what_all_ask_for_is_popular():
    askers = unit(np.eye(8))
    things = unit(np.vstack([np.ones(8), np.eye(8)[0] - np.eye(8)[1]]))
    hub, one = popularity(things, askers, 5.0)
    assert hub > one
    assert popularity(things, askers[:1], 5.0)[0] == pytest.approx(float(things[0] @ askers[0]), abs=1e-6)


def test_it_lies_between_the_mean_and_the_nearest_and_never_overflows():
    random = np.random.default_rng(0)
    things, askers = unit(random.normal(size=(20, 8))), unit(random.normal(size=(30, 8)))
    near = things @ askers.T
    for sharpness in (0.1, 20.0, 1e4):
        found = popularity(things, askers, sharpness)
        assert np.isfinite(found).all()
        assert (found >= near.mean(1) - 1e-3).all()
        assert (found <= near.max(1) + 1e-3).all()


def test_taking_it_off_finds_the_partner_that_a_hub_hid():
    """Images ask for their own texts; a text that is the mean of all is nearer to each than its own."""
    random = np.random.default_rng(1)
    images = unit(random.normal(size=(60, 16)) + 1.5)
    texts = unit(images + random.normal(size=images.shape) * 0.8)
    texts[0] = unit(images.mean(0)[None])[0]
    likeness = images[30:] @ texts.T
    fair = likeness - popularity(texts, images[:30])
    assert (likeness.argmax(1) == 0).mean() > 0.5
    assert (fair.argmax(1) == 0).mean() < 0.2


def test_nothing_that_asks_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        popularity(np.eye(2), np.zeros((0, 2)))
