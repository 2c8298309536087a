"""A search space and its objectives as a pymoo problem; the one place where signs are flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.evaluator import Evaluator as PymooEvaluator
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.problems.static import StaticProblem

from evaluators import Sense
from nas.constraints import Constraint, squash
from nas.fitness import Fitness, MeanFitness, MetricFitness, signs
from spaces import Genotype, Space

if TYPE_CHECKING:
    from evaluators import StaticMetrics

REMEMBERED = 2**16
"""Architectures whose static metrics are kept, as candidates come back."""

FAILED, SOUND = 1.0, -1.0
"""Constraint values: pymoo takes above 0 as violated."""


class ArchitectureProblem(Problem):  # type: ignore[misc]  # pymoo has no types, so a base of it is Any
    """Integer genes in, objectives to minimise out; a failed evaluation is a violated constraint.

    The columns of G are the failure and then one per constraint on a measured metric. Constraints on static metrics
    are kept by proposing nothing that violates them.

    Args:
        space: Search space.
        objectives: Metric names in the order of F, each with its sense.
        constraints: Bounds on metrics.
        static: Metrics that follow from an architecture alone; none without it.
        fitness: Metric with its sense that algorithms for one number climb; the objectives without it.
        reference: Worst value of each objective that counts for the hypervolume, if it is known.
    """

    def __init__(
        self,
        space: Space,
        objectives: Mapping[str, Sense],
        constraints: Sequence[Constraint] = (),
        static: StaticMetrics | None = None,
        fitness: tuple[str, Sense] | None = None,
        reference: Mapping[str, float] | None = None,
    ) -> None:
        self.space = space
        self.objectives = dict(objectives)
        self.constraints = tuple(constraints)
        self.static_metrics = static.names if static is not None else ()
        self.static_constraints = tuple(c for c in constraints if c.metric in self.static_metrics)
        self._measured = tuple(c for c in constraints if c.metric not in self.static_metrics)
        self._static = static
        self._climbed = fitness
        self._reference = reference
        self._fitness: Fitness | None = None
        self._known: dict[Genotype, Mapping[str, float]] = {}
        super().__init__(
            n_var=len(space.columns),
            n_obj=len(objectives),
            n_ieq_constr=1 + len(self._measured),
            xl=np.zeros(len(space.columns), dtype=np.int64),
            xu=space.cardinalities - 1,
            vtype=int,
        )
        self._signs = signs(objectives)

    def __deepcopy__(self, _: Any) -> ArchitectureProblem:
        """Return the problem itself: pymoo would copy it, with all its table, for the results of each generation."""
        return self

    def in_reals(self) -> ArchitectureProblem:
        """Return the same problem for algorithms that move in reals, ``[0, n)`` per gene; ``decode`` floors them."""
        problem = copy(self)
        problem.xl = np.zeros(self.n_var)
        problem.xu = np.nextafter(self.space.cardinalities.astype(np.float64), 0)
        problem.vtype = float
        return problem

    def scalar(self) -> ArchitectureProblem:
        """Return the same problem for one search by an algorithm that takes one number to minimise.

        That is the metric ``fitness`` if there is one, the only objective, or the mean of several
        (:class:`nas.fitness.MeanFitness`), whose units are those of the search.
        """
        if self._climbed is None and len(self.objectives) == 1:
            return self
        problem = copy(self)
        problem.n_obj = 1
        problem._fitness = MeanFitness(self.objectives) if self._climbed is None else MetricFitness(*self._climbed)
        return problem

    def fill(self, population: Population, metrics: Sequence[Mapping[str, float] | None]) -> Population:
        """Return the individuals of a population with their results, None being a failure.

        The objectives of a failure are set to 0 and mean nothing: all its constraints are violated by 1, so that it
        is worse than any other, and pymoo compares such individuals by their violation alone.
        """
        F = np.zeros((len(population), self.n_obj))
        G = np.full((len(population), self.n_ieq_constr), FAILED)
        sound = np.array([values is not None for values in metrics], dtype=bool)
        F[sound] = self._minimised([values for values in metrics if values is not None])
        for row, values in enumerate(metrics):
            if values is not None:
                excesses = [constraint.excess(values[constraint.metric]) for constraint in self._measured]
                G[row] = [SOUND, *(squash(excess) if excess > 0 else SOUND for excess in excesses)]
        PymooEvaluator().eval(StaticProblem(self, F=F, G=G), population)
        return population

    def _minimised(self, rows: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
        """Return what is to be minimised of complete evaluations, ``(n, n_obj)``."""
        if self._fitness is not None:
            return self._fitness(rows)[:, None]
        points = np.array([self.point(values) for values in rows]).reshape(-1, self.n_obj)
        minimised: NDArray[np.float64] = self._signs * points
        return minimised

    def point(self, values: Mapping[str, float]) -> NDArray[np.float64]:
        """Return the objectives of one evaluation in their natural sense, ``(n_obj,)``."""
        return np.array([values[name] for name in self.objectives])

    def minimised_reference(self) -> NDArray[np.float64] | None:
        """Return the reference of the hypervolume in what is to be minimised, ``(n_obj,)``; None if there is none."""
        if self._reference is None or self._fitness is not None:
            return None
        reference: NDArray[np.float64] = self._signs * self.point(self._reference)
        return reference

    def feasible(self, values: Mapping[str, float]) -> bool:
        """Return whether the metrics of a complete evaluation keep all constraints."""
        return all(constraint.excess(values[constraint.metric]) == 0 for constraint in self.constraints)

    def static(self, architecture: Genotype) -> Mapping[str, float]:
        """Return the static metrics of an architecture, computed without weights.

        Raises:
            InputError: If an evaluator that calls itself static cannot give them.
        """
        if self._static is None:
            return {}
        if architecture not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[architecture] = self._static(architecture)
        return self._known[architecture]

    def foretell(self, architectures: Sequence[Genotype]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return what needs no scoring of what is to be minimised.

        Returns:
            Static objectives ``(n, n_obj)``, NaN in the columns of others; and which are static, ``(n_obj,)``.
        """
        names = list(self.objectives) if self._fitness is None else [""] * self.n_obj
        computed = np.array([name in self.static_metrics for name in names], dtype=bool)
        values = np.full((len(architectures), self.n_obj), np.nan)
        for column in np.flatnonzero(computed).tolist():
            found = [self.static(architecture)[names[column]] for architecture in architectures]
            values[:, column] = self._signs[column] * np.array(found, dtype=np.float64)
        return values, computed

    def violation(self, architecture: Genotype) -> float:
        """Return the sum of the excesses over static constraints, each in units of its bound; 0 if admitted."""
        if not self.static_constraints:
            return 0.0
        values = self.static(architecture)
        return sum(constraint.excess(values[constraint.metric]) for constraint in self.static_constraints)

    def admits(self, architecture: Genotype) -> bool:
        """Return whether an architecture keeps all static constraints, so that scoring it can be of use."""
        return self.violation(architecture) == 0
