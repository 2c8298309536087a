"""Energy of the synaptic operations that really happened, and spikes.

Figures for 45 nm and 32 bit [Horowitz2014]_: 4.6 pJ for a multiply-accumulate, 0.9 pJ for an accumulate.
Memory traffic, BatchNorm (folded into weights) and membrane updates are not counted.

.. [Horowitz2014] Horowitz, "Computing's Energy Problem (and What We Can Do About It)", ISSCC 2014.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from evaluators.base import Candidate, Sense
from evaluators.operations import OperationCounts

MAC_PJ = 4.6
"""Energy of a multiply-accumulate in picojoules."""

AC_PJ = 0.9
"""Energy of an accumulate in picojoules."""

PRIOR_FIRING_RATE = 0.2
"""Spikes per neuron and timestep that estimates assume before there is a network to count."""

_MJ_PER_PJ = 1e-9


def energy_mj(macs: float, accumulates: float) -> float:
    """Return the energy in millijoules of multiply-accumulates and accumulates."""
    return (MAC_PJ * macs + AC_PJ * accumulates) * _MJ_PER_PJ


def estimate_energy_mj(counts: OperationCounts) -> float:
    """Return the energy per image in millijoules if the prior rate held at every synapse and coincidence."""
    analog = counts.analog_macs_per_image
    return energy_mj(analog, PRIOR_FIRING_RATE * (counts.macs_per_image - analog))


@dataclass(frozen=True)
class Energy:
    """Millijoules per image: accumulates by value, multiply-accumulates of analog inputs."""

    metrics: ClassVar[Mapping[str, Sense]] = {"energy_mj": "min"}

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return ``energy_mj``."""
        counts = candidate.outcome.operations
        return {"energy_mj": energy_mj(counts.analog_macs_per_image, counts.accumulates_per_image)}


@dataclass(frozen=True)
class Spikes:
    """Spikes that all neurons of the network fire per image."""

    metrics: ClassVar[Mapping[str, Sense]] = {"spikes": "min"}

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return ``spikes``."""
        return {"spikes": candidate.outcome.operations.spikes_per_image}
