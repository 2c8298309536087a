"""``nas compare``: several algorithms with several seeds on the problem of one recipe."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from evaluators import Sense
from nas.admission import check_admission
from nas.algorithms import build_algorithm, check_algorithm, check_fitness, parse_algorithm
from nas.backend import begin_run_storage
from nas.comparison import Comparison, Level
from nas.config import RunConfig, load_recipe
from nas.contest import Builder, MemoryRecord, Task, Trace, run_tasks, trace_search
from nas.drivers import hold_folder
from nas.evaluation import Evaluation, Job
from nas.folder import run_facts
from nas.loop import evaluate
from nas.pipeline import Prepared, build_problem, prepare
from nas.problem import ArchitectureProblem
from nas.progress import Reporter, Silent
from nas.results import hypervolume
from nas.storage import Store
from nas.table_source import TableSource
from nas.workers import open_pool
from spaces import Genotype, InputError

STUDY = "compare"
"""Study of a run folder that holds every architecture which a comparison has scored, once."""

Algorithms = Iterable[str] | Mapping[str, Builder]


def compare(
    recipe: str | Path | RunConfig,
    algorithms: Algorithms = ("nsga2", "random"),
    seeds: int = 10,
    *,
    evaluations: int | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    level: str | None = None,
    data_dir: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Comparison:
    """Run algorithms on the problem of a recipe with several seeds, and return what they found.

    On a table the searches run in parallel processes, so a script needs ``if __name__ == "__main__":``. On a
    supernet they run one after the other with the recipe's workers; every architecture is scored once for all of
    them, and an interrupted comparison goes on where it stopped.

    Args:
        recipe: Recipe name, path of a ``.toml`` file, or a loaded recipe.
        algorithms: Names, ``package.module:Name`` of one's own among them, or builders by name; ``NAME@EXPAND`` has
            an expansion of its own. Others are tested against the first.
        seeds: Searches per algorithm; their seeds follow from the recipe's.
        evaluations: Budget of each search, the recipe's by default.
        workers: Processes for a table, one per core by default; workers for a supernet, the recipe's by default.
        out: Run folder of a supernet, ``runs/<name>`` by default. A table leaves nothing there.
        level: ``ALGORITHM:EVALUATIONS`` whose median hypervolume is to be reached; the first algorithm with all
            evaluations by default.
        data_dir: Folder of images and tables; else ``SPIKEFRONT_DATA``, else a download of the images.
        reporter: Hears of the progress; nobody by default.

    Raises:
        InputError: If recipe, data, algorithms or numbers are not right.
    """
    config = recipe if isinstance(recipe, RunConfig) else load_recipe(recipe)
    budget = config.search.evaluations if evaluations is None else evaluations
    for name, value in (("seeds", seeds), ("evaluations", budget), ("workers", 1 if workers is None else workers)):
        if value < 1:
            raise InputError(f"{name} must be 1 or more, got {value}")
    builders = named_builders(algorithms, config)
    wanted = parse_level(level, list(builders), budget)
    numbers = search_seeds(config.seed, seeds)

    def tasks(problem: ArchitectureProblem, job: Job) -> list[Task]:
        return [
            Task(problem, job, name, build, index, seed, config.search.population, budget)
            for index, seed in enumerate(numbers)
            for name, build in builders.items()
        ]

    if config.table is not None:
        found = _on_table(config, data_dir, tasks, workers, reporter or Silent())
    else:
        changes = {} if workers is None else {"workers": {"count": workers}}
        prepared = prepare(config, out, data_dir, changes, compared=builders.values())
        found = _on_supernet(prepared, tasks, reporter or Silent())
    settings = {
        "recipe": config.to_dict(),
        "seeds": numbers,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "facts": run_facts(),
    }
    return Comparison(tuple(found.traces), found.objectives, found.reference, found.whole, budget, wanted, settings)


@dataclass(frozen=True)
class _Found:
    """Searches, and what their hypervolume is measured against."""

    traces: list[Trace]
    objectives: Mapping[str, Sense]
    reference: Mapping[str, float]
    whole: float = 1.0


_Tasks = Callable[[ArchitectureProblem, Job], list[Task]]


def _on_table(
    config: RunConfig, data_dir: str | Path | None, tasks: _Tasks, workers: int | None, reporter: Reporter
) -> _Found:
    """Search a table in parallel processes."""
    source = TableSource.open(config, data_dir)
    check_admission(build_problem(config, source), np.random.default_rng(config.seed))
    job = source.answers()
    scorer = job.open()

    def score(architecture: Genotype) -> Evaluation:
        return next(scorer.score_together([architecture]))

    reference = config.search.hypervolume_reference or source.reference_point(score, reporter)
    problem = build_problem(config, source, reference)
    rows = scorer.score_together(list(problem.space))
    sound = [row.metrics for row in rows if row.failure is None and problem.feasible(row.metrics)]
    points = np.array([problem.point(metrics) for metrics in sound]).reshape(-1, len(problem.objectives))
    whole = hypervolume(points, problem.objectives, reference)
    planned, traces = tasks(problem, job), []

    def done(trace: Trace) -> None:
        traces.append(trace)
        if len(traces) * 10 // len(planned) > (len(traces) - 1) * 10 // len(planned):
            reporter.say(f"{len(traces)} of {len(planned)} searches are done")

    found = run_tasks(planned, workers or os.cpu_count() or 1, done)
    return _Found(found, problem.objectives, reference, whole or 1.0)


def _on_supernet(prepared: Prepared, tasks: _Tasks, reporter: Reporter) -> _Found:
    """Search the subnets of a supernet, one search after the other, and score each architecture once."""
    config, source, pools = prepared.config, prepared.source, prepared.config.workers
    with hold_folder(prepared.folder):
        store = Store(begin_run_storage(prepared.folder), STUDY, source.space, source.objectives)
        job = source.job(prepared.folder, store, reporter)
        with open_pool(pools, job) as pool:

            def score(architecture: Genotype) -> Evaluation:
                return evaluate([architecture], pool, store, 0, {}, lambda _: None)[0]

            reference = config.search.hypervolume_reference or source.reference_point(score, reporter)
            problem, traces = build_problem(config, source, reference), []
            for task in tasks(problem, job):
                reporter.start(f"{task.algorithm} {task.index + 1}", task.evaluations, problem.objectives)
                record = MemoryRecord(store)
                traces.append(trace_search(task, pool, record, store.known, reporter.evaluated))
    return _Found(traces, problem.objectives, reference)


def search_seeds(seed: int, count: int) -> list[int]:
    """Return so many seeds that follow from one; the first is that of the recipe's own search."""
    return [int(np.random.SeedSequence([seed, index]).generate_state(1)[0]) for index in range(count)]


