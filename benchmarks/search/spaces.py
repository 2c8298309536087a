"""A space of plain genes, some of which may be inactive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Active = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Index vector ``(n_var,)`` to which of its entries matter, ``(n_var,)``."""


@dataclass(frozen=True)
class PlainGenotype:
    """Active genes by column, as sorted pairs in the order of the space."""

    pairs: tuple[tuple[str, int | float], ...]

    @cached_property
    def genes(self) -> dict[str, int | float]:
        """Active genes by column name."""
        return dict(self.pairs)

    @cached_property
    def key(self) -> str:
        """Content key: 12 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.pairs).encode()).hexdigest()[:12]


class GeneSpace:
    """All vectors of genes, those that differ in inactive entries only being one architecture.

    Args:
        name: How results call the space.
        choices: Choices by column, in the order of the encoding.
        ordered: Columns whose choices are numbers in order.
        size: Number of distinct architectures.
        active: Which entries of an index vector matter; all by default.
    """

    def __init__(
        self,
        name: str,
        choices: Mapping[str, Sequence[int | float]],
        ordered: Sequence[str] = (),
        size: int | None = None,
        active: Active | None = None,
    ) -> None:
        self.name = name
        self.columns = tuple(choices)
        self._choices = [tuple(values) for values in choices.values()]
        self.cardinalities = np.array([len(values) for values in self._choices], dtype=np.int64)
        self.ordered = np.array([column in ordered for column in self.columns])
        self.size = prod(len(values) for values in self._choices) if size is None else size
        self._active = active
        self._index = [{value: i for i, value in enumerate(values)} for values in self._choices]

    def choices(self, column: str) -> tuple[int | float, ...]:
        """Return the choices of a column."""
        return self._choices[self.columns.index(column)]

    def active(self, vector: ArrayLike) -> NDArray[np.bool_]:
        """Return which entries of a vector matter, ``(n_var,)``."""
        indices = np.floor(np.asarray(vector, dtype=np.float64)).astype(np.int64)
        return np.ones(len(self.columns), dtype=bool) if self._active is None else self._active(indices)

    def decode(self, vector: ArrayLike) -> PlainGenotype:
        """Return the architecture that indices, or reals in ``[0, n)``, name."""
        indices = np.floor(np.asarray(vector, dtype=np.float64)).astype(np.int64).tolist()
        active = self.active(vector).tolist()
        genes = zip(self.columns, self._choices, indices, active, strict=True)
        return PlainGenotype(tuple((column, values[i]) for column, values, i, matters in genes if matters))

    def encode(self, architecture: PlainGenotype) -> NDArray[np.int64]:
        """Return the index vector ``(n_var,)``, 0 where inactive."""
        genes = architecture.genes
        pairs = zip(self.columns, self._index, strict=True)
        return np.array([index[genes[column]] if column in genes else 0 for column, index in pairs], dtype=np.int64)

    def sample(self, rng: np.random.Generator) -> PlainGenotype:
        """Draw each gene uniformly."""
        return self.decode(rng.integers(self.cardinalities))

    def __iter__(self) -> Iterator[PlainGenotype]:
        """Yield every distinct architecture once."""
        seen = set()
        for indices in product(*(range(n) for n in self.cardinalities)):
            architecture = self.decode(indices)
            if architecture not in seen:
                seen.add(architecture)
                yield architecture

    def __contains__(self, architecture: object) -> bool:
        return isinstance(architecture, PlainGenotype) and architecture == self.decode(self.encode(architecture))

    def architecture(self, genes: Mapping[str, Any]) -> PlainGenotype:
        """Return the architecture with these active genes."""
        return PlainGenotype(tuple((column, genes[column]) for column in self.columns if column in genes))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"name": self.name, "genes": dict(zip(self.columns, map(list, self._choices), strict=True))}
