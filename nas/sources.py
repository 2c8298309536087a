"""Where the scores of a run come from: a supernet that it trains, a table of results, or what the user has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from evaluators import Sense, StaticMetrics
from nas.config import RunConfig
from nas.evaluation import Evaluation, Job
from nas.own_source import OwnSource
from nas.progress import Reporter
from nas.storage import Store
from nas.supernet_source import SupernetSource
from nas.table_source import TableSource
from spaces import Genotype, Space


class ScoreSource(Protocol):
    """A checked recipe's space and objectives, and the way to their values."""

    @property
    def space(self) -> Space:
        """Search space."""
        ...

    @property
    def objectives(self) -> Mapping[str, Sense]:
        """Objectives in order, each with its sense."""
        ...

    @property
    def metrics(self) -> Mapping[str, Sense]:
        """All recorded metrics in order, each with its sense."""
        ...

    @property
    def static(self) -> StaticMetrics:
        """Metrics that follow from an architecture alone."""
        ...

    @property
    def tested(self) -> bool:
        """Whether there is a test split that the search never sees."""
        ...

    @property
    def record(self) -> Mapping[str, Any]:
        """What the run folder keeps of it: plain values by their name in ``run.json``."""
        ...

    def job(self, folder: Path, results: Store, reporter: Reporter, /) -> Job:
        """Return what workers need, after a training if need be.

        Raises:
            InputError: If results were scored with anything else.
        """
        ...

    def trained_job(self, folder: Path, /) -> Job:
        """Return what workers need, where any training is done, and write nothing."""
        ...

    def reference_point(self, score: Callable[[Genotype], Evaluation], reporter: Reporter, /) -> dict[str, float]:
        """Return the worst value of each objective that counts, where the recipe gives none.

        Args:
            score: Evaluates an architecture and records it.
            reporter: Hears of it.
        """
        ...


def open_source(config: RunConfig, folder: Path, data_dir: str | Path | None) -> ScoreSource:
    """Return where the scores of a recipe come from, checked as far as it costs nothing.

    Args:
        config: Recipe.
        folder: Run folder, which may keep what is gone elsewhere.
        data_dir: Folder of images or tables.

    Raises:
        InputError: If the recipe or its data are not right.
    """
    if config.source is not None:
        return OwnSource.open(config)
    if config.table is not None:
        return TableSource.open(config, data_dir)
    return SupernetSource.open(config, folder, data_dir)
