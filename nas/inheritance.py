"""How well accuracy with inherited weights orders architectures: some of a run, trained by themselves."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluators import count_macs
from nas.drivers import hold_folder
from nas.evaluation import Evaluation
from nas.fidelity_file import FIDELITY
from nas.fidelity_page import write_fidelity_page
from nas.folder import read_run
from nas.orders import Fidelity, Point, Source
from nas.progress import Reporter, Silent
from nas.rescoring import ScoringFacts
from nas.run import Run
from nas.scoring import Scorer, build_job
from nas.standalone import Plan, check_counts, is_kept, kept_scores, make_alone
from spaces import Architecture, InputError
from supernet.checkpoint import weights_digest
from supernet.device import resolve_device
from supernet.files import write_atomically
from supernet.settings import TrainSettings
from supernet.spikformer import build_network

TRAINED = "fidelity"
"""Folder of the trained networks in a run folder."""

FEWEST = 6
"""Architectures below which neither an order nor that of its best third says anything."""

_DRAWS = 20
"""Random architectures that are drawn per one that is taken, at even steps of their cost."""


@dataclass(frozen=True)
class Task:
    """One training.

    Attributes:
        folder: Run folder.
        architecture: What to train.
        seed: Which of its trainings this is, from 0.
        epochs: Passes over the training images.
    """

    folder: Path
    architecture: Architecture
    seed: int
    epochs: int

    @property
    def out(self) -> Path:
        """Folder that its network is written to, as an export."""
        return self.folder / TRAINED / f"{self.epochs}-epochs" / f"{self.architecture.key}-{self.seed}"


def fidelity(
    run: Run | str | Path,
    subnets: int = 24,
    epochs: int | None = None,
    seeds: int = 1,
    repeated: int | None = None,
    workers: int = 1,
    reporter: Reporter | None = None,
) -> Fidelity:
    """Train architectures of a run by themselves, and return how well their inherited accuracy orders them.

    Half of them are spread over the front, if there is one; the others over the space, by their cost. Each is
    trained by the recipe of the supernet and kept in the run folder, so that what was interrupted goes on. The result
    is in ``fidelity.json``, and as a picture in ``fidelity.html``.

    Processes are started anew, so a script with several workers needs ``if __name__ == "__main__":``.

    Args:
        run: Run, or its folder, whose supernet is trained.
        subnets: Number of architectures, 6 or more.
        epochs: Epochs of each; those of the recipe by default. The schedule is shortened as a whole.
        seeds: Trainings of each architecture.
        repeated: Architectures that are trained at least twice, for the noise ceiling; a third by default.
        workers: Processes.
        reporter: Hears of the progress.

    Raises:
        InputError: If the run has no trained supernet, or a number is out of range.
    """
    run = run if isinstance(run, Run) else Run(run)
    repeated = math.ceil(subnets / 3) if repeated is None else repeated
    settings = _settings(run, subnets, epochs, seeds, repeated, workers)
    reporter = reporter or Silent()
    with hold_folder(run.folder):
        chosen = spread(run, subnets)
        inherited = _inherited(run, [architecture for architecture, _ in chosen])
        again = set() if seeds > 1 else _evenly(inherited, repeated)
        counts = [max(seeds, 2) if index in again else seeds for index in range(subnets)]
        tasks = [
            Task(run.folder, architecture, seed, settings.epochs)
            for seed in range(max(counts))
            for (architecture, _), count in zip(chosen, counts, strict=True)
            if seed < count
        ]
        reporter.start("fidelity", len(tasks), {"accuracy": "max"})
        accuracies: dict[tuple[str, int], float] = {}
        for task, accuracy in _train_all(run, tasks, workers):
            accuracies[task.architecture.key, task.seed] = accuracy
            reporter.evaluated(Evaluation(task.architecture, {"accuracy": accuracy}, 0.0))
        points = tuple(
            Point(a.key, source, value, tuple(accuracies[a.key, seed] for seed in range(count)), a.to_dict())
            for (a, source), value, count in zip(chosen, inherited, counts, strict=True)
        )
        found = Fidelity(points, _told(run, settings, subnets, seeds, repeated))
        write_atomically(run.folder / FIDELITY, json.dumps(found.to_dict(), indent=1).encode())
        write_fidelity_page(found, run.folder, run.config.name)
    return found


def _settings(run: Run, subnets: int, epochs: int | None, seeds: int, repeated: int, workers: int) -> TrainSettings:
    """Return how architectures are trained, all numbers being in their range."""
    space = run.supernet_space
    if not FEWEST <= subnets <= space.size:
        raise InputError(
            f"subnets must be from {FEWEST} to the {space.size} architectures of {space.name}, got {subnets}"
        )
    if not 0 <= repeated <= subnets:
        raise InputError(f"repeated must be from 0 to the {subnets} subnets, got {repeated}")
    check_counts(seeds=seeds, workers=workers, epochs=epochs)
    return _training(run, epochs)


def _training(run: Run, epochs: int | None) -> TrainSettings:
    """Return how one network is trained: by the recipe of the supernet, but by one process in whole batches."""
    training = replace(run.config.training, parts=0)
    return training if epochs in (None, training.epochs) else training.lasting(epochs)


def spread(run: Run, count: int) -> list[tuple[Architecture, Source]]:
    """Return different architectures: half at even steps along the front, the others at even steps of cost.

    Args:
        run: Run; without a front, all are from the space.
        count: Number of architectures.
    """
    space, front = run.supernet_space, run.front()
    steps = np.unique(np.linspace(0, len(front) - 1, min(count // 2, len(front))).round().astype(int))
    taken = run.networks([front["key"].iloc[step] for step in steps])
    rng = np.random.default_rng(np.random.SeedSequence([run.config.seed, 2]))
    seen, drawn = {architecture.key for architecture in taken}, list[Architecture]()
    wanted, most = count - len(taken), min(_DRAWS * count, space.size - len(taken))
    while len(drawn) < most:
        architecture = space.sample(rng)
        if architecture.key not in seen:
            seen.add(architecture.key)
            drawn.append(architecture)
    drawn.sort(key=lambda each: (count_macs(space.skeleton, each), each.key))
    steps = np.linspace(0, len(drawn) - 1, wanted).round().astype(int)
    return [*((each, "front") for each in taken), *((drawn[step], "space") for step in steps)]


def _evenly(values: Sequence[float], count: int) -> set[int]:
    """Return the places of some values that lie at even steps of their order."""
    order = np.argsort(values, kind="stable")
    return {int(order[step]) for step in np.linspace(0, len(values) - 1, count).round().astype(int)}


def _inherited(run: Run, architectures: Sequence[Architecture]) -> list[float]:
    """Return the accuracy of architectures with inherited weights, as the search scores them."""
    job = replace(build_job(run.config, run.data, run.supernet()), metrics=("accuracy",), options={})
    found = {}
    for evaluation in Scorer(job).score_together(job.in_turns(architectures)):
        if evaluation.failure is not None:
            raise InputError(f"{evaluation.architecture.key} cannot be scored: {evaluation.failure}")
        found[evaluation.architecture.key] = evaluation.metrics["accuracy"]
    return [found[architecture.key] for architecture in architectures]


def _train_all(run: Run, tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, float]]:
    """Yield tasks with their accuracies as they are done, by so many processes."""
    open_ = [task for task in tasks if not is_kept(task.out)]
    for task in tasks:
        if task not in open_:
            yield task, _accuracy(task)
    if workers == 1 or len(open_) < 2:
        for task in open_:
            yield task, train_task(task, run)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    with ProcessPoolExecutor(min(workers, len(open_)), context, _share_cores, (workers,)) as executor:
        futures = {executor.submit(train_task, task): task for task in open_}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise InputError(
                "a process that trained was killed, perhaps for want of memory; give the command again to go on, "
                "with fewer workers"
            ) from None
        finally:  # an interruption ends what has not begun
            executor.shutdown(cancel_futures=True)


def _share_cores(workers: int) -> None:
    torch.set_num_threads(max((os.cpu_count() or 1) // workers, 1))


def _accuracy(task: Task) -> float:
    """Return the validation accuracy that a training has had."""
    return kept_scores(task.out, ["validation"])["validation"]["accuracy"]


def train_task(task: Task, run: Run | None = None) -> float:
    """Train an architecture by itself, keep it, and return its validation accuracy, in [0, 1].

    Args:
        task: What to train; one that was interrupted goes on.
        run: The run, if it is open.
    """
    run = run or Run(task.folder)
    config, seed = run.config, run.config.seed + task.seed
    scoring = config.scoring
    facts = ScoringFacts(scoring.batch_size, None, config.workers.threads)
    plan = Plan(
        run.data,
        _training(run, task.epochs),
        scoring.calibration_images,
        facts,
        scoring.validation_images,
    )
    device = resolve_device(config.device, config.executor)
    network = build_network(run.supernet_space.skeleton, task.architecture, seed, config.executor).to(device)
    told = {
        "run": run.folder.resolve().name,
        "run_id": read_run(run.folder)["id"],
        "recipe": config.name,
        "space": run.supernet_space.name,
        "weights": "trained from scratch by the recipe of the run's supernet",
    }
    make_alone(network, plan, seed, task.out, ["validation"], told)
    return _accuracy(task)


def _told(run: Run, settings: TrainSettings, subnets: int, seeds: int, repeated: int) -> dict[str, Any]:
    """Return how the numbers came about, as plain values."""
    validation = run.data.validation.head(run.config.scoring.validation_images)
    return {
        "subnets": subnets,
        "seeds": seeds,
        "repeated": subnets if seeds > 1 else repeated,
        "epochs": settings.epochs,
        "first_seed": run.config.seed,
        "validation_images": len(validation),
        "calibration_images": len(run.data.train.head(run.config.scoring.calibration_images)),
        "supernet_sha256": weights_digest(run.folder),
        "training": asdict(settings),
    }
