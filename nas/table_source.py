"""Scores from a table of known results, in place of a supernet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from evaluators import (
    Candidate,
    Evaluator,
    ListedCandidate,
    Sense,
    StaticMetrics,
    Table,
    build_evaluators,
)
from evaluators import score as score_candidate
from nas.config import RunConfig
from nas.evaluation import Evaluation, SplitName, attempt
from nas.progress import Reporter
from nas.scoring import check_metric_names, check_without_network, metric_senses, objective_senses
from nas.storage import Store
from nas.tables import ResultTable, locate_table, read_table
from spaces import Genotype, InputError, TableSpace

TABLE = "table"
"""Name of the evaluator that looks up a table's metrics."""


@dataclass(frozen=True)
class TableJob:
    """All that a worker needs to answer from a table.

    Attributes:
        space: Rows of the table.
        senses: Metrics of the table, each with its sense.
        splits: Values of each metric in the order of the rows, by split.
        metrics: Further evaluators, which look at ``candidate.architecture`` only.
        options: Evaluator options.
        threads: Threads per worker.
        device: Where to compute.
    """

    space: TableSpace
    senses: Mapping[str, Sense]
    splits: Mapping[SplitName, Mapping[str, NDArray[Any]]]
    metrics: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    threads: int = 1
    device: str = "cpu"

    def open(self) -> TableScorer:
        """Return what scores, in the worker's process."""
        return TableScorer(self)

    def in_turns(self, architectures: Sequence[Any]) -> Sequence[Any]:
        """Return architectures as they are: nothing is computed together."""
        return architectures


class TableScorer:
    """Answers from a table.

    Args:
        job: Table and further evaluators.
    """

    def __init__(self, job: TableJob) -> None:
        own = build_evaluators(job.metrics, job.options)
        self._evaluators: dict[SplitName, dict[str, Evaluator]] = {
            split: {TABLE: Table(job.space, job.senses, values), **own} for split, values in job.splits.items()
        }

    def score_together(self, architectures: Sequence[Any], split: SplitName = "validation") -> Iterator[Evaluation]:
        """Yield the evaluations of rows in order; a missing value becomes a failed one."""
        for architecture in architectures:
            # Evaluators are written for any candidate; these look at its architecture only.
            candidate = cast(Candidate, ListedCandidate(architecture))
            yield attempt(architecture, partial(score_candidate, candidate, self._evaluators[split]))


@dataclass(frozen=True)
class TableSource:
    """A checked recipe of a table.

    Attributes:
        config: Recipe.
        table: Rows and values.
        objectives: Objectives in order, each with its sense.
    """

    config: RunConfig
    table: ResultTable
    objectives: Mapping[str, Sense]

    @classmethod
    def open(cls, config: RunConfig, data_dir: str | Path | None) -> TableSource:
        """Read the table of a recipe; errors are those of ``open_source``."""
        chosen = config.lookup
        path = locate_table(chosen.file, data_dir)
        check_without_network(config.metrics, "a table")
        objectives = objective_senses(config)
        columns = list(dict.fromkeys([*chosen.metrics, *chosen.test.values()]))
        table = read_table(path, chosen.genes, chosen.unordered, columns)
        check_metric_names(config, table.space)
        return cls(config, table, objectives)

    @property
    def space(self) -> TableSpace:
        """Rows of the table."""
        return self.table.space

    @property
    def metrics(self) -> Mapping[str, Sense]:
        """All recorded metrics in order, each with its sense."""
        return metric_senses(self.config)

    @property
    def static(self) -> StaticMetrics:
        """Metrics of the further evaluators that are marked static."""
        return StaticMetrics(build_evaluators(self.config.metrics, self.config.options), ListedCandidate)

    @property
    def tested(self) -> bool:
        """Whether the table has results on a test split."""
        return bool(self.config.lookup.test)

    @property
    def record(self) -> dict[str, Any]:
        """Fingerprint of the table: what the run folder keeps beside its rows."""
        return {"table": self.table.fingerprint}

    def job(self, _folder: Path, _results: Store, _reporter: Reporter) -> TableJob:
        """Return what workers need to answer from the table."""
        return self.answers()

    def trained_job(self, _folder: Path) -> TableJob:
        """Return what workers need to answer from the table."""
        return self.answers()

    def answers(self) -> TableJob:
        """Return what answers from the table."""
        config, chosen = self.config, self.config.lookup
        validation = {name: self.table.values[name] for name in chosen.metrics}
        test = {name: self.table.values[chosen.test.get(name, name)] for name in chosen.metrics}
        return TableJob(
            space=self.space,
            senses=chosen.metrics,
            splits={"validation": validation, "test": test},
            metrics=config.metrics,
            options=config.options,
            threads=config.workers.threads,
        )

    def reference_point(self, _score: Callable[[Genotype], Evaluation], _reporter: Reporter) -> dict[str, float]:
        """Return the worst value of each objective over the rows that have all metrics.

        Raises:
            InputError: If there is none, or if an objective is no column of the table.
        """
        chosen = self.config.lookup
        foreign = [name for name in self.objectives if name not in chosen.metrics]
        if foreign:
            raise InputError(
                f"{foreign} are not in the table, so that their worst values are unknown; set "
                "search.hypervolume_reference in the recipe"
            )
        sound = np.all([np.isfinite(self.table.values[name]) for name in chosen.metrics], axis=0)
        if not sound.any():
            raise InputError(f"the table {self.space.name!r} has no row with all metrics {list(chosen.metrics)}")
        worst = {"max": np.min, "min": np.max}
        return {name: float(worst[sense](self.table.values[name][sound])) for name, sense in self.objectives.items()}
