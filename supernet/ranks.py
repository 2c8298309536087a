"""Processes that train one network together, each on its part of every batch.

What a step sums over the images of a batch is summed over the parts first and over the processes then: moments of a
normalisation, their gradients, and the gradients of the weights. So the step is that of one process which has the
whole batch, but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Share:
    """The part of a batch that this process computes.

    Attributes:
        start: Its first image.
        stop: The one behind its last image.
        images: Images of the whole batch.
        weight: What a mean over the part counts in the sum over the processes that is the mean over the batch.
        joint: Whether the others compute other parts; else each computes all of a batch too small to be split.
    """

    start: int
    stop: int
    images: int
    weight: float
    joint: bool

    def of_batch(self, rows: int) -> int:
        """Return the rows of the batch, from those of the part; each image has equally many."""
        return rows * self.images // (self.stop - self.start)

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance of the batch from those of the part, each ``(C,)`` in float64."""
        sums = torch.stack([mean, variance + mean.square()]) * self.weight
        distributed.all_reduce(sums)
        mean, square = sums.unbind()
        return mean.clone(), (square - mean.square()).clamp_min(0)


@dataclass(frozen=True)
class Ranks:
    """The processes of torch's default group, as one of them sees them.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of processes.
    """

    rank: int
    count: int

    def share(self, images: int) -> Share:
        """Return this process's part of a batch: parts differ by one image at most, and none is empty."""
        if images < self.count:
            return Share(0, images, images, 1 / self.count, joint=False)
        start, stop = (images * rank // self.count for rank in (self.rank, self.rank + 1))
        return Share(start, stop, images, (stop - start) / images, joint=True)

    def add_up_gradients(self, parameters: Iterable[Tensor], *values: Tensor) -> list[Tensor]:
        """Replace gradients by their sums over the processes, and return the sums of numbers, each ``()``.

        All processes have the gradients of the same parameters, since they run the same architectures.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        parts = [*gradients, *(value.to(gradients[0].dtype) for value in values)]
        sums = torch.cat([part.detach().flatten() for part in parts])
        distributed.all_reduce(sums)  # in one message, and every process gets the same bits
        split = torch.split(sums, [part.numel() for part in parts])
        for gradient, total in zip(gradients, split, strict=False):
            gradient.copy_(total.view_as(gradient))
        return [total.view(()) for total in split[len(gradients) :]]

    def agree(self, value: int, device: torch.device) -> bool:
        """Return whether all processes have the same number."""
        extremes = torch.tensor([value, -value], device=device)
        distributed.all_reduce(extremes, distributed.ReduceOp.MAX)
        return int(extremes[0]) == -int(extremes[1])


_NORMALISED_OVER: ContextVar[Share | None] = ContextVar("_NORMALISED_OVER", default=None)


@contextmanager
def normalised_over(share: Share | None) -> Iterator[None]:
    """Let batch normalisations inside the block take the moments of the whole batch, of which they see a part."""
    token = _NORMALISED_OVER.set(share if share is not None and share.joint else None)
    try:
        yield
    finally:
        _NORMALISED_OVER.reset(token)


def current_share() -> Share | None:
    """Return the part that batch normalisations see, or None where they see the whole batch."""
    return _NORMALISED_OVER.get()


def add_up(x: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes, with gradients."""
    return cast(Tensor, _AddUp.apply(x))  # type: ignore[no-untyped-call]  # torch leaves it untyped


class _AddUp(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, *grad_outputs: Tensor) -> Tensor:
        total = grad_outputs[0].clone()
        distributed.all_reduce(total)
        return total
