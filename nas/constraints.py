"""Bounds on metrics: how far a value is beyond one, and how that is told to an optimiser.

A violation is relative, so that bounds of different units add up: ``(value - bound) / |bound|`` beyond an upper one.
Optimisers compare individuals that violate constraints by the sum of their violations (constraint-dominance
[Deb2000]_). Each is squashed into (0, 1], so that an evaluation without any result can be worse than all with one.

.. [Deb2000] Deb, "An efficient constraint handling method for genetic algorithms", Computer Methods in Applied
   Mechanics and Engineering 186, 2000.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaces import InputError

_MAX, _MIN = "max_", "min_"


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric.

    Attributes:
        metric: Name of the metric.
        bound: Last value that is allowed, finite.
        upper: Whether it bounds the metric from above.
    """

    metric: str
    bound: float
    upper: bool

    def __str__(self) -> str:
        return f"{_MAX if self.upper else _MIN}{self.metric} = {self.bound:.10g}"

    def excess(self, value: float) -> float:
        """Return how far a value is beyond the bound, in units of the bound (1 if that is 0); 0 where it holds."""
        beyond = value - self.bound if self.upper else self.bound - value
        return max(beyond, 0.0) / (abs(self.bound) or 1.0)


def parse_constraints(values: Mapping[str, float], metrics: Collection[str]) -> tuple[Constraint, ...]:
    """Return the constraints of a recipe.

    Args:
        values: Bounds by ``max_`` or ``min_`` and the name of a metric.
        metrics: Names of all recorded metrics.

    Raises:
        InputError: If a metric is not recorded, a bound is not finite, or two bounds leave nothing between them.
    """
    found = []
    for name, bound in values.items():
        kind, metric = name[: len(_MAX)], name[len(_MAX) :]
        if kind not in (_MAX, _MIN) or metric not in metrics:
            raise InputError(
                f"search.constraints must be max_ or min_ with one of the metrics {list(metrics)} behind it, got "
                f"{name!r}; record other metrics by naming them in metrics"
            )
        if not math.isfinite(bound):
            raise InputError(f"search.constraints.{name} must be finite, got {bound}; leave it out for no bound")
        found.append(Constraint(metric, float(bound), kind == _MAX))
    for metric in {constraint.metric for constraint in found}:
        low, high = values.get(_MIN + metric, -math.inf), values.get(_MAX + metric, math.inf)
        if low > high:
            raise InputError(
                f"search.constraints must leave room between min_{metric} and max_{metric}, got {low:g} and {high:g}"
            )
    return tuple(found)


_TINY = 1e-300
"""What is less is its own squashed value, to any precision."""


def squash(excess: float) -> float:
    """Return a value in [0, 1] that never falls as an excess rises, also in its last bit; 0 for 0 only."""
    if excess < _TINY:
        return excess
    return max(1.0 / (1.0 + 1.0 / excess), _TINY)


def total_violation(values: Mapping[str, float], constraints: Sequence[Constraint]) -> float:
    """Return the sum of squashed excesses over constraints, 0 if all hold."""
    return math.fsum(squash(constraint.excess(values[constraint.metric])) for constraint in constraints)


def violations(frame: pd.DataFrame, constraints: Sequence[Constraint]) -> NDArray[np.float64]:
    """Return the total violation of each row of a table of complete results, ``(n,)``."""
    names = list({constraint.metric for constraint in constraints})
    rows = frame[names].to_numpy(dtype=np.float64)
    return np.array([total_violation(dict(zip(names, row, strict=True)), constraints) for row in rows])
