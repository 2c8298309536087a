"""A network as stages, the units that networks of one supernet can share, and what a stage does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spaces import Architecture, hidden_width
from supernet.engine.counts import Events, LayerOperations
from supernet.engine.operators import TorchOperators
from supernet.engine.weights import Products, apart
from supernet.native.spikes import Met
from supernet.neurons import SpikingNeuron
from supernet.neurons.kernels import Affine
from supernet.spikformer import ATTENTION_THRESHOLD
from supernet.stems import STAGE_DIVISORS


@dataclass(frozen=True)
class Stage:
    """One stage with the genes it depends on; equal stages behind equal stages compute the same.

    Attributes:
        kind: ``stem``, ``attention`` or ``mlp``.
        block: Index of the block, 0 for the stem.
        timesteps: Simulation length T.
        width: Token width D.
        size: Heads of an attention, hidden width of an MLP, 0 for the stem.
        v_threshold: Firing threshold.
        tau: Membrane time constant.
    """

    kind: str
    block: int
    timesteps: int
    width: int
    size: int
    v_threshold: float
    tau: float


def stages_of(architecture: Architecture) -> tuple[Stage, ...]:
    """Return the stages of a network in order."""
    T, D = architecture.timesteps, architecture.embed_dim
    first = architecture.layers[0]
    found = [Stage("stem", 0, T, D, 0, first.v_threshold, first.tau)]
    for block, layer in enumerate(architecture.layers):
        found.append(Stage("attention", block, T, D, layer.num_heads, layer.v_threshold, layer.tau))
        hidden = hidden_width(D, layer.mlp_ratio)
        found.append(Stage("mlp", block, T, D, hidden, layer.v_threshold, layer.tau))
    return tuple(found)


Norm = Callable[[str, Products, Tensor], Affine]
"""Gives the normalisation of a product's currents: that of their own batch, or a fixed one."""


_Arrivals = tuple[Tensor, Tensor | None]
"""Sums and numbers of values above 0 at each position; the latter only where they are counted."""


