"""Whether a space has an architecture that keeps the static constraints, before anything is trained for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.problem import ArchitectureProblem
from spaces import Genotype, InputError

LISTED = 5_000
"""Size up to which all architectures of a space are looked at."""

DRAWS, DESCENTS = 500, 10
"""Random architectures of a larger space, and how many of the best of them are led to smaller violations."""


def check_admission(problem: ArchitectureProblem, rng: np.random.Generator) -> None:
    """Check that some architecture keeps the static constraints.

    Raises:
        InputError: If there is none, or none can be found in a space too large to list.
    """
    if not problem.static_constraints:
        return
    space = problem.space
    listed = space.size <= LISTED
    nearest = _nearest_listed(problem) if listed else _nearest_found(problem, rng)
    if problem.admits(nearest):
        return
    rules = " and ".join(map(str, problem.static_constraints))
    among = (
        f"none of the {space.size:,} architectures"
        if listed
        else f"no architecture that could be found in {space.size:,}"
    )
    names = dict.fromkeys(constraint.metric for constraint in problem.static_constraints)
    values = ", ".join(f"{name} {problem.static(nearest)[name]:.10g}" for name in names)
    raise InputError(
        f"search.constraints must leave something to search, but {among} of the space {space.name!r} keeps {rules}; "
        f"the nearest has {values}: loosen a bound"
    )


def _nearest_listed(problem: ArchitectureProblem) -> Genotype:
    """Return the first admitted architecture of a space, or else the one of least violation."""
    best: Genotype | None = None
    for architecture in problem.space:
        if best is None or problem.violation(architecture) < problem.violation(best):
            best = architecture
        if problem.admits(best):
            break
    assert best is not None
    return best


def _nearest_found(problem: ArchitectureProblem, rng: np.random.Generator) -> Genotype:
    """Return an admitted architecture, or else the one of least violation, from draws and descents."""
    space, n_var = problem.space, problem.n_var
    vectors = np.vstack([np.zeros(n_var, dtype=np.int64), space.cardinalities - 1])
    vectors = np.vstack([vectors, rng.integers(space.cardinalities, size=(DRAWS, n_var))])
    best = sorted(vectors, key=lambda vector: problem.violation(space.decode(vector)))[:DESCENTS]
    ends = []
    for vector in best:
        ends.append(descend(problem, vector, np.arange(n_var)))
        if problem.admits(ends[-1]):
            break
    return min(ends, key=problem.violation)


def descend(problem: ArchitectureProblem, vector: NDArray[np.int64], order: NDArray[np.int64]) -> Genotype:
    """Return where single changes of genes lead that lower the violation, as long as there is one.

    Args:
        problem: Space and constraints.
        vector: Where to begin, an index vector ``(n_var,)``.
        order: Positions in the order in which they are tried, ``(n_var,)``.
    """
    space = problem.space
    vector = vector.copy()
    violation = problem.violation(space.decode(vector))
    improved = violation > 0
    while improved:
        improved = False
        for position in order:
            for index in range(space.cardinalities[position]):
                changed = vector.copy()
                changed[position] = index
                found = problem.violation(space.decode(changed))
                if found < violation:
                    vector, violation, improved = changed, found, True
    return space.decode(vector)
