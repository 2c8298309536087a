"""Files of a comparison: ``curves.csv``, ``summary.csv``, ``compare.json``, and ``compare.html``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nas.comparison import Comparison
from nas.page import (
    BLUE,
    GREEN,
    GREY,
    LAYOUT,
    LOG_FROM,
    ORANGE,
    PURPLE,
    SKY,
    YELLOW,
    facts_html,
    figure_html,
    write_page,
)
from nas.statistics import SURFACES, quartiles
from spaces import InputError
from supernet.files import write_atomically

PAGE = "compare.html"

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, GREY)
_DASHES = ("solid", "dash", "dot", "dashdot")
"""Kinds of lines: the first as long as there are colours, and so on, so that no two algorithms look alike."""

_BEGINNING = 0.1
"""Share of the evaluations, and of the corners of surfaces, that the picture begins behind; it can be zoomed out."""

_POINTS = 500
"""Most points of a curve in the picture."""


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write the files of a comparison into a folder, and return the path of its page.

    Raises:
        InputError: If they cannot be written.
    """
    summary = comparison.summary
    level = comparison.level
    values = {
        "objectives": comparison.objectives,
        "reference": comparison.reference,
        "whole": comparison.whole,
        "evaluations": comparison.evaluations,
        "level": {
            "algorithm": level.algorithm,
            "evaluations": level.evaluations,
            "hypervolume": comparison.level_value,
        },
        "timing": comparison.timing.to_dict(orient="records"),
        **comparison.settings,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "curves.csv", comparison.curves.to_csv(index=False).encode())
        write_atomically(folder / "summary.csv", summary.to_csv(index=False).encode())
        write_atomically(folder / "compare.json", json.dumps(values, indent=1).encode())
        write_page(folder / PAGE, "Spikefront comparison", _sections(comparison, summary))
    except OSError as error:
        raise InputError(f"--out must be a folder that can be written, but {folder}: {error.strerror}") from None
    return folder / PAGE


def _sections(comparison: Comparison, summary: pd.DataFrame) -> list[str]:
    seeds = len(comparison.runs(comparison.algorithms[0]))
    share = "shares of that of the whole table" if comparison.whole != 1 else "against the reference below"
    html: str = summary.to_html(index=False, border=0, na_rep="", float_format=lambda value: f"{value:.4g}")
    facts = comparison.settings.get("facts", {})
    rows = {
        "objectives": ", ".join(f"{name} ({sense})" for name, sense in comparison.objectives.items()),
        "hypervolume reference": ", ".join(f"{n} {v:.5g}" for n, v in comparison.reference.items()),
        "level": f"{comparison.level_value:.5g}, the median of {comparison.level.algorithm} after "
        f"{comparison.level.evaluations} evaluations",
        "seeds": ", ".join(map(str, comparison.settings.get("seeds", []))),
        "command": comparison.settings.get("command", ""),
        "versions": ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items()),
        "machine": f"{facts.get('platform')}, Python {facts.get('python')}, {facts.get('cores')} cores",
    }
    return [
        "<h1>Comparison</h1>",
        f'<p class="lead">{escape(", ".join(comparison.algorithms))}: {seeds} searches each, '
        f"{comparison.evaluations} evaluations per search. Hypervolumes are {share}.</p>",
        figure_html(comparison_figure(comparison), "comparison", with_library=True),
        "<p>Left: median over the searches, between the quartiles. Right: what at least half of the searches attain "
        "(thick), and what at least one and what all of them do (thin). A double click shows all.</p>"
        if len(comparison.objectives) == 2
        else "<p>Median over the searches, between the quartiles. A double click shows all.</p>",
        "<h2>Summary</h2>",
        f'<div class="wide">{html}</div>',
        "<p><code>q1</code>, <code>hypervolume</code>, <code>q3</code>: quartiles at the end. <code>reached</code>, "
        "<code>to_level</code>: searches that reach the level, and the median of the evaluations that takes, missing "
        "if half of them never do. <code>p</code>: two-sided U test against the first algorithm, with Holm's "
        "correction. <code>a12</code>: how likely a search ends above one of the first algorithm.</p>",
        "<h2>Facts</h2>",
        facts_html(rows),
    ]


