"""What evaluators see: a candidate whose expensive parts are computed when first asked for, and once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from evaluators.operations import OperationCounts, counting
from evaluators.senses import Sense
from spaces import Architecture, Skeleton
from supernet.calibrate import calibrate
from supernet.data import Normalise, Split
from supernet.engine import Engine, SubnetResult
from supernet.extract import extract
from supernet.layers import EntangledBatchNorm
from supernet.spikformer import Spikformer


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

    def calibration_batches(self) -> Iterator[Tensor]:
        """Yield normalised calibration images in batches of like size, as each batch weighs the same."""
        count = len(self.calibration)
        size = math.ceil(count / math.ceil(count / self.batch_size))
        # A last batch of one image is left out: one value per channel has no variance.
        return (x for x, _ in self.normalise.batches(self.calibration, size) if len(x) > 1)


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


class SharedOutcomes:
    """Outcomes of several architectures, computed together when the first one is asked for.

    Args:
        engine: Fast scoring of the supernet.
        architectures: What will be asked for.
        images: Calibration and scored images.
    """

    def __init__(self, engine: Engine, architectures: Sequence[Architecture], images: ScoringImages) -> None:
        self._engine, self._architectures, self._images = engine, tuple(architectures), images
        self._results: dict[Architecture, SubnetResult] | None = None
        self.seconds = 0.0
        """Wall time of each architecture's part of what was computed together."""
        self.broken = False
        """Whether computing them together has failed, perhaps for the sake of one of them."""

    @property
    def count(self) -> int:
        """Number of architectures."""
        return len(self._architectures)

    def __getitem__(self, architecture: Architecture) -> Outcome:
        """Return the outcome of one of the architectures."""
        if self._results is None:
            images = self._images
            scored = (x for x, _ in images.normalise.batches(images.scored, images.batch_size))
            self.broken, began = True, time.perf_counter()
            results = self._engine.score(self._architectures, images.calibration_batches(), scored)
            self.broken = False
            self.seconds = (time.perf_counter() - began) / len(self._architectures)
            self._results = dict(zip(self._architectures, results, strict=True))
        result = self._results[architecture]
        labels = torch.from_numpy(self._images.scored.labels).to(result.logits.device)
        correct = int((result.logits.argmax(dim=1) == labels).sum())
        return Outcome(correct, result.images, OperationCounts(result.layers, result.neurons, result.images))

    def calibrate(self, subnet: Spikformer) -> Spikformer:
        """Give a subnet the BatchNorm statistics that it is scored with, and return it."""
        found = self._engine.statistics(subnet.architecture, self._images.calibration_batches())
        for layer, row in found.items():
            norm = subnet.get_submodule(f"{layer.rpartition('.')[0]}.bn")
            assert isinstance(norm, EntangledBatchNorm)
            norm.set_statistics(row.mean, row.variance)
        return subnet


class Candidate:
    """An architecture on its way to its scores.

    Args:
        architecture: What to score.
        supernet: Trained supernet, which is only read.
        images: Calibration and scored images.
        outcomes: Where the outcome comes from; without one the subnet is run by itself, layer by layer.
    """

    def __init__(
        self,
        architecture: Architecture,
        supernet: Spikformer,
        images: ScoringImages,
        outcomes: SharedOutcomes | None = None,
    ) -> None:
        self.architecture = architecture
        self._supernet = supernet
        self._images = images
        self._outcomes = outcomes

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
        subnet = extract(self._supernet, self.architecture)
        if self._outcomes is not None:
            return self._outcomes.calibrate(subnet)
        device = self._supernet.head.weight.device
        return calibrate(subnet, (x.to(device) for x in self._images.calibration_batches()))

    @cached_property
    def outcome(self) -> Outcome:
        """Answers and operations of one pass over the scored images."""
        if self._outcomes is not None:
            return self._outcomes[self.architecture]
        images, correct = self._images, 0
        with torch.no_grad(), counting(self.subnet) as operations:
            for x, labels in images.normalise.batches(images.scored, images.batch_size):
                answers = self.subnet(x.to(self._supernet.head.weight.device)).argmax(dim=1)
                correct += int((answers.cpu() == labels).sum())
        return Outcome(correct, len(images.scored), operations)


class Evaluator(Protocol):
    """Maps a candidate to metrics, in their natural sense, with units in their names.

    One that has ``static = True`` looks at ``candidate.architecture``, ``skeleton`` and ``largest`` only, and gives
    finite values for every architecture of a space: its metrics are known before anything is scored.
    """

    @property
    def metrics(self) -> Mapping[str, Sense]:
        """Names of the metrics, and whether more or less of each is better."""
        ...

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return a finite value for each of ``metrics``."""
        ...
