"""``report.html``: one self-contained page with the front, the way there, and what it was made with."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from nas.algorithms import ALGORITHMS
from nas.energy import front_energy_figure, load_models
from nas.folder import read_run
from nas.page import BLUE, GREY, LAYOUT, LOG_FROM, ORANGE, facts_html, figure_html, write_page
from nas.results import hypervolume_curve
from nas.run import Run
from spaces import LAYER_GENES, InputError, SearchSpace

REPORT = "report.html"

_ENERGY_MEMBERS, _ENERGY_IMAGES = 12, 256
"""Members of the front whose energy is counted anew, and images to calibrate and to count on: no run adds more."""

_GENES_PER_LINE = 6
"""Genes of a table's row on each line of what is shown beside the mouse."""


def write_report(run: Run) -> Path:
    """Write the report of a run into its folder, and return its path."""
    search, random, front = run.evaluations(), run.evaluations("random"), run.front()
    sections = [
        f"<h1>{escape(run.config.name)}</h1>",
        f'<p class="lead">{escape(_summary(run, search, random, front))}</p>',
        "<h2>Pareto front</h2>",
        figure_html(front_figure(run, search, random, front), "front", with_library=True),
        "<h2>Hypervolume</h2>",
        figure_html(hypervolume_figure(run, search, random), "hypervolume", with_library=False),
        "<h2>Members of the front</h2>",
        f"<p>{_origin(run)}</p>" if not front.empty else f"<p>{escape(_no_front(run))}</p>",
        f'<div class="wide">{_front_table(run, front)}</div>',
        *_energy_section(run, front),
        "<h2>Run</h2>",
        _facts_table(run, search, random),
    ]
    path = run.folder / REPORT
    write_page(path, f"{run.config.name}: Spikefront report", sections)
    return path


def _origin(run: Run) -> str:
    """Return what the columns of the front are, in HTML."""
    if run.config.table is None:
        origin = "Metrics are of inherited weights on the validation split, which the search sees"
    else:
        origin = "Metrics are looked up in a table"
    if not run.test_columns:
        return f"{origin}."
    return f"{origin}; columns with <code>test_</code> are on the test split, which it never sees."


def _energy_section(run: Run, front: pd.DataFrame) -> list[str]:
    """Return the energy of the front's members by kind of layer, or why it cannot be shown; nothing for a table."""
    if front.empty or run.config.table is not None:
        return []
    heading = "<h2>Energy of the front's members</h2>"
    chosen = np.unique(np.linspace(0, len(front) - 1, _ENERGY_MEMBERS).round().astype(int))
    try:
        counts = run.operations(front["key"].iloc[chosen].tolist(), _ENERGY_IMAGES, _ENERGY_IMAGES)
        figure = front_energy_figure(counts, load_models(own=run.energy_models))
    except InputError as error:  # for instance since the supernet or the images are no longer there
        return [heading, f"<p>It cannot be counted: {escape(str(error))}</p>"]
    images = next(iter(counts.values())).images
    calibration = min(_ENERGY_IMAGES, run.config.scoring.calibration_images)
    members = f"all {len(front)} members" if len(counts) == len(front) else f"{len(counts)} of {len(front)} members"
    return [
        heading,
        f"<p>By kind of layer, under the energy model chosen on the right; {members}, spread over the front, in the "
        f"order of the table above. Counted anew on the first {images} validation images, after calibration on "
        f"{calibration} training images, so that it can differ a little from the table.</p>",
        figure_html(figure, "energy", with_library=False),
    ]


def _summary(run: Run, search: pd.DataFrame, random: pd.DataFrame, front: pd.DataFrame) -> str:
    counts = f"{(search['state'] == 'failed').sum()} failed"
    if run.constraints:
        counts += f", {infeasible(search)} violate constraints"
    spent, taken = evaluated(search), len(search) - evaluated(search)
    results = f"{spent} evaluations" + (f" and {taken} results that were taken" if taken else "")
    parts = [
        f"{len(front)} architectures on the front of {results} ({counts}) in a space of {run.space.size:,}.",
        f"Hypervolume {run.hypervolume():.4f}",
    ]
    if len(random):
        parts[-1] += f", random search with {len(random)} evaluations {run.hypervolume('random'):.4f}"
    return " ".join(parts) + "."


def evaluated(frame: pd.DataFrame) -> int:
    """Return how many rows a run has evaluated itself; those of generation 0 were taken from another run."""
    return int((frame["generation"] > 0).sum())


def infeasible(frame: pd.DataFrame) -> int:
    """Return how many complete evaluations violate constraints."""
    return int(((frame["state"] == "complete") & ~frame["feasible"]).sum())


def _no_front(run: Run) -> str:
    reason = run.why_empty()
    return f"There is no front: {reason}." if reason else "There is no front yet."


