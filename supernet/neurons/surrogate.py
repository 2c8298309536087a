"""Heaviside step with a smooth derivative, so that spikes can be trained through [Neftci2019]_.

.. [Neftci2019] Neftci, Mostafa, Zenke, "Surrogate Gradient Learning in Spiking Neural Networks",
   IEEE Signal Processing Magazine 36(6), 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supernet.neurons.expressions import sigmoid

SIGMOID_ALPHA = 4.0
"""Slope of the sigmoid surrogate, as in the public Spikformer."""

ATAN_ALPHA = 2.0
"""Slope of the arctangent surrogate, as is usual."""


@dataclass(frozen=True)
class Surrogate:
    """Step H(x), 1 at 0 and above, whose derivative is that of a smooth function.

    Attributes:
        name: Row of ``SURROGATES``.
        derivative: Equation of the derivative, of ``u - v_threshold``.
    """

    name: str
    derivative: Callable[[Any], Any]

    def __call__(self, x: Tensor) -> Tensor:
        """Return spikes in {0, 1} of the shape and type of ``x``."""
        spikes: Tensor = _Step.apply(x, self.derivative)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return spikes


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, derivative: Callable[[Any], Any]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.derivative = derivative
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad_outputs[0] * ctx.derivative(x), None


def _sigmoid_derivative(x: Any) -> Any:
    p = sigmoid(SIGMOID_ALPHA * x)
    return SIGMOID_ALPHA * p * (1 - p)


def _atan_derivative(x: Any) -> Any:
    scaled = math.pi / 2 * ATAN_ALPHA * x
    return ATAN_ALPHA / 2 / (1 + scaled * scaled)


sigmoid_step = Surrogate("sigmoid", _sigmoid_derivative)
"""H(x) with derivative a p (1 - p), p = sigmoid(a x), a = 4."""

atan_step = Surrogate("atan", _atan_derivative)
"""H(x) with derivative (a/2) / (1 + (pi/2 a x)^2), a = 2."""

SURROGATES: dict[str, Surrogate] = {surrogate.name: surrogate for surrogate in (sigmoid_step, atan_step)}