class Runner:
    """Runs stages of one supernet.

    Args:
        products: Weights by name.
        operators: Who computes.
        pools: Stem stages that end in a pooling.
        attention_neurons: Neuron behind the attention of each block.
    """

    def __init__(
        self,
        products: dict[str, Products],
        operators: TorchOperators,
        pools: frozenset[int],
        attention_neurons: list[SpikingNeuron],
    ) -> None:
        self._products, self._do, self._pools = products, operators, pools
        self._attention_neurons = attention_neurons

    def run(self, stage: Stage, x: Tensor, norm: Norm, events: Events | None) -> Tensor:
        """Return what a stage makes of its input, bytes ``(T, B, N, D)``.

        Args:
            stage: What to run.
            x: Normalised images ``(B, C, H, W)`` for the stem, else tokens ``(T, B, N, D)``.
            norm: Gives the normalisations.
            events: Receives what happened; without it nothing is counted.
        """
        return {"stem": self._stem, "attention": self._attention, "mlp": self._mlp}[stage.kind](
            stage, x, norm, events
        )

    def _stem(self, stage: Stage, images: Tensor, norm: Norm, events: Events | None) -> Tensor:
        first = self._products["stem.stages.0"]
        weight = first.weight[: stage.width // STAGE_DIVISORS[0]]
        y = _convolve_pixels(images, weight)
        if events is not None:
            row = LayerOperations("convolution", analog=True, macs=y.numel() * weight[0].numel())
            row.inputs, row.outputs, row.weights = images.numel(), y.numel(), weight.numel()
            events.add(first.names[0], row)
        x = self._fire("stem.stages.0", stage, y.unsqueeze(0), norm, events)
        for index, divisor in enumerate(STAGE_DIVISORS):
            if index:
                x = self._layer(f"stem.stages.{index}", stage, x, stage.width // divisor, norm, events)
            if index in self._pools:
                x = self._do.pool(x)
        arrivals = self._arrivals(x, events)
        x = self._layer("stem.position", stage, x, stage.width, norm, events, arrivals, (x, arrivals[0]))
        return x.flatten(2, 3)

    def _attention(self, stage: Stage, x: Tensor, norm: Norm, events: Events | None) -> Tensor:
        name, arrivals = f"blocks.{stage.block}.attention", self._arrivals(x, events)
        if f"{name}.qkv" in self._products:
            fired = self._layer(f"{name}.qkv", stage, x, 3 * stage.width, norm, events, arrivals)
            q, k, v = apart(fired.view(-1, 3 * stage.width), 3).view(3, *x.shape)
            apart_spikes = zip("qkv", (q, k, v), strict=True)
            fired_by = [self._count_spikes(f"{name}.{part}", x, None, events) for part, x in apart_spikes]
        else:
            q, k, v = (self._layer(f"{name}.{part}", stage, x, stage.width, norm, events, arrivals) for part in "qkv")
            fired_by = [] if events is None else [self._do.by_timestep(part) for part in (q, k, v)]
        current, met = self._do.attend(q, k, v, stage.size, events is not None)
        if events is not None and met is not None:
            _count_products(events, name, x, stage.size, met, [sum(spikes) for spikes in fired_by])
        neuron = self._attention_neurons[stage.block]
        constants = neuron.constant_list(stage.v_threshold * ATTENTION_THRESHOLD, stage.tau)
        s = self._do.fire_attention(current, neuron, constants)
        self._count_spikes(name, s, None, events)
        return self._layer(f"{name}.proj", stage, s, stage.width, norm, events, addend=(x, arrivals[0]))

    def _mlp(self, stage: Stage, x: Tensor, norm: Norm, events: Events | None) -> Tensor:
        name, arrivals = f"blocks.{stage.block}", self._arrivals(x, events)
        hidden = self._layer(f"{name}.fc1", stage, x, stage.size, norm, events, arrivals)
        return self._layer(f"{name}.fc2", stage, hidden, stage.width, norm, events, addend=(x, arrivals[0]))

    def _layer(
        self,
        name: str,
        stage: Stage,
        x: Tensor,
        n_out: int,
        norm: Norm,
        events: Events | None,
        arrivals: _Arrivals | None = None,
        addend: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the spikes of a layer, plus the addend if there is one.

        Args:
            name: Of the product.
            stage: Where it stands.
            x: What arrives.
            n_out: Outputs.
            norm: Gives the normalisation.
            events: Receives what happened, or None.
            arrivals: Those of ``x``, if they are known.
            addend: Bytes like the output's, and their sums by position.
        """
        products = self._products[name]
        arrivals = self._arrivals(x, events) if arrivals is None else arrivals
        arrived = int(arrivals[0].sum(dtype=torch.int64))
        y = self._do.product(x, arrived, products, n_out)
        if events is not None:
            _count_layer(events, products, x, y, arrivals)
        return self._fire(name, stage, y, norm, events, addend)

    def _arrivals(self, x: Tensor, events: Events | None) -> _Arrivals:
        return self._do.arrivals(x) if events is not None else (self._do.sums(x), None)

    def _fire(
        self,
        name: str,
        stage: Stage,
        y: Tensor,
        norm: Norm,
        events: Events | None,
        addend: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        products = self._products[name]
        constants: list[Any] = products.neuron.constant_list(stage.v_threshold, stage.tau)
        affine = norm(name, products, y)
        x = self._do.fire(y, stage.timesteps, affine, products, constants, None if addend is None else addend[0])
        if products.parts == 1:  # the others lie in turns, and are counted once they lie apart
            self._count_spikes(name, x, None if addend is None else addend[1], events)
        return x

    def _count_spikes(self, name: str, x: Tensor, added: Tensor | None, events: Events | None) -> list[int]:
        """Count and return the spikes by timestep of ``x``, which has as much on top as ``added`` sums up to."""
        if events is None:
            return []
        fired = self._do.by_timestep(x)
        if added is not None:
            fired = [both - more for both, more in zip(fired, added.flatten(1).sum(dim=1).tolist(), strict=True)]
        events.fire(f"{name}.neuron", x.numel(), fired)
        return fired


def _count_layer(events: Events, products: Products, x: Tensor, y: Tensor, arrivals: _Arrivals) -> None:
    """Count a layer, or the layers of one product, from what arrives at each position."""
    outputs, inside = y.numel() // products.parts, y.shape[-1] // products.parts
    sums, nonzero = arrivals
    assert nonzero is not None, "what is counted has been asked for"
    if products.kernel == 1:
        kind, synapses = "linear", x.shape[-1]
        reached = [float(part.sum(dtype=torch.int64)) for part in (sums, nonzero)]
    else:
        kind, synapses = "convolution", products.weight[0, : x.shape[-1]].numel()
        fan_out = _fan_out(x, products.kernel)
        reached = [float((part.sum(dim=(0, 1)).double() * fan_out).sum()) for part in (sums, nonzero)]
    row = LayerOperations(
        kind,
        macs=outputs * synapses,
        accumulates=reached[0] * inside,
        nonzero=reached[1] * inside,
        inputs=x.numel(),
        events=int(nonzero.sum(dtype=torch.int64)),
        outputs=outputs,
        weights=inside * synapses,
    )
    for name in products.names:
        events.add(name, row)


def _count_products(events: Events, name: str, x: Tensor, heads: int, met: Met, fired: list[int]) -> None:
    """Count both products of an attention with input ``x``, whose q, k and v have so many spikes."""
    q, k, v = fired
    macs = x.shape[2] * x.numel()  # N N d products for each of D / d heads, twice
    entries = macs // x.shape[-1] * heads  # of q kᵀ
    scores = LayerOperations("product", False, macs, float(met.scores), float(met.scores))
    scores.inputs, scores.events, scores.outputs = 2 * x.numel(), q + k, entries
    mix = LayerOperations("product", False, macs, float(met.mixed), float(met.mixed_nonzero))
    mix.inputs, mix.events, mix.outputs = entries + x.numel(), met.entries + v, x.numel()
    events.add(f"{name}.scores", scores)
    events.add(f"{name}.mix", mix)


def _convolve_pixels(images: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution of analog images ``(B, C, H, W)``, channels last ``(B, H, W, c_out)``."""
    padding = weight.shape[-1] // 2
    images = images.contiguous(memory_format=torch.channels_last)
    y = torch.nn.functional.conv2d(images, weight.contiguous(memory_format=torch.channels_last), padding=padding)
    return y.permute(0, 2, 3, 1).contiguous()


def _fan_out(x: Tensor, kernel: int) -> Tensor:
    """Return for each pixel of ``(T, B, H, W, C)`` how many outputs per channel it reaches: fewer at borders."""

    def line(size: int) -> Tensor:
        at = torch.arange(size, device=x.device, dtype=torch.float64)
        half = kernel // 2
        return torch.minimum(at, at.new_tensor(half)) + 1 + torch.minimum(size - 1 - at, at.new_tensor(half))

    return torch.outer(line(x.shape[2]), line(x.shape[3]))