def named_builders(algorithms: Algorithms, config: RunConfig) -> dict[str, Builder]:
    """Return builders by the names of their algorithms.

    Raises:
        InputError: If a name is unknown or stands there twice, if there is none, or if none climbs the fitness.
    """
    if isinstance(algorithms, Mapping):
        builders = dict(algorithms)
    else:
        names = list(algorithms)
        if len(set(names)) != len(names):
            raise InputError(f"algorithms must differ, got {names}")
        chosen = {name: parse_algorithm(name, config.search.expand) for name in names}
        for algorithm, expand in chosen.values():
            check_algorithm(algorithm, len(config.search.objectives), expand)
        check_fitness(config.search.fitness, [algorithm for algorithm, _ in chosen.values()])
        builders = {name: partial(build_algorithm, each, expand=expand) for name, (each, expand) in chosen.items()}
    if not builders:
        raise InputError("one or more algorithms must be given, got none")
    return builders


def parse_level(text: str | None, algorithms: Sequence[str], evaluations: int) -> Level:
    """Return the level that ``ALGORITHM:EVALUATIONS`` names, all evaluations of the first algorithm by default.

    Raises:
        InputError: If the algorithm is not compared, or does not get so many evaluations.
    """
    if text is None:
        return Level(algorithms[0], evaluations)
    name, _, number = text.rpartition(":")
    if name not in algorithms:
        raise InputError(f"a level ALGORITHM:EVALUATIONS must have one of {list(algorithms)}, got {text!r}")
    if not (number.isascii() and number.isdigit() and 1 <= int(number) <= evaluations):
        raise InputError(f"the evaluations of a level must be from 1 to {evaluations}, got {text!r}")
    return Level(name, int(number))
