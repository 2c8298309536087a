"""To the public CIFAR model of Spikformer's authors [Zhou2023]_: its names and shapes for the tensors of a network.

Its constructor knows one MLP ratio, and neurons of one threshold and time constant. What an architecture has beyond
that becomes tensors where it can, and attributes to be set on the built model where it cannot:

- hidden neurons that a block has fewer than the widest one are added with weights of zero, and never fire;
- thresholds, time constants and heads are attributes that the model reads at every call.

All of this is exact but for the order in which sums are taken. The neurons of that model divide by ``tau`` where ours
multiply by ``1 / tau``; that is the same for powers of two, and else may differ in the last bit of a potential.

.. [Zhou2023] Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023; the class is in
   github.com/ZK-Zhou/spikformer, cifar10/model.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces import Architecture, InputError, Skeleton
from supernet.spikformer import ATTENTION_SCALE, ATTENTION_THRESHOLD, Spikformer

POOLS = (2, 3)
"""Stem stages of the public model that end in a pooling."""

_STEM = {"stem.stages.0": "", "stem.stages.1": "1", "stem.stages.2": "2", "stem.stages.3": "3"}
_PARTS = {"attention.q": "attn.q", "attention.k": "attn.k", "attention.v": "attn.v", "attention.proj": "attn.proj"}
_MLP = {"fc1": "mlp.fc1", "fc2": "mlp.fc2"}


@dataclass(frozen=True)
class PublicModel:
    """A network as the public class takes it.

    Attributes:
        tensors: Its state by name, all that ``load_state_dict(tensors, strict=True)`` asks for.
        constructor: Keyword arguments of the class.
        attributes: What to set on the built model, by the path of the attribute; all others keep their defaults.
    """

    tensors: Mapping[str, Tensor]
    constructor: Mapping[str, Any]
    attributes: Mapping[str, float | int]


def to_public(network: Spikformer) -> PublicModel:
    """Return a network as the public class takes it.

    Raises:
        InputError: If that class cannot compute what the network does.
    """
    skeleton, architecture = network.skeleton, network.architecture
    check_public(skeleton)
    hidden = max(block.fc1.linear.out_features for block in _blocks(network))
    state = network.state_dict()
    tensors: dict[str, Tensor] = {}
    for ours, suffix in _STEM.items():
        tensors[f"patch_embed.proj_conv{suffix}.weight"] = state[f"{ours}.conv.weight"]
        tensors |= _norm(state, f"{ours}.bn", f"patch_embed.proj_bn{suffix}")
    tensors["patch_embed.rpe_conv.weight"] = state["stem.position.conv.weight"]
    tensors |= _norm(state, "stem.position.bn", "patch_embed.rpe_bn")
    for index in range(architecture.depth):
        tensors |= _block(state, index, architecture.embed_dim, hidden)
    tensors |= {f"head.{name}": state[f"head.{name}"] for name in ("weight", "bias")}
    constructor = {
        "img_size_h": skeleton.image_size,
        "img_size_w": skeleton.image_size,
        "patch_size": 4,
        "in_channels": skeleton.in_channels,
        "num_classes": skeleton.num_classes,
        "embed_dims": architecture.embed_dim,
        "num_heads": architecture.layers[0].num_heads,
        "mlp_ratios": _ratio(architecture.embed_dim, hidden),
        "depths": architecture.depth,
    }
    cpu = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return PublicModel(cpu, constructor, dict(_attributes(architecture)))


def _blocks(network: Spikformer) -> list[Any]:
    return list(network.blocks)


def check_public(skeleton: Skeleton) -> None:
    """Check that the public class can compute the networks of a skeleton.

    Raises:
        InputError: If it has another stem or another neuron.
    """
    problem = ""
    if skeleton.stem_pools != POOLS:
        problem = f"it pools behind stem stages {list(POOLS)}, and this network behind {list(skeleton.stem_pools)}"
    elif skeleton.image_size % 4:
        problem = f"it takes images of a multiple of 4 pixels, and this network has {skeleton.image_size}"
    elif skeleton.neuron != "lif":
        problem = f"its neurons are lif with a fixed time constant, and this network's are {skeleton.neuron}"
    elif skeleton.soft_reset:
        problem = "its neurons return to zero, and this network's subtract their threshold"
    if problem:
        raise InputError(f"the public class cannot compute this network: {problem}; export it as spikefront or onnx")


def _norm(state: Mapping[str, Tensor], ours: str, public: str, width: int | None = None) -> dict[str, Tensor]:
    """Return the tensors of a normalisation, with channels added that give 0 whatever comes."""
    tensors = {}
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = state[f"{ours}.{name}"]
        more = 0 if width is None else width - len(tensor)
        tensors[f"{public}.{name}"] = F.pad(tensor, (0, more), value=1.0 if name == "running_var" else 0.0)
    tensors[f"{public}.num_batches_tracked"] = state[f"{ours}.num_batches_tracked"]
    return tensors


def _block(state: Mapping[str, Tensor], index: int, width: int, hidden: int) -> dict[str, Tensor]:
    ours, public = f"blocks.{index}", f"block.{index}"
    tensors: dict[str, Tensor] = {}
    for norm in ("norm1", "norm2"):  # are there, and are never used
        tensors |= {f"{public}.{norm}.weight": torch.ones(width), f"{public}.{norm}.bias": torch.zeros(width)}
    for part, name in {**_PARTS, **_MLP}.items():
        weight, bias = state[f"{ours}.{part}.linear.weight"], state[f"{ours}.{part}.linear.bias"]
        rows = hidden - len(weight) if part == "fc1" else 0
        columns = hidden - weight.shape[1] if part == "fc2" else 0
        tensors[f"{public}.{name}_linear.weight"] = F.pad(weight, (0, columns, 0, rows))
        tensors[f"{public}.{name}_linear.bias"] = F.pad(bias, (0, rows))
        tensors |= _norm(state, f"{ours}.{part}.bn", f"{public}.{name}_bn", hidden if part == "fc1" else None)
    return tensors


def _ratio(width: int, hidden: int) -> float:
    """Return the ratio of which ``int(width * ratio)`` is the hidden width."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _attributes(architecture: Architecture) -> Iterator[tuple[str, float | int]]:
    first = architecture.layers[0]
    yield "T", architecture.timesteps
    for neuron in ("proj_lif", "proj_lif1", "proj_lif2", "proj_lif3", "rpe_lif"):
        yield f"patch_embed.{neuron}.v_threshold", first.v_threshold
        yield f"patch_embed.{neuron}.tau", first.tau
    for index, layer in enumerate(architecture.layers):
        yield f"block.{index}.attn.num_heads", layer.num_heads
        for part in (*_PARTS.values(), *_MLP.values()):
            yield f"block.{index}.{part}_lif.v_threshold", layer.v_threshold
            yield f"block.{index}.{part}_lif.tau", layer.tau
        yield f"block.{index}.attn.attn_lif.v_threshold", layer.v_threshold * ATTENTION_THRESHOLD
        yield f"block.{index}.attn.attn_lif.tau", layer.tau


