"""The score of an exported network on images: accuracy, and energy under each convention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import torch

from evaluators import (
    EnergyModel,
    OperationCounts,
    count_macs,
    count_parameters,
    energy_mj,
    parse_energy_model,
)
from nas.energy import load_models
from nas.evaluation import SplitName
from nas.folder import run_facts
from nas.scoring import threads
from spaces import InputError
from supernet.data import ImageData, Split, load_data
from supernet.engine import Engine
from supernet.pretrained import CONFIG, Pretrained, read_pretrained
from supernet.settings import MOST_THREADS


@dataclass(frozen=True)
class ScoringFacts:
    """How a network was scored, which decides the order of sums, and so their last bits.

    Attributes:
        batch_size: Images per batch.
        images_per_pass: Images that went through the network at once; None for as many as fit the caches.
        threads: Threads that it was computed on.
        energy_models: Tables of users' energy models by name.
    """

    batch_size: int = 256
    images_per_pass: int | None = None
    threads: int = 1
    energy_models: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; ``from_dict`` reads them back."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> ScoringFacts:
        """Return the facts that ``to_dict`` has written, defaults standing for those that are not there.

        Args:
            values: Plain values.
            source: Where they come from, for the error.

        Raises:
            InputError: If one is unknown or is not right.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise InputError(f"{source}: scoring has the keys {sorted(cls.__dataclass_fields__)}, got {unknown}")
        for name, most in {"batch_size": 2**20, "images_per_pass": 2**20, "threads": MOST_THREADS}.items():
            value = values.get(name, 1)
            allowed = name == "images_per_pass" and value is None
            if not allowed and (type(value) is not int or not 1 <= value <= most):
                raise InputError(f"{source}: scoring.{name} must be a whole number from 1 to {most}, got {value!r}")
        if not isinstance(values.get("energy_models", {}), dict):
            raise InputError(f"{source}: scoring.energy_models must be a table, got {values['energy_models']!r}")
        facts = cls(**values)
        facts.models(source)
        return facts

    def models(self, source: str = CONFIG) -> list[EnergyModel]:
        """Return the users' energy models, then those that come with Spikefront."""
        own = [parse_energy_model(name, table, f"{source}, {name}") for name, table in self.energy_models.items()]
        return load_models(own=own)


