"""Networks as folders: weights in safetensors, everything else in JSON; nothing that is read can run.

``config.json`` says what to build and how to normalise images, ``model.safetensors`` has the tensors of the network's
state by their names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from spaces import Architecture, Gene, InputError, Skeleton
from supernet.data import Normalise
from supernet.neurons import NEURONS, check_executor
from supernet.spikformer import Spikformer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = "spikefront-network-1"
FACTS = ("data", "scoring", "scores", "provenance")
"""Tables of ``config.json`` that the network itself does not need."""

_KEYS = ("format", "architecture", "skeleton", "normalisation", "classes", "weights_sha256", *FACTS)


@dataclass(frozen=True)
class Pretrained:
    """A network with what its users need to know.

    Attributes:
        network: In evaluation mode; its ``normalise`` and ``classes`` are those of here.
        normalise: From uint8 images to what the network takes.
        classes: Class names in the order of the logits.
        facts: JSON values by rows of ``FACTS``, each an object, empty if there is nothing to say.
    """

    network: Spikformer
    normalise: Normalise
    classes: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        """Return the content of the folder's files by name."""
        state = self.network.state_dict()
        weights = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
        config = {
            "format": FORMAT,
            **describe(self),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            **{name: self.facts.get(name, {}) for name in FACTS},
        }
        return {CONFIG: json.dumps(config, indent=1).encode(), WEIGHTS: weights}


def describe(pretrained: Pretrained) -> dict[str, Any]:
    """Return architecture, skeleton, normalisation and classes as JSON values."""
    return {
        "architecture": pretrained.network.architecture.to_dict(),
        "skeleton": pretrained.network.skeleton.to_dict(),
        "normalisation": {"mean": list(pretrained.normalise.mean), "std": list(pretrained.normalise.std)},
        "classes": list(pretrained.classes),
    }


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return what ``config.json`` of a folder holds, its values not yet looked at.

    Raises:
        InputError: If there is none, or it is not that of a network.
    """
    path = Path(folder) / CONFIG
    try:
        values = json.loads(path.read_bytes())
        json.dumps(values, ensure_ascii=False).encode()  # half of a surrogate pair could not be shown
    except FileNotFoundError:
        raise InputError(f"{folder} has no {CONFIG}, so it is no exported network; `nas export` writes one") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} must be JSON: {error}; export the network again") from None
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise InputError(
            f"{path} must be of format {FORMAT}, got {found!r}; other formats are for other programs: export the "
            "network with --format spikefront"
        )
    if set(values) != set(_KEYS) or not all(isinstance(values[name], dict) for name in FACTS):
        raise InputError(
            f"{path} has exactly the keys {sorted(_KEYS)}, {', '.join(FACTS)} being tables, got {sorted(values)}"
        )
    return dict(values)


def read_pretrained(folder: str | Path, executor: str = "auto", neuron: str | None = None) -> Pretrained:
    """Return the network of a folder.

    Args:
        folder: Folder of ``config.json`` and ``model.safetensors``.
        executor: Who computes the neurons, a row of ``supernet.neurons.EXECUTORS``.
        neuron: The ``package.module:Name`` of a network whose neuron is a user's own; it has to be given, as its
            module is then imported and run.

    Raises:
        InputError: If a file is missing or damaged, or the network asks for a neuron that was not given.
    """
    check_executor(executor)
    values, path = read_config(folder), Path(folder) / CONFIG
    try:
        architecture = _architecture(values["architecture"])
        skeleton = _skeleton(values["skeleton"])
        _check_neuron(skeleton.neuron, neuron)
        normalise = _normalise(values["normalisation"], skeleton.in_channels)
        classes = _classes(values["classes"], skeleton.num_classes)
        with torch.device("meta"):
            network = Spikformer(skeleton, architecture, executor)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    state = _read_weights(Path(folder) / WEIGHTS, values["weights_sha256"], network.state_dict())
    network.load_state_dict(state, assign=True)
    network.normalise, network.classes = normalise, classes
    return Pretrained(network.eval(), normalise, classes, {name: values[name] for name in FACTS})


def _architecture(values: Any) -> Architecture:
    architecture = Architecture.from_dict(values)
    for name in ("embed_dim", "timesteps", "depth"):
        Gene(name, (getattr(architecture, name),))  # the rules of a space
    for layer in architecture.layers:
        for name in ("mlp_ratio", "num_heads", "v_threshold", "tau"):
            Gene(name, (getattr(layer, name),))
        if architecture.embed_dim % layer.num_heads:
            raise InputError(
                f"embed_dim must be divisible by every num_heads, got {architecture.embed_dim} and {layer.num_heads}"
            )
        if architecture.embed_dim * layer.mlp_ratio < 1:
            raise InputError(f"embed_dim times mlp_ratio must be 1 or more, got mlp_ratio {layer.mlp_ratio}")
    return architecture


def _skeleton(values: Any) -> Skeleton:
    fields = set(Skeleton.__dataclass_fields__)
    if not isinstance(values, dict) or set(values) != fields:
        found = sorted(values) if isinstance(values, dict) else repr(values)
        raise InputError(f"skeleton has exactly the keys {sorted(fields)}, got {found}")
    return Skeleton(**values)


def _check_neuron(named: str, given: str | None) -> None:
    if ":" in named and named not in NEURONS and named != given:
        raise InputError(
            f"the network has a neuron of somebody's own, {named!r}, whose module would be imported and run; if you "
            f"trust it, say so with neuron={named!r}, or --neuron {named}"
        )


def _normalise(values: Any, channels: int) -> Normalise:
    if not isinstance(values, dict) or set(values) != {"mean", "std"}:
        raise InputError(f"normalisation has exactly the keys ['mean', 'std'], got {values!r}")
    single = torch.finfo(torch.float32)  # as which they are computed with
    for name, numbers in values.items():
        least = single.min if name == "mean" else single.tiny
        whole = isinstance(numbers, list) and len(numbers) == channels
        if not whole or not all(type(n) in (int, float) and least <= n <= single.max for n in numbers):
            raise InputError(
                f"normalisation.{name} must be {channels} finite numbers{' above 0' if name == 'std' else ''}, got "
                f"{numbers!r}"
            )
    return Normalise(tuple(map(float, values["mean"])), tuple(map(float, values["std"])))


def _classes(values: Any, count: int) -> tuple[str, ...]:
    if not isinstance(values, list) or len(values) != count or not all(isinstance(name, str) for name in values):
        raise InputError(f"classes must be {count} names, got {values!r}")
    return tuple(values)


def _read_weights(path: Path, digest: Any, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file, which must be those that a network expects."""
    way_out = "export the network again"
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; {way_out}") from None
    if hashlib.sha256(blob).hexdigest() != digest:
        raise InputError(f"{path} is damaged: its SHA-256 is not that of {CONFIG}; {way_out}")
    try:
        state = load_tensors(blob)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path} is no safetensors file: {error}; {way_out}") from None
    for name in sorted(set(expected) ^ set(state)):
        there = "in the file only" if name in state else "missing"
        raise InputError(f"{path} must have the tensors of its {CONFIG}, but {name} is {there}; {way_out}")
    for name, tensor in state.items():
        want = expected[name]
        if (tensor.shape, tensor.dtype) != (want.shape, want.dtype):
            raise InputError(
                f"{name} of {path} must be {want.dtype} {tuple(want.shape)}, got {tensor.dtype} "
                f"{tuple(tensor.shape)}; {way_out}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{name} of {path} must be finite; {way_out}")
    return state
