"""Self-contained pages: one look for all that is written for a browser."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from supernet.files import write_atomically

BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)  # safe for all colour vision (Okabe and Ito)
GREY = "#8A8A8A"

LOG_FROM = 8
"""Ratio of the largest to the smallest cost from which the cost axis is logarithmic."""

LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "height": 480,
    "margin": {"l": 70, "r": 20, "t": 75, "b": 60},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
}
_MODE_BAR = {"displaylogo": False, "modeBarButtonsToRemove": ["sendChartToCloud", "lasso2d", "select2d"]}
_WEB = Path(__file__).parent / "web"

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""What a browser lets a page do: run and show what is in it, and fetch nothing from anywhere."""


def web_file(name: str) -> str:
    """Return the text of a style sheet or a script that pages have in them."""
    return (_WEB / name).read_text(encoding="utf-8")


def write_page(path: Path, title: str, sections: Iterable[str]) -> None:
    """Write a page of HTML sections, which takes the reader's colours, light or dark, and is light in print."""
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{web_file('page.css')}</style></head><body><main>{''.join(sections)}</main></body></html>"
    )
    write_atomically(path, page.encode(errors="backslashreplace"))  # what was an odd file name in a failure


def label(text: str) -> str:
    """Return a text as figures show it letter by letter; plotly takes some markup otherwise, links among it."""
    return escape(text, quote=False)


def figure_html(figure: go.Figure, name: str, *, with_library: bool) -> str:
    """Return a figure as HTML.

    Args:
        figure: Figure.
        name: Its name in the page.
        with_library: Whether plotly's script comes with it, as it must with the first figure of a page.
    """
    html: str = figure.to_html(
        full_html=False,
        include_plotlyjs=with_library,
        div_id=name,
        config={"responsive": True, "displayModeBar": "hover", **_MODE_BAR},
    )
    return html


def data_html(name: str, values: object) -> str:
    """Return plain values as JSON in a page, for its script, by their name; no text in them can end it."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return f'<script type="application/json" id="{name}">{text.replace("<", chr(92) + "u003c")}</script>'


def facts_html(rows: Mapping[str, object]) -> str:
    """Return names and values as a table."""
    cells = "".join(f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in rows.items())
    return f'<div class="wide"><table class="facts">{cells}</table></div>'
