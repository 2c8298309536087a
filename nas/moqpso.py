"""Quantum-behaved particle swarm optimisation with control of diversity, for several objectives.

The step is that of `nas.quantum`; each particle follows a leader of its own from a bounded archive of non-dominated
individuals, after [Coello2004]_, with crowding as in [Raquel2005]_.

.. [Coello2004] Coello Coello, Pulido, Lechuga. Handling multiple objectives with particle swarm optimization. IEEE
   Transactions on Evolutionary Computation 8(3), 2004.
.. [Raquel2005] Raquel, Naval. An effective use of crowding distance in multiobjective particle swarm optimization.
   GECCO 2005.
"""

from __future__ import annotations

from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray
from pymoo.core.algorithm import Algorithm
from pymoo.core.initialization import Initialization
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.sampling import Sampling
from pymoo.operators.sampling.rnd import FloatRandomSampling
from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
from pymoo.util.display.multi import MultiObjectiveOutput

from nas.diversity import Control, Explode, Perturb, Thresholds, resolve_control
from nas.quantum import Motion
from nas.swarm import Chooser, Floats, Generation, Points, Rows, Swarm, check_box, check_swarm, measure
from spaces import InputError

CONTROLS: dict[str, Control] = {
    "explode": Explode(),
    "perturb": Perturb(Thresholds(first=1.0, last=1.0, recovery=1.0, until=1.0), share=0.5),
}
"""Controls of diversity by name. Positions that are spread along a front are diverse however much was lost across it,
so ``perturb`` always acts here, for half of the swarm."""


class MOQPSO(Algorithm):  # type: ignore[misc]  # pymoo has no types, so a base of it is Any
    """Swarm that approximates the Pareto front in a box; constraints come first, what is not a number never wins.

    ``opt`` is the archive, ``pop`` holds the personal bests, ``trace`` a record of each generation's diversity.

    Args:
        pop_size: Particles; there are fewer if the sampling returns fewer.
        archive_size: Individuals that the archive keeps at most; the most crowded are dropped one by one.
        sampling: pymoo's sampling operator, array or population for the first generation; uniform by default.
        control: What is done about diversity: a name of `CONTROLS`, an `Explode` or `Perturb` with thresholds of its
            own, or None.
        motion: Schedule of the contraction-expansion coefficient, and boundaries, which clip by default: the ends
            of a front often lie on them.
        chooser: Decides which of the candidates are evaluated, if given.
        n_candidates: Positions drawn for each particle and generation when there is a chooser.
        **options: Options of pymoo's `Algorithm`.

    Raises:
        InputError: If an argument is out of its range.
    """

    def __init__(
        self,
        pop_size: int = 40,
        archive_size: int = 100,
        sampling: Sampling | Population | Floats | None = None,
        control: str | Control | None = "perturb",
        motion: Motion | None = None,
        chooser: Chooser | None = None,
        n_candidates: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(**{"output": MultiObjectiveOutput(), **options})
        check_swarm(pop_size)
        if archive_size < 1:
            raise InputError(f"archive_size must be at least 1, got {archive_size}")
        self.pop_size, self.archive_size = pop_size, archive_size
        self.initialization = Initialization(FloatRandomSampling() if sampling is None else sampling)
        self.swarm = Swarm(
            resolve_control(control, CONTROLS), motion or Motion(boundary="clip"), chooser, n_candidates
        )

    @property
    def trace(self) -> list[Generation]:
        """Diversities, coefficient and control of each generation so far."""
        return self.swarm.trace

    def _setup(self, problem: Problem, **_: Any) -> None:
        check_box(problem)

    def _initialize_infill(self) -> Population:
        return self.initialization.do(self.problem, self.pop_size, algorithm=self, random_state=self.random_state)

    def _initialize_advance(self, infills: Population, **_: Any) -> None:
        self.swarm.start(self, infills)
        self.opt = bounded_front(self.problem, infills, self.archive_size)

    def _infill(self) -> Population | None:
        archive = measure(self.problem, self.opt)
        leaders = archive.x[by_crowding(archive.F, len(self.swarm.now.x), self.random_state)]
        order = self.random_state.permutation(len(leaders))
        return self.swarm.propose(self, order, leaders, self.swarm.best.x.mean(axis=0))

    def _advance(self, infills: Population | None = None, **_: Any) -> None:
        self.swarm.settle(self, infills, lambda found, best: replaces(found, best, self.random_state))
        if infills is not None:
            self.opt = bounded_front(self.problem, Population.merge(self.opt, infills), self.archive_size)

    def _set_optimum(self) -> None:
        """Leave the archive as it is."""


def replaces(found: Points, best: Points, random_state: np.random.Generator) -> NDArray[np.bool_]:
    """Return where a point replaces a personal best: it violates less, or both are sound and it dominates.

    A coin decides where neither of two sound ones dominates.
    """
    no_worse = (best.F >= found.F).all(axis=1)
    no_better = (best.F <= found.F).all(axis=1)
    coin = random_state.random(len(found.F)) < 0.5
    wins = np.where(no_worse == no_better, coin, no_worse)
    both_sound = (found.violation == 0) & (best.violation == 0)
    replaced: NDArray[np.bool_] = (found.violation < best.violation) | (both_sound & wins)
    return replaced


def by_crowding(F: Floats, count: int, random_state: np.random.Generator) -> Rows:
    """Return ``count`` rows of ``F (n, n_obj)``, each the less crowded one of two that are drawn."""
    crowding = get_crowding_function("cd").do(F)
    first, second = random_state.integers(len(F), size=(2, count))
    less_crowded: Rows = np.where(crowding[second] > crowding[first], second, first)
    return less_crowded


def bounded_front(problem: Problem, population: Population, size: int) -> Population:
    """Return the sound individuals that none dominates, no two with equal objectives, at most ``size`` of them.

    The most crowded is dropped, and crowding computed anew, until few enough are left. If none is sound, the one that
    violates the constraints least is returned.
    """
    points = measure(problem, population)
    if not (points.violation == 0).any():
        return population[[int(np.argmin(points.violation))]]
    kept = np.flatnonzero(points.violation == 0)
    kept = kept[moocore.is_nondominated(points.F[kept], keep_weakly=False)]
    crowding = get_crowding_function("cd")
    while len(kept) > size:
        kept = np.delete(kept, np.argmin(crowding.do(points.F[kept])))
    return population[kept]
