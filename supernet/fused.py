"""Steps of training that keep for the backward pass only what it needs.

Spikes and sums of spikes are kept as bytes; the membrane and the normalised current are computed again instead of
being kept; attention keeps q, k and v alone. Values and gradients are those of the plain layers but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from supernet import products
from supernet.layers import EntangledBatchNorm
from supernet.native import compiler_problem, spikes
from supernet.neurons.executors import learned_gradients, remember_learned
from supernet.neurons.kernels import Affine, Kernels, arithmetic_type
from supernet.ranks import current_share

TRAINING_DENSITY = 0.45
"""Events per input below which an event-driven product is faster than a dense one, weights being packed each time."""

SMALL = 1 << 26
"""Synapses of a product below which packing does not pay."""


def product_type(x: Tensor) -> torch.dtype:
    """Return the type that products of ``x`` are computed in: autocast's, or its own."""
    kind = x.device.type
    if not x.is_meta and x.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def _apply(function: Any, *args: Any) -> Any:
    """Return what an autograd function gives; ``Any``, as torch leaves the types of ``apply`` open."""
    return function.apply(*args)


def linear(x: Tensor, weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the products of spikes with several weight matrices, side by side.

    Args:
        x: Small non-negative integers, ``(..., n_in)``.
        weights: Each ``(n_out, n_in)``; slices need not be contiguous.
        dtype: Type of the products.

    Returns:
        ``(..., sum of all n_out)``.
    """
    return cast(Tensor, _apply(_Linear, x, dtype, *weights))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, *weights: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        kept = rows.to(torch.uint8)
        ctx.save_for_backward(kept, *weights)
        ctx.dtype, ctx.x_type = dtype, x.dtype
        with torch.autocast(x.device.type, enabled=False):
            weight = _beside(weights)
            if _worth_events(kept, weight, dtype):
                y = spikes.spike_linear(kept, spikes.pack(weight))
            else:
                y = products.multiply(rows.to(dtype), weight.to(dtype))
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        saved, *weights = ctx.saved_tensors
        g = grad_outputs[0].reshape(len(saved), -1)
        gx: Tensor | None = None
        with torch.autocast(g.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                gx = products.multiply(g, _beside(weights).to(ctx.dtype).t())
                gx = gx.to(ctx.x_type).view(*grad_outputs[0].shape[:-1], -1)
            x = saved.to(ctx.dtype)
            parts = torch.split(g, [len(w) for w in weights], dim=1)
            gw = [products.multiply(part.t(), x.t()).to(w.dtype) for part, w in zip(parts, weights, strict=True)]
        return gx, None, *gw


def _beside(weights: Sequence[Tensor]) -> Tensor:
    """Return weight matrices of one input as one, without a copy if there is one."""
    return weights[0] if len(weights) == 1 else torch.cat(list(weights))


def _worth_events(x: Tensor, weight: Tensor, dtype: torch.dtype) -> bool:
    """Return whether an event-driven product of bytes ``(..., n_in)`` is faster, its weights being packed for it."""
    if x.device.type != "cpu" or dtype != torch.float32 or weight.dtype != dtype or compiler_problem() is not None:
        return False
    if x.numel() * len(weight) < SMALL:
        return False
    events = int(spikes.row_sums(x.view(-1, x.shape[-1]))[0].sum(dtype=torch.int64))
    return events <= TRAINING_DENSITY * x.numel()


def convolve(x: Tensor, weight: Tensor, padding: Sequence[int], dtype: torch.dtype, analog: bool) -> Tensor:
    """Return a convolution of stride 1, channels last in memory.

    Args:
        x: ``(T, B, c_in, H, W)``; small non-negative integers unless ``analog``.
        weight: ``(c_out, c_in, k, k)``.
        padding: Rows and columns of zeros.
        dtype: Type of the products.
        analog: Whether ``x`` holds any numbers, so that it is kept as it is.

    Returns:
        ``(T, B, H', W', c_out)``, contiguous.
    """
    return cast(Tensor, _apply(_Convolve, x, weight, padding, dtype, analog))


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, padding: Sequence[int], dtype: torch.dtype, analog: bool
    ) -> Tensor:
        images = x.flatten(0, 1)
        kept = images if analog else images.to(torch.uint8, memory_format=torch.channels_last)
        ctx.save_for_backward(kept, weight)
        ctx.padding, ctx.dtype, ctx.types, ctx.steps = padding, dtype, (x.dtype, weight.dtype), len(x)
        with torch.autocast(x.device.type, enabled=False):
            pixels = kept.permute(0, 2, 3, 1)
            same = weight.shape[-1] == weight.shape[-2] == 2 * padding[0] + 1 == 2 * padding[1] + 1
            if not analog and same and _worth_events(pixels, weight, dtype):
                y = spikes.spike_conv(pixels, spikes.pack(weight))
            else:
                y = products.convolve(images.to(dtype), weight.to(dtype), tuple(padding)).permute(0, 2, 3, 1)
        return split_steps(y, x.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        saved, weight = ctx.saved_tensors
        g = grad_outputs[0].flatten(0, 1).permute(0, 3, 1, 2)
        dtype = torch.float32 if products.by_float32(g) else ctx.dtype
        with torch.autocast(g.device.type, enabled=False):
            gx, gw, _ = torch.ops.aten.convolution_backward(
                _channels_last(g, dtype),
                _channels_last(saved, dtype),
                _channels_last(weight, dtype),
                None,
                [1, 1],
                list(ctx.padding),
                [1, 1],
                False,
                [0, 0],
                1,
                [ctx.needs_input_grad[0], True, False],
            )
        if gx is not None:
            gx = split_steps(gx.to(ctx.types[0]), ctx.steps)
        return gx, gw.to(ctx.types[1]), None, None, None


def split_steps(x: Tensor, timesteps: int) -> Tensor:
    """Return ``(T B, ...)`` as ``(T, B, ...)``."""
    return x.view(timesteps, -1, *x.shape[1:])


def _channels_last(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype=dtype, memory_format=torch.channels_last)


def norm_fire(
    y: Tensor,
    timesteps: int,
    norms: Sequence[EntangledBatchNorm],
    biases: Sequence[Tensor | None],
    kernels: Kernels,
    k: list[float | Tensor],
) -> Tensor:
    """Return the spikes of batch-normalised currents, and update the running statistics, as training does.

    Args:
        y: Products without bias, ``(T, ..., C)`` contiguous, or ``(1, ..., C)`` if all timesteps have the same.
        timesteps: Simulation length T.
        norms: Normalisations of consecutive parts of the channels, equally wide.
        biases: What the layers before would have added: it moves the running means, and nothing else.
        kernels: Compiled neuron.
        k: Constants of the neuron, in order.

    Returns:
        Spikes ``(T, ..., C)`` in the type of ``y``.
    """
    width = y.shape[-1] // len(norms)
    gamma, beta = (torch.cat([getattr(norm, name)[:width] for norm in norms]) for name in ("weight", "bias"))
    given = [bias for bias in biases if bias is not None]
    bias = torch.cat(given) if given else None
    learned = [value for value in k if isinstance(value, Tensor)]
    spikes, mean, variance = _apply(_NormFire, y, timesteps, gamma, beta, bias, norms[0].eps, kernels, k, *learned)
    share, count = current_share(), y[..., 0].numel()
    with torch.no_grad():
        for norm, own, var in zip(norms, mean.split(width), variance.split(width), strict=True):
            norm.update_statistics(own, var, count if share is None else share.of_batch(count))
    return cast(Tensor, spikes)


class _NormFire(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        timesteps: int,
        gamma: Tensor,
        beta: Tensor,
        bias: Tensor | None,
        eps: float,
        kernels: Kernels,
        k: list[float | Tensor],
        *_: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        flat = y.view(len(y), -1, y.shape[-1])
        mean, variance = kernels.moments(flat.flatten(0, 1))
        ctx.share = current_share()
        if ctx.share is not None:
            mean, variance = ctx.share.moments(mean, variance)
        scale = gamma.double() / (variance + eps).sqrt()
        ctx.kernels, ctx.timesteps, ctx.eps = kernels, timesteps, eps
        remember_learned(ctx, k)
        ctx.biased = bias is not None
        affine = _affine(y.dtype, scale, beta.double() - mean * scale, mean)
        ctx.save_for_backward(flat, gamma, beta, mean, variance)
        spikes = kernels.forward(flat, timesteps, ctx.k, affine, True, False, None).spikes
        assert spikes is not None
        running_mean = mean if bias is None else mean + bias
        ctx.mark_non_differentiable(running_mean, variance)
        return spikes.view(timesteps, *y.shape[1:]), running_mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        y, gamma, beta, mean, variance = ctx.saved_tensors
        deviation = (variance + ctx.eps).sqrt()
        scale = gamma.double() / deviation
        affine = _affine(y.dtype, scale, beta.double() - mean * scale, mean)
        g = grad_outputs[0].reshape(ctx.timesteps, *y.shape[1:])
        wanted = any(ctx.needs_input_grad[8:])
        found = ctx.kernels.backward(y, ctx.timesteps, ctx.k, affine, g, wanted)
        assert found.sums is not None
        total, product = found.sums
        means = found.sums / (y.shape[0] * y.shape[1])
        if ctx.share is not None:
            means = ctx.share.add_up(means * ctx.share.weight)
        real = arithmetic_type(y.dtype)
        vectors = (affine.centre, scale.to(real), means[0].to(real), (means[1] / deviation**2).to(real))
        gy = ctx.kernels.norm_backward(found.x.flatten(0, 1), y.flatten(0, 1), vectors)
        # What is added before a normalisation moves nothing behind it.
        no_bias = torch.zeros_like(gamma) if ctx.biased else None
        gamma_grad, beta_grad = (product / deviation).to(gamma.dtype), total.to(beta.dtype)
        shape = (len(y), *grad_outputs[0].shape[1:])
        return gy.view(shape), None, gamma_grad, beta_grad, no_bias, None, None, None, *learned_gradients(ctx, found)


def _affine(dtype: torch.dtype, scale: Tensor, shift: Tensor, centre: Tensor) -> Affine:
    real = arithmetic_type(dtype)
    return Affine(scale.to(real), shift.to(real), centre.to(real))


def attend(qkv: Tensor, num_heads: int, scale: float, kernels: Kernels, k: list[float | Tensor]) -> Tensor:
    """Return the spikes of neurons driven by q kᵀ v, q, k and v being spikes.

    Args:
        qkv: Spikes of q, k and v side by side, ``(T, B, N, 3 D)``.
        num_heads: Attention heads; divides D.
        scale: Factor of the currents.
        kernels: Compiled neuron.
        k: Constants of the neuron, in order.

    Returns:
        Spikes ``(T, B, N, D)``.
    """
    learned = [value for value in k if isinstance(value, Tensor)]
    return cast(Tensor, _apply(_Attend, qkv, num_heads, scale, kernels, k, *learned))


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        num_heads: int,
        scale: float,
        kernels: Kernels,
        k: list[float | Tensor],
        *_: Tensor,
    ) -> Tensor:
        ctx.kernels, ctx.heads, ctx.scale = kernels, num_heads, scale
        remember_learned(ctx, k)
        ctx.save_for_backward(qkv.to(torch.uint8))
        ctx.dtype = qkv.dtype
        q, k_, v = _heads(qkv, num_heads)
        current = _mix(q, k_, v, scale)
        spikes = kernels.forward(_rows(current), len(qkv), ctx.k, None, True, False, None).spikes
        assert spikes is not None
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (saved,) = ctx.saved_tensors
        q, k, v = _heads(saved.to(ctx.dtype), ctx.heads)
        current = _rows(_mix(q, k, v, ctx.scale))
        wanted = any(ctx.needs_input_grad[5:])
        found = ctx.kernels.backward(current, len(saved), ctx.k, None, grad_outputs[0], wanted)
        g = found.x.view(*found.x.shape[:3], ctx.heads, -1).transpose(2, 3) * ctx.scale
        if _by_features(q):  # q (kᵀ v)
            mixed = k.transpose(-2, -1) @ v
            gq, g_mixed = g @ mixed.transpose(-2, -1), q.transpose(-2, -1) @ g
            gk, gv = v @ g_mixed.transpose(-2, -1), k @ g_mixed
        else:  # (q kᵀ) v
            scores = q @ k.transpose(-2, -1)
            g_scores = g @ v.transpose(-2, -1)
            gq, gk, gv = g_scores @ k, g_scores.transpose(-2, -1) @ q, scores.transpose(-2, -1) @ g
        gqkv = torch.stack([gq, gk, gv], dim=3)  # (T, B, heads, 3, N, d)
        return gqkv.permute(0, 1, 4, 3, 2, 5).flatten(3), None, None, None, None, *learned_gradients(ctx, found)


def _heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and v, each ``(T, B, heads, N, d)`` contiguous, from ``(T, B, N, 3 D)``."""
    q, k, v = qkv.view(*qkv.shape[:3], 3, num_heads, -1).permute(3, 0, 1, 4, 2, 5).contiguous()
    return q, k, v


def _by_features(q: Tensor) -> bool:
    """Return whether q (kᵀ v) is cheaper than (q kᵀ) v; both are exact for spikes."""
    return q.shape[-1] < q.shape[-2]


def _mix(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    mixed = q @ (k.transpose(-2, -1) @ v) if _by_features(q) else (q @ k.transpose(-2, -1)) @ v
    return mixed * scale


def _rows(current: Tensor) -> Tensor:
    """Return ``(T, B, heads, N, d)`` as tokens ``(T, B, N, D)``."""
    return current.transpose(2, 3).flatten(3)


def max_pool(x: Tensor) -> Tensor:
    """Return the 3x3 max pooling of stride 2 of spikes ``(T, B, C, H, W)``, channels last in memory."""
    return cast(Tensor, _apply(_MaxPool, x))


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        images = x.flatten(0, 1)
        ctx.save_for_backward(images.to(torch.uint8))
        ctx.dtype, ctx.steps = x.dtype, len(x)
        return split_steps(F.max_pool2d(images, 3, 2, 1), ctx.steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        images = ctx.saved_tensors[0].to(ctx.dtype)
        _, indices = F.max_pool2d_with_indices(images, [3, 3], [2, 2], [1, 1])
        g = grad_outputs[0].flatten(0, 1).contiguous(memory_format=torch.channels_last)
        options = ([3, 3], [2, 2], [1, 1], [1, 1], False)
        gx: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(g, images, *options, indices)
        return split_steps(gx, ctx.steps)
