"""What a run does, from recipe to report; every step goes on where an earlier process stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluators import EnergyModel, Sense, parse_energy_model
from nas.algorithms import ALGORITHMS, build_algorithm
from nas.config import RunConfig, load_recipe
from nas.evaluation import Evaluation
from nas.folder import create_folder, hold, read_energy_models
from nas.loop import evaluate, run_search
from nas.problem import ArchitectureProblem
from nas.progress import Reporter, Silent
from nas.report import write_report
from nas.results import non_dominated
from nas.run import REFERENCE, Run
from nas.scoring import build_job, check_metric_names, load_run_data, objective_senses
from nas.storage import STUDIES, Store, open_storage
from nas.workers import Pool, open_pool
from spaces import Genotype, InputError, SearchSpace, load_space
from supernet.augment import build_augmentation
from supernet.checkpoint import weights_digest
from supernet.data import ImageData
from supernet.device import keep_large_blocks, resolve_device
from supernet.download import data_folder
from supernet.neurons import check_executor
from supernet.spikformer import Spikformer, build_supernet
from supernet.train import train as train_network

SUPERNET = "supernet_sha256"
"""User attribute of the study ``search``: the weights that everything in the store was scored with."""

RUNS = Path("runs")
"""Folder of run folders, in the working directory."""


@dataclass(frozen=True)
class _Prepared:
    """A checked recipe with its folder and images, ready to run."""

    config: RunConfig
    folder: Path
    space: SearchSpace
    data: ImageData
    objectives: dict[str, Sense]
    energy_models: dict[str, EnergyModel]


def _prepare(
    recipe: str | Path | RunConfig,
    out: str | Path | None,
    data_dir: str | Path | None,
    changes: Mapping[str, dict[str, Any]],
) -> _Prepared:
    """Check all that can be checked before anything expensive runs, and claim the run folder."""
    config = (recipe if isinstance(recipe, RunConfig) else load_recipe(recipe)).changed(**changes)
    folder = Path(out) if out is not None else RUNS / config.name
    tables = read_energy_models(folder, config)
    models = {name: parse_energy_model(name, values, f"energy model {name}") for name, values in tables.items()}
    objectives = objective_senses(config, models)
    if config.search.algorithm not in ALGORITHMS:
        raise InputError(f"search.algorithm must be one of {sorted(ALGORITHMS)}, got {config.search.algorithm!r}")
    given = config.search.hypervolume_reference
    if given and set(given) != set(objectives):
        raise InputError(
            f"search.hypervolume_reference must have the objectives {list(objectives)}, got {list(given)}"
        )
    space = load_space(config.space)
    data = load_run_data(config, data_dir)
    space = space.with_input(*data.input_shape)
    check_metric_names(config, space, models)
    build_augmentation(config.training.augment, *data.input_shape[:2])
    with torch.device("meta"):
        Spikformer(space.skeleton, space.largest(), config.executor)  # a neuron that does not exist is found here
    check_executor(config.executor)
    resolve_device(config.device, config.executor)
    create_folder(folder, config, space, data_folder(data_dir), data.fingerprint, tables)
    return _Prepared(config, folder, space, data, objectives, models)


def train(
    recipe: str | Path | RunConfig,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    reporter: Reporter | None = None,
    **changes: dict[str, Any],
) -> Run:
    """Train the supernet of a recipe, or finish its training, and return the run.

    Arguments and errors are those of :func:`search`.
    """
    prepared = _prepare(recipe, out, data_dir, changes)
    with hold(prepared.folder):
        _train_supernet(prepared, reporter or Silent())
    return Run(prepared.folder)


def _train_supernet(prepared: _Prepared, reporter: Reporter) -> Spikformer:
    config, space = prepared.config, prepared.space
    keep_large_blocks()
    supernet = build_supernet(space, config.seed, config.executor).to(resolve_device(config.device, config.executor))
    return train_network(
        supernet, prepared.data, config.training, config.seed, space, prepared.folder, reporter.train
    )


def search(
    recipe: str | Path | RunConfig,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    reporter: Reporter | None = None,
    **changes: dict[str, Any],
) -> Run:
    """Run a recipe to its report, or finish a run that was interrupted, and return it.

    Trains the supernet if there is none, searches, runs the random baseline, re-scores the front on the test
    split, and writes ``report.html`` and ``front.csv``.

    Args:
        recipe: Recipe name, path of a ``.toml`` file, or a loaded recipe.
        out: Run folder, ``runs/<name>`` by default.
        data_dir: Folder of the images; else ``SPIKEFRONT_DATA``, else a download.
        reporter: Hears of the progress; nobody by default.
        **changes: Keys to change by table, as in ``search={"evaluations": 400}``; ``run`` for top-level keys.

    Raises:
        InputError: If recipe, data or folder are not right; nothing is overwritten.
    """
    prepared = _prepare(recipe, out, data_dir, changes)
    with hold(prepared.folder):
        return _run(prepared, reporter or Silent())


def _run(prepared: _Prepared, reporter: Reporter) -> Run:
    storage = open_storage(prepared.folder)  # before the training, so that a damaged one is found at once
    stores = {name: Store(storage, name, prepared.space, prepared.objectives) for name in STUDIES}
    supernet = _train_supernet(prepared, reporter)
    _check_weights(stores["search"], prepared.folder)
    config, workers = prepared.config, prepared.config.workers
    job = build_job(config, prepared.data, supernet, prepared.energy_models)
    with open_pool(workers.pool, job, workers.count) as pool:
        _search(prepared, stores, pool, reporter)
    run = Run(prepared.folder)
    run.front().to_csv(prepared.folder / "front.csv", index=False)
    write_report(run)
    return run


def _check_weights(store: Store, folder: Path) -> None:
    """Bind the results of a run to the supernet that they were scored with."""
    digest = weights_digest(folder)
    bound = store.study.user_attrs.get(SUPERNET)
    if bound is None and store.known:
        bound = "unknown"
    if bound not in (None, digest):
        raise InputError(
            f"the results in {folder} were scored with another supernet (SHA-256 {bound}, now {digest}); choose "
            "another run folder, or restore the supernet"
        )
    store.study.set_user_attr(SUPERNET, digest)


def _search(prepared: _Prepared, stores: Mapping[str, Store], pool: Pool, reporter: Reporter) -> None:
    """Fill the studies of a run: reference, search, baseline, and the front on the test split."""
    config, objectives = prepared.config, prepared.objectives
    reference, found, random, test = (stores[name] for name in STUDIES)
    if REFERENCE not in found.study.user_attrs:
        point = config.search.hypervolume_reference or _reference_point(prepared, pool, reference, reporter)
        found.study.set_user_attr(REFERENCE, point)

    problem = ArchitectureProblem(prepared.space, objectives)
    searches = [(config.search.algorithm, found), ("random", random)]
    for stream, (name, store) in enumerate(searches if config.search.baseline else searches[:1]):
        reporter.start(store.study.study_name, config.search.evaluations, objectives)
        seed = int(np.random.SeedSequence([config.seed, stream]).generate_state(1)[0])
        algorithm = build_algorithm(name, problem, config.search.population, seed)
        known: dict[Genotype, Evaluation] = reference.known | found.known | random.known
        budget = config.search.evaluations
        run_search(problem, algorithm, pool, store, budget, known, reporter.evaluated)

    front = _front(found, problem)
    reporter.start("test", len(front), objectives)
    evaluate(front, pool, test, 1, {}, reporter.evaluated, split="test")


def _reference_point(prepared: _Prepared, pool: Pool, store: Store, reporter: Reporter) -> dict[str, float]:
    """Return 0 for objectives to maximise, and the largest architecture's value for those to minimise."""
    largest = prepared.space.largest()
    reporter.say("scoring the largest architecture, the reference of the hypervolume")
    result = evaluate([largest], pool, store, 0, {}, lambda _: None)[0]
    if result.failure is not None:
        raise InputError(
            "the largest architecture must be scored for the hypervolume's reference, but its evaluation failed: "
            f"{result.failure}; set search.hypervolume_reference in the recipe"
        )
    return {name: 0.0 if sense == "max" else result.metrics[name] for name, sense in prepared.objectives.items()}


def _front(store: Store, problem: ArchitectureProblem) -> list[Genotype]:
    """Return the non-dominated architectures of a study in the order of submission."""
    sound = [result for result in store.results if result.failure is None]
    points = np.array([problem.point(result.metrics) for result in sound]).reshape(-1, problem.n_obj)
    keep = non_dominated(points, problem.objectives)
    return [result.architecture for result, kept in zip(sound, keep, strict=True) if kept]
