"""The front in a report: figure, panel of the chosen network, and a table whose rows can be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd

from nas.figures import front_figure
from nas.page import figure_html
from nas.run import Run
from nas.statistics import wilson
from spaces import InputError


def front_section(
    run: Run, frames: Mapping[str, pd.DataFrame], intervals: Mapping[str, str], untold: str | None
) -> str:
    """Return figure, panel and table of the front, in HTML; the last two arguments are of `accuracy_intervals`."""
    search, random, front = frames["search"], frames["random"], frames["front"]
    figure = figure_html(front_figure(run, search, random, front), "front", with_library=True)
    panel = '<aside class="panel" id="panel" aria-live="polite" aria-label="Chosen network"></aside>'
    parts = [
        '<p class="note screen">Point at a network to see its genes. Click it, or choose a row of the table with the '
        "mouse or with Tab and the arrow keys, to see where its energy goes.</p>",
        f'<div class="with-panel"><div>{figure}</div>{panel}</div>',
        f"<h3>Members of the front</h3><p>{_origin(run)}{_interval_words(intervals, untold)}</p>"
        if not front.empty
        else f"<p>{escape(_no_front(run))}</p>",
        f'<div class="wide select">{_front_table(run, front, intervals)}</div>',
    ]
    return "".join(parts)


def _origin(run: Run) -> str:
    """Return what the columns of the front are, in HTML."""
    if run.config.source is not None:
        origin = f"Metrics are what <code>{escape(run.config.source)}</code> gives on the validation split"
    elif run.config.table is not None:
        origin = "Metrics are looked up in a table"
    else:
        origin = "Metrics are of inherited weights on the validation split, which the search sees"
    if not run.test_columns:
        return f"{origin}."
    return f"{origin}; columns with <code>test_</code> are on the test split, which it never sees."


def _interval_words(intervals: Mapping[str, str], untold: str | None) -> str:
    if untold is not None:
        return f" There are no confidence intervals: {escape(untold)}."
    if not intervals:
        return ""
    return (
        " The 95 % intervals are Wilson's, for another draw of as many test images; they say nothing of other seeds."
    )


def accuracy_intervals(run: Run, front: pd.DataFrame) -> tuple[dict[str, str], str | None]:
    """Return the confidence interval of each test accuracy by key, or why there are none."""
    if run.config.data is None or "test_accuracy" not in front or front["test_accuracy"].isna().all():
        return {}, None
    try:
        images = len(run.data.test)
    except InputError as error:
        return {}, str(error)
    found = {}
    for key, accuracy in zip(front["key"], front["test_accuracy"], strict=True):
        if 0 <= accuracy <= 1:
            low, high = wilson(float(accuracy), images)
            found[key] = f"{low:.4f} to {high:.4f}"
    return found, None


def _no_front(run: Run) -> str:
    reason = run.why_empty()
    return f"There is no front: {reason}." if reason else "There is no front yet."


def _front_table(run: Run, front: pd.DataFrame, intervals: Mapping[str, str]) -> str:
    """Return the front as a table whose rows can be chosen."""
    others = [metric for metric in run.metrics if metric not in run.objectives]
    genes = sorted(run.space.columns, key=lambda column: column != "depth")  # which tells the layers
    columns = ["key", *run.objectives, *run.test_columns, *others, *genes]
    table = front[columns].copy()
    if intervals:
        place = columns.index("test_accuracy") + len(run.test_columns) - run.test_columns.index("test_accuracy")
        table.insert(place, "test_accuracy, 95 %", [intervals.get(key, "") for key in front["key"]])
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = [
        f'<tr tabindex="{-1 if place else 0}" aria-selected="false" data-key="{escape(str(values[0]))}">'
        f"{''.join(f'<td>{_cell(value)}</td>' for value in values)}</tr>"
        for place, values in enumerate(table.itertuples(index=False, name=None))
    ]
    label = "Members of the front; the arrow keys choose one"
    return (
        f'<table id="members" role="grid" aria-label="{label}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return escape(value)
    return "" if pd.isna(value) else f"{value:.5g}" if isinstance(value, float) else escape(str(value))
