"""Energy models: what an operation and a byte cost, and what counts as one; data in TOML files.

A model is a row of ``energy_model_names()`` or the path of a file. Keys and rules are explained in docs/energy.md.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from spaces import InputError

DEFAULT_MODEL = "sop45"
"""Model of ``energy_mj`` without a name."""

MODEL_METRICS = ("energy_mj", "qnn_ratio")
"""Metrics that may be under an energy model by its name or file, as in ``energy_mj:loihi``."""

LAYERS = ("convolution", "linear", "product", "analog")
"""Kinds of layers that a model may count; ``analog`` are the first convolution and the head."""

_MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Picojoules of a multiply-accumulate, an accumulate, a neuron's update in one timestep, and a spike."""

    mac: float
    accumulate: float
    neuron: float = 0.0
    spike: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Counting:
    """What counts as an operation.

    Attributes:
        layers: Rows of ``LAYERS`` that are counted.
        integers: An arriving integer k is k accumulates (``value``), one (``nonzero``), or makes its layer a dense
            one of multiply-accumulates (``mac``); products of an attention, whose one operand is binary, stay
            accumulates.
        fan_out: ``true``, or ``average``: events times the dense operations over the inputs, as if there were no
            borders.
        analog: The first convolution is computed ``once``, or at ``every timestep``.
    """

    layers: tuple[str, ...] = LAYERS
    integers: str = "value"
    fan_out: str = "true"
    analog: str = "once"


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Size of one access, in bytes, and what a byte costs, in picojoules."""

    bytes: float
    pj_per_byte: float

    @property
    def pj(self) -> float:
        """Picojoules of an access."""
        return self.bytes * self.pj_per_byte


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What memory costs.

    Attributes:
        weights: One weight, read at each operation.
        spikes: One event, written where it is fired and read where it arrives.
        membrane: One potential, read and written at each timestep.
        activations: One value that goes into or out of an analog layer, or any layer of a dense network.
        on_chip_bytes: Weights beyond these are fetched from another memory once per image.
        off_chip_pj_per_byte: Picojoules of a byte there.
        dense_reuse: Multiply-accumulates of a dense network that share one read of a weight.
    """

    weights: Traffic
    spikes: Traffic
    membrane: Traffic
    activations: Traffic
    on_chip_bytes: float
    off_chip_pj_per_byte: float
    dense_reuse: float = 1.0


@dataclass(frozen=True, kw_only=True)
class EnergyModel:
    """One convention.

    Attributes:
        name: Its name in metrics and tables.
        title: What it counts, in a line.
        source: Where its figures come from.
        checked: Whether these were ``read`` there, ``measured`` by whoever wrote the file, or are ``recalled``.
        operations: Energies of operations.
        counting: What counts as one.
        memory: Energies of traffic; None if it is left out.
    """

    name: str
    title: str
    source: str
    checked: str
    operations: Operations
    counting: Counting = field(default_factory=Counting)
    memory: Memory | None = None


def energy_model_names() -> list[str]:
    """Return the names of the models that come with Spikefront, the default first."""
    return sorted((path.stem for path in _MODELS.glob("*.toml")), key=lambda name: (name != DEFAULT_MODEL, name))


