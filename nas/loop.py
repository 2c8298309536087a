"""The search loop: ask, decode, score, record, tell."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from pymoo.core.algorithm import Algorithm

from nas.evaluation import Evaluation, SplitName
from nas.lineage import parents_of
from nas.problem import ArchitectureProblem
from nas.start import Start
from nas.stopping import Ending, Limits
from nas.workers import Pool
from spaces import Genotype

COLD = Start()
"""What a search begins with that knows nothing."""

OnEvaluation = Callable[[Evaluation], None]


class Record(Protocol):
    """What has been proposed and found, by architecture: a study of a run, or memory."""

    @property
    def known(self) -> Mapping[Genotype, Evaluation]:
        """Results so far."""
        ...

    @property
    def opened(self) -> int:
        """Number of proposals so far."""
        ...

    def open(self, architecture: Genotype, generation: int, *, parents: Sequence[str] = ()) -> None:
        """Note a proposal, and the keys of what it was made from."""
        ...

    def close(self, evaluation: Evaluation) -> None:
        """Note the result of a proposal."""
        ...


RecordT_co = TypeVar("RecordT_co", covariant=True)


@dataclass(frozen=True)
class Quest(Generic[RecordT_co]):
    """What a search is for, who scores for it, and what it begins, is recorded and ends with, whatever the algorithm.

    Attributes:
        problem: Space and objectives.
        pool: Scores architectures.
        record: Where every proposal is recorded; a search that is run again replays what it has.
        budget: Evaluations in all, replayed ones included.
        known: Results of other studies of the run, which are not scored again; only read.
        on_evaluation: Called with every result, replayed ones included.
        limits: What ends it before the budget is spent; nothing without it.
        start: What it begins with; its algorithm was built with the results.
    """

    problem: ArchitectureProblem
    pool: Pool
    record: RecordT_co
    budget: int
    known: MutableMapping[Genotype, Evaluation] = field(default_factory=dict)
    on_evaluation: OnEvaluation = lambda _: None
    limits: Limits | None = None
    start: Start = COLD


def run_search(quest: Quest[Record], algorithm: Algorithm) -> Ending:
    """Search until the budget is spent, a limit reached or the space exhausted, and return how it ended.

    Run again with the same seed it replays: what the record knows is answered from it, the rest is scored. Limits are
    looked at between generations, and not as long as the record has what an earlier process proposed next.

    Args:
        quest: What to search.
        algorithm: Set up and not yet asked.
    """
    problem, record, budget, limits, start = quest.problem, quest.record, quest.budget, quest.limits, quest.start
    begun = {result.architecture for result in start.results}
    spent, generation = start.spent, int(start.spent > 0)
    while spent < budget:
        if limits is not None and record.opened == len(begun) - start.spent + spent and (reached := limits.reached()):
            return Ending(spent, reached)
        population = algorithm.ask()
        if population is None or len(population) == 0:
            return Ending(spent, "exhausted")
        architectures = [problem.space.decode(x) for x in population.get("X")]
        parents = {a: parents_of(problem.space, each) for a, each in zip(architectures, population, strict=True)}
        unknown = [architecture for architecture in architectures if architecture not in begun]
        fresh = unknown[: budget - spent]
        generation += bool(fresh)
        answers = ChainMap(refusals(problem, fresh), quest.known)
        evaluate(fresh, quest.pool, record, generation, answers, quest.on_evaluation, limits=limits, parents=parents)
        spent += len(fresh)
        if len(fresh) == len(unknown):
            evaluations = [record.known[architecture] for architecture in architectures]
            results = [None if e.failure is not None else e.metrics for e in evaluations]
            algorithm.tell(infills=algorithm.problem.fill(population, results))
    return Ending(spent, "evaluations")


def refusals(problem: ArchitectureProblem, architectures: Sequence[Genotype]) -> dict[Genotype, Evaluation]:
    """Return failed evaluations for those that violate static constraints, which nothing is computed for."""
    refused = {}
    for architecture in architectures:
        if not problem.admits(architecture):
            values = problem.static(architecture)
            broken = [c for c in problem.static_constraints if c.excess(values[c.metric]) > 0]
            reasons = "; ".join(f"{c.metric} is {values[c.metric]:.10g}, against {c}" for c in broken)
            refused[architecture] = Evaluation(architecture, {}, 0.0, f"not scored: {reasons}")
    return refused


def evaluate(
    architectures: Sequence[Genotype],
    pool: Pool,
    store: Record,
    generation: int,
    known: Mapping[Genotype, Evaluation],
    on_evaluation: OnEvaluation,
    split: SplitName = "validation",
    limits: Limits | None = None,
    parents: Mapping[Genotype, Sequence[str]] = MappingProxyType({}),
) -> list[Evaluation]:
    """Return the results of different architectures in their order, and record each as it arrives."""
    for architecture in architectures:
        store.open(architecture, generation, parents=parents.get(architecture, ()))
    waiting = 0
    for architecture in architectures:
        if architecture in store.known:
            on_evaluation(store.known[architecture])
        elif architecture in known:
            store.close(replace(known[architecture], seconds=0.0, worker=None))  # no work was done for it here
            on_evaluation(store.known[architecture])
        else:
            if limits is not None:
                limits.clock.start()
            pool.submit(architecture, split)
            waiting += 1
    for _ in range(waiting):
        evaluation = pool.collect()
        store.close(evaluation)
        if limits is not None:
            limits.clock.beat()
        on_evaluation(evaluation)
    results = [store.known[architecture] for architecture in architectures]
    if limits is not None:
        limits.hear(results)
    return results
