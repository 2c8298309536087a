"""Quantum-behaved particle swarm optimisation with control of diversity, for one objective.

Equations and their sources are in `nas.quantum`, diversities and controls in `nas.diversity`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.algorithm import Algorithm
from pymoo.core.initialization import Initialization
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.sampling import Sampling
from pymoo.operators.sampling.rnd import FloatRandomSampling
from pymoo.util.display.single import SingleObjectiveOutput

from nas.diversity import Control, resolve_control
from nas.quantum import MEAN_BESTS, Motion
from nas.swarm import Chooser, Floats, Generation, Points, Rows, Swarm, check_box, check_swarm
from spaces import InputError


class QPSO(Algorithm):  # type: ignore[misc]  # pymoo has no types, so a base of it is Any
    """Swarm that minimises one objective in a box; constraints come first, and what is not a number never wins.

    ``pop`` holds the personal bests, ``opt`` the best of them, ``trace`` a record of each generation's diversity.

    Args:
        pop_size: Particles; there are fewer if the sampling returns fewer.
        sampling: pymoo's sampling operator, array or population for the first generation; uniform by default.
        mean_best: Mean best position, ``plain`` or ``weighted`` by rank.
        control: What is done when diversity is lost: nothing, ``explode``, ``perturb``, or an `Explode` or `Perturb`
            with thresholds of its own.
        motion: Schedule of the contraction-expansion coefficient, and boundaries.
        chooser: Decides which of the candidates are evaluated, if given.
        n_candidates: Positions drawn for each particle and generation when there is a chooser.
        **options: Options of pymoo's `Algorithm`.

    Raises:
        InputError: If an argument is out of its range.
    """

    def __init__(
        self,
        pop_size: int = 40,
        sampling: Sampling | Population | Floats | None = None,
        mean_best: str = "plain",
        control: str | Control | None = None,
        motion: Motion | None = None,
        chooser: Chooser | None = None,
        n_candidates: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(**{"output": SingleObjectiveOutput(), **options})
        check_swarm(pop_size)
        if mean_best not in MEAN_BESTS:
            raise InputError(f"mean_best must be one of {sorted(MEAN_BESTS)}, got {mean_best!r}")
        self.pop_size, self.mean_best = pop_size, MEAN_BESTS[mean_best]
        self.initialization = Initialization(FloatRandomSampling() if sampling is None else sampling)
        self.swarm = Swarm(resolve_control(control), motion or Motion(), chooser, n_candidates)

    @property
    def trace(self) -> list[Generation]:
        """Diversities, coefficient and control of each generation so far."""
        return self.swarm.trace

    def _setup(self, problem: Problem, **_: Any) -> None:
        check_box(problem)
        if problem.n_obj != 1:
            raise InputError(f"QPSO minimises one objective, got {problem.n_obj}; MOQPSO takes several")

    def _initialize_infill(self) -> Population:
        return self.initialization.do(self.problem, self.pop_size, algorithm=self, random_state=self.random_state)

    def _initialize_advance(self, infills: Population, **_: Any) -> None:
        self.swarm.start(self, infills)

    def _infill(self) -> Population | None:
        best = self.swarm.best
        order = best_first(best)
        return self.swarm.propose(self, order, best.x[order[0]], self.mean_best(best.x, order))

    def _advance(self, infills: Population | None = None, **_: Any) -> None:
        self.swarm.settle(self, infills, improves)

    def _set_optimum(self) -> None:
        assert self.pop is not None
        self.opt = self.pop[best_first(self.swarm.best)[:1]]  # pymoo's own choice would take what is not a number


def best_first(points: Points) -> Rows:
    """Return the rows of points from best to worst: by violation, then by their one objective."""
    return np.lexsort((points.F[:, 0], points.violation))


def improves(found: Points, best: Points) -> NDArray[np.bool_]:
    """Return where a point replaces a personal best: it violates less, or both are sound and it is better."""
    both_sound = (found.violation == 0) & (best.violation == 0)
    better: NDArray[np.bool_] = (found.violation < best.violation) | (both_sound & (found.F < best.F)[:, 0])
    return better
