"""The folder of a run: which recipe it belongs to, and where and with what it was made."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from evaluators import MODEL_METRICS, EnergyModel, Sense, model_files, parse_energy_model, read_energy_tables
from nas.config import RunConfig, parse_recipe
from nas.sections import LIMITS
from spaces import Architecture, InputError, ProductSpace, SearchSpace, Space, TableSpace, reference_of
from supernet.files import INDEX, write_atomically

RUN = "run.json"
_FORMAT = "spikefront-run-1"
STORE = "study.db"
_LOCK = ".lock"
_GLANCE = 0.5
"""Seconds for which those who only look whether a folder is held may hold it at most, all of them together."""
LINK = "study.url"
"""File that says where the store of a run is, if it is elsewhere than in ``STORE``."""
_FILES = (STORE, LINK, INDEX, "report.html", "front.csv")
_ELSEWHERE = ("workers", "storage", "storage_patience")
"""Keys of a recipe that do not change what a run finds."""
_TEXTS = ("id", "images", "table", "data_dir")
_OPTIONAL = ("energy_models", "reference", "warm_start", "metrics", "source")
_SOURCE = {"fingerprint": str, "tested": bool}
_FACTS = {"started", "python", "platform", "cores", "versions", "revision"}
_PACKAGES = ("spikefront", "torch", "pymoo", "ray", "optuna", "numpy", "pandas", "moocore", "kornia")


def create_folder(
    folder: Path,
    config: RunConfig,
    space: Space,
    data_dir: Path | None,
    record: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make a folder the one of a run, or check that it is, and return what ``run.json`` holds.

    A longer search and other workers continue a run; anything else that differs belongs into another folder, but a
    run that was only trained can be searched in any way.

    Args:
        folder: Run folder, created if need be.
        config: Recipe.
        space: Its space, with the input shape of its images.
        data_dir: Folder of images and tables, or None.
        record: What the run owns from now on, of ``images`` and ``table`` (their fingerprints),
            ``source`` (fingerprint of the user's own, and whether it has a test split), ``energy_models`` (tables of
            the user's models by name), ``warm_start`` (what it begins with), and ``metrics`` (their senses by name,
            in order).

    Raises:
        InputError: If the folder cannot be written, or belongs to another recipe.
    """
    reference = reference_of(space)
    values = {
        "format": _FORMAT,
        "id": f"{config.name}-{secrets.token_hex(6)}",
        "recipe": config.to_dict(),
        "space": space.to_dict(),
        "energy_models": {},
        "images": None,
        "table": None,
        "source": None,
        "reference": None if reference is None else reference.to_dict(),
        "warm_start": None,
        "metrics": None,
        **(record or {}),
        "data_dir": None if data_dir is None else str(data_dir.resolve()),
        "facts": run_facts(),
    }
    values = dict(json.loads(json.dumps(values)))
    try:
        odd = [name for name in (RUN, _LOCK, *_FILES) if (folder / name).is_dir()]
        claimed = (folder / RUN).exists()
    except OSError as error:
        raise InputError(f"the run folder must be writable, but {folder}: {error.strerror}") from None
    if odd:
        raise InputError(f"{', '.join(odd)} of the run folder {folder} must be files, got folders; move them away")
    if not claimed:
        foreign = [name for name in _FILES if (folder / name).exists()]
        if foreign:
            raise InputError(
                f"{folder} has {foreign} but no {RUN}, so they belong to no known run; choose another folder with "
                "--out, or move them away"
            )
    else:
        old = read_run(folder)
        if old["energy_models"] is None:  # a folder from before runs owned them
            old["energy_models"] = values["energy_models"]
        if isinstance(old["recipe"].get("search"), dict):  # one from before there was a choice keeps its mode anyway
            old["recipe"]["search"].setdefault("mode", config.search.mode)
        if old["metrics"] is None:
            old["metrics"] = values["metrics"]
        recorded = parse_recipe(old["recipe"], str(folder / RUN))
        begun = has_begun(folder)
        recipe = recorded.to_dict()  # with the defaults of keys that are younger than the folder
        different = _differences(_identity({**old, "recipe": recipe}, begun), _identity(values, begun))
        if different:
            way_out = "choose another folder with --out, or the recipe it was made with"
            if any(name.startswith("energy_models.") for name in different):
                way_out += "; without the file of its energy model, a run goes on with the copy that it keeps"
            raise InputError(
                f"{folder} holds a run of another recipe, which differs in {', '.join(different)}; {way_out}"
            )
        if begun:
            _check_limits(recorded, config, folder)
            _check_storage(recorded, config, folder)
            values["recipe"]["storage"] = recorded.storage
        values["facts"], values["id"] = old["facts"], old["id"] or values["id"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RUN, json.dumps(values, indent=1).encode())
    except OSError as error:
        raise InputError(
            f"the run folder must be writable, but {folder}: {error.strerror}; choose another with --out"
        ) from None
    return values


