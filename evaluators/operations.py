"""Operations that a network really does, counted from its layers' inputs while it runs.

What a layer is follows from its class, never from its name. Spikes and sums of spikes are integers: a value k
arriving at a synapse is k accumulates. The first convolution and the head see analog values: multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from supernet.engine import LayerOperations, NeuronOperations
from supernet.layers import EntangledConv2d, EntangledLinear
from supernet.spikformer import SpikeProduct, Spikformer


@dataclass
class OperationCounts:
    """Operations of a network by layer name, and what its neurons did, summed over the images seen.

    Attributes:
        layers: Counts by the layer's name in the network.
        neurons: Updates and spikes by the neuron layer's name in the network.
        images: Images seen.
    """

    layers: dict[str, LayerOperations] = field(default_factory=dict)
    neurons: dict[str, NeuronOperations] = field(default_factory=dict)
    images: int = 0

    @property
    def spikes(self) -> int:
        """Spikes fired by all neurons."""
        return sum(row.fired for row in self.neurons.values())

    @property
    def timesteps(self) -> int:
        """Simulation length T; 0 if nothing has run."""
        return max((row.timesteps for row in self.neurons.values()), default=0)

    @property
    def rate(self) -> float:
        """Spikes per neuron and timestep, in [0, 1]; 0 if nothing has run."""
        updates = sum(row.updates for row in self.neurons.values())
        return self.spikes / updates if updates else 0.0

    @property
    def macs_per_image(self) -> float:
        """Multiply-accumulates of the dense network, per image."""
        return sum(layer.macs for layer in self.layers.values()) / self.images

    @property
    def analog_macs_per_image(self) -> float:
        """Multiply-accumulates that really happen, those of analog inputs, per image."""
        return sum(layer.macs for layer in self.layers.values() if layer.analog) / self.images

    @property
    def accumulates_per_image(self) -> float:
        """Accumulates that really happen, by value, per image."""
        return sum(layer.accumulates for layer in self.layers.values()) / self.images

    @property
    def nonzero_per_image(self) -> float:
        """Accumulates with every arriving integer taken as one, per image."""
        return sum(layer.nonzero for layer in self.layers.values()) / self.images

    @property
    def spikes_per_image(self) -> float:
        """Spikes fired, per image."""
        return self.spikes / self.images


@contextmanager
def counting(network: Spikformer) -> Iterator[OperationCounts]:
    """Count the operations of all forward passes inside the block.

    Args:
        network: A network that no other thread runs meanwhile; it is left as it was. On the ``meta`` device only
            what follows from shapes is counted.

    Raises:
        ValueError: If the network is in training mode, whose fused steps cannot be looked into.
    """
    if network.training and network.executor != "reference":
        raise ValueError("operations are counted in evaluation mode: call eval() first, or use executor 'reference'")
    counts = OperationCounts()
    neurons = {type(network.stem.position.neuron)}
    handles = []

    def hook_layer(name: str, module: nn.Module, analog: bool) -> None:
        row = counts.layers[name] = LayerOperations(_KINDS[type(module)], analog)

        def count(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            row.add(_operations(module, inputs, output, analog))

        handles.append(module.register_forward_hook(count))

    def hook_neurons(name: str, module: nn.Module) -> None:
        row = counts.neurons[name] = NeuronOperations()

        def count(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            steps = [0] * len(output) if output.is_meta else [int(_total(step)) for step in output]
            row.add(output.numel(), steps)

        handles.append(module.register_forward_hook(count))

    def count_images(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        counts.images += len(inputs[0])

    analog_layers = {network.stem.stages[0].conv, network.head}
    for name, module in network.named_modules():
        if type(module) in _KINDS:
            hook_layer(name, module, module in analog_layers)
        elif type(module) in neurons:
            hook_neurons(name, module)
    handles.append(network.register_forward_pre_hook(count_images))
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


_KINDS: dict[type[nn.Module], str] = {
    EntangledConv2d: "convolution",
    EntangledLinear: "linear",
    SpikeProduct: "product",
}


def _total(values: Tensor) -> float:
    """Return the exact sum of small non-negative integers: rows in float32, their sum in float64."""
    return float(values.sum(dim=-1).sum(dtype=torch.float64))


def _operations(module: nn.Module, inputs: tuple[Any, ...], output: Tensor, analog: bool) -> LayerOperations:
    """Return the operations of one call, each output being one dot product."""
    x, operands = inputs[0], [operand for operand in inputs if isinstance(operand, Tensor)]
    row = LayerOperations(_KINDS[type(module)], analog)
    if isinstance(module, EntangledConv2d):
        synapses = int(x.shape[1]) * prod(module.kernel_size)
        row.weights = synapses * output.shape[1]
    else:  # a linear layer, or the product of two matrices
        synapses = int(x.shape[-1])
        row.weights = synapses * output.shape[-1] if isinstance(module, EntangledLinear) else 0
    row.macs, row.outputs = output.numel() * synapses, output.numel()
    row.inputs = sum(operand.numel() for operand in operands)
    if not analog and not output.is_meta:
        row.accumulates, _ = _accumulates(module, operands, output)
        row.nonzero, row.events = _accumulates(module, [operand.clamp(max=1) for operand in operands], output)
    return row


def _accumulates(module: nn.Module, operands: list[Tensor], output: Tensor) -> tuple[float, int]:
    """Return the accumulates of a call whose operands hold non-negative integers, and the sum of these."""
    x = operands[0]
    if isinstance(module, SpikeProduct):  # a value in a column of x meets the row of the other operand
        columns, rows = x.sum(dim=-2).double(), operands[1].sum(dim=-1).double()
        return float((columns * rows).sum()), int(columns.sum() + rows.sum())
    if isinstance(module, EntangledConv2d):
        arriving = x.sum(dim=0).sum(dim=0, dtype=torch.float64)
        return float((arriving * _fan_out(module, x, output)).sum()) * output.shape[1], int(arriving.sum())
    total = _total(x)
    return total * output.shape[-1], int(total)


def _fan_out(conv: EntangledConv2d, x: Tensor, output: Tensor) -> Tensor:
    """Return for each input pixel how many outputs per channel it reaches, ``(H, W)``: fewer at borders."""
    (k_h, k_w), (s_h, s_w), (p_h, p_w) = conv.kernel_size, conv.stride, _pair(conv.padding)
    rows = _reached(x.shape[2], output.shape[2], k_h, s_h, p_h).to(x.device)
    columns = _reached(x.shape[3], output.shape[3], k_w, s_w, p_w).to(x.device)
    return torch.outer(rows, columns)


def _pair(padding: Any) -> tuple[int, int]:
    rows, columns = padding
    return int(rows), int(columns)


def _reached(size: int, outputs: int, kernel: int, stride: int, padding: int) -> Tensor:
    """Return for each position of a line how many windows of a convolution cover it."""
    starts = torch.arange(outputs) * stride - padding
    positions = torch.arange(size)
    covered = (positions[:, None] >= starts) & (positions[:, None] < starts + kernel)
    return covered.sum(dim=1).to(torch.float64)
