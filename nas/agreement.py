"""Whether a copy of a network, computed by another program, is the same network.

Logits follow from spikes. Another order of summation moves a current by some 1e-7 of itself, and a neuron that is as
near as that to its threshold then fires in one program and not in the other, which the logits of that image show. A
copy that is wrong shows it on all images. So images are counted, and where many differ, the network is set beside
itself in double precision, which says how many of its images rounding alone can move.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spaces import InputError
from supernet.neurons import SpikingNeuron
from supernet.spikformer import Spikformer

SPARED = 8
"""One image of so many may differ without a look at what rounding does."""

_AMPLE = 4.0
"""How much larger than by rounding the differences of a copy may be, in the median."""


@dataclass(frozen=True)
class Agreement:
    """What images say about a copy.

    Attributes:
        images: Images that were compared.
        tolerance: Difference of a logit up to which an image agrees.
        differing: Images that do not agree.
        largest: Largest difference of a logit.
        answers: Images whose largest logit is that of another class.
        by_rounding: Images on which the network does not agree with itself in double precision; None if that was not
            looked at.
    """

    images: int
    tolerance: float
    differing: int
    largest: float
    answers: int
    by_rounding: int | None = None

    def __str__(self) -> str:
        if not self.differing:
            return f"the logits of all {self.images} images agree to {self.tolerance:g}"
        text = (
            f"{self.differing} of {self.images} images have a logit that differs by more than {self.tolerance:g}, at "
            f"most by {self.largest:.3g}, and {self.answers} another answer, as spikes at their threshold tip with "
            "the order of a sum"
        )
        if self.by_rounding is None:
            return text
        return f"{text}; between single and double precision, {self.by_rounding} differ"


def compare_logits(ours: Tensor, theirs: Tensor, tolerance: float) -> tuple[Agreement, Tensor]:
    """Return what logits ``(B, classes)`` have in common, and the largest difference of each image ``(B,)``.

    A logit that is not finite differs infinitely.
    """
    apart = (ours.double() - theirs.double()).abs()
    difference = apart.masked_fill(apart.isnan(), torch.inf).amax(dim=1)
    answers = int((ours.argmax(dim=1) != theirs.argmax(dim=1)).sum())
    differing = int((difference > tolerance).sum())
    return Agreement(len(ours), tolerance, differing, float(difference.max()), answers), difference


@torch.no_grad()
def check_copy(network: Spikformer, images: Tensor, theirs: Tensor, tolerance: float, what: str) -> Agreement:
    """Return how well a copy of a network agrees with it.

    Args:
        network: In evaluation mode.
        images: Normalised images ``(B, C, H, W)``.
        theirs: Logits ``(B, classes)`` of the copy.
        tolerance: Difference of a logit up to which an image agrees.
        what: Name of the copy, for the error.

    Raises:
        InputError: If more images differ than rounding explains.
    """
    ours = network(images)
    found, difference = compare_logits(ours, theirs, tolerance)
    if found.differing * SPARED <= found.images:
        return found
    exact = in_double_precision(network, images)
    own, rounding = compare_logits(ours, exact, tolerance)
    explained = found.differing <= 2 * own.differing
    explained = explained and float(difference.median()) <= _AMPLE * float(rounding.median()) + tolerance
    found = replace(found, by_rounding=own.differing)
    if not explained:
        raise InputError(
            f"{what} does not compute what the network computes, and nothing is written: {found}; export it as "
            "spikefront, and report this"
        )
    return found


def in_double_precision(network: Spikformer, images: Tensor) -> Tensor:
    """Return the logits ``(B, classes)`` that a copy of a network gives in plain torch and float64."""
    wide = deepcopy(network).double()
    for module in wide.modules():
        if isinstance(module, SpikingNeuron):
            module.executor = "reference"
    logits: Tensor = wide(images.double())
    return logits
