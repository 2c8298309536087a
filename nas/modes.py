"""The two ways to search, and which one a run takes."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Literal

from pymoo.core.algorithm import Algorithm

from nas.algorithms import ALGORITHMS
from nas.asynchronous import Conversation, run_asynchronous
from nas.evaluation import Evaluation
from nas.loop import COLD, OnEvaluation, run_search
from nas.problem import ArchitectureProblem
from nas.sections import WorkersConfig
from nas.soundness import MODE, Mode
from nas.start import Start
from nas.stopping import Ending, Limits
from nas.storage import Store
from nas.workers import Pool
from spaces import Genotype


def settle_mode(asked: Literal["auto", "async", "generational"], workers: WorkersConfig, store: Store) -> Mode:
    """Return how a run searches: as it has begun to, else as it is asked to, and record it.

    Runs from before there was a choice are generational.

    Args:
        asked: ``search.mode`` of the recipe.
        workers: Who scores; ``auto`` is async if there is more than one.
        store: Study of the search.
    """
    recorded = store.study.user_attrs.get(MODE)
    if recorded in ("async", "generational"):
        return "async" if recorded == "async" else "generational"
    mode: Mode = "generational"
    if not store.opened and (asked == "async" or (asked == "auto" and workers.pool == "ray" and workers.count != 1)):
        mode = "async"
    store.study.set_user_attr(MODE, mode)
    return mode


def run_in(
    mode: Mode,
    name: str,
    problem: ArchitectureProblem,
    algorithm: Algorithm,
    population: int,
    pool: Pool,
    store: Store,
    budget: int,
    known: MutableMapping[Genotype, Evaluation],
    on_evaluation: OnEvaluation,
    limits: Limits | None = None,
    start: Start = COLD,
) -> Ending:
    """Search in a mode, and return how it ended.

    Args:
        mode: Asynchronous or by generations.
        name: Row of ``ALGORITHMS`` that the algorithm is of.
        problem: As of :func:`nas.loop.run_search`, like all that follow.
        algorithm: Set up and not yet asked.
        population: Architectures of a generation.
        pool: Scores architectures.
        store: Study.
        budget: Evaluations in all.
        known: Results of other studies.
        on_evaluation: Called with every result.
        limits: What ends it before.
        start: What it begins with.
    """
    if mode == "generational":
        return run_search(problem, algorithm, pool, store, budget, known, on_evaluation, limits, start)
    together = 1 if ALGORITHMS[name].steady else population
    begun = {result.architecture: result for result in start.results}
    conversation = Conversation(problem, algorithm, population, together, begun)
    return run_asynchronous(problem, conversation, pool, store, budget, known, on_evaluation, limits, start)
