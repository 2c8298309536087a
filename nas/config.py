"""Recipes: a run's whole configuration, immutable, strict, and loaded from TOML."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from evaluators import MODEL_METRICS
from nas.address import Recorded, parse_recorded
from nas.sections import DataConfig, ScoringConfig, SearchConfig, Section, TableConfig, WorkersConfig
from spaces import InputError
from supernet.settings import TrainSettings

_RECIPES = Path(__file__).parent / "recipes"

SUPERNET_KEYS = ("space", "data", "training", "scoring", "executor", "device")
"""Keys of a recipe that have no meaning with a table; with a source of the user's own only the device has."""


class RunConfig(Section):
    """A recipe.

    Attributes:
        name: Names the run folder.
        seed: The one seed; everything random in a run follows from it.
        space: Named space, path of a space file relative to the recipe, or ``package.module:Name``.
        table: Table that is searched instead of a space.
        source: Supernet of the user's own in place of Spikefront's, ``package.module:Name``.
        metrics: Evaluators, whose metrics are recorded for every candidate; ``energy_mj:MODEL`` and
            ``qnn_ratio:MODEL`` are under an energy model by its name, or its file relative to the recipe.
        options: Keyword arguments of evaluators, by name.
        executor: Who computes neurons: ``auto``, ``native`` (compiled C), ``cupy`` (CUDA), or ``reference``, plain
            torch layer by layer, subnet by subnet.
        device: Where to train and to score: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        storage: URL of a database, or ``journal:PATH``, in place of a SQLite file in the run folder; no password.
        storage_patience: Seconds that a search goes on for while its store cannot be reached.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    space: str | None = None
    table: TableConfig | None = None
    source: Annotated[str, Field(min_length=1)] | None = None
    metrics: tuple[str, ...] = (
        "accuracy",
        "energy_mj",
        "parameters",
        "macs",
        "spikes",
    )
    options: dict[str, dict[str, Any]] = Field({})
    executor: Literal["auto", "native", "cupy", "reference"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    storage: Recorded | None = None
    storage_patience: Annotated[FiniteFloat, Field(ge=0)] = 300.0
    data: DataConfig | None = None
    training: TrainSettings = TrainSettings()
    scoring: ScoringConfig = ScoringConfig()
    search: SearchConfig = SearchConfig()
    workers: WorkersConfig = WorkersConfig()

    @property
    def images(self) -> DataConfig:
        """Image set.

        Raises:
            InputError: If the recipe is not one of a supernet of Spikefront's.
        """
        if self.data is None:
            raise InputError(f"{self.name} searches {self.without('images and no supernet')}")
        return self.data

    def without(self, what: str) -> str:
        """Return where scores come from, if not from a supernet of Spikefront's, and what that lacks, in words."""
        if self.source is None:
            return f"a table, which has no {what}"
        return f"the source {self.source}, which has no {what} of Spikefront's"

    @property
    def lookup(self) -> TableConfig:
        """Table that is searched.

        Raises:
            InputError: If the recipe is one of a supernet.
        """
        if self.table is None:
            raise InputError(f"{self.name} searches networks and has no table")
        return self.table

    @property
    def space_name(self) -> str:
        """Named space, path of a space file, or ``package.module:Name``.

        Raises:
            InputError: If the recipe is not one of a supernet of Spikefront's.
        """
        if self.space is None:
            raise InputError(f"{self.name} searches {self.without('space of networks')}")
        return self.space

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold, without keys that mean nothing here; parsing them gives this."""
        unused = {"table", "source"} if self.data is not None else set(SUPERNET_KEYS)
        if self.table is not None:
            unused.add("source")
        elif self.source is not None:
            unused = (unused - {"device"}) | {"table"}
        return self.model_dump(mode="json", exclude=unused)

    def changed(self, **tables: dict[str, Any]) -> RunConfig:
        """Return the recipe with some keys replaced, validated anew; ``run`` holds the top-level keys.

        Files of energy models among the metrics, and a warm start, are relative to the working directory.

        Raises:
            InputError: If a value breaks a rule.
        """
        values = self.to_dict()
        if "expand" not in self.search.model_fields_set:  # its default is the algorithm's
            del values["search"]["expand"]
        for table, keys in tables.items():
            if not isinstance(keys, dict):
                raise InputError(f"recipe {self.name!r} with changes: {table} must be a table, got {keys!r}")
            if table == "run":
                values |= keys
            else:
                old = values.get(table)
                values[table] = {**old, **keys} if isinstance(old, dict) else keys
        if isinstance(values["metrics"], list | tuple):
            values["metrics"] = [_beside(Path.cwd(), metric) for metric in values["metrics"]]
        _locate_warm_start(values, Path.cwd())
        return parse_recipe(values, f"recipe {self.name!r} with changes")


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with Spikefront."""
    return sorted(path.stem for path in _RECIPES.glob("*.toml"))


