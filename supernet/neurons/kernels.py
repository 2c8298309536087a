"""What every compiled executor of neurons offers, and how sequences lie in memory for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from supernet.neurons.equations import Equations


@dataclass(frozen=True)
class Affine:
    """A batch normalisation as the kernels see it: ``x * scale + shift`` enters the charge.

    Attributes:
        scale: Per channel, ``(C,)`` in the type of the arithmetic.
        shift: Per channel, ``(C,)``.
        centre: Per channel mean of x, which sums of the backward pass are taken around; ``(C,)``.
    """

    scale: Tensor
    shift: Tensor
    centre: Tensor


@dataclass(frozen=True)
class Fired:
    """Result of a forward pass.

    Attributes:
        spikes: Spikes in the type of the currents, plus the addend if there is one; None if not asked for.
        bytes: The same as uint8; None if not asked for.
        count: Spikes fired, without the addend.
    """

    spikes: Tensor | None
    bytes: Tensor | None
    count: int | Tensor


@dataclass(frozen=True)
class Derivatives:
    """Result of a backward pass.

    Attributes:
        x: Derivative by the currents; with an affine, by the scaled and shifted ones, in the arithmetic's type.
        sums: With an affine, per channel the sums of that derivative and of its product with ``x - centre``,
            ``(2, C)`` in float64.
        constants: Derivatives by the equations' constants, ``(n,)`` in float64; None if not asked for.
    """

    x: Tensor
    sums: Tensor | None
    constants: Tensor | None


class Kernels(Protocol):
    """Compiled executor of one neuron. Sequences are dense ``(T, M, C)``, T given, x perhaps one shared timestep."""

    def forward(
        self,
        x: Tensor,
        timesteps: int,
        k: list[float],
        affine: Affine | None,
        spikes: bool,
        as_bytes: bool,
        addend: Tensor | None,
    ) -> Fired:
        """Return the spikes of currents ``(T, M, C)`` or ``(1, M, C)``."""
        ...

    def backward(
        self, x: Tensor, timesteps: int, k: list[float], affine: Affine | None, g: Tensor, learned: bool
    ) -> Derivatives:
        """Return derivatives from those by the spikes ``(T, M, C)``, computing the potentials again."""
        ...

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance per channel of rows ``(R, C)``, ``(C,)`` in float64."""
        ...

    def norm_backward(self, g: Tensor, x: Tensor, vectors: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Return ``gain (g - offset - (x - mean) slope)`` for rows ``(R, C)``, in the type of x.

        Args:
            g: ``(R, C)`` in the type of the arithmetic.
            x: ``(R, C)``.
            vectors: mean, gain, offset and slope per channel, ``(C,)`` in the type of the arithmetic.
        """
        ...


class Builder(Protocol):
    """Makes the kernels of an executor."""

    def problem(self) -> str | None:
        """Return why the executor cannot work on this machine, or None if it can."""
        ...

    def kernels(self, equations: Equations, dtype: torch.dtype) -> Kernels:
        """Return the kernels of a neuron for currents of one type."""
        ...


def arithmetic_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type that potentials are computed in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def one_timestep(x: Tensor) -> Tensor:
    """Return a sequence in dense memory, as one timestep ``(1, ...)`` if all timesteps are the same memory."""
    shared = x.shape[0] > 1 and x.stride(0) == 0
    step = x[:1] if shared else x
    return step if is_dense(step) else step.contiguous()


def is_dense(x: Tensor) -> bool:
    """Return whether timesteps follow each other and each covers its memory without gaps, in whatever order."""
    if x.numel() == 0 or x.is_contiguous():
        return x.is_contiguous()
    if x.shape[0] > 1 and x.stride(0) != x[0].numel():
        return False
    order = sorted(range(1, x.dim()), key=x.stride, reverse=True)
    return x.permute(0, *order).is_contiguous()


def empty_sequence(like: Tensor, timesteps: int, dtype: torch.dtype) -> Tensor:
    """Return an empty sequence whose timesteps lie in memory as those of ``like``."""
    shape, strides = (timesteps, *like.shape[1:]), (like[0].numel(), *like.stride()[1:])
    return torch.empty_strided(shape, strides, dtype=dtype, device=like.device)


def in_layout_of(x: Tensor, like: Tensor) -> Tensor:
    """Return ``x`` with its timesteps in memory as those of ``like``; nothing is copied if they already are."""
    if x.stride()[1:] == like.stride()[1:] and (x.shape[0] == 1 or x.stride(0) == like[0].numel()):
        return x
    laid = empty_sequence(like, x.shape[0], x.dtype)
    laid.copy_(x)
    return laid
