"""Augmentation: nothing at strength zero, masks that move with their pictures, grey levels that stay grey levels."""

import math

import pytest
import torch

from core_models.foundation.augment import PLAIN, Strength, invert, tone, warp, warp_grid


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 3, size: int = 32) -> torch.Tensor:
    return torch.rand(n, 1, size, size, generator=seeded(9))


def only(**changes: float) -> Strength:
    return Strength(**{**vars(PLAIN), **changes})


def test_strength_zero_is_the_picture_itself():
    x = pictures()
    moved = warp(x, warp_grid(3, 32, PLAIN, seeded()))
    assert torch.allclose(moved, x, atol=1e-5)
    assert torch.equal(tone(x.clone(), PLAIN, seeded()), x)
    turned, which = invert(x, PLAIN, seeded())
    assert torch.equal(turned, x)
    assert not which.any()


def test_a_mirror_turns_left_into_right():
    x = pictures()
    moved = warp(x, warp_grid(3, 32, only(mirror=1.0), seeded()))
    assert torch.allclose(moved, x.flip(-1), atol=1e-5)


def test_a_mask_moves_as_its_picture_does():
    x = torch.zeros(8, 1, 64, 64)
    x[:, :, 20:40, 10:30] = 1.0
    grid = warp_grid(8, 64, Strength(mirror=0.5), seeded(3))
    picture, mask = warp(x, grid), warp(x, grid, nearest=True)
    assert not torch.allclose(picture, x)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert ((picture > 0.5).float() - mask).abs().mean() < 0.01


@pytest.mark.parametrize("degrees", [10.0, 40.0])
def test_rotation_stays_within_its_limit_and_keeps_areas(degrees):
    theta = warp_grid(200, 32, only(rotate=degrees), seeded(4))
    step = theta[:, 0, -1] - theta[:, 0, 0]  # the first row's direction in the source
    angle = torch.atan2(step[:, 1], step[:, 0]) * 180 / math.pi
    assert angle.abs().max() <= degrees
    assert angle.abs().max() > degrees / 2
    assert torch.allclose(step.norm(dim=1), step.norm(dim=1).mean().expand(200), atol=1e-4)


def test_smaller_pictures_are_averaged_not_skipped():
    stripes = torch.zeros(1, 1, 256, 256)
    stripes[..., ::2] = 1.0
    small = warp(stripes, warp_grid(1, 64, PLAIN, seeded()))
    assert (small - 0.5).abs().max() < 0.1


def test_tone_stays_in_range_is_finite_and_changes_something():
    x = pictures(16)
    changed = tone(x.clone(), Strength(), seeded(5))
    assert torch.isfinite(changed).all()
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert not torch.allclose(changed, x)


def test_inversion_says_which_pictures_were_turned_over():
    x = pictures(40)
    turned, which = invert(x, only(invert=0.5), seeded(6))
    assert 5 < int(which.sum()) < 35
    assert torch.allclose(turned[which], 1 - x[which])
    assert torch.equal(turned[~which], x[~which])


def test_the_same_seed_gives_the_same_picture():
    one, two = (tone(warp(pictures(), warp_grid(3, 32, Strength(), g)), Strength(), g) for g in (seeded(7), seeded(7)))
    assert torch.equal(one, two)


def test_spread_goes_farther_in_geometry_alone():
    wide = Strength().spread(2.0)
    assert (wide.rotate, wide.scale, wide.shift) == (20.0, 0.3, 0.12)
    assert (wide.tone, wide.invert, wide.erase, wide.mirror) == (1.0, 0.04, 0.3, 0.0)
    near, far = (warp_grid(64, 16, how, seeded()) for how in (Strength(), wide))
    still = warp_grid(64, 16, PLAIN, seeded())
    assert (far - still).abs().mean() > 1.6 * (near - still).abs().mean()
