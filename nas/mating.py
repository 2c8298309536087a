"""How architectures are proposed: unseen and admitted ones only, by operators for ordered and for unordered genes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mating import Mating
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.sampling import Sampling

from nas.drawing import draw_unseen
from nas.lineage import note_parents, noted_parents
from nas.problem import ArchitectureProblem
from spaces import Genotype


class GeneMutation(Mutation):  # type: ignore[misc]  # pymoo has no types, so a base of it is Any
    """Mutation of genes, each with probability ``1 / n_var``.

    An ordered gene steps to one of its neighbours, and at an end of its choices to the only one; an unordered gene
    takes one of its other choices, each with the same probability.
    """

    def _do(
        self,
        problem: ArchitectureProblem,
        X: NDArray[np.int64],
        *_: Any,
        random_state: np.random.Generator,
        **__: Any,
    ) -> NDArray[np.int64]:
        choices = problem.space.cardinalities
        shift = random_state.integers(1, np.maximum(choices, 2), size=X.shape)
        mutated = random_state.random(X.shape) < 1 / problem.n_var
        up = (random_state.random(X.shape) < 0.5) & (choices - 1 > X) | (X == 0)
        neighbour = np.clip(np.where(up, X + 1, X - 1), 0, choices - 1)
        other = np.where(problem.space.ordered, neighbour, (X + shift) % choices)
        return np.where(mutated, other, X)


class UnseenSampling(Sampling):  # type: ignore[misc]  # pymoo has no types, so a base of it is Any
    """First population: different admitted architectures, uniform over those; in reals anywhere in their buckets.

    Args:
        seen: Those that are not drawn; where it notes what it draws.
        first: Architectures that it has before any is drawn, each once.
    """

    def __init__(self, seen: set[Genotype], first: Sequence[Genotype] = ()) -> None:
        super().__init__()
        self.seen, self.first = seen, list(first)

    def _do(
        self,
        problem: ArchitectureProblem,
        n_samples: int,
        *_: Any,
        random_state: np.random.Generator,
        **__: Any,
    ) -> NDArray[np.int64]:
        first, self.first = self.first[:n_samples], self.first[n_samples:]
        drawn = draw_unseen(problem, n_samples - len(first), self.seen, random_state)
        self.seen.update(drawn)
        X = np.array([problem.space.encode(architecture) for architecture in first + drawn], dtype=np.int64)
        X = X.reshape(-1, problem.n_var)
        return np.minimum(X + random_state.random(X.shape), problem.xu) if problem.vtype is float else X


class NotSeen(DuplicateElimination):  # type: ignore[misc]  # pymoo has no types, so a base of it is Any
    """Takes an individual for a duplicate if its architecture was ever proposed, or if static constraints forbid it.

    Args:
        problem: Space and constraints.
    """

    def __init__(self, problem: ArchitectureProblem) -> None:
        super().__init__()
        self.problem = problem
        self.seen: set[Genotype] = set()

    def architectures(self, population: Population) -> list[Genotype]:
        """Return the architectures of individuals in order."""
        return [self.problem.space.decode(x) for x in population.get("X")]

    def _do(self, pop: Population, other: Population | None, is_duplicate: NDArray[np.bool_]) -> NDArray[np.bool_]:
        taken = set(self.seen) if other is None else set(self.architectures(other))
        for row, architecture in enumerate(self.architectures(pop)):
            is_duplicate[row] |= architecture in taken or not self.problem.admits(architecture)
            if other is None:
                taken.add(architecture)
        return is_duplicate


class UnseenMating(Mating):  # type: ignore[misc]  # pymoo has no types, so a base of it is Any
    """Mating that remembers all it ever proposed, and fills up with random draws when it finds nothing new.

    Args:
        selection: Chooses parents.
        crossover: Combines two of them.
        eliminate_duplicates: The memory.
    """

    def __init__(self, selection: Any, crossover: Any, eliminate_duplicates: NotSeen) -> None:
        super().__init__(
            selection, crossover, GeneMutation(), eliminate_duplicates=eliminate_duplicates, n_max_iterations=20
        )
        self._parents: dict[Genotype, NDArray[np.generic] | None] = {}

    def do(
        self,
        problem: ArchitectureProblem,
        pop: Population,
        n_offsprings: int,
        random_state: np.random.Generator,
        **kwargs: Any,
    ) -> Population:
        """Return so many unseen individuals, fewer if fewer are left."""
        found = self.propose(problem, pop, n_offsprings, random_state, **kwargs)
        if len(found) < n_offsprings:
            found |= self.draw(problem, n_offsprings - len(found), found, random_state)
        self.eliminate_duplicates.seen.update(found)
        return self.offspring(found)

    def offspring(self, vectors: Mapping[Genotype, NDArray[np.int64]]) -> Population:
        """Return architectures as individuals that know their parents, each with its vector ``(n_var,)``."""
        made = Population.new(X=np.array(list(vectors.values()))) if vectors else Population.empty()
        note_parents(made, [self._parents.get(architecture) for architecture in vectors])
        return made

    def propose(
        self,
        problem: ArchitectureProblem,
        pop: Population,
        count: int,
        random_state: np.random.Generator,
        **kwargs: Any,
    ) -> dict[Genotype, NDArray[np.int64]]:
        """Return up to so many unseen architectures that mating finds, each with its vector ``(n_var,)``."""
        history: NotSeen = self.eliminate_duplicates
        history.seen.update(history.architectures(pop))
        offspring = super().do(problem, pop, count, random_state=random_state, **kwargs)
        architectures = history.architectures(offspring)
        self._parents = dict(zip(architectures, map(noted_parents, offspring), strict=True))
        return dict(zip(architectures, offspring.get("X"), strict=True))

    def _do(
        self,
        problem: ArchitectureProblem,
        pop: Population,
        n_offsprings: int,
        random_state: np.random.Generator,
        **kwargs: Any,
    ) -> Population:
        """Mate, and note of each offspring who its parents are."""
        crossover, matings = self.crossover, math.ceil(n_offsprings / self.crossover.n_offsprings)
        parents = self.selection(
            problem, pop, matings, n_parents=crossover.n_parents, random_state=random_state, **kwargs
        )
        offspring = super()._do(problem, pop, n_offsprings, parents=parents, random_state=random_state, **kwargs)
        vectors = [np.array([parent.X for parent in mating]) for mating in parents]
        note_parents(offspring, vectors * crossover.n_offsprings)  # the first offspring of all matings come first
        return offspring

    def draw(
        self,
        problem: ArchitectureProblem,
        count: int,
        besides: Collection[Genotype],
        random_state: np.random.Generator,
    ) -> dict[Genotype, NDArray[np.int64]]:
        """Return up to so many random unseen architectures besides some, each with its vector ``(n_var,)``."""
        seen = self.eliminate_duplicates.seen.union(besides)
        return {a: problem.space.encode(a) for a in draw_unseen(problem, count, seen, random_state)}


class UnseenPositions:
    """Moves each particle of a swarm to its first position whose architecture is admitted and was never proposed.

    A particle that finds none goes to a random unseen architecture, and stays where it is when none is left.

    Args:
        seen: Architectures that were proposed before.
    """

    def __init__(self, seen: Iterable[Genotype] = ()) -> None:
        self.seen = set(seen)

    def __call__(
        self, problem: ArchitectureProblem, positions: NDArray[np.float64], random_state: np.random.Generator
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the particles that move, ``(m,)``, and their positions, ``(m, n_var)``."""
        moved, chosen = [], []
        for particle in range(positions.shape[1]):
            found = self._first(problem, positions[:, particle]) or self._any(problem, random_state)
            if found is not None:
                architecture, position = found
                self.seen.add(architecture)
                moved.append(particle)
                chosen.append(position)
        return np.array(moved, dtype=np.intp), np.array(chosen, dtype=np.float64).reshape(-1, problem.n_var)

    def _first(
        self, problem: ArchitectureProblem, candidates: NDArray[np.float64]
    ) -> tuple[Genotype, NDArray[np.float64]] | None:
        for position in candidates:
            architecture = problem.space.decode(position)
            if architecture not in self.seen and problem.admits(architecture):
                return architecture, position
        return None

    def _any(
        self, problem: ArchitectureProblem, rng: np.random.Generator
    ) -> tuple[Genotype, NDArray[np.float64]] | None:
        drawn = draw_unseen(problem, 1, self.seen, rng)
        return (drawn[0], problem.space.encode(drawn[0]).astype(np.float64) + 0.5) if drawn else None
