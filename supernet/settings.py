"""How to train: the values of a recipe's ``[training]`` table."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from spaces import InputError
from supernet.sampling import SAMPLING

PRECISIONS = ("float32", "bfloat16")
MOST_THREADS = 1024
"""Threads beyond which no machine of today goes: far more of them end a process."""

MOST_PARTS = 64
"""Parts of a batch beyond which each would be a few images."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Optimisation of a supernet, or of one architecture; the defaults follow the public Spikformer recipe.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per step, 2 or more.
        learning_rate: Peak of the cosine schedule.
        min_learning_rate: End of the cosine schedule.
        warmup_epochs: Epochs of linear warm-up, a part of ``epochs``.
        weight_decay: Decoupled decay of AdamW; biases and BatchNorm are not decayed.
        label_smoothing: Probability spread over all classes, in [0, 1).
        mixup: Concentration of the mixing share, 0 for none.
        augment: Rows of ``supernet.augment.AUGMENTATIONS`` in order.
        clip_norm: Largest gradient norm, 0 for no clipping.
        ema: Decay of the average of the weights, which is what is trained in the end, in [0, 1); 0 for none.
        precision: Number format of the products, ``float32`` or ``bfloat16`` (autocast).
        sampling: Architectures of a step, a row of ``supernet.sampling.SAMPLING``.
        checkpoint_every: Epochs between checkpoints.
        threads: Threads that torch computes on, at most 1024; small networks are faster on one. 0 for its own choice,
            or one for each of several parts.
        parts: Parts that each batch is computed in, 2 to 64, so that a training is the same, bit for bit, by any
            number of processes; 0 for one part of each process.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    epochs: int = 300
    batch_size: int = 128
    learning_rate: float = 5e-4
    min_learning_rate: float = 1e-5
    warmup_epochs: float = 20.0
    weight_decay: float = 0.06
    label_smoothing: float = 0.1
    mixup: float = 0.5
    augment: tuple[str, ...] = ()
    clip_norm: float = 5.0
    ema: float = 0.0
    precision: str = "float32"
    sampling: str = "single"
    checkpoint_every: int = 1
    threads: int = 0
    parts: int = 0

    def __post_init__(self) -> None:
        rules: dict[str, tuple[bool, str]] = {
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 2, "2 or more (BatchNorm needs two images)"),
            "learning_rate": (0 < self.learning_rate < math.inf, "above 0"),
            "min_learning_rate": (
                0 <= self.min_learning_rate <= self.learning_rate,
                f"from 0 to learning_rate {self.learning_rate}",
            ),
            "warmup_epochs": (
                0 <= self.warmup_epochs < self.epochs,
                f"0 or more and below epochs {self.epochs}",
            ),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "mixup": (0 <= self.mixup < math.inf, "0 or more"),
            "clip_norm": (0 <= self.clip_norm < math.inf, "0 or more"),
            "ema": (0 <= self.ema < 1, "in [0, 1)"),
            "precision": (self.precision in PRECISIONS, f"one of {list(PRECISIONS)}"),
            "sampling": (self.sampling in SAMPLING, f"one of {sorted(SAMPLING)}"),
            "checkpoint_every": (self.checkpoint_every >= 1, "1 or more"),
            "threads": (0 <= self.threads <= MOST_THREADS, f"from 0 to {MOST_THREADS}"),
            "parts": (
                self.parts == 0 or 2 <= self.parts <= min(MOST_PARTS, self.batch_size),
                f"0, or from 2 to {MOST_PARTS} and at most batch_size {self.batch_size}",
            ),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise InputError(f"training.{name} must be {rule}, got {getattr(self, name)!r}")

    def lasting(self, epochs: int) -> TrainSettings:
        """Return the same recipe over so many epochs, its warm-up the same part of them."""
        return replace(self, epochs=epochs, warmup_epochs=self.warmup_epochs * epochs / self.epochs)

    def learning_rate_at(self, epoch: float) -> float:
        """Return the learning rate at a moment in epochs: linear warm-up, then a half cosine."""
        if epoch < self.warmup_epochs:
            return self.learning_rate * (epoch / self.warmup_epochs)
        progress = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        span = self.learning_rate - self.min_learning_rate
        return self.min_learning_rate + span * 0.5 * (1 + math.cos(math.pi * progress))
