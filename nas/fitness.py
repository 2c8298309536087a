"""One number to climb, for algorithms that take one, in a search with several objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluators import Sense


class Fitness(Protocol):
    """Makes one number of an evaluation's metrics; less is better."""

    def __call__(self, rows: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
        """Return the numbers of complete evaluations of one generation, ``(n,)``."""
        ...


def signs(senses: Mapping[str, Sense]) -> NDArray[np.float64]:
    """Return what metrics are multiplied by to be minimised, ``(n,)``: -1 if more is better, else 1."""
    return np.array([-1.0 if sense == "max" else 1.0 for sense in senses.values()])


class MetricFitness:
    """One recorded metric.

    Args:
        metric: Its name.
        sense: Whether more of it is better, or less.
    """

    def __init__(self, metric: str, sense: Sense) -> None:
        self._metric, self._sign = metric, signs({metric: sense})[0]

    def __call__(self, rows: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
        """Return the metric, or its negative if more of it is better, ``(n,)``."""
        return np.array([self._sign * row[self._metric] for row in rows])


class MeanFitness:
    """Mean of the objectives, each in minimised sense, from its first value on, in units of its range at first.

    .. code-block:: text

        fitness = 1/K sum_k s_k (f_k - f_k0) / r_k      s_k = -1 if more is better, else 1

    ``f_k0`` is the value of the first evaluation that did not fail. ``r_k`` is how far the values lie apart after the
    first generation in which not all values so far are equal; before it they all are ``f_k0`` and add 0. So a
    fitness that was given is never given anew, and all of a search are in the same units.

    Args:
        objectives: Objectives in order, each with its sense.
    """

    def __init__(self, objectives: Mapping[str, Sense]) -> None:
        self._names, self._signs = tuple(objectives), signs(objectives)
        self._origin: NDArray[np.float64] | None = None
        self._extent = np.zeros(len(objectives))

    def __call__(self, rows: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
        """Return the fitness of the evaluations of the next generation, ``(n,)``."""
        if not rows:
            return np.zeros(0)
        points = np.array([[row[name] for name in self._names] for row in rows])
        if self._origin is None:
            self._origin = points[0]
        low, high = np.minimum(points.min(axis=0), self._origin), np.maximum(points.max(axis=0), self._origin)
        self._extent = np.where(self._extent > 0, self._extent, high - low)
        shifted = (points - self._origin) / np.where(self._extent > 0, self._extent, 1.0)
        mean: NDArray[np.float64] = (self._signs * shifted).mean(axis=1)
        return mean
