"""What values are expected to be, in the form in which they are foretold best, without those that are incredible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

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
"""How often incredible values are looked for at most."""

GROWTH = 1.2
"""The form is chosen anew when there are so many times the values that it was chosen by."""

Form = Literal["values", "logarithms"]
"""What a process learns from; logarithms are for values of one sign."""


class FormProcess:
    """Gaussian process on values in one form.

    Args:
        encoding: How architectures are encoded.
        form: Values, or logarithms with the values' sign and in their order.
    """

    def __init__(self, encoding: Encoding, form: Form) -> None:
        self.form = form
        self._process = GaussianProcess(encoding.genes)

    def formed(self, values: Floats) -> Floats:
        """Return values in its form, in the same order."""
        return np.sign(values) * np.log(np.abs(values)) if self.form == "logarithms" else values

    def learn(self, X: Floats, values: Floats, rows: Rows, rng: np.random.Generator | None = None) -> None:
        """Learn from rows of vectors and values, the process' scales as well if there is what to draw from."""
        self._X, self._values, self._credible = X, values, rows
        self._formed = self.formed(values[rows])
        if rng is not None:
            self._process.tune(X[rows], self._formed, rng)
        self._process.fit(X[rows], self._formed)

    def believe_less(self, rng: np.random.Generator) -> bool:
        """Learn again without values that are incredible, and return whether there were any.

        Such a value is far from what all others say. They are looked for again, as they hide each other. The scales
        stay those that were learnt with them until the end, when they are learnt anew.
        """
        count = len(self._credible)
        for _ in range(LOOKS):
            beside = np.abs(self._formed - self._process.left_out())
            credible = beside <= INCREDIBLE * max(float(np.median(beside)), np.finfo(float).tiny)
            if credible.all() or credible.sum() < CREDIBLE * count:
                break
            self.learn(self._X, self._values, self._credible[credible])
        if len(self._credible) == count:
            return False
        self.learn(self._X, self._values, self._credible, rng)
        return True

    def left_out(self, rows: Rows) -> Floats:
        """Return what values of rows are expected to be, in its form, without having been learnt from."""
        expected = self._process.predict(self._X[rows])
        learnt = np.isin(rows, self._credible)
        expected[learnt] = self._process.left_out()[np.isin(self._credible, rows)]
        return expected

    def predict(self, Z: Floats) -> Floats:
        """Return what values of vectors ``(m, width)`` are expected to be, in its form, ``(m,)``."""
        return self._process.predict(Z)


class ValueProcess:
    """Gaussian process on values, or on their logarithms where those are told better from each other.

    Energies and sizes are often products of what genes choose, whose logarithms are sums.

    Args:
        encoding: How architectures are encoded.

    Attributes:
        chosen: The process on the form that tells more.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._values = self.chosen = FormProcess(encoding, "values")
        self._logarithms = FormProcess(encoding, "logarithms")
        self._chosen_by = 0

    def fit(
        self, X: Floats, values: Floats, rows: Rows, judge: Callable[[FormProcess], float], rng: np.random.Generator
    ) -> tuple[float, float]:
        """Learn from some rows, and return how well all of them, and the credible ones, tell the order.

        Args:
            X: Vectors, ``(n, width)``.
            values: To minimise; what is in other rows may mean nothing, ``(n,)``.
            rows: What to learn from, different ones in ascending order, ``(m,)``.
            judge: Returns Kendall's tau of a process that has learnt.
            rng: Source of all that is drawn.
        """
        tried = [self.chosen]
        if not (values[rows].min() > 0 or values[rows].max() < 0):
            tried = [self._values]
        elif len(rows) >= GROWTH * self._chosen_by:
            self._chosen_by, tried = len(rows), [self._values, self._logarithms]
        taus: dict[Form, tuple[float, float]] = {}
        for process in tried:
            process.learn(X, values, rows, rng)
            of_all = judge(process)
            taus[process.form] = of_all, judge(process) if process.believe_less(rng) else of_all
        self.chosen = max(tried, key=lambda process: taus[process.form][1])
        return taus[self.chosen.form]
