"""Genes as data: names, choices, and the rules that choices must keep."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from spaces.architecture import LAYER_GENES, NETWORK_GENES, hidden_width
from spaces.errors import InputError

STEM_SLICES = 8
"""``embed_dim`` must be a multiple of this: the first stem stage has D/8 channels."""

NEURONS_WITHOUT_TAU = frozenset({"if"})
"""Neurons that do not leak, in whose spaces ``tau`` can have one choice only; a user's own answer for themselves."""

LARGEST = 2**16
"""Bound of every choice, far beyond what anybody trains."""

_RULES: dict[str, tuple[type, str, Callable[[float], bool]]] = {
    "embed_dim": (
        int,
        f"positive multiples of {STEM_SLICES}",
        lambda value: 0 < value <= LARGEST and value % STEM_SLICES == 0,
    ),
    "timesteps": (int, "positive integers", lambda value: 0 < value <= LARGEST),
    "depth": (int, "positive integers", lambda value: 0 < value <= LARGEST),
    "mlp_ratio": (float, "positive numbers", lambda value: 0 < value <= LARGEST),
    "num_heads": (int, "positive integers", lambda value: 0 < value <= LARGEST),
    "v_threshold": (float, "positive numbers", lambda value: 0 < value <= LARGEST),
    "tau": (float, "numbers above 1", lambda value: 1 < value <= LARGEST),
}


@dataclass(frozen=True)
class Gene:
    """One decision of a search space.

    Attributes:
        name: One of ``NETWORK_GENES`` or ``LAYER_GENES``.
        choices: Different values in rising order; vectors hold indices into them.
    """

    name: str
    choices: tuple[int | float, ...]

    def __post_init__(self) -> None:
        if self.name not in _RULES:
            raise InputError(f"genes are {sorted(_RULES)}, got {self.name!r}")
        kind, rule, holds = _RULES[self.name]
        if not isinstance(self.choices, list | tuple) or not self.choices:
            raise InputError(f"{self.name} must be a non-empty list of {rule}, got {self.choices!r}")
        for value in self.choices:
            whole = isinstance(value, int) or (kind is float and isinstance(value, float))
            if isinstance(value, bool) or not whole or not abs(value) <= sys.float_info.max or not holds(value):
                raise InputError(f"choices of {self.name} must be {rule}, got {value!r}")
        choices = tuple(sorted(kind(value) for value in self.choices))
        if len(set(choices)) != len(choices):
            raise InputError(f"choices of {self.name} must differ, got {list(self.choices)}")
        object.__setattr__(self, "choices", choices)

    def index(self, value: float) -> int:
        """Return the position of ``value`` among the choices."""
        if value not in self.choices:
            raise InputError(f"{self.name} must be one of {list(self.choices)}, got {value!r}")
        return self.choices.index(value)


def parse_genes(table: Mapping[str, Any], neuron: str) -> dict[str, Gene]:
    """Return the genes of a space in the order of its encoding.

    Args:
        table: Choices by gene name; all seven genes, a fixed one as a list of one value.
        neuron: Neuron of the space's skeleton, which decides whether ``tau`` can vary.

    Raises:
        InputError: If a gene is missing or unknown, or if choices cannot be combined.
    """
    names = (*NETWORK_GENES, *LAYER_GENES)
    missing, unknown = [n for n in names if n not in table], sorted(set(table) - set(names))
    if missing or unknown:
        raise InputError(
            f"a space has the genes {list(names)}, missing {missing}, unknown {unknown}"
            " (fix a gene by giving it a list of one value)"
        )
    genes = {name: Gene(name, table[name]) for name in names}
    for width, heads in product(genes["embed_dim"].choices, genes["num_heads"].choices):
        if width % heads:
            raise InputError(
                f"embed_dim must be divisible by every num_heads choice, got embed_dim {width} with num_heads {heads}"
            )
    for width, ratio in product(genes["embed_dim"].choices, genes["mlp_ratio"].choices):
        if not math.isclose(width * ratio, hidden_width(int(width), ratio), rel_tol=1e-9):
            raise InputError(
                f"embed_dim times mlp_ratio must be a whole number, got embed_dim {width} with mlp_ratio {ratio}"
            )
    if neuron in NEURONS_WITHOUT_TAU and len(genes["tau"].choices) > 1:
        raise InputError(
            f"the {neuron} neuron does not leak, so tau must have one choice, got "
            f"{list(genes['tau'].choices)}; choose the lif or plif neuron to search tau"
        )
    return genes
