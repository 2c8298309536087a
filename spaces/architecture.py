"""One network of a space, as a value: what to build, never how it is doing."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from spaces.errors import InputError

LAYER_GENES = ("mlp_ratio", "num_heads", "v_threshold", "tau")
"""Genes that each transformer block has for itself, in the order of the encoding."""

NETWORK_GENES = ("embed_dim", "timesteps", "depth")
"""Genes that the whole network shares, in the order of the encoding."""


def hidden_width(embed_dim: int, mlp_ratio: float) -> int:
    """Return the hidden width of an MLP, the nearest whole number to ``embed_dim * mlp_ratio``."""
    return round(embed_dim * mlp_ratio)


@dataclass(frozen=True)
class Layer:
    """Genes of one transformer block.

    Attributes:
        mlp_ratio: Hidden width of the MLP over ``embed_dim``.
        num_heads: Attention heads; divides ``embed_dim``.
        v_threshold: Membrane potential at which the block's neurons fire; the attention neuron fires at half.
        tau: Membrane time constant of the block's neurons in timesteps, above 1.
    """

    mlp_ratio: float
    num_heads: int
    v_threshold: float
    tau: float

    def __post_init__(self) -> None:
        for gene in ("mlp_ratio", "v_threshold", "tau"):  # 2 and 2.0 are one value with one key
            object.__setattr__(self, gene, float(getattr(self, gene)))


@dataclass(frozen=True)
class Architecture:
    """A Spikformer's genes; only the layers that exist, so equal networks are equal values.

    The stem's neurons share ``v_threshold`` and ``tau`` with the first block.

    Attributes:
        embed_dim: Token width D, a multiple of 8 (the stem grows as D/8, D/4, D/2, D).
        timesteps: Simulation length T.
        layers: One entry per transformer block, in the order of execution.
    """

    embed_dim: int
    timesteps: int
    layers: tuple[Layer, ...]

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return len(self.layers)

    @cached_property
    def key(self) -> str:
        """Content key: 12 hexadecimal digits, the same on every machine and in every process."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def genes(self) -> dict[str, int | float]:
        """Active genes by column name; a layer's genes carry its index, as in ``num_heads_0``."""
        named: dict[str, int | float] = {
            "embed_dim": self.embed_dim,
            "timesteps": self.timesteps,
            "depth": self.depth,
        }
        for index, layer in enumerate(self.layers):
            named |= {f"{gene}_{index}": getattr(layer, gene) for gene in LAYER_GENES}
        return named

    @classmethod
    def from_genes(cls, genes: Mapping[str, Any]) -> Architecture:
        """Return the architecture whose :attr:`genes` these are.

        Raises:
            InputError: If a gene is missing, unknown or not a number.
        """
        depth = min(_integer("depth", genes), len(genes)) if "depth" in genes else 0  # more cannot be there
        columns = [*NETWORK_GENES, *(f"{gene}_{layer}" for layer in range(depth) for gene in LAYER_GENES)]
        missing, unknown = [n for n in columns if n not in genes], sorted(set(genes) - set(columns))
        if missing or unknown:
            raise InputError(f"an architecture has exactly the genes {columns}, missing {missing}, unknown {unknown}")
        layers = [{gene: genes[f"{gene}_{layer}"] for gene in LAYER_GENES} for layer in range(depth)]
        return cls.from_dict({"embed_dim": genes["embed_dim"], "timesteps": genes["timesteps"], "layers": layers})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; ``from_dict`` reads them back."""
        return {
            "embed_dim": self.embed_dim,
            "timesteps": self.timesteps,
            "layers": [asdict(layer) for layer in self.layers],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Architecture:
        """Return the architecture written by ``to_dict``.

        Raises:
            InputError: If a field is missing, unknown, or not a number.
        """
        _require_fields("an architecture", values, {"embed_dim", "timesteps", "layers"})
        if not isinstance(values["layers"], list) or not values["layers"]:
            raise InputError(f"layers must be a non-empty list, got {values['layers']!r}")
        layers = []
        for layer in values["layers"]:
            _require_fields("a layer", layer, set(LAYER_GENES))
            layers.append(
                Layer(
                    _number("mlp_ratio", layer),
                    _integer("num_heads", layer),
                    _number("v_threshold", layer),
                    _number("tau", layer),
                )
            )
        return cls(_integer("embed_dim", values), _integer("timesteps", values), tuple(layers))


def _require_fields(what: str, values: object, fields: set[str]) -> None:
    if not isinstance(values, Mapping) or set(values) != fields:
        found = sorted(map(str, values)) if isinstance(values, Mapping) else repr(values)
        raise InputError(f"{what} has exactly the fields {sorted(fields)}, got {found}")


def _number(name: str, values: Mapping[str, Any]) -> float:
    value = values[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise InputError(f"{name} must be a finite number, got {value!r}")
    return value


def _integer(name: str, values: Mapping[str, Any]) -> int:
    value = _number(name, values)
    if value != int(value):
        raise InputError(f"{name} must be a whole number, got {value!r}")
    return int(value)
