"""A swarm of quantum-behaved particles, as `nas.qpso.QPSO` and `nas.moqpso.MOQPSO` move it and keep its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import MultipleCriteria, Termination
from pymoo.termination.default import DefaultTermination
from pymoo.termination.max_eval import MaximumFunctionCallTermination
from pymoo.termination.max_gen import MaximumGenerationTermination
from pymoo.termination.max_time import TimeBasedTermination

from nas.diversity import (
    Control,
    Explode,
    Perturb,
    acts,
    distance_to_average,
    fitness_diversity,
    mutants,
)
from nas.lineage import note_parents
from nas.quantum import BOUNDARIES, Motion, contraction, quantum_step
from spaces import InputError

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

BUDGETS = (MaximumGenerationTermination, MaximumFunctionCallTermination, TimeBasedTermination)


class Chooser(Protocol):
    """Decides which of the positions that were drawn are evaluated: reranking, or skipping what was seen before."""

    def __call__(self, problem: Problem, positions: Floats, random_state: np.random.Generator) -> tuple[Rows, Floats]:
        """Return the particles that move this generation and where to.

        Args:
            problem: The problem that is solved.
            positions: Candidates inside the box, ``(n_candidates, n, n_var)``: ``positions[k, i]`` is the k-th that
                was drawn for particle i.
            random_state: Source of all that is drawn.

        Returns:
            Different particles ``(m,)``, rows in ``range(n)``, and their positions ``(m, n_var)``, which need not be
            among the candidates. ``m`` may be less than n, the other particles stay where they are; 0 says that
            nothing is left to evaluate, and ends the search.
        """
        ...


@runtime_checkable
class Observer(Protocol):
    """A chooser that wants to know what comes of its choices."""

    def observe(self, population: Population) -> None:
        """Take individuals that were evaluated, those of the first generation included."""
        ...


@dataclass(frozen=True)
class Generation:
    """What the swarm was like after one generation; ``pandas.DataFrame(algorithm.trace)`` makes a table of them.

    Attributes:
        generation: Number of the generation, from 1, the sampled one.
        alpha: Contraction-expansion coefficient of its step; NaN for the sampled one.
        acted: Whether the diversity control acted in its step.
        diversity: Distance-to-average-point diversity of its positions, a share of the box's diagonal.
        fitness_diversity: The same of their objectives, as a share of the range they had at first.
    """

    generation: int
    alpha: float
    acted: bool
    diversity: float
    fitness_diversity: float


@dataclass(frozen=True)
class Points:
    """Where individuals are, and what they are worth, row by row.

    Attributes:
        x: Positions, ``(n, n_var)``.
        F: Objectives, ``(n, n_obj)``.
        violation: By how much they break the constraints, ``(n,)``: 0 if they are sound, infinity if one of their
            objectives or constraints is not a finite number, which is worse than any other violation.
    """

    x: Floats
    F: Floats
    violation: Floats

    def take(self, rows: Rows | NDArray[np.bool_]) -> Points:
        """Return some of the points."""
        return Points(self.x[rows], self.F[rows], self.violation[rows])

    def put(self, rows: Rows, points: Points) -> None:
        """Overwrite rows by other points."""
        self.x[rows], self.F[rows], self.violation[rows] = points.x, points.F, points.violation


Replaces = Callable[[Points, Points], NDArray[np.bool_]]
"""Says of new points ``(n,)`` and the personal bests of their particles ``(n,)`` where the new one is the better."""


def measure(problem: Problem, population: Population) -> Points:
    """Return the points of evaluated individuals, as arrays of their own."""
    x = np.array([individual.X for individual in population], dtype=float)
    F = np.array([individual.F for individual in population], dtype=float)
    sound = np.isfinite(F).all(axis=1)
    violation = np.zeros(len(F))
    if problem.has_constraints():
        cv, feasible = (values[:, 0] for values in population.get("CV", "FEAS"))
        sound &= ~np.isnan(cv)
        violation[~feasible] = cv[~feasible]
    return Points(x, F, np.where(sound, violation, np.inf))


class Swarm:
    """Positions of all particles, the state of the diversity control, and the record of both.

    Args:
        control: Control of diversity, if there is one.
        motion: How particles move.
        chooser: Decides which candidates are evaluated; without one every particle moves to the one drawn for it.
        n_candidates: Positions drawn for each particle and generation when there is a chooser.
    """

    def __init__(self, control: Control | None, motion: Motion, chooser: Chooser | None, n_candidates: int) -> None:
        if n_candidates < 1:
            raise InputError(f"n_candidates must be at least 1, got {n_candidates}")
        if chooser is None and n_candidates > 1:
            raise InputError(f"n_candidates = {n_candidates} needs a chooser, got None")
        self.control, self.motion, self.chooser, self.n_candidates = control, motion, chooser, n_candidates
        self.trace: list[Generation] = []
        self.alpha, self.progress, self.acting = float("nan"), 0.0, False

    def start(self, algorithm: Algorithm, infills: Population) -> None:
        """Take the evaluated first generation as positions and personal bests."""
        algorithm.pop = infills.copy()
        self.now, self.best = (measure(algorithm.problem, infills) for _ in range(2))
        self.F_extent = np.zeros(algorithm.problem.n_obj)
        self._report(infills)
        self._record(algorithm.problem, 1)

    def propose(self, algorithm: Algorithm, order: Rows, leaders: Floats, mean_best: Floats) -> Population | None:
        """Return the next individuals to evaluate, each with its ``particle``, or None if nothing is left.

        Args:
            algorithm: The algorithm whose budget and randomness are used.
            order: All particles; the first try mutants when a control wants some.
            leaders: Leader of all ``(n_var,)``, or one for each particle ``(n, n_var)``.
            mean_best: Mean best position, ``(n_var,)``.
        """
        problem, random_state = algorithm.problem, algorithm.random_state
        self.alpha = self._schedule(algorithm)
        self.acting = acts(self.control, self.acting, self.trace[-1].diversity, self.progress)
        if self.acting and isinstance(self.control, Explode):
            self.alpha = self.control.alpha
        x = self.now.x
        if self.chooser is not None:
            x = np.broadcast_to(x, (self.n_candidates, *x.shape))
        positions = quantum_step(x, self.best.x, leaders, mean_best, self.alpha, random_state)
        xl, xu = problem.bounds()
        if self.acting and isinstance(self.control, Perturb):
            tried = order[: max(1, round(self.control.share * len(order)))]
            followed = np.broadcast_to(leaders, x.shape)[..., tried, :]
            diversity = self.trace[-1].diversity
            positions[..., tried, :] = mutants(followed, xu - xl, self.control.scale, diversity, random_state)
        positions = BOUNDARIES[self.motion.boundary](positions, xl, xu, random_state)
        if self.chooser is None:
            return Population.new(X=positions, particle=np.arange(len(positions)))
        particles, chosen = self.chooser(problem, positions, random_state)
        if not len(particles):
            return None
        infills = Population.new(X=chosen, particle=particles)
        followed = np.broadcast_to(leaders, x.shape[-2:])[particles]
        moved = (positions[:, particles] == chosen).all(axis=2).any(axis=0)  # the others were drawn by the chooser
        note_parents(infills, [leader[None] if own else None for leader, own in zip(followed, moved, strict=True)])
        return infills

    def settle(self, algorithm: Algorithm, infills: Population | None, replaces: Replaces) -> None:
        """Move particles to individuals that were evaluated, and replace the personal bests that are to be replaced.

        A particle that is among them more than once, as it can be where results come in any order, moves to one after
        another.

        Raises:
            InputError: If the individuals are not those that were asked for.
        """
        if infills is None:
            algorithm.termination.terminate()  # nothing was left to evaluate
            return
        rows = np.array([individual.data.get("particle", -1) for individual in infills])
        if (rows < 0).any():
            raise InputError("tell takes the individuals that ask returned, got others (without their particle)")
        self._report(infills)
        found = measure(algorithm.problem, infills)
        for turn in _turns(rows):
            self._move(algorithm, infills[turn], rows[turn], found.take(turn), replaces)
        self._record(algorithm.problem, algorithm.n_iter)

    def _move(self, algorithm: Algorithm, infills: Population, rows: Rows, found: Points, replaces: Replaces) -> None:
        """Move different particles to evaluated individuals."""
        self.now.put(rows, found)
        self._remember(algorithm, infills, rows, found, replaces(found, self.best.take(rows)))
        if self.acting and isinstance(self.control, Explode) and self.control.forget:
            leader = np.lexsort((self.best.F[:, 0], self.best.violation))[0]
            as_sound = found.violation <= self.best.violation[rows]
            self._remember(algorithm, infills, rows, found, as_sound & (rows != leader))

    def _report(self, infills: Population) -> None:
        """Show evaluated individuals to a chooser that wants to know."""
        chooser: object = self.chooser
        if isinstance(chooser, Observer):
            chooser.observe(infills)

    def _remember(
        self, algorithm: Algorithm, infills: Population, rows: Rows, found: Points, which: NDArray[np.bool_]
    ) -> None:
        """Make some of the evaluated individuals the personal bests of their particles."""
        self.best.put(rows[which], found.take(which))
        algorithm.pop[rows[which]] = infills[which]

    def _schedule(self, algorithm: Algorithm) -> float:
        """Return the coefficient that the budget calls for, and remember how far the search is."""
        if self.motion.generations is not None:
            spent = (algorithm.n_iter - 1) / self.motion.generations
        else:
            share = budget_spent(algorithm.termination)
            spent = 0.5 if share is None else share
        self.progress = min(spent, 1.0)
        return contraction(self.progress, self.motion.start, self.motion.end)

    def _record(self, problem: Problem, generation: int) -> None:
        F = self.now.F[self.now.violation == 0]
        if len(F):
            self.F_extent = np.where(self.F_extent > 0, self.F_extent, F.max(axis=0) - F.min(axis=0))
        diversity = distance_to_average(self.now.x, problem.xu - problem.xl)
        self.trace.append(
            Generation(generation, self.alpha, self.acting, diversity, fitness_diversity(F, self.F_extent))
        )


def _turns(particles: Rows) -> list[Rows]:
    """Return rows of particles ``(m,)`` in turns, in none of which a particle occurs twice, in their order."""
    before: Counter[int] = Counter()
    turns: list[list[int]] = []
    for row, particle in enumerate(particles.tolist()):
        if before[particle] == len(turns):
            turns.append([])
        turns[before[particle]].append(row)
        before[particle] += 1
    return [np.array(turn, dtype=np.intp) for turn in turns]


def budget_spent(termination: Termination) -> float | None:
    """Return the share of a budget of evaluations, generations or time that is spent, or None if there is no budget.

    Criteria of tolerance are passed over: their percentages say how near they are to hold, not how long it will take.
    """
    if isinstance(termination, BUDGETS):
        return float(termination.perc)
    if isinstance(termination, DefaultTermination):
        return float(max(termination.max_gen.perc, termination.max_evals.perc))
    if isinstance(termination, MultipleCriteria):
        shares = [share for inner in termination.criteria if (share := budget_spent(inner)) is not None]
        return max(shares, default=None)
    return None


def check_box(problem: Problem) -> None:
    """Raise InputError unless a problem has finite bounds, in order."""
    if not problem.has_bounds():
        raise InputError("a swarm needs bounds of all variables, got a problem without xl and xu")
    xl, xu = problem.bounds()
    if not (np.isfinite(xl).all() and np.isfinite(xu).all() and (xl <= xu).all()):
        raise InputError(f"bounds must be finite with xl <= xu, got xl {xl.tolist()} and xu {xu.tolist()}")


def check_swarm(pop_size: int) -> None:
    """Raise InputError unless a swarm has a particle."""
    if pop_size < 1:
        raise InputError(f"pop_size must be at least 1, got {pop_size}")
