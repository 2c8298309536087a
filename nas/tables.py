"""Tables of known results: NumPy archives, CSV and Parquet files as columns of genes and of metrics."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spaces import InputError, TableSpace, gene_columns
from supernet.download import DATA_VARIABLE, data_folder

Columns = Mapping[str, NDArray[Any]]

_NO_VALUE = ["", "nan", "NaN", "NAN", "NA", "N/A", "null", "None"]
"""Cells of a CSV file that are no number of a metric."""

_DAMAGES = (OSError, ValueError, EOFError, MemoryError, OverflowError, zlib.error)
"""What reading a damaged file raises, whatever its format."""

SHOWN = 30
"""Most column names that an error lists."""


@dataclass(frozen=True)
class ResultTable:
    """A table as a search sees it.

    Attributes:
        space: Its rows as architectures.
        values: Values of each metric column by name, one per row of the space, NaN where there is none.
        fingerprint: SHA-256 of the file.
    """

    space: TableSpace
    values: Columns
    fingerprint: str


def locate_table(file: str, data_dir: str | Path | None) -> Path:
    """Return the path of a table: a whole path, or one in the data folder or that lies directly in it.

    Raises:
        InputError: If it is not there.
    """
    path, root = Path(file), data_folder(data_dir)
    places = [path] if root is None or path.is_absolute() else [root / path, root / path.name]
    for place in places:
        if place.is_file():
            return place
    where = "" if path.is_absolute() else f" beside the recipe or in {root or 'a data folder'}"
    raise InputError(f"there is no table {file}{where}; set table.file, --data-dir or {DATA_VARIABLE}")


def read_table(path: Path, genes: Sequence[str], unordered: Sequence[str], metrics: Sequence[str]) -> ResultTable:
    """Return the rows of a file; rows that are listed twice count once.

    Args:
        path: ``.npz``, ``.csv``, ``.csv.gz`` or ``.parquet`` file.
        genes: Columns that make an architecture, or arrays all of whose columns do.
        unordered: Those whose numbers have no meaningful order.
        metrics: Columns of results.

    Raises:
        InputError: If the file, a column or a row is not right.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"the table {path} cannot be read: {error.strerror}") from None
    columns = _reader(path)(path, metrics)
    chosen = _chosen(columns, genes, "table.genes")
    loose = _chosen(columns, unordered, "table.unordered")
    if not loose.keys() <= chosen.keys():
        raise InputError(f"table.unordered must be among table.genes, got {sorted(loose.keys() - chosen.keys())}")
    values = _metric_values(columns, metrics)
    if set(values) & set(chosen):
        raise InputError(f"a column is a gene or a metric, got {sorted(set(values) & set(chosen))} as both")
    lengths = {name: len(array) for name, array in {**chosen, **values}.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        raise InputError(f"columns of a table have one length, which is not 0, got {_few(lengths)} in {path}")
    found, rows = gene_columns(chosen, list(loose))
    kept = _first_of_each(rows, values, path)
    space = TableSpace(path.name.split(".")[0], found, rows[kept])
    return ResultTable(space, {n: array[kept] for n, array in values.items()}, hashlib.sha256(content).hexdigest())


def _reader(path: Path) -> Callable[[Path, Sequence[str]], Columns]:
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    readers = {".npz": _read_npz, ".csv": _read_csv, ".csv.gz": _read_csv, ".parquet": _read_parquet}
    if suffix not in readers:
        raise InputError(f"a table is one of {sorted(readers)}, got {path}")
    return readers[suffix]


def _read_npz(path: Path, _: Sequence[str]) -> Columns:
    """Return the columns of an archive: ``name`` of a vector, ``name_0``, ``name_1`` and so on of a matrix."""
    columns: dict[str, NDArray[Any]] = {}
    try:
        with path.open("rb") as file:  # which NumPy would leave open if it is damaged
            archive = np.load(file)  # pickled objects are refused, as by default
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            for name in archive.files:
                array = np.atleast_1d(archive[name])
                flat = array.reshape(len(array), -1) if array.ndim > 1 else array[..., None]
                for at, column in zip(np.ndindex(array.shape[1:]), np.moveaxis(flat, -1, 0), strict=True):
                    columns["_".join([name, *map(str, at)])] = column
    except (*_DAMAGES, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise InputError(f"the table {path} must be a NumPy archive of plain arrays: {error}") from None
    return columns


def _read_csv(path: Path, metrics: Sequence[str]) -> Columns:
    try:
        frame = pd.read_csv(
            path, keep_default_na=False, na_values=dict.fromkeys(metrics, _NO_VALUE), low_memory=False
        )
    except _DAMAGES as error:
        raise InputError(f"the table {path} must be a CSV file with a line of names: {error}") from None
    return _columns(frame)


def _read_parquet(path: Path, _: Sequence[str]) -> Columns:
    if find_spec("pyarrow") is None:  # pandas would ask for it in other words
        raise InputError(f"reading {path} needs pyarrow: pip install 'spikefront[tables]'; or write the table as CSV")
    try:
        return _columns(pd.read_parquet(path, engine="pyarrow"))
    except (*_DAMAGES, import_module("pyarrow").ArrowException) as error:
        raise InputError(f"the table {path} must be a Parquet file: {error}") from None


def _columns(frame: pd.DataFrame) -> Columns:
    """Return the columns of a frame as arrays of numbers, booleans or texts; others as they are."""
    columns: dict[str, NDArray[Any]] = {}
    for name in map(str, frame.columns):
        series = frame[name]
        if pd.api.types.is_string_dtype(series) and not series.isna().any():
            columns[name] = series.to_numpy(dtype=str)
        elif pd.api.types.is_extension_array_dtype(series.dtype) and pd.api.types.is_numeric_dtype(series):
            columns[name] = series.to_numpy(dtype=float, na_value=np.nan)
        else:
            columns[name] = series.to_numpy()
    return columns


def _chosen(columns: Columns, names: Sequence[str], key: str) -> dict[str, NDArray[Any]]:
    """Return columns by name, or by the name of the array that they are of."""
    chosen: dict[str, NDArray[Any]] = {}
    for name in names:
        found = {column: columns[column] for column in columns if column == name or _array(column, name)}
        if not found:
            raise InputError(f"{key} must be among the columns {_few(list(columns))}, got {name!r}")
        chosen |= {name: columns[name]} if name in columns else found
    return chosen


def _array(column: str, name: str) -> bool:
    """Return whether a column is one of an array's: its name with whole numbers behind."""
    rest = column.removeprefix(f"{name}_")
    return rest != column and all(part.isdigit() for part in rest.split("_"))


def _metric_values(columns: Columns, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    values = {}
    for name in names:
        if name not in columns:
            raise InputError(f"table.metrics and table.test must be among {_few(list(columns))}, got {name!r}")
        if columns[name].dtype.kind not in "iuf":
            raise InputError(f"metrics must be numbers, but column {name!r} has {_kind(columns[name])}")
        values[name] = columns[name].astype(np.float64)
    return values


def _kind(array: NDArray[Any]) -> str:
    odd = (value for value in array.ravel().tolist() if isinstance(value, bool) or not isinstance(value, int | float))
    return f"values such as {next(odd, array.dtype)!r}"


def _first_of_each(rows: NDArray[np.int64], values: Columns, path: Path) -> NDArray[np.int64]:
    """Return the numbers of the rows that differ in their genes, the first of equal ones."""
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    same = first[inverse.reshape(-1)]
    for name, array in values.items():
        other = np.flatnonzero(~np.isclose(array, array[same], rtol=0, atol=0, equal_nan=True))
        if len(other):
            at = int(other[0])
            raise InputError(
                f"rows of equal genes must have equal metrics, but rows {same[at]} and {at} of {path}, counted from "
                f"0, have {name} {array[same[at]]:g} and {array[at]:g}; name the genes that tell them apart"
            )
    return np.sort(first)


def _few(names: Any) -> str:
    """Return names, or names with numbers, as an error shows them."""
    shown = list(names.items() if isinstance(names, dict) else names)
    return str(shown[:SHOWN])[:-1] + (f", and {len(shown) - SHOWN} more]" if len(shown) > SHOWN else "]")
