"""How well two accuracies of the same architectures agree in their order, and how well they could.

Kendall's tau-b and Spearman's rho of inherited and stand-alone accuracy [Yu2020]_, over all and over the best third,
beside what two trainings of the same architectures agree in: no inherited accuracy can be expected to know more.

.. [Yu2020] Yu, Sciuto, Jaggi, Musat, Salzmann, "Evaluating the Search Phase of Neural Architecture Search", ICLR
   2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import kendalltau, spearmanr

_RESAMPLES = 2000
"""Resamples of a confidence interval."""

Source = Literal["front", "space"]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Point:
    """An architecture, scored with inherited weights and trained by itself.

    Attributes:
        key: Key of the architecture.
        source: Where it was taken from.
        inherited: Validation accuracy with the supernet's weights, in [0, 1].
        standalone_by_seed: Validation accuracy of each training by itself, in [0, 1].
        genes: Genes by name.
    """

    key: str
    source: Source
    inherited: Share
    standalone_by_seed: Annotated[tuple[Share, ...], Field(min_length=1)]
    genes: dict[str, Any]

    @property
    def standalone(self) -> float:
        """Mean of the accuracies of its trainings."""
        return float(np.mean(self.standalone_by_seed))


@dataclass(frozen=True)
class Order:
    """How well two columns agree in the order of architectures.

    Attributes:
        subnets: Number of architectures.
        kendall_tau: Kendall's tau-b, in [-1, 1]; None if one of the columns has one value only.
        spearman: Spearman's rho, likewise.
    """

    subnets: int
    kendall_tau: float | None
    spearman: float | None


@dataclass(frozen=True)
class Ceiling:
    """How well trainings that differ in their seed alone agree with each other.

    Attributes:
        subnets: Architectures that were trained several times.
        seeds: Trainings of each.
        kendall_tau: Mean over all pairs of seeds; None if it is nowhere defined.
        spearman: Likewise.
        inherited_kendall_tau: Mean of the inherited accuracy with single trainings of the same architectures, which
            is what to compare with it.
    """

    subnets: int
    seeds: int
    kendall_tau: float | None
    spearman: float | None
    inherited_kendall_tau: float | None


@dataclass(frozen=True)
class Fidelity:
    """What training by itself says of inherited accuracy.

    Attributes:
        points: The architectures, those of the front first.
        settings: Plain values: how many, how often, how long and on what they were trained.
    """

    points: Annotated[tuple[Point, ...], Field(min_length=1)]
    settings: dict[str, Any]

    @property
    def order(self) -> Order:
        """Agreement over all points."""
        return order_of(*self._columns(self.points))

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Kendall's tau, 95 % percentile bootstrap over the points; None if too few resamples have an order."""
        inherited, standalone = self._columns(self.points)
        rng, found = np.random.default_rng(0), []
        for _ in range(_RESAMPLES):
            rows = rng.integers(len(inherited), size=len(inherited))
            tau = kendall_tau(inherited[rows], standalone[rows])
            found += [] if tau is None else [tau]
        if len(found) < _RESAMPLES / 2:
            return None
        low, high = np.quantile(found, [0.025, 0.975])
        return float(low), float(high)

    @property
    def best_third(self) -> Order:
        """Agreement over the third of the points that are best when trained by themselves."""
        best = sorted(self.points, key=lambda point: (-point.standalone, point.key))
        return order_of(*self._columns(best[: math.ceil(len(best) / 3)]))

    @property
    def ceiling(self) -> Ceiling | None:
        """Agreement of repeated trainings; None if nothing was trained twice."""
        seeds = max(len(point.standalone_by_seed) for point in self.points)
        points = [point for point in self.points if len(point.standalone_by_seed) == seeds]
        if seeds < 2 or len(points) < 2:
            return None
        inherited = np.array([point.inherited for point in points])
        columns = np.array([point.standalone_by_seed for point in points]).T
        between = [order_of(a, b) for a, b in combinations(columns, 2)]
        against = [order_of(inherited, column).kendall_tau for column in columns]
        taus, rhos = [each.kendall_tau for each in between], [each.spearman for each in between]
        return Ceiling(len(points), seeds, _mean(taus), _mean(rhos), _mean(against))

    @staticmethod
    def _columns(points: Sequence[Point]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.array([p.inherited for p in points]), np.array([p.standalone for p in points])

    def to_dict(self) -> dict[str, Any]:
        """Return what ``fidelity.json`` holds."""
        order, ceiling = self.order, self.ceiling
        return {
            "format": "spikefront-fidelity-1",
            "kendall_tau": order.kendall_tau,
            "kendall_tau_interval": self.interval,
            "spearman": order.spearman,
            "best_third": asdict(self.best_third),
            "noise_ceiling": None if ceiling is None else ceiling.kendall_tau,
            "repeated": None if ceiling is None else asdict(ceiling),
            "points": [{**asdict(point), "standalone": point.standalone} for point in self.points],
            "settings": self.settings,
        }


def order_of(a: NDArray[np.float64], b: NDArray[np.float64]) -> Order:
    """Return how well two columns ``(n,)`` agree in their order."""
    tau = kendall_tau(a, b)
    return Order(len(a), tau, None if tau is None else float(spearmanr(a, b).statistic))


def kendall_tau(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Return Kendall's tau-b of two columns ``(n,)``; None if one of them has one value only."""
    return float(kendalltau(a, b).statistic) if np.ptp(a) > 0 and np.ptp(b) > 0 else None


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None
