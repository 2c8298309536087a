"""What a worker does: score one architecture. The same code runs in this process and in Ray actors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluators import (
    EVALUATORS,
    UNDER_MODELS,
    Candidate,
    EnergyModel,
    Outcome,
    ScoringImages,
    Sense,
    SharedOutcomes,
    build_evaluators,
    score,
)
from nas.config import RunConfig
from nas.evaluation import Evaluation, SplitName, attempt
from nas.results import RESULT_COLUMNS
from spaces import Architecture, InputError, Skeleton, Space
from supernet.data import ImageData, Normalise, Split, load_data
from supernet.device import keep_large_blocks
from supernet.engine import Engine, in_turns
from supernet.engine.scoring import MEMORY
from supernet.spikformer import Spikformer


@dataclass(frozen=True)
class ScoringJob:
    """All that a worker needs, as plain arrays and values.

    Attributes:
        skeleton: Skeleton of the supernet.
        largest: Architecture of the supernet.
        weights: Arrays of the supernet's state by name; only read.
        calibration: Training images for BatchNorm statistics.
        splits: Images to score on, by split.
        normalise: Normalisation of the training.
        batch_size: Images per forward pass.
        metrics: Evaluator names.
        options: Evaluator options.
        threads: Threads per worker; the same for all, as it can change the last bits of a sum.
        executor: Who computes, a row of ``supernet.neurons.EXECUTORS``; ``reference`` runs each subnet by itself
            in plain torch.
        precision: Products of the scoring, a row of ``supernet.engine.PRECISIONS``.
        memory: Bytes of calibration activations that may wait for the subnets which share them.
        device: Where to compute, as torch names it.
        energy_models: Users' energy models by name, in place of their files.
    """

    skeleton: Skeleton
    largest: Architecture
    weights: Mapping[str, NDArray[Any]]
    calibration: Split
    splits: Mapping[SplitName, Split]
    normalise: Normalise
    batch_size: int
    metrics: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    threads: int = 1
    executor: str = "auto"
    precision: str = "exact"
    memory: int = MEMORY
    device: str = "cpu"
    energy_models: Mapping[str, EnergyModel] = field(default_factory=dict)

    def open(self) -> Scorer:
        """Return what scores, in the worker's process."""
        keep_large_blocks()
        return Scorer(self)

    def in_turns(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        """Return architectures such that those with equal stages follow each other."""
        return list(in_turns(architectures))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute on ``count`` threads inside the block: their number can change the last bits of a sum."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Scorer:
    """Scores architectures of one supernet; nothing survives a call.

    Args:
        job: Supernet, images and evaluators.
    """

    def __init__(self, job: ScoringJob) -> None:
        self._job = job
        self._evaluators = build_evaluators(job.metrics, job.options, job.energy_models)
        with torch.device("meta"):
            self._supernet = Spikformer(job.skeleton, job.largest, job.executor)
        # Ray hands out read-only arrays, which torch cannot wrap: each worker takes one copy.
        state = {name: torch.from_numpy(np.array(array)) for name, array in job.weights.items()}
        self._supernet.load_state_dict(state, assign=True)
        self._supernet.eval().to(job.device)
        self._images = {
            name: ScoringImages(_copy(job.calibration), _copy(split), job.normalise, job.batch_size)
            for name, split in job.splits.items()
        }

    @cached_property
    def _engine(self) -> Engine | None:
        job = self._job
        if job.executor == "reference":
            return None
        return Engine(self._supernet, job.precision, job.executor, job.memory)

    def candidate(self, architecture: Architecture, split: SplitName = "validation") -> Candidate:
        """Return an architecture as evaluators see it."""
        images, engine = self._images[split], self._engine
        outcomes = None if engine is None else SharedOutcomes(engine, [architecture], images)
        return Candidate(architecture, self._supernet, images, outcomes)

    def outcomes(self, architectures: Sequence[Architecture], split: SplitName = "validation") -> list[Outcome]:
        """Return answers and operations of architectures in order, computing once what they have in common."""
        images, engine = self._images[split], self._engine
        shared = None if engine is None else SharedOutcomes(engine, architectures, images)
        with threads(self._job.threads):
            return [Candidate(a, self._supernet, images, shared).outcome for a in architectures]

    def score(self, architecture: Architecture, split: SplitName = "validation") -> Evaluation:
        """Return the evaluation of an architecture; whatever goes wrong becomes a failed one."""
        return next(self.score_together([architecture], split))

    def score_together(
        self, architectures: Sequence[Architecture], split: SplitName = "validation"
    ) -> Iterator[Evaluation]:
        """Yield the evaluations of architectures in order, computing once what they have in common.

        Each is what :meth:`score` gives for it. One that runs out of memory is tried once more with half the batch.
        """
        images, engine = self._images[split], self._engine
        outcomes = None if engine is None else SharedOutcomes(engine, architectures, images)
        for architecture in architectures:
            if outcomes is None or not outcomes.broken:
                evaluation = self._evaluate(architecture, images, outcomes)
            if engine is not None and outcomes is not None and outcomes.broken:
                evaluation = self._evaluate(architecture, images, SharedOutcomes(engine, [architecture], images))
            if evaluation.failure is not None and ran_out_of_memory(evaluation.failure) and images.batch_size >= 4:
                less = replace(images, batch_size=images.batch_size // 2)
                alone = None if engine is None else SharedOutcomes(engine, [architecture], less)
                evaluation = self._evaluate(architecture, less, alone)
            yield evaluation

    def _evaluate(
        self, architecture: Architecture, images: ScoringImages, outcomes: SharedOutcomes | None
    ) -> Evaluation:
        shared = 0.0 if outcomes is None else outcomes.seconds
        candidate = Candidate(architecture, self._supernet, images, outcomes)
        with threads(self._job.threads):
            evaluation = attempt(architecture, partial(score, candidate, self._evaluators))
        seconds = evaluation.seconds
        if outcomes is not None and outcomes.seconds:
            # What was computed together counts for each with its part, not for the one that asked first.
            own = seconds if shared else seconds - outcomes.seconds * outcomes.count
            seconds = max(own, 0.0) + outcomes.seconds
        return replace(evaluation, seconds=seconds)


def ran_out_of_memory(failure: str) -> bool:
    """Return whether a failure says that there was no memory, as Python, torch on CPU and GPU, and CuPy say it."""
    kind = failure.partition(":")[0]
    return kind.endswith(("OutOfMemoryError", "MemoryError")) or "can't allocate memory" in failure


def _copy(split: Split) -> Split:
    return Split(np.array(split.images), np.array(split.labels))


Models = Mapping[str, EnergyModel] | None
"""Users' energy models by name, in place of their files."""


Listed = Mapping[str, Sense] | None
"""Metrics that come from no evaluator, each with its sense; those of the recipe's table by default."""


def metric_senses(config: RunConfig, models: Models = None, listed: Listed = None) -> dict[str, Sense]:
    """Return all metrics of a recipe in order, each with its sense: those of its table, then of its evaluators.

    Raises:
        InputError: If an evaluator claims a metric of the table, or of the user's own source.
    """
    if listed is None:
        listed = {} if config.table is None else config.table.metrics
    evaluators = build_evaluators(config.metrics, config.options, models)
    measured = {name: sense for evaluator in evaluators.values() for name, sense in evaluator.metrics.items()}
    for name in measured:
        if name in listed:
            other = "the table" if config.source is None else config.source
            raise InputError(f"a metric has one source, but {other} and an evaluator both give {name}")
    return {**listed, **measured}


def objective_senses(config: RunConfig, models: Models = None, listed: Listed = None) -> dict[str, Sense]:
    """Return a recipe's objectives in order, each with its sense.

    Raises:
        InputError: If an objective is not among the metrics, or stands there twice.
    """
    senses, objectives = metric_senses(config, models, listed), config.search.objectives
    for name in objectives:
        if name not in senses:
            raise InputError(f"search.objectives must be among the metrics {list(senses)}, got {name!r}")
    if len(set(objectives)) != len(objectives):
        raise InputError(f"search.objectives must differ, got {list(objectives)}")
    return {name: senses[name] for name in objectives}


def check_metric_names(config: RunConfig, space: Space, models: Models = None, listed: Listed = None) -> None:
    """Check that no metric, and no gene of a table or a source, takes the name of another column of the results.

    Raises:
        InputError: If one does.
    """
    taken, test = set(RESULT_COLUMNS), "test_"
    if config.table is not None:  # whose columns may be called anything else
        taken |= {f"{test}{name}" for name in config.search.objectives} if config.table.test else set()
        test = ""
    if config.source is not None:
        taken |= {f"{test}{name}" for name in config.search.objectives}
    for name in space.columns:
        if name in taken:
            raise InputError(f"a gene must not be called one of {sorted(taken)}, got {name!r}")
    taken |= set(space.columns)
    for name in metric_senses(config, models, listed):
        if name in taken or (test and name.startswith(test)):
            rule = f"{test}… or one of" if test else "one of"
            raise InputError(f"a metric must not be called {rule} {sorted(taken)}, got {name!r}")


def check_without_network(metrics: Sequence[str], where: str) -> None:
    """Check that evaluators are such as need no network of Spikefront's.

    Raises:
        InputError: If one does.
    """
    for name in metrics:
        if name in EVALUATORS or name.partition(":")[0] in UNDER_MODELS:
            raise InputError(f"{name} needs a network, which {where} does not have; take it out of metrics")


def load_run_data(config: RunConfig, data_dir: str | Path | None) -> ImageData:
    """Return the images of a recipe."""
    data = load_data(config.images.name, data_dir)
    return replace(data, train=data.train.head(config.images.train_images))


def build_job(config: RunConfig, data: ImageData, supernet: Spikformer, models: Models = None) -> ScoringJob:
    """Return what workers need to score subnets of a trained supernet, on the device that it is on."""
    scoring = config.scoring
    return ScoringJob(
        skeleton=supernet.skeleton,
        largest=supernet.architecture,
        weights={name: tensor.cpu().numpy() for name, tensor in supernet.state_dict().items()},
        calibration=data.train.head(scoring.calibration_images),
        splits={"validation": data.validation.head(scoring.validation_images), "test": data.test},
        normalise=Normalise(*data.moments),
        batch_size=scoring.batch_size,
        metrics=config.metrics,
        options=config.options,
        threads=config.workers.threads,
        executor=supernet.executor,
        precision=config.scoring.precision,
        memory=config.scoring.cache_mb << 20,
        device=supernet.head.weight.device.type,
        energy_models=models or {},
    )
