"""Search problems whose answers are at hand: SpikeNAS, HW-GPT-Bench, and an oracle of the OFA-MobileNetV3 space.

=========== ==================================== ======================================= ====================
problem     space                                objectives                              answers
=========== ==================================== ======================================= ====================
spikenas    15,625 spiking cells                 test accuracy, derived energy           complete table
hwgpt       10,000 sampled transformers          perplexity, energy on an H100           those rows
ofa         2.2e19 convolutional networks        top-1 accuracy, MACs                    oracle fitted on logs
=========== ==================================== ======================================= ====================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evaluators import Sense
from nas.config import load_recipe
from nas.evaluation import Evaluation, Job, Scores, SplitName, attempt
from nas.problem import ArchitectureProblem
from nas.results import hypervolume
from nas.table_source import TableSource

from .oracle import Oracle, fit_oracle
from .spaces import GeneSpace

TABLES = Path(__file__).parents[1] / "tables"


@dataclass(frozen=True)
class Arena:
    """A problem with its answers.

    Attributes:
        name: Row of :data:`PROBLEMS`.
        problem: Space and objectives; the first objective is the quality that corruption hurts.
        job: Where the answers come from.
        reference: Worst value of each objective that counts.
        whole: Hypervolume that results are a share of: of the whole table, or of the box from ideal to reference.
    """

    name: str
    problem: ArchitectureProblem
    job: Job
    reference: Mapping[str, float]
    whole: float


def spikenas(folder: Path) -> Arena:
    """Return all spiking cells on CIFAR-10; the accuracy that counts is above its 5 % quantile."""
    return _table("spikenas", folder, {"test_acc": 0.05})


def hwgpt(folder: Path) -> Arena:
    """Return 10,000 subnets of a GPT-2 supernet to choose among, by perplexity and energy on an H100."""
    return _table("hwgpt_s", folder, {})


def _table(recipe: str, folder: Path, quantiles: Mapping[str, float]) -> Arena:
    """Return the problem of a recipe, the reference being the worst values of the table or given quantiles."""
    source = TableSource.open(load_recipe(TABLES / f"{recipe}.toml"), folder)
    job = source.answers()
    rows = list(job.open().score_together(list(source.space)))
    points = np.array([[row.metrics[name] for name in source.objectives] for row in rows])
    reference = {}
    for (name, sense), values in zip(source.objectives.items(), points.T, strict=True):
        worst = quantiles.get(name, 0.0)
        reference[name] = float(np.quantile(values, worst if sense == "max" else 1 - worst))
    whole = hypervolume(points, source.objectives, reference)
    problem = ArchitectureProblem(source.space, source.objectives, reference=reference)
    return Arena(recipe.removesuffix("_s"), problem, job, reference, whole)


@dataclass(frozen=True)
class OracleJob:
    """Answers from an oracle."""

    oracle: Oracle
    space: GeneSpace
    threads: int = 1
    device: str = "cpu"

    def open(self) -> OracleJob:
        """Return what scores: the job itself."""
        return self

    def in_turns(self, architectures: Sequence[Any]) -> Sequence[Any]:
        """Return architectures as they are."""
        return architectures

    def score_together(self, architectures: Sequence[Any], _: SplitName = "validation") -> Iterator[Evaluation]:
        """Yield the evaluations of architectures in order."""
        values = self.oracle.predict(np.array([self.space.encode(a) for a in architectures]))
        for architecture, (top1, macs) in zip(architectures, values.tolist(), strict=True):
            yield Evaluation(architecture, {"top1": top1, "macs": macs}, 0.0)


def ofa(folder: Path) -> Arena:
    """Return the OFA-MobileNetV3 space with an oracle of top-1 accuracy and exact MACs.

    Reference: least accuracy in the logs, MACs of the largest network; ideal: best accuracy in the logs, MACs of
    the smallest.
    """
    oracle = fit_oracle(folder / "nas" / "dynas_ofa_mbv3_search_logs.csv.gz")
    space = GeneSpace("ofa", oracle.choices, tuple(oracle.choices), oracle.size, oracle.active)
    low, high = (float(oracle.predict(np.full((1, len(space.columns)), index))[0, 1]) for index in (0, 2))
    worst, best = oracle.logged_top1
    objectives: dict[str, Sense] = {"top1": "max", "macs": "min"}
    reference = {"top1": worst, "macs": high}
    whole = hypervolume(np.array([[best, low]]), objectives, reference)
    problem = ArchitectureProblem(space, objectives, reference=reference)
    return Arena("ofa", problem, OracleJob(oracle, space), reference, whole)


PROBLEMS: dict[str, Callable[[Path], Arena]] = {"spikenas": spikenas, "hwgpt": hwgpt, "ofa": ofa}
"""Builders by name; each takes the data folder."""

CORRUPTED_SHARE, CORRUPTED_POINTS = 0.1, (5.0, 30.0)
"""Share of evaluations that a corrupted problem hurts, and by how many points of its first objective."""


@dataclass(frozen=True)
class CorruptedJob:
    """Answers of another job, some of which are worse than they should be.

    Which, and by how much, follows from the seed and the architecture alone.

    Attributes:
        job: The other job.
        metric: What is hurt.
        sense: Whether more or less of it is better.
        seed: Seed of the corruption.
    """

    job: Job
    metric: str
    sense: Sense
    seed: int
    threads: int = 1
    device: str = "cpu"

    def open(self) -> CorruptedScores:
        """Return what scores."""
        return CorruptedScores(self, self.job.open())

    def in_turns(self, architectures: Sequence[Any]) -> Sequence[Any]:
        """Return architectures as they are."""
        return architectures


@dataclass(frozen=True)
class CorruptedScores:
    """What scores for a corrupted job."""

    job: CorruptedJob
    scores: Scores

    def score_together(self, architectures: Sequence[Any], split: SplitName = "validation") -> Iterator[Evaluation]:
        """Yield the evaluations of architectures in order."""
        for evaluation in self.scores.score_together(architectures, split):
            yield attempt(evaluation.architecture, partial(self._metrics, evaluation))

    def _metrics(self, evaluation: Evaluation) -> Mapping[str, float]:
        metrics, job = dict(evaluation.metrics), self.job
        rng = np.random.default_rng([job.seed, int(evaluation.architecture.key, 16)])
        if rng.random() < CORRUPTED_SHARE:
            metrics[job.metric] += rng.uniform(*CORRUPTED_POINTS) * (-1.0 if job.sense == "max" else 1.0)
        return metrics


def corrupted(arena: Arena, seed: int) -> Arena:
    """Return a problem in which a tenth of the architectures score worse than they are.

    Corruption only hurts, so that no front shows what is not there.
    """
    metric, sense = next(iter(arena.problem.objectives.items()))
    return replace(arena, name=f"{arena.name}-corrupted", job=CorruptedJob(arena.job, metric, sense, seed))
