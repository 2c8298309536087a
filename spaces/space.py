"""A search space: which architectures exist, how many, and how vectors name them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spaces.architecture import LAYER_GENES, NETWORK_GENES, Architecture, Layer
from spaces.errors import InputError
from spaces.genes import Gene, parse_genes
from spaces.skeleton import Skeleton
from spaces.vectors import floored

_EXCITABILITY = frozenset({"v_threshold", "tau"})
"""Genes whose *small* values make neurons fire more."""


@dataclass(frozen=True)
class SearchSpace:
    """All architectures that a choice for each gene can name.

    A vector has one entry per network gene, then one per layer gene and possible layer. Integer vectors hold
    indices into the choices; real vectors hold numbers in ``[0, n)`` that are floored, so each choice owns an
    equal share. Entries of layers at or beyond the chosen depth are inactive: ``decode`` ignores them, and
    ``encode`` fills them with the last active layer.

    Attributes:
        name: How recipes and run folders call the space.
        genes: Genes by name, in the order of the encoding.
        skeleton: What all architectures of the space share.
        reference: Architecture of the space that one would have built by hand, to compare with, or None; spaces with
            other ones are equal.
    """

    name: str
    genes: Mapping[str, Gene]
    skeleton: Skeleton
    reference: Architecture | None = field(default=None, compare=False)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Name of each vector entry; layer genes carry the layer's index."""
        layers = [f"{gene}_{layer}" for layer in range(self.max_depth) for gene in LAYER_GENES]
        return (*NETWORK_GENES, *layers)

    @cached_property
    def cardinalities(self) -> NDArray[np.int64]:
        """Number of choices of each vector entry, ``(n_var,)``."""
        layer = [len(self.genes[gene].choices) for gene in LAYER_GENES]
        network = [len(self.genes[gene].choices) for gene in NETWORK_GENES]
        return np.array(network + layer * self.max_depth, dtype=np.int64)

    @cached_property
    def ordered(self) -> NDArray[np.bool_]:
        """Which vector entries have choices in a meaningful order, ``(n_var,)``: all, as every gene is a number."""
        return np.ones(len(self.columns), dtype=bool)

    def choices(self, column: str) -> tuple[int | float, ...]:
        """Return the choices of a column; vectors hold indices into them."""
        return self.genes[column if column in NETWORK_GENES else column.rpartition("_")[0]].choices

    @property
    def max_depth(self) -> int:
        """Layers of the deepest architecture."""
        return int(self.genes["depth"].choices[-1])

    @cached_property
    def size(self) -> int:
        """Exact number of distinct architectures."""
        per_network = prod(len(self.genes[gene].choices) for gene in ("embed_dim", "timesteps"))
        return per_network * sum(self._stacks(int(depth)) for depth in self.genes["depth"].choices)

    def _stacks(self, depth: int) -> int:
        """Return the number of distinct stacks of ``depth`` layers."""
        layer: int = prod(len(self.genes[gene].choices) for gene in LAYER_GENES)
        return int(layer**depth)

    def decode(self, vector: ArrayLike) -> Architecture:
        """Return the architecture that a vector of indices or of reals in ``[0, n)`` names.

        Args:
            vector: ``(n_var,)`` numbers; entries of inactive genes do not matter.

        Raises:
            InputError: If the length is wrong or an entry is outside its gene's range.
        """
        indices = floored(self, vector)
        network = [self.genes[gene].choices[i] for gene, i in zip(NETWORK_GENES, indices, strict=False)]
        embed_dim, timesteps, depth = (int(value) for value in network)
        rows = indices[len(NETWORK_GENES) :].reshape(-1, len(LAYER_GENES))[:depth]
        return Architecture(embed_dim, timesteps, tuple(self._layer(row) for row in rows))

    def _layer(self, indices: NDArray[np.int64]) -> Layer:
        mlp_ratio, num_heads, v_threshold, tau = (
            self.genes[gene].choices[index] for gene, index in zip(LAYER_GENES, indices, strict=True)
        )
        return Layer(float(mlp_ratio), int(num_heads), float(v_threshold), float(tau))

    def encode(self, architecture: Architecture) -> NDArray[np.int64]:
        """Return the index vector ``(n_var,)`` of an architecture of this space.

        Raises:
            InputError: If the architecture has a value that the space does not offer.
        """
        network = [self.genes[gene].index(getattr(architecture, gene)) for gene in NETWORK_GENES]
        layers = [
            [self.genes[gene].index(getattr(layer, gene)) for gene in LAYER_GENES] for layer in architecture.layers
        ]
        layers += layers[-1:] * (self.max_depth - len(layers))
        return np.array(network + [index for layer in layers for index in layer], dtype=np.int64)

    def canonical(self, vector: ArrayLike) -> NDArray[np.int64]:
        """Return the one index vector that all vectors of the same architecture share."""
        return self.encode(self.decode(vector))

    def active(self, vector: ArrayLike) -> NDArray[np.bool_]:
        """Return which entries of a vector matter, ``(n_var,)``: not those of layers beyond the chosen depth."""
        at = NETWORK_GENES.index("depth")
        depth = int(self.genes["depth"].choices[int(np.asarray(vector)[at])])
        return np.arange(len(self.columns)) < len(NETWORK_GENES) + depth * len(LAYER_GENES)

    def architecture(self, genes: Mapping[str, Any]) -> Architecture:
        """Return the architecture with these genes by column, as :attr:`Architecture.genes` gives them.

        Raises:
            InputError: If a gene is missing, unknown or not a number.
        """
        return Architecture.from_genes(genes)

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, Architecture):
            return False
        try:
            self.encode(architecture)
        except InputError:
            return False
        return True

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw an architecture, each distinct one with the same probability.

        Deep architectures outnumber shallow ones by orders of magnitude, so nearly all draws are deep.
        """
        depths = self.genes["depth"].choices
        stacks = [self._stacks(int(depth)) for depth in depths]
        weights = [count / sum(stacks) for count in stacks]
        indices = rng.integers(self.cardinalities)
        indices[NETWORK_GENES.index("depth")] = rng.choice(len(depths), p=weights)
        return self.decode(indices)

    def sample_genes(self, rng: np.random.Generator) -> Architecture:
        """Draw each gene uniformly, depth included: what a supernet is trained on [Chen2021]_.

        .. [Chen2021] Chen et al., "AutoFormer: Searching Transformers for Visual Recognition", ICCV 2021.
        """
        return self.decode(rng.integers(self.cardinalities))

    def __iter__(self) -> Iterator[Architecture]:
        """Yield every distinct architecture once; for spaces small enough to walk through."""
        network = len(NETWORK_GENES)
        for depth_index, depth in enumerate(self.genes["depth"].choices):
            active = self.cardinalities.copy()
            active[network - 1] = 1
            active[network + int(depth) * len(LAYER_GENES) :] = 1
            for indices in product(*(range(n) for n in active)):
                vector = np.array(indices)
                vector[network - 1] = depth_index
                yield self.decode(vector)

    def smallest(self) -> Architecture:
        """Return the narrowest, shallowest, shortest architecture, with the least excitable neurons."""
        return self._extreme(largest=False)

    def largest(self) -> Architecture:
        """Return the widest, deepest, longest architecture, with the most excitable neurons."""
        return self._extreme(largest=True)

    def _extreme(self, *, largest: bool) -> Architecture:
        def index(column: str) -> int:
            gene = column.rsplit("_", 1)[0] if column not in NETWORK_GENES else column
            last = len(self.genes[gene].choices) - 1
            return last if largest != (gene in _EXCITABILITY) else 0

        return self.decode([index(column) for column in self.columns])

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield every architecture that differs from this one in one gene.

        A deeper neighbour repeats the last layer; a shallower one drops layers from the end.
        """
        vector = self.encode(architecture)
        active = len(NETWORK_GENES) + architecture.depth * len(LAYER_GENES)
        for position in range(active):
            for index in range(self.cardinalities[position]):
                if index != vector[position]:
                    changed = vector.copy()
                    changed[position] = index
                    yield self.decode(changed)

    def with_input(self, image_size: int, in_channels: int, num_classes: int) -> SearchSpace:
        """Return the same space for images of another size, channel count or class count."""
        return replace(self, skeleton=self.skeleton.with_input(image_size, in_channels, num_classes))

    def with_reference(self, reference: Architecture | None) -> SearchSpace:
        """Return the same space with another architecture to compare with.

        Raises:
            InputError: If the space has no such architecture.
        """
        if reference is not None:
            self.encode(reference)
        return replace(self, reference=reference)

    def to_dict(self) -> dict[str, Any]:
        """Return the space as the plain values of its TOML file but for its reference; ``from_dict`` reads them."""
        return {
            "name": self.name,
            "skeleton": self.skeleton.to_dict(),
            "genes": {name: list(gene.choices) for name, gene in self.genes.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSpace:
        """Return the space that the plain values of a TOML or JSON file describe.

        Raises:
            InputError: If a key is missing or unknown, or a value breaks a rule.
        """
        known = {"name", "skeleton", "genes"}
        if set(values) - {"reference"} != known:
            raise InputError(
                f"a space has exactly the keys {sorted(known)}, perhaps a reference, got {sorted(map(str, values))}"
            )
        for table in ("skeleton", "genes", "reference"):
            if not isinstance(values.get(table, {}), Mapping):
                raise InputError(f"{table} must be a table, got {values[table]!r}")
        if not isinstance(values["name"], str) or not values["name"]:
            raise InputError(f"name must be a non-empty text, got {values['name']!r}")
        fields = Skeleton.__dataclass_fields__
        unknown = sorted(set(values["skeleton"]) - set(fields))
        required = {"image_size", "in_channels", "num_classes"}
        if unknown or not required <= set(values["skeleton"]):
            raise InputError(
                f"skeleton must have {sorted(required)} and may have {sorted(set(fields) - required)}, "
                f"got {sorted(values['skeleton'])}"
            )
        skeleton = Skeleton(**values["skeleton"])
        space = cls(values["name"], parse_genes(values["genes"], skeleton.neuron), skeleton)
        return space._with_reference_genes(values["reference"]) if "reference" in values else space

    def _with_reference_genes(self, genes: Mapping[str, Any]) -> SearchSpace:
        """Return the same space with the reference that has these genes; those of layers once, or one per layer.

        Raises:
            InputError: If a gene is missing, unknown or not one of its choices.
        """
        names = (*NETWORK_GENES, *LAYER_GENES)
        if set(genes) != set(names):
            raise InputError(f"reference must have exactly the genes {list(names)}, got {sorted(map(str, genes))}")
        depth = self.genes["depth"].choices[self.genes["depth"].index(genes["depth"])]
        columns = {gene: genes[gene] for gene in NETWORK_GENES}
        for gene in LAYER_GENES:
            given = genes[gene] if isinstance(genes[gene], list) else [genes[gene]] * int(depth)
            if len(given) != depth:
                raise InputError(
                    f"{gene} of the reference must be one value, or one for each of {depth} layers, got {given!r}"
                )
            columns |= {f"{gene}_{layer}": value for layer, value in enumerate(given)}
        return self.with_reference(Architecture.from_genes(columns))


def reference_of(space: object) -> Architecture | None:
    """Return what a space names to compare with; None if it names nothing, as spaces of other kinds do."""
    return space.reference if isinstance(space, SearchSpace) else None
