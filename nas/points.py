"""What the report knows of each network: its scores, its genes, and where its energy goes, for the page's script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from evaluators import EnergyModel, OperationCounts
from nas.energy import KINDS, by_kind, layers_frame
from nas.figures import axes, largest_architecture, reference_architecture
from nas.run import Run
from spaces import LAYER_GENES, SearchSpace


def page_data(
    run: Run,
    frames: Mapping[str, pd.DataFrame],
    intervals: Mapping[str, str],
    counts: Mapping[str, OperationCounts],
    models: Sequence[EnergyModel],
) -> dict[str, Any]:
    """Return plain values of all that a reader can choose in a report.

    Args:
        run: Run.
        frames: ``front``, ``search`` and ``random``, as of the run.
        intervals: Confidence intervals of test accuracies by key, as they are shown.
        counts: What members of the front do, by key.
        models: Energy models that this is shown under.
    """
    named = (
        (frames["front"], "on the front of the search"),
        (largest_architecture(run), "the largest architecture of the space"),
        (reference_architecture(run), "the hand-made reference of the space"),
        (frames["random"][frames["random"]["is_pareto"]], "on the front of random search"),
        (frames["search"], "evaluated by the search"),
    )
    points: dict[str, Any] = {}
    for frame, what in named:
        for row in frame[frame["state"] == "complete"].to_dict(orient="records"):
            points.setdefault(row["key"], _point(run, row, what, intervals))
    kinds = list(KINDS)
    return {
        "folder": f"runs/{run.config.name}",
        "split": "validation" if run.config.table is None else "table",
        "metrics": run.metrics,
        "genes": [gene_name(run, column) for column in run.space.columns],
        "points": points,
        "models": [model.name for model in models] if counts else [],
        "kinds": [[name, colour] for name, colour in KINDS.items()],
        "energy": {key: [_energy(found, model, kinds) for model in models] for key, found in counts.items()},
    }


def gene_name(run: Run, column: str) -> dict[str, Any]:
    """Return the gene that a column is of, and its layer, None for a gene of the whole network."""
    gene, _, layer = column.rpartition("_")
    if isinstance(run.space, SearchSpace) and gene in LAYER_GENES:
        return {"name": gene, "layer": int(layer)}
    return {"name": column, "layer": None}


def _point(run: Run, row: Mapping[Any, Any], what: str, intervals: Mapping[str, str]) -> dict[str, Any]:
    x, y = axes(run)
    tests = [plain(row.get(f"test_{name}")) if f"test_{name}" in run.test_columns else None for name in run.metrics]
    return {
        "what": what if row["feasible"] else f"{what}, but violates constraints",
        "x": plain(row[x]),
        "y": plain(row[y]),
        "genes": [plain(row[column]) for column in run.space.columns],
        "metrics": [plain(row[name]) for name in run.metrics],
        "test": tests,
        "interval": intervals.get(row["key"]),
    }


def plain(value: Any) -> Any:
    """Return a value of a DataFrame as JSON can hold it, None if it is missing."""
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _energy(counts: OperationCounts, model: EnergyModel, kinds: list[str]) -> dict[str, Any]:
    """Return millijoules per image by kind, and those of each layer with the number of its kind."""
    frame, spent = layers_frame(counts, [model]), by_kind(counts, model)
    rows = zip(frame["layer"], frame[f"energy_mj:{model.name}"], frame["kind"], strict=True)
    return {
        "kinds": [_short(spent[kind]) for kind in kinds],
        "layers": [[layer, _short(mj), kinds.index(kind)] for layer, mj, kind in rows],
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")
