"""Stems: from an image to a sequence of spiking tokens."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from spaces import Layer, Skeleton
from supernet import fused
from supernet.layers import EntangledBatchNorm, EntangledConv2d
from supernet.neurons import build_neuron

STAGE_DIVISORS = (8, 4, 2, 1)
"""A stage is as wide as ``embed_dim`` over its divisor."""


class ConvNeuron(nn.Module):
    """Convolution, batch normalisation and neuron of one stem stage."""

    def __init__(self, in_channels: int, out_channels: int, skeleton: Skeleton, executor: str = "auto") -> None:
        super().__init__()
        self.conv = EntangledConv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn = EntangledBatchNorm(out_channels)
        self.neuron = build_neuron(skeleton, executor)

    def forward(self, x: Tensor, timesteps: int, out_channels: int, layer: Layer, analog: bool = False) -> Tensor:
        """Map ``(T, B, C, H, W)``, or an image ``(1, B, C, H, W)``, to spikes ``(T, B, out_channels, H, W)``."""
        dtype = fused.product_type(x)
        kernels = self.neuron.compiled(x, dtype) if self.training else None
        if kernels is not None:
            weight, _ = self.conv.sliced(x.shape[2], out_channels)
            y = fused.convolve(x, weight, (1, 1), dtype, analog)
            k = self.neuron.constant_list(layer.v_threshold, layer.tau)
            return fused.norm_fire(y, timesteps, [self.bn], [None], kernels, k).permute(0, 1, 4, 2, 3)
        current = self.bn(self.conv(x.flatten(0, 1), out_channels)).unflatten(0, x.shape[:2])
        # An image drives every timestep alike: its convolution is done once and its current repeated.
        current = current.expand(timesteps, *current.shape[1:])
        return cast(Tensor, self.neuron(current, layer.v_threshold, layer.tau))


class SpikingPatchStem(nn.Module):
    """Spiking patch splitting with position embedding, the stem of Spikformer V1 [Zhou2023]_.

    Four 3x3 convolution stages of width D/8, D/4, D/2 and D, some with a max pooling, then ``y + f(y)``, f one
    more stage of width D. Every stage is sliced to the architecture's own D.

    Args:
        embed_dim: Largest token width D.
        skeleton: Input channels, pooling stages and neuron.
        executor: Who computes the neurons, a row of ``supernet.neurons.EXECUTORS``.

    .. [Zhou2023] Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023.
    """

    def __init__(self, embed_dim: int, skeleton: Skeleton, executor: str = "auto") -> None:
        super().__init__()
        widths = [skeleton.in_channels, *(embed_dim // divisor for divisor in STAGE_DIVISORS)]
        self.pools = frozenset(skeleton.stem_pools)
        self.stages = nn.ModuleList(ConvNeuron(narrow, wide, skeleton, executor) for narrow, wide in pairwise(widths))
        self.position = ConvNeuron(embed_dim, embed_dim, skeleton, executor)

    def forward(self, images: Tensor, timesteps: int, embed_dim: int, layer: Layer) -> Tensor:
        """Map images ``(B, C, H, W)`` to tokens ``(T, B, N, D)``, integers in {0, 1, 2}.

        Args:
            images: Analog pixels, normalised.
            timesteps: Simulation length T.
            embed_dim: Token width D of the architecture.
            layer: First transformer block, whose threshold and time constant the stem shares.
        """
        x = images.unsqueeze(0)
        for index, (stage, divisor) in enumerate(zip(self.stages, STAGE_DIVISORS, strict=True)):
            x = stage(x, timesteps, embed_dim // divisor, layer, analog=index == 0)
            if index in self.pools and self.training:
                x = fused.max_pool(x)
            elif index in self.pools:
                x = fused.split_steps(F.max_pool2d(x.flatten(0, 1), 3, 2, 1), len(x))
        x = x + cast(Tensor, self.position(x, timesteps, embed_dim, layer))
        return x.flatten(3).transpose(2, 3)
