"""Checkpoints: tensors in safetensors, everything else in JSON, replaced as one.

A checkpoint is a JSON file that names its tensor file and that file's SHA-256. A new one is written beside the old
one and takes its place by a single rename, so a crash at any moment leaves a whole checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from spaces import Architecture, InputError, SearchSpace, Skeleton
from supernet.averaging import WeightAverage
from supernet.files import INDEX, write_atomically
from supernet.settings import TrainSettings
from supernet.spikformer import Spikformer

_FORMAT = "spikefront-checkpoint-1"
_MODEL, _OPTIMIZER, _AVERAGE = "model.", "optimizer.", "average."
YOUNGER: dict[str, Any] = {"ema": 0.0, "parts": 0}
"""Settings that older checkpoints do not have, each with the value that they were trained with."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a training.

    Attributes:
        loss: Mean loss.
        accuracy: Share of correct answers on the augmented training images, in [0, 1].
        seconds: Wall time.
    """

    loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says about itself.

    Attributes:
        seed: Seed of the training.
        data: Name of the image set.
        settings: Optimisation.
        architecture: Widths and depth of the network.
        skeleton: Input, classes and neuron of the network.
        space: Space whose supernet the network is, or None for a single architecture.
        history: The epochs done.
    """

    seed: int
    data: str
    settings: TrainSettings
    architecture: Architecture
    skeleton: Skeleton
    space: SearchSpace | None
    history: tuple[EpochRecord, ...] = ()

    @property
    def epoch(self) -> int:
        """Number of epochs done."""
        return len(self.history)

    @property
    def seconds(self) -> float:
        """Wall time of all epochs done."""
        return sum(record.seconds for record in self.history)

    @property
    def complete(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.settings.epochs

    def after(self, record: EpochRecord) -> Checkpoint:
        """Return the same training one epoch later."""
        return replace(self, history=(*self.history, record))

    @property
    def identity(self) -> dict[str, Any]:
        """What must agree for a training to continue, as JSON values."""
        values = {
            "seed": self.seed,
            "data": self.data,
            "settings": asdict(self.settings),
            "architecture": self.architecture.to_dict(),
            "skeleton": self.skeleton.to_dict(),
            "space": None if self.space is None else self.space.to_dict(),
        }
        return dict(json.loads(json.dumps(values)))


def save_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    model: Spikformer,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None = None,
) -> None:
    """Replace the checkpoint of a folder; once all epochs are done, the weights are the average, if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    if average is not None and not checkpoint.complete:
        tensors |= {_AVERAGE + name: tensor for name, tensor in average.tensors.items()}
    blob = save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()})
    weights = folder / f"supernet-{checkpoint.epoch:05d}.safetensors"
    write_atomically(weights, blob)
    index_values = {
        "format": _FORMAT,
        "weights": weights.name,
        "sha256": hashlib.sha256(blob).hexdigest(),
        **checkpoint.identity,
        "history": [asdict(record) for record in checkpoint.history],
    }
    write_atomically(folder / INDEX, json.dumps(index_values, indent=1).encode())
    for stale in folder.glob("supernet-*.safetensors*"):
        if stale != weights:
            stale.unlink()


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a folder's weights, as its checkpoint records it."""
    return str(_read_index(folder / INDEX, "restore it")[0]["sha256"])


def load_checkpoint(
    folder: Path,
    identity: Checkpoint,
    model: Spikformer,
    optimizer: torch.optim.Optimizer | None = None,
    average: WeightAverage | None = None,
) -> Checkpoint:
    """Load a folder's checkpoint into a network, and return it with the epochs done.

    Args:
        folder: Run folder; without a checkpoint nothing is loaded and ``identity`` returned.
        identity: Training that the checkpoint must belong to.
        model: Receives the weights.
        optimizer: Receives its state, where training is to go on.
        average: Receives the average of the weights, likewise.

    Raises:
        InputError: If the checkpoint is damaged or belongs to another training.
    """
    index = folder / INDEX
    if not index.is_file():
        return identity
    way_out = f"choose another run folder, or move {folder} away to start anew"
    values, blob = _read_index(index, way_out)
    if isinstance(values.get("settings"), dict):
        values["settings"] = {**YOUNGER, **values["settings"]}
    for name, expected in identity.identity.items():
        if values.get(name) != expected:
            raise InputError(
                f"{index} must be a checkpoint of this run, but its {name} differs: expected {expected!r}, got "
                f"{values.get(name)!r}; {way_out}"
            )
    try:
        tensors = load_tensors(blob)
        model.load_state_dict(_strip(tensors, _MODEL))
        if optimizer is not None:
            _load_optimizer(optimizer, _strip(tensors, _OPTIMIZER))
        history = tuple(EpochRecord(**{k: float(v) for k, v in record.items()}) for record in values["history"])
        state = replace(identity, history=history)
        if average is not None and not state.complete:
            average.load(_strip(tensors, _AVERAGE))
        return state
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split("\n")[:2])  # torch lists every tensor
        raise InputError(f"{index} does not fit its network: {reason}; {way_out}") from None


def _read_index(index: Path, way_out: str) -> tuple[dict[str, Any], bytes]:
    try:
        values = json.loads(index.read_bytes())
        if values["format"] != _FORMAT:
            raise ValueError(f"format must be {_FORMAT}, got {values['format']!r}")
        name, digest = values["weights"], values["sha256"]
        if Path(name).name != name:
            raise ValueError(f"weights must be a file name, got {name!r}")
        blob = (index.parent / name).read_bytes()
    except OSError as error:
        raise InputError(
            f"{index} is not a whole checkpoint: {error.filename}: {error.strerror}; {way_out}"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{index} is not a whole checkpoint: {error!r}; {way_out}") from None
    if hashlib.sha256(blob).hexdigest() != digest:
        raise InputError(f"{index.parent / name} is damaged: its SHA-256 is not that of {index.name}; {way_out}")
    return values, blob


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, field = name.partition(".")
        state.setdefault(int(number), {})[field] = tensor
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, fields in state.items():
        shape = parameters[index].shape if index in range(len(parameters)) else None
        found = {field: tensor.shape for field, tensor in fields.items()}
        if found != {"step": torch.Size(), "exp_avg": shape, "exp_avg_sq": shape}:
            raise ValueError(f"the optimizer's state of parameter {index} has the shapes {found}")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
