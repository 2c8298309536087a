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

from nas.diversity import Control
from nas.quantum import MEAN_BESTS, Motion
from nas.swarm import Chooser, Floats, Generation, Swarm, check_box, check_swarm, violations
from spaces import InputError


class QPSO(Algorithm):  # type: ignore[misc]  # pymoo is untyped
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
        self.swarm = Swarm(control, motion or Motion(), chooser, n_candidates)

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
        self.pop = infills.copy()
        self.swarm.start(self.problem, infills)

    def _infill(self) -> Population | None:
        assert self.pop is not None
        pbest = self.pop.get("X").astype(float)
        order = self._order()
        return self.swarm.propose(self, pbest, pbest[order[0]], self.mean_best(pbest, order))

    def _advance(self, infills: Population | None = None, **_: Any) -> None:
        assert self.pop is not None
        assert self.termination is not None
        if infills is None:
            self.termination.terminate()  # nothing is left to evaluate
            return
        rows, F, violation = self.swarm.settle(self, infills)
        known = self.pop[rows]
        better = improves(F[:, 0], violation, known.get("F").astype(float)[:, 0], violations(self.problem, known))
        self.pop[rows[better]] = infills[better]

    def _order(self) -> NDArray[np.intp]:
        """Return the rows of the personal bests from best to worst."""
        assert self.pop is not None
        return np.lexsort((self.pop.get("F").astype(float)[:, 0], violations(self.problem, self.pop)))

    def _set_optimum(self) -> None:
        assert self.pop is not None
        self.opt = self.pop[self._order()[:1]]  # pymoo's own choice would take what is not a number


def improves(f: Floats, violation: Floats, f_best: Floats, violation_best: Floats) -> NDArray[np.bool_]:
    """Return where an individual replaces a personal best: it violates less, or both are sound and it is better.

    All are ``(n,)``.
    """
    better: NDArray[np.bool_] = (violation < violation_best) | (
        (violation == 0) & (violation_best == 0) & (f < f_best)
    )
    return better
