"""Integrate-and-fire neurons, each by its equations.

All neurons map a whole current sequence ``(T, B, ...)`` to a spike sequence of the same shape, start from zero
potential, and keep nothing between calls. The reset does not carry gradient (detached reset).

.. [Fang2021] Fang et al., "Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking
   Neural Networks", ICCV 2021.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from supernet.neurons.equations import Constants, Equations
from supernet.neurons.executors import choose_kernels, fire
from supernet.neurons.kernels import Kernels
from supernet.neurons.surrogate import Surrogate, sigmoid_step


def hard_reset(u: Any, s: Any, x: Any, state: Any, const: Any) -> tuple[Any, ...]:  # noqa: ARG001  # all have one signature
    """Return ``v = u (1 - s)``."""
    return (u * (1 - s),)


def soft_reset(u: Any, s: Any, x: Any, state: Any, const: Any) -> tuple[Any, ...]:  # noqa: ARG001  # all have one signature
    """Return ``v = u - s v_threshold``."""
    return (u - s * const.v_threshold,)


def leaky_charge(x: Any, state: Any, const: Any) -> Any:
    """Return ``u = v + (x - v) leak``."""
    return state.v + (x - state.v) * const.leak


def plain_charge(x: Any, state: Any, const: Any) -> Any:  # noqa: ARG001  # all have one signature
    """Return ``u = v + x``."""
    return state.v + x


class SpikingNeuron(nn.Module):
    """A neuron by its equations; subclasses give ``equations`` and the ``constants`` of a call.

    Args:
        equations: One timestep.
        executor: Who computes it, a row of ``supernet.neurons.executors.EXECUTORS``.

    Shape:
        Currents ``(T, B, ...)`` to spikes in {0, 1} of the same shape.
    """

    def __init__(self, equations: Equations, executor: str = "auto") -> None:
        super().__init__()
        self.equations = equations
        self.executor = executor

    def constants(self, v_threshold: float, tau: float) -> Constants:  # noqa: ARG002  # other neurons use tau
        """Return the equations' constants for a firing threshold and a time constant in timesteps."""
        return {"v_threshold": v_threshold}

    def constant_list(self, v_threshold: float, tau: float) -> list[float | Tensor]:
        """Return the constants in the order of the equations."""
        constants = self.constants(v_threshold, tau)
        return [constants[name] for name in self.equations.constants]

    def compiled(self, x: Tensor, dtype: torch.dtype) -> Kernels | None:
        """Return the compiled kernels for currents of a type on the device of ``x``, or None for plain torch."""
        return choose_kernels(self.equations, x.device, dtype, self.executor)

    def forward(self, x: Tensor, v_threshold: float = 1.0, tau: float = 2.0) -> Tensor:
        """Return the spikes for a firing threshold and a membrane time constant in timesteps, above 1."""
        return fire(x, self.equations, self.constants(v_threshold, tau), self.executor)


class LIF(SpikingNeuron):
    """Spikes of leaky integrate-and-fire neurons; no state survives a call.

    .. code-block:: text

        u[t] = v[t-1] + (x[t] - v[t-1]) (1 / tau)  charge
        s[t] = H(u[t] - v_threshold)               fire
        v[t] = u[t] (1 - s[t]),   v[0] = 0         hard reset, or u[t] - s[t] v_threshold when soft

    Args:
        surrogate: Heaviside step with a surrogate derivative.
        soft: Subtract the threshold at a spike instead of returning to zero.
        executor: Who computes it.
    """

    def __init__(self, surrogate: Surrogate = sigmoid_step, soft: bool = False, executor: str = "auto") -> None:
        reset = soft_reset if soft else hard_reset
        super().__init__(
            Equations(leaky_charge, reset, surrogate, constants=("v_threshold", "leak")),
            executor,
        )

    def constants(self, v_threshold: float, tau: float) -> Constants:
        """Return threshold and leak, ``1 / tau``."""
        return {"v_threshold": v_threshold, "leak": 1 / tau}


class PLIF(LIF):
    """Spikes of leaky neurons whose leak is learned [Fang2021]_.

    The charge is that of :class:`LIF` with ``1 / tau`` replaced by ``sigmoid(w + logit(1 / tau))``: ``tau`` says
    where learning starts, and ``w``, 0 at first, how far it has moved; a supernet shares ``w`` between the choices.
    """

    def __init__(self, surrogate: Surrogate = sigmoid_step, soft: bool = False, executor: str = "auto") -> None:
        super().__init__(surrogate, soft, executor)
        self.w = nn.Parameter(torch.zeros(()))

    def constants(self, v_threshold: float, tau: float) -> Constants:
        """Return threshold and learned leak."""
        leak = torch.sigmoid(self.w - math.log(tau - 1))  # logit(1/tau) = -log(tau - 1)
        return {"v_threshold": v_threshold, "leak": leak}


class IF(SpikingNeuron):
    """Spikes of integrate-and-fire neurons without leak: ``u[t] = v[t-1] + x[t]``; ``tau`` has no effect.

    Args:
        surrogate: Heaviside step with a surrogate derivative.
        soft: Subtract the threshold at a spike instead of returning to zero.
        executor: Who computes it.
    """

    def __init__(self, surrogate: Surrogate = sigmoid_step, soft: bool = False, executor: str = "auto") -> None:
        super().__init__(Equations(plain_charge, soft_reset if soft else hard_reset, surrogate), executor)
