"""``report.html``: one self-contained page with the front, why it is so, and what it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from evaluators import EnergyModel, OperationCounts
from nas.energy import front_energy_figure, load_models
from nas.fidelity_file import read_fidelity
from nas.fidelity_page import describe, fidelity_figure
from nas.figures import (
    axes,
    evaluated,
    hypervolume_figure,
    idle_figure,
    idle_shares,
    largest_architecture,
    reference_architecture,
)
from nas.gene_shares import gene_shares, shares_figure, telling
from nas.page import data_html, facts_html, figure_html, web_file, write_page
from nas.points import page_data
from nas.report_facts import facts_table, infeasible
from nas.report_front import accuracy_intervals, front_section
from nas.reproducing import caveats, commands, recipe_files
from nas.run import Run
from nas.soundness import IDLE
from spaces import InputError

REPORT = "report.html"

_ENERGY_MEMBERS = 32
"""Members of the front whose energy is counted anew, at most."""

_ENERGY_IMAGES, _LEAST_IMAGES, _ALL_IMAGES = 256, 96, 3072
"""Images to calibrate and to count on: at most, at least, and about so many for all members together."""

_REASONS = 20
"""Reasons of failures that are listed."""


def write_report(run: Run) -> Path:
    """Write the report of a run into its folder, and return its path."""
    with run.reading_once():
        return _write(run)


def _write(run: Run) -> Path:
    frames = {"search": run.evaluations(), "random": run.evaluations("random"), "front": run.front()}
    search, random, front = frames["search"], frames["random"], frames["front"]
    models, counts, obstacle = _count(run, front)
    intervals, untold = accuracy_intervals(run, front)
    sections = {
        "Pareto front": front_section(run, frames, intervals, untold),
        "Why these": _why_section(run, front),
        "Energy of the front's members": _energy_section(run, front, models, counts, obstacle),
        "Hypervolume": _progress_section(run, search, random),
        "Failures": _failures_section(search, random),
        "Fidelity": _fidelity_section(run),
        "Run it again": _again_section(run),
        "Run": facts_table(run, search, random),
    }
    shown = {title: html for title, html in sections.items() if html}
    links = " ".join(f'<a href="#{_anchor(title)}">{escape(title)}</a>' for title in shown)
    data = page_data(run, frames, intervals, counts, models)
    parts = [
        f"<h1>{escape(run.config.name)}</h1>",
        f'<p class="lead">{escape(_summary(run, frames))}</p>',
        f'<nav aria-label="Sections">{links}</nav>',
        *(f'<h2 id="{_anchor(title)}">{escape(title)}</h2>{html}' for title, html in shown.items()),
        data_html("points", data),
        f"<script>{web_file('report.js')}</script>",
    ]
    path = run.folder / REPORT
    write_page(path, f"{run.config.name}: Spikefront report", parts)
    return path


def _anchor(title: str) -> str:
    return f"section-{title.lower().replace(' ', '-').replace(chr(39), '')}"


def _summary(run: Run, frames: Mapping[str, pd.DataFrame]) -> str:
    search, random, front = frames["search"], frames["random"], frames["front"]
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
    return (
        " ".join(parts)
        + "."
        + "".join(
            _against(run, front, rows, what)
            for rows, what in (
                (largest_architecture(run), "largest architecture"),
                (reference_architecture(run), "hand-made reference"),
            )
        )
    )


def _against(run: Run, front: pd.DataFrame, rows: pd.DataFrame, what: str) -> str:
    """Return in a sentence what the front has beside another architecture of the space, nothing without one."""
    if rows.empty or list(run.objectives.values()) != ["max", "min"]:
        return ""
    (quality, cost), row = run.objectives, rows.iloc[0]
    tested = row.get(f"test_{quality}")
    on_test = f" ({tested:.4f} on the test split)" if run.test_columns and pd.notna(tested) else ""
    text = f" The {what} of the space has {quality} {row[quality]:.4f}{on_test} at {cost} {row[cost]:.4g}"
    as_good = front[front[quality] >= row[quality]].sort_values(cost)
    if as_good.empty or not row[cost] > 0:
        return f"{text}."
    best = as_good.iloc[0]
    return f"{text}; {best['key']} is as good or better at {100 * best[cost] / row[cost]:.3g} % of that {cost}."


def _why_section(run: Run, front: pd.DataFrame) -> str:
    if front.empty:
        return ""
    shares = gene_shares(run, front)
    apart = "; ".join(telling(shares))
    order = f", and its thirds in the order of {escape(axes(run)[0])}" if len(shares.columns) > 4 else ""
    return (
        f"<p>Shares of the choices of each gene, from the lowest to the highest: in random architectures of the "
        f"space, on the front{order}. Genes that differ most come first.{f' {escape(apart)}.' if apart else ''}</p>"
        + figure_html(shares_figure(shares), "genes", with_library=False)
    )


def _count(run: Run, front: pd.DataFrame) -> tuple[list[EnergyModel], dict[str, OperationCounts], str | None]:
    """Return energy models, what members of the front do, or why that cannot be counted; without supernet nothing."""
    if front.empty or run.config.data is None:
        return [], {}, None
    chosen = np.unique(np.linspace(0, len(front) - 1, _ENERGY_MEMBERS).round().astype(int))
    images = _images(len(chosen))
    try:
        models = load_models(own=run.energy_models)
        return models, run.operations(front["key"].iloc[chosen].tolist(), images, images), None
    except InputError as error:  # for instance since the supernet or the images are no longer there
        return [], {}, str(error)


def _images(members: int) -> int:
    """Return how many images each of so many members is calibrated and counted on, at most."""
    return int(np.clip(_ALL_IMAGES // members, _LEAST_IMAGES, _ENERGY_IMAGES))


def _energy_section(
    run: Run,
    front: pd.DataFrame,
    models: list[EnergyModel],
    counts: Mapping[str, OperationCounts],
    obstacle: str | None,
) -> str:
    """Return the energy of the front's members by kind of layer, or why it cannot be shown; nothing for a table."""
    if obstacle is not None:
        return f"<p>It cannot be counted: {escape(obstacle)}</p>"
    if not counts:
        return ""
    images = next(iter(counts.values())).images
    calibration = min(_images(len(counts)), run.config.scoring.calibration_images)
    members = f"all {len(front)} members" if len(counts) == len(front) else f"{len(counts)} of {len(front)} members"
    return (
        f"<p>By kind of layer, under the energy model chosen on the right; {members}, spread over the front, in the "
        f"order of the table above. Counted anew on the first {images} validation images, after calibration on "
        f"{calibration} training images, so that it can differ a little from the table.</p>"
        + figure_html(front_energy_figure(counts, models), "energy", with_library=False)
    )


