"""One way to name parts: a row of a table, or the user's own by ``package.module:Name``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TypeVar, cast

from spaces.errors import InputError

T = TypeVar("T")


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
    try:
        return cast(T, getattr(import_module(module_name), attribute))
    except (ImportError, AttributeError, ValueError, TypeError, SyntaxError) as error:
        raise InputError(f"{what} {name!r} cannot be imported: {error}") from None
