"""What values are expected to be, on the scale on which they are foretold best, without those that are incredible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nas.encoding import Encoding
from nas.gaussian import GaussianProcess

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

INCREDIBLE, CREDIBLE = 8.0, 0.8
"""A value is not believed that is so many times as far from its expectation as the median one, as long as so large a
part of all is believed."""

LOOKS = 5
"""How often incredible values are looked for."""

GROWTH = 1.2
"""The scale is chosen anew when there are so many times the values that it was chosen by."""


Scale = Literal["values", "logarithms"]
SCALES: tuple[Scale, ...] = get_args(Scale)


class ValueProcess:
    """Gaussian process on values, or on their logarithms where those are told better from each other.

    Energies and sizes are often products of what genes choose, whose logarithms are sums.

    Args:
        encoding: How architectures are encoded.

    Attributes:
        scale: What it learns from.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.scale: Scale = "values"
        self._processes = {scale: GaussianProcess(encoding.genes) for scale in SCALES}
        self._chosen_by = 0

    def fit(
        self, X: Floats, values: Floats, rows: Rows, tau: Callable[[], float], rng: np.random.Generator
    ) -> tuple[float, float]:
        """Learn from some rows, and return how well all of them, and the credible ones, tell the order.

        Args:
            X: Vectors, ``(n, width)``.
            values: To minimise; what is in other rows may mean nothing, ``(n,)``.
            rows: What to learn from, different ones, ``(m,)``.
            tau: Returns Kendall's tau of what :meth:`left_out` returns, as it is then.
            rng: Source of all that is drawn.
        """
        self._X, self._values = X, values
        one_sign = values[rows].min() > 0 or values[rows].max() < 0
        possible = SCALES if one_sign else SCALES[:1]
        scales: Sequence[Scale] = (self.scale if self.scale in possible else "values",)
        if len(rows) >= GROWTH * self._chosen_by:
            self._chosen_by, scales = len(rows), possible
        taus = {scale: self._try(scale, rows, tau, rng) for scale in scales}
        best = max(taus, key=lambda scale: taus[scale][1])
        if best != self.scale:
            self._try(best, rows, tau, rng)
        return taus[best]

    def _try(
        self, scale: Scale, rows: Rows, tau: Callable[[], float], rng: np.random.Generator
    ) -> tuple[float, float]:
        """Learn on a scale, and return how well the order is told, without what is incredible in the end."""
        self.scale = scale
        self._learn(rows, rng)
        of_all = tau()
        return of_all, tau() if self._believe_less(rows, rng) else of_all

    def _learn(self, rows: Rows, rng: np.random.Generator | None = None) -> None:
        """Learn from some rows, the scales as well if there is what to draw from."""
        self._credible, process = rows, self._process
        self._scaled = self.scaled(self._values[rows])
        if rng is not None:
            process.tune(self._X[rows], self._scaled, rng)
        process.fit(self._X[rows], self._scaled)

    @property
    def _process(self) -> GaussianProcess:
        return self._processes[self.scale]

    def scaled(self, values: Floats) -> Floats:
        """Return values on its scale, in the same order; for logarithms all must have one sign."""
        return np.sign(values) * np.log(np.abs(values)) if self.scale == "logarithms" else values

    def _believe_less(self, rows: Rows, rng: np.random.Generator) -> bool:
        """Learn again without values that are incredible, and return whether there were any.

        Such a value is far from what all others say. They are looked for again, as they hide each other, by the scales
        that were learnt with them; these are learnt anew in the end.
        """
        for _ in range(LOOKS):
            beside = np.abs(self._scaled - self._process.left_out())
            credible = beside <= INCREDIBLE * max(float(np.median(beside)), np.finfo(float).tiny)
            if credible.all() or credible.sum() < CREDIBLE * len(rows):
                break
            self._learn(self._credible[credible])
        if len(self._credible) == len(rows):
            return False
        self._learn(self._credible, rng)
        return True

    def left_out(self, rows: Rows) -> Floats:
        """Return what values of rows are expected to be, on its scale, without having been learnt from."""
        expected = self._process.predict(self._X[rows])
        learnt = np.isin(rows, self._credible)
        expected[learnt] = self._process.left_out()[np.isin(self._credible, rows)]
        return expected

    def predict(self, Z: Floats) -> Floats:
        """Return what values of vectors ``(m, width)`` are expected to be, on its scale, ``(m,)``."""
        return self._process.predict(Z)
