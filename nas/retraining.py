"""From an exported network to the same architecture trained further, or from scratch, and exported again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from nas.config import RunConfig, load_recipe
from nas.evaluation import SplitName
from nas.folder import HeldError, hold, read_run
from nas.progress import Reporter, Silent
from nas.rescoring import ScoringFacts, check_images
from nas.run import Run
from nas.scoring import Scorer, build_job, threads
from nas.standalone import Plan, check_counts, checkpoint_of, is_kept, kept_scores, make_alone
from spaces import InputError
from supernet.checkpoint import YOUNGER, Checkpoint, load_checkpoint, weights_digest
from supernet.data import ImageData, load_data
from supernet.device import resolve_device
from supernet.distil import Distillation, check_distillation
from supernet.files import write_atomically
from supernet.pretrained import CONFIG, Pretrained, read_config, read_pretrained
from supernet.settings import TrainSettings
from supernet.spikformer import Spikformer, build_network

RETRAIN = "retrain.json"
STARTS = ("scratch", "inherited")
SPLITS: tuple[SplitName, ...] = ("test", "validation")

_FORMAT = "spikefront-retrain-1"
_WEIGHTS = {
    "scratch": "trained from scratch",
    "inherited": "trained on from the weights of an export",
}


@dataclass(frozen=True)
class Retrained:
    """Networks of one architecture that were trained with several seeds.

    Attributes:
        folder: Folder of the exports, one per seed.
        scores: Metrics by split, by seed.
    """

    folder: Path
    scores: Mapping[int, Mapping[str, Mapping[str, float]]]

    def network(self, seed: int) -> Path:
        """Return the folder of the export of a seed."""
        return self.folder / f"seed-{seed}"

    def frame(self) -> pd.DataFrame:
        """Return one row per seed: ``seed``, each metric on the test split, ``validation_accuracy``, ``network``."""
        rows = [
            {
                "seed": seed,
                **{name: value for name, value in found["test"].items() if name != "images"},
                "validation_accuracy": found["validation"]["accuracy"],
                "network": str(self.network(seed)),
            }
            for seed, found in self.scores.items()
        ]
        return pd.DataFrame(rows)

    def summary(self) -> dict[str, float]:
        """Return ``mean``, ``std`` (of a sample, 0 for one), ``lowest`` and ``highest`` test accuracy, in [0, 1]."""
        values = np.array([found["test"]["accuracy"] for found in self.scores.values()])
        std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        return {
            "mean": float(values.mean()),
            "std": std,
            "lowest": float(values.min()),
            "highest": float(values.max()),
        }


@dataclass(frozen=True)
class _Work:
    """What is trained, checked as far as it costs nothing."""

    pretrained: Pretrained
    start: str
    plan: Plan
    first_seed: int
    executor: str
    device: str
    distillation: Distillation | None
    told: dict[str, Any]


def retrain(
    out: str | Path,
    to: str | Path | None = None,
    start: str = "scratch",
    *,
    distil: Run | str | Path | None = None,
    share: float = 0.5,
    temperature: float = 2.0,
    epochs: int | None = None,
    seeds: int = 1,
    workers: int = 1,
    address: str | None = None,
    data: str | None = None,
    data_dir: str | Path | None = None,
    recipe: str | Path | RunConfig | None = None,
    neuron: str | None = None,
    reporter: Reporter | None = None,
    **training: Any,
) -> Retrained:
    """Train the architecture of an export, or finish its training, and write it as exports again, one per seed.

    Args:
        out: Folder that ``nas export`` wrote in its own format.
        to: Folder of the new exports, ``seed-0`` and so on; beside the old one by default.
        start: ``scratch`` for random weights, ``inherited`` for those of the export.
        distil: Run whose supernet's largest network teaches, with its trained weights.
        share: What its answers count beside the labels, in [0, 1].
        temperature: Divides the logits of both, above 0.
        epochs: Epochs; those of the recipe by default. The schedule is shortened or stretched as a whole.
        seeds: Trainings, with the seed of the recipe, the next one, and so on.
        workers: Processes that train together, by Ray Train.
        address: Ray cluster that they are on.
        data: Image set; that of the recipe, or else of the export, by default.
        data_dir: Folder of images; else ``SPIKEFRONT_DATA``, else a download.
        recipe: How to train; by default as the supernet that the network is from.
        neuron: As of :meth:`supernet.spikformer.Spikformer.from_pretrained`.
        reporter: Hears of the progress.
        **training: Keys of the recipe's table ``training`` to change, such as ``ema``.

    Raises:
        InputError: If the export, the recipe, the images or a number are not right, or the folder has other work.
    """
    check_counts(seeds=seeds, workers=workers, epochs=epochs)
    if start not in STARTS:
        raise InputError(f"a training starts from one of {list(STARTS)}, got {start!r}")
    if address is not None and workers == 1:
        raise InputError(f"one process trains on this machine, and joins no cluster, got {address!r}; add workers")
    check_distillation(share, temperature)
    pretrained = read_pretrained(out, neuron=neuron)
    work = _prepare(Path(out), pretrained, start, recipe, (data, data_dir), epochs, training)
    if distil is not None:
        work = _taught(work, distil if isinstance(distil, Run) else Run(distil), share, temperature)
    given = Path(out) if Path(out).name else Path(out).resolve()
    folder = Path(to) if to is not None else given.with_name(f"{given.name}-retrained")
    reporter = reporter or Silent()
    scores: dict[int, dict[str, dict[str, float]]] = {}
    with _claimed(folder, work):
        for seed in range(work.first_seed, work.first_seed + seeds):
            network = folder / f"seed-{seed}"
            if not is_kept(network):
                reporter.say(f"seed {seed}: {work.plan.settings.epochs} epochs {_WEIGHTS[start]}")
                _train(work, seed, network, reporter, workers, address)
            scores[seed] = kept_scores(network, SPLITS)
    return Retrained(folder, scores)


def _prepare(
    out: Path,
    pretrained: Pretrained,
    start: str,
    recipe: str | Path | RunConfig | None,
    images: tuple[str | None, str | Path | None],
    epochs: int | None,
    changes: Mapping[str, Any],
) -> _Work:
    """Return what there is to do, from the export and the options."""
    facts, source = pretrained.facts, str(out / CONFIG)
    config = recipe if recipe is None or isinstance(recipe, RunConfig) else load_recipe(recipe)
    provenance = facts["provenance"]
    settings = _recorded_settings(provenance, source) if config is None else config.training
    settings = settings if epochs is None else settings.lasting(epochs)
    settings = _changed(settings, changes)
    name = images[0] or (facts["data"].get("name") if config is None else config.images.name)
    if not isinstance(name, str):
        raise InputError(f"{source} does not say on which images to train, got {name!r}; name them with --data")
    count = provenance.get("train_images") if config is None else config.images.train_images
    calibration = provenance.get("calibration_images") if config is None else config.scoring.calibration_images
    for key, value in {"train_images": count, "calibration_images": calibration}.items():
        if value is not None and (type(value) is not int or value < 2):
            raise InputError(f"{source}: provenance.{key} must be 2 or more, got {value!r}; name a --recipe")
    data = load_data(name, images[1])
    data = replace(data, train=data.train.head(count))
    check_images(pretrained, data)
    scoring = ScoringFacts.from_dict(facts["scoring"], source)
    plan = Plan(data, settings, len(data.train) if calibration is None else calibration, scoring)
    executor, device = ("auto", "auto") if config is None else (config.executor, config.device)
    resolve_device(device, executor)
    told = {
        "format": _FORMAT,
        "export": read_config(out)["weights_sha256"],
        "start": start,
        "distilled": None,
        "training": json.loads(json.dumps(asdict(settings))),
        "images": data.fingerprint,
        "calibration_images": plan.calibration_images,
        "scoring": scoring.to_dict(),
    }
    first_seed = 0 if config is None else config.seed
    return _Work(pretrained, start, plan, first_seed, executor, device, None, told)


def _recorded_settings(provenance: Mapping[str, Any], source: str) -> TrainSettings:
    """Return how the supernet of an exported network was trained, as its export says, batches being whole."""
    if "training" not in provenance:
        raise InputError(f"{source} does not say how its network was trained; name a recipe with --recipe")
    return replace(_parsed(provenance["training"], f"{source}: provenance.training: "), parts=0)


def _changed(settings: TrainSettings, changes: Mapping[str, Any]) -> TrainSettings:
    return _parsed({**asdict(settings), **changes}, "") if changes else settings


def _parsed(values: Any, source: str) -> TrainSettings:
    """Return settings from plain values, or raise InputError with what is wrong with the first of them."""
    try:
        return TypeAdapter(TrainSettings).validate_json(json.dumps(values), strict=True)
    except (TypeError, ValueError) as error:  # no JSON, or not those of a training
        if not isinstance(error, ValidationError):
            raise InputError(f"{source}values must be texts, numbers or lists: {error}") from None
        fault = error.errors()[0]
        if fault["type"] == "value_error":
            raise InputError(f"{source}{fault['ctx']['error']}") from None
        name = ".".join(str(part) for part in ("training", *fault["loc"]))
        if fault["type"] == "unexpected_keyword_argument":
            known = sorted(TrainSettings.__dataclass_fields__)
            raise InputError(f"{source}unknown key {name}; known keys are {known}") from None
        raise InputError(f"{source}{name}: {fault['msg']}, got {fault['input']!r}") from None


def _taught(work: _Work, run: Run, share: float, temperature: float) -> _Work:
    """Return the work with the largest network of a run's supernet as teacher, scored as in its search."""
    space, data = run.supernet_space, work.plan.data
    if (run.data.train.fingerprint, run.data.classes) != (data.train.fingerprint, data.classes):
        raise InputError(
            f"a teacher must have learnt from the same training images, but those of {run.folder} are others than "
            f"those of {data.name} here; take them with --recipe, or a run on these"
        )
    job = build_job(run.config, run.data, run.supernet())
    largest = space.largest()
    with threads(job.threads):
        found = Scorer(job).candidate(largest).subnet.cpu()
    teacher = Spikformer(found.skeleton, largest, work.executor)  # which computes where the other one does
    teacher.load_state_dict(found.state_dict())
    teacher.eval()
    told = {
        "run": run.folder.resolve().name,
        "run_id": read_run(run.folder)["id"],
        "supernet_sha256": weights_digest(run.folder),
        "key": largest.key,
        "share": share,
        "temperature": temperature,
    }
    return replace(
        work, distillation=Distillation(teacher, share, temperature), told={**work.told, "distilled": told}
    )


