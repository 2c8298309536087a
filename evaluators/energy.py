"""Energy of what really happened, under any energy model, and spikes.

Formulas and units are in docs/energy.md. BatchNorm (folded into weights) and biases are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from evaluators.base import Candidate
from evaluators.energy_models import DEFAULT_MODEL, EnergyModel, load_energy_model
from evaluators.operations import OperationCounts
from evaluators.senses import Sense
from supernet.engine import LayerOperations

PRIOR_FIRING_RATE = 0.2
"""Spikes per neuron and timestep that estimates assume before there is a network to count."""

MJ_PER_PJ = 1e-9


@dataclass(frozen=True)
class EnergyPart:
    """One line of a breakdown.

    Attributes:
        layer: Name in the network of a layer, or of the neurons behind it.
        kind: ``convolution``, ``linear``, ``product`` or ``neuron``.
        part: What the energy is spent on: ``mac``, ``accumulate``, ``neuron``, ``spike``, or the traffic of
            ``weights``, ``weights off chip``, ``events``, ``membrane`` or ``activations``.
        mj: Millijoules per image.
    """

    layer: str
    kind: str
    part: str
    mj: float


def energy_parts(counts: OperationCounts, model: EnergyModel) -> list[EnergyPart]:
    """Return the energy per image by layer and by what it is spent on; parts that cost nothing are left out."""
    scale = MJ_PER_PJ / counts.images
    return [
        EnergyPart(layer, kind, part, pj * scale)
        for layer, kind, part, pj in (*_layer_parts(counts, model), *_neuron_parts(counts, model))
        if pj
    ]


def energy_mj(counts: OperationCounts, model: EnergyModel) -> float:
    """Return the energy per image in millijoules."""
    return sum(part.mj for part in energy_parts(counts, model))


def counted(row: LayerOperations, model: EnergyModel) -> bool:
    """Return whether a model counts a layer."""
    return row.kind in model.counting.layers or (row.analog and "analog" in model.counting.layers)


def multiplied_and_accumulated(row: LayerOperations, model: EnergyModel, timesteps: int) -> tuple[float, float]:
    """Return the multiply-accumulates and accumulates of a layer that is counted, over all images."""
    rules = model.counting
    if row.analog:
        repeated = rules.analog == "every timestep" and row.kind == "convolution"
        return float(row.macs * (timesteps if repeated else 1)), 0.0
    if rules.integers == "mac" and row.kind != "product" and not row.binary:
        return float(row.macs), 0.0
    if rules.fan_out == "average" and row.kind != "product":
        return 0.0, row.events * row.macs / max(row.inputs, 1)
    return 0.0, row.accumulates if rules.integers == "value" else row.nonzero


def off_chip_pj(counts: OperationCounts, model: EnergyModel) -> float:
    """Return the picojoules per image and weight of what does not fit on the chip, each weight sharing alike."""
    if model.memory is None:
        return 0.0
    each = model.memory.weights.bytes
    needed = each * sum(row.weights for row in counts.layers.values() if counted(row, model))
    share = max(0.0, 1 - model.memory.on_chip_bytes / needed) if needed else 0.0
    return share * each * model.memory.off_chip_pj_per_byte


def _layer_parts(counts: OperationCounts, model: EnergyModel) -> Iterator[tuple[str, str, str, float]]:
    """Yield layer, kind, part and picojoules over all images of the layers."""
    operations, memory, off_chip = model.operations, model.memory, off_chip_pj(counts, model)
    for name, row in counts.layers.items():
        if not counted(row, model):
            continue
        macs, accumulates = multiplied_and_accumulated(row, model, counts.timesteps)
        yield name, row.kind, "mac", macs * operations.mac
        yield name, row.kind, "accumulate", accumulates * operations.accumulate
        if memory is None:
            continue
        if row.weights and row.macs:
            yield name, row.kind, "weights", (macs + accumulates) * memory.weights.pj
            yield name, row.kind, "weights off chip", row.weights * off_chip * counts.images
        yield name, row.kind, "events", row.events * memory.spikes.pj
        if row.analog:
            yield name, row.kind, "activations", (row.inputs + row.outputs) * memory.activations.pj


def _neuron_parts(counts: OperationCounts, model: EnergyModel) -> Iterator[tuple[str, str, str, float]]:
    """Yield layer, kind, part and picojoules over all images of the neurons."""
    for name, row in counts.neurons.items():
        yield name, "neuron", "neuron", row.updates * model.operations.neuron
        yield name, "neuron", "spike", row.fired * model.operations.spike
        if model.memory is not None:
            yield name, "neuron", "membrane", 2 * row.updates * model.memory.membrane.pj
            yield name, "neuron", "events", row.fired * model.memory.spikes.pj


def estimate_energy_mj(counts: OperationCounts) -> float:
    """Return the default energy per image in millijoules if the prior rate held at every synapse and coincidence."""
    operations = load_energy_model(DEFAULT_MODEL).operations
    analog = counts.analog_macs_per_image
    accumulates = PRIOR_FIRING_RATE * (counts.macs_per_image - analog)
    return (operations.mac * analog + operations.accumulate * accumulates) * MJ_PER_PJ


@dataclass(frozen=True)
class UnderModel:
    """What evaluators under an energy model share: the model, and its name in that of the metric.

    Args:
        model: A model, a row of ``energy_model_names()``, or the path of a ``.toml`` file, which is read once; the
            default model, which adds nothing to the metric's name, if there is none.
    """

    model: str | EnergyModel | None = None
    energy_model: EnergyModel = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = self.model
        found = given if isinstance(given, EnergyModel) else load_energy_model(given or DEFAULT_MODEL)
        object.__setattr__(self, "energy_model", found)

    def _metric(self, metric: str) -> str:
        return metric if self.model is None else f"{metric}:{self.energy_model.name}"


@dataclass(frozen=True)
class Energy(UnderModel):
    """Millijoules per image under an energy model."""

    @property
    def metrics(self) -> Mapping[str, Sense]:
        """``energy_mj``, or ``energy_mj:MODEL``."""
        return {self._metric("energy_mj"): "min"}

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return the energy."""
        return {self._metric("energy_mj"): energy_mj(candidate.outcome.operations, self.energy_model)}


@dataclass(frozen=True)
class Spikes:
    """Spikes that all neurons of the network fire per image."""

    metrics: ClassVar[Mapping[str, Sense]] = {"spikes": "min"}

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return ``spikes``."""
        return {"spikes": candidate.outcome.operations.spikes_per_image}
