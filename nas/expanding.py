"""Mating and swarms that over-generate, for a reranker to pick from."""

from __future__ import annotations

from collections.abc import Container, Iterable
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.population import Population

from nas.mating import NotSeen, UnseenMating, UnseenPositions
from nas.problem import ArchitectureProblem
from nas.rerank import Reranker
from spaces import Genotype, TableSpace

LISTED = 20
"""Rows of a table that are looked at in place of each candidate. Where a table lists some combinations of its genes,
what mating proposes stands for the nearest row, often a far one, but the rows themselves are at hand."""


class ExpandedMating(UnseenMating):
    """Mating that proposes many times the architectures, of which a reranker picks.

    Args:
        selection: Chooses parents.
        crossover: Combines two of them.
        eliminate_duplicates: The memory.
        reranker: Picks.
    """

    def __init__(self, selection: Any, crossover: Any, eliminate_duplicates: NotSeen, reranker: Reranker) -> None:
        super().__init__(selection, crossover, eliminate_duplicates)
        self._reranker = reranker
        self._begun = False

    def do(
        self,
        problem: ArchitectureProblem,
        pop: Population,
        n_offsprings: int,
        random_state: np.random.Generator,
        **kwargs: Any,
    ) -> Population:
        """Return up to so many unseen individuals: fewer while the reranker knows little, or if fewer are left."""
        if not self._begun:
            self._begun = True
            self._reranker.learn(pop)
        self._reranker.catch_up()
        n_offsprings = self._reranker.batch(n_offsprings)
        wanted, space = n_offsprings * self._reranker.expand, problem.space
        candidates: dict[Genotype, NDArray[np.int64] | None] = {}
        if isinstance(space, TableSpace) and not space.complete:
            candidates |= self.propose(problem, pop, n_offsprings, random_state, **kwargs)
            candidates |= self._rows(problem, space, LISTED * wanted, candidates, random_state)
        else:
            candidates |= self.propose(problem, pop, wanted, random_state, **kwargs)
        if len(candidates) < n_offsprings:
            candidates |= self.draw(problem, n_offsprings - len(candidates), candidates, random_state)
        architectures = list(candidates)
        picked = [architectures[row] for row in self._reranker.pick(architectures, n_offsprings, random_state)]
        self.eliminate_duplicates.seen.update(picked)
        vectors = [candidates[architecture] for architecture in picked]
        X = [problem.space.encode(a) if x is None else x for a, x in zip(picked, vectors, strict=True)]
        offspring = self.offspring(dict(zip(picked, X, strict=True)))
        self._reranker.expect(offspring)
        return offspring

    def _rows(
        self,
        problem: ArchitectureProblem,
        space: TableSpace,
        count: int,
        besides: Container[Genotype],
        random_state: np.random.Generator,
    ) -> dict[Genotype, None]:
        """Return up to so many random unseen rows of a table."""
        seen = self.eliminate_duplicates.seen
        rows = (space.row(number) for number in random_state.permutation(space.size).tolist())
        unseen = (row for row in rows if row not in seen and row not in besides and problem.admits(row))
        return dict.fromkeys(islice(unseen, count))


class RerankedPositions(UnseenPositions):
    """Moves each particle of a swarm to one of its unseen positions, which a reranker picks.

    A particle without any goes to a random unseen architecture, and stays where it is when none is left.

    Args:
        reranker: Picks.
        seen: Architectures that were proposed before.
    """

    def __init__(self, reranker: Reranker, seen: Iterable[Genotype] = ()) -> None:
        super().__init__(seen)
        self._reranker = reranker

    def observe(self, population: Population) -> None:
        """Learn from evaluated individuals."""
        self._reranker.learn(population)

    def __call__(
        self, problem: ArchitectureProblem, positions: NDArray[np.float64], random_state: np.random.Generator
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the particles that move, ``(m,)``, and their positions, ``(m, n_var)``."""
        found: dict[Genotype, tuple[int, int]] = {}
        for step in range(len(positions)):
            for particle in range(positions.shape[1]):
                architecture = problem.space.decode(positions[step, particle])
                if architecture not in self.seen and problem.admits(architecture):
                    found.setdefault(architecture, (step, particle))
        if not found:
            return super().__call__(problem, positions, random_state)
        owners = np.array([particle for _, particle in found.values()], dtype=np.intp)
        architectures = list(found)
        picked = self._reranker.pick(architectures, positions.shape[1], random_state, owners)
        self.seen.update(architectures[row] for row in picked)
        steps = np.array([step for step, _ in found.values()], dtype=np.intp)
        moved, chosen = owners[picked].tolist(), list(positions[steps[picked], owners[picked]])
        for particle in sorted(set(range(positions.shape[1])) - set(moved)):
            drawn = self._any(problem, random_state)
            if drawn is not None:
                self.seen.add(drawn[0])
                moved.append(particle)
                chosen.append(drawn[1])
        return np.array(moved, dtype=np.intp), np.array(chosen, dtype=np.float64).reshape(-1, problem.n_var)
