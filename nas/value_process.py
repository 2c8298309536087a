"""What values are expected to be, on the scale on which they are foretold best, without those that are incredible."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import skew

from nas.encoding import Encoding
from nas.gaussian import GaussianProcess

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

INCREDIBLE, CREDIBLE = 8.0, 0.8
"""A value is not believed that is so many times as far from its expectation as the median one, as long as so large a
part of all is believed."""

LOOKS = 3
"""How often incredible values are looked for."""

WIDE = 10.0
"""Largest value over least from which on logarithms, if they are spread more evenly, are learnt from unless values
tell the order better, and not only where they do so themselves."""

GROWTH = 1.2
"""The scale is chosen anew when there are so many times the values that it was chosen by."""


class ValueProcess:
    """Gaussian process on values, or on their logarithms where those are told better from each other.

    Energies and sizes are often products of what genes choose, whose logarithms are sums.

    Args:
        encoding: How architectures are encoded.

    Attributes:
        logarithmic: Whether it learns from logarithms.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.logarithmic = False
        self._processes = {scale: GaussianProcess(encoding.genes, linear=True) for scale in (False, True)}
        self._chosen_by = 0

    def fit(
        self, X: Floats, values: Floats, rows: Rows, tau: Callable[[], float], rng: np.random.Generator
    ) -> tuple[float, float]:
        """Learn from some rows, and return how well all of them, and the credible ones, tell the order.

        Args:
            X: Vectors, ``(n, width)``.
            values: To minimise; what is in other rows may mean nothing, ``(n,)``.
            rows: What to learn from, ``(m,)``.
            tau: Returns Kendall's tau of what :meth:`left_out` returns, as it is then.
            rng: Source of all that is drawn.
        """
        self._X, self._values = X, values
        one_sign = bool(values[rows].min() > 0 or values[rows].max() < 0)
        scales, trusts = {self.logarithmic and one_sign}, {}
        if len(rows) >= GROWTH * self._chosen_by:
            self._chosen_by = len(rows)
            scales = {False, one_sign}
        for scale in sorted(scales):
            trusts[scale] = self._try(scale, rows, tau, rng)
        doubt = len(rows) ** -0.5  # about two standard errors of Kendall's tau
        if one_sign and _is_wide(values[rows]):
            doubt = -doubt
        best = max(trusts, key=lambda scale: trusts[scale] - doubt * scale)
        if best != self.logarithmic:
            self._try(best, rows, tau, rng)
        return trusts[best], tau() if self._believe_less(rows, rng) else trusts[best]

    def _try(self, logarithmic: bool, rows: Rows, tau: Callable[[], float], rng: np.random.Generator) -> float:
        """Learn on a scale, and return how well the order is told."""
        self.logarithmic = logarithmic
        self._learn(rows, rng)
        return tau()

    def _learn(self, rows: Rows, rng: np.random.Generator) -> None:
        self._credible, process = rows, self._process
        self._scaled = self.scaled(self._values[rows])
        process.tune(self._X[rows], self._scaled, rng)
        process.fit(self._X[rows], self._scaled)

    @property
    def _process(self) -> GaussianProcess:
        return self._processes[self.logarithmic]

    def scaled(self, values: Floats) -> Floats:
        """Return values on its scale, in the same order; for logarithms all must have one sign."""
        return np.sign(values) * np.log(np.abs(values)) if self.logarithmic else values

    def _believe_less(self, rows: Rows, rng: np.random.Generator) -> bool:
        """Learn again without values that are incredible, and return whether there were any.

        Such a value is far from what all others say. They are looked for again, as they hide each other.
        """
        for _ in range(LOOKS):
            beside = np.abs(self._scaled - self._process.left_out())
            credible = beside <= INCREDIBLE * max(float(np.median(beside)), np.finfo(float).tiny)
            if credible.all() or credible.sum() < CREDIBLE * len(rows):
                break
            self._learn(self._credible[credible], rng)
        return len(self._credible) < len(rows)

    def left_out(self, rows: Rows) -> Floats:
        """Return what values of rows are expected to be, on its scale, without having been learnt from."""
        expected = self._process.predict(self._X[rows])
        learnt = np.isin(rows, self._credible)
        expected[learnt] = self._process.left_out()[np.isin(self._credible, rows)]
        return expected

    def predict(self, Z: Floats) -> Floats:
        """Return what values of vectors ``(m, width)`` are expected to be, on its scale, ``(m,)``."""
        return self._process.predict(Z)


def _is_wide(values: Floats) -> bool:
    """Return whether values of one sign span orders of magnitude, and their logarithms are less skewed."""
    logarithms = np.log(np.abs(values))
    return bool(np.ptp(logarithms) > np.log(WIDE) and abs(skew(logarithms)) < abs(skew(values)))
