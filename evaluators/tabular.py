"""Metrics that are looked up in a table instead of measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evaluators.senses import Sense
from spaces import Genotype, TableSpace


class HasArchitecture(Protocol):
    """What a look-up needs of a candidate."""

    @property
    def architecture(self) -> Genotype:
        """What to look up."""
        ...


@dataclass(frozen=True)
class ListedCandidate:
    """A row of a table on its way to its scores; there is no network to look at."""

    architecture: Genotype


@dataclass(frozen=True)
class Table:
    """Metrics of the rows of a table.

    Args:
        space: The rows.
        metrics: Names of the metrics, and whether more or less of each is better.
        values: Values of each metric in the order of the rows, ``(size,)``; NaN where there is none.
    """

    space: TableSpace
    metrics: Mapping[str, Sense]
    values: Mapping[str, NDArray[Any]]

    def __call__(self, candidate: HasArchitecture) -> dict[str, float]:
        """Return the metrics of a row.

        Raises:
            InputError: If the table does not list the architecture.
            LookupError: If it has no value for a metric.
        """
        row = self.space.number(candidate.architecture)
        found = {name: float(self.values[name][row]) for name in self.metrics}
        missing = [name for name, value in found.items() if np.isnan(value)]
        if missing:
            raise LookupError(f"the table {self.space.name!r} has no {', '.join(missing)} for this row")
        return found
