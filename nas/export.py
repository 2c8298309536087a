"""Networks as folders that others use: in Spikefront's own format, for the authors' public class, or as ONNX.

A folder appears whole or not at all: its files are written beside it, read back and checked, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from nas.agreement import check_copy
from nas.model_card import write_card
from nas.onnx_graph import check_onnx, onnx_bytes, run_onnx
from spaces import InputError, Skeleton
from supernet.convert import PublicModel, check_public, run_public, to_public
from supernet.pretrained import CONFIG, FACTS, WEIGHTS, Pretrained, describe, read_pretrained

CARD, ONNX = "README.md", "model.onnx"
CHECKED_IMAGES = 64
"""Images that a copy is compared on."""

_PUBLIC_TOLERANCE, _ONNX_TOLERANCE = 1e-5, 1e-4


@dataclass(frozen=True)
class Target:
    """A format.

    Attributes:
        files: Content of the files by name, the model card left out.
        check: Reads the files of a folder back and says how they agree with the network on normalised images; raises
            InputError if they do not.
    """

    files: Callable[[Pretrained], dict[str, bytes]]
    check: Callable[[Path, Pretrained, Tensor], str]


@dataclass(frozen=True)
class Exported:
    """A folder that was written.

    Attributes:
        folder: Where it is.
        check: How its files agree with the network, in words.
    """

    folder: Path
    check: str


def write_export(
    out: str | Path,
    pretrained: Pretrained,
    images: Tensor,
    target: str = "spikefront",
) -> Exported:
    """Write a network with its model card, checked by reading it back.

    Args:
        out: Folder, which must not exist or be empty; written whole or not at all.
        pretrained: Network, normalisation, classes, and facts for the card.
        images: Normalised images ``(B, C, H, W)`` that the copy is checked on.
        target: Format, a row of ``FORMATS``.

    Raises:
        InputError: If the folder is in use or cannot be written, or the format cannot hold the network.
    """
    folder = Path(out)
    check_target(folder, target, pretrained.network.skeleton)
    form = FORMATS[target]
    files = form.files(pretrained)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            _write(temporary / name, content)
        check = form.check(temporary, pretrained, images)
        _write(temporary / CARD, write_card(pretrained, target, check).encode())
        temporary.rename(folder)
    except OSError as error:
        raise InputError(
            f"the export must be writable, but {error.filename or folder}: {error.strerror}; choose another folder"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(folder, check)


def check_target(folder: Path, target: str, skeleton: Skeleton) -> None:
    """Check what an export needs before anything is computed; errors are those of :func:`write_export`."""
    if target not in FORMATS:
        raise InputError(f"format must be one of {list(FORMATS)}, got {target!r}")
    if target == "onnx":
        check_onnx()
    if target == "public-spikformer":
        check_public(skeleton)
    try:
        taken = os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise InputError(f"the export must be writable, but {folder}: {error.strerror}") from None
    if taken or not folder.name:
        raise InputError(
            f"an export needs a new or an empty folder, but {folder} is in use, and is never overwritten; choose "
            "another"
        )


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _check_own(folder: Path, pretrained: Pretrained, images: Tensor) -> str:
    network = pretrained.network
    loaded = read_pretrained(folder, network.executor, network.skeleton.neuron)
    with torch.no_grad():
        same = torch.equal(loaded.network(images), network(images))
    if not same or (loaded.normalise, loaded.classes) != (pretrained.normalise, pretrained.classes):
        raise InputError("the files do not load back to the same network, so nothing is written; report this")
    return f"it loads back to identical logits on {len(images)} images"


def _sidecar(pretrained: Pretrained, target: str, more: dict[str, Any]) -> bytes:
    facts = {name: pretrained.facts.get(name, {}) for name in FACTS}
    return json.dumps({"format": f"{target}-1", **more, **describe(pretrained), **facts}, indent=1).encode()


def _public_files(pretrained: Pretrained) -> dict[str, bytes]:
    model = to_public(pretrained.network)
    weights = save_tensors(dict(model.tensors))
    digest = hashlib.sha256(weights).hexdigest()
    found = {"constructor": model.constructor, "attributes": model.attributes, "weights_sha256": digest}
    return {CONFIG: _sidecar(pretrained, "public-spikformer", found), WEIGHTS: weights}


def _check_public(folder: Path, pretrained: Pretrained, images: Tensor) -> str:
    sidecar = json.loads((folder / CONFIG).read_bytes())
    tensors = load_tensors((folder / WEIGHTS).read_bytes())
    theirs = run_public(PublicModel(tensors, sidecar["constructor"], sidecar["attributes"]), images)
    return str(check_copy(pretrained.network, images, theirs, _PUBLIC_TOLERANCE, "the public model"))


def _onnx_files(pretrained: Pretrained) -> dict[str, bytes]:
    notes = {name: json.dumps(value) for name, value in describe(pretrained).items()}
    content = onnx_bytes(pretrained.network, notes)
    found = {"onnx_sha256": hashlib.sha256(content).hexdigest()}
    return {CONFIG: _sidecar(pretrained, "onnx", found), ONNX: content}


def _check_onnx(folder: Path, pretrained: Pretrained, images: Tensor) -> str:
    theirs = run_onnx((folder / ONNX).read_bytes(), images)
    return str(check_copy(pretrained.network, images, theirs, _ONNX_TOLERANCE, "the ONNX file"))


FORMATS = {
    "spikefront": Target(Pretrained.files, _check_own),
    "public-spikformer": Target(_public_files, _check_public),
    "onnx": Target(_onnx_files, _check_onnx),
}
"""Formats by name."""
