"""Tournaments of genetic algorithms whose every coin comes from the search's own generator.

pymoo 0.6.2 draws some of its ties from a fresh, unseeded generator (in NSGA-III wherever an individual is
infeasible), so that a search with failed evaluations would not repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.population import Population


def winners(
    pairs: NDArray[np.int64], losses: Sequence[NDArray[np.float64]], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the winner of each pair: the smaller loss, the next loss where they are equal, and at last a coin.

    Args:
        pairs: Rows of the population, ``(n, 2)``.
        losses: For each pair the losses of both, ``(n, 2)``; NaN decides nothing.
        rng: Source of the coins.

    Returns:
        Rows of the population, ``(n, 1)``.
    """
    second = rng.integers(2, size=len(pairs)).astype(np.int64)
    open_ = np.ones(len(pairs), dtype=bool)
    for loss in losses:
        decided = open_ & ((loss[:, 0] < loss[:, 1]) | (loss[:, 1] < loss[:, 0]))
        second[decided] = (loss[decided, 1] < loss[decided, 0]).astype(np.int64)
        open_ &= ~decided
    return np.take_along_axis(pairs, second[:, None], axis=1)


def by_feasibility(
    pop: Population, P: NDArray[np.int64], *_: Any, random_state: np.random.Generator, **__: Any
) -> NDArray[np.int64]:
    """Return the less violating individual of each pair, ``(n, 1)``; a coin decides among equals, as in NSGA-III."""
    return winners(P, [pop.get("CV")[:, 0][P]], random_state)


def by_niche(
    pop: Population, P: NDArray[np.int64], *_: Any, random_state: np.random.Generator, **__: Any
) -> NDArray[np.int64]:
    """Return the winner of each pair by violation, and in one niche by rank and distance, as in U-NSGA-III."""
    violation = pop.get("CV")[:, 0][P]
    niche, rank, distance = (_numbers(pop, name)[P] for name in ("niche", "rank", "dist_to_niche"))
    alike = (violation == 0).all(axis=1) & (niche[:, 0] == niche[:, 1])
    inside = [np.where(alike[:, None], loss, np.nan) for loss in (rank, distance)]
    return winners(P, [violation, *inside], random_state)


def _numbers(pop: Population, name: str) -> NDArray[np.float64]:
    """Return an attribute of all individuals, NaN where it was never set."""
    return np.array([np.nan if value is None else value for value in pop.get(name)], dtype=np.float64)
