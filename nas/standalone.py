"""Networks of one architecture, trained by themselves to weights of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evaluators import Candidate, ScoringImages, SharedOutcomes
from nas.evaluation import SplitName
from nas.export import CHECKED_IMAGES, write_export
from nas.rescoring import ScoringFacts, export_facts, score_network
from nas.scoring import threads
from spaces import InputError
from supernet.data import ImageData, Normalise, Split
from supernet.device import keep_large_blocks
from supernet.distil import Distillation
from supernet.engine import Engine
from supernet.pretrained import CONFIG, Pretrained, read_config
from supernet.settings import TrainSettings
from supernet.spikformer import Spikformer
from supernet.train import TrainProgress, train


@dataclass(frozen=True)
class Plan:
    """How a network is trained and scored.

    Attributes:
        data: Images.
        settings: Optimisation.
        calibration_images: Training images that the statistics of BatchNorm are taken from at the end.
        scoring: How it is scored.
        validation_images: Only so many validation images; all without a number.
    """

    data: ImageData
    settings: TrainSettings
    calibration_images: int
    scoring: ScoringFacts
    validation_images: int | None = None

    @property
    def splits(self) -> dict[SplitName, Split]:
        """The images to score on, by split."""
        return {"test": self.data.test, "validation": self.data.validation.head(self.validation_images)}


def check_counts(**counts: int | None) -> None:
    """Raise InputError if one of some numbers, where it is given, is not 1 or more."""
    for name, value in counts.items():
        if value is not None and (type(value) is not int or value < 1):
            raise InputError(f"{name} must be 1 or more, got {value!r}")


def checkpoint_of(out: Path) -> Path:
    """Return the folder of the checkpoints of a training whose network is to be in ``out``."""
    return out.with_name(f".{out.name}")


def make_alone(
    network: Spikformer,
    plan: Plan,
    seed: int,
    out: Path,
    splits: Sequence[SplitName],
    provenance: Mapping[str, Any],
    report: Callable[[TrainProgress], None] | None = None,
    distillation: Distillation | None = None,
) -> None:
    """Train a network, or finish its training, and write it as an export with its scores.

    Its checkpoints are kept beside the export, until that is there.

    Args:
        network: Network with its first weights, on the device to train on; trained in place.
        plan: How.
        seed: Seed of order and augmentation.
        out: Folder, new or empty.
        splits: Splits that it is scored on.
        provenance: What the model card says of where it is from, beside what it is, and how and when it was trained.
        report: Called after every step.
        distillation: Who teaches it.

    Raises:
        InputError: If the checkpoint is damaged or of another training, or the network cannot be run or written.
    """
    checkpoint = checkpoint_of(out)
    pretrained = train_alone(network, plan, seed, checkpoint, report, distillation)
    _keep(pretrained, plan, out, splits, {"key": network.architecture.key, "seed": seed, **provenance})
    shutil.rmtree(checkpoint, ignore_errors=True)


def train_alone(
    network: Spikformer,
    plan: Plan,
    seed: int,
    checkpoint: Path,
    report: Callable[[TrainProgress], None] | None = None,
    distillation: Distillation | None = None,
) -> Pretrained:
    """Train a network, or finish its training, and return it with statistics as subnets are scored with.

    Args:
        network: Network with its first weights, on the device to train on; trained in place.
        plan: How.
        seed: Seed of order and augmentation.
        checkpoint: Folder of checkpoints, to go on from if there is one.
        report: Called after every step.
        distillation: Who teaches it.

    Raises:
        InputError: If the checkpoint is damaged or of another training, or the network cannot be run.
    """
    keep_large_blocks()
    data, facts = plan.data, plan.scoring
    train(network, data, plan.settings, seed, None, checkpoint, report, None, distillation)
    network, architecture = _on_cpu(network), network.architecture
    normalise = Normalise(*data.moments)
    calibration = data.train.head(plan.calibration_images)
    images = ScoringImages(calibration, data.validation.head(0), normalise, facts.batch_size)
    try:
        with threads(facts.threads):
            engine = Engine(network, executor=network.executor, images_per_pass=facts.images_per_pass)
            outcomes = SharedOutcomes(engine, [architecture], images)
            found = Candidate(architecture, network, images, outcomes).subnet
    except (RuntimeError, MemoryError) as error:
        raise InputError(f"the trained network cannot be run: {type(error).__name__}: {error}") from error
    found.normalise, found.classes = normalise, data.classes
    return Pretrained(found, normalise, data.classes)


def _on_cpu(network: Spikformer) -> Spikformer:
    """Return a network where any machine can run it: what was trained on a GPU need not be scored there."""
    if network.executor != "cupy":
        return network.cpu()
    moved = Spikformer(network.skeleton, network.architecture)
    moved.load_state_dict(network.state_dict())
    return moved


def _keep(
    pretrained: Pretrained, plan: Plan, out: Path, splits: Sequence[SplitName], provenance: Mapping[str, Any]
) -> None:
    data, scores = plan.data, dict[str, dict[str, float]]()
    for name in splits:
        score = score_network(pretrained, data.name, name, plan.splits[name], plan.scoring)
        scores[name] = {"images": score.images, **score.metrics()}
    trained = {
        "calibration_images": len(data.train.head(plan.calibration_images)),
        "train_images": len(data.train),
        "training": asdict(plan.settings),
    }
    facts = export_facts(data, plan.scoring, scores, {**provenance, **trained})
    images = pretrained.normalise(data.validation.head(CHECKED_IMAGES).images)
    with threads(plan.scoring.threads):
        write_export(out, replace(pretrained, facts=facts), images)


def is_kept(out: Path) -> bool:
    """Return whether a network is written, so that there is nothing to train."""
    return (out / CONFIG).is_file()


def kept_scores(out: Path, splits: Sequence[SplitName]) -> dict[str, dict[str, float]]:
    """Return the scores of a network that is written, accuracy among them, by split.

    Raises:
        InputError: If they are not there.
    """
    scores = read_config(out)["scores"]
    try:
        found: dict[str, dict[str, float]] = {
            split: {name: float(value) for name, value in scores[split].items()} for split in splits
        }
        if all("accuracy" in metrics for metrics in found.values()):
            return found
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        pass
    raise InputError(
        f"{out / CONFIG} must have a {' and a '.join(splits)} accuracy; move {out} away to train it anew"
    )
