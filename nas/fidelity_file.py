"""``fidelity.json`` of a run folder: how well inherited scores rank networks that were trained by themselves."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from nas.orders import Fidelity
from spaces import InputError

FIDELITY = "fidelity.json"
"""File of a run folder."""


def read_fidelity(folder: Path) -> Fidelity | None:
    """Return what a run folder knows of fidelity, None if nothing; all its numbers follow from its points.

    Raises:
        InputError: If the file cannot be read, or is not one of fidelity.
    """
    try:
        content = (folder / FIDELITY).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{FIDELITY} cannot be read: {error}") from None
    try:
        return TypeAdapter(Fidelity).validate_python(json.loads(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = f"{place}: {first['msg']}".removeprefix(": ")
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise InputError(f"{FIDELITY} must be what `nas fidelity` writes, but: {reason}; run that again")
