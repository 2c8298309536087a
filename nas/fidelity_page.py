"""``fidelity.html``: inherited against stand-alone accuracy, as a picture and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from nas.orders import Fidelity, Point
from nas.page import BLUE, GREY, LAYOUT, ORANGE, facts_html, figure_html, write_page

PAGE = "fidelity.html"

_LOOKS = {"front": (ORANGE, "circle"), "space": (BLUE, "diamond")}
"""Colour and shape of the points by where they are from."""


def fidelity_figure(found: Fidelity) -> go.Figure:
    """Return stand-alone over inherited accuracy, with bars from the worst to the best training."""
    figure = go.Figure(layout=LAYOUT)
    for source, (colour, shape) in _LOOKS.items():
        points = [point for point in found.points if point.source == source]
        if points:
            figure.add_trace(_trace(points, source, colour, shape))
    values = [value for point in found.points for value in (point.inherited, *point.standalone_by_seed)]
    ends = [min(values), max(values)]
    dots = {"color": GREY, "dash": "dot"}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=dots, name="equal", hoverinfo="skip")
    figure.update_xaxes(title="validation accuracy, inherited weights")
    figure.update_yaxes(title="validation accuracy, trained by itself")
    return figure


def _trace(points: Sequence[Point], source: str, colour: str, shape: str) -> go.Scatter:
    means = [point.standalone for point in points]
    return go.Scatter(
        x=[point.inherited for point in points],
        y=means,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [max(p.standalone_by_seed) - mean for p, mean in zip(points, means, strict=True)],
            "arrayminus": [mean - min(p.standalone_by_seed) for p, mean in zip(points, means, strict=True)],
            "thickness": 1,
        },
        mode="markers",
        marker={"color": colour, "symbol": shape, "size": 9, "line": {"width": 1, "color": "white"}},
        name=f"from the {source}",
        text=[_about(point) for point in points],
        hovertemplate="%{text}<br>inherited %{x:.4f}<br>by itself %{y:.4f}<extra></extra>",
    )


def _about(point: Point) -> str:
    """Return key and genes of a point on lines of HTML, those of each layer on one."""
    whole = {name: value for name, value in point.genes.items() if not isinstance(value, list)}
    layers = [layer for value in point.genes.values() if isinstance(value, list) for layer in value]
    shown = [whole, *(layer for layer in layers if isinstance(layer, dict))]
    lines = [", ".join(f"{name} {value}" for name, value in genes.items()) for genes in shown]
    return "<br>".join(escape(line) for line in [point.key, *lines])


def describe(found: Fidelity) -> dict[str, str]:
    """Return the numbers in words by what they are of."""
    order, best, ceiling, interval = found.order, found.best_third, found.ceiling, found.interval
    between = "" if interval is None else f" (95 % from {interval[0]:.2f} to {interval[1]:.2f})"
    tau, rho = _shown(order.kendall_tau), _shown(order.spearman)
    rows = {
        f"all {order.subnets}": f"Kendall tau {tau}{between}; Spearman {rho}",
        f"best {best.subnets}": f"Kendall tau {_shown(best.kendall_tau)}; Spearman {_shown(best.spearman)}",
    }
    if ceiling is None:
        return {**rows, "noise ceiling": "unknown, as nothing was trained twice"}
    return {
        **rows,
        "noise ceiling": f"Kendall tau {_shown(ceiling.kendall_tau)} between {ceiling.seeds} trainings of "
        f"{ceiling.subnets} subnets; of inherited accuracy with one training of these "
        f"{_shown(ceiling.inherited_kendall_tau)}",
    }


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def write_fidelity_page(found: Fidelity, folder: Path, title: str) -> Path:
    """Write the page of a run into its folder, and return its path."""
    settings = {name: value for name, value in found.settings.items() if name != "training"}
    sections = [
        f"<h1>{escape(title)}: fidelity</h1>",
        '<p class="lead">How well accuracy with the weights of the supernet orders architectures that are trained by '
        "themselves. The noise ceiling is what two such trainings agree in.</p>",
        figure_html(fidelity_figure(found), "fidelity", with_library=True),
        facts_html(describe(found)),
        "<h2>How it was measured</h2>",
        facts_html({**settings, **found.settings.get("training", {})}),
    ]
    write_page(folder / PAGE, f"{title}: fidelity", sections)
    return folder / PAGE