@torch.no_grad()
def run_public(model: PublicModel, images: Tensor) -> Tensor:
    """Return what the public class computes from normalised images ``(B, C, H, W)``, the logits ``(B, classes)``.

    It looks at nothing but tensors and attributes, by their public names.
    """
    tensors, attributes = model.tensors, model.attributes
    depth, timesteps = int(model.constructor["depths"]), int(attributes["T"])

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
        return F.batch_norm(x, mean, variance, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def fire(current: Tensor, name: str) -> Tensor:
        """Map ``(T * B, ...)`` to spikes, neurons dividing by their time constant."""
        tau, threshold = attributes[f"{name}.tau"], attributes[f"{name}.v_threshold"]
        steps = current.reshape(timesteps, -1, *current.shape[1:])
        v, spikes = torch.zeros_like(steps[0]), []
        for x in steps:
            u = v + (x - v) / tau
            s = (u >= threshold).to(u.dtype)
            v = u * (1 - s)
            spikes.append(s)
        return torch.cat(spikes)

    def convolve(x: Tensor, conv: str, bn: str, lif: str) -> Tensor:
        return fire(norm(F.conv2d(x, tensors[f"{conv}.weight"], padding=1), bn), lif)

    def project(x: Tensor, name: str) -> Tensor:
        y = F.linear(x, tensors[f"{name}_linear.weight"], tensors[f"{name}_linear.bias"])
        return fire(norm(y.transpose(-1, -2), f"{name}_bn").transpose(-1, -2), f"{name}_lif")

    stem = "patch_embed"
    x = images.repeat(timesteps, 1, 1, 1)
    for stage, suffix in enumerate(_STEM.values()):
        x = convolve(x, f"{stem}.proj_conv{suffix}", f"{stem}.proj_bn{suffix}", f"{stem}.proj_lif{suffix}")
        x = F.max_pool2d(x, 3, 2, 1) if stage in POOLS else x
    x = x + convolve(x, f"{stem}.rpe_conv", f"{stem}.rpe_bn", f"{stem}.rpe_lif")
    x = x.flatten(2).transpose(1, 2)
    for block in (f"block.{index}" for index in range(depth)):
        heads = int(attributes[f"{block}.attn.num_heads"])
        split = [
            project(x, f"{block}.attn.{part}").reshape(*x.shape[:-1], heads, -1).transpose(1, 2) for part in "qkv"
        ]
        mixed = (split[0] @ split[1].transpose(-1, -2)) * ATTENTION_SCALE @ split[2]
        attended = fire(mixed.transpose(1, 2).flatten(2), f"{block}.attn.attn_lif")
        x = x + project(attended, f"{block}.attn.proj")
        x = x + project(project(x, f"{block}.mlp.fc1"), f"{block}.mlp.fc2")
    pooled = x.mean(dim=1).view(timesteps, -1, x.shape[-1]).mean(dim=0)
    return F.linear(pooled, tensors["head.weight"], tensors["head.bias"])
