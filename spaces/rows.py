"""Rows and columns of a table, as plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.base import Choice
from spaces.errors import InputError


@dataclass(frozen=True)
class Row:
    """An architecture that a table lists.

    Attributes:
        columns: Names of its genes.
        values: Their values, in the order of the columns.
    """

    columns: tuple[str, ...]
    values: tuple[Choice, ...]

    @cached_property
    def key(self) -> str:
        """Content key: 12 hexadecimal digits, the same on every machine and in every process."""
        text = json.dumps(self.genes, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def genes(self) -> dict[str, Choice]:
        """Values by column name."""
        return dict(zip(self.columns, self.values, strict=True))


@dataclass(frozen=True)
class Column:
    """A gene of a table.

    Attributes:
        name: Name of the column.
        choices: Its different values, sorted; vectors hold indices into them.
        ordered: Whether neighbouring choices are alike: numbers, unless their order means nothing.
    """

    name: str
    choices: tuple[Choice, ...]
    ordered: bool


def gene_columns(
    values: Mapping[str, NDArray[Any]], unordered: Sequence[str] = ()
) -> tuple[list[Column], NDArray[np.int64]]:
    """Return the columns of a table and its rows as indices into their choices, ``(n, n_var)``.

    Args:
        values: Values by column name, ``(n,)`` each: whole or real numbers, booleans or texts.
        unordered: Columns of numbers whose order means nothing.

    Raises:
        InputError: If a column has missing values, or values of several kinds.
    """
    columns, indices = [], []
    for name, array in values.items():
        kind = array.dtype.kind
        if kind not in "iufbU":
            raise InputError(f"genes must be numbers, booleans or texts, but column {name!r} is of {array.dtype}")
        if kind == "f" and not np.isfinite(array).all():
            at = int(np.flatnonzero(~np.isfinite(array))[0])
            raise InputError(f"genes must be known, but column {name!r} is {array[at]} in row {at}, counted from 0")
        if kind == "U" and (array == "").any():
            at = int(np.flatnonzero(array == "")[0])
            raise InputError(f"genes must be known, but column {name!r} is empty in row {at}, counted from 0")
        found, inverse = np.unique(array, return_inverse=True)
        columns.append(Column(name, tuple(found.tolist()), kind in "iuf" and name not in unordered))
        indices.append(inverse.reshape(-1))
    return columns, np.stack(indices, axis=1)