def comparison_figure(comparison: Comparison) -> go.Figure:
    """Return hypervolumes over evaluations and, for two objectives, attainment surfaces side by side."""
    two = len(comparison.objectives) == 2
    figure = make_subplots(rows=1, cols=2 if two else 1, horizontal_spacing=0.1)
    surfaces = comparison.attainment
    for number, algorithm in enumerate(comparison.algorithms):
        colour = _COLOURS[number % len(_COLOURS)]
        line = {"color": colour, "dash": _DASHES[number // len(_COLOURS) % len(_DASHES)]}
        for trace in _curve(comparison, algorithm, line):
            figure.add_trace(trace, row=1, col=1)
        if two:
            for trace in _surfaces(surfaces[surfaces["algorithm"] == algorithm], comparison.objectives, line):
                figure.add_trace(trace, row=1, col=2)
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title_text="evaluations", row=1, col=1)
    figure.update_yaxes(title_text="hypervolume", range=_curve_view(comparison), row=1, col=1)
    if two:
        first, second = comparison.objectives
        costs, qualities = _surface_view(surfaces, comparison.objectives)
        scale = "linear"
        if costs is not None and costs[0] > 0 and costs[1] > LOG_FROM * costs[0]:
            scale, costs = "log", np.log10(costs).tolist()
        figure.update_xaxes(title_text=second, type=scale, range=costs, row=1, col=2)
        figure.update_yaxes(title_text=first, range=qualities, row=1, col=2)
    return figure


def _curve_view(comparison: Comparison) -> list[float]:
    """Return the hypervolumes that are worth looking at: all after the first steps, which are far below the rest."""
    begin = int(_BEGINNING * comparison.evaluations)
    shown = [quartiles(curves[:, begin:]) for curves in comparison.hypervolumes.values()]
    return _with_margin(min(rows.min() for rows in shown), max(rows.max() for rows in shown))


def _surface_view(
    surfaces: pd.DataFrame, objectives: Mapping[str, str]
) -> tuple[list[float] | None, list[float] | None]:
    """Return the second and the first objective of all corners but those that are worst in the first."""
    if surfaces.empty:
        return None, None
    first, second = objectives
    values = surfaces[first].to_numpy(dtype=np.float64)
    if objectives[first] == "max":
        seen = surfaces[values >= np.quantile(values, _BEGINNING)]
    else:
        seen = surfaces[values <= np.quantile(values, 1 - _BEGINNING)]
    costs = [float(seen[second].min()), float(seen[second].max())]
    return costs, _with_margin(seen[first].min(), seen[first].max())


def _with_margin(low: float, high: float) -> list[float]:
    margin = 0.05 * (high - low) or 0.05 * (abs(high) or 1.0)
    return [float(low - margin), float(high + margin)]


def _curve(comparison: Comparison, algorithm: str, line: Mapping[str, Any]) -> list[go.Scatter]:
    """Return a median, and the band between the quartiles around it."""
    steps = np.unique(np.linspace(1, comparison.evaluations, _POINTS).round().astype(int))
    low, middle, high = quartiles(comparison.hypervolumes[algorithm][:, steps - 1])
    around = [*steps.tolist(), *steps[::-1].tolist()]
    band = go.Scatter(
        x=around,
        y=[*high.tolist(), *low[::-1].tolist()],
        fill="toself",
        fillcolor=line["color"],
        opacity=0.15,
        line={"width": 0},
        legendgroup=algorithm,
        showlegend=False,
        hoverinfo="skip",
    )
    median = go.Scatter(
        x=steps.tolist(), y=middle.tolist(), name=algorithm, legendgroup=algorithm, line={**line, "width": 2}
    )
    return [band, median]


def _surfaces(frame: pd.DataFrame, objectives: Mapping[str, str], line: Mapping[str, Any]) -> list[go.Scatter]:
    """Return attainment surfaces as stairs, the first objective over the second."""
    first, second = objectives
    # What is attained stays attained with a worse second objective: to the right if less of it is better.
    shape = "hv" if objectives[second] == "min" else "vh"
    drawn = []
    for surface in SURFACES:
        rows = frame[frame["surface"] == surface]
        width = 2.5 if surface == "median" else 0.8
        drawn.append(
            go.Scatter(
                x=rows[second].tolist(),
                y=rows[first].tolist(),
                mode="lines",
                name=f"{surface} surface",
                legendgroup=str(frame["algorithm"].iloc[0]) if len(frame) else None,
                showlegend=False,
                line={**line, "width": width, "shape": shape},
                hovertemplate=f"{surface}: {second} %{{x:.5g}}, {first} %{{y:.5g}}<extra></extra>",
            )
        )
    return drawn
