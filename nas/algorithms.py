"""Search algorithms by name: pymoo algorithms over integer genes that never propose an architecture twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
from pymoo.config import Config
from pymoo.core.algorithm import Algorithm
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mating import Mating
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.sampling import Sampling
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.selection.tournament import TournamentSelection

from nas.problem import ArchitectureProblem
from spaces import Genotype, InputError, Space

Config.warnings["not_compiled"] = False

DRAWS = 100
"""Random draws per wanted architecture before the rest of a nearly exhausted space is listed."""


def draw_unseen(space: Space, count: int, seen: set[Genotype], rng: np.random.Generator) -> list[Genotype]:
    """Return up to ``count`` different architectures outside ``seen``, uniform over those; fewer if few are left."""
    drawn: dict[Genotype, None] = {}
    for _ in range(DRAWS * count):
        if len(drawn) == count:
            return list(drawn)
        architecture = space.sample(rng)
        if architecture not in seen:
            drawn[architecture] = None
    if len(drawn) < count:  # hardly anything is left, so the space is about as small as the history
        rest = [architecture for architecture in space if architecture not in seen and architecture not in drawn]
        for index in rng.permutation(len(rest))[: count - len(drawn)]:
            drawn[rest[index]] = None
    return list(drawn)


class UniformReset(Mutation):  # type: ignore[misc]  # pymoo is untyped
    """Mutation of unordered genes: each gene takes one of its other choices with probability ``1 / n_var``."""

    def _do(
        self,
        problem: ArchitectureProblem,
        X: NDArray[np.int64],
        *_: Any,
        random_state: np.random.Generator,
        **__: Any,
    ) -> NDArray[np.int64]:
        choices = problem.xu + 1
        shift = random_state.integers(1, np.maximum(choices, 2), size=X.shape)
        mutated = random_state.random(X.shape) < 1 / problem.n_var
        return np.where(mutated, (X + shift) % choices, X)


class _UnseenSampling(Sampling):  # type: ignore[misc]  # pymoo is untyped
    """First population: different architectures, uniform over the space."""

    def _do(
        self,
        problem: ArchitectureProblem,
        n_samples: int,
        *_: Any,
        random_state: np.random.Generator,
        **__: Any,
    ) -> NDArray[np.int64]:
        drawn = draw_unseen(problem.space, n_samples, set(), random_state)
        return np.array([problem.space.encode(architecture) for architecture in drawn])


class _NotSeen(DuplicateElimination):  # type: ignore[misc]  # pymoo is untyped
    """Takes an individual for a duplicate if its architecture was ever proposed."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space
        self.seen: set[Genotype] = set()

    def architectures(self, population: Population) -> list[Genotype]:
        return [self.space.decode(x) for x in population.get("X")]

    def _do(self, pop: Population, other: Population | None, is_duplicate: NDArray[np.bool_]) -> NDArray[np.bool_]:
        taken = set(self.seen) if other is None else set(self.architectures(other))
        for row, architecture in enumerate(self.architectures(pop)):
            is_duplicate[row] |= architecture in taken
            if other is None:
                taken.add(architecture)
        return is_duplicate


class _UnseenMating(Mating):  # type: ignore[misc]  # pymoo is untyped
    """Mating that remembers all it ever proposed, and fills up with random draws when it finds nothing new."""

    def do(
        self,
        problem: ArchitectureProblem,
        pop: Population,
        n_offsprings: int,
        random_state: np.random.Generator,
        **kwargs: Any,
    ) -> Population:
        history: _NotSeen = self.eliminate_duplicates
        history.seen.update(history.architectures(pop))
        offspring = super().do(problem, pop, n_offsprings, random_state=random_state, **kwargs)
        history.seen.update(history.architectures(offspring))
        missing = n_offsprings - len(offspring)
        if missing:
            drawn = draw_unseen(problem.space, missing, history.seen, random_state)
            history.seen.update(drawn)
            if drawn:
                fresh = Population.new(X=np.array([problem.space.encode(a) for a in drawn]))
                offspring = Population.merge(offspring, fresh)
        return offspring


class RandomSearch(Algorithm):  # type: ignore[misc]  # pymoo is untyped
    """Uniform sampling of distinct architectures: the baseline that every search has to beat.

    Args:
        pop_size: Architectures per ask.
    """

    def __init__(self, pop_size: int) -> None:
        super().__init__()
        self.pop_size = pop_size
        self.seen: set[Genotype] = set()

    def _initialize_infill(self) -> Population | None:
        return self._infill()

    def _infill(self) -> Population | None:
        assert self.problem is not None
        space = self.problem.space
        drawn = draw_unseen(space, self.pop_size, self.seen, self.random_state)
        self.seen.update(drawn)
        return Population.new(X=np.array([space.encode(a) for a in drawn])) if drawn else None

    def _advance(self, infills: Population, **_: Any) -> None:
        self.pop = infills


def _nsga2(space: Space, population: int) -> Algorithm:
    history = _NotSeen(space)
    crossover, mutation = UniformCrossover(prob=0.9), UniformReset()
    selection = TournamentSelection(func_comp=binary_tournament)
    return NSGA2(
        pop_size=population,
        sampling=_UnseenSampling(),
        eliminate_duplicates=history,
        mating=_UnseenMating(selection, crossover, mutation, eliminate_duplicates=history, n_max_iterations=20),
        output=None,
    )


ALGORITHMS: dict[str, Callable[[Space, int], Algorithm]] = {
    "nsga2": _nsga2,
    "random": lambda _space, population: RandomSearch(population),
}
"""Builders by name; each takes the space and the population."""


def build_algorithm(name: str, problem: ArchitectureProblem, population: int, seed: int) -> Algorithm:
    """Return an algorithm ready for ``ask``, with fresh operators and a seed of its own.

    Raises:
        InputError: If there is no such algorithm.
    """
    if name not in ALGORITHMS:
        raise InputError(f"search.algorithm must be one of {sorted(ALGORITHMS)}, got {name!r}")
    algorithm = ALGORITHMS[name](problem.space, population)
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    return algorithm
