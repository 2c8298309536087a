"""What a proposal was made from: the parents of a mating, or the leader that a particle followed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pymoo.core.individual import Individual

from spaces import Genotype, Space

_VECTORS = "parents"
"""Entry of an individual's data: vectors of what it was made from, ``(n, n_var)``."""


def note_parents(individuals: Iterable[Individual], parents: Sequence[NDArray[np.generic] | None]) -> None:
    """Note of each individual what it was made from, vectors ``(n, n_var)``, or None if it was drawn."""
    for individual, vectors in zip(individuals, parents, strict=True):
        if vectors is not None:
            individual.set(_VECTORS, vectors)


def noted_parents(individual: Individual) -> NDArray[np.generic] | None:
    """Return the vectors ``(n, n_var)`` that were noted of an individual, or None."""
    found: NDArray[np.generic] | None = individual.data.get(_VECTORS)
    return found


def parents_of(space: Space, individual: Individual) -> tuple[str, ...]:
    """Return the keys of the architectures that an individual was made from, each once; none if it was drawn."""
    vectors = noted_parents(individual)
    if vectors is None:
        return ()
    parents: list[Genotype] = [space.decode(vector) for vector in vectors]
    return tuple(dict.fromkeys(parent.key for parent in parents))
