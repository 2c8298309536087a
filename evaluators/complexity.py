"""What an architecture costs before it has weights: parameters and dense operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from evaluators.base import Candidate, Sense
from evaluators.operations import OperationCounts, counting
from spaces import Architecture, Skeleton
from supernet.spikformer import Spikformer


def count_parameters(skeleton: Skeleton, architecture: Architecture) -> int:
    """Return the number of trainable values of a network; no memory is taken for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Spikformer(skeleton, architecture).parameters())


def dense_operations(skeleton: Skeleton, architecture: Architecture) -> OperationCounts:
    """Return the dense operations for one image, found by running the network without data."""
    with torch.device("meta"):
        network = Spikformer(skeleton, architecture).eval()
        size = skeleton.image_size
        with torch.no_grad(), counting(network) as counts:
            network(torch.empty(1, skeleton.in_channels, size, size))
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