class HeldError(InputError):
    """Another process works on a run."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a run folder inside the block; the kernel frees it if this one dies.

    Raises:
        HeldError: If another process holds the folder.
    """
    with (folder / _LOCK).open("w") as lock:
        deadline = time.monotonic() + _GLANCE
        while not _locks(lock, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise HeldError(
                    f"one process at a time writes a run, but another one is at work in {folder}; wait for it, stop "
                    "it, or share its search with `nas search --join`"
                )
            time.sleep(_GLANCE / 20)
        yield


def is_held(folder: Path) -> bool:
    """Return whether a process of this machine is at work in a run folder; holds it for an instant if none is."""
    try:
        with (folder / _LOCK).open("r") as lock:
            return not _locks(lock, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except OSError:  # it is another user's
        return True


def _locks(file: IO[str], operation: int) -> bool:
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def has_begun(folder: Path) -> bool:
    """Return whether a run folder has a store, here or elsewhere, so that its search has begun."""
    return (folder / STORE).exists() or (folder / LINK).exists()


def read_run(folder: Path) -> dict[str, Any]:
    """Return what ``run.json`` holds.

    Raises:
        InputError: If the folder is not the one of a run.
    """
    path = folder / RUN
    try:
        values = json.loads(path.read_bytes())
        json.dumps(values, ensure_ascii=False).encode()  # half of a surrogate pair could not be shown or written
    except FileNotFoundError:
        raise InputError(f"{folder} is not a run folder: it has no {RUN}; start one with `nas search`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    own = {"energy_models", "images", "table", "source", "reference", "warm_start", "metrics"}
    keys = {"format", "id", "recipe", "space", "data_dir", "facts", *own}
    tables = ("recipe", "space", "facts")
    if isinstance(values, dict):
        values.setdefault("energy_models", None)  # a folder from before runs owned them
        values.setdefault("table", None)  # or from before there were any
        values.setdefault("source", None)
        values.setdefault("reference", None)
        values.setdefault("warm_start", None)
        values.setdefault("metrics", None)
        if isinstance(values.get("recipe"), dict) and isinstance(values["recipe"].get("search"), dict):
            values["recipe"]["search"].setdefault("expand", 1)  # what runs did before there was a reranker
        values.setdefault("id", None)  # or from before they had one
    if (
        not isinstance(values, dict)
        or set(values) != keys
        or not all(isinstance(values[name], dict | None) for name in _OPTIONAL)
        or values["format"] != _FORMAT
        or not all(isinstance(values[name], dict) for name in tables)
        or not set(values["facts"]) >= _FACTS
        or not isinstance(values["facts"]["versions"], dict)
        or not all(values[name] is None or isinstance(values[name], str) for name in _TEXTS)
        or not all(sense in ("max", "min") for sense in (values["metrics"] or {}).values())
        or {name: type(value) for name, value in (values["source"] or {}).items()} not in ({}, _SOURCE)
    ):
        raise InputError(f"{path} must be of format {_FORMAT} with the keys {sorted(keys)}")
    return values


def read_energy_models(folder: Path, config: RunConfig) -> dict[str, Any]:
    """Return the tables of the user's energy models in a recipe, by name.

    Those whose file is no longer there are the ones that the run folder keeps.

    Raises:
        InputError: If a model is neither in its file nor in the folder, or two have one name.
    """
    tables: dict[str, Any] = {}
    for name, path in model_files(config.metrics).items():
        kept = read_run(folder)["energy_models"] or {} if not path.exists() and (folder / RUN).is_file() else {}
        tables[name] = kept[name] if name in kept else read_energy_tables(path)
    return tables


def open_energy_models(folder: Path) -> dict[str, EnergyModel]:
    """Return the user's energy models that a run keeps, by name; none for a folder from before runs kept them."""
    tables = read_run(folder)["energy_models"] or {}
    return {name: parse_energy_model(name, values, f"{folder / RUN}, {name}") for name, values in tables.items()}


def recorded_senses(folder: Path) -> dict[str, Sense] | None:
    """Return the metrics of a run in order, each with its sense; None for a folder from before runs kept them."""
    found: dict[str, Sense] | None = read_run(folder)["metrics"]
    return found


def open_recipe(folder: Path) -> tuple[RunConfig, Space]:
    """Return recipe and space of a run folder."""
    values = read_run(folder)
    config = parse_recipe(values["recipe"], str(folder / RUN))
    try:
        if config.table is not None or (config.source is not None and "rows" in values["space"]):
            return config, TableSpace.from_dict(values["space"])
        if config.source is not None and "skeleton" not in values["space"]:
            return config, ProductSpace.from_dict(values["space"])
        space, reference = SearchSpace.from_dict(values["space"]), values["reference"]
        return config, space.with_reference(None if reference is None else Architecture.from_dict(reference))
    except InputError as error:
        raise InputError(f"{folder / RUN}: {error}") from None


def _check_limits(recorded: RunConfig, config: RunConfig, folder: Path) -> None:
    """Raise InputError if a limit of a search that has begun shrinks; None is no limit."""
    for name in LIMITS:
        before, now = getattr(recorded.search, name), getattr(config.search, name)
        if now is not None and (before is None or now < before):
            raise InputError(
                f"search.{name} can grow in a run folder, not shrink: "
                f"{'no limit' if before is None else before} in {folder}, got {now}; choose another folder with --out"
            )


def _check_storage(recorded: RunConfig, config: RunConfig, folder: Path) -> None:
    """Raise InputError if a search that has begun is to go on in another store than its own."""
    if config.storage not in (None, recorded.storage):
        raise InputError(
            f"a run goes on in the store it has begun in, which is {recorded.storage or folder / STORE}, got "
            f"{config.storage}; leave --storage out or choose another folder with --out; if the store itself has "
            f"moved, say so in storage of {folder / RUN}"
        )


def _identity(values: Mapping[str, Any], begun: bool) -> dict[str, Any]:
    """Return what makes two runs the same one: how they search only if they have begun to."""
    recipe = {name: value for name, value in values["recipe"].items() if name not in _ELSEWHERE}
    threads = values["recipe"]["workers"]["threads"]  # these can change the last bits of a sum
    search = {name: value for name, value in recipe["search"].items() if name not in LIMITS}
    search["warm_start"] = (values["warm_start"] or {}).get("sha256")  # wherever it lies
    metrics = [without_folder(metric) for metric in recipe["metrics"]]
    recipe |= {"search": search if begun else None, "workers": {"threads": threads}, "metrics": metrics}
    recipe["senses"] = values["metrics"]
    if recipe.get("table") is not None:  # wherever its file lies, and its rows make the space
        return {**recipe, "table": {**recipe["table"], "file": None, "sha256": values["table"]}}
    if recipe.get("source") is not None:
        return {**recipe, "space": values["space"], "answers": values["source"]}
    data = {**recipe["data"], "images": values["images"]}
    scoring = {name: value for name, value in recipe["scoring"].items() if name != "cache_mb"}
    recipe |= {"scoring": scoring, "data": data}
    return {**recipe, "space": values["space"], "energy_models": values["energy_models"]}


def without_folder(metric: str) -> str:
    """Return a metric without the folder of its energy model, which is compared by its tables."""
    name, _, model = metric.partition(":")
    return f"{name}:{Path(model).name}" if name in MODEL_METRICS and model.endswith(".toml") else metric


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return the dotted names at which two nested tables differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(set(old) | set(new))
        return [d for n in names for d in _differences(old.get(n), new.get(n), f"{path}.{n}".lstrip("."))]
    return [] if old == new else [f"{path} ({old!r} there, {new!r} here)"]


def run_facts() -> dict[str, Any]:
    """Return when, where and with which versions a run starts."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "revision": _revision(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """Return the git revision that this code was run from, marked if it was changed; None outside a clone."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        for command in (["ls-files", "--error-unmatch", Path(__file__).name], ["describe", "--always", "--dirty"]):
            result = subprocess.run([*git, *command], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
