"""Asynchronous search: every free worker gets the next proposal at once, and results are told as they come.

What is proposed depends on which results were told before, and so on the speed of the workers. The record keeps both
orders: each proposal with the number of results told before it was asked for, each result with its place among those
told. An interrupted search replays them, and goes on as if nothing had happened.
"""

from __future__ import annotations

from collections import ChainMap, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from pymoo.algorithms.base.genetic import GeneticAlgorithm
from pymoo.core.algorithm import Algorithm
from pymoo.core.individual import Individual
from pymoo.core.population import Population

from nas.algorithms import RandomSearch
from nas.evaluation import Evaluation
from nas.lineage import parents_of
from nas.loop import Quest, refusals
from nas.problem import ArchitectureProblem
from nas.stopping import Ending, Reason
from spaces import Genotype, InputError


class Diary(Protocol):
    """What has been proposed and told, in both orders: a study of a run."""

    @property
    def proposals(self) -> Iterable[tuple[Genotype, int]]:
        """Architectures in the order of their proposal, each with the number of results told before its ask."""
        ...

    @property
    def told(self) -> Iterable[Evaluation]:
        """Results in the order in which they were told."""
        ...

    @property
    def known(self) -> Mapping[Genotype, Evaluation]:
        """Results so far."""
        ...

    def open(self, architecture: Genotype, generation: int, *, parents: Sequence[str], after: int) -> None:
        """Note a proposal, and the keys of what it was made from."""
        ...

    def close(self, evaluation: Evaluation, *, told: int) -> None:
        """Note the result of a proposal, and its place among all that were told."""
        ...


class Conversation:
    """Asks an algorithm for more before it knows all that it asked for, and tells it results in any order.

    Its first population is told whole: the first results, of whichever of the first proposals are ready. As long as
    there are fewer, a genetic algorithm samples on; a swarm, whose particles are its first population, waits.

    Args:
        problem: Space and objectives.
        algorithm: Set up and not yet asked.
        population: Architectures of a generation.
        together: Results that are told at a time once there is a population.
        begun: Results that the search begins with, which are told and not proposed.

    Attributes:
        told: Results that were told.
        after: As it was before the last ask.
        exhausted: Whether nothing is left to propose.
    """

    def __init__(
        self,
        problem: ArchitectureProblem,
        algorithm: Algorithm,
        population: int,
        together: int,
        begun: Mapping[Genotype, Evaluation],
    ) -> None:
        self.told = 0
        self.after = 0
        self.exhausted = False
        self._problem, self._algorithm, self._begun = problem, algorithm, begun
        self.population, self._together = population, together
        self._first = 0
        self._proposed: deque[Genotype] = deque()
        self._individuals: dict[Genotype, Individual] = {}
        self._ready: list[tuple[Individual, Evaluation]] = []

    @property
    def must_ask(self) -> bool:
        """Whether the next proposal is the first of a new ask."""
        return not self._proposed

    def next(self) -> Genotype | None:
        """Return the next proposal; None if there is none now, and for good if it is ``exhausted``."""
        while not self._proposed and not self.exhausted:
            asked = self._ask()
            if asked is None:
                return None
            self.after, self.exhausted = self.told, len(asked) == 0
            for individual in asked:
                architecture = self._problem.space.decode(individual.X)
                self._individuals[architecture] = individual
                if architecture in self._begun:
                    self._hear(self._begun[architecture])
                else:
                    self._proposed.append(architecture)
        return self._proposed.popleft() if self._proposed else None

    def _ask(self) -> Population | None:
        """Return more individuals, none if nothing is left, or None if the algorithm has to be told more first."""
        algorithm = self._algorithm
        sampled, genetic = not algorithm.is_initialized, isinstance(algorithm, GeneticAlgorithm)
        if sampled and self._first and not isinstance(algorithm, RandomSearch):
            if not genetic:
                return None
            sampling = algorithm.initialization.sampling
            asked = sampling.do(algorithm.problem, self.population, random_state=algorithm.random_state)
        else:
            found = algorithm.ask()
            asked = Population.empty() if found is None else found
            if sampled:
                self._first = len(asked)
        if sampled and genetic and algorithm.reranker is not None:  # mating tells it what it proposes, swarms show it
            algorithm.reranker.expect(asked)
        return asked

    def parents(self, proposal: Genotype) -> tuple[str, ...]:
        """Return the keys of what a proposal without a result was made from."""
        return parents_of(self._problem.space, self._individuals[proposal])

    def tell(self, evaluation: Evaluation) -> None:
        """Take the result of a proposal."""
        self.told += 1
        self._hear(evaluation)

    def _hear(self, evaluation: Evaluation) -> None:
        self._ready.append((self._individuals.pop(evaluation.architecture), evaluation))
        algorithm = self._algorithm
        if len(self._ready) < (self._together if algorithm.is_initialized else self._first):
            return
        metrics = [None if result.failure is not None else result.metrics for _, result in self._ready]
        infills = Population.create(*(individual for individual, _ in self._ready))
        self._ready = []
        algorithm.tell(infills=algorithm.problem.fill(infills, metrics))


