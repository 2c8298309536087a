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

from supernet.engine import LayerOperations
from supernet.layers import EntangledConv2d, EntangledLinear
from supernet.spikformer import SpikeProduct, Spikformer


@dataclass
class OperationCounts:
    """Operations of a network by layer name, and its spikes, summed over the images seen.

    Attributes:
        layers: Counts by the layer's name in the network.
        spikes: Spikes fired by all neurons.
        images: Images seen.
    """

    layers: dict[str, LayerOperations] = field(default_factory=dict)
    spikes: float = 0.0
    images: int = 0

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
        """Accumulates that really happen, per image."""
        return sum(layer.accumulates for layer in self.layers.values()) / self.images

    @property
    def spikes_per_image(self) -> float:
        """Spikes fired, per image."""
        return self.spikes / self.images


@contextmanager
def counting(network: Spikformer) -> Iterator[OperationCounts]:
    """Count the operations of all forward passes inside the block.

    Args:
        network: A network that no other thread runs meanwhile; it is left as it was. On the ``meta`` device only
            the dense multiply-accumulates are counted.

    Raises:
        ValueError: If the network is in training mode, whose fused steps cannot be looked into.
    """
    if network.training and network.executor != "reference":
        raise ValueError("operations are counted in evaluation mode: call eval() first, or use executor 'reference'")
    counts = OperationCounts()
    neurons = {type(network.stem.position.neuron)}
    handles = []

    def hook_layer(name: str, module: nn.Module, analog: bool) -> None:
        kind = _KINDS[type(module)]
        row = counts.layers[name] = LayerOperations(kind, analog)

        def count(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            row.macs += _dense_macs(module, inputs, output)
            if not analog and not output.is_meta:
                row.accumulates += _accumulates(module, inputs[0], output)

        handles.append(module.register_forward_hook(count))

    def count_spikes(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        if not output.is_meta:
            counts.spikes += _total(output)

    def count_images(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        counts.images += len(inputs[0])

    analog_layers = {network.stem.stages[0].conv, network.head}
    for name, module in network.named_modules():
        if type(module) in _KINDS:
            hook_layer(name, module, module in analog_layers)
        elif type(module) in neurons:
            handles.append(module.register_forward_hook(count_spikes))
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


def _dense_macs(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> int:
    """Return the multiply-accumulates of a call, each output being one dot product."""
    if isinstance(module, EntangledConv2d):
        return output.numel() * int(inputs[0].shape[1]) * prod(module.kernel_size)
    return output.numel() * int(inputs[0].shape[-1])  # a linear layer, or the product of two matrices


def _accumulates(module: nn.Module, x: Tensor, output: Tensor) -> float:
    """Return the accumulates by value of a call whose input ``x`` holds non-negative integers."""
    if isinstance(module, SpikeProduct):
        return _total(output)  # each coincidence adds its value to one output
    if isinstance(module, EntangledConv2d):
        arriving = x.sum(dim=0).sum(dim=0, dtype=torch.float64)
        return float((arriving * _fan_out(module, x, output)).sum()) * output.shape[1]
    return _total(x) * output.shape[-1]


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
