"""How often each choice of a gene is on a front, beside the space it was found in: why these networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from nas.figures import axes
from nas.page import LAYOUT, label
from nas.points import gene_name
from nas.run import Run

SPACE = "space"
"""Name of the rows that random architectures are in."""

_DRAWN = 500
"""Random architectures that stand for the space."""

_THIRDS_FROM = 6
"""Members of a front from which it is shown in three parts."""

_MOST = 10
"""Genes that a figure shows, those that differ most from the space."""

_SCALE = ("#2b5597", "#5a7aa5", "#8a8f98", "#ada07f", "#d0b752", "#f2d335")
"""Colours of choices from the lowest to the highest, told apart in grey and by all colour vision."""


def gene_shares(run: Run, front: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return how often architectures of a group have a choice, genes that differ most from the space first.

    A gene of layers is counted over the layers that a network has, each network weighing the same.

    Columns: ``gene``, ``choice``, and a share in [0, 1] for each group: ``space`` (random architectures of it),
    ``front``, and of a front of two objectives or more its thirds in the order of the second objective.

    Args:
        run: Run.
        front: Its front, not empty.
        seed: Of the random architectures.
    """
    rng = np.random.default_rng(seed)
    drawn = [run.space.sample(rng).genes for _ in range(_DRAWN)]
    groups: dict[str, Sequence[Mapping[str, Any]]] = {SPACE: drawn, "front": _genes(run, front)}
    cost, _ = axes(run)
    if len(front) >= _THIRDS_FROM and len(run.objectives) > 1:
        ordered = front.sort_values(cost)
        parts = np.array_split(np.arange(len(ordered)), 3)
        for part, name in zip(parts, (f"lowest {cost}", "between", f"highest {cost}"), strict=True):
            groups[name] = _genes(run, ordered.iloc[part])
    choices: dict[str, list[Any]] = {}
    for column in run.space.columns:
        known = choices.setdefault(gene_name(run, column)["name"], [])
        known += [choice for choice in run.space.choices(column) if choice not in known]
    counted = {group: _shares(run, genes, choices) for group, genes in groups.items()}
    rows = [
        {"gene": gene, "choice": choice, **{group: counted[group][gene, choice] for group in groups}}
        for gene in sorted(choices, key=lambda gene: -_distance(counted, gene, choices[gene]))
        for choice in choices[gene]
    ]
    return pd.DataFrame(rows)


def _genes(run: Run, front: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {column: row[column] for column in run.space.columns if pd.notna(row[column])}
        for row in front.to_dict(orient="records")
    ]


def _shares(
    run: Run, architectures: Sequence[Mapping[str, Any]], choices: Mapping[str, list[Any]]
) -> dict[tuple[str, Any], float]:
    found = {(gene, choice): 0.0 for gene, known in choices.items() for choice in known}
    for genes in architectures:
        values: dict[str, list[Any]] = {}
        for column, value in genes.items():
            values.setdefault(gene_name(run, column)["name"], []).append(value)
        for gene, those in values.items():
            for value in those:
                found[gene, value] += 1 / (len(those) * len(architectures))
    return found


def _distance(counted: Mapping[str, Mapping[tuple[str, Any], float]], gene: str, choices: list[Any]) -> float:
    """Return the share of networks that would have to change for the front to be as the space is, in [0, 1]."""
    return sum(abs(counted["front"][gene, choice] - counted[SPACE][gene, choice]) for choice in choices) / 2


def telling(shares: pd.DataFrame, count: int = 3) -> list[str]:
    """Return in words what most sets the front apart from its space: one choice for each of the first genes."""
    lines = []
    for gene, rows in list(shares.groupby("gene", sort=False))[:count]:
        more = rows.iloc[int((rows["front"] - rows[SPACE]).to_numpy().argmax())]
        if more["front"] - more[SPACE] >= 0.05:
            of_front, of_space = (f"{100 * more[group]:.0f} %" for group in ("front", SPACE))
            choice = _text(more["choice"])
            lines.append(f"{gene} {choice} makes up {of_front} of the front, {of_space} of the space")
    return lines


def _text(choice: Any) -> str:
    return choice if isinstance(choice, str) else f"{choice:g}"


def shares_figure(shares: pd.DataFrame) -> go.Figure:
    """Return a bar for each gene and group: shares of the gene's choices from the lowest to the highest."""
    groups = list(shares.columns[2:])
    shown = shares["gene"].drop_duplicates().tolist()[:_MOST]
    figure = go.Figure()
    per_gene = {gene: shares[shares["gene"] == gene].reset_index(drop=True) for gene in shown}
    for place in range(max(map(len, per_gene.values()))):
        for gene, rows in per_gene.items():
            if place >= len(rows):
                continue
            row, last = rows.iloc[place], max(len(rows) - 1, 1)
            choice = label(_text(row["choice"]))
            text = [choice if row[group] >= 0.04 else "" for group in groups]
            figure.add_trace(
                go.Bar(
                    y=[[label(gene)] * len(groups), [label(group) for group in groups]],
                    x=[100 * row[group] for group in groups],
                    orientation="h",
                    marker={"color": _SCALE[round(place / last * (len(_SCALE) - 1))], "line": {"width": 0}},
                    text=text,
                    textposition="inside",
                    textangle=0,
                    textfont={"size": 11},
                    insidetextanchor="middle",
                    name=f"{label(gene)} {choice}",
                    hovertemplate="%{y}<br>" + choice + ": %{x:.1f} %<extra></extra>",
                )
            )
    height = 110 + 19 * len(shown) * len(groups)
    layout = LAYOUT | {"height": height, "margin": {"l": 180, "r": 20, "t": 20, "b": 50}}
    figure.update_layout(barmode="stack", showlegend=False, bargap=0.15, xaxis_title="% of networks", **layout)
    figure.update_xaxes(range=[0, 100])
    figure.update_yaxes(autorange="reversed")
    return figure
