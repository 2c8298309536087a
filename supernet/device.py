"""Where to compute, and how this process takes memory and waits."""

from __future__ import annotations

import ctypes
import sys

import torch

from spaces import InputError

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Options of glibc's mallopt."""


def resolve_device(name: str) -> torch.device:
    """Return the device of a recipe: ``auto`` is a GPU if there is one, else the CPU.

    Raises:
        InputError: If a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' needs a GPU that torch can use, found none; set device to 'auto' or 'cpu'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


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
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
