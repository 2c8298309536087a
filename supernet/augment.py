"""Named augmentations by kornia, and mixup [Zhang2018]_.

.. [Zhang2018] Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
"""

from __future__ import annotations

from collections.abc import Callable

import kornia.augmentation as K
import torch
from torch import Tensor, nn
from torch.distributions import Beta

from spaces import InputError

AUGMENTATIONS: dict[str, Callable[[int], nn.Module]] = {
    "affine": lambda _: K.RandomAffine(degrees=10.0, translate=(0.08, 0.08), scale=(0.9, 1.1), p=0.9),
    "crop": lambda size: K.RandomCrop((size, size), padding=max(1, size // 8)),
    "flip": lambda _: K.RandomHorizontalFlip(),
    "erasing": lambda _: K.RandomErasing(p=0.25),
    "randaugment": lambda _: K.auto.RandAugment(n=2, m=9),
}
"""Builders by name; each takes the image size in pixels. ``randaugment`` needs colour images."""


def build_augmentation(names: tuple[str, ...], image_size: int, channels: int) -> nn.Sequential:
    """Return named augmentations in order, mapping pixels in [0, 1] ``(B, C, H, W)`` to the same shape.

    Raises:
        InputError: If a name is unknown, or needs colour where images are grey.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise InputError(f"augment must list some of {sorted(AUGMENTATIONS)}, got {name!r}")
    if "randaugment" in names and channels != 3:
        raise InputError(f"randaugment needs colour images, got {channels} channel(s); use affine, crop or flip")
    return nn.Sequential(*(AUGMENTATIONS[name](image_size) for name in names))


def mixup(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return each image and target blended with another one of the batch, by one share ~ Beta(alpha, alpha).

    Args:
        images: ``(B, C, H, W)``.
        targets: Class probabilities ``(B, classes)``.
        alpha: Concentration; 0 returns the input.
    """
    if alpha == 0:
        return images, targets
    share = Beta(torch.tensor(alpha), torch.tensor(alpha)).sample()
    other = torch.randperm(len(images))
    return torch.lerp(images[other], images, share), torch.lerp(targets[other], targets, share)
