"""Equations of quantum-behaved particle swarms as functions of arrays; `nas.qpso` and `nas.moqpso` put them to use.

.. [Sun2004] Sun, Feng, Xu. Particle swarm optimization with particles having quantum behavior. CEC 2004.
.. [Sun2012] Sun, Fang, Wu, Palade, Xu. Quantum-behaved particle swarm optimization: analysis of individual particle
   behavior and parameter selection. Evolutionary Computation 20(3), 2012.
.. [Xi2008] Xi, Sun, Xu. An improved quantum-behaved particle swarm optimization algorithm with weighted mean best
   position. Applied Mathematics and Computation 205(2), 2008.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces import InputError

Floats = NDArray[np.float64]

WEIGHTS = (1.5, 0.5)
"""Weights of the best and the worst personal best [Xi2008]_; those between lie on a line."""


def quantum_step(
    x: Floats, pbest: Floats, leader: Floats, mean_best: Floats, alpha: float, random_state: np.random.Generator
) -> Floats:
    """Draw the next positions of a swarm around its attractors [Sun2004]_.

    .. code-block:: text

        p  = phi pbest + (1 - phi) leader              phi ~ U(0, 1) for each entry
        x' = p ± alpha |mean_best - x| ln(1 / u)       u ~ U(0, 1], the sign by a coin

    The swarm stays bounded for ``alpha < exp(0.5772) = 1.781`` and flies apart above [Sun2012]_.

    Args:
        x: Positions, ``(..., n, n_var)``; leading axes draw several positions for each particle.
        pbest: Personal bests, ``(n, n_var)``.
        leader: Leader of all, ``(n_var,)``, or one for each particle, ``(n, n_var)``.
        mean_best: Mean best position, ``(n_var,)``.
        alpha: Contraction-expansion coefficient, above 0.
        random_state: Source of all that is drawn.

    Returns:
        Positions of the shape of ``x``, possibly outside the box.
    """
    phi = random_state.random(x.shape)
    spread = -np.log(1.0 - random_state.random(x.shape))  # 1 - [0, 1) keeps the logarithm finite
    spread *= np.where(random_state.random(x.shape) < 0.5, -alpha, alpha)
    spread *= np.abs(mean_best - x)
    spread += leader + phi * (pbest - leader)
    return spread


def plain_mean_best(pbest: Floats, _order: NDArray[np.intp]) -> Floats:
    """Return the mean of personal bests ``(n, n_var)``, an array ``(n_var,)`` [Sun2004]_."""
    mean: Floats = pbest.mean(axis=0)
    return mean


def weighted_mean_best(pbest: Floats, order: NDArray[np.intp]) -> Floats:
    """Return the mean of personal bests weighted by rank, from 1.5 for the best to 0.5 for the worst [Xi2008]_.

    Args:
        pbest: Personal bests, ``(n, n_var)``.
        order: Rows of ``pbest`` from best to worst, ``(n,)``.
    """
    weights = np.linspace(*WEIGHTS, len(order))
    mean: Floats = weights @ pbest[order] / weights.sum()
    return mean


MEAN_BESTS: dict[str, Callable[[Floats, NDArray[np.intp]], Floats]] = {
    "plain": plain_mean_best,
    "weighted": weighted_mean_best,
}
"""Mean best positions by name; each takes personal bests and their order from best to worst."""


def contraction(progress: float, start: float = 1.0, end: float = 0.5) -> float:
    """Return the contraction-expansion coefficient after a share ``progress`` in [0, 1] of the budget, on a line."""
    return start + (end - start) * min(max(progress, 0.0), 1.0)


def clip(x: Floats, xl: Floats, xu: Floats, _random_state: np.random.Generator) -> Floats:
    """Return positions with what lies outside the box moved to the nearest bound."""
    return np.clip(x, xl, xu)


def reflect(x: Floats, xl: Floats, xu: Floats, _random_state: np.random.Generator) -> Floats:
    """Return positions with what lies outside the box mirrored at its walls, as often as it takes."""
    width = xu - xl
    period = 2 * np.where(width > 0, width, 1.0)
    mirrored = width - np.abs(width - np.mod(x - xl, period))
    # Rounding could leave the box by a hair, and must not move what is inside; a fixed variable has but one place.
    return np.where((x >= xl) & (x <= xu), x, np.clip(xl + mirrored, xl, xu))


def redraw(x: Floats, xl: Floats, xu: Floats, random_state: np.random.Generator) -> Floats:
    """Return positions with each entry outside the box drawn anew, uniformly within its bounds."""
    drawn = xl + random_state.random(x.shape) * (xu - xl)
    return np.where((x >= xl) & (x <= xu), x, np.clip(drawn, xl, xu))


BOUNDARIES: dict[str, Callable[[Floats, Floats, Floats, np.random.Generator], Floats]] = {
    "clip": clip,
    "reflect": reflect,
    "redraw": redraw,
}
"""What is done about positions outside the box, by name; positions are ``(..., n_var)``, bounds ``(n_var,)``."""


@dataclass(frozen=True)
class Motion:
    """How particles move.

    Attributes:
        start: Contraction-expansion coefficient at the start of the budget.
        end: The coefficient at its end.
        generations: Generations over which the coefficient runs from start to end; None takes the budget of the
            termination (evaluations, generations or time). Without either all stays as it is half-way.
        boundary: What is done about positions outside the box: ``clip``, ``reflect`` or ``redraw``.

    Raises:
        InputError: If a value is out of its range.
    """

    start: float = 1.0
    end: float = 0.5
    generations: int | None = None
    boundary: str = "reflect"

    def __post_init__(self) -> None:
        if not 0 < self.end <= self.start:
            raise InputError(f"motion: 0 < end <= start must hold, got start {self.start} and end {self.end}")
        if self.generations is not None and self.generations < 1:
            raise InputError(f"motion: generations must be at least 1 or None, got {self.generations}")
        if self.boundary not in BOUNDARIES:
            raise InputError(f"motion: boundary must be one of {sorted(BOUNDARIES)}, got {self.boundary!r}")
