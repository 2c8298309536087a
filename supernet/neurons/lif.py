"""Integrate-and-fire neurons in plain torch: the meaning that every faster executor must reproduce.

All neurons map a whole current sequence ``(T, B, ...)`` to a spike sequence of the same shape, start from zero
potential, and keep nothing between calls. The reset does not carry gradient (detached reset).

.. [Fang2021] Fang et al., "Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking
   Neural Networks", ICCV 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from supernet.neurons.surrogate import Surrogate, sigmoid_step


def integrate(
    x: Tensor,
    charge: Callable[[Tensor, Tensor], Tensor],
    v_threshold: float,
    surrogate: Surrogate,
    soft_reset: bool,
) -> Tensor:
    """Return the spikes of neurons that charge, fire at or above the threshold, and reset.

    Args:
        x: Input currents ``(T, B, ...)``.
        charge: Maps potential ``v[t-1]`` and current ``x[t]``, both ``(B, ...)``, to the charged ``u[t]``.
        v_threshold: Potential at which a neuron fires, above 0.
        surrogate: Heaviside step with a surrogate derivative.
        soft_reset: Subtract the threshold at a spike instead of returning to zero.

    Returns:
        Spikes in {0, 1}, same shape and dtype as ``x``; potentials are computed in float32 or wider.
    """
    currents = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    v = torch.zeros_like(currents[0])
    spikes = []
    for current in currents:
        u = charge(v, current)
        s = surrogate(u - v_threshold)
        fired = s.detach()
        v = u - fired * v_threshold if soft_reset else u * (1 - fired)
        spikes.append(s)
    return torch.stack(spikes).to(x.dtype)


class LIF(nn.Module):
    """Spikes of leaky integrate-and-fire neurons; no state survives a call.

    .. code-block:: text

        u[t] = v[t-1] + (x[t] - v[t-1]) / tau      charge
        s[t] = H(u[t] - v_threshold)               fire
        v[t] = u[t] (1 - s[t]),   v[0] = 0         hard reset, or u[t] - s[t] v_threshold when soft

    Args:
        surrogate: Heaviside step with a surrogate derivative.
        soft_reset: Subtract the threshold at a spike instead of returning to zero.

    Shape:
        Currents ``(T, B, ...)`` to spikes in {0, 1} of the same shape.
    """

    def __init__(self, surrogate: Surrogate = sigmoid_step, soft_reset: bool = False) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.soft_reset = soft_reset

    def forward(self, x: Tensor, v_threshold: float = 1.0, tau: float = 2.0) -> Tensor:
        """Return the spikes for a firing threshold and a membrane time constant in timesteps, above 1."""
        return integrate(x, lambda v, i: v + (i - v) / tau, v_threshold, self.surrogate, self.soft_reset)


class PLIF(nn.Module):
    """Spikes of leaky neurons whose leak is learned [Fang2021]_.

    The charge is that of :class:`LIF` with ``1 / tau`` replaced by ``sigmoid(w + logit(1 / tau))``: ``tau`` says
    where learning starts, and ``w``, 0 at first, how far it has moved; a supernet shares ``w`` between the choices.

    Args:
        surrogate: Heaviside step with a surrogate derivative.
        soft_reset: Subtract the threshold at a spike instead of returning to zero.

    Shape:
        Currents ``(T, B, ...)`` to spikes in {0, 1} of the same shape.
    """

    def __init__(self, surrogate: Surrogate = sigmoid_step, soft_reset: bool = False) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.soft_reset = soft_reset
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, v_threshold: float = 1.0, tau: float = 2.0) -> Tensor:
        """Return the spikes for a firing threshold and the initial membrane time constant, above 1."""
        leak = torch.sigmoid(self.w - math.log(tau - 1))  # logit(1/tau) = -log(tau - 1)
        return integrate(x, lambda v, i: v + (i - v) * leak, v_threshold, self.surrogate, self.soft_reset)


class IF(nn.Module):
    """Spikes of integrate-and-fire neurons without leak: ``u[t] = v[t-1] + x[t]``.

    Args:
        surrogate: Heaviside step with a surrogate derivative.
        soft_reset: Subtract the threshold at a spike instead of returning to zero.

    Shape:
        Currents ``(T, B, ...)`` to spikes in {0, 1} of the same shape.
    """

    def __init__(self, surrogate: Surrogate = sigmoid_step, soft_reset: bool = False) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.soft_reset = soft_reset

    def forward(self, x: Tensor, v_threshold: float = 1.0, tau: float = 2.0) -> Tensor:  # noqa: ARG002
        """Return the spikes for a firing threshold; ``tau`` is taken and has no effect."""
        return integrate(x, lambda v, i: v + i, v_threshold, self.surrogate, self.soft_reset)
