"""Who computes a neuron: plain torch, or kernels compiled from its equations."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spaces import InputError
from supernet.neurons import native
from supernet.neurons.equations import Constants, Equations, integrate
from supernet.neurons.kernels import Derivatives, Kernels, empty_sequence, one_timestep

EXECUTORS = ("auto", "reference", "native", "cupy")
"""``native`` runs compiled C on a CPU, ``cupy`` CUDA kernels; ``auto`` what fits the tensor's device."""


_DEVICES = {"native": "cpu", "cupy": "cuda"}


class FusedUnavailable(RuntimeWarning):
    """Compiled neurons cannot be had, so plain torch computes them: the same spikes, slower."""


def check_executor(executor: str) -> None:
    """Check that an executor exists and works on this machine.

    Raises:
        InputError: If it does not; ``auto`` and ``reference`` always do.
    """
    if executor not in EXECUTORS:
        raise InputError(f"executor must be one of {list(EXECUTORS)}, got {executor!r}")
    if executor in ("native", "cupy"):
        reason = _problem(executor)
        if reason is not None:
            raise InputError(f"executor {executor!r} cannot be used here: {reason}; or use executor 'auto'")


def choose_kernels(equations: Equations, device: torch.device, dtype: torch.dtype, executor: str) -> Kernels | None:
    """Return the kernels that an executor computes currents of a type with, or None for plain torch.

    Raises:
        InputError: If the executor was asked for by name and cannot work here.
    """
    if executor == "reference" or (executor == "auto" and device.type not in ("cpu", "cuda")):
        return None
    check_executor(executor)
    name = executor
    if executor == "auto":
        name = "cupy" if device.type == "cuda" else "native"
        if _problem(name) is not None:
            _notice(name)
            return None
    elif device.type != _DEVICES[name]:
        needed = "a GPU" if name == "cupy" else "the CPU"
        raise InputError(f"executor {name!r} computes on {needed}, got a tensor on {device}; use executor 'auto'")
    if name == "cupy":
        from supernet.neurons import cuda  # noqa: PLC0415  # loads CuPy

        return cuda.kernels(equations, dtype)
    return native.kernels(equations, dtype)


def _problem(name: str) -> str | None:
    if name == "native":
        return native.problem()
    from supernet.neurons import cuda  # noqa: PLC0415  # loads CuPy

    return cuda.problem()


@cache
def _notice(name: str) -> None:
    """Say once that there are no compiled neurons, and why."""
    warnings.warn(
        f"compiled neurons cannot be used: {_problem(name)}; plain torch computes them, several times slower",
        FusedUnavailable,
        stacklevel=2,
    )


def fire(x: Tensor, equations: Equations, constants: Constants, executor: str = "auto") -> Tensor:
    """Return the spikes of neurons.

    Args:
        x: Input currents ``(T, B, ...)``.
        equations: The neuron.
        constants: Values of its constants.
        executor: Row of ``EXECUTORS``.

    Returns:
        Spikes in {0, 1}, same shape and dtype as ``x``.

    Raises:
        InputError: If the executor was asked for by name and cannot work here.
    """
    kernels = choose_kernels(equations, x.device, x.dtype, executor) if x.numel() else None
    if kernels is None:
        return integrate(x, equations, constants)
    k = [constants[name] for name in equations.constants]
    learned = [value for value in k if isinstance(value, Tensor)]
    spikes: Tensor = _Fire.apply(x, kernels, k, *learned)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return spikes


def remember_learned(ctx: Any, constants: list[float | Tensor]) -> None:
    """Keep in ``ctx.k`` the constants of a call as numbers, and which are learned; one on a GPU is waited for."""
    ctx.k = [value.item() if isinstance(value, Tensor) else value for value in constants]
    ctx.where = [isinstance(value, Tensor) for value in constants]
    ctx.types = [value.dtype for value in constants if isinstance(value, Tensor)]


def learned_gradients(ctx: Any, found: Derivatives) -> list[Tensor | None]:
    """Return the derivatives by the learned constants of ``remember_learned``, or None for each if not computed."""
    if found.constants is None:
        return [None] * len(ctx.types)
    chosen = [value for value, learned in zip(found.constants.unbind(), ctx.where, strict=True) if learned]
    return [value.to(dtype) for value, dtype in zip(chosen, ctx.types, strict=True)]


class _Fire(torch.autograd.Function):
    """Spikes by compiled kernels. Only the currents are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Kernels, k: list[float | Tensor], *_: Tensor) -> Tensor:
        ctx.kernels = kernels
        remember_learned(ctx, k)
        dense = one_timestep(x.detach())
        ctx.save_for_backward(dense)
        ctx.timesteps = x.shape[0]
        spikes = kernels.forward(dense, x.shape[0], ctx.k, None, True, False, None).spikes
        assert spikes is not None
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        wanted = any(ctx.needs_input_grad[3:])
        found = ctx.kernels.backward(x, ctx.timesteps, ctx.k, None, grad_outputs[0], wanted)
        gx = found.x
        if gx.shape[0] != ctx.timesteps:  # one shared timestep: expand() of its caller adds up all of them
            whole = empty_sequence(gx, ctx.timesteps, gx.dtype).zero_()
            whole[0] = gx[0]
            gx = whole
        return gx, None, None, *learned_gradients(ctx, found)


__all__ = [
    "EXECUTORS",
    "FusedUnavailable",
    "check_executor",
    "choose_kernels",
    "fire",
    "learned_gradients",
    "remember_learned",
]
