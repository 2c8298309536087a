"""Functions F1 to F14 of the CEC 2005 benchmark [Suganthan2005]_, from their official shifts, rotations and biases.

The data are those of ``cec2005/cec2005_f1_f14.npz`` in the folder that ``SPIKEFRONT_DATA`` names. All functions are
minimised; rotated ones (F3, F7, F8, F10, F11, F14) exist in 2, 10, 30 and 50 dimensions, the others in 2 to 100.

.. [Suganthan2005] Suganthan, Hansen, Liang, Deb, Chen, Auger, Tiwari. Problem definitions and evaluation criteria for
   the CEC 2005 special session on real-parameter optimization. Nanyang Technological University, 2005.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.problem import Problem

Floats = NDArray[np.float64]

ROTATED = {3, 7, 8, 10, 11, 14}
NUMBERS = range(1, 15)
NAMES = (
    "sphere",
    "Schwefel 1.2",
    "elliptic",
    "Schwefel 1.2 with noise",
    "Schwefel 2.6",
    "Rosenbrock",
    "Griewank",
    "Ackley",
    "Rastrigin",
    "Rastrigin, rotated",
    "Weierstrass",
    "Schwefel 2.13",
    "Griewank of Rosenbrock",
    "Scaffer F6",
)


# Basic functions: points z (n, D) to values (n,)


def sphere(z: Floats) -> Floats:
    """Return Σ z²."""
    return np.einsum("ij,ij->i", z, z)


def schwefel_1_2(z: Floats) -> Floats:
    """Return Σ_i (Σ_{j<=i} z_j)²."""
    return sphere(np.cumsum(z, axis=1))


def elliptic(z: Floats) -> Floats:
    """Return Σ_i 10^(6 (i-1)/(D-1)) z_i²."""
    return z**2 @ 10.0 ** (6 * np.linspace(0, 1, z.shape[1]))


def rosenbrock(z: Floats) -> Floats:
    """Return Σ_i 100 (z_i² - z_{i+1})² + (z_i - 1)²."""
    return (100 * (z[:, :-1] ** 2 - z[:, 1:]) ** 2 + (z[:, :-1] - 1) ** 2).sum(axis=1)


def griewank(z: Floats) -> Floats:
    """Return Σ z²/4000 - Π cos(z_i / √i) + 1."""
    return sphere(z) / 4000 - np.cos(z / np.sqrt(np.arange(1, z.shape[1] + 1))).prod(axis=1) + 1


def ackley(z: Floats) -> Floats:
    """Return -20 exp(-0.2 √mean(z²)) - exp(mean(cos 2πz)) + 20 + e."""
    waves = np.cos(2 * np.pi * z).mean(axis=1)
    return -20 * np.exp(-0.2 * np.sqrt((z**2).mean(axis=1))) - np.exp(waves) + 20 + np.e


def rastrigin(z: Floats) -> Floats:
    """Return Σ z² - 10 cos(2πz) + 10."""
    return (z**2 - 10 * np.cos(2 * np.pi * z) + 10).sum(axis=1)


def weierstrass(z: Floats) -> Floats:
    """Return Σ_i Σ_k 0.5^k cos(2π 3^k (z_i + 0.5)), less its value at 0; k from 0 to 20."""
    k = np.arange(21)
    weight, frequency = 0.5**k, 2 * np.pi * 3.0**k
    waves = np.cos((z[:, :, None] + 0.5) * frequency) @ weight
    return waves.sum(axis=1) - z.shape[1] * (np.cos(0.5 * frequency) @ weight)


def griewank_of_rosenbrock(z: Floats) -> Floats:
    """Return Σ_i G(R(z_i, z_{i+1})) in a circle, with Rosenbrock R of two variables and Griewank G of one."""
    following = np.roll(z, -1, axis=1)
    valley = 100 * (z**2 - following) ** 2 + (z - 1) ** 2
    return (valley**2 / 4000 - np.cos(valley) + 1).sum(axis=1)


def scaffer_f6(z: Floats) -> Floats:
    """Return Σ_i 0.5 + (sin²√r - 0.5) / (1 + 0.001 r)² in a circle, r = z_i² + z_{i+1}²."""
    r = z**2 + np.roll(z, -1, axis=1) ** 2
    return (0.5 + (np.sin(np.sqrt(r)) ** 2 - 0.5) / (1 + 0.001 * r) ** 2).sum(axis=1)


BASIC: dict[int, Callable[[Floats], Floats]] = {
    1: sphere,
    2: schwefel_1_2,
    3: elliptic,
    4: schwefel_1_2,
    6: rosenbrock,
    7: griewank,
    8: ackley,
    9: rastrigin,
    10: rastrigin,
    11: weierstrass,
    13: griewank_of_rosenbrock,
    14: scaffer_f6,
}
"""What is shifted and rotated; F5 and F12 are made of matrices of their own."""


@dataclass(frozen=True)
class Function:
    """One function in a fixed number of dimensions.

    Attributes:
        number: 1 to 14.
        bias: Value at the optimum.
        optimum: Where that is, ``(D,)``.
        start: Bounds of the first population, lower and upper ``(2, D)``.
        bounds: Bounds of the search, lower and upper ``(2, D)``; those of F7, which officially has none, are
            [-600, 600], so that they hold its optimum, while it starts in [0, 600].
        evaluate: Points ``(n, D)`` to values ``(n,)``.
    """

    number: int
    bias: float
    optimum: Floats
    start: Floats
    bounds: Floats
    evaluate: Callable[[Floats], Floats]


def data_file() -> Path | None:
    """Return the file of official data, or None if it is not there."""
    path = Path(os.environ.get("SPIKEFRONT_DATA", "")) / "cec2005" / "cec2005_f1_f14.npz"
    return path if path.is_file() else None


def load_data() -> dict[str, Floats]:
    """Return the official data by name."""
    path = data_file()
    if path is None:
        raise SystemExit("SPIKEFRONT_DATA must name a folder with cec2005/cec2005_f1_f14.npz, got none")
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def build_function(
    number: int, n_var: int, data: Mapping[str, Floats], noise: np.random.Generator | None = None
) -> Function:
    """Return a function in ``n_var`` dimensions.

    Args:
        number: 1 to 14.
        n_var: Dimensions.
        data: Official data.
        noise: Source of the noise of F4, which is left out without one.
    """
    bias = float(data["f_bias"][number - 1])
    lower, upper = data["bounds"][number - 1]
    start = np.repeat([[lower], [upper]], n_var, axis=1).astype(float)
    bounds = np.where(start == 0, -600.0, start) if number == 7 else start
    optimum = data["F12_alpha" if number == 12 else f"F{number}_o"][:n_var].copy()
    if number == 5:
        optimum[: -(-n_var // 4)], optimum[int(0.75 * n_var) - 1 :] = -100, 100
    if number == 8:
        optimum[::2] = -32
    if number in (5, 12):
        value = (_schwefel_2_6 if number == 5 else _schwefel_2_13)(optimum, data)
    else:
        rotation = data[f"F{number}_M{n_var}"] if number in ROTATED else None
        value = _shifted(BASIC[number], optimum, rotation, 1.0 if number in (6, 13) else 0.0)

    def evaluate(x: Floats) -> Floats:
        values = value(x)
        if number == 4 and noise is not None:
            values = values * (1 + 0.4 * np.abs(noise.standard_normal(len(x))))
        return values + bias

    return Function(number, bias, optimum, start, bounds, evaluate)


def _shifted(
    basic: Callable[[Floats], Floats], optimum: Floats, rotation: Floats | None, offset: float
) -> Callable[[Floats], Floats]:
    """Return a basic function of ``(x - optimum) rotation + offset``."""
    if rotation is None:
        return lambda x: basic(x - optimum + offset)
    return lambda x: basic((x - optimum) @ rotation + offset)


def _schwefel_2_6(optimum: Floats, data: Mapping[str, Floats]) -> Callable[[Floats], Floats]:
    """Return max_i |A_i x - A_i o|."""
    A = data["F5_A"][: len(optimum), : len(optimum)]
    B = A @ optimum
    return lambda x: np.abs(x @ A.T - B).max(axis=1)


def _schwefel_2_13(alpha: Floats, data: Mapping[str, Floats]) -> Callable[[Floats], Floats]:
    """Return Σ_i (Σ_j a_ij (sin o_j - sin x_j) + b_ij (cos o_j - cos x_j))², o the optimum."""
    a, b = (data[name][: len(alpha), : len(alpha)] for name in ("F12_a", "F12_b"))
    A = a @ np.sin(alpha) + b @ np.cos(alpha)
    return lambda x: sphere(A - np.sin(x) @ a.T - np.cos(x) @ b.T)


class CecProblem(Problem):  # type: ignore[misc]  # pymoo has no types, so a base of it is Any
    """A function as a pymoo problem: its value less the bias, which is the error."""

    def __init__(self, function: Function) -> None:
        self.function = function
        xl, xu = function.bounds
        super().__init__(n_var=len(xl), n_obj=1, xl=xl, xu=xu)

    def _evaluate(self, x: Floats, out: dict[str, Any], *_: Any, **__: Any) -> None:
        out["F"] = self.function.evaluate(x) - self.function.bias
