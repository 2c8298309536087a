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

    def totals(self, x: Tensor) -> Tensor:
        """Return the sum of each position ``(..., C)`` as integers ``(...)``."""
        return x.sum(dim=-1, dtype=torch.int32)

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
    ) -> tuple[Tensor, int]:
        """Return the spikes ``(T, ..., C)``, plus the addend if there is one, and how many fired.

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
    ) -> tuple[Tensor, int]:
        kernels = choose_kernels(neuron.equations, y.device, y.dtype, neuron.executor)
        if kernels is None:
            x = y if affine is None else y * affine.scale + affine.shift
            constants = dict(zip(neuron.equations.constants, k, strict=True))
            fired = integrate(x.expand(timesteps, *y.shape[1:]), neuron.equations, constants).to(torch.uint8)
            return fired if addend is None else fired + addend, int(fired.sum())
        flat = y.reshape(len(y), -1, y.shape[-1])
        values = [value.item() if isinstance(value, Tensor) else value for value in k]
        more = None if addend is None else addend.view(timesteps, *flat.shape[1:])
        result = kernels.forward(flat, timesteps, values, affine, False, True, more)
        assert result.bytes is not None
        return result.bytes.view(timesteps, *y.shape[1:]), int(result.count)

    def fire_attention(self, current: Tensor, neuron: Any, k: list[Any]) -> tuple[Tensor, int]:
        """Return the spikes of currents ``(T, B, N, D)`` that no normalisation touches, and how many fired."""
        return self._fire(current, len(current), None, neuron, k, None)

    def pool(self, x: Tensor) -> Tensor:
        """Return the 3x3 maxima of stride 2 of images ``(T, B, H, W, C)``."""
        images = x.flatten(0, 1).permute(0, 3, 1, 2).float()
        pooled = F.max_pool2d(images, 3, 2, 1).to(torch.uint8).permute(0, 2, 3, 1)
        return pooled.contiguous().view(*x.shape[:2], *pooled.shape[1:])

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, int, int]:
        """Return the currents q kᵀ v / 8 ``(T, B, N, D)``, and the sums of all entries of q kᵀ and of q kᵀ v."""
        split = [part.float().view(*part.shape[:-1], heads, -1).transpose(-3, -2) for part in (q, k, v)]
        scores = split[0] @ split[1].transpose(-2, -1)
        mixed = scores @ split[2]
        totals = [int(part.sum(dim=-1).sum(dtype=torch.float64)) for part in (scores, mixed)]
        return (mixed * ATTENTION_SCALE).transpose(-3, -2).flatten(-2).contiguous(), totals[0], totals[1]

    def token_mean(self, x: Tensor) -> Tensor:
        """Return the mean ``(B, D)`` of ``(T, B, N, D)`` over timesteps and tokens."""
        return (x.sum(dim=(0, 2)).double() / (x.shape[0] * x.shape[2])).float()


class NativeOperators(TorchOperators):
    """The same operations compiled for the CPU: event-driven where spikes are sparse, dense above."""

    def totals(self, x: Tensor) -> Tensor:
        """Return the sum of each position ``(..., C)`` as integers ``(...)``."""
        return spikes.row_sums(x.view(-1, x.shape[-1]))[0].view(x.shape[:-1])

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

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, int, int]:
        """Return the currents q kᵀ v / 8 ``(T, B, N, D)``, and the sums of all entries of q kᵀ and of q kᵀ v."""
        flat = [part.flatten(0, 1) for part in (q, k, v)]
        current, scores, mixed = spikes.spike_attention(flat[0], flat[1], flat[2], heads)
        return current.view(q.shape), scores, mixed

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
