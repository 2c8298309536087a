"""What a search asks of a space and of its architectures, whatever they are made of."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Choice = int | float | str | bool
"""A value that a gene can take."""


class Genotype(Hashable, Protocol):
    """An architecture of any space: a value that can be compared, hashed and written down."""

    @property
    def key(self) -> str:
        """Content key: 12 hexadecimal digits, the same on every machine and in every process."""
        ...

    @property
    def genes(self) -> Mapping[str, Choice]:
        """Active genes by column name, in the order of the encoding."""
        ...


class Space(Protocol):
    """A finite set of architectures, which vectors name.

    A vector has one entry per column: an index into the column's choices, or a real number in ``[0, n)`` that is
    floored to one. Several vectors may name one architecture; ``encode`` returns one of them.
    """

    @property
    def name(self) -> str:
        """How recipes and run folders call the space."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Name of each vector entry."""
        ...

    @property
    def cardinalities(self) -> NDArray[np.int64]:
        """Number of choices of each vector entry, ``(n_var,)``."""
        ...

    @property
    def ordered(self) -> NDArray[np.bool_]:
        """Which vector entries have choices in a meaningful order, so that neighbours are alike, ``(n_var,)``."""
        ...

    @property
    def size(self) -> int:
        """Exact number of distinct architectures."""
        ...

    def choices(self, column: str) -> tuple[Choice, ...]:
        """Return the choices of a column; vectors hold indices into them."""
        ...

    def decode(self, vector: ArrayLike) -> Genotype:
        """Return the architecture that a vector names."""
        ...

    def encode(self, architecture: Any) -> NDArray[np.int64]:
        """Return an index vector ``(n_var,)`` of an architecture of this space."""
        ...

    def active(self, vector: ArrayLike) -> NDArray[np.bool_]:
        """Return which entries of a vector matter to the architecture that it names, ``(n_var,)``."""
        ...

    def architecture(self, genes: Mapping[str, Any]) -> Genotype:
        """Return the architecture with these genes, as its ``genes`` give them."""
        ...

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Draw an architecture, each distinct one with the same probability."""
        ...

    def __iter__(self) -> Iterator[Genotype]:
        """Yield every distinct architecture once."""
        ...

    def __contains__(self, architecture: object) -> bool: ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold, the same for equal spaces."""
        ...
