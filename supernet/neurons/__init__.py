"""Spiking neurons: one row per model, called as ``neuron(x, v_threshold, tau)``."""

from collections.abc import Callable

from spaces import InputError, Skeleton
from supernet.neurons.equations import Equations, integrate
from supernet.neurons.executors import EXECUTORS, FusedUnavailable, check_executor, fire
from supernet.neurons.lif import IF, LIF, PLIF, SpikingNeuron
from supernet.neurons.surrogate import SURROGATES, Surrogate, atan_step, sigmoid_step

NEURONS: dict[str, Callable[[Surrogate, bool, str], SpikingNeuron]] = {"lif": LIF, "plif": PLIF, "if": IF}


def build_neuron(skeleton: Skeleton, executor: str = "auto") -> SpikingNeuron:
    """Return a fresh neuron of the skeleton's model, surrogate and reset.

    Raises:
        InputError: If the skeleton names a neuron or surrogate that does not exist.
    """
    if skeleton.neuron not in NEURONS:
        raise InputError(f"neuron must be one of {sorted(NEURONS)}, got {skeleton.neuron!r}")
    if skeleton.surrogate not in SURROGATES:
        raise InputError(f"surrogate must be one of {sorted(SURROGATES)}, got {skeleton.surrogate!r}")
    return NEURONS[skeleton.neuron](SURROGATES[skeleton.surrogate], skeleton.soft_reset, executor)


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
