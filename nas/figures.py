"""Figures of a run: its front, and what became of it evaluation by evaluation."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from nas.page import BLUE, GREEN, GREY, LAYOUT, LOG_FROM, ORANGE, PURPLE, YELLOW, label
from nas.results import hypervolume_curve, with_test
from nas.run import Run
from nas.workers import LOCAL_GROUP
from spaces import LAYER_GENES, Architecture, SearchSpace

LARGEST, BY_HAND = "largest architecture", "hand-made reference"
"""Names of the traces of two architectures of the space that the front is compared with."""

SELECTED = "selected"
"""Name of the trace that marks what the reader has chosen; the page's script fills it."""

_GENES_PER_LINE = 6
"""Genes of a table's row on each line of what is shown beside the mouse."""


def axes(run: Run) -> tuple[str, str]:
    """Return the columns that the front is drawn over: the second objective, or the number, and the first one."""
    first, *rest = run.objectives
    return rest[0] if rest else "number", first


def front_figure(run: Run, search: pd.DataFrame, random: pd.DataFrame, front: pd.DataFrame) -> go.Figure:
    """Return all evaluations, the fronts of search and baseline, and what else they are compared with."""
    x, y = axes(run)
    figure = go.Figure()
    hidden = search[~search["is_pareto"] & search["feasible"]]
    beyond = search[~search["feasible"] & (search["state"] == "complete")]
    crossed = {"color": GREY, "size": 6, "opacity": 0.5, "symbol": "x-thin-open"}
    groups = [
        ("evaluated", hidden, "markers", {"color": GREY, "size": 5, "opacity": 0.5}),
        ("violates constraints", beyond, "markers", crossed),
        ("random search, front", random[random["is_pareto"]], "lines+markers", {"color": ORANGE, "symbol": "x"}),
        ("search, front", front, "lines+markers", {"color": BLUE, "size": 9}),
    ]
    if run.test_columns:
        scored = front[front[f"test_{y}"].notna()]
        on_test = scored.assign(**{name: scored[f"test_{name}"] for name in run.objectives})
        open_circle = {"color": BLUE, "size": 9, "symbol": "circle-open"}
        groups.append(("the same networks, test split", on_test, "markers", open_circle))
    largest, by_hand = largest_architecture(run), reference_architecture(run)
    if len(run.objectives) > 1:
        groups.append((LARGEST, largest, "markers", {"color": GREEN, "size": 13, "symbol": "star"}))
        groups.append((BY_HAND, by_hand, "markers", {"color": PURPLE, "size": 12, "symbol": "diamond"}))
    for name, frame, mode, marker in groups:
        if name in ("violates constraints", LARGEST, BY_HAND) and frame.empty:
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
                customdata=rows["key"].tolist(),
                text=[_hover(run, row) for _, row in rows.iterrows()],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    ring = {"color": YELLOW, "size": 19, "symbol": "circle-open", "line": {"width": 3}}
    figure.add_trace(go.Scatter(x=[], y=[], mode="markers", name=SELECTED, marker=ring, hoverinfo="skip"))
    figure.update_layout(xaxis_title=label(x), yaxis_title=label(y), hovermode="closest", **LAYOUT)
    shown = pd.concat([search[x], largest[x], by_hand[x]]) if len(run.objectives) > 1 else search[x]
    low, high = shown.min(), shown.max()
    if len(run.objectives) > 1 and low > 0 and high > LOG_FROM * low:
        figure.update_xaxes(type="log", exponentformat="e", dtick="D1" if high < 100 * low else 1)
    return figure


def largest_architecture(run: Run) -> pd.DataFrame:
    """Return the row of the space's largest architecture, or none if it was not scored, or failed."""
    return _compared(run, run.space.largest() if isinstance(run.space, SearchSpace) else None)


def reference_architecture(run: Run) -> pd.DataFrame:
    """Return the row of what the space names to compare with, or none if there is none, or its scoring failed."""
    return _compared(run, run.by_hand)


