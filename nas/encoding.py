"""Architectures as vectors in which distances mean something: what rankers learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spaces import Genotype, Space

Floats = NDArray[np.float64]

SHARED = 3
"""Genes that are alike from which on their sum is encoded as well."""

KEPT = 2**14
"""Architectures whose vectors are kept, as searches come back to them."""


class Encoding:
    """Thermometer code of ordered genes and one-hot code of unordered ones; inactive genes are 0.

    Codes are scaled so that the squared distance of the genes' own entries is the sum over genes of

    .. code-block:: text

        |i - j| / (n - 1)        ordered genes of n choices, i and j indices
        0 if i == j else 1       unordered genes

    Where several genes have the same choices and names that differ in the number at their end, as those of the layers
    of a network, the sum of their codes follows, over the root of their number: how often each choice was made, of
    which a few architectures tell more than of each gene.

    Args:
        space: Search space.

    Attributes:
        genes: Gene of each entry: an index of the space's columns, or from their number on a sum's, ``(width,)``.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._tables: list[Floats] = []
        for choices, ordered in zip(space.cardinalities.tolist(), space.ordered.tolist(), strict=True):
            if ordered:
                table = np.tri(choices, max(choices - 1, 1), -1) / np.sqrt(max(choices - 1, 1))
            else:
                table = np.eye(choices) / np.sqrt(2)
            self._tables.append(table)
        self._known: dict[Genotype, Floats] = {}
        self._alike = _alike(space)
        shapes = [*self._tables, *(self._tables[columns[0]] for columns in self._alike)]
        self.genes = np.repeat(np.arange(len(shapes)), [table.shape[1] for table in shapes])

    @property
    def width(self) -> int:
        """Entries of a vector."""
        return len(self.genes)

    def __call__(self, architectures: Sequence[Genotype]) -> Floats:
        """Return the vectors of architectures, ``(n, width)``."""
        if len(self._known) > KEPT:
            self._known.clear()
        unknown = [architecture for architecture in architectures if architecture not in self._known]
        self._known.update(zip(unknown, self._encode(unknown), strict=True))
        return np.array([self._known[architecture] for architecture in architectures]).reshape(-1, self.width)

    def _encode(self, architectures: Sequence[Genotype]) -> Floats:
        space, n_var = self._space, len(self._tables)
        indices = np.array([space.encode(a) for a in architectures], dtype=np.int64).reshape(-1, n_var)
        active = np.array([space.active(row) for row in indices], dtype=bool).reshape(-1, n_var)
        chosen = zip(self._tables, indices.T, active.T, strict=True)
        codes = [table[column] * on[:, None] for table, column, on in chosen]
        sums = [sum(codes[column] for column in columns) / len(columns) ** 0.5 for columns in self._alike]
        return np.hstack([*codes, *sums])


def _alike(space: Space) -> list[list[int]]:
    """Return the columns of each group of genes that are alike, as those of the layers, if it has enough of them."""
    groups: dict[tuple[str, bool, tuple[object, ...]], list[int]] = {}
    for index, (column, ordered) in enumerate(zip(space.columns, space.ordered.tolist(), strict=True)):
        name = column.rstrip("0123456789")
        groups.setdefault((name, ordered, tuple(space.choices(column))), []).append(index)
    return [columns for (*_, choices), columns in groups.items() if len(columns) >= SHARED and len(choices) > 1]