def load_recipe(name_or_path: str | Path) -> RunConfig:
    """Return a named recipe, or the recipe of a TOML file.

    Args:
        name_or_path: A row of ``recipe_names()``, or a path ending in ``.toml``.

    Raises:
        InputError: If there is no such recipe, or a key or value breaks a rule.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if str(name_or_path) not in recipe_names():
            raise InputError(
                f"a recipe is one of {recipe_names()} or the path of a .toml file, got {str(name_or_path)!r}"
            )
        path = _RECIPES / f"{name_or_path}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no recipe at {path}; named recipes are {recipe_names()}") from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, too deep, or a number beyond all bounds
        raise InputError(f"{path} must be a TOML file: {error}") from None
    except OSError as error:
        raise InputError(f"recipe {path} cannot be read: {error}") from None
    space = values.get("space")
    if isinstance(space, str) and space.endswith(".toml"):
        values["space"] = str(_located(path.parent, space, "space"))
    table = values.get("table")
    if isinstance(table, dict) and isinstance(table.get("file"), str):
        file = _located(path.parent, table["file"], "table.file")
        if file.is_file():
            values["table"] = {**table, "file": str(file)}
    if isinstance(values.get("metrics"), list):
        values["metrics"] = [_beside(path.parent, metric) for metric in values["metrics"]]
    _locate_warm_start(values, path.parent)
    if isinstance(values.get("storage"), str):
        values["storage"] = parse_recorded(values["storage"], path.parent)
    return parse_recipe(values, str(path))


def _locate_warm_start(values: dict[str, Any], folder: Path) -> None:
    """Make the path of a warm start, given relative to a folder, a whole one."""
    search = values.get("search")
    if isinstance(search, dict) and isinstance(search.get("warm_start"), str) and search["warm_start"]:
        values["search"] = {**search, "warm_start": str(_located(folder, search["warm_start"], "search.warm_start"))}


def _located(folder: Path, name: str, key: str) -> Path:
    """Return the whole path of a file, given relative to a folder, whether there is one or not.

    Raises:
        InputError: If there can be none: the name is too long or has a null byte, or the way to it is barred.
    """
    try:
        path = (folder / name).resolve()
        path.exists()
    except (OSError, ValueError) as error:
        fact = getattr(error, "strerror", error)
        raise InputError(f"{key} must be a path, got {name[:80]!r}: {fact}") from None
    return path


def _beside(folder: Path, metric: Any) -> Any:
    """Return a metric whose energy model is a file, given relative to a folder, with the whole path of that file."""
    if not isinstance(metric, str) or not metric.endswith(".toml"):
        return metric
    name, colon, model = metric.partition(":")
    return f"{name}:{_located(folder, model, name)}" if name in MODEL_METRICS and colon else metric


def parse_recipe(values: dict[str, Any], source: str) -> RunConfig:
    """Return the recipe that plain values describe.

    Raises:
        InputError: If a key is unknown or missing, or a value breaks a rule; says all of them in one line.
    """
    try:
        text = json.dumps(_with_defaults(values), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise InputError(f"{source}: values must be texts, finite numbers, booleans, lists or tables") from None
    faults = _source_faults(values)
    try:
        config = RunConfig.model_validate_json(text, strict=True)
    except ValidationError as error:
        faults = [*map(_explain, error.errors()), *faults]
    if faults:
        raise InputError(f"{source}: {'; '.join(faults)}")
    return config


def _with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Return values in which recipes of tables, and of the user's own algorithms or sources, have other defaults."""
    search = values.get("search")
    if isinstance(search, dict) and ":" in str(search.get("algorithm")):
        values = {**values, "search": {"expand": 1, **search}}
    workers = values.get("workers", {})
    if values.get("source") is not None:
        return {"metrics": [], **values}
    if values.get("table") is None or not isinstance(workers, dict):
        return values
    # A look-up costs less than sending it to another process.
    return {"metrics": [], **values, "workers": {"pool": "local", **workers}}


def _source_faults(values: dict[str, Any]) -> list[str]:
    """Return what is wrong with where the scores of a recipe come from: a supernet, a table or a source, only one."""
    if values.get("source") is not None:
        given = [key for key in ("table", *SUPERNET_KEYS) if key != "device" and values.get(key) is not None]
        rule = "a recipe has space and [data], or [table], or source"
        return [f"{rule}: {', '.join(given)} cannot go with a source"] * bool(given)
    if values.get("table") is not None:
        given = [key for key in SUPERNET_KEYS if values.get(key) is not None]
        return [f"a recipe has space and [data], or [table]: {', '.join(given)} cannot go with a table"] * bool(given)
    faults = [f"missing key {key}" for key in ("space", "data") if values.get(key) is None]
    if len(faults) == 2:
        faults[1] += ", or [table] or source in place of both"
    return faults + ["metrics should have at least 1 item, got []"] * (values.get("metrics") in ([], ()))


def _explain(fault: Any) -> str:
    """Return rule and fact of one pydantic fault."""
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {name}; known keys here are {_known_keys(fault['loc'][:-1])}"
    if fault["type"] in ("missing", "missing_argument"):
        return f"missing key {name}"
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    rule = fault["msg"].removeprefix("Input ").lower() if fault["msg"].startswith("Input ") else fault["msg"]
    return f"{name} {rule}, got {fault['input']!r}"


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the table at a path of the recipe."""
    schema = TypeAdapter(RunConfig).json_schema()
    node = schema
    for part in path:
        node = node["properties"][part]
        while not node.keys().isdisjoint(("$ref", "allOf", "anyOf")):
            (reference,) = [n["$ref"] for n in [node, *node.get("allOf", ()), *node.get("anyOf", ())] if "$ref" in n]
            node = schema["$defs"][reference.rsplit("/", 1)[1]]
    return sorted(node["properties"])