@contextmanager
def _claimed(folder: Path, work: _Work) -> Iterator[None]:
    """Keep a folder for one work, and one process at a time, inside the block."""
    path = folder / RETRAIN
    try:
        if folder.exists() and not path.is_file() and any(each.name != ".lock" for each in folder.iterdir()):
            raise InputError(f"retraining needs a new or an empty folder, but {folder} is in use; choose another")
        folder.mkdir(parents=True, exist_ok=True)
        with hold(folder):
            _check_same(path, work.told)
            yield
    except HeldError:
        raise InputError(f"one process at a time trains in {folder}, but another one is at it; wait for it") from None
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror or error}; choose another folder") from None


def _check_same(path: Path, told: Mapping[str, Any]) -> None:
    """Note what a folder is for, or raise InputError if it is for something else."""
    if not path.is_file():
        write_atomically(path, json.dumps(told, indent=1).encode())
        return
    try:
        old = json.loads(path.read_bytes())
        if not isinstance(old, dict):
            raise ValueError("it is no table")
        if isinstance(old.get("training"), dict):
            old["training"] = {**YOUNGER, **old["training"]}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} must be what `nas retrain` wrote: {error}; choose another folder") from None
    different = sorted(name for name in {*old, *told} if old.get(name) != told.get(name))
    if different:
        raise InputError(
            f"{path.parent} has a retraining that differs in {', '.join(different)}; choose another folder with "
            "--to, or go on with the same options"
        )


