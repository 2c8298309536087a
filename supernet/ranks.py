"""Processes that train one network together, each on its part of every batch.

What a step sums over the images of a batch is summed over the parts first and over the processes then: moments of a
normalisation, their gradients, and the gradients of the weights. So the step is that of one process which has the
whole batch, but for rounding. Where rounding is to be the same as well, :mod:`supernet.parts` fixes the parts.
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
    """The part of a batch that is computed here.

    Attributes:
        start: Its first image.
        stop: The one behind its last image.
        images: Images of the whole batch.
        weight: What a mean over the part counts in the sum over the parts that is the mean over the batch.
        joint: Whether the others compute other parts; else each computes all of a batch too small to be split.
        ranks: Who adds up over the parts.
    """

    start: int
    stop: int
    images: int
    weight: float
    joint: bool
    ranks: Ranks

    def of_batch(self, rows: int) -> int:
        """Return the rows of the batch, from those of the part; each image has equally many."""
        return rows * self.images // (self.stop - self.start)

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance of the batch from those of the part, each ``(C,)`` in float64."""
        sums = torch.stack([mean, variance + mean.square()]) * self.weight
        self.ranks.add(sums)
        mean, square = sums.unbind()
        return mean.clone(), (square - mean.square()).clamp_min(0)

    def add_up(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over the parts, with gradients."""
        return cast(Tensor, _AddUp.apply(x, self.ranks))  # type: ignore[no-untyped-call]  # torch leaves it untyped


@dataclass(frozen=True)
class Ranks:
    """The processes of torch's default group, each with a part of every batch, as one of them sees them.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of processes.
    """

    rank: int
    count: int

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the processes."""
        distributed.all_reduce(tensor)

    def share(self, images: int) -> Share:
        """Return the part of a batch: parts differ by one image at most, and none is empty."""
        if images < self.count:
            return Share(0, images, images, 1 / self.count, joint=False, ranks=self)
        start, stop = (images * rank // self.count for rank in (self.rank, self.rank + 1))
        return Share(start, stop, images, (stop - start) / images, joint=True, ranks=self)

    def add_up_gradients(self, parameters: Iterable[Tensor], *values: Tensor) -> list[Tensor]:
        """Replace gradients by their sums over the parts, and return the sums of numbers, each ``()``.

        All parts have the gradients of the same parameters, since they run the same architectures.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        parts = [*gradients, *(value.to(gradients[0].dtype) for value in values)]
        sums = torch.cat([part.detach().flatten() for part in parts])
        self.add(sums)  # in one message, and every part gets the same bits
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


class _AddUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        total = x.clone()
        ranks.add(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        total = grad_outputs[0].clone()
        ctx.ranks.add(total)
        return total, None
