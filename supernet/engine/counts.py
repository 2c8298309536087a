"""What happens in a network while it runs, counted by layer and by neuron layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class LayerOperations:
    """Operations of one layer, summed over the images seen.

    Attributes:
        kind: ``convolution``, ``linear`` or ``product``.
        analog: Whether the input is analog, so that every synapse multiplies.
        macs: Multiply-accumulates of the same layer in a dense network, padding included; an analog layer runs
            once per image, the others once per timestep.
        accumulates: Accumulates by value: arriving integers times their true fan-out, or coincident spikes of a
            product. 0 for analog layers.
        nonzero: The same with every arriving integer taken as one; for a product, where two non-zero values meet.
        inputs: Values that arrive, zeros included; both operands of a product.
        events: Those that are not zero; 0 for analog layers.
        outputs: Values that leave.
        weights: Weights of the layer, which images and timesteps share; 0 for a product.
    """

    kind: str
    analog: bool = False
    macs: int = 0
    accumulates: float = 0.0
    nonzero: float = 0.0
    inputs: int = 0
    events: int = 0
    outputs: int = 0
    weights: int = 0

    @property
    def binary(self) -> bool:
        """Whether nothing above 1 has met a synapse: then both counts of accumulates are the same."""
        return not self.analog and self.accumulates == self.nonzero

    def add(self, other: LayerOperations) -> None:
        """Add what another call of the same layer did."""
        self.macs += other.macs
        self.accumulates += other.accumulates
        self.nonzero += other.nonzero
        self.inputs += other.inputs
        self.events += other.events
        self.outputs += other.outputs
        self.weights = other.weights


@dataclass
class NeuronOperations:
    """What the neurons of one layer did, summed over the images seen.

    Attributes:
        updates: Neurons times timesteps.
        spikes: Spikes fired at each timestep.
    """

    updates: int = 0
    spikes: tuple[int, ...] = ()

    @property
    def timesteps(self) -> int:
        """Simulation length T; 0 if the neurons have not run."""
        return len(self.spikes)

    @property
    def fired(self) -> int:
        """Spikes of all timesteps."""
        return sum(self.spikes)

    @property
    def rate(self) -> float:
        """Spikes per neuron and timestep, in [0, 1]; 0 if the neurons have not run."""
        return self.fired / self.updates if self.updates else 0.0

    def add(self, updates: int, spikes: Sequence[int]) -> None:
        """Add what another call of the same neurons did."""
        self.updates += updates
        before = self.spikes or (0,) * len(spikes)
        self.spikes = tuple(a + b for a, b in zip(before, spikes, strict=True))


@dataclass
class Events:
    """What happened in a stage, by layer and by neuron layer."""

    layers: dict[str, LayerOperations] = field(default_factory=dict)
    neurons: dict[str, NeuronOperations] = field(default_factory=dict)

    def add(self, name: str, operations: LayerOperations) -> None:
        """Add operations of a layer."""
        self.layers.setdefault(name, LayerOperations(operations.kind, operations.analog)).add(operations)

    def fire(self, name: str, updates: int, spikes: Sequence[int]) -> None:
        """Add spikes by timestep of a neuron layer."""
        self.neurons.setdefault(name, NeuronOperations()).add(updates, spikes)
