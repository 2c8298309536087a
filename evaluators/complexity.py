"""What an architecture costs before it has weights: parameters and dense operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import ClassVar

import torch

from evaluators.base import Candidate
from evaluators.operations import OperationCounts
from evaluators.senses import Sense
from spaces import Architecture, Skeleton, hidden_width
from supernet.engine import LayerOperations, NeuronOperations
from supernet.neurons import build_neuron
from supernet.stems import STAGE_DIVISORS

_STEM_NEURONS, _BLOCK_NEURONS = len(STAGE_DIVISORS) + 1, 7
"""Neurons of the stem, and of a block: of q, k, v, the attention, its projection, fc1 and fc2."""


def count_parameters(skeleton: Skeleton, architecture: Architecture) -> int:
    """Return the number of trainable values of a network, in closed form: it is asked for of every proposal.

    Weights, the biases of linear layers, two values per channel of each normalisation, and what neurons learn.
    """
    D = architecture.embed_dim
    widths = [skeleton.in_channels, *(D // divisor for divisor in STAGE_DIVISORS), D]
    total = sum((9 * narrow + 2) * wide for narrow, wide in pairwise(widths))
    for layer in architecture.layers:
        hidden = hidden_width(D, layer.mlp_ratio)
        total += 4 * (D + 3) * D + (D + 3) * hidden + (hidden + 3) * D
    neurons = _STEM_NEURONS + _BLOCK_NEURONS * architecture.depth
    return total + (D + 1) * skeleton.num_classes + neurons * _neuron_values(skeleton)


@cache
def _neuron_values(skeleton: Skeleton) -> int:
    """Return the number of trainable values of one neuron, which do not depend on the width of its layer."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_neuron(skeleton, "reference").parameters())


def count_macs(skeleton: Skeleton, architecture: Architecture) -> int:
    """Return the multiply-accumulates of :func:`dense_operations` in closed form."""
    T, D = architecture.timesteps, architecture.embed_dim
    size, narrow = skeleton.image_size, skeleton.in_channels
    stages = []
    for index, divisor in enumerate(STAGE_DIVISORS):
        wide = D // divisor
        stages.append(size * size * 9 * narrow * wide)
        size, narrow = (size + 1) // 2 if index in skeleton.stem_pools else size, wide
    tokens = size * size
    each = sum(stages[1:]) + tokens * 9 * D * D
    for layer in architecture.layers:
        each += tokens * D * (4 * D + 2 * tokens + 2 * hidden_width(D, layer.mlp_ratio))
    return stages[0] + T * each + D * skeleton.num_classes


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
    static: ClassVar[bool] = True

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
    static: ClassVar[bool] = True

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return ``macs``."""
        return {"macs": float(count_macs(candidate.skeleton, candidate.architecture))}