def front_figure(run: Run, search: pd.DataFrame, random: pd.DataFrame, front: pd.DataFrame) -> go.Figure:
    """Return all evaluations and the fronts of search and baseline, first objective over second."""
    y, *rest = run.objectives
    x = rest[0] if rest else "number"
    figure = go.Figure()
    hidden = search[~search["is_pareto"] & search["feasible"]]
    beyond = search[~search["feasible"] & (search["state"] == "complete")]
    groups = [
        ("evaluated", hidden, "markers", {"color": GREY, "size": 5, "opacity": 0.5}),
        (
            "violates constraints",
            beyond,
            "markers",
            {"color": GREY, "size": 6, "opacity": 0.5, "symbol": "x-thin-open"},
        ),
        (
            "random search, front",
            random[random["is_pareto"]],
            "lines+markers",
            {"color": ORANGE, "symbol": "x"},
        ),
        ("search, front", front, "lines+markers", {"color": BLUE, "size": 9}),
    ]
    if run.test_columns:
        scored = front[front[f"test_{y}"].notna()]
        on_test = scored.assign(**{name: scored[f"test_{name}"] for name in run.objectives})
        open_circle = {"color": BLUE, "size": 9, "symbol": "circle-open"}
        groups.append(("the same networks, test split", on_test, "markers", open_circle))
    for name, frame, mode, marker in groups:
        if name == "violates constraints" and frame.empty:
            continue
        rows = frame.sort_values(x)
        figure.add_trace(
            go.Scatter(
                x=rows[x].tolist(),
                y=rows[y].tolist(),
                mode=mode if len(run.objectives) <= 2 else "markers",
                name=name,
                marker=marker,
                line={"shape": "hv", "width": 1},
                text=[_hover(run, row) for _, row in rows.iterrows()],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    figure.update_layout(xaxis_title=x, yaxis_title=y, **LAYOUT)
    low, high = search[x].min(), search[x].max()
    if rest and low > 0 and high > LOG_FROM * low:
        figure.update_xaxes(type="log", exponentformat="e", dtick="D1" if high < 100 * low else 1)
    return figure


def _hover(run: Run, row: pd.Series[Any]) -> str:
    genes = [_gene(name, row[name]) for name in run.space.columns if pd.notna(row[name])]
    metrics = [f"{name} {row[name]:.5g}" for name in run.metrics]
    tests = [f"{name} {row[name]:.5g}" for name in run.test_columns if pd.notna(row.get(name))]
    first, step = (3, len(LAYER_GENES)) if isinstance(run.space, SearchSpace) else (0, _GENES_PER_LINE)
    lines = [f"<b>{row['key']}</b>", *metrics, *tests, ", ".join(genes[:first])]
    lines += [", ".join(genes[start : start + step]) for start in range(first, len(genes), step)]
    return "<br>".join(lines)


def _gene(name: str, value: Any) -> str:
    return f"{escape(name)} {escape(value) if isinstance(value, str) else f'{value:g}'}"


def hypervolume_figure(run: Run, search: pd.DataFrame, random: pd.DataFrame) -> go.Figure:
    """Return the hypervolume after each evaluation, of search and baseline; at 0 that of what was taken."""
    figure = go.Figure()
    for name, frame, colour in (("search", search, BLUE), ("random search", random, ORANGE)):
        if len(frame) and run.reference:
            curve = hypervolume_curve(frame, run.objectives, run.reference).tolist()
            spent = evaluated(frame)
            curve = curve[-spent - (spent < len(curve)) :] if spent else curve[-1:]
            steps = list(range(spent + 1 - len(curve), spent + 1))
            figure.add_trace(go.Scatter(x=steps, y=curve, name=name, line={"color": colour, "shape": "hv"}))
    figure.update_layout(xaxis_title="evaluations", yaxis_title="hypervolume", **LAYOUT)
    return figure


def _front_table(run: Run, front: pd.DataFrame) -> str:
    others = [metric for metric in run.metrics if metric not in run.objectives]
    genes = sorted(run.space.columns, key=lambda column: column != "depth")  # which tells the layers
    table = front[["key", *run.objectives, *run.test_columns, *others, *genes]]
    html: str = table.to_html(index=False, border=0, na_rep="", float_format=lambda value: f"{value:.5g}")
    return html


def _facts_table(run: Run, search: pd.DataFrame, random: pd.DataFrame) -> str:
    values = read_run(run.folder)
    facts = values["facts"]
    scoring = f"{search['duration'].sum():.1f} s of work for {evaluated(search)} evaluations"
    if len(random):
        scoring += f", {random['duration'].sum():.1f} s for the baseline's {len(random)}"
    rows = {
        "seed": run.config.seed,
        "space": f"{run.space.name}, {run.space.size:,} architectures",
        **_source_facts(run, values),
        "algorithm": _algorithm_facts(run),
        **({"warm start": run.warm_start} if run.warm_start else {}),
        **({"constraints": _constraint_facts(run, search, random)} if run.constraints else {}),
        **({"end": stopped} if (stopped := run.why_stopped()) else {}),
        "workers": f"{run.config.workers.pool}, {run.config.workers.count}",
        "hypervolume reference": ", ".join(f"{n} {v:.5g}" for n, v in (run.reference or {}).items()),
        "scoring": scoring,
        "search": f"{run.search_seconds():.1f} s from the first submission to the last result",
        "started": facts["started"],
        "git revision": facts["revision"] or "none",
        "versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        "machine": f"{facts['platform']}, Python {facts['python']}, {facts['cores']} cores",
    }
    return facts_html(rows)


def _algorithm_facts(run: Run) -> str:
    search = run.config.search
    text = f"{search.algorithm}, population {search.population}"
    row = ALGORITHMS.get(search.algorithm)
    if row is None or not row.scalar or (len(search.objectives) == 1 and search.fitness is None):
        return text
    return f"{text}, climbs {search.fitness or 'the mean of the objectives'}"


def _constraint_facts(run: Run, search: pd.DataFrame, random: pd.DataFrame) -> str:
    text = f"{', '.join(map(str, run.constraints))}; violated by {infeasible(search)} of {len(search)} evaluations"
    return text + (f", by {infeasible(random)} of the baseline's {len(random)}" if len(random) else "")


def _source_facts(run: Run, values: dict[str, Any]) -> dict[str, str]:
    """Return where the scores of a run come from."""
    if run.config.table is not None:
        return {"table": f"{Path(run.config.table.file).name}, SHA-256 {values['table']}"}
    training = run.training()
    return {
        "data": run.config.images.name,
        "training": f"{training.epoch} epochs, {training.seconds:.1f} s",
    }