def export_facts(
    data: ImageData,
    scoring: ScoringFacts,
    scores: Mapping[str, Mapping[str, float]],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what an export says beside its network, by rows of ``supernet.pretrained.FACTS``.

    Args:
        data: Images that it belongs to.
        scoring: How it is scored.
        scores: Metrics by split.
        provenance: Where it is from; when and with what it was exported is added.
    """
    now = run_facts()
    exported = {
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: now["versions"][name] for name in ("spikefront", "torch", "numpy")},
        "revision": now["revision"],
    }
    return {
        "data": {
            "name": data.name,
            "test_sha256": data.test.fingerprint,
            "validation_sha256": data.validation.fingerprint,
        },
        "scoring": scoring.to_dict(),
        "scores": scores,
        "provenance": {**provenance, **exported},
    }


@dataclass(frozen=True)
class NetworkScore:
    """What a network did on a split.

    Attributes:
        data: Name of the image set.
        split: Split of it.
        images: Images seen.
        correct: Images whose largest logit is their label's.
        operations: Operations and spikes.
        parameters: Trainable values.
        macs: Multiply-accumulates of the dense network, per image.
        models: Energy models.
        same_images: Whether these are the images that the network was exported with; None if nobody knows.
    """

    data: str
    split: SplitName
    images: int
    correct: int
    operations: OperationCounts
    parameters: int
    macs: int
    models: Sequence[EnergyModel]
    same_images: bool | None = None

    @property
    def accuracy(self) -> float:
        """Share of correct answers, in [0, 1]."""
        return self.correct / self.images

    def metrics(self) -> dict[str, float]:
        """Return ``accuracy``, ``energy_mj:MODEL`` of each model, ``spikes``, ``parameters`` and ``macs``."""
        energies = {f"energy_mj:{model.name}": energy_mj(self.operations, model) for model in self.models}
        shape = {"parameters": float(self.parameters), "macs": float(self.macs)}
        return {"accuracy": self.accuracy, **energies, "spikes": self.operations.spikes_per_image, **shape}

    def energies(self) -> pd.DataFrame:
        """Return one row per energy model: ``model``, ``energy_mj`` per image, and its ``title``."""
        rows = [{"model": m.name, "energy_mj": energy_mj(self.operations, m), "title": m.title} for m in self.models]
        return pd.DataFrame(rows)

    def frame(self) -> pd.DataFrame:
        """Return one row: ``data, split, images``, and one column per metric."""
        return pd.DataFrame([{"data": self.data, "split": self.split, "images": self.images, **self.metrics()}])


def score_network(
    pretrained: Pretrained, data: str, name: SplitName, split: Split, facts: ScoringFacts
) -> NetworkScore:
    """Return the score of a network on the images of a split, of which there are some.

    Args:
        pretrained: Network.
        data: Name of the image set.
        name: Name of the split.
        split: Its images.
        facts: How to score.

    Raises:
        InputError: If the network cannot be run, as for want of memory.
    """
    network = pretrained.network
    try:
        with threads(facts.threads):
            engine = Engine(network, executor=network.executor, images_per_pass=facts.images_per_pass)
            result = engine.score_itself(x for x, _ in pretrained.normalise.batches(split, facts.batch_size))
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            f"the network cannot be scored: {type(error).__name__}: {error}; with less memory, lower batch_size and "
            "images_per_pass in scoring"
        ) from error
    correct = int((result.logits.argmax(dim=1) == torch.from_numpy(split.labels)).sum())
    counts = OperationCounts(result.layers, result.neurons, result.images)
    skeleton, architecture = network.skeleton, network.architecture
    shape = count_parameters(skeleton, architecture), count_macs(skeleton, architecture)
    return NetworkScore(data, name, result.images, correct, counts, *shape, facts.models())


def evaluate(
    out: str | Path,
    data: str | None = None,
    data_dir: str | Path | None = None,
    split: str = "test",
    neuron: str | None = None,
) -> NetworkScore:
    """Return the score of an exported network: for the test split of its run, the numbers of the run.

    Args:
        out: Folder that ``nas export`` wrote in its own format.
        data: Image set, a row of ``supernet.data.DATASETS``; that of the export by default.
        data_dir: Folder of images; else ``SPIKEFRONT_DATA``, else a download.
        split: ``test`` or ``validation``.
        neuron: As of :meth:`supernet.spikformer.Spikformer.from_pretrained`.

    Raises:
        InputError: If the export is damaged, or the images do not fit it.
    """
    if split not in get_args(SplitName):
        raise InputError(f"split must be one of {list(get_args(SplitName))}, got {split!r}")
    pretrained, source = read_pretrained(out, neuron=neuron), str(Path(out) / CONFIG)
    facts = ScoringFacts.from_dict(pretrained.facts["scoring"], source)
    images, recorded = images_of(pretrained, source, data, data_dir), pretrained.facts["data"]
    chosen = images.test if split == "test" else images.validation
    score = score_network(pretrained, images.name, "test" if split == "test" else "validation", chosen, facts)
    digest = recorded.get(f"{split}_sha256") if images.name == recorded.get("name") else None
    same = None if digest is None else digest == chosen.fingerprint
    return replace(score, same_images=same)


def images_of(pretrained: Pretrained, source: str, data: str | None, data_dir: str | Path | None) -> ImageData:
    """Return the images that an exported network is for.

    Args:
        pretrained: Network.
        source: Its file, for the error.
        data: Image set instead of its own.
        data_dir: Folder of images; else ``SPIKEFRONT_DATA``, else a download.

    Raises:
        InputError: If nobody says which they are, or they do not fit it.
    """
    name = data if data is not None else pretrained.facts["data"].get("name")
    if not isinstance(name, str):
        raise InputError(f"{source} does not say which images it is for, got {name!r}; name them with --data")
    images = load_data(name, data_dir)
    check_images(pretrained, images)
    return images


def check_images(pretrained: Pretrained, data: ImageData) -> None:
    """Raise InputError if a network cannot answer about images."""
    skeleton = pretrained.network.skeleton
    wanted = (skeleton.image_size, skeleton.in_channels, skeleton.num_classes)
    if data.input_shape != wanted:
        raise InputError(
            f"the network takes images of (pixels, channels, classes) {wanted}, and {data.name} has "
            f"{data.input_shape}; name its own images with --data"
        )
    if data.classes != pretrained.classes:
        raise InputError(
            f"the network tells apart {list(pretrained.classes)}, and {data.name} has the classes "
            f"{list(data.classes)}; name its own images with --data"
        )
