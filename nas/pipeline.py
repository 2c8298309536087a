"""What a run does, from recipe to report; every step goes on where an earlier process stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nas.address import Address, parse_address
from nas.admission import check_admission
from nas.algorithms import build_algorithm, check_algorithm, check_fitness
from nas.backend import begin_run_storage
from nas.config import RunConfig, load_recipe
from nas.constraints import parse_constraints
from nas.contest import Builder
from nas.drivers import hold_folder, lead
from nas.durable import Backlog
from nas.evaluation import Evaluation
from nas.folder import HeldError, create_folder, read_run
from nas.helping import help_out, wait_for_leader
from nas.interrupt import drained
from nas.joining import shared
from nas.loop import Quest, evaluate
from nas.modes import check_mode, run_in, settle_mode
from nas.problem import ArchitectureProblem
from nas.progress import Reporter, Silent, volume_of
from nas.report import write_report
from nas.results import non_dominated
from nas.run import Run, check_store
from nas.soundness import IDLE, PLANNED, REFERENCE, RERANKING, WARM, Mode
from nas.sources import ScoreSource, open_source
from nas.start import Start
from nas.stopping import SECONDS, STOPPED, Clock, Limits, Stall
from nas.storage import STUDIES, Store
from nas.supernet_source import SUPERNET, SupernetSource
from nas.warm import WarmStart, admitted, open_warm_start, proposed, question, takes
from nas.workers import Pool, open_pool
from spaces import Genotype, InputError, reference_of
from supernet.download import data_folder

RUNS = Path("runs")
"""Folder of run folders, in the working directory."""


@dataclass(frozen=True)
class Prepared:
    """A checked recipe with its folder, where its scores come from, and what it begins with, ready to run.

    ``storage`` is what the changes have named, which may have a password.
    """

    config: RunConfig
    folder: Path
    source: ScoreSource
    warm: WarmStart | None
    storage: Address | None = None


def prepare(
    recipe: str | Path | RunConfig,
    out: str | Path | None,
    data_dir: str | Path | None,
    changes: Mapping[str, dict[str, Any]],
    *,
    compared: Iterable[Builder] | None = None,
) -> Prepared:
    """Check all that can be checked before anything expensive runs, and claim the run folder.

    Args:
        recipe: As of :func:`search`, like the next three.
        out: Run folder.
        data_dir: Folder of images and tables.
        changes: Keys to change, by table.
        compared: Builders of the algorithms that search, in place of that of the recipe.
    """
    changes, storage = _without_password(changes)
    config = (recipe if isinstance(recipe, RunConfig) else load_recipe(recipe)).changed(**changes)
    folder = Path(out) if out is not None else RUNS / config.name
    algorithm, objectives = config.search.algorithm, config.search.objectives
    check_algorithm(algorithm, len(objectives), config.search.expand)
    if compared is None:
        check_fitness(config.search.fitness, [algorithm])
        check_mode(config.search)
    source = open_source(config, folder, data_dir)
    problem = build_problem(config, source)
    builders = [partial(build_algorithm, algorithm, expand=1)] if compared is None else compared
    for build in builders:  # what cannot be built is found before the training
        build(problem, config.search.population, 0, config.search.evaluations)
    check_admission(problem, np.random.default_rng(config.seed))
    warm = open_warm_start(config, folder, source.space)
    usable = None if warm is None else admitted(warm, problem)
    kept = {"warm_start": None if warm is None else warm.to_dict(), "metrics": dict(source.metrics)}
    check_store(folder, storage)
    create_folder(folder, config, source.space, data_folder(data_dir), {**source.record, **kept})
    return Prepared(config, folder, source, usable, storage)


def _without_password(changes: Mapping[str, dict[str, Any]]) -> tuple[Mapping[str, dict[str, Any]], Address | None]:
    """Return changes in which the storage has no password, and that storage with it, if there is one."""
    text = changes.get("run", {}).get("storage")
    if not isinstance(text, str):
        return changes, None
    address = parse_address(text, Path.cwd())
    return {**changes, "run": {**changes["run"], "storage": address.text}}, address


def train(
    recipe: str | Path | RunConfig,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    reporter: Reporter | None = None,
    workers: int = 1,
    address: str | None = None,
    **changes: dict[str, Any],
) -> Run:
    """Train the supernet of a recipe, or finish its training, and return the run.

    The other arguments and errors are those of :func:`search`.

    Args:
        recipe: Recipe.
        out: Run folder.
        data_dir: Folder of images and tables.
        reporter: Hears of the progress.
        workers: Processes that train together, each on its part of every batch; more than 1 are started by Ray Train.
        address: Ray cluster that they are on, instead of the recipe's.
        **changes: Keys to change by table.
    """
    if not isinstance(workers, int) or workers < 1:
        raise InputError(f"workers must be the number of processes that train, 1 or more, got {workers!r}")
    if address is not None and workers == 1:
        raise InputError(f"one process trains on this machine, and joins no cluster, got {address!r}; add workers")
    prepared = prepare(recipe, out, data_dir, changes)
    if not isinstance(prepared.source, SupernetSource):
        what = "a table" if prepared.config.source is None else prepared.config.source
        raise InputError(f"{what} has no supernet to train; search it with `nas search`")
    with hold_folder(prepared.folder):
        prepared.source.train(prepared.folder, reporter or Silent(), workers, address)
    return Run(prepared.folder)


def search(
    recipe: str | Path | RunConfig,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    reporter: Reporter | None = None,
    join: bool = False,
    **changes: dict[str, Any],
) -> Run:
    """Run a recipe to its report, or finish a run that was interrupted, and return it.

    Trains the supernet if there is none, searches, runs the random baseline, re-scores the front on the test
    split, and writes ``report.html`` and ``front.csv``.

    Args:
        recipe: Recipe name, path of a ``.toml`` file, or a loaded recipe.
        out: Run folder, ``runs/<name>`` by default.
        data_dir: Folder of images and tables; else ``SPIKEFRONT_DATA``, else a download of the images.
        reporter: Hears of the progress; nobody by default.
        join: Whether to share the work of a process that is at the run, and to lead it once that is gone; else a
            run has one process at a time.
        **changes: Keys to change by table, as in ``search={"evaluations": 400}``; ``run`` for top-level keys.

    Raises:
        InputError: If recipe, data or folder are not right; nothing is overwritten.
        HeldError: If another process is at the run; an InputError.
    """
    prepared, reporter = prepare(recipe, out, data_dir, changes), reporter or Silent()
    while True:
        try:
            with hold_folder(prepared.folder):
                return _run(prepared, reporter)
        except HeldError:
            if not join:
                raise
            _help(prepared, reporter)


def _help(prepared: Prepared, reporter: Reporter) -> None:
    """Share the work of the process that is at a run, as long as it is."""
    config, folder, source = prepared.config, prepared.folder, prepared.source
    token = wait_for_leader(folder, reporter)
    if token is not None:
        reporter.start("shared", config.search.evaluations, source.objectives)
        count = help_out(folder, token, source.trained_job(folder), config.workers, source.space, reporter)
        reporter.say(f"scored {count} architectures for another process, which is done or gone")


def _run(prepared: Prepared, reporter: Reporter) -> Run:
    config, folder, source = prepared.config, prepared.folder, prepared.source
    storage = begin_run_storage(folder, prepared.storage)  # before training: a damaged one is found at once
    with lead(storage) as mine, Backlog(folder, storage, config.storage_patience, reporter.say, mine) as backlog:
        stores = {name: Store(storage, name, source.space, source.objectives, backlog.put) for name in STUDIES}
        backlog.restore(stores)
        job = source.job(folder, stores["search"], reporter)
        with (
            open_pool(config.workers, job, reporter.say) as workers,
            shared(workers, folder, source.space, reporter.say) as all_workers,
            drained(all_workers, reporter.say) as pool,
        ):
            _search(prepared, stores, pool, reporter)
        backlog.settle()
    run = Run(folder, prepared.storage)
    try:
        run.front().to_csv(folder / "front.csv", index=False)
        write_report(run)
    except OSError as error:
        raise InputError(
            f"front and report must be written to {folder}, but: {error.strerror}; all results are in the store, and "
            "the same command writes these once it can"
        ) from None
    return run


def _search(prepared: Prepared, stores: Mapping[str, Store], pool: Pool, reporter: Reporter) -> None:
    """Fill the studies of a run: reference, search, baseline, and the front on the test split."""
    config, source = prepared.config, prepared.source
    objectives = source.objectives
    reference, found, random, test = (stores[name] for name in STUDIES)

    def score(architecture: Genotype) -> Evaluation:
        return evaluate([architecture], pool, reference, 0, {}, lambda _: None)[0]

    if REFERENCE not in found.study.user_attrs:
        point = config.search.hypervolume_reference or source.reference_point(score, reporter)
        found.study.set_user_attr(REFERENCE, point)
    by_hand = reference_of(source.space)
    if by_hand is not None:
        reporter.say(f"scoring {by_hand.key}, which one would have built by hand")
        by_hand = by_hand if score(by_hand).failure is None else None

    problem = build_problem(config, source, found.study.user_attrs[REFERENCE])
    known: dict[Genotype, Evaluation] = reference.known | found.known | random.known
    mode = settle_mode(config.search, config.workers, found)
    spent = _find(prepared, mode, problem, found, pool, known, reporter)
    if config.search.baseline:
        reporter.start("random", spent, objectives, volume_of(problem, found.study.user_attrs[REFERENCE]))
        algorithm = build_algorithm("random", problem, config.search.population, _seed(config, 1))
        known = reference.known | found.known | random.known
        quest = Quest(problem, pool, random, spent, known, reporter.evaluated)
        run_in(mode, "random", quest, algorithm, config.search.population)

    if source.tested:
        front = _front(found, problem)
        front += [by_hand] if by_hand is not None and by_hand not in front else []
        reporter.start("test", len(front), objectives)
        evaluate(front, pool, test, 1, {}, reporter.evaluated, split="test")


def _find(
    prepared: Prepared,
    mode: Mode,
    problem: ArchitectureProblem,
    store: Store,
    pool: Pool,
    known: MutableMapping[Genotype, Evaluation],
    reporter: Reporter,
) -> int:
    """Fill the study of the search, and return how many evaluations it spent."""
    search, study = prepared.config.search, store.study
    study.set_user_attr(STOPPED, None)

    def keep(seconds: float) -> None:
        study.set_user_attr(SECONDS, seconds)
        if pool.idle_share is not None:
            study.set_user_attr(IDLE, pool.idle_share)

    clock = Clock(study.user_attrs.get(SECONDS, 0.0), keep)
    limits = Limits(clock, Stall(problem, study.user_attrs[REFERENCE]), search.seconds, search.stall)
    volume = volume_of(problem, study.user_attrs[REFERENCE])
    reporter.start("search", search.evaluations, problem.objectives, volume)
    start = _begin(prepared, store, pool, known, reporter, limits)
    population, seed = search.population, _seed(prepared.config, 0)
    planned = study.user_attrs.get(PLANNED, search.evaluations)
    study.set_user_attr(PLANNED, planned)
    algorithm = build_algorithm(search.algorithm, problem, population, seed, planned, start.results, search.expand)
    quest = Quest(problem, pool, store, search.evaluations, known, reporter.evaluated, limits, start)
    ending = run_in(mode, search.algorithm, quest, algorithm, population)
    if algorithm.reranker is not None:
        study.set_user_attr(RERANKING, algorithm.reranker.log())
    study.set_user_attr(STOPPED, ending.reason)
    return ending.evaluations


def _begin(
    prepared: Prepared,
    store: Store,
    pool: Pool,
    known: Mapping[Genotype, Evaluation],
    reporter: Reporter,
    limits: Limits,
) -> Start:
    """Return what the search begins with: results that are taken, as generation 0, or that are scored now, as 1."""
    warm, config, source = prepared.warm, prepared.config, prepared.source
    if warm is None:
        return Start()
    asked = question(config, read_run(prepared.folder), store.study.user_attrs.get(SUPERNET))
    answered, line = takes(warm, asked)
    metrics = list(source.metrics)
    taken = [replace(each, metrics={n: each.metrics[n] for n in metrics}) for each in warm.results if answered]
    first = [] if answered else proposed(warm, config.search.population, config.search.evaluations)
    line = f"{len(taken) or len(first)} {line}"
    store.study.set_user_attr(WARM, line)
    reporter.say(f"warm start: {line}")
    for result in taken:
        store.take(result, 0)
    limits.stall.begin(taken)
    scored = evaluate(first, pool, store, 1, known, reporter.evaluated, limits=limits)
    return Start((*taken, *scored), len(scored))


def _seed(config: RunConfig, stream: int) -> int:
    """Return the seed of the search, stream 0, or of its baseline, stream 1."""
    return int(np.random.SeedSequence([config.seed, stream]).generate_state(1)[0])


def build_problem(
    config: RunConfig, source: ScoreSource, reference: Mapping[str, float] | None = None
) -> ArchitectureProblem:
    """Return what a recipe searches, whose hypervolume has a reference point if it is known.

    Raises:
        InputError: If its reference, its constraints or its fitness are not of its objectives and metrics.
    """
    given, objectives = config.search.hypervolume_reference, source.objectives
    if given and set(given) != set(objectives):
        raise InputError(
            f"search.hypervolume_reference must have the objectives {list(objectives)}, got {list(given)}"
        )
    constraints = parse_constraints(config.search.constraints, source.metrics)
    fitness = config.search.fitness
    if fitness is not None and fitness not in source.metrics:
        raise InputError(
            f"search.fitness must be among the metrics {list(source.metrics)}, got {fitness!r}; record other metrics "
            "by naming them in metrics"
        )
    climbed = None if fitness is None else (fitness, source.metrics[fitness])
    return ArchitectureProblem(source.space, objectives, constraints, source.static, climbed, reference)


def _front(store: Store, problem: ArchitectureProblem) -> list[Genotype]:
    """Return the non-dominated feasible architectures of a study in the order of submission."""
    sound = [result for result in store.results if result.failure is None and problem.feasible(result.metrics)]
    points = np.array([problem.point(result.metrics) for result in sound]).reshape(-1, len(problem.objectives))
    keep = non_dominated(points, problem.objectives)
    return [result.architecture for result, kept in zip(sound, keep, strict=True) if kept]