def _progress_section(run: Run, search: pd.DataFrame, random: pd.DataFrame) -> str:
    parts = [figure_html(hypervolume_figure(run, search, random), "hypervolume", with_library=False)]
    workers, recorded = run.config.workers, run.attribute(IDLE)
    if run.config.table is not None:
        return parts[0]
    count = 1 if workers.pool == "local" else workers.count
    shares = idle_shares(run.timeline(), count) if isinstance(count, int) else []
    if shares or recorded is not None:
        parts.append("<h3>Idle time</h3>")
    if recorded is not None:
        parts.append(f"<p>The workers scored nothing in {100 * recorded:.1f} % of their time.</p>")
    if shares:
        parts.append(
            "<p>Share of the workers' time that was not spent on scoring, from the first submission up to each "
            "result, their start included; longer pauses of the run are left out.</p>"
            + figure_html(idle_figure(shares), "idle", with_library=False)
        )
    return "".join(parts)


def _failures_section(search: pd.DataFrame, random: pd.DataFrame) -> str:
    frame = pd.concat([each.assign(study=name) for name, each in (("search", search), ("random", random))])
    failed = frame[frame["state"] == "failed"]
    if failed.empty:
        return f"<p>None of {len(frame)} evaluations failed.</p>"
    found = failed.groupby("failure", sort=False)["key"].agg(["count", "first"]).sort_values("count", ascending=False)
    rows = "".join(
        f"<tr><td>{row['count']}</td><td>{escape(str(reason))}</td><td>{escape(row['first'])}</td></tr>"
        for reason, row in found.head(_REASONS).iterrows()
    )
    rest = f"<p>{len(found) - _REASONS} more reasons are not listed.</p>" if len(found) > _REASONS else ""
    return (
        f"<p>{len(failed)} of {len(frame)} evaluations of search and baseline failed. A failure is no number: "
        "for the optimiser it violates a constraint.</p>"
        '<div class="wide"><table class="reasons"><thead><tr><th scope="col">times</th><th scope="col">reason</th>'
        f'<th scope="col">for instance</th></tr></thead><tbody>{rows}</tbody></table></div>{rest}'
    )


def _fidelity_section(run: Run) -> str:
    try:
        fidelity = read_fidelity(run.folder)
    except InputError as error:
        return f"<p>It cannot be shown: {escape(str(error))}.</p>"
    if fidelity is None:
        return ""
    return (
        f"<p>{len(fidelity.points)} networks were also trained by themselves: how inherited accuracy orders them.</p>"
        + facts_html(describe(fidelity))
        + figure_html(fidelity_figure(fidelity), "fidelity", with_library=False)
    )


def _again_section(run: Run) -> str:
    files = "".join(
        f"<details><summary><code>{escape(name)}</code></summary><pre>{escape(text)}</pre></details>"
        for name, text in recipe_files(run).items()
    )
    return (
        "<p>With the files below, in one folder:</p>"
        f'<pre id="commands">{escape(chr(10).join(commands(run)))}</pre>{files}<p class="note">'
        f"{escape(' '.join(caveats(run)))}</p>"
    )
