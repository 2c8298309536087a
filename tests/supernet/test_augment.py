"""Augmentations and mixup."""

import numpy as np
import pytest
import torch

from spaces import InputError
from supernet.augment import AUGMENTATIONS, build_augmentation, mixup


def pixels(count=16, channels=3, size=8):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def channels_of(name):
    return (3,) if name == "randaugment" else (1, 3)


ROWS = [(name, channels) for name in AUGMENTATIONS for channels in channels_of(name)]


@pytest.mark.parametrize(("name", "channels"), ROWS)
@pytest.mark.parametrize("size", [8, 9, 28])
def test_an_augmentation_maps_pixels_to_pixels_of_the_same_shape(name, channels, size):
    torch.manual_seed(0)
    x = pixels(16, channels, size)
    out = build_augmentation((name,), size, channels)(x)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert out.min() >= -1e-5
    assert out.max() <= 1 + 1e-5


@pytest.mark.parametrize(("name", "channels"), ROWS)
def test_an_augmentation_follows_from_the_global_seed_and_changes_images_and_not_its_input(name, channels):
    x = pixels(32, channels)
    kept, augment = x.clone(), build_augmentation((name,), 8, channels)
    torch.manual_seed(1)
    first = augment(x)
    torch.manual_seed(1)
    assert torch.equal(augment(x), first)
    torch.manual_seed(2)
    assert not torch.equal(augment(x), first)
    assert not torch.equal(first, x)
    assert torch.equal(x, kept)


def test_a_flip_mirrors_about_half_the_images():
    torch.manual_seed(0)
    x = pixels(200)
    out = build_augmentation(("flip",), 8, 3)(x)
    mirrored = torch.tensor([torch.equal(b, a.flip(-1)) for a, b in zip(x, out, strict=True)])
    same = torch.tensor([torch.equal(b, a) for a, b in zip(x, out, strict=True)])
    assert (mirrored ^ same).all()
    assert 70 < mirrored.sum() < 130


def test_a_crop_shifts_by_up_to_an_eighth_of_the_image():
    torch.manual_seed(0)
    x = pixels(200, 1)
    shifts = set()
    for before, after in zip(x[:, 0], build_augmentation(("crop",), 8, 1)(x)[:, 0], strict=True):
        padded = torch.nn.functional.pad(before, (1, 1, 1, 1))
        found = [(i, j) for i in range(3) for j in range(3) if torch.equal(after, padded[i : i + 8, j : j + 8])]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) == 9


def test_augmentations_run_in_the_order_of_their_names():
    built = build_augmentation(("flip", "erasing", "crop"), 8, 1)
    assert [type(layer).__name__ for layer in built] == ["RandomHorizontalFlip", "RandomErasing", "RandomCrop"]


def test_no_augmentation_returns_the_image():
    x = pixels()
    assert torch.equal(build_augmentation((), 8, 3)(x), x)


def test_an_unknown_augmentation_is_refused_with_the_known_ones_named():
    with pytest.raises(InputError, match=r"augment must list some of \['affine', 'crop', .*\], got 'rotate'"):
        build_augmentation(("flip", "rotate"), 8, 3)


def test_randaugment_of_grey_images_is_refused():
    with pytest.raises(InputError, match=r"randaugment needs colour images, got 1 channel\(s\); use affine"):
        build_augmentation(("randaugment",), 8, 1)


# --- mixup


def test_without_concentration_mixup_returns_what_it_got(global_states):
    x, targets, states = pixels(), torch.eye(16), global_states()
    images, labels = mixup(x, targets, 0.0)
    assert images is x
    assert labels is targets
    assert global_states() == states


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 8.0])
def test_mixup_blends_images_and_targets_with_one_partner_by_one_share(alpha):
    """Unit vectors as images show which two were blended, and by how much."""
    unit = torch.eye(25).view(25, 1, 5, 5)
    torch.manual_seed(0)
    images, targets = mixup(unit, torch.eye(25), alpha)
    torch.testing.assert_close(images.flatten(1), targets)
    torch.testing.assert_close(targets.sum(1), torch.ones(25))
    shares = targets.diagonal()[targets.diagonal() < 1]  # an image may be its own partner
    assert len(shares) > 20
    torch.testing.assert_close(shares, shares[:1].expand_as(shares))
    share = shares[0]
    partners = targets - torch.diag_embed(targets.diagonal())
    assert ((partners - (1 - share)).abs().min(dim=1).values[targets.diagonal() < 1] < 1e-6).all()
    torch.testing.assert_close(targets.sum(0), torch.ones(25))  # partners are a permutation


def test_the_share_has_the_moments_of_its_beta_distribution():
    torch.manual_seed(0)
    two = torch.eye(2).view(2, 1, 1, 2)
    drawn = [mixup(two, torch.eye(2), 0.5)[1] for _ in range(2000)]
    shares = np.array([t[0, 0].item() for t in drawn if t[0, 0] != 1])  # those that met the other image
    assert 800 < len(shares) < 1200
    assert shares.mean() == pytest.approx(0.5, abs=0.04)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.5 + 1)), abs=0.01)  # 0.125 for Beta(0.5, 0.5)
