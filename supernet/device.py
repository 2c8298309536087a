"""Where to compute, and how this process takes memory and waits."""

from __future__ import annotations

import ctypes
import sys

import torch

from spaces import InputError
from supernet.neurons import cuda

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Options of glibc's mallopt."""


def resolve_device(name: str, executor: str = "auto") -> torch.device:
    """Return the device of a recipe: ``auto`` is a GPU if there is one and the executor can use it, else the CPU.

    Args:
        name: ``auto``, ``cpu`` or ``cuda``.
        executor: Row of ``supernet.neurons.EXECUTORS``.

    Raises:
        InputError: If a GPU is asked for and there is none, or if executor and device do not go together.
    """
    if (name, executor) in (("cuda", "native"), ("cpu", "cupy")):
        needed = "the CPU" if executor == "native" else "a GPU"
        raise InputError(f"executor {executor!r} computes on {needed}, got device {name!r}; set either to 'auto'")
    if name == "auto" and executor == "native":
        name = "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' needs a GPU that torch can use, found none; set device to 'auto' or 'cpu'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def cap_gpu_memory(share: float) -> None:
    """Let torch and CuPy each take no more than a part of the GPU's memory.

    Args:
        share: In (0, 1); beyond it both say that there is no memory, and other processes keep theirs.
    """
    torch.cuda.set_per_process_memory_fraction(share)
    if cuda.problem() is None:
        cuda.cap_memory(share)


def keep_large_blocks() -> bool:
    """Let this process keep memory that large tensors have used, and return whether the system can.

    By default glibc hands blocks above 32 MiB back to the system and maps fresh pages for the next one, which costs
    several times what it takes to fill them. Does nothing on other C libraries.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mapped = mallopt(_MMAP_THRESHOLD, 1 << 30) or mallopt(_MMAP_THRESHOLD, 32 << 20)  # some allow no more
    trimmed = mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    return bool(mapped) and bool(trimmed)
