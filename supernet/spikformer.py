"""Spikformer V1 [Zhou2023]_, readable in one sitting; the supernet is the one of a space's largest architecture.

``T`` timesteps, ``B`` images, ``N`` tokens of width ``D``. Block inputs are sums of spikes, so small integers.

.. [Zhou2023] Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from spaces import Architecture, InputError, Layer, SearchSpace, Skeleton, hidden_width
from supernet import fused
from supernet.layers import EntangledBatchNorm, EntangledLinear
from supernet.neurons import build_neuron
from supernet.stems import SpikingPatchStem

if TYPE_CHECKING:
    from supernet.data import Normalise

ATTENTION_SCALE = 0.125
"""Scale of q·kᵀ·v, the same for every head width; a power of two, so exact."""

ATTENTION_THRESHOLD = 0.5
"""Threshold of the neuron behind the attention over that of its block."""


MAX_DEPTH = 126
"""Most blocks: a sum of spikes is at most 2 behind the stem and grows by 2 with each block."""


class LinearNeuron(nn.Module):
    """Linear layer, batch normalisation and neuron: tokens in, spikes out."""

    def __init__(self, in_features: int, out_features: int, skeleton: Skeleton, executor: str = "auto") -> None:
        super().__init__()
        self.linear = EntangledLinear(in_features, out_features)
        self.bn = EntangledBatchNorm(out_features)
        self.neuron = build_neuron(skeleton, executor)

    def forward(self, x: Tensor, out_features: int, layer: Layer) -> Tensor:
        """Map tokens ``(T, B, N, n_in)`` to spikes ``(T, B, N, out_features)``."""
        spikes = fused_projections([self], x, out_features, layer) if self.training else None
        if spikes is not None:
            return spikes
        current = self.bn(self.linear(x, out_features).flatten(0, 2)).unflatten(0, x.shape[:3])
        return cast(Tensor, self.neuron(current, layer.v_threshold, layer.tau))


def fused_projections(parts: Sequence[LinearNeuron], x: Tensor, width: int, layer: Layer) -> Tensor | None:
    """Return the training spikes of projections of one input side by side, or None without compiled neurons.

    Args:
        parts: Layers of equal width.
        x: Tokens ``(T, B, N, n_in)``.
        width: Output width of each.
        layer: Threshold and time constant.

    Returns:
        Spikes ``(T, B, N, len(parts) * width)``.
    """
    dtype, neuron = fused.product_type(x), parts[0].neuron
    kernels = neuron.compiled(x, dtype)
    if kernels is None or (len(parts) > 1 and any(True for _ in neuron.parameters())):
        return None  # neurons that learn differ from one another
    weights, biases = zip(*(part.linear.sliced(x.shape[-1], width) for part in parts), strict=True)
    y = fused.linear(x, weights, dtype)
    k = neuron.constant_list(layer.v_threshold, layer.tau)
    return fused.norm_fire(y, len(x), [part.bn for part in parts], biases, kernels, k)


class SpikeProduct(nn.Module):
    """Matrix product of two spike tensors; a module so that operation counters can see its operands."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Map ``(..., n, k)`` and ``(..., k, m)`` to ``(..., n, m)``."""
        return a @ b


class SpikingSelfAttention(nn.Module):
    """Attention without softmax: neuron(q kᵀ v / 8) of binary q, k and v, then a projection."""

    def __init__(self, embed_dim: int, skeleton: Skeleton, executor: str = "auto") -> None:
        super().__init__()
        self.q = LinearNeuron(embed_dim, embed_dim, skeleton, executor)
        self.k = LinearNeuron(embed_dim, embed_dim, skeleton, executor)
        self.v = LinearNeuron(embed_dim, embed_dim, skeleton, executor)
        self.scores = SpikeProduct()
        self.mix = SpikeProduct()
        self.neuron = build_neuron(skeleton, executor)
        self.proj = LinearNeuron(embed_dim, embed_dim, skeleton, executor)

    def forward(self, x: Tensor, layer: Layer) -> Tensor:
        """Map tokens ``(T, B, N, D)`` to spikes of the same shape."""
        width, v_threshold = x.shape[-1], layer.v_threshold * ATTENTION_THRESHOLD
        qkv = fused_projections([self.q, self.k, self.v], x, width, layer) if self.training else None
        if qkv is not None:
            kernels = self.neuron.compiled(qkv, qkv.dtype)
            assert kernels is not None
            constants = self.neuron.constant_list(v_threshold, layer.tau)
            spikes = fused.attend(qkv, layer.num_heads, ATTENTION_SCALE, kernels, constants)
            return cast(Tensor, self.proj(spikes, width, layer))
        q, k, v = (
            project(x, width, layer).unflatten(-1, (layer.num_heads, -1)).transpose(2, 3)
            for project in (self.q, self.k, self.v)
        )  # each (T, B, heads, N, D / heads)
        mixed = self.mix(self.scores(q, k.transpose(-2, -1)), v) * ATTENTION_SCALE
        current = mixed.transpose(2, 3).flatten(3)
        spikes = self.neuron(current, v_threshold, layer.tau)
        return cast(Tensor, self.proj(spikes, width, layer))


