"""Weights of a supernet as the engine multiplies by them: prepared once, for all subnets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from supernet.layers import EntangledBatchNorm, EntangledConv2d, EntangledLinear
from supernet.native.spikes import Packed, pack
from supernet.neurons import SpikingNeuron
from supernet.spikformer import LinearNeuron, Spikformer
from supernet.stems import ConvNeuron

GROUP = 8
"""Outputs of q, k and v that lie side by side when they are multiplied as one; divides every width."""


@dataclass(frozen=True, eq=False)
class Products:
    """One product: the weights of one layer, or of several layers with the same input.

    Attributes:
        names: Name in the network of each layer.
        weight: ``(parts * n_out, n_in)`` or ``(c_out, c_in, k, k)``, float32, rounded as the precision asks. The
            outputs of several parts take turns in groups of ``GROUP``, so that any narrower slice is a prefix.
        gamma, beta: Gain and shift of the normalisation behind, by output in the same order.
        bias: What the layers add in front of the normalisation; it moves the running means only.
        eps: Of the normalisation.
        neuron: Neuron behind it.
        precision: ``float32`` or ``int8`` storage of the packed weights.
    """

    names: tuple[str, ...]
    weight: Tensor
    gamma: Tensor
    beta: Tensor
    bias: Tensor | None
    eps: float
    neuron: SpikingNeuron
    precision: str

    @property
    def parts(self) -> int:
        """Number of layers."""
        return len(self.names)

    @property
    def kernel(self) -> int:
        """Kernel size of a convolution, 1 for a linear layer."""
        return int(self.weight.shape[-1]) if self.weight.dim() == 4 else 1

    @cached_property
    def packed(self) -> Packed:
        """Weights of event-driven products on the CPU, made when first needed."""
        return pack(self.weight, self.precision)


def interleave(parts: list[Tensor]) -> Tensor:
    """Return tensors stacked along dimension 0 in turns of ``GROUP`` rows."""
    if len(parts) == 1:
        return parts[0]
    stacked = torch.stack([part.view(-1, GROUP, *part.shape[1:]) for part in parts], dim=1)
    return stacked.flatten(0, 2)


def apart(x: Tensor, parts: int) -> Tensor:
    """Return bytes ``(R, parts * n)`` that take turns as ``(parts, R, n)``."""
    words = x.view(torch.int64).view(len(x), -1, parts)  # GROUP bytes are one word
    return words.permute(2, 0, 1).contiguous().view(torch.uint8)


def products_of(network: Spikformer, precision: str) -> dict[str, Products]:
    """Return the products of a network by name; q, k and v of a block are one, ``blocks.<i>.attention.qkv``.

    Args:
        network: A supernet; its tensors are shared where nothing is rounded.
        precision: ``exact``, ``bf16`` or ``int8``.
    """
    found: dict[str, Products] = {}

    def add(name: str, modules: dict[str, nn.Module], analog: bool = False) -> None:
        layers = {key: _layer(module) for key, module in modules.items()}
        weights = [
            _rounded(layer.weight.detach(), "exact" if analog else precision) for layer, _, _ in layers.values()
        ]
        norms = [norm for _, norm, _ in layers.values()]
        biases = [layer.bias.detach() for layer, _, _ in layers.values() if layer.bias is not None]
        found[name] = Products(
            tuple(layers),
            interleave(weights),
            interleave([norm.weight.detach() for norm in norms]),
            interleave([norm.bias.detach() for norm in norms]),
            interleave(biases) if biases else None,
            norms[0].eps,
            next(iter(layers.values()))[2],
            "int8" if precision == "int8" else "float32",
        )

    for name, module in network.named_modules():
        if isinstance(module, ConvNeuron):
            add(name, {f"{name}.conv": module}, analog=name == "stem.stages.0")
        elif isinstance(module, LinearNeuron) and name.rsplit(".", 1)[1] not in ("q", "k", "v"):
            add(name, {f"{name}.linear": module})
        elif isinstance(module, LinearNeuron) and not _learns(module):
            stem = name.rsplit(".", 1)[0]
            if f"{stem}.qkv" not in found:
                three = {f"{stem}.{part}.linear": network.get_submodule(f"{stem}.{part}") for part in "qkv"}
                add(f"{stem}.qkv", three)
        elif isinstance(module, LinearNeuron):
            add(name, {f"{name}.linear": module})
    return found


def _learns(module: LinearNeuron) -> bool:
    """Return whether a layer's neuron has parameters, so that q, k and v cannot be fired as one."""
    return any(True for _ in module.neuron.parameters())


def _layer(module: Any) -> tuple[EntangledConv2d | EntangledLinear, EntangledBatchNorm, SpikingNeuron]:
    """Return layer, normalisation and neuron of a ``ConvNeuron`` or ``LinearNeuron``."""
    return module.conv if isinstance(module, ConvNeuron) else module.linear, module.bn, module.neuron


def _rounded(weight: Tensor, precision: str) -> Tensor:
    """Return weights as a precision stores them, in float32."""
    if precision == "bf16":
        return weight.bfloat16().float()
    if precision == "int8":
        scales = (weight.abs().flatten(1).amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        scales = scales.view(-1, *[1] * (weight.dim() - 1))
        return (weight / scales).round() * scales
    return weight
