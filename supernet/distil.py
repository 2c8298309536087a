"""Training on the answers of another network beside those of the labels.

.. [Hinton2015] Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces import InputError
from supernet.spikformer import Spikformer


@dataclass(frozen=True)
class Distillation:
    """A teacher, and how much it counts.

    Attributes:
        teacher: Network in evaluation mode for the same images and classes; only read.
        share: What its answers count beside the labels, in [0, 1].
        temperature: Divides the logits of both, above 0; the higher, the more the smaller probabilities count.
    """

    teacher: Spikformer
    share: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        check_distillation(self.share, self.temperature)

    @torch.no_grad()
    def answers(self, images: Tensor) -> Tensor:
        """Return the teacher's logits ``(B, classes)`` for normalised images ``(B, C, H, W)``."""
        logits: Tensor = self.teacher(images)
        return logits.float()

    def blend(self, hard: Tensor, logits: Tensor, answers: Tensor) -> Tensor:
        """Return ``(1 - share) hard + share soft``, each a mean over the batch ``()`` [Hinton2015]_.

        Args:
            hard: Loss against the labels.
            logits: Of the network that learns, ``(B, classes)``.
            answers: Of the teacher, ``(B, classes)``.
        """
        return (1 - self.share) * hard + self.share * soft_loss(logits, answers, self.temperature)


def check_distillation(share: float, temperature: float) -> None:
    """Raise InputError if a teacher cannot count so much, or its logits not be divided so."""
    if not 0 <= share <= 1:
        raise InputError(f"the share of distillation must be in [0, 1], got {share!r}")
    if not 0 < temperature < float("inf"):
        raise InputError(f"the temperature of distillation must be above 0, got {temperature!r}")


def soft_loss(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """Return the divergence of a network's softened answers from its teacher's, times the squared temperature.

    .. code-block:: text

        T² mean_b Σ_c p (log p - log q),   p = softmax(answers / T),   q = softmax(logits / T)

    The square keeps its gradients in proportion to those of labels, whatever the temperature [Hinton2015]_.

    Args:
        logits: ``(B, classes)``.
        answers: ``(B, classes)``.
        temperature: T, above 0.
    """
    learnt, taught = (F.log_softmax(values / temperature, dim=1) for values in (logits, answers))
    return temperature**2 * F.kl_div(learnt, taught, reduction="batchmean", log_target=True)
