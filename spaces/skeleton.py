"""What all networks of a space have in common: input, stem resolution and neuron."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from spaces.errors import InputError

STEM_STAGES = 4
"""Convolution stages of the V1 stem that may end in a max pooling."""


@dataclass(frozen=True)
class Skeleton:
    """The fixed part of every architecture of a space.

    Attributes:
        image_size: Height and width of the input in pixels.
        in_channels: Channels of the input, 1 for grey and 3 for colour images.
        num_classes: Width of the classification head.
        stem_pools: Stem stages, counted from 0 to 3, that end in a 3x3 max pooling of stride 2.
        neuron: Neuron model, a row of ``supernet.neurons.NEURONS`` or ``package.module:Name`` of the user's own.
        surrogate: Surrogate gradient, a row of ``supernet.neurons.SURROGATES``.
        soft_reset: Whether a spike subtracts the threshold instead of zeroing the membrane.
    """

    image_size: int
    in_channels: int
    num_classes: int
    stem_pools: tuple[int, ...] = (2, 3)
    neuron: str = "lif"
    surrogate: str = "sigmoid"
    soft_reset: bool = False

    def __post_init__(self) -> None:
        for field in ("image_size", "in_channels", "num_classes"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 2**16:
                raise InputError(f"{field} must be a positive integer, got {value!r}")
        pools, stages = self.stem_pools, list(range(STEM_STAGES))
        listed = isinstance(pools, list | tuple) and all(type(pool) is int and pool in stages for pool in pools)
        if not listed or len(set(pools)) != len(pools):
            raise InputError(f"stem_pools must list different stages out of {stages}, got {pools!r}")
        object.__setattr__(self, "stem_pools", tuple(pools))
        for field in ("neuron", "surrogate"):
            if not isinstance(getattr(self, field), str):
                raise InputError(f"{field} must be a name, got {getattr(self, field)!r}")
        if not isinstance(self.soft_reset, bool):
            raise InputError(f"soft_reset must be true or false, got {self.soft_reset!r}")

    @property
    def grid_size(self) -> int:
        """Height and width of the token grid behind the stem."""
        size = self.image_size
        for _ in self.stem_pools:
            size = (size + 1) // 2
        return size

    def with_input(self, image_size: int, in_channels: int, num_classes: int) -> Skeleton:
        """Return the same skeleton for images of another size, channel count or class count."""
        return replace(self, image_size=image_size, in_channels=in_channels, num_classes=num_classes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {**asdict(self), "stem_pools": list(self.stem_pools)}
