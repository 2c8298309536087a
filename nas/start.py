"""What a search has before its algorithm proposes anything, and the first population that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pymoo.core.population import Population
from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from nas.evaluation import Evaluation
from nas.problem import ArchitectureProblem
from spaces import Genotype


@dataclass(frozen=True)
class Start:
    """Results that a search begins with, all in its record.

    Attributes:
        results: Of different architectures, none of which is proposed again.
        spent: How many of them count against the budget.
    """

    results: tuple[Evaluation, ...] = ()
    spent: int = 0


def told(problem: ArchitectureProblem, results: Sequence[Evaluation]) -> Population:
    """Return results as evaluated individuals, in their order."""
    X = np.array([problem.space.encode(result.architecture) for result in results])
    metrics = [None if result.failure is not None else result.metrics for result in results]
    return problem.fill(Population.new(X=X), metrics)


def best_first(problem: ArchitectureProblem, results: Sequence[Evaluation], count: int) -> list[Genotype]:
    """Return the architectures of the best results, up to ``count``, best first; never one that failed.

    Feasible ones come first, front after front of those that no other dominates, within a front the less crowded
    first; then the others by how much they violate the constraints.

    Args:
        problem: What is better; the results are its first generation (:meth:`ArchitectureProblem.scalar`).
        results: Of different architectures.
        count: Most architectures.
    """
    sound = [result for result in results if result.failure is None]
    if not sound:
        return []
    filled = told(problem, sound)
    F, violation, feasible = filled.get("F"), filled.get("CV")[:, 0], filled.get("FEAS")[:, 0]
    order: list[int] = []
    rows = np.flatnonzero(feasible)
    for front in NonDominatedSorting().do(F[rows]) if len(rows) else ():
        members = rows[np.sort(front)]
        crowding = get_crowding_function("cd").do(F[members])
        order += members[np.argsort(-crowding, kind="stable")].tolist()
    others = np.flatnonzero(~feasible)
    order += others[np.argsort(violation[others], kind="stable")].tolist()
    return [sound[row].architecture for row in order[:count]]
