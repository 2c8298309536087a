"""``fidelity.json`` of a run folder: how well inherited scores rank networks that were trained by themselves."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from nas.page import BLUE, GREY, LAYOUT
from spaces import InputError

FIDELITY = "fidelity.json"
"""File of a run folder."""

_NUMBERS = ("kendall_tau", "spearman", "noise_ceiling")
_RULE = f"{FIDELITY} must have {', '.join(_NUMBERS)} from -1 to 1, and points with a key, inherited and standalone"


@dataclass(frozen=True)
class Fidelity:
    """Rank agreement of accuracies with inherited weights and of networks trained by themselves.

    Attributes:
        kendall_tau: Of all points, in [-1, 1].
        spearman: Of all points, in [-1, 1].
        noise_ceiling: Kendall's tau of trainings that differ in their seed only, or None if not measured.
        points: Key, inherited and stand-alone accuracy of each network.
    """

    kendall_tau: float
    spearman: float
    noise_ceiling: float | None
    points: tuple[tuple[str, float, float], ...]


def read_fidelity(folder: Path) -> Fidelity | None:
    """Return what a run folder knows of fidelity, None if nothing.

    Raises:
        InputError: If the file cannot be read, or is not one of fidelity.
    """
    path = folder / FIDELITY
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{FIDELITY} cannot be read: {error}") from None
    try:
        tau, spearman, ceiling = (_agreement(values[name]) for name in _NUMBERS)
        points = tuple((str(p["key"]), float(p["inherited"]), float(p["standalone"])) for p in values["points"])
        sound = tau is not None and spearman is not None and all(map(math.isfinite, sum((p[1:] for p in points), ())))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{_RULE}, but: {type(error).__name__}: {error}") from None
    if not sound or tau is None or spearman is None:
        raise InputError(f"{_RULE}, got other numbers")
    return Fidelity(tau, spearman, ceiling, points)


def _agreement(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not -1 <= number <= 1:
        raise ValueError(f"{value!r} is beyond 1")
    return number


def fidelity_figure(fidelity: Fidelity) -> go.Figure:
    """Return stand-alone over inherited accuracy, with the line on which they are equal."""
    keys, inherited, standalone = zip(*fidelity.points, strict=True)
    ends = [min(inherited + standalone), max(inherited + standalone)]
    figure = go.Figure()
    equal = go.Scatter(x=ends, y=ends, mode="lines", name="equal", line={"color": GREY, "dash": "dash"})
    figure.add_trace(equal)
    figure.add_trace(
        go.Scatter(
            x=list(inherited),
            y=list(standalone),
            text=list(keys),
            mode="markers",
            name="networks",
            marker={"color": BLUE, "size": 9},
            hovertemplate="%{text}<br>inherited %{x:.4f}, stand-alone %{y:.4f}<extra></extra>",
        )
    )
    titles = {"xaxis_title": "accuracy with inherited weights", "yaxis_title": "accuracy trained by itself"}
    figure.update_layout(**titles, **LAYOUT | {"height": 380})
    return figure
