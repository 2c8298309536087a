"""DataFrames on the screen: as a table that fits, as JSON, or as CSV."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import pandas as pd
import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from nas.tabling import to_csv, to_json

if TYPE_CHECKING:
    from nas.run import Run


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def say_dropped(names: list[str], way_out: str) -> None:
    """Name the columns that the screen had no room for, and say where to see them."""
    if names:
        typer.echo(f"for want of width without {', '.join(names)}; {way_out}")


def fitting(frame: pd.DataFrame, priority: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return as many columns as fit the screen, and the names of the others."""
    console, kept = Console(), list(priority)
    unbounded = console.options.update(max_width=10_000)
    while len(kept) > 1 and Measurement.get(console, unbounded, _table(frame[kept], "")).maximum > _width():
        kept.pop()
    shown = [name for name in frame.columns if name in kept]
    return frame[shown], [name for name in frame.columns if name not in kept]


def _width() -> int:
    """Return the columns of the screen; what is no screen gets 200."""
    console = Console()
    return console.width if console.is_terminal else 200


def print_frame(frame: pd.DataFrame, output: Format, missing: str = "") -> None:
    """Print a frame, ``missing`` standing for what a table has no value for."""
    if output is Format.JSON:
        typer.echo(to_json(frame), nl=False)
    elif output is Format.CSV:
        typer.echo(to_csv(frame), nl=False)
    else:
        table, console = _table(frame, missing), Console()
        console.print(table) if console.is_terminal else Console(width=200).print(table)


def print_front(run: Run, output: Format) -> None:
    """Print the front of a run, or say why there is none."""
    frame, reason = run.front(), run.why_empty()
    if reason:
        typer.echo(f"there is no front: {reason}", err=True)
    dropped: list[str] = []
    if output is Format.TABLE:  # what fits a screen; the others have all columns
        others = [metric for metric in run.metrics if metric not in run.objectives]
        shown = ["key", *run.objectives, *run.test_columns, *others, *run.space.columns[:3]]
        frame, dropped = fitting(frame[shown], shown)
    print_frame(frame, output)
    say_dropped(dropped, "see all with -f csv")


def _table(frame: pd.DataFrame, missing: str) -> Table:
    table = Table()
    for name in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(frame[name])
        table.add_column(str(name), justify="right" if numeric else "left", no_wrap=True)
    for row in frame.itertuples(index=False):
        table.add_row(*(missing if pd.isna(v) else f"{v:.5g}" if isinstance(v, float) else str(v) for v in row))
    return table
