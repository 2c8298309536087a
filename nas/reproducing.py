"""What somebody else needs to run a run again: its recipe, the files it names, and the commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluators import MODEL_METRICS
from nas.folder import read_run
from nas.run import Run
from nas.soundness import MODE
from spaces import LAYER_GENES, NETWORK_GENES, Architecture

_LEFT_OUT = ("storage", "storage_patience")
"""Keys of a recipe that say where a run was, and not what it did."""


def recipe_files(run: Run) -> dict[str, str]:
    """Return the files that make a run again, by name: its recipe first, then its space and its energy models.

    Paths in them are relative to the recipe. A table, and what a warm start began with, are not among them.
    """
    values = read_run(run.folder)
    recipe = {key: value for key, value in run.config.to_dict().items() if key not in _LEFT_OUT}
    files: dict[str, str] = {}
    space = str(recipe.get("space", ""))
    if space.endswith(".toml") or ":" in space:
        recipe["space"] = "space.toml"
        files["space.toml"] = toml({**values["space"], **_reference(run.by_hand)})
    for name, tables in (values["energy_models"] or {}).items():
        files[f"{name}.toml"] = toml(tables)
    recipe["metrics"] = [_beside(metric) for metric in recipe["metrics"]]
    search = recipe["search"]
    if search.get("warm_start"):
        recipe["search"] = {**search, "warm_start": Path(search["warm_start"]).name}
    if recipe.get("table"):
        recipe["table"] = {**recipe["table"], "file": Path(recipe["table"]["file"]).name}
    recipe["workers"] = {key: value for key, value in recipe["workers"].items() if key != "address"}
    return {f"{run.config.name}.toml": toml(recipe), **files}


def _reference(architecture: Architecture | None) -> dict[str, Any]:
    """Return the table of a space file that names an architecture, none without one."""
    if architecture is None:
        return {}
    genes = architecture.genes
    layers = {gene: [genes[f"{gene}_{layer}"] for layer in range(architecture.depth)] for gene in LAYER_GENES}
    return {"reference": {**{gene: genes[gene] for gene in NETWORK_GENES}, **layers}}


def _beside(metric: str) -> str:
    name, colon, model = metric.partition(":")
    return f"{name}:{Path(model).name}" if colon and name in MODEL_METRICS and model.endswith(".toml") else metric


def commands(run: Run) -> list[str]:
    """Return the commands that make a run again, and look at it, in a clone of the repository."""
    values, name = read_run(run.folder), run.config.name
    revision = values["facts"]["revision"]
    found = [f"git checkout {revision.removesuffix('-dirty')}"] if revision else []
    version = values["facts"]["versions"].get("spikefront")
    found.append(f"pip install .  # spikefront {version}" if version else "pip install .")
    place = " --data-dir DIR" if values["data_dir"] and run.config.data is not None else ""
    folder = shlex.quote(f"runs/{name}")
    search = f"nas search {shlex.quote(f'{name}.toml')} --out {folder}{place}"
    return [*found, search, f"nas front {folder} -f csv", f"nas report {folder}"]


def caveats(run: Run) -> list[str]:
    """Return in sentences what the files and commands do not have, or do not repeat."""
    values, found = read_run(run.folder), []
    revision = str(values["facts"]["revision"] or "")
    if revision.endswith("-dirty"):
        found.append("The code had changes that are in no revision.")
    if run.config.table is not None:
        found.append(f"The table is {Path(run.config.table.file).name}, with the SHA-256 {values['table']}.")
    elif run.config.source is not None:
        found.append(f"Scores are what {run.config.source} gives, whose code is not here; its fingerprint is below.")
    elif values["data_dir"]:
        found.append(f"DIR is a folder with the images of {run.config.images.name}, whose fingerprint is below.")
    if ":" in run.config.search.algorithm:
        found.append(f"The search is that of {run.config.search.algorithm}, whose code is not here.")
    if values["warm_start"]:
        sha = values["warm_start"].get("sha256")
        found.append(f"The search began with {Path(str(run.config.search.warm_start)).name}, of SHA-256 {sha}.")
    if run.attribute(MODE) == "async":
        found.append(
            "Asynchronous searches depend on which result comes first; with --mode generational one repeats exactly."
        )
    found.append("Another processor or version of torch rounds sums otherwise, which can give other members.")
    return found


def toml(values: Mapping[str, Any]) -> str:
    """Return plain values as TOML: text, numbers, lists and tables; what is None is left out."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in values.items() if not isinstance(value, dict | None)]
    for key, table in values.items():
        if isinstance(table, dict) and table:
            lines += ["", f"[{_key(key)}]"]
            lines += [f"{_key(name)} = {_value(value)}" for name, value in table.items() if value is not None]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("-", "").replace("_", "").isalnum() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        parts = (f"{_key(key)} = {_value(inner)}" for key, inner in value.items() if inner is not None)
        return f"{{ {', '.join(parts)} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        return repr(value)
    # JSON writes text, whole numbers and truth values as TOML does, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
