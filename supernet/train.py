"""One training loop for supernets and for single architectures.

Every epoch draws its order, augmentation and architectures from the seed and its own number, so a training that
continues from a checkpoint reaches the weights of one that was never interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces import Architecture, InputError, SearchSpace
from supernet.augment import build_augmentation, mixup
from supernet.averaging import WeightAverage
from supernet.checkpoint import Checkpoint, EpochRecord, load_checkpoint, save_checkpoint
from supernet.data import ImageData, Normalise
from supernet.distil import Distillation
from supernet.parts import Crew, Place
from supernet.ranks import Ranks, normalised_over
from supernet.sampling import SAMPLING
from supernet.settings import TrainSettings
from supernet.spikformer import Spikformer


@dataclass(frozen=True)
class TrainProgress:
    """Where a training stands after a step.

    Attributes:
        epoch: Epochs done, with the fraction of the running one.
        epochs: Epochs in all.
        loss: Running mean of the loss in this epoch.
        accuracy: Running share of correct answers on the (augmented) training images, in [0, 1].
        images_per_second: Throughput of this epoch.
    """

    epoch: float
    epochs: int
    loss: float
    accuracy: float
    images_per_second: float


def train(
    model: Spikformer,
    data: ImageData,
    settings: TrainSettings,
    seed: int,
    space: SearchSpace | None = None,
    checkpoint: Path | None = None,
    report: Callable[[TrainProgress], None] | None = None,
    ranks: Ranks | None = None,
    distillation: Distillation | None = None,
) -> Spikformer:
    """Train a network on the training split and return it in evaluation mode.

    Several processes that all call this reach, but for rounding, the weights that one of them would reach alone: each
    draws and augments every batch as a whole, and goes on with its part.

    Args:
        model: A supernet, or a network of one architecture; trained in place, on the device it is on.
        data: Images, of which only the training split is used.
        settings: Optimisation.
        seed: Seed of order, augmentation and architectures.
        space: Space to draw each step's architectures from; without one the model itself is trained.
        checkpoint: Folder to save checkpoints in, and to continue from if it has one.
        report: Called after every step.
        ranks: The processes that train together, each with the same arguments; the one of rank 0 saves checkpoints.
        distillation: Who teaches the network, or the first architecture of each step, beside the labels.

    Raises:
        InputError: If the checkpoint belongs to another network, data set, seed or settings, or if processes that
            train together do not find the same one.
    """
    threads = torch.get_num_threads()
    own = settings.threads or (1 if settings.parts else threads)  # the same for a part wherever it is computed
    crew = Crew(model, ranks, settings.parts, own)
    epoch_trainer = _EpochTrainer(model, data, settings, seed, space, distillation, crew)
    optimizer, average = epoch_trainer.optimizer, epoch_trainer.average
    state = Checkpoint(seed, data.name, settings, model.architecture, model.skeleton, space)
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, state, model, optimizer, average)
    if ranks is not None and not ranks.agree(state.epoch, epoch_trainer.device):
        raise InputError(
            f"processes that train together must find the same checkpoint in {checkpoint}, but they differ; put the "
            "folder on a file system that all machines share"
        )
    saves = ranks is None or ranks.rank == 0
    working = nullcontext() if state.complete else crew.at_work()
    torch.set_num_threads(own)
    try:
        with working:
            while not state.complete:
                state = state.after(epoch_trainer.run(state.epoch, report))
                if state.complete and average is not None:
                    average.give(model)
                due = state.complete or state.epoch % settings.checkpoint_every == 0
                if checkpoint is not None and saves and due:
                    save_checkpoint(checkpoint, state, model, optimizer, average)
    finally:
        torch.set_num_threads(threads)
    return model.eval()


class _EpochTrainer:
    """What the epochs of a training share: optimiser, average of weights, augmentation and normalisation."""

    def __init__(
        self,
        model: Spikformer,
        data: ImageData,
        settings: TrainSettings,
        seed: int,
        space: SearchSpace | None,
        distillation: Distillation | None,
        crew: Crew,
    ) -> None:
        self.model, self.data, self.settings, self.seed, self.space = model, data, settings, seed, space
        self.distillation, self.crew = distillation, crew
        self.average = WeightAverage(model, settings.ema) if settings.ema else None
        self.device = next(model.parameters()).device
        size, channels, self.num_classes = data.input_shape
        self.augment = build_augmentation(settings.augment, size, channels)
        self.normalise = Normalise(*data.moments)
        groups: list[dict[str, Any]] = [
            {"params": [p for p in model.parameters() if p.dim() > 1]},
            {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )

    def run(self, epoch: int, report: Callable[[TrainProgress], None] | None) -> EpochRecord:
        """Train for one epoch; a last batch too small for BatchNorm is left out."""
        settings, train = self.settings, self.data.train
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(train))
        starts = [s for s in range(0, len(train), settings.batch_size) if len(train) - s >= 2]
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        seen, began = 0, time.perf_counter()
        self.model.train()
        with torch.random.fork_rng(devices=[]):  # kornia draws from the global generator
            torch.default_generator.manual_seed(int(rng.integers(2**63)))
            for step, start in enumerate(starts):
                self._set_learning_rate(settings.learning_rate_at(epoch + step / len(starts)))
                chosen = np.sort(order[start : start + settings.batch_size])
                images = torch.from_numpy(train.images[chosen])
                labels = torch.from_numpy(train.labels[chosen])
                loss, hits = self._step(images, labels, rng)
                if self.average is not None:
                    self.average.update(self.model, epoch * len(starts) + step + 1)
                seen += len(chosen)
                loss_sum += loss * len(chosen)
                correct += hits
                if report is not None:
                    report(
                        TrainProgress(
                            epoch + (step + 1) / len(starts),
                            settings.epochs,
                            loss_sum.item() / seen,
                            correct.item() / seen,
                            seen / (time.perf_counter() - began),
                        )
                    )
        return EpochRecord(loss_sum.item() / seen, correct.item() / seen, time.perf_counter() - began)

    def _set_learning_rate(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def _step(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Update the weights once; return mean loss and correct answers of the step's first architecture."""
        settings = self.settings
        with torch.no_grad():
            x = self.normalise.pixels(self.augment(images.float() / 255))
            targets = F.one_hot(labels, self.num_classes).to(x.dtype)
            x, targets = mixup(x, targets, settings.mixup)
        self.optimizer.zero_grad(set_to_none=True)
        architectures: list[Architecture | None] = [None]
        if self.space is not None:
            architectures = [*SAMPLING[settings.sampling](self.space, rng)]
        loss, hits = self.crew.each(lambda place: self._learn(place, x, targets, architectures))
        if settings.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.optimizer.step()
        return loss, hits

    def _learn(
        self, place: Place, x: Tensor, targets: Tensor, architectures: Sequence[Architecture | None]
    ) -> tuple[Tensor, Tensor]:
        """Set the gradients of a batch; return mean loss and correct answers of the first architecture.

        Args:
            place: What is computed: a part of the batch, or all of it.
            x: Normalised images of the batch, ``(B, C, H, W)``.
            targets: Their labels, ``(B, classes)``.
            architectures: What learns.
        """
        settings, ranks, taught = self.settings, place.ranks, self.distillation
        share = None if ranks is None else ranks.share(len(x))
        if share is not None:
            x, targets = x[share.start : share.stop], targets[share.start : share.stop]
        x, targets = x.to(self.device), targets.to(self.device)
        first_logits: Tensor | None = None
        loss_value = torch.zeros((), device=self.device)
        cast = torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")
        if taught is not None:
            with cast:
                answers = taught.answers(x)
        for architecture in architectures:
            with cast, normalised_over(share):
                logits = place.model(x, architecture).float()
            if first_logits is None:
                loss = F.cross_entropy(logits, targets, label_smoothing=settings.label_smoothing)
                if taught is not None:
                    loss = taught.blend(loss, logits, answers)
                first_logits = logits.detach()
            else:  # the first architecture teaches the others in place
                loss = F.cross_entropy(logits, first_logits.softmax(dim=1))
            if share is not None:
                loss = loss * share.weight
            torch.autograd.backward(loss / len(architectures))
            loss_value += loss.detach() / len(architectures)
        assert first_logits is not None
        hits = (first_logits.argmax(dim=1) == targets.argmax(dim=1)).sum()
        if ranks is not None and share is not None:
            counted = hits if share.joint else hits / ranks.count
            loss_value, total = ranks.add_up_gradients(place.model.parameters(), loss_value, counted)
            hits = total.round().long()
        return loss_value, hits
