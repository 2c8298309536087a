"""Neurons on the CPU, by the host's C compiler."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from supernet.native import build, compiler_problem
from supernet.native.threads import split
from supernet.neurons.equations import Equations
from supernet.neurons.generate import CPU_TYPES, cpu_source
from supernet.neurons.kernels import Affine, Derivatives, Fired, arithmetic_type, empty_sequence, in_layout_of

_NAMES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
_ROWS = 64
"""Rows of a block, whose sums are taken in the type of the arithmetic; blocks are added in double."""

_PIVOT_ROWS = 64
"""About how many rows the pivot of a variance is the mean of."""

_ELEMENTS = 1 << 15
"""Elements of a block where there are no channels."""

_LEAST = 1 << 12
"""Fewest neurons worth a thread of their own."""


def problem() -> str | None:
    """Return why neurons cannot be compiled on this machine, or None if they can."""
    return compiler_problem()


@cache
def kernels(equations: Equations, dtype: torch.dtype) -> NativeKernels:
    """Return the compiled kernels of a neuron.

    Raises:
        NativeError: If they cannot be built.
        TypeError: If an equation is not arithmetic.
    """
    return NativeKernels(equations, dtype)


class NativeKernels:
    """Compiled kernels of one neuron for currents of one type; see :class:`supernet.neurons.kernels.Kernels`.

    Args:
        equations: The neuron.
        dtype: float32, float64 or bfloat16; float16 goes through float32.
    """

    def __init__(self, equations: Equations, dtype: torch.dtype) -> None:
        self._n_constants = len(equations.constants)
        self._half = dtype == torch.float16
        self._dtype = torch.float32 if self._half else dtype
        if self._dtype not in _NAMES:
            raise ValueError(f"currents must be {sorted(CPU_TYPES)} or float16, got {dtype}")
        library = build(cpu_source(equations, _NAMES[self._dtype]))
        self._forward: Callable[..., int] = library.neuron_forward
        self._forward.restype = ctypes.c_int64
        self._backward: Callable[..., int] = library.neuron_backward
        self._channel_sums: Callable[..., None] = library.channel_sums
        self._norm_backward: Callable[..., None] = library.norm_backward

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
        x = self._stored(x)
        addend = None if addend is None else in_layout_of(addend, x)
        out = empty_sequence(x, timesteps, x.dtype) if spikes else None
        out_bytes = empty_sequence(x, timesteps, torch.uint8) if as_bytes else None
        size, channels = _sizes(x, affine)
        constants = _doubles(k)
        fixed = (
            _address(x),
            _i64(size if x.shape[0] > 1 or timesteps == 1 else 0),
            *_scale_and_shift(affine),
            constants,
            *(_address(tensor) for tensor in (out, out_bytes, addend)),
            *map(_i64, (timesteps, size, channels)),
        )
        unit = channels if affine else 1
        counts: list[int] = []
        split(
            lambda lo, hi: counts.append(self._forward(*fixed, _i64(lo * unit), _i64(hi * unit))),
            size // unit,
            _LEAST // unit,
        )
        if self._half and out is not None:
            out = out.half()
        return Fired(out, out_bytes, sum(counts))

    def backward(
        self, x: Tensor, timesteps: int, k: list[float], affine: Affine | None, g: Tensor, learned: bool
    ) -> Derivatives:
        """Return derivatives from those by the spikes ``(T, M, C)``, computing the potentials again."""
        x = self._stored(x)
        g = in_layout_of(self._stored(g), x)
        size, channels = _sizes(x, affine)
        block = _ROWS * channels if affine else _ELEMENTS
        blocks = -(-size // block)
        gx = empty_sequence(x, x.shape[0], arithmetic_type(x.dtype) if affine else x.dtype)
        partial = torch.zeros(blocks, 2, channels, dtype=torch.float64) if affine else None
        by_constant = torch.zeros(blocks, self._n_constants, dtype=torch.float64) if learned else None
        fixed = (
            _address(x),
            _i64(size if x.shape[0] > 1 or timesteps == 1 else 0),
            *_scale_and_shift(affine),
            _address(affine.centre if affine else None),
            _doubles(k),
            *(_address(tensor) for tensor in (g, gx, partial, by_constant)),
            *map(_i64, (timesteps, size, channels, block)),
        )
        failures: list[int] = []
        split(lambda first, last: failures.append(self._backward(*fixed, _i64(first), _i64(last))), blocks)
        if any(failures):
            raise MemoryError("no memory for the potentials of a neuron's backward pass")
        return Derivatives(
            gx.half() if self._half and not affine else gx,
            None if partial is None else partial.sum(dim=0),
            None if by_constant is None else by_constant.sum(dim=0),
        )

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance per channel of rows ``(R, C)``, ``(C,)`` in float64."""
        x = self._stored(x)
        rows, channels = x.shape
        blocks = -(-rows // _ROWS)
        partial = torch.empty(blocks, 2, channels, dtype=torch.float64)
        # Near the mean, so that squares do not cancel: rows from all over the batch.
        pivot = x[:: max(1, rows // _PIVOT_ROWS)].to(arithmetic_type(x.dtype)).mean(dim=0)
        fixed = (_address(x), _address(pivot), _address(partial), *map(_i64, (rows, channels, _ROWS)))
        split(lambda first, last: self._channel_sums(*fixed, _i64(first), _i64(last)), blocks)
        around = partial.sum(dim=0) / rows
        return pivot.double() + around[0], (around[1] - around[0] ** 2).clamp_(min=0)

    def norm_backward(self, g: Tensor, x: Tensor, vectors: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Return ``gain (g - offset - (x - mean) slope)`` for rows ``(R, C)``, in the type of x."""
        half, x = x.dtype, self._stored(x)
        gx = torch.empty_like(x)
        fixed = (*(_address(tensor) for tensor in (g, x, gx, *vectors)), _i64(x.shape[1]))
        split(lambda lo, hi: self._norm_backward(*fixed, _i64(lo), _i64(hi)), len(x), _ROWS)
        return gx.to(half)

    def _stored(self, x: Tensor) -> Tensor:
        return x.to(self._dtype) if x.dtype != self._dtype else x


def _sizes(x: Tensor, affine: Affine | None) -> tuple[int, int]:
    """Return the elements of a timestep and its channels; without an affine all are one row."""
    size = x[0].numel()
    return size, (x.shape[-1] if affine else max(size, 1))


def _scale_and_shift(affine: Affine | None) -> tuple[Any, Any]:
    return (_address(affine.scale), _address(affine.shift)) if affine else (None, None)


def _address(tensor: Tensor | None) -> Any:
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


def _doubles(values: Sequence[float]) -> Any:
    return (ctypes.c_double * max(len(values), 1))(*values)


_i64 = ctypes.c_int64
