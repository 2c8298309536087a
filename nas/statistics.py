"""Statistics of several runs of several algorithms, as free functions of arrays.

.. [Mann1947] Mann and Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than
   the Other", The Annals of Mathematical Statistics, 1947.
.. [Vargha2000] Vargha and Delaney, "A Critique and Improvement of the CL Common Language Effect Size Statistics
   of McGraw and Wong", Journal of Educational and Behavioral Statistics, 2000.
.. [Holm1979] Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
   Statistics, 1979.
.. [Wilson1927] Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the
   American Statistical Association, 1927.
.. [Fonseca2001] Grunert da Fonseca, Fonseca and Hall, "Inferential Performance Assessment of Stochastic
   Optimisers and the Attainment Function", EMO 2001.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, mannwhitneyu

from evaluators import Sense

ROUNDING = 1e-12
"""Relative difference below which two hypervolumes are one: that of sums in another order."""

SURFACES = ("best", "median", "worst")
"""Attainment surfaces: what at least one run, half of the runs, and all runs attain."""


def padded(curves: Sequence[NDArray[np.float64]], length: int) -> NDArray[np.float64]:
    """Return curves as rows of one length, those that end early going on with their last value, ``(n, length)``."""
    rows = np.zeros((len(curves), length))
    for row, curve in zip(rows, curves, strict=True):
        row[: len(curve)] = curve[:length]
        row[len(curve) :] = curve[-1] if len(curve) else 0.0
    return rows


def quartiles(values: ArrayLike) -> NDArray[np.float64]:
    """Return lower quartile, median and upper quartile over the first axis, ``(n, ...)`` to ``(3, ...)``."""
    return np.asarray(np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.5, 0.75], axis=0))


def evaluations_to_reach(curve: NDArray[np.float64], level: float) -> float:
    """Return after how many evaluations a rising curve ``(n,)`` is at a level, infinity if it never is."""
    there = np.flatnonzero(curve >= level - ROUNDING * abs(level))
    return float(there[0] + 1) if len(there) else np.inf


def median_to_reach(curves: NDArray[np.float64], level: float) -> tuple[float, int]:
    """Return the median of the evaluations that curves ``(n, evaluations)`` take to a level, and how many get there.

    The median is NaN if half of them never do.
    """
    needed = np.sort([evaluations_to_reach(curve, level) for curve in curves])
    middle = (
        needed[(len(needed) - 1) // 2] + needed[len(needed) // 2]
    ) / 2  # infinite ones would make np.median warn
    return float(middle) if np.isfinite(middle) else float("nan"), int(np.isfinite(needed).sum())


def effect_size(values: ArrayLike, baseline: ArrayLike) -> float:
    """Return how likely a value is above one of the baseline, ties counting half: A12 [Vargha2000]_, in [0, 1].

    0.5 is no difference; 0.56, 0.64 and 0.71 (or their mirrors) are called small, medium and large.
    """
    difference = np.subtract.outer(np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64))
    return float(((difference > 0).sum() + (difference == 0).sum() / 2) / difference.size)


def rank_test(values: ArrayLike, baseline: ArrayLike) -> float:
    """Return the two-sided p value of the U test [Mann1947]_ that two samples are of one distribution, in [0, 1]."""
    one, other = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if (np.concatenate([one, other]) == one[0]).all():
        return 1.0  # nothing to rank
    return float(mannwhitneyu(one, other, alternative="two-sided").pvalue)


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Return p values ``(n,)`` corrected for their number [Holm1979]_, at most 1."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty(len(values))
    weighted = values[order] * np.arange(len(values), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(weighted), 1.0)
    return corrected


def wilson(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval in which a probability lies of which a share was seen [Wilson1927]_, within [0, 1].

    Args:
        share: Share of the trials that succeeded, in [0, 1].
        count: Independent trials, 1 or more.
        level: How often such an interval holds the probability, in (0, 1).
    """
    interval = binomtest(round(share * count), count).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def attainment(
    runs: Sequence[NDArray[np.float64]], objectives: Mapping[str, Sense]
) -> dict[str, NDArray[np.float64]]:
    """Return the corners of the attainment surfaces [Fonseca2001]_ of runs on two objectives, ``(m, 2)`` each.

    Args:
        runs: Points of each run ``(n, 2)`` in natural sense; those with a value that is not finite do not count.
        objectives: Two objectives in order, each with its sense.

    Returns:
        Rows by the names of :data:`SURFACES`, sorted by the second objective. A surface that too few runs have a
        point for has none.
    """
    sign = np.array([-1.0 if sense == "max" else 1.0 for sense in objectives.values()])
    sound = [run[np.isfinite(run).all(axis=1)] * sign for run in runs]
    fronts = [moocore.filter_dominated(run) for run in sound if len(run)]
    surfaces = {name: np.empty((0, 2)) for name in SURFACES}
    needed = {"best": 1, "median": (len(runs) + 1) // 2, "worst": len(runs)}
    if not fronts:
        return surfaces
    sets = np.repeat(np.arange(1, len(fronts) + 1), [len(front) for front in fronts])
    for name, count in needed.items():
        if count <= len(fronts):
            # Half a run below the count keeps rounding from asking for one run more.
            percentile = 100 * (count - 0.5) / len(fronts)
            found = moocore.eaf(np.vstack(fronts), sets, percentiles=[percentile])[:, :2] * sign
            surfaces[name] = found[np.argsort(found[:, 1], kind="stable")]
    return surfaces
