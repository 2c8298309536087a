"""Random architectures that a search has not proposed yet and that keep the static constraints."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from nas.admission import descend
from nas.problem import ArchitectureProblem
from spaces import Genotype

DRAWS = 100
"""Random draws per wanted architecture before the rest of a nearly exhausted space is listed."""

LISTED = 20_000
"""Size up to which a space with static constraints is listed when draws find too few that keep them."""

WALKS = 10
"""Walks per wanted architecture in a larger space of which constraints leave next to nothing."""


def draw_unseen(
    problem: ArchitectureProblem, count: int, seen: Collection[Genotype], rng: np.random.Generator
) -> list[Genotype]:
    """Return up to ``count`` different admitted architectures outside ``seen``; fewer if few are left.

    They are uniform over those, unless constraints leave so little of a space too large to list that draws do not
    find it: then each is where a walk ends that leads into what they leave, and on within it.
    """
    space = problem.space
    drawn: dict[Genotype, None] = {}

    def wanted(architecture: Genotype) -> bool:
        return architecture not in seen and architecture not in drawn and problem.admits(architecture)

    for _ in range(DRAWS * count):
        if len(drawn) == count:
            return list(drawn)
        architecture = space.sample(rng)
        if wanted(architecture):
            drawn[architecture] = None
    if not problem.static_constraints or space.size <= LISTED:
        # Hardly anything is left. Without constraints, the space is then about as small as the history.
        rest = [architecture for architecture in space if wanted(architecture)] if len(drawn) < count else []
        for index in rng.permutation(len(rest))[: count - len(drawn)]:
            drawn[rest[index]] = None
        return list(drawn)
    for _ in range(WALKS * count):
        if len(drawn) == count:
            break
        architecture = _walk(problem, rng)
        if wanted(architecture):
            drawn[architecture] = None
    return list(drawn)


def _walk(problem: ArchitectureProblem, rng: np.random.Generator) -> Genotype:
    """Return where a random vector gets to by lowering its violation, and then by changes that are admitted."""
    space, n_var = problem.space, problem.n_var
    vector = space.encode(descend(problem, rng.integers(space.cardinalities), rng.permutation(n_var)))
    for position in rng.integers(n_var, size=2 * n_var):
        changed = vector.copy()
        changed[position] = rng.integers(space.cardinalities[position])
        if problem.admits(space.decode(changed)):
            vector = changed
    return space.decode(vector)