class Block(nn.Module):
    """Attention and MLP, each added to its input."""

    def __init__(self, embed_dim: int, hidden: int, skeleton: Skeleton, executor: str = "auto") -> None:
        super().__init__()
        self.attention = SpikingSelfAttention(embed_dim, skeleton, executor)
        self.fc1 = LinearNeuron(embed_dim, hidden, skeleton, executor)
        self.fc2 = LinearNeuron(hidden, embed_dim, skeleton, executor)

    def forward(self, x: Tensor, layer: Layer) -> Tensor:
        """Map tokens ``(T, B, N, D)`` to the same shape."""
        width = x.shape[-1]
        x = x + self.attention(x, layer)
        return x + cast(Tensor, self.fc2(self.fc1(x, hidden_width(width, layer.mlp_ratio), layer), width, layer))


class Spikformer(nn.Module):
    """A Spikformer of one architecture, which also runs every smaller one as a slice of its weights.

    Args:
        skeleton: Input, stem resolution, classes and neuron.
        architecture: Widths and depth of the parameters, and what a call runs by default.
        executor: Who computes the neurons, a row of ``supernet.neurons.EXECUTORS``; ``reference`` also takes
            the plain layers in training.

    Attributes:
        normalise: From uint8 images ``(B, C, H, W)`` to what the network takes, None if that is not known; its
            ``pixels`` does so for pixels in [0, 1].
        classes: Class names in the order of the logits, empty if they are not known.

    Shape:
        Normalised images ``(B, C, H, W)`` to logits ``(B, num_classes)``.
    """

    def __init__(self, skeleton: Skeleton, architecture: Architecture, executor: str = "auto") -> None:
        super().__init__()
        if architecture.depth > MAX_DEPTH:
            raise InputError(
                f"depth must be {MAX_DEPTH} or less, as sums of spikes are bytes, got {architecture.depth}"
            )
        self.skeleton = skeleton
        self.architecture = architecture
        self.executor = executor
        self.normalise: Normalise | None = None
        self.classes: tuple[str, ...] = ()
        width = architecture.embed_dim
        self.stem = SpikingPatchStem(width, skeleton, executor)
        self.blocks = nn.ModuleList(
            Block(width, hidden_width(width, layer.mlp_ratio), skeleton, executor) for layer in architecture.layers
        )
        self.head = EntangledLinear(width, skeleton.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @classmethod
    def from_pretrained(cls, folder: str | Path, executor: str = "auto", neuron: str | None = None) -> Spikformer:
        """Return the network that ``nas export`` wrote, in evaluation mode on the CPU.

        Args:
            folder: Folder of ``config.json`` and ``model.safetensors``; no code in it is run.
            executor: Who computes the neurons, a row of ``supernet.neurons.EXECUTORS``.
            neuron: The ``package.module:Name`` of a network whose neuron is a user's own; it has to be given, as its
                module is then imported and run.

        Raises:
            InputError: If a file is missing or damaged, or the network asks for a neuron that was not given.
        """
        from supernet.pretrained import read_pretrained  # noqa: PLC0415  # which builds networks of this class

        return read_pretrained(folder, executor, neuron).network

    def forward(self, images: Tensor, architecture: Architecture | None = None) -> Tensor:
        """Return the logits ``(B, num_classes)`` of an architecture that fits into this network."""
        run = architecture or self.architecture
        self.check_fit(run)
        x = self.stem(images, run.timesteps, run.embed_dim, run.layers[0])
        for block, layer in zip(self.blocks, run.layers, strict=False):
            x = block(x, layer)
        logits: Tensor = self.head(x.mean(dim=2).mean(dim=0))
        return logits

    def check_fit(self, run: Architecture) -> None:
        """Raise InputError if an architecture is wider or deeper than this network, or cannot be cut into heads."""
        if run is self.architecture:
            return
        own = self.architecture
        hidden = [hidden_width(own.embed_dim, layer.mlp_ratio) for layer in own.layers]
        fits = (
            run.embed_dim <= own.embed_dim
            and run.depth <= own.depth
            and all(
                hidden_width(run.embed_dim, layer.mlp_ratio) <= width
                for layer, width in zip(run.layers, hidden, strict=False)
            )
        )
        if not fits:
            raise InputError(
                f"an architecture must fit into the network that runs it: embed_dim <= {own.embed_dim}, depth "
                f"<= {own.depth}, hidden widths <= {hidden}; got {run.to_dict()}"
            )
        if run.embed_dim % 8 or any(run.embed_dim % layer.num_heads for layer in run.layers):
            raise InputError(f"embed_dim must be a multiple of 8 and of every num_heads, got {run.to_dict()}")


def build_supernet(space: SearchSpace, seed: int, executor: str = "auto") -> Spikformer:
    """Return the untrained supernet of a space: the Spikformer of its largest architecture.

    Args:
        space: Search space, with the input shape of the data.
        seed: Seed of the initial weights; the global random state stays as it is.
        executor: Who computes the neurons.
    """
    return build_network(space.skeleton, space.largest(), seed, executor)


def build_network(skeleton: Skeleton, architecture: Architecture, seed: int, executor: str = "auto") -> Spikformer:
    """Return an untrained network of one architecture.

    Args:
        skeleton: Input, classes and neuron.
        architecture: Widths and depth.
        seed: Seed of the initial weights; the global random state stays as it is.
        executor: Who computes the neurons.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Spikformer(skeleton, architecture, executor)
