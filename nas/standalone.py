"""Networks of one architecture, trained by themselves to weights of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluators import Candidate, ScoringImages, SharedOutcomes
from nas.evaluation import SplitName
from nas.export import CHECKED_IMAGES, write_export
from nas.folder import run_facts
from nas.rescoring import ScoringFacts, score_network
from nas.scoring import threads
from spaces import InputError
from supernet.data import ImageData, Normalise, Split
from supernet.device import keep_large_blocks
from supernet.distil import Distillation
from supernet.engine import Engine
from supernet.pretrained import Pretrained
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


def keep_alone(
    pretrained: Pretrained, plan: Plan, out: Path, splits: Sequence[SplitName], provenance: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Write a network that :func:`train_alone` has returned as an export, and return its scores by split.

    Args:
        pretrained: Network.
        plan: How it was trained and is scored.
        out: Folder, new or empty.
        splits: Splits that it is scored on.
        provenance: What the model card says of where it is from, beside how and when it was trained.

    Raises:
        InputError: If it cannot be scored or written.
    """
    data, found = plan.data, dict[str, dict[str, float]]()
    for name in splits:
        score = score_network(pretrained, data.name, name, plan.splits[name], plan.scoring)
        found[name] = {"images": float(score.images), **score.metrics()}
    now = run_facts()
    facts = {
        "data": {
            "name": data.name,
            "test_sha256": data.test.fingerprint,
            "validation_sha256": plan.splits["validation"].fingerprint,
        },
        "scoring": plan.scoring.to_dict(),
        "scores": {name: {**scores, "images": int(scores["images"])} for name, scores in found.items()},
        "provenance": {
            **provenance,
            "calibration_images": len(data.train.head(plan.calibration_images)),
            "train_images": len(data.train),
            "training": asdict(plan.settings),
            "exported": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {name: now["versions"][name] for name in ("spikefront", "torch", "numpy")},
            "revision": now["revision"],
        },
    }
    images = pretrained.normalise(data.validation.head(CHECKED_IMAGES).images)
    with threads(plan.scoring.threads):
        write_export(out, replace(pretrained, facts=facts), images)
    return found


def clear_checkpoint(folder: Path) -> None:
    """Remove the checkpoints of a training whose network is written."""
    shutil.rmtree(folder, ignore_errors=True)
