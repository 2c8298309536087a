"""Which candidates are worth scoring, by what they are expected to be.

Some are picked for the hypervolume: each the best in a direction drawn for it, where the best has the largest box
between reference and point along that direction, so that the mean over directions is the hypervolume [Deng2019]_.
The others are the best in each of as many cost bands, which keeps the whole front in sight when expectations are
wrong.

.. [Deng2019] Deng and Zhang, "Approximating Hypervolume and Hypervolume Contributions Using Polar Coordinate", IEEE
   Transactions on Evolutionary Computation 23(5), 2019.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


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


def pick_by_volume(
    picks: Picks, F: Floats, reference: Floats, best: Floats, count: int, rng: np.random.Generator
) -> None:
    """Pick the best in random directions.

    Args:
        picks: Where they are noted.
        F: What candidates are expected to be, to minimise, ``(n, n_obj)``.
        reference: Worst values that count, ``(n_obj,)``.
        best: Least value of each objective so far, ``(n_obj,)``.
        count: How many.
        rng: Source of the directions.
    """
    best = np.minimum(best, F.min(axis=0))
    extent = np.where(reference > best, reference - best, 1.0)
    inside = (reference - F) / extent
    directions = np.abs(rng.normal(size=(count, F.shape[1])))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for direction in np.maximum(directions, 1e-12):
        picks.take_least(-(inside / direction).min(axis=1))


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
