"""A search space and its objectives as a pymoo problem; the one place where signs are flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray
from pymoo.core.evaluator import Evaluator as PymooEvaluator
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.problems.static import StaticProblem

from evaluators import Sense
from spaces import Space

FAILED, SOUND = 1.0, -1.0
"""Constraint values: pymoo takes above 0 as violated."""


class ArchitectureProblem(Problem):  # type: ignore[misc]  # pymoo is untyped
    """Integer genes in, objectives to minimise out; a failed evaluation is a violated constraint.

    Args:
        space: Search space.
        objectives: Metric names in the order of F, each with its sense.
    """

    def __init__(self, space: Space, objectives: Mapping[str, Sense]) -> None:
        self.space = space
        self.objectives = dict(objectives)
        super().__init__(
            n_var=len(space.columns),
            n_obj=len(objectives),
            n_ieq_constr=1,
            xl=np.zeros(len(space.columns), dtype=np.int64),
            xu=space.cardinalities - 1,
            vtype=int,
        )
        self._signs = np.array([-1.0 if sense == "max" else 1.0 for sense in objectives.values()])

    def in_reals(self) -> ArchitectureProblem:
        """Return the same problem for algorithms that move in reals, ``[0, n)`` per gene; ``decode`` floors them."""
        problem = copy(self)
        problem.xl = np.zeros(self.n_var)
        problem.xu = np.nextafter(self.space.cardinalities.astype(np.float64), 0)
        problem.vtype = float
        return problem

    def fill(self, population: Population, metrics: Sequence[Mapping[str, float] | None]) -> Population:
        """Return the individuals of a population with their results, None being a failure.

        The objectives of a failure are set to 0 and mean nothing: its constraint is violated, and pymoo compares
        such individuals by their violation alone.
        """
        F = np.zeros((len(population), self.n_obj))
        G = np.full((len(population), 1), FAILED)
        for row, values in enumerate(metrics):
            if values is not None:
                F[row] = self._signs * self.point(values)
                G[row] = SOUND
        PymooEvaluator().eval(StaticProblem(self, F=F, G=G), population)
        return population

    def point(self, values: Mapping[str, float]) -> NDArray[np.float64]:
        """Return the objectives of one evaluation in their natural sense, ``(n_obj,)``."""
        return np.array([values[name] for name in self.objectives])