def _train(work: _Work, seed: int, out: Path, reporter: Reporter, workers: int, address: str | None) -> None:
    """Train with one seed, and write the export."""
    if workers > 1:
        _train_together(work, seed, checkpoint_of(out), reporter, workers, address)
    device = resolve_device(work.device, work.executor)
    distillation = work.distillation
    if distillation is not None:
        distillation = replace(distillation, teacher=distillation.teacher.to(device))
    network = _first(work, seed).to(device)
    old = work.pretrained.facts["provenance"]
    provenance = {
        **{name: old[name] for name in ("run", "run_id", "recipe", "space") if name in old},
        "weights": _WEIGHTS[work.start],
        "export_sha256": work.told["export"],
        "images_sha256": work.told["images"],
    }
    if work.told["distilled"] is not None:
        provenance["distilled"] = work.told["distilled"]
    make_alone(network, work.plan, seed, out, SPLITS, provenance, reporter.train, distillation)


def _first(work: _Work, seed: int) -> Spikformer:
    """Return the network with the weights that its training starts from."""
    given = work.pretrained.network
    network = build_network(given.skeleton, given.architecture, seed, work.executor)
    if work.start == "inherited":
        network.load_state_dict(given.state_dict())
    return network


def _train_together(
    work: _Work, seed: int, checkpoint: Path, reporter: Reporter, workers: int, address: str | None
) -> None:
    """Let several processes train what is not trained yet; the folder then has the whole training."""
    from nas.distributed import SentNetwork, TrainJob, train_together  # noqa: PLC0415  # loads Ray, which one process needs not

    plan, network = work.plan, _first(work, seed)
    sent, data = SentNetwork.of(network), plan.data
    identity = Checkpoint(seed, data.name, plan.settings, network.architecture, network.skeleton, None)
    if load_checkpoint(checkpoint, identity, network).complete:
        return
    checkpoint.mkdir(exist_ok=True)
    only = ImageData(data.name, data.train, data.validation.head(0), data.test.head(0), data.classes)
    teaching = work.distillation
    job = TrainJob(
        sent,
        only,
        plan.settings,
        seed,
        work.device,
        checkpoint.resolve(),
        teacher=None if teaching is None else SentNetwork.of(teaching.teacher),
        teaching=(0.5, 2.0) if teaching is None else (teaching.share, teaching.temperature),
    )
    train_together(job, workers, reporter.train, address=address)
