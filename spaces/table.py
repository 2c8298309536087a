"""The rows of a table as a search space: every row is an architecture, whatever its columns mean."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spaces.base import Choice
from spaces.errors import InputError
from spaces.rows import Column, Row
from spaces.vectors import floored

STEPS = 2**30
"""Largest distance between two rows. Whole numbers are the same on every machine, so ties are ties everywhere."""

REMEMBERED = 2**16
"""Vectors whose nearest row is kept, and rows that are, as searches ask for the same ones again."""

MEMORY = 2**28
"""Bytes for distances from one choice of a column to all rows, which most vectors have in common."""


class TableSpace:
    """All architectures that a table lists, and no others.

    A vector has one entry per column, an index into its choices or a real number that is floored to one. One that
    names no row stands for the nearest row, by the mean over the columns of

    .. code-block:: text

        |i - j| / (n - 1)        ordered columns of n choices, i and j indices
        0 if i == j else 1       unordered columns

    and the first of equally near rows. So a table of all combinations is a plain product of its genes, and one of
    some of them is searched as a choice among its rows.

    Args:
        name: How results call the space.
        columns: Genes, in the order of the encoding.
        rows: Index vectors of the listed architectures, all different, ``(size, n_var)``.
    """

    def __init__(self, name: str, columns: Sequence[Column], rows: NDArray[np.integer[Any]]) -> None:
        self.name = name
        self._columns = {column.name: column for column in columns}
        self._rows = np.ascontiguousarray(rows, dtype=_smallest_type(columns))
        self._numbers = {row.tobytes(): number for number, row in enumerate(self._rows)}
        if len(self._numbers) != len(self._rows) or not len(self._rows):
            raise InputError(f"a table has one or more rows that differ in their genes, got {len(self._rows)}")
        self._near: dict[bytes, int] = {}
        self._made: dict[int, Row] = {}
        self._parts: dict[tuple[int, int], NDArray[np.int32]] = {}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Name of each vector entry."""
        return tuple(self._columns)

    @cached_property
    def cardinalities(self) -> NDArray[np.int64]:
        """Number of choices of each vector entry, ``(n_var,)``."""
        return np.array([len(column.choices) for column in self._columns.values()], dtype=np.int64)

    @cached_property
    def ordered(self) -> NDArray[np.bool_]:
        """Which vector entries have choices in a meaningful order, ``(n_var,)``."""
        return np.array([column.ordered for column in self._columns.values()], dtype=bool)

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self._rows)

    @property
    def complete(self) -> bool:
        """Whether all combinations of the genes' values are listed."""
        return self.size == prod(len(column.choices) for column in self._columns.values())

    def choices(self, column: str) -> tuple[Choice, ...]:
        """Return the choices of a column; vectors hold indices into them."""
        return self._columns[column].choices

    def decode(self, vector: ArrayLike) -> Row:
        """Return the row that a vector of indices or of reals in ``[0, n)`` names, or the nearest one.

        Args:
            vector: ``(n_var,)`` numbers.

        Raises:
            InputError: If the length is wrong or an entry is outside its column's range.
        """
        return self.row(self._find(floored(self, vector).astype(self._rows.dtype)))

    def row(self, number: int) -> Row:
        """Return the architecture of a row, counted from 0."""
        made = self._made.get(number)
        if made is None:
            indices, columns = self._rows[number].tolist(), self._columns.values()
            made = Row(self.columns, tuple(c.choices[i] for c, i in zip(columns, indices, strict=True)))
            if len(self._made) >= REMEMBERED:
                self._made.clear()
            self._made[number] = made
        return made

    def number(self, architecture: object) -> int:
        """Return which row an architecture is, counted from 0.

        Raises:
            InputError: If the table does not list it.
        """
        if not isinstance(architecture, Row):
            raise InputError(f"the table {self.name!r} has rows, got {architecture!r}")
        genes = architecture.genes
        if genes.keys() != self._columns.keys():
            raise InputError(
                f"a row of the table {self.name!r} has the genes {list(self.columns)}, got {list(genes)}"
            )
        indices = []
        for name in self.columns:
            value = genes[name]
            index = self._positions[name].get(value) if isinstance(value, int | float | str) else None
            if index is None:
                raise InputError(f"{name} must be one of {_shortened(self.choices(name))}, got {value!r}")
            indices.append(index)
        number = self._numbers.get(np.array(indices, dtype=self._rows.dtype).tobytes())
        if number is None:
            raise InputError(f"the table {self.name!r} has no row with the genes {genes}")
        return number

    def _find(self, indices: NDArray[Any]) -> int:
        """Return the number of the row with these indices, else of the nearest one."""
        named = indices.tobytes()
        number = self._numbers.get(named, self._near.get(named))
        if number is None:
            number = int(self.distances(indices).argmin())
            if len(self._near) >= REMEMBERED:
                self._near.clear()
            self._near[named] = number
        return number

    def distances(self, indices: ArrayLike) -> NDArray[np.int32]:
        """Return the distance of an index vector to each row, ``(size,)``, :data:`STEPS` being that of opposites."""
        total = np.zeros(self.size, dtype=np.int32)
        for column, index in enumerate(np.asarray(indices).tolist()):
            total += self._part(column, index)
        return total

    def _part(self, column: int, index: int) -> NDArray[np.int32]:
        """Return what one entry of a vector adds to its distance to each row, ``(size,)``."""
        part = self._parts.get((column, index))
        if part is None:
            steps, rows = STEPS // len(self.columns), self._rows[:, column].astype(np.int64)
            span = int(self.cardinalities[column]) - 1
            far = np.abs(rows - index) * steps // max(span, 1) if self.ordered[column] else (rows != index) * steps
            part = far.astype(np.int32)
            if (len(self._parts) + 1) * part.nbytes > MEMORY:
                self._parts.clear()
            self._parts[column, index] = part
        return part

    def encode(self, architecture: Row) -> NDArray[np.int64]:
        """Return the index vector ``(n_var,)`` of a row.

        Raises:
            InputError: If the table does not list it.
        """
        return np.array(self._rows[self.number(architecture)], dtype=np.int64)

    @cached_property
    def _positions(self) -> dict[str, dict[Choice, int]]:
        return {name: {choice: i for i, choice in enumerate(c.choices)} for name, c in self._columns.items()}

    def active(self, vector: ArrayLike) -> NDArray[np.bool_]:
        """Return which entries of a vector matter, ``(n_var,)``: all."""
        return np.ones(np.shape(vector), dtype=bool)

    def architecture(self, genes: Mapping[str, Any]) -> Row:
        """Return the row with these genes by column.

        Raises:
            InputError: If the table does not list it.
        """
        return self.row(self.number(Row(tuple(genes), tuple(genes.values()))))

    def __contains__(self, architecture: object) -> bool:
        try:
            self.number(architecture)
        except InputError:
            return False
        return True

    def sample(self, rng: np.random.Generator) -> Row:
        """Draw a row, each with the same probability."""
        return self.row(int(rng.integers(self.size)))

    def __iter__(self) -> Iterator[Row]:
        """Yield every row once, in the order of the table."""
        return map(self.row, range(self.size))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; ``from_dict`` reads them back.

        The rows of an incomplete table are their indices in C order, packed by zlib, in base 64.
        """
        table = [{"name": c.name, "choices": list(c.choices), "ordered": c.ordered} for c in self._columns.values()]
        packed = base64.b64encode(zlib.compress(self._rows.tobytes(), 9)).decode()
        return {"name": self.name, "size": self.size, "columns": table, "rows": packed}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TableSpace:
        """Return the space written by ``to_dict``.

        Raises:
            InputError: If anything is missing or damaged.
        """
        try:
            columns = [Column(str(c["name"]), tuple(c["choices"]), bool(c["ordered"])) for c in values["columns"]]
            kind, size = _smallest_type(columns), int(values["size"])
            bytes_ = size * len(columns) * kind.itemsize
            packed = base64.b64decode(values["rows"], validate=True)
            rows = np.frombuffer(zlib.decompressobj().decompress(packed, bytes_ + 1), kind).reshape(size, -1)
            limits = np.array([len(column.choices) for column in columns])
            sound = rows.shape == (size, len(columns)) and bool(((rows >= 0) & (rows < limits)).all())
            sound = sound and all(_sound_choices(column.choices) for column in columns)
            sound = sound and len({column.name for column in columns}) == len(columns)
            name = str(values["name"])
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error, zlib.error) as error:
            raise InputError(f"the rows of a table cannot be read: {error}") from None
        if not sound:
            raise InputError("the rows of a table must be indices into the choices of their columns")
        return cls(name, columns, rows)


def _sound_choices(choices: Sequence[Choice]) -> bool:
    """Return whether choices are those of one column: different texts, booleans, or finite numbers."""
    kinds = {str if isinstance(choice, str) else bool if isinstance(choice, bool) else float for choice in choices}
    numbers = [choice for choice in choices if not isinstance(choice, str)]
    return len(kinds) == 1 and len(set(choices)) == len(choices) and all(map(math.isfinite, numbers))


def _smallest_type(columns: Sequence[Column]) -> np.dtype[Any]:
    """Return the smallest type that holds all indices, lowest byte first on every machine."""
    most = max((len(column.choices) for column in columns), default=1)
    return np.dtype("<u1" if most <= 2**8 else "<u2" if most <= 2**16 else "<u4")


def _shortened(choices: Sequence[Choice], most: int = 10) -> str:
    """Return the choices as an error shows them."""
    return str(list(choices)) if len(choices) <= most else f"{len(choices)} values, {choices[0]!r} to {choices[-1]!r}"
