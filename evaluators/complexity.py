"""What an architecture costs before it has weights: parameters and dense operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from evaluators.base import Candidate, Sense
from evaluators.operations import OperationCounts
from spaces import Architecture, Skeleton, hidden_width
from supernet.engine import LayerOperations, NeuronOperations
from supernet.spikformer import Spikformer
from supernet.stems import STAGE_DIVISORS


def count_parameters(skeleton: Skeleton, architecture: Architecture) -> int:
    """Return the number of trainable values of a network; no memory is taken for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Spikformer(skeleton, architecture).parameters())


def dense_operations(skeleton: Skeleton, architecture: Architecture) -> OperationCounts:
    """Return what happens to one image in a network that never spikes, worked out from the shapes of its layers."""
    T, D = architecture.timesteps, architecture.embed_dim
    counts = OperationCounts(images=1)

    def layer(name: str, kind: str, positions: int, n_in: int, n_out: int, kernel: int = 1, runs: int = T) -> None:
        weights = kernel * kernel * n_in * n_out
        row = LayerOperations(kind, analog=name in _ANALOG, macs=runs * positions * weights)
        row.inputs, row.outputs, row.weights = runs * positions * n_in, runs * positions * n_out, weights
        counts.layers[name] = row
        if name != "head":
            neurons(name.rpartition(".")[0], positions * n_out)

    def neurons(name: str, count: int) -> None:
        counts.neurons[f"{name}.neuron"] = NeuronOperations(T * count, (0,) * T)

    def product(name: str, inputs: int, outputs: int) -> None:
        counts.layers[name] = LayerOperations("product", macs=T * tokens * tokens * D, inputs=inputs, outputs=outputs)

    size, narrow = skeleton.image_size, skeleton.in_channels
    for index, divisor in enumerate(STAGE_DIVISORS):
        wide = D // divisor
        layer(f"stem.stages.{index}.conv", "convolution", size * size, narrow, wide, 3, T if index else 1)
        size, narrow = (size + 1) // 2 if index in skeleton.stem_pools else size, wide
    layer("stem.position.conv", "convolution", size * size, D, D, 3)
    tokens = size * size
    for index, gene in enumerate(architecture.layers):
        block, hidden = f"blocks.{index}", hidden_width(D, gene.mlp_ratio)
        values, entries = T * tokens * D, T * tokens * tokens * gene.num_heads
        for part in ("q", "k", "v", "proj"):
            layer(f"{block}.attention.{part}.linear", "linear", tokens, D, D)
        product(f"{block}.attention.scores", 2 * values, entries)
        product(f"{block}.attention.mix", entries + values, values)
        neurons(f"{block}.attention", tokens * D)
        layer(f"{block}.fc1.linear", "linear", tokens, D, hidden)
        layer(f"{block}.fc2.linear", "linear", tokens, hidden, D)
    layer("head", "linear", 1, D, skeleton.num_classes, runs=1)
    return counts


_ANALOG = ("stem.stages.0.conv", "head")


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
