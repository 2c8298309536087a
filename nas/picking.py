"""Which candidates are worth scoring, by what they are expected to be.

Some are picked for the hypervolume, which is, but for a factor, the mean over directions of a power of the distance
from the reference to the front [Deng2019]_. Either a candidate is what would add most to what is already known, or
the best in a direction drawn for it, whatever is known there: results that are known had luck, which expectations
have not. The others are the best in each of as many cost bands, which keeps the whole front in sight when
expectations are wrong.

.. [Deng2019] Deng and Zhang, "Approximating Hypervolume and Hypervolume Contributions Using Polar Coordinate", IEEE
   Transactions on Evolutionary Computation 23(5), 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

GAINING = 0.5
"""Part of what is picked by hypervolume that is to add to the results at hand, as long as anything is expected to."""

DIRECTIONS = 512
"""Directions by which what is added is measured."""


class Picks:
    """Candidates picked so far, one per owner at most.

    Args:
        owners: Who would take each candidate, ``(n,)``.
    """

    def __init__(self, owners: Rows) -> None:
        self._owners = owners
        self.free = np.ones(len(owners), dtype=bool)
        self.taken: list[int] = []

    def take(self, row: int) -> None:
        """Pick a candidate."""
        self.free[self._owners == self._owners[row]] = False
        self.taken.append(row)

    def take_least(self, loss: Floats, rows: Rows | None = None) -> None:
        """Pick the free candidate of least loss, among some rows if they are given; none if none is free."""
        rows = np.flatnonzero(self.free) if rows is None else rows[self.free[rows]]
        if len(rows):
            self.take(int(rows[np.argmin(loss[rows])]))


@dataclass(frozen=True)
class Box:
    """Between the worst values that count and the best ones known or expected.

    Attributes:
        worst: Reference of the hypervolume, ``(n_obj,)``.
        best: Least value of each objective, ``(n_obj,)``.
    """

    worst: Floats
    best: Floats

    def lengths(self, F: Floats, directions: Floats) -> Floats:
        """Return how far points ``(n, n_obj)`` reach from the worst values along directions, in extents of the box.

        What is outside reaches less than nothing.

        Args:
            F: To minimise.
            directions: Positive unit vectors, ``(d, n_obj)``.

        Returns:
            ``(n, d)``.
        """
        inside = (self.worst - F) / np.where(self.worst > self.best, self.worst - self.best, 1.0)
        by_objective = [np.outer(*pair) for pair in zip(inside.T, 1 / directions.T, strict=True)]
        return np.asarray(np.min(by_objective, axis=0))


def _directions(count: int, n_obj: int, rng: np.random.Generator) -> Floats:
    """Return positive unit vectors, evenly drawn, ``(count, n_obj)``."""
    directions = np.abs(rng.normal(size=(count, n_obj)))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.maximum(directions, 1e-12)


def pick_by_volume(picks: Picks, F: Floats, known: Floats, box: Box, count: int, rng: np.random.Generator) -> None:
    """Pick for the hypervolume: a part by what they would add, the rest the best in random directions.

    Args:
        picks: Where they are noted.
        F: What candidates are expected to be, to minimise, ``(n, n_obj)``.
        known: Results so far, and what is expected of what is being scored, ``(m, n_obj)``.
        box: What hypervolume is measured in.
        count: How many.
        rng: Source of the directions.
    """
    rest = count - _pick_by_gain(picks, F, known, box, int(GAINING * count + rng.random()), rng)
    for losses in -box.lengths(F, _directions(rest, F.shape[1], rng)).T:
        picks.take_least(losses)


def _pick_by_gain(picks: Picks, F: Floats, known: Floats, box: Box, most: int, rng: np.random.Generator) -> int:
    """Pick one after the other what would add most to results and picks, as long as it does; return how many."""
    n_obj, rows = F.shape[1], np.flatnonzero(picks.free)
    if not len(rows) or most < 1:
        return 0
    rows = rows[moocore.pareto_rank(F[rows]) < most]  # what is behind so many others is hardly the next best
    directions = _directions(DIRECTIONS, n_obj, rng)
    before = np.vstack([known, F[picks.taken]])
    reached = box.lengths(before[moocore.is_nondominated(before)], directions).max(axis=0)
    reached = np.maximum(reached, 0.0) ** n_obj
    volumes = np.maximum(box.lengths(F[rows], directions), 0.0) ** n_obj
    for number in range(most):
        gains = np.maximum(volumes - reached, 0.0).sum(axis=1) * picks.free[rows]
        if gains.max(initial=0.0) <= 0:
            return number
        best = int(np.argmax(gains))
        picks.take(int(rows[best]))
        reached = np.maximum(reached, volumes[best])
    return most


def pick_by_band(picks: Picks, scores: Floats, cost: int, rows: Rows, count: int, rng: np.random.Generator) -> None:
    """Pick the best in each of ``count`` cost bands, bands being equally full of candidates.

    Where objectives contradict each other, the best in one would always be the dearest of its band, so scores are
    compared with their trend over the cost.

    Args:
        picks: Where they are noted.
        scores: Normal scores of candidates, the lower the better, ``(n, n_obj)``.
        cost: Objective that bands are of.
        rows: Candidates that are eligible, ``(m,)``.
        count: How many.
        rng: Source of the weights of several other objectives.
    """
    rows = rows[picks.free[rows]]
    order = rows[np.argsort(scores[rows, cost], kind="stable")]
    others = np.delete(scores, cost, axis=1)
    bands = np.array_split(np.arange(len(order)), min(count, len(order))) if count and len(order) else []
    for band in bands:
        weights = rng.dirichlet(np.ones(others.shape[1]))
        loss = others @ weights
        width = len(band)
        about = order[max(0, band[0] - width) : band[-1] + 1 + width]
        price = scores[about, cost]
        spread = ((price - price.mean()) ** 2).sum()
        trend = ((price - price.mean()) * loss[about]).sum() / spread if spread > 0 else 0.0
        picks.take_least(loss - min(trend, 0.0) * scores[:, cost], order[band])