def load_energy_model(name_or_path: str) -> EnergyModel:
    """Return a named model, or the one of a TOML file, whose name is that of the file.

    Args:
        name_or_path: Row of ``energy_model_names()``, or a path ending in ``.toml``.

    Raises:
        InputError: If there is no such model, or a key or value breaks a rule.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        return _load_shipped(name_or_path)
    return parse_energy_model(path.stem, read_energy_tables(path), str(path))


@cache
def _load_shipped(name: str) -> EnergyModel:
    if name not in energy_model_names():
        raise InputError(
            f"an energy model is one of {energy_model_names()} or the path of a .toml file, got {name!r}"
        )
    path = _MODELS / f"{name}.toml"
    return parse_energy_model(name, _read_tables(path), str(path))


def read_energy_tables(path: Path) -> dict[str, Any]:
    """Return the plain values of a user's energy model, for :func:`parse_energy_model`.

    Raises:
        InputError: If it cannot be read, is no TOML file, or has the name of a model that comes with Spikefront.
    """
    if path.stem in energy_model_names():
        raise InputError(f"{path.stem} is a model that comes with Spikefront; give {path} another name")
    return _read_tables(path)


def _read_tables(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no energy model at {path}; named ones are {energy_model_names()}") from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or too deep
        raise InputError(f"{path} must be a TOML file: {error}") from None
    except OSError as error:
        raise InputError(f"energy model {path} cannot be read: {error}") from None


def parse_energy_model(name: str, values: Mapping[str, Any], source: str) -> EnergyModel:
    """Return the model that plain values describe.

    Raises:
        InputError: If a key is unknown or missing, or a value breaks a rule.
    """
    read = _Reader(source)
    read.keys("", values, ("title", "source", "checked", "operations"), ("title", "source", "checked", *_TABLES))
    return EnergyModel(
        name=name,
        title=read.text("title", values["title"]),
        source=read.text("source", values["source"]),
        checked=read.choice("checked", values["checked"], ("read", "measured", "recalled")),
        **{key: table(read, values[key]) for key, table in _TABLES.items() if key in values},
    )


@dataclass(frozen=True)
class _Reader:
    """Checks values, and says where a wrong one stands."""

    source: str

    def keys(self, table: str, values: Any, needed: tuple[str, ...], known: tuple[str, ...]) -> None:
        """Check that a table has all keys that it needs, and none that is unknown."""
        where = f"[{table}] " if table else ""
        if not isinstance(values, Mapping):
            raise InputError(f"{self.source}: {table} must be a table, got {values!r}")
        unknown, missing = sorted(set(values) - set(known)), [key for key in needed if key not in values]
        if unknown:
            raise InputError(f"{self.source}: {where}unknown keys {unknown}; known ones are {sorted(known)}")
        if missing:
            raise InputError(f"{self.source}: {where}missing keys {missing}")

    def number(self, key: str, value: Any, least: float = 0.0) -> float:
        """Return a finite number, ``least`` or more."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
            raise InputError(f"{self.source}: {key} must be a number, {least:g} or more, got {value!r}")
        try:
            return float(value)
        except OverflowError:
            raise InputError(f"{self.source}: {key} must be a number that is not beyond all bounds") from None

    def text(self, key: str, value: Any) -> str:
        """Return a text that is not empty."""
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{self.source}: {key} must be a text, got {value!r}")
        return value

    def choice(self, key: str, value: Any, choices: tuple[str, ...]) -> str:
        """Return one of several texts."""
        if value not in choices:
            raise InputError(f"{self.source}: {key} must be one of {list(choices)}, got {value!r}")
        return str(value)


def _operations(read: _Reader, values: Any) -> Operations:
    read.keys("operations", values, ("mac", "accumulate"), ("mac", "accumulate", "neuron", "spike"))
    return Operations(**{key: read.number(f"operations.{key}", value) for key, value in values.items()})


def _counting(read: _Reader, values: Any) -> Counting:
    choices = {"integers": ("value", "nonzero", "mac"), "fan_out": ("true", "average"), "analog": _ANALOG}
    read.keys("counting", values, (), ("layers", *choices))
    found: dict[str, Any] = {
        key: read.choice(f"counting.{key}", values[key], choices[key]) for key in choices if key in values
    }
    if "layers" in values:
        layers = values["layers"]
        if not isinstance(layers, list) or not layers or not all(layer in LAYERS for layer in layers):
            raise InputError(f"{read.source}: counting.layers must be a list of {list(LAYERS)}, got {layers!r}")
        found["layers"] = tuple(layers)
    counting = Counting(**found)
    if counting.fan_out == "average" and counting.integers == "value":
        raise InputError(f"{read.source}: an average fan_out is of events, so integers must be nonzero or mac")
    return counting


_ANALOG = ("once", "every timestep")


def _memory(read: _Reader, values: Any) -> Memory:
    kinds, sizes = ("weights", "spikes", "membrane", "activations"), ("on_chip_bytes", "off_chip_pj_per_byte")
    read.keys("memory", values, (*kinds, *sizes), (*kinds, *sizes, "dense_reuse"))
    traffic = {}
    for kind in kinds:
        read.keys(f"memory.{kind}", values[kind], ("bytes", "pj_per_byte"), ("bytes", "pj_per_byte"))
        numbers = {key: read.number(f"memory.{kind}.{key}", value) for key, value in values[kind].items()}
        traffic[kind] = Traffic(**numbers)
    on_chip, off_chip = (read.number(f"memory.{key}", values[key]) for key in sizes)
    reuse = read.number("memory.dense_reuse", values.get("dense_reuse", 1), least=1)
    return Memory(**traffic, on_chip_bytes=on_chip, off_chip_pj_per_byte=off_chip, dense_reuse=reuse)


_TABLES: dict[str, Callable[[_Reader, Any], Any]] = {
    "operations": _operations,
    "counting": _counting,
    "memory": _memory,
}


def model_files(names: Sequence[str]) -> dict[str, Path]:
    """Return the files of users' energy models that evaluators are under, by the name of the model.

    Raises:
        InputError: If two files have one name.
    """
    found: dict[str, Path] = {}
    for name in names:
        metric, _, model = name.partition(":")
        path = Path(model)
        if metric not in MODEL_METRICS or path.suffix != ".toml":
            continue
        if found.setdefault(path.stem, path) != path:
            raise InputError(
                f"energy models must differ in name, but {found[path.stem]} and {path} are {path.stem!r}"
            )
    return found
