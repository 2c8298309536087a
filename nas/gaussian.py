"""A Gaussian process over encoded architectures [Rasmussen2006]_, small enough to be fitted every generation.

.. [Rasmussen2006] Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press, 2006; equations
   2.25 and 5.9 for predictions and marginal likelihood, 5.12 for predictions of values left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky
from scipy.optimize import minimize

Floats = NDArray[np.float64]

TUNED = 150
"""Values that the scales are fitted to at most; all are predicted from."""

STEPS = 15
"""Iterations of a fit of the scales."""

JITTER = 1e-6
WEIGHT, NOISE, SLOPE = 3.0, 0.1, 0.3
"""Where a fit begins, and what it is drawn to: the sum of the genes' weights, the variance of noise in units of that
of the values, and the variance of a slope for each unit of its gene's weight."""

DEVIATION = 1.5
"""How freely a fit may leave it: the deviation of the prior of each scale's logarithm."""


class GaussianProcess:
    """Gaussian process with one weight per gene, learnt with amplitude and noise by their posterior's maximum.

    .. code-block:: text

        k(x, y) = a exp(-Σ_g w_g |x_g - y_g|²) + b Σ_g w_g x_g·y_g

    In the second part x and y are differences from the mean of what is learnt from. A gene of no weight counts in
    neither part, so that few results tell which of many genes matter. The logarithm of each scale has a normal prior,
    about even weights.

    Args:
        genes: Gene of each entry of a vector, ``(width,)``.
    """

    def __init__(self, genes: NDArray[np.intp]) -> None:
        self._genes = genes
        self._n_genes = int(genes.max()) + 1
        even = np.full(self._n_genes, WEIGHT / self._n_genes)
        self._centre = np.log(np.concatenate([even, [1.0, NOISE, SLOPE]]))
        self._scales = self._centre.copy()

    def tune(self, X: Floats, y: Floats, rng: np.random.Generator) -> None:
        """Learn the scales from vectors ``(n, width)`` and their values ``(n,)``, beginning with those at hand."""
        if len(X) > TUNED:
            rows = np.sort(rng.choice(len(X), TUNED, replace=False))
            X, y = X[rows], y[rows]
        t, middle = _standard(y)[0], X.mean(axis=0)
        bounds = [(value - 9.0, value + 6.0) for value in self._centre]
        options = {"maxiter": STEPS}
        found = minimize(
            self._loss, self._scales, (X, t, middle), "L-BFGS-B", jac=True, bounds=bounds, options=options
        )
        if np.isfinite(found.fun):
            self._scales = found.x

    def _loss(self, scales: Floats, X: Floats, t: Floats, middle: Floats) -> tuple[float, Floats]:
        """Return the negative logarithm of the posterior of the scales, up to a constant, and its gradient."""
        n, (a, noise, b) = len(X), np.exp(scales[self._n_genes :])
        weights = np.exp(scales[: self._n_genes])
        similar, slopes = self._parts(X, X, weights, middle)
        similar *= a
        try:
            L = cholesky(similar + b * slopes + (noise + JITTER) * np.eye(n), lower=True)
        except LinAlgError:
            return np.inf, np.zeros_like(scales)
        alpha = cho_solve((L, True), t)
        M = cho_solve((L, True), np.eye(n)) - np.outer(alpha, alpha)
        pull = (scales - self._centre) / DEVIATION
        value = 0.5 * t @ alpha + np.log(np.diag(L)).sum() + 0.5 * pull @ pull
        MK, centred = M * similar, X - middle
        apart = 2 * (MK.sum(axis=1) @ X**2 - ((MK @ X) * X).sum(axis=0))  # Σ M_ij K_ij (x_i - x_j)² by entry
        along = ((M @ centred) * centred).sum(axis=0)  # Σ M_ij x_i x_j by entry
        gradient = np.concatenate(
            [
                0.5 * weights * np.bincount(self._genes, b * along - apart, self._n_genes),
                [0.5 * MK.sum(), 0.5 * noise * np.trace(M), 0.5 * b * (M * slopes).sum()],
            ]
        )
        return float(value), gradient + pull / DEVIATION

    def _parts(self, X: Floats, Z: Floats, weights: Floats, middle: Floats) -> tuple[Floats, Floats]:
        """Return similarity and weighted product of vectors ``(n, width)`` and ``(m, width)``, ``(n, m)`` each."""
        root = np.sqrt(weights)[self._genes]
        x, z = (X - middle) * root, (Z - middle) * root
        slopes = x @ z.T
        near = 2 * slopes
        near -= (x**2).sum(axis=1)[:, None]
        near -= (z**2).sum(axis=1)
        np.minimum(near, 0.0, out=near)
        return np.exp(near, out=near), slopes

    def fit(self, X: Floats, y: Floats) -> None:
        """Take vectors ``(n, width)`` and their values ``(n,)`` to predict from, with the scales as they are."""
        self._X, self._middle = X, X.mean(axis=0)
        self._t, self._mean, self._deviation = _standard(y)
        noise = np.exp(self._scales[-2])
        self._L = cholesky(self._kernel(X) + (noise + JITTER) * np.eye(len(X)), lower=True)
        self._alpha = cho_solve((self._L, True), self._t)
        self._left_out: Floats | None = None

    def _kernel(self, Z: Floats) -> Floats:
        """Return the covariance of vectors ``(m, width)`` and those predicted from, ``(m, n)``."""
        a, _, b = np.exp(self._scales[self._n_genes :])
        similar, slopes = self._parts(Z, self._X, np.exp(self._scales[: self._n_genes]), self._middle)
        covariance: Floats = a * similar + b * slopes
        return covariance

    def predict(self, Z: Floats) -> Floats:
        """Return the means of vectors ``(m, width)``, ``(m,)``."""
        mean: Floats = self._mean + self._deviation * (self._kernel(Z) @ self._alpha)
        return mean

    def left_out(self) -> Floats:
        """Return what each value is predicted to be from all others, ``(n,)``."""
        if self._left_out is None:
            inverse = cho_solve((self._L, True), np.eye(len(self._t)))
            self._left_out = self._mean + self._deviation * (self._t - self._alpha / np.diag(inverse))
        return self._left_out


def _standard(y: Floats) -> tuple[Floats, float, float]:
    """Return values with mean 0 and variance 1, their mean and their deviation (1 if all are equal)."""
    mean, deviation = float(y.mean()), float(y.std()) or 1.0
    return (y - mean) / deviation, mean, deviation
