"""An algorithm of the user's own that is asked and told like any other, and proposes no architecture twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.algorithm import Algorithm
from pymoo.core.individual import Individual
from pymoo.core.population import Population

from nas.constraints import squash
from nas.drawing import draw_unseen
from nas.problem import SOUND, ArchitectureProblem
from spaces import Genotype, InputError

TRIES = 20
"""Asks in a row that may bring nothing new before random architectures stand in for what comes next."""

Floats = NDArray[np.float64]


class Distinct:
    """Asks an algorithm for architectures, and gives on those that were never proposed.

    An individual whose architecture has a result is told it again, at no cost. One whose architecture static
    constraints forbid is told that it violates them, and is not scored either. After ``TRIES`` asks in a row without
    anything new, the individuals of the next are moved to random architectures that are new; so a search ends before
    its budget only where nothing is left, or where the algorithm itself proposes nothing.

    Args:
        name: What recipes call the algorithm.
        algorithm: Set up and not yet asked.
        seed: Seed of what is drawn in place of repeats.
        known: Evaluated individuals that the search begins with.
    """

    reranker = None

    def __init__(self, name: str, algorithm: Algorithm, seed: int, known: Iterable[Individual] = ()) -> None:
        self._name, self._algorithm = name, algorithm
        self._random_state = np.random.default_rng([seed, 1])
        self._results: dict[Genotype, tuple[Floats, Floats]] = {}
        self._scoring: dict[Genotype, None] = {}
        self._untold: list[tuple[Individual, Genotype]] = []
        for individual in known:
            self._results[self.problem.space.decode(individual.X)] = individual.F, individual.G

    @property
    def problem(self) -> ArchitectureProblem:
        """The algorithm's view of the problem, which fills in what it is told."""
        problem: ArchitectureProblem = self._algorithm.problem
        return problem

    @property
    def is_initialized(self) -> bool:
        """Whether it was told its first population."""
        return bool(self._algorithm.is_initialized)

    def ask(self) -> Population:
        """Return individuals of different architectures that were never proposed; none if there is nothing new.

        Raises:
            InputError: If the algorithm proposes what is no vector of the space.
        """
        for attempt in range(TRIES + 1):
            asked = self._algorithm.ask()
            if asked is None or len(asked) == 0:
                break
            fresh = self._take(asked, move=attempt == TRIES)
            if fresh:
                return Population.create(*fresh)
            self._tell_known()
        return Population.empty()

    def tell(self, infills: Population) -> None:
        """Take the results of individuals, and tell the algorithm those of all that have the same architectures."""
        for individual in infills:
            architecture = self._decode(individual)
            self._results[architecture] = individual.F, individual.G
            del self._scoring[architecture]
        self._tell_known()

    def _take(self, asked: Any, *, move: bool) -> list[Individual]:
        """Remember individuals until they are told, and return those whose architectures are new."""
        if not isinstance(asked, Population):
            raise InputError(f"{self._name} must propose a pymoo Population, got {type(asked).__name__}")
        architectures = [self._decode(individual) for individual in asked]
        if move:
            architectures = self._move(asked, architectures)
        fresh = []
        for individual, architecture in zip(asked, architectures, strict=True):
            individual.evaluated, individual.CV = set(), None  # it may have been told before, as another architecture
            self._untold.append((individual, architecture))
            if architecture in self._results or architecture in self._scoring:
                continue
            if violation := self.problem.violation(architecture):
                self._results[architecture] = self._forbidden(violation)
                continue
            self._scoring[architecture] = None
            fresh.append(individual)
        return fresh

    def _decode(self, individual: Individual) -> Genotype:
        try:
            return self.problem.space.decode(individual.X)
        except (InputError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._name} must propose numbers from 0 to below the number of choices of each gene, but: {error}"
            ) from None

    def _forbidden(self, violation: float) -> tuple[Floats, Floats]:
        G = np.full(self.problem.n_ieq_constr, SOUND)
        G[0] = squash(violation)
        return np.zeros(self.problem.n_obj), G

    def _move(self, asked: Population, architectures: list[Genotype]) -> list[Genotype]:
        """Move individuals to random new architectures, as far as there are any, and return where all are then."""
        problem = self.problem
        drawn = draw_unseen(problem, len(asked), {*self._results, *self._scoring}, self._random_state)
        for individual, architecture in zip(asked, drawn, strict=False):
            X = problem.space.encode(architecture)
            individual.X = X + 0.5 if problem.vtype is float else X
        return [*drawn, *architectures[len(drawn) :]]

    def _tell_known(self) -> None:
        """Tell the algorithm all whose results are known, in the order in which it asked for them."""
        told = [(individual, self._results[a]) for individual, a in self._untold if a in self._results]
        if not told:
            return
        self._untold = [(individual, a) for individual, a in self._untold if a not in self._results]
        for individual, (F, G) in told:
            individual.F, individual.G = F.copy(), G.copy()
            individual.evaluated.update(("F", "G", "H"))
        self._algorithm.tell(infills=Population.create(*(individual for individual, _ in told)))
