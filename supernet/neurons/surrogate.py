"""Heaviside step with a smooth derivative, so that spikes can be trained through [Neftci2019]_.

.. [Neftci2019] Neftci, Mostafa, Zenke, "Surrogate Gradient Learning in Spiking Neural Networks",
   IEEE Signal Processing Magazine 36(6), 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Surrogate = Callable[[Tensor], Tensor]
"""Maps ``u - v_threshold`` to spikes in {0, 1}, with a surrogate derivative."""

SIGMOID_ALPHA = 4.0
"""Slope of the sigmoid surrogate, as in the public Spikformer."""

ATAN_ALPHA = 2.0
"""Slope of the arctangent surrogate, as is usual."""


class _SigmoidStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        p = torch.sigmoid(SIGMOID_ALPHA * x)
        return grad_outputs[0] * (SIGMOID_ALPHA * p * (1 - p))


class _AtanStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        scaled: Tensor = math.pi / 2 * ATAN_ALPHA * x
        return grad_outputs[0] * (ATAN_ALPHA / 2 / (1 + scaled * scaled))


def sigmoid_step(x: Tensor) -> Tensor:
    """Return H(x), 1 at 0 and above, with derivative a p (1 - p), p = sigmoid(a x), a = 4."""
    spikes: Tensor = _SigmoidStep.apply(x)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return spikes


def atan_step(x: Tensor) -> Tensor:
    """Return H(x), 1 at 0 and above, with derivative (a/2) / (1 + (pi/2 a x)^2), a = 2."""
    spikes: Tensor = _AtanStep.apply(x)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return spikes


SURROGATES: dict[str, Surrogate] = {"sigmoid": sigmoid_step, "atan": atan_step}
