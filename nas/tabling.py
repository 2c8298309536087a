"""Tables of results as files: JSON, CSV or Parquet, whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from spaces import InputError
from supernet.files import write_atomically


def to_json(frame: pd.DataFrame) -> str:
    """Return a table as a JSON list of rows, what is missing being null."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
    return json.dumps(rows, indent=1) + "\n"


def to_csv(frame: pd.DataFrame) -> str:
    """Return a table as CSV, what is missing being empty."""
    return str(frame.to_csv(index=False))


def to_parquet(frame: pd.DataFrame) -> bytes:
    """Return a table as Parquet; columns of text stay such also where all of it is missing.

    Raises:
        InputError: If there is no pyarrow.
    """
    if find_spec("pyarrow") is None:
        raise InputError("Parquet needs pyarrow: pip install 'spikefront[tables]'; or write CSV or JSON")
    typed = frame.copy()
    for name in typed.columns:
        if pd.api.types.is_numeric_dtype(typed[name]):  # also of truth values
            continue
        values = typed[name].dropna()
        truth = len(values) > 0 and values.map(lambda value: isinstance(value, bool)).all()
        texts = typed[name].map(lambda value: None if pd.isna(value) else str(value))
        typed[name] = typed[name].astype("boolean") if truth else texts.astype("string")
    file = io.BytesIO()
    typed.to_parquet(file, engine="pyarrow", index=False)
    return file.getvalue()


WRITERS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    "csv": lambda frame: to_csv(frame).encode(errors="backslashreplace"),
    "json": lambda frame: to_json(frame).encode(),
    "parquet": to_parquet,
}
"""Formats of files, which are also their suffixes."""


def write_table(frame: pd.DataFrame, path: Path, format_: str | None = None) -> None:
    """Write a table to a file.

    Args:
        frame: What to write.
        path: File; its suffix says the format if nothing else does.
        format_: A row of ``WRITERS``.

    Raises:
        InputError: If the format is none of those, needs what is not installed, or the file cannot be written.
    """
    kind = path.suffix.removeprefix(".").lower() if format_ is None else format_
    if kind not in WRITERS:
        asked = str(path) if format_ is None else format_
        raise InputError(f"tables are written as {sorted(WRITERS)}, got {asked!r}; say which with --format")
    content = WRITERS[kind](frame)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise InputError(f"the table must go to a file that can be written, but {path}: {error.strerror}") from None
