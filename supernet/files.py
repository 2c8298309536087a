"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

INDEX = "supernet.json"
"""File of a folder that says what the checkpoint of a network there is (:mod:`supernet.checkpoint`)."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either the old or the new one, whole, even after a crash."""
    temporary = path.with_name(path.name + f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
