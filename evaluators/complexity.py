"""What an architecture costs before it has weights: parameters and dense operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from evaluators.base import Candidate, Sense
from evaluators.operations import OperationCounts
from spaces import Architecture, Skeleton, hidden_width
from supernet.engine import LayerOperations
from supernet.spikformer import Spikformer
from supernet.stems import STAGE_DIVISORS


def count_parameters(skeleton: Skeleton, architecture: Architecture) -> int:
    """Return the number of trainable values of a network; no memory is taken for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Spikformer(skeleton, architecture).parameters())


def dense_operations(skeleton: Skeleton, architecture: Architecture) -> OperationCounts:
    """Return the dense operations for one image, worked out from the shapes of the layers."""
    T, D = architecture.timesteps, architecture.embed_dim
    counts = OperationCounts(images=1)

    def add(name: str, kind: str, macs: int, analog: bool = False) -> None:
        counts.layers[name] = LayerOperations(kind, analog, macs)

    size, narrow = skeleton.image_size, skeleton.in_channels
    for index, divisor in enumerate(STAGE_DIVISORS):
        wide, analog = D // divisor, index == 0
        macs = size * size * 9 * narrow * wide
        add(f"stem.stages.{index}.conv", "convolution", macs if analog else T * macs, analog)
        size, narrow = (size + 1) // 2 if index in skeleton.stem_pools else size, wide
    add("stem.position.conv", "convolution", T * size * size * 9 * D * D)
    tokens = size * size
    for index, layer in enumerate(architecture.layers):
        block, hidden = f"blocks.{index}", hidden_width(D, layer.mlp_ratio)
        for part in ("q", "k", "v", "proj"):
            add(f"{block}.attention.{part}.linear", "linear", T * tokens * D * D)
        for part in ("scores", "mix"):
            add(f"{block}.attention.{part}", "product", T * tokens * tokens * D)
        for part in ("fc1", "fc2"):
            add(f"{block}.{part}.linear", "linear", T * tokens * D * hidden)
    add("head", "linear", D * skeleton.num_classes, analog=True)
    return counts


@dataclass(frozen=True)
class Parameters:
    """Trainable values of the network."""

    metrics: ClassVar[Mapping[str, Sense]] = {"parameters": "min"}

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return ``parameters``."""
        return {"parameters": float(count_parameters(candidate.skeleton, candidate.architecture))}


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates that a dense network of this shape does per image.

    Every layer once per timestep; the first convolution, whose input is the same at each, and the head once.
    Padding is counted, BatchNorm and neurons are not.
    """

    metrics: ClassVar[Mapping[str, Sense]] = {"macs": "min"}

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return ``macs``."""
        return {"macs": dense_operations(candidate.skeleton, candidate.architecture).macs_per_image}
