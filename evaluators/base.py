"""What evaluators see: a candidate whose expensive parts are computed when first asked for, and once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch

from evaluators.operations import OperationCounts, counting
from spaces import Architecture, Skeleton
from supernet.calibrate import calibrate
from supernet.data import Normalise, Split
from supernet.extract import extract
from supernet.spikformer import Spikformer

Sense = Literal["max", "min"]


@dataclass(frozen=True)
class ScoringImages:
    """Images that scoring uses.

    Attributes:
        calibration: *Training* images that BatchNorm statistics are computed from.
        scored: Images that candidates are scored on: validation in a search, test in a report.
        normalise: Normalisation of the training.
        batch_size: Images per forward pass, of both kinds.
    """

    calibration: Split
    scored: Split
    normalise: Normalise
    batch_size: int


@dataclass(frozen=True)
class Outcome:
    """One pass over the scored images.

    Attributes:
        correct: Images whose largest logit is their label's.
        images: Images seen.
        operations: Operations and spikes of the pass.
    """

    correct: int
    images: int
    operations: OperationCounts


class Candidate:
    """An architecture on its way to its scores.

    Args:
        architecture: What to score.
        supernet: Trained supernet, which is only read.
        images: Calibration and scored images.
    """

    def __init__(self, architecture: Architecture, supernet: Spikformer, images: ScoringImages) -> None:
        self.architecture = architecture
        self._supernet = supernet
        self._images = images

    @property
    def skeleton(self) -> Skeleton:
        """Input, classes and neuron of the network."""
        return self._supernet.skeleton

    @property
    def largest(self) -> Architecture:
        """Largest architecture of the supernet."""
        return self._supernet.architecture

    @cached_property
    def subnet(self) -> Spikformer:
        """Stand-alone copy with inherited weights and statistics of its own, in evaluation mode."""
        images = self._images
        count = len(images.calibration)
        size = math.ceil(count / math.ceil(count / images.batch_size))  # alike, as each batch weighs the same
        batches = images.normalise.batches(images.calibration, size)
        # A last batch of one image is left out: one value per channel has no variance.
        return calibrate(extract(self._supernet, self.architecture), (x for x, _ in batches if len(x) > 1))

    @cached_property
    def outcome(self) -> Outcome:
        """Answers and operations of one pass over the scored images."""
        images, correct = self._images, 0
        with torch.no_grad(), counting(self.subnet) as operations:
            for x, labels in images.normalise.batches(images.scored, images.batch_size):
                correct += int((self.subnet(x).argmax(dim=1) == labels).sum())
        return Outcome(correct, len(images.scored), operations)


class Evaluator(Protocol):
    """Maps a candidate to metrics, in their natural sense, with units in their names."""

    @property
    def metrics(self) -> Mapping[str, Sense]:
        """Names of the metrics, and whether more or less of each is better."""
        ...

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return a finite value for each of ``metrics``."""
        ...
