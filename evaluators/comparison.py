"""The honest comparison: a spiking network against a dense and a quantised one of the same shape.

After the critique of [Yan2024]_, the quantised network has activations of as many bits as a spike count over T
timesteps needs. Both run each layer once; formulas are in docs/energy.md.

.. [Yan2024] Yan, Bai, Tang and Wong, "Reconsidering the Energy Efficiency of Spiking Neural Networks Inference from
   Analytical Perspectives", arXiv 2409.08290.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluators.base import Candidate
from evaluators.energy import (
    MJ_PER_PJ,
    EnergyPart,
    UnderModel,
    counted,
    energy_parts,
    multiplied_and_accumulated,
    off_chip_pj,
)
from evaluators.energy_models import EnergyModel
from evaluators.operations import OperationCounts
from evaluators.senses import Sense


@dataclass(frozen=True)
class Comparison:
    """Energies per image of one shape under one model.

    Attributes:
        spiking_mj: Of the network that was counted, in millijoules.
        dense_mj: Of a dense network with activations as wide as the model's.
        quantised_mj: Of a dense network with activations of ``bits`` bits.
        bits: ``ceil(log2(T + 1))``.
        rate: Spikes per neuron and timestep that were counted.
        break_even_rate: The rate at which spiking and quantised network cost the same, all spikes thinned out alike
            and coincidences in proportion to them; 0 if the spiking network costs more even in silence, infinite if
            its spikes cost nothing, None if layers that integers reach multiply, whatever their rate.
    """

    spiking_mj: float
    dense_mj: float
    quantised_mj: float
    bits: int
    rate: float
    break_even_rate: float | None

    @property
    def qnn_ratio(self) -> float:
        """Energy over that of the quantised network; below 1 the spiking one saves energy.

        Raises:
            ArithmeticError: If the quantised network costs nothing.
        """
        if not self.quantised_mj:
            raise ArithmeticError(
                "there is no qnn_ratio: the quantised network costs nothing under this energy model"
            )
        return self.spiking_mj / self.quantised_mj


def spike_count_bits(timesteps: int) -> int:
    """Return the bits of a number in [0, T]."""
    return timesteps.bit_length()


def compare(counts: OperationCounts, model: EnergyModel) -> Comparison:
    """Return what a network costs beside a dense and a quantised one of its shape."""
    bits, parts = spike_count_bits(counts.timesteps), energy_parts(counts, model)
    full, quantised = sum(part.mj for part in parts), _dense_mj(counts, model, bits)
    rate = _break_even_rate(counts, model, parts, quantised)
    return Comparison(full, _dense_mj(counts, model, None), quantised, bits, counts.rate, rate)


def _break_even_rate(
    counts: OperationCounts, model: EnergyModel, parts: Sequence[EnergyPart], quantised: float
) -> float | None:
    """Return the rate at which the energy of the parts is that of the quantised network, see :class:`Comparison`."""
    for row in counts.layers.values():
        if counted(row, model) and not row.analog and multiplied_and_accumulated(row, model, counts.timesteps)[0]:
            return None
    driven = sum(part.mj for part in parts if _is_driven(part, counts))
    spare = quantised - sum(part.mj for part in parts if not _is_driven(part, counts))
    if driven == 0:
        return math.inf if spare >= 0 else 0.0
    return max(0.0, counts.rate * spare / driven)


def _is_driven(part: EnergyPart, counts: OperationCounts) -> bool:
    """Return whether a part of the energy is taken to be in proportion to the spikes."""
    if part.part == "weights":
        return not counts.layers[part.layer].analog
    return part.part in ("accumulate", "spike", "events")


def _dense_mj(counts: OperationCounts, model: EnergyModel, bits: int | None) -> float:
    """Return the energy per image of a network that runs each layer once, densely.

    Args:
        counts: Counts of the spiking network, for the shape.
        model: Energy model.
        bits: Of activations but those of analog layers; None for the width of the model's own operations.
    """
    operations, memory, off_chip = model.operations, model.memory, off_chip_pj(counts, model)
    quantised_mac = operations.mac if bits is None else min(operations.mac, bits * operations.accumulate)
    total = 0.0
    for row in counts.layers.values():
        if not counted(row, model) or not row.macs:
            continue
        runs = 1 if row.analog else counts.timesteps
        total += row.macs / runs * (operations.mac if row.analog else quantised_mac)
        if memory is None:
            continue
        if row.weights:
            total += row.macs / runs / memory.dense_reuse * memory.weights.pj
            total += row.weights * off_chip * counts.images
        activation = memory.activations
        width = activation.bytes if bits is None or row.analog else min(activation.bytes, bits / 8)
        total += (row.inputs + row.outputs) / runs * width * activation.pj_per_byte
    return total * MJ_PER_PJ / counts.images


@dataclass(frozen=True)
class QnnRatio(UnderModel):
    """Energy over that of the quantised network of the same shape; below 1 the spiking one saves energy."""

    @property
    def metrics(self) -> Mapping[str, Sense]:
        """``qnn_ratio``, or ``qnn_ratio:MODEL``."""
        return {self._metric("qnn_ratio"): "min"}

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return the ratio."""
        return {self._metric("qnn_ratio"): compare(candidate.outcome.operations, self.energy_model).qnn_ratio}
