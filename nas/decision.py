"""Which member of a front to take: by a knee, by weights, by bounds, or by its key.

All rules see objectives to minimise, each as a share of its range on the front: 0 its best value there, 1 its worst.

.. [Rachmawati2009] Rachmawati and Srinivasan, "Multiobjective Evolutionary Algorithm With Controllable Focus on the
   Knees of the Pareto Front", IEEE Transactions on Evolutionary Computation 13(4), 2009.
.. [Deb2001] Deb, "Multi-Objective Optimization using Evolutionary Algorithms", Wiley, 2001.
.. [Wierzbicki1980] Wierzbicki, "The Use of Reference Objectives in Multiobjective Optimization", Springer, 1980.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_WEIGHT = 1e-10
"""What a weight of 0 counts as where it is divided by."""


def shares(points: Floats, maximise: Sequence[bool]) -> Floats:
    """Return points ``(n, n_obj)`` in natural sense as shares of their range, 0 the best; 0 where all are equal."""
    minimised = np.where(maximise, -points, points)
    best, worst = minimised.min(axis=0), minimised.max(axis=0)
    scaled: Floats = (minimised - best) / np.where(worst > best, worst - best, 1.0)
    return scaled


def trade_offs(F: Floats) -> Floats:
    """Return for each point how much it takes to leave it, ``(n,)`` [Rachmawati2009]_.

    .. code-block:: text

        mu_i = min_j  sum_k max(0, F[j, k] - F[i, k]) / sum_k max(0, F[i, k] - F[j, k])

    What the least unfavourable move to another point gives up, per unit that it gains; infinite if no move gains.

    Args:
        F: Objectives to minimise, ``(n, n_obj)``.
    """
    change = F[None] - F[:, None]  # [i, j]: from i to j
    given, gained = np.maximum(change, 0).sum(axis=2), np.maximum(-change, 0).sum(axis=2)
    ratios = np.where(gained > 0, given / np.where(gained > 0, gained, 1.0), np.inf)
    least: Floats = ratios.min(axis=1)
    return least


def knee(F: Floats) -> int:
    """Return the point that it takes most to leave; the ends of the front only if it has nothing else.

    An end can be left in one direction only, and a front that falls steeply there would always be left with it. Of
    points that it takes as much to leave, and where there are ends only, the one whose worst objective is the best.

    Args:
        F: Objectives to minimise as :func:`shares`, ``(n, n_obj)``, none of them dominated.
    """
    inner = np.flatnonzero((F > 0).all(axis=1))
    rows = inner if len(inner) else np.arange(len(F))
    leave = trade_offs(F)[rows] if len(inner) else np.zeros(len(rows))
    order = np.lexsort((F[rows].sum(axis=1), F[rows].max(axis=1), -leave))
    return int(rows[order[0]])


def pseudo_weights(F: Floats) -> Floats:
    """Return how much each point leans to each objective, ``(n, n_obj)``, rows that sum to 1 [Deb2001]_.

    Args:
        F: Objectives to minimise as :func:`shares`, ``(n, n_obj)``.
    """
    distance = 1 - F  # to the worst
    total = distance.sum(axis=1, keepdims=True)
    weights: Floats = np.where(total > 0, distance / np.where(total > 0, total, 1.0), 1 / F.shape[1])
    return weights


def nearest_weights(F: Floats, weights: Floats) -> int:
    """Return the point whose pseudo-weights are the nearest to some weights ``(n_obj,)`` that sum to 1."""
    return int(np.abs(pseudo_weights(F) - weights).sum(axis=1).argmin())


def least_regret(F: Floats, weights: Floats) -> int:
    """Return the point of least achievement scalarisation, ``max_k w_k F[i, k]`` [Wierzbicki1980]_.

    Args:
        F: Objectives to minimise as :func:`shares`, ``(n, n_obj)``.
        weights: How much each objective matters, ``(n_obj,)``.
    """
    regret = np.maximum(weights, LEAST_WEIGHT) * F
    return int(np.lexsort((regret.sum(axis=1), regret.max(axis=1)))[0])


def neighbours(F: Floats, point: Floats) -> list[int]:
    """Return for each objective the nearest point that is better in it, if there is one, each once.

    With two objectives these are the ones to both sides on the front.

    Args:
        F: Front as :func:`shares`, ``(n, n_obj)``.
        point: Whose neighbours, in the same units, ``(n_obj,)``.
    """
    distance = np.linalg.norm(F - point, axis=1)
    found: dict[int, None] = {}
    for k in range(F.shape[1]):
        better = np.flatnonzero(F[:, k] < point[k])
        if len(better):
            found[int(better[distance[better].argmin()])] = None
    return list(found)
