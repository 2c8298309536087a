"""Searches by several algorithms with several seeds on one problem, without a run folder, in parallel processes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from pymoo.core.algorithm import Algorithm
from threadpoolctl import threadpool_limits

from nas.evaluation import Evaluation, Job
from nas.loop import OnEvaluation, Quest, Record, run_search
from nas.problem import ArchitectureProblem
from nas.scoring import threads
from nas.workers import LocalPool, Pool
from spaces import Genotype

P = ParamSpec("P")
R = TypeVar("R")

Builder = Callable[[ArchitectureProblem, int, int, int], Algorithm]
"""Problem, population, seed and evaluations to an algorithm that is set up and not yet asked.

It is set up with the problem, or with another view of it: what it is told is filled by its own ``problem``.

What is sent to other processes must be a function of a module, or a ``partial`` of one.
"""


class MemoryRecord:
    """What one search proposed and found, repeats included.

    Args:
        beneath: Where results are also kept, for other searches and later processes.
    """

    def __init__(self, beneath: Record | None = None) -> None:
        self._beneath = beneath
        self.known: dict[Genotype, Evaluation] = {}
        self.proposed: list[Genotype] = []

    @property
    def opened(self) -> int:
        """Number of proposals so far, repeats included."""
        return len(self.proposed)

    def open(self, architecture: Genotype, generation: int, *, parents: Sequence[str] = ()) -> None:
        """Note a proposal."""
        self.proposed.append(architecture)
        if self._beneath is not None:
            self._beneath.open(architecture, generation, parents=parents)

    def close(self, evaluation: Evaluation) -> None:
        """Note the result of a proposal."""
        self.known[evaluation.architecture] = evaluation
        if self._beneath is not None:
            self._beneath.close(evaluation)


@dataclass(frozen=True)
class Task:
    """One search on a problem whose answers cost next to nothing.

    Attributes:
        problem: Space and objectives.
        job: Where the answers come from.
        algorithm: Name of the algorithm in the results.
        build: Returns it.
        index: Which of the seeds this is.
        seed: Seed of the algorithm.
        population: Architectures of a generation.
        evaluations: Budget.
    """

    problem: ArchitectureProblem
    job: Job
    algorithm: str
    build: Builder
    index: int
    seed: int
    population: int
    evaluations: int


@dataclass(frozen=True)
class Trace:
    """What one search proposed, in order.

    Attributes:
        algorithm: Name of the algorithm.
        index: Which of the seeds it had.
        points: Objectives in natural sense ``(n, n_obj)``; NaN where it failed or is infeasible.
        keys: Keys of the architectures, ``n`` of them; an algorithm may propose one again.
        seconds: Wall time, and processor time of this process, of ``ask``, of ``tell``, and of all the search.
    """

    algorithm: str
    index: int
    points: NDArray[np.float64]
    keys: tuple[str, ...]
    seconds: Mapping[str, tuple[float, float]]


class Stopwatch:
    """Adds up the time of calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}

    def timed(self, name: str, call: Callable[P, R]) -> Callable[P, R]:
        """Return a function that notes wall and processor time of each call."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            wall, processor = time.perf_counter(), time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                before = self.seconds.get(name, (0.0, 0.0))
                spent = time.perf_counter() - wall, time.process_time() - processor
                self.seconds[name] = before[0] + spent[0], before[1] + spent[1]

        return timed


def trace_search(
    task: Task,
    pool: Pool,
    record: MemoryRecord,
    known: MutableMapping[Genotype, Evaluation],
    on_evaluation: OnEvaluation,
) -> Trace:
    """Run one search, and return what it proposed.

    Args:
        task: What to search, by what, and for how long; its job is that of the pool.
        pool: Scores architectures.
        record: Empty, or above a record that outlives the search.
        known: Results that are not scored again.
        on_evaluation: Called with every result.
    """
    problem, watch = task.problem, Stopwatch()
    algorithm = watch.timed("build", task.build)(problem, task.population, task.seed, task.evaluations)
    for phase in ("ask", "tell"):
        setattr(algorithm, phase, watch.timed(phase, getattr(algorithm, phase)))
    search = watch.timed("search", run_search)
    search(Quest(problem, pool, record, task.evaluations, known, on_evaluation), algorithm)
    results = [record.known[architecture] for architecture in record.proposed]
    points = np.full((len(results), len(problem.objectives)), np.nan)
    for row, result in enumerate(results):
        if result.failure is None and problem.feasible(result.metrics):
            points[row] = problem.point(result.metrics)
    keys = tuple(architecture.key for architecture in record.proposed)
    return Trace(task.algorithm, task.index, points, keys, watch.seconds)


def run_task(task: Task) -> Trace:
    """Run a search on one thread, in this process and in memory."""
    with threadpool_limits(1), threads(1), LocalPool(task.job) as pool:
        return trace_search(task, pool, MemoryRecord(), {}, lambda _: None)


def run_tasks(tasks: Sequence[Task], workers: int, on_trace: Callable[[Trace], None]) -> list[Trace]:
    """Run searches in so many processes, or in this one if it is one, and return them in the order of the tasks.

    Processes are started anew, so a script that calls this needs ``if __name__ == "__main__":``.

    Args:
        tasks: Searches.
        workers: Processes.
        on_trace: Called with each finished search, of whichever task is ready first.
    """
    if workers == 1 or len(tasks) == 1:
        traces = []
        for task in tasks:
            traces.append(run_task(task))
            on_trace(traces[-1])
        return traces
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    with ProcessPoolExecutor(min(workers, len(tasks)), context) as executor:
        futures = [executor.submit(run_task, task) for task in tasks]
        try:
            for future in as_completed(futures):
                on_trace(future.result())
        finally:  # an interruption ends what has not begun
            executor.shutdown(cancel_futures=True)
    return [future.result() for future in futures]
