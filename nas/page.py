"""Self-contained pages: one look for all that is written for a browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from supernet.files import write_atomically

BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # safe for all colour vision (Okabe and Ito)
GREY = "#8A8A8A"

LOG_FROM = 8
"""Ratio of the largest to the smallest cost from which the cost axis is logarithmic."""

LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "height": 480,
    "margin": {"l": 70, "r": 20, "t": 30, "b": 60},
    "legend": {"orientation": "h", "y": 1.08},
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; } .lead { color: #555; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 3px 9px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; font-family: ui-monospace, monospace; }
.facts td { text-align: left; white-space: normal; }
"""


def write_page(path: Path, title: str, sections: Iterable[str]) -> None:
    """Write a page of HTML sections."""
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(sections)}</body></html>"
    )
    write_atomically(path, page.encode(errors="backslashreplace"))  # what was an odd file name in a failure


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
        config={"displaylogo": False, "responsive": True},
    )
    return html


def facts_html(rows: Mapping[str, object]) -> str:
    """Return names and values as a table."""
    cells = "".join(f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in rows.items())
    return f'<div class="wide"><table class="facts">{cells}</table></div>'
