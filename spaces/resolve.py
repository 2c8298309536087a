"""One way to name parts: a row of a table, or the user's own by ``package.module:Name``."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TypeVar, cast

from spaces.errors import InputError

T = TypeVar("T")

FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What code that somebody has just written raises."""


def resolve(table: Mapping[str, T], name: str, what: str) -> T:
    """Return a row of a table, or the object that ``package.module:Name`` names.

    Raises:
        InputError: If there is no such row, module or object.
    """
    if name in table:
        return table[name]
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise InputError(f"{what} must be one of {sorted(table)} or package.module:Name, got {name!r}")
    with refusing(f"{what} {name!r} cannot be imported"):
        return cast(T, getattr(import_module(module_name), attribute))


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Make what is wrong with a user's code inside the block an InputError that says what, why and where.

    Raises:
        InputError: If one of ``FAULTS`` is raised.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
    except FAULTS as error:
        frames = traceback.extract_tb(error.__traceback__)[2:]  # behind this function and the block
        places = [frame for frame in frames if "importlib" not in frame.filename]
        where = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
        raise InputError(f"{what}: {type(error).__name__}: {error}{where}") from error
