"""Scores from a supernet that the run trains: the networks of a space on the images of a set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from evaluators import EnergyModel, Sense, StaticMetrics, UnbuiltCandidate, build_evaluators, parse_energy_model
from nas.config import RunConfig
from nas.evaluation import Evaluation
from nas.folder import read_energy_models
from nas.progress import Reporter
from nas.scoring import ScoringJob, build_job, check_metric_names, load_run_data, metric_senses, objective_senses
from nas.storage import Store
from spaces import Genotype, InputError, SearchSpace, load_space
from supernet.augment import build_augmentation
from supernet.checkpoint import Checkpoint, load_checkpoint, weights_digest
from supernet.data import ImageData
from supernet.device import keep_large_blocks, resolve_device
from supernet.neurons import check_executor
from supernet.spikformer import Spikformer, build_supernet
from supernet.train import train as train_network

SUPERNET = "supernet_sha256"
"""User attribute of the study ``search``: the weights that everything in the store was scored with."""


@dataclass(frozen=True)
class SupernetSource:
    """A checked recipe of a supernet, with its images.

    Attributes:
        config: Recipe.
        space: Search space, with the input shape of the images.
        data: Images.
        objectives: Objectives in order, each with its sense.
        energy_tables: Tables of the user's energy models by name.
    """

    config: RunConfig
    space: SearchSpace
    data: ImageData
    objectives: Mapping[str, Sense]
    energy_tables: Mapping[str, Any]
    tested: bool = True

    @classmethod
    def open(cls, config: RunConfig, folder: Path, data_dir: str | Path | None) -> SupernetSource:
        """Check all that can be checked before anything expensive runs; errors are those of ``open_source``."""
        tables = read_energy_models(folder, config)
        models = _parse(tables)
        objectives = objective_senses(config, models)
        space = load_space(config.space_name)
        data = load_run_data(config, data_dir)
        space = space.with_input(*data.input_shape)
        check_metric_names(config, space, models)
        build_augmentation(config.training.augment, *data.input_shape[:2])
        with torch.device("meta"):
            Spikformer(space.skeleton, space.largest(), config.executor)  # a neuron that does not exist is found here
        check_executor(config.executor)
        resolve_device(config.device, config.executor)
        return cls(config, space, data, objectives, tables)

    @property
    def metrics(self) -> Mapping[str, Sense]:
        """All recorded metrics in order, each with its sense."""
        return metric_senses(self.config, _parse(self.energy_tables))

    @property
    def static(self) -> StaticMetrics:
        """Metrics that follow from the shape of a network."""
        skeleton, largest = self.space.skeleton, self.space.largest()
        evaluators = build_evaluators(self.config.metrics, self.config.options, _parse(self.energy_tables))
        return StaticMetrics(evaluators, lambda architecture: UnbuiltCandidate(architecture, skeleton, largest))

    @property
    def record(self) -> dict[str, Any]:
        """Fingerprint of the images, and energy models: what the run folder keeps."""
        return {"images": self.data.fingerprint, "energy_models": self.energy_tables}

    def train(self, folder: Path, reporter: Reporter, workers: int = 1, address: str | None = None) -> Spikformer:
        """Return the supernet, trained to the end by one process or several, whose state the folder keeps."""
        config = self.config
        keep_large_blocks()
        device = resolve_device(config.device, config.executor)
        supernet = build_supernet(self.space, config.seed, config.executor).to(device)
        if workers > 1:
            self._train_together(folder, reporter, workers, address, supernet)
        return train_network(supernet, self.data, config.training, config.seed, self.space, folder, reporter.train)

    def _train_together(
        self, folder: Path, reporter: Reporter, workers: int, address: str | None, supernet: Spikformer
    ) -> None:
        """Let several processes train what is not trained yet; the folder then has the whole training."""
        from nas.distributed import SentNetwork, TrainJob, train_together  # noqa: PLC0415  # loads Ray, which one process needs not

        config = self.config
        if load_checkpoint(folder, self._identity(supernet), supernet).complete:
            return
        data = replace(self.data, validation=self.data.validation.head(0), test=self.data.test.head(0))
        sent, settings = SentNetwork.of(build_supernet(self.space, config.seed, config.executor)), config.training
        job = TrainJob(sent, data, settings, config.seed, config.device, folder.resolve(), self.space)
        train_together(
            job,
            workers,
            reporter.train,
            address=address or config.workers.address,
            runtime_env=config.workers.runtime_env,
        )

    def job(self, folder: Path, results: Store, reporter: Reporter) -> ScoringJob:
        """Train the supernet, or finish its training, and return what workers need to score its subnets."""
        supernet = self.train(folder, reporter)
        _bind(results, folder)
        return self._job_of(supernet)

    def trained_job(self, folder: Path) -> ScoringJob:
        """Return what workers need to score subnets of a supernet that is trained, and write nothing.

        Raises:
            InputError: If it is not.
        """
        config = self.config
        supernet = build_supernet(self.space, config.seed, config.executor)
        if not load_checkpoint(folder, self._identity(supernet), supernet).complete:
            raise InputError(f"the supernet in {folder} must be trained to its end; `nas train` finishes it")
        return self._job_of(supernet.to(resolve_device(config.device, config.executor)))

    def _job_of(self, supernet: Spikformer) -> ScoringJob:
        return build_job(self.config, self.data, supernet, _parse(self.energy_tables))

    def _identity(self, supernet: Spikformer) -> Checkpoint:
        config, largest = self.config, supernet.architecture
        return Checkpoint(config.seed, self.data.name, config.training, largest, supernet.skeleton, self.space)

    def reference_point(self, score: Callable[[Genotype], Evaluation], reporter: Reporter) -> dict[str, float]:
        """Return 0 for objectives to maximise, and the largest architecture's value for those to minimise."""
        reporter.say("scoring the largest architecture, the reference of the hypervolume")
        result = score(self.space.largest())
        if result.failure is not None:
            raise InputError(
                "the largest architecture must be scored for the hypervolume's reference, but its evaluation failed: "
                f"{result.failure}; set search.hypervolume_reference in the recipe"
            )
        return {n: 0.0 if sense == "max" else result.metrics[n] for n, sense in self.objectives.items()}


def _parse(tables: Mapping[str, Any]) -> dict[str, EnergyModel]:
    return {name: parse_energy_model(name, values, f"energy model {name}") for name, values in tables.items()}


def _bind(store: Store, folder: Path) -> None:
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
