"""Where the energy of a network goes: by layer and kind, under each energy model, as tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from evaluators import EnergyModel, OperationCounts, compare, energy_model_names, energy_parts, load_energy_model
from nas.page import LAYOUT, figure_html, label, write_page
from spaces import InputError

KINDS = {"convolution": "#0072B2", "linear": "#D55E00", "product": "#009E73", "neuron": "#CC79A7"}
"""Kinds of layers with their colours, safe for all colour vision (Okabe and Ito)."""

_TRAFFIC = ("inputs", "events", "outputs")


def load_models(names: Sequence[str] | None = None, own: Sequence[EnergyModel] = ()) -> list[EnergyModel]:
    """Return energy models by name or file.

    Args:
        names: Names of ``own`` models or of those that come with Spikefront, or files; all of both by default.
        own: Models of a run, which come first.

    Raises:
        InputError: If a model cannot be loaded, or two have one name.
    """
    known = {model.name: model for model in own}
    names = list(names or dict.fromkeys([*known, *energy_model_names()]))
    models = [known[name] if name in known else load_energy_model(name) for name in names]
    found = [model.name for model in models]
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise InputError(f"energy models must differ in name, got {', '.join(twice)} more than once")
    return models


def layers_frame(counts: OperationCounts, models: Sequence[EnergyModel]) -> pd.DataFrame:
    """Return one row per layer and per neuron layer, per image.

    Columns: ``layer, kind, binary``; ``macs`` of the dense network; ``accumulates`` by value and ``nonzero``; the
    neurons' ``updates``, ``spikes``, firing ``rate`` and ``rate_1`` to ``rate_T`` by timestep; ``energy_mj:MODEL``;
    values that arrive (``inputs``), those above 0 (``events``) and those that leave (``outputs``); ``weights``,
    which images share.
    """
    energies = {model.name: _by_layer(counts, model) for model in models}
    rows: list[dict[str, Any]] = []
    for name, layer in counts.layers.items():
        per_image = {
            key: getattr(layer, key) / counts.images for key in ("macs", "accumulates", "nonzero", *_TRAFFIC)
        }
        facts = {"layer": name, "kind": layer.kind, "binary": layer.binary, "weights": layer.weights}
        rows.append(facts | per_image)
    for name, neurons in counts.neurons.items():
        each = max(neurons.updates // max(neurons.timesteps, 1), 1)
        rates = {f"rate_{t}": spikes / each for t, spikes in enumerate(neurons.spikes, start=1)}
        updates, spikes = neurons.updates / counts.images, neurons.fired / counts.images
        rows.append(
            {"layer": name, "kind": "neuron", "updates": updates, "spikes": spikes, "rate": neurons.rate, **rates}
        )
    for row in rows:
        row |= {f"energy_mj:{name}": energies[name].get(row["layer"], 0.0) for name in energies}
    numbers = ["macs", "accumulates", "nonzero", "updates", "spikes", "rate"]
    steps = [f"rate_{t}" for t in range(1, counts.timesteps + 1)]
    energy = [f"energy_mj:{name}" for name in energies]
    columns = ["layer", "kind", "binary", *numbers, *_TRAFFIC, "weights", *steps, *energy]
    return pd.DataFrame(rows, columns=columns)


def _by_layer(counts: OperationCounts, model: EnergyModel) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in energy_parts(counts, model):
        found[part.layer] = found.get(part.layer, 0.0) + part.mj
    return found


def by_kind(counts: OperationCounts, model: EnergyModel) -> dict[str, float]:
    """Return the millijoules per image that each kind of layer takes."""
    found = dict.fromkeys(KINDS, 0.0)
    for part in energy_parts(counts, model):
        found[part.kind] += part.mj
    return found


def models_frame(counts: OperationCounts, models: Sequence[EnergyModel]) -> pd.DataFrame:
    """Return one row per model: millijoules per image by kind, and beside the dense and the quantised network.

    Columns: ``model``, one per kind, ``energy_mj``, ``dense_mj``, ``quantised_mj``, ``bits``, ``qnn_ratio``, and the
    ``break_even_rate`` in spikes per neuron and timestep, beside the counted ``rate``. The break-even rate is missing
    if spikes are free or layers that integers reach multiply, the ratio if the quantised network costs nothing.
    """
    rows = []
    for model in models:
        result = compare(counts, model)
        rate = result.break_even_rate
        rows.append(
            {
                "model": model.name,
                **by_kind(counts, model),
                "energy_mj": result.spiking_mj,
                "dense_mj": result.dense_mj,
                "quantised_mj": result.quantised_mj,
                "bits": result.bits,
                "qnn_ratio": result.qnn_ratio if result.quantised_mj else None,
                "rate": result.rate,
                "break_even_rate": rate if rate is not None and isfinite(rate) else None,
            }
        )
    return pd.DataFrame(rows).astype({"qnn_ratio": float, "break_even_rate": float})


def shares_figure(counts: OperationCounts, models: Sequence[EnergyModel]) -> go.Figure:
    """Return a bar for each model with the share of each kind, and its millijoules below."""
    spent = {model.name: by_kind(counts, model) for model in models}
    names = [f"{label(name)}<br>{sum(kinds.values()):.3g} mJ" for name, kinds in spent.items()]
    figure = go.Figure()
    for kind, colour in KINDS.items():
        shares = [100 * kinds[kind] / (sum(kinds.values()) or 1.0) for kinds in spent.values()]
        figure.add_trace(go.Bar(x=names, y=shares, name=kind, marker_color=colour))
    return _stacked(figure, "share of the energy per image, %")


def layers_figure(counts: OperationCounts, model: EnergyModel) -> go.Figure:
    """Return a bar for each layer with what its energy is spent on, under one model."""
    parts, figure = energy_parts(counts, model), go.Figure()
    layers = list(dict.fromkeys(part.layer for part in parts))
    for name in dict.fromkeys(part.part for part in parts):
        spent = {part.layer: part.mj for part in parts if part.part == name}
        figure.add_trace(go.Bar(x=layers, y=[spent.get(layer, 0.0) for layer in layers], name=name))
    return _stacked(figure, f"mJ per image, {label(model.name)}")


def front_energy_figure(counts: Mapping[str, OperationCounts], models: Sequence[EnergyModel]) -> go.Figure:
    """Return a bar for each network by kind, under the first model; a menu chooses another one."""
    figure, keys = go.Figure(), list(counts)
    for index, model in enumerate(models):
        spent = [by_kind(counts[key], model) for key in keys]
        for kind, colour in KINDS.items():
            values = [kinds[kind] for kinds in spent]
            figure.add_trace(go.Bar(x=keys, y=values, name=kind, marker_color=colour, visible=index == 0))
    buttons = [
        {
            "label": label(model.name),
            "method": "update",
            "args": [{"visible": [model is shown for shown in models for _ in KINDS]}],
        }
        for model in models
    ]
    menu = {"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}
    _stacked(figure, "mJ per image").update_layout(updatemenus=[menu])
    return figure


def _stacked(figure: go.Figure, axis: str) -> go.Figure:
    figure.update_traces(marker_line_width=0).update_layout(barmode="stack", yaxis_title=axis, **LAYOUT)
    return figure


def write_picture(path: Path, key: str, counts: OperationCounts, models: Sequence[EnergyModel]) -> None:
    """Write a self-contained page with the shares of each model, and the layers under the first one."""
    figures = (shares_figure(counts, models), layers_figure(counts, models[0]))
    drawn = [
        figure_html(figure, f"energy-{number}", with_library=number == 0) for number, figure in enumerate(figures)
    ]
    try:
        write_page(path, f"Energy of {key}", [f"<h1>{escape(f'Energy of {key}')}</h1>", *drawn])
    except OSError as error:
        raise InputError(f"the picture must be writable, but {path}: {error.strerror}") from None
