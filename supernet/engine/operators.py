"""What scoring does to spikes: two sets of the same operations, plain torch and compiled for the CPU.

Spikes and their sums are uint8, channels last: tokens ``(T, B, N, D)``, images ``(T, B, H, W, C)``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces import InputError
from supernet.engine.weights import Products
from supernet.native import compiler_problem, spikes
from supernet.native.spikes import Met
from supernet.neurons.equations import integrate
from supernet.neurons.executors import check_executor, choose_kernels
from supernet.neurons.kernels import Affine
from supernet.products import by_float32, convolve, fast_bfloat16, multiply
from supernet.spikformer import ATTENTION_SCALE

PRECISIONS = ("exact", "bf16", "int8")
"""``exact`` products are float32; ``bf16`` rounds weights to 8 bits of mantissa, ``int8`` to 255 levels."""

_DENSE_BFLOAT16 = 0.25
"""Events per input above which a dense bfloat16 product is faster than an event-driven one, where it is fast."""


class TorchOperators:
    """Operations in plain torch, on any device.

    Args:
        precision: Row of ``PRECISIONS``.
    """

    def __init__(self, precision: str) -> None:
        self.precision = precision

    def arrivals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return for each position ``(..., C)`` the sum and the number of values above 0, integers ``(...)``."""
        return self.sums(x), x.count_nonzero(dim=-1)

    def sums(self, x: Tensor) -> Tensor:
        """Return for each position ``(..., C)`` the sum, integers ``(...)``."""
        return x.sum(dim=-1, dtype=torch.int32)

    def by_timestep(self, x: Tensor) -> list[int]:
        """Return the sum of each timestep of ``(T, B, ...)``."""
        sums: list[int] = x.flatten(1).sum(dim=1, dtype=torch.int64).tolist()
        return sums

    def product(self, x: Tensor, events: int, products: Products, n_out: int) -> Tensor:
        """Return float32 currents ``(..., n_out)`` without bias; the spikes ``(..., n_in)`` sum to ``events``."""
        del events
        dtype = (
            torch.bfloat16
            if self.precision == "bf16" and not by_float32(x.new_empty(0, dtype=torch.bfloat16))
            else torch.float32
        )
        weight = products.weight[:n_out, : x.shape[-1]].to(dtype)
        if products.kernel == 1:
            flat = x.reshape(-1, x.shape[-1]).to(dtype)
            return multiply(flat, weight).float().view(*x.shape[:-1], n_out)
        images = x.flatten(0, -4).permute(0, 3, 1, 2).to(dtype)
        y = convolve(images, weight, (products.kernel // 2, products.kernel // 2)).float()
        return y.permute(0, 2, 3, 1).view(*x.shape[:-1], n_out)

    def fire(
        self, y: Tensor, timesteps: int, affine: Affine, products: Products, k: list[Any], addend: Tensor | None
    ) -> Tensor:
        """Return the spikes ``(T, ..., C)``, plus the addend if there is one.

        Args:
            y: Currents ``(T, ..., C)``, or ``(1, ..., C)`` if all timesteps have the same.
            timesteps: Simulation length T.
            affine: Normalisation, or one that changes nothing.
            products: Whose neuron fires.
            k: Constants of the neuron.
            addend: Bytes ``(T, ..., C)``.
        """
        return self._fire(y, timesteps, affine, products.neuron, k, addend)

    def _fire(
        self, y: Tensor, timesteps: int, affine: Affine | None, neuron: Any, k: list[Any], addend: Tensor | None
    ) -> Tensor:
        kernels = choose_kernels(neuron.equations, y.device, y.dtype, neuron.executor)
        if kernels is None:
            x = y if affine is None else y * affine.scale + affine.shift
            constants = dict(zip(neuron.equations.constants, k, strict=True))
            fired = integrate(x.expand(timesteps, *y.shape[1:]), neuron.equations, constants).to(torch.uint8)
            return fired if addend is None else fired + addend
        flat = y.reshape(len(y), -1, y.shape[-1])
        values = [value.item() if isinstance(value, Tensor) else value for value in k]
        more = None if addend is None else addend.view(timesteps, *flat.shape[1:])
        result = kernels.forward(flat, timesteps, values, affine, False, True, more)
        assert result.bytes is not None
        return result.bytes.view(timesteps, *y.shape[1:])

    def fire_attention(self, current: Tensor, neuron: Any, k: list[Any]) -> Tensor:
        """Return the spikes of currents ``(T, B, N, D)`` that no normalisation touches."""
        return self._fire(current, len(current), None, neuron, k, None)

    def pool(self, x: Tensor) -> Tensor:
        """Return the 3x3 maxima of stride 2 of images ``(T, B, H, W, C)``."""
        images = x.flatten(0, 1).permute(0, 3, 1, 2).float()
        pooled = F.max_pool2d(images, 3, 2, 1).to(torch.uint8).permute(0, 2, 3, 1)
        return pooled.contiguous().view(*x.shape[:2], *pooled.shape[1:])

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, count: bool) -> tuple[Tensor, Met | None]:
        """Return the currents q kᵀ v / 8 ``(T, B, N, D)`` and, if asked to count, what met in both products."""
        split = [part.float().view(*part.shape[:-1], heads, -1).transpose(-3, -2) for part in (q, k, v)]
        scores = split[0] @ split[1].transpose(-2, -1)
        mixed = scores @ split[2]
        current = (mixed * ATTENTION_SCALE).transpose(-3, -2).flatten(-2).contiguous()
        if not count:
            return current, None
        filled = scores != 0
        met = filled.sum(dim=-2).double() * split[2].sum(dim=-1)  # of each token's column of q kᵀ and row of v
        totals = [part.sum(dim=-1).sum(dtype=torch.float64) for part in (scores, mixed, met, filled)]
        return current, Met(*(int(total) for total in totals))

    def token_mean(self, x: Tensor) -> Tensor:
        """Return the mean ``(B, D)`` of ``(T, B, N, D)`` over timesteps and tokens."""
        return (x.sum(dim=(0, 2)).double() / (x.shape[0] * x.shape[2])).float()


class NativeOperators(TorchOperators):
    """The same operations compiled for the CPU: event-driven where spikes are sparse, dense above."""

    def arrivals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return for each position ``(..., C)`` the sum and the number of values above 0, integers ``(...)``."""
        sums, nonzero = spikes.row_sums(x.view(-1, x.shape[-1]))
        return sums.view(x.shape[:-1]), nonzero.view(x.shape[:-1])

    def sums(self, x: Tensor) -> Tensor:
        """Return for each position ``(..., C)`` the sum, integers ``(...)``."""
        return spikes.totals(x.view(-1, x.shape[-1])).view(x.shape[:-1])

    def by_timestep(self, x: Tensor) -> list[int]:
        """Return the sum of each timestep of ``(T, B, ...)``."""
        images = x.flatten(2)
        sums: list[int] = spikes.totals(images.flatten(0, 1)).view(images.shape[:2]).sum(dim=1).tolist()
        return sums

    def product(self, x: Tensor, events: int, products: Products, n_out: int) -> Tensor:
        """Return the currents ``(..., n_out)``; who computes them follows from the density of the spikes."""
        if events > self._break_even() * x.numel():
            return super().product(x, events, products, n_out)
        if products.kernel == 1:
            return spikes.spike_linear(x.view(-1, x.shape[-1]), products.packed, n_out).view(*x.shape[:-1], n_out)
        return spikes.spike_conv(x.flatten(0, -4), products.packed, n_out).view(*x.shape[:-1], n_out)

    def _break_even(self) -> float:
        if self.precision == "bf16" and fast_bfloat16():
            return _DENSE_BFLOAT16
        return spikes.BREAK_EVEN_DENSITY["int8" if self.precision == "int8" else "float32"]

    def pool(self, x: Tensor) -> Tensor:
        """Return the 3x3 maxima of stride 2 of images ``(T, B, H, W, C)``."""
        pooled = spikes.spike_max_pool(x.flatten(0, 1))
        return pooled.view(*x.shape[:2], *pooled.shape[1:])

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, count: bool) -> tuple[Tensor, Met | None]:
        """Return the currents q kᵀ v / 8 ``(T, B, N, D)`` and, if asked to count, what met in both products."""
        flat = [part.flatten(0, 1) for part in (q, k, v)]
        current, met = spikes.spike_attention(flat[0], flat[1], flat[2], heads, count)
        return current.view(q.shape), met

    def token_mean(self, x: Tensor) -> Tensor:
        """Return the mean ``(B, D)`` of ``(T, B, N, D)`` over timesteps and tokens."""
        return spikes.token_mean(x)


def exact_products(device: torch.device) -> AbstractContextManager[None]:
    """Return a block in which a GPU multiplies float32 as float32, and alike in every run."""
    if device.type != "cuda":
        return nullcontext()
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    return cast(AbstractContextManager[None], flags)


def choose_operators(device: torch.device, executor: str, precision: str) -> TorchOperators:
    """Return the operations for a device: compiled ones on a CPU whose compiler works, else plain torch.

    Raises:
        InputError: If a word is unknown, or an executor that was asked for by name cannot work here.
    """
    check_executor(executor)
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {list(PRECISIONS)}, got {precision!r}")
    if executor == "cupy" and device.type != "cuda":
        raise InputError(f"executor 'cupy' computes on a GPU, got a supernet on {device}; use executor 'auto'")
    if device.type == "cpu" and executor in ("auto", "native") and compiler_problem() is None:
        return NativeOperators(precision)
    return TorchOperators(precision)
