"""Spiking neurons: one row per model, called as ``neuron(x, v_threshold, tau)``."""

from collections.abc import Callable
from functools import cache

import torch

from spaces import InputError, Skeleton
from spaces.resolve import resolve
from supernet.native import NativeError
from supernet.neurons import native
from supernet.neurons.equations import Equations, integrate, loop_body
from supernet.neurons.executors import EXECUTORS, FusedUnavailable, check_executor, fire
from supernet.neurons.lif import IF, LIF, PLIF, SpikingNeuron
from supernet.neurons.surrogate import SURROGATES, Surrogate, atan_step, sigmoid_step

NEURONS: dict[str, Callable[[Surrogate, bool, str], SpikingNeuron]] = {"lif": LIF, "plif": PLIF, "if": IF}


def build_neuron(skeleton: Skeleton, executor: str = "auto") -> SpikingNeuron:
    """Return a fresh neuron of the skeleton's model, surrogate and reset.

    Raises:
        InputError: If the skeleton names a neuron or surrogate that does not exist, or a neuron of the user's own
            that cannot be built or compiled.
    """
    name = skeleton.neuron
    build = resolve(NEURONS, name, "neuron")
    if skeleton.surrogate not in SURROGATES:
        raise InputError(f"surrogate must be one of {sorted(SURROGATES)}, got {skeleton.surrogate!r}")
    arguments = (SURROGATES[skeleton.surrogate], skeleton.soft_reset, executor)
    if name in NEURONS:
        return build(*arguments)
    try:
        neuron = build(*arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"a neuron is built as Name(surrogate, soft, executor), but {name!r}: {error}") from None
    _check(neuron, name)
    return neuron


def _check(neuron: SpikingNeuron, name: str) -> None:
    """Raise InputError if a user's neuron is not given by equations that compile, and constants for them."""
    if not isinstance(neuron, SpikingNeuron):
        raise InputError(f"a neuron is a supernet.neurons.SpikingNeuron, but {name!r} gives {neuron!r}")
    if type(neuron).forward is not SpikingNeuron.forward:
        raise InputError(f"a neuron is its equations, but {name!r} has a forward of its own, unknown to kernels")
    try:
        _loop_body(neuron.equations)
        missing = sorted(set(neuron.equations.constants) - set(neuron.constants(1.0, 2.0)))
    except (AttributeError, TypeError) as error:
        raise InputError(f"the equations of neuron {name!r} cannot be compiled: {error}") from None
    try:
        if native.problem() is None:
            native.kernels(neuron.equations, torch.float32)
    except NativeError as error:
        raise InputError(f"the equations of neuron {name!r} cannot be compiled: {error}") from None
    if missing:
        raise InputError(f"constants() must give every constant of the equations, but {name!r} lacks {missing}")


_loop_body = cache(loop_body)


__all__ = [
    "EXECUTORS",
    "IF",
    "LIF",
    "NEURONS",
    "PLIF",
    "SURROGATES",
    "Equations",
    "FusedUnavailable",
    "SpikingNeuron",
    "Surrogate",
    "atan_step",
    "build_neuron",
    "check_executor",
    "fire",
    "integrate",
    "sigmoid_step",
]
