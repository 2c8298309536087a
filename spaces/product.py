"""All combinations of some genes as a search space, whatever they mean: the space of somebody's own supernet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spaces.base import Choice
from spaces.errors import InputError
from spaces.rows import Column, Row
from spaces.vectors import floored

MOST_CHOICES = 2**16
"""Choices of a gene, far beyond what anybody searches."""


@dataclass(frozen=True)
class ProductSpace:
    """All architectures that a choice for each gene can name; some genes exist only where another is large enough.

    A vector has one entry per gene: an index into its choices, or a real number that is floored to one. Entries of
    genes that do not exist for the choices of the others are inactive: ``decode`` ignores them, ``encode`` makes them
    0, and the architecture does not have them.

    Attributes:
        name: How recipes and run folders call the space.
        genes: Genes in the order of the encoding.
        needs: Genes that exist only where another one, which always exists, has at least a value.
    """

    name: str
    genes: tuple[Column, ...]
    needs: Mapping[str, tuple[str, float]]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Name of each vector entry."""
        return tuple(gene.name for gene in self.genes)

    @cached_property
    def cardinalities(self) -> NDArray[np.int64]:
        """Number of choices of each vector entry, ``(n_var,)``."""
        return np.array([len(gene.choices) for gene in self.genes], dtype=np.int64)

    @cached_property
    def ordered(self) -> NDArray[np.bool_]:
        """Which vector entries have choices in a meaningful order, ``(n_var,)``."""
        return np.array([gene.ordered for gene in self.genes], dtype=bool)

    @cached_property
    def _indices(self) -> dict[str, dict[Choice, int]]:
        return {gene.name: {choice: index for index, choice in enumerate(gene.choices)} for gene in self.genes}

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.columns)}

    @cached_property
    def _weights(self) -> dict[str, list[int]]:
        """For each gene that others need, how many combinations of those each of its choices has."""
        weights: dict[str, list[int]] = {}
        for name in dict.fromkeys(other for other, _ in self.needs.values()):
            bounds = {gene: bound for gene, (other, bound) in self.needs.items() if other == name}
            weights[name] = []
            for value in self.choices(name):
                counts = [len(self.choices(gene)) for gene, bound in bounds.items() if _reaches(value, bound)]
                weights[name].append(prod(counts))
        return weights

    @cached_property
    def size(self) -> int:
        """Exact number of distinct architectures."""
        free = [len(gene.choices) for gene in self.genes if gene.name not in {*self.needs, *self._weights}]
        return prod(free) * prod(sum(weights) for weights in self._weights.values())

    def choices(self, column: str) -> tuple[Choice, ...]:
        """Return the choices of a column; vectors hold indices into them."""
        return self.genes[self._places[column]].choices

    def decode(self, vector: ArrayLike) -> Row:
        """Return the architecture that a vector of indices or of reals in ``[0, n)`` names.

        Args:
            vector: ``(n_var,)`` numbers; entries of inactive genes do not matter.

        Raises:
            InputError: If the length is wrong or an entry is outside its gene's range.
        """
        indices = floored(self, vector)
        active = self.active(indices).tolist()
        found = [(g, i) for g, i, exists in zip(self.genes, indices.tolist(), active, strict=True) if exists]
        return Row(tuple(gene.name for gene, _ in found), tuple(gene.choices[index] for gene, index in found))

    def encode(self, architecture: object) -> NDArray[np.int64]:
        """Return the index vector ``(n_var,)`` of an architecture of this space.

        Raises:
            InputError: If it has other genes, or a value that the space does not offer.
        """
        if not isinstance(architecture, Row):
            raise InputError(f"the space {self.name!r} has rows of genes, got {architecture!r}")
        genes = architecture.genes
        vector = np.zeros(len(self.genes), dtype=np.int64)
        for name, value in genes.items():
            index = self._indices.get(name, {}).get(value) if isinstance(value, int | float | str) else None
            if index is None:
                known = list(self.choices(name)) if name in self._places else f"none: it is no gene of {self.name!r}"
                raise InputError(f"{name} must be one of {known}, got {value!r}")
            vector[self._places[name]] = index
        wanted = {name for name, exists in zip(self.columns, self.active(vector).tolist(), strict=True) if exists}
        if set(genes) != wanted:
            raise InputError(
                f"an architecture of {self.name!r} has here the genes {sorted(wanted)}, got {sorted(genes)}"
            )
        return vector

    def active(self, vector: ArrayLike) -> NDArray[np.bool_]:
        """Return which entries of a vector matter, ``(n_var,)``: those of genes that exist."""
        values, exists = np.asarray(vector), np.ones(len(self.genes), dtype=bool)
        for name, (other, bound) in self.needs.items():
            chosen = self.choices(other)[int(values[self._places[other]])]
            exists[self._places[name]] = _reaches(chosen, bound)
        return exists

    def architecture(self, genes: Mapping[str, Any]) -> Row:
        """Return the architecture with these genes by column.

        Raises:
            InputError: If the space does not have it.
        """
        return self.decode(self.encode(Row(tuple(genes), tuple(genes.values()))))

    def __contains__(self, architecture: object) -> bool:
        try:
            self.encode(architecture)
        except InputError:
            return False
        return True

    def sample(self, rng: np.random.Generator) -> Row:
        """Draw an architecture, each distinct one with the same probability."""
        vector = rng.integers(self.cardinalities)
        for name, weights in self._weights.items():
            vector[self._places[name]] = rng.choice(len(weights), p=[weight / sum(weights) for weight in weights])
        return self.decode(vector)

    def __iter__(self) -> Iterator[Row]:
        """Yield every distinct architecture once; for spaces small enough to walk through."""
        places = [self._places[name] for name in self._weights]
        for chosen in product(*(range(self.cardinalities[place]) for place in places)):
            first = np.zeros(len(self.genes), dtype=np.int64)
            first[places] = chosen
            active = self.active(first)
            ranges = [range(n) if exists else range(1) for n, exists in zip(self.cardinalities, active, strict=True)]
            for place, index in zip(places, chosen, strict=True):
                ranges[place] = range(index, index + 1)
            yield from map(self.decode, product(*ranges))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; ``from_dict`` reads them back."""
        return {
            "name": self.name,
            "genes": {gene.name: list(gene.choices) for gene in self.genes},
            "unordered": [g.name for g in self.genes if not g.ordered and _kind(g.choices[0]) is float],
            "needs": {name: list(need) for name, need in self.needs.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProductSpace:
        """Return the space that plain values describe.

        Args:
            values: ``name``; ``genes``, a list of choices by the name of the gene, numbers, texts or truth values;
                and if need be ``unordered``, genes of numbers whose order means nothing, and ``needs``, by gene
                another one and its least value.

        Raises:
            InputError: If a key is missing or unknown, or a value breaks a rule.
        """
        known = {"name", "genes", "unordered", "needs"}
        if not isinstance(values, Mapping) or not {"name", "genes"} <= set(values) <= known:
            given = sorted(map(str, values)) if isinstance(values, Mapping) else repr(values)
            raise InputError(f"a space of genes has the keys {sorted(known)}, got {given}")
        values = {"unordered": (), "needs": {}, **values}
        name, genes, unordered, needs = (values[key] for key in ("name", "genes", "unordered", "needs"))
        if not isinstance(name, str) or not name:
            raise InputError(f"name must be a non-empty text, got {name!r}")
        if not isinstance(genes, Mapping) or not genes or not all(isinstance(gene, str) and gene for gene in genes):
            raise InputError(f"genes must be lists of choices by their names, got {genes!r}")
        if not isinstance(unordered, list | tuple) or not all(
            isinstance(gene, str) and gene in genes for gene in unordered
        ):
            raise InputError(f"unordered must list some of {list(genes)}, got {unordered!r}")
        columns = tuple(_column(gene, choices, gene not in unordered) for gene, choices in genes.items())
        return cls(name, columns, _needs(needs, {column.name: column for column in columns}))


def _reaches(value: Choice, bound: float) -> bool:
    return cast(float, value) >= bound


def _kind(choice: object) -> type:
    return bool if isinstance(choice, bool) else float if isinstance(choice, int | float) else type(choice)


def _is_finite(number: float) -> bool:
    """Return whether a number is finite, also as a float, which an int may be too large for."""
    return abs(number) < 1e300


def _column(name: str, choices: Any, ordered: bool) -> Column:
    """Return a gene; numbers are sorted, anything else stays in its order."""
    rule = f"{name} must be a list of different numbers, texts or truth values"
    if not isinstance(choices, list | tuple) or not choices:
        raise InputError(f"{rule}, got {choices!r}")
    if len(choices) > MOST_CHOICES:
        raise InputError(f"{rule}, {MOST_CHOICES} at most, got {len(choices)}")
    kinds = {_kind(choice) for choice in choices}
    if len(kinds) != 1 or not kinds <= {bool, float, str}:
        raise InputError(f"{rule}, all of one kind, got {choices!r}")
    numbers = kinds == {float}
    if numbers and not all(map(_is_finite, choices)):
        raise InputError(f"{rule}, finite ones, got {choices!r}")
    if len(set(choices)) != len(choices):
        raise InputError(f"{rule}, got {choices!r}")
    return Column(name, tuple(sorted(choices) if numbers else choices), numbers and ordered)


def _needs(needs: Any, columns: Mapping[str, Column]) -> dict[str, tuple[str, float]]:
    rule = "needs must give a gene another one that needs nothing itself, of numbers, and its least value"
    if not isinstance(needs, Mapping):
        raise InputError(f"{rule}, got {needs!r}")
    found = {}
    for name, need in needs.items():
        pair = isinstance(need, list | tuple) and len(need) == 2 and isinstance(need[0], str)
        if (
            not pair
            or name not in columns
            or need[0] not in columns
            or need[0] in needs
            or _kind(columns[need[0]].choices[0]) is not float
            or _kind(need[1]) is not float
            or not _is_finite(need[1])
        ):
            raise InputError(f"{rule}, got {need!r} for {name!r}")
        found[name] = (need[0], need[1])
    return found