def run_asynchronous(quest: Quest[Diary], conversation: Conversation) -> Ending:
    """Search until the budget is spent, a limit reached or the space exhausted, and return how it ended.

    Limits are looked at before each ask; what is being scored then is waited for.

    Args:
        quest: What to search; its diary keeps both orders.
        conversation: With the algorithm, not yet begun.

    Raises:
        InputError: If what the diary has is not what the algorithm proposes.
    """
    diary, pool, limits, budget = quest.record, quest.pool, quest.limits, quest.budget
    waiting = replay(quest, conversation)
    spent = quest.start.spent + conversation.told + len(waiting)
    answers = ChainMap(quest.known)

    def record(evaluation: Evaluation) -> None:
        diary.close(evaluation, told=conversation.told)
        conversation.tell(diary.known[evaluation.architecture])
        if limits is not None:
            limits.clock.beat()
            limits.stall.hear([evaluation])
        quest.on_evaluation(evaluation)

    def begin(architecture: Genotype) -> bool:
        """Answer a proposal at once and return False, or hand it in and return True."""
        answered = refusals(quest.problem, [architecture]).get(architecture) or answers.get(architecture)
        if answered is not None:
            record(Evaluation(architecture, answered.metrics, 0.0, answered.failure))
            return False
        if limits is not None:
            limits.clock.start()
        pool.submit(architecture)
        return True

    pending = sum([begin(architecture) for architecture in waiting])
    while True:
        ending: Reason = "evaluations"
        # A pool that lost its only worker with its last result is not hungry, but nothing is to come from it.
        while spent < budget and (pool.hungry or not pending) and not conversation.exhausted:
            if conversation.must_ask and limits is not None and (reached := limits.reached()):
                ending = reached
                break
            proposal = conversation.next()
            if proposal is None:
                break
            spent += 1
            generation, parents = 1 + conversation.after // conversation.population, conversation.parents(proposal)
            diary.open(proposal, generation, parents=parents, after=conversation.after)
            pending += begin(proposal)
        if not pending:
            break
        record(pool.collect())
        pending -= 1
    if limits is not None:
        limits.clock.record()
    return Ending(spent, "exhausted" if conversation.exhausted and spent < budget else ending)


def replay(quest: Quest[Diary], conversation: Conversation) -> list[Genotype]:
    """Repeat what a diary has, and return what was proposed and has no result yet.

    Raises:
        InputError: If what the diary has is not what the algorithm proposes.
    """
    diary, limits = quest.record, quest.limits
    results = deque(diary.told)

    def tell() -> None:
        result = results.popleft()
        conversation.tell(result)
        if limits is not None:
            limits.stall.hear([result])
        quest.on_evaluation(result)

    waiting = []
    for architecture, after in diary.proposals:
        if conversation.must_ask:
            while conversation.told < after and results:
                tell()
        if (proposed := conversation.next()) != architecture:
            raise InputError(
                f"the run must go on with what its algorithm proposed, {architecture.key}, but now it proposes "
                f"{None if proposed is None else proposed.key}; use the version that it was begun with, or begin "
                "another run with this one as its warm start"
            )
        if architecture not in diary.known:
            waiting.append(architecture)
    while results:
        tell()
    return waiting