def _compared(run: Run, architecture: Architecture | None) -> pd.DataFrame:
    frame = run.evaluations("reference")
    named = frame["key"] == architecture.key if architecture is not None else False
    test = run.evaluations("test") if run.test_columns else None
    return with_test(frame[named & (frame["state"] == "complete")], test, run.objectives)


def _hover(run: Run, row: pd.Series[Any]) -> str:
    genes = [_gene(name, row[name]) for name in run.space.columns if pd.notna(row[name])]
    metrics = [f"{label(name)} {row[name]:.5g}" for name in run.metrics]
    tests = [f"{label(name)} {row[name]:.5g}" for name in run.test_columns if pd.notna(row.get(name))]
    first, step = (3, len(LAYER_GENES)) if isinstance(run.space, SearchSpace) else (0, _GENES_PER_LINE)
    lines = [f"<b>{row['key']}</b>", *metrics, *tests, ", ".join(genes[:first])]
    lines += [", ".join(genes[start : start + step]) for start in range(first, len(genes), step)]
    return "<br>".join(lines)


def _gene(name: str, value: Any) -> str:
    return label(f"{name} {value if isinstance(value, str) else f'{value:g}'}")


def evaluated(frame: pd.DataFrame) -> int:
    """Return how many rows a run has evaluated itself; those of generation 0 were taken from another run."""
    return int((frame["generation"] > 0).sum())


def hypervolume_figure(run: Run, search: pd.DataFrame, random: pd.DataFrame) -> go.Figure:
    """Return the hypervolume after each evaluation, of search and baseline; at 0 that of what was taken."""
    figure = go.Figure()
    for name, frame, colour in (("search", search, BLUE), ("random search", random, ORANGE)):
        if len(frame) and run.reference:
            curve = hypervolume_curve(frame, run.objectives, run.reference).tolist()
            spent = evaluated(frame)
            curve = curve[-spent - (spent < len(curve)) :] if spent else curve[-1:]
            steps = list(range(spent + 1 - len(curve), spent + 1))
            line = {"color": colour, "shape": "hv", "dash": "solid" if name == "search" else "dash"}
            figure.add_trace(go.Scatter(x=steps, y=curve, name=name, line=line))
    figure.update_layout(xaxis_title="evaluations", yaxis_title="hypervolume", **LAYOUT)
    return figure


def idle_shares(timeline: pd.DataFrame, workers: int) -> list[float]:
    """Return the share of the workers' time that was not spent on scoring, up to each result in its order.

    A pause of the run is left out: a wait that is longer than the longest scoring of a whole group.

    Args:
        timeline: As of :meth:`nas.run.Run.timeline`.
        workers: How many there were.
    """
    if timeline.empty:
        return []
    most = LOCAL_GROUP * max(float(timeline["duration"].max()), 1e-3)
    moments = pd.concat([timeline["submitted"], timeline["completed"]]).sort_values()
    waits = moments.diff().dt.total_seconds().fillna(0.0).clip(upper=most).cumsum()
    passed = pd.Series(waits.to_numpy(), index=moments).groupby(level=0).max()
    worked = timeline["duration"].cumsum() / workers
    return [
        max(0.0, 1 - busy / passed[moment]) if passed[moment] > 0 else 0.0
        for busy, moment in zip(worked, timeline["completed"], strict=True)
    ]


def idle_figure(shares: list[float]) -> go.Figure:
    """Return the idle share of the workers up to each result, in percent."""
    figure = go.Figure()
    percent = [100 * share for share in shares]
    line = {"color": BLUE, "shape": "hv"}
    figure.add_trace(go.Scatter(x=list(range(1, len(percent) + 1)), y=percent, name="idle", line=line))
    figure.update_layout(xaxis_title="results", yaxis_title="idle time of the workers, %", **LAYOUT | {"height": 300})
    figure.update_yaxes(range=[0, 100])
    return figure
