"""Lists of architectures in files: JSON, or CSV as tables of results have it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spaces import LAYER_GENES, Choice, Genotype, InputError, Space

SUFFIXES = (".csv", ".json")
"""Files that hold lists."""


def read_architectures(path: Path, space: Space) -> list[Genotype]:
    """Return the different architectures of a file in its order.

    Args:
        path: ``.json`` file with a list of architectures, each as its genes by column or as
            :meth:`spaces.Architecture.to_dict` gives it, or ``.csv`` file with genes as columns. Genes of layers that
            do not exist may be empty; what is no gene is not read.
        space: Space that they are of.

    Raises:
        InputError: If the file cannot be read, has no architecture, or one that is not of the space.
    """
    rows = _read_json(path) if path.suffix == ".json" else _read_csv(path)
    if not rows:
        raise InputError(f"a list of architectures must have one or more, got none in {path}")
    return list(dict.fromkeys(_architecture(row, space, f"{path}, {at}") for at, row in rows.items()))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} must be a JSON file that can be read: {error}") from None
    if not isinstance(values, list):
        raise InputError(f"{path} must hold a list of architectures, got {type(values).__name__}")
    return {f"number {number}": row for number, row in enumerate(values, start=1)}


def _read_csv(path: Path) -> dict[str, Any]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            return {f"line {reader.line_num}": row for row in reader}
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} must be a CSV file that can be read: {error}") from None


def _architecture(row: Any, space: Space, where: str) -> Genotype:
    """Return the architecture that one entry of a list describes."""
    if not isinstance(row, Mapping):
        raise InputError(f"{where} must be the genes of an architecture by name, got {row!r}")
    if isinstance(row.get("layers"), list):
        row = _flat(row)
    given = {name: row[name] for name in space.columns if not _blank(row.get(name))}
    found = {name: _choice(value, space.choices(name), f"{where}: {name}") for name, value in given.items()}
    vector = [space.choices(name).index(found[name]) if name in found else 0 for name in space.columns]
    active = [name for name, matters in zip(space.columns, space.active(np.array(vector)), strict=True) if matters]
    missing = [name for name in active if name not in found]
    if missing:
        raise InputError(
            f"{where} must have all genes of its architecture, but {missing} are missing; the genes of the space "
            f"{space.name!r} are {list(space.columns)}"
        )
    return space.architecture({name: found[name] for name in active})


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an architecture as :meth:`spaces.Architecture.to_dict` gives it."""
    layers = [layer if isinstance(layer, Mapping) else {} for layer in values["layers"]]
    columns = {f"{gene}_{index}": layer.get(gene) for index, layer in enumerate(layers) for gene in LAYER_GENES}
    return {**values, "depth": len(layers), **columns}


def _blank(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _choice(value: Any, choices: tuple[Choice, ...], what: str) -> Choice:
    """Return the choice that a value is, or that a text stands for."""
    for choice in choices:
        if isinstance(value, str) and not isinstance(choice, str):
            if value.lower() == str(choice).lower() or (not isinstance(choice, bool) and _number(value) == choice):
                return choice
        elif value == choice and isinstance(value, bool) == isinstance(choice, bool):
            return choice
    raise InputError(f"{what} must be one of {list(choices)[:20]}, got {value!r}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
