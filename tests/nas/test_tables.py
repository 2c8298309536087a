"""Files of results: the same columns from an archive, CSV and Parquet, and errors that name the fault."""

import gzip
import hashlib

import numpy as np
import pandas as pd
import pytest

from nas.tables import locate_table, read_table
from spaces import InputError

WIDTHS, OPS, FLAGS = [8, 8, 16, 16], ["skip", "none", "conv", "none"], [True, False, False, True]
ACC, ENERGY = [0.5, 0.7, np.nan, 0.9], [1.0, 2.0, 3.0, 4.0]


def frame(**columns):
    found = {"width": WIDTHS, "op": OPS, "flag": FLAGS, "acc": ACC, "energy_mj": ENERGY} | columns
    return pd.DataFrame({name: values for name, values in found.items() if values is not None})


def write(path, table):
    """Write a frame in the format of a path."""
    if path.suffix == ".npz":
        arrays = {name: table[name].to_numpy() for name in table}
        texts = {name: array.astype(str) for name, array in arrays.items() if array.dtype.kind not in "iufb"}
        np.savez(path, **{**arrays, **texts})
    elif path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return path


def read(path, genes=("width", "op", "flag"), unordered=(), metrics=("acc", "energy_mj")):
    return read_table(path, genes, unordered, metrics)


@pytest.mark.parametrize("name", ["results.npz", "results.csv", "results.csv.gz", "results.parquet"])
def test_every_format_gives_the_same_rows_and_values(name, tmp_path):
    path = write(tmp_path / name, frame())
    table = read(path)
    assert [row.values for row in table.space] == list(zip(WIDTHS, OPS, FLAGS, strict=True))
    assert {type(value) for row in table.space for value in row.values} == {int, str, bool}
    assert table.space.ordered.tolist() == [True, False, False]
    assert table.space.name == "results"
    np.testing.assert_array_equal(table.values["acc"], ACC)
    np.testing.assert_array_equal(table.values["energy_mj"], ENERGY)
    assert table.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_name_of_a_matrix_stands_for_its_columns(tmp_path):
    genes, cube = np.array([[0, 3], [1, 2], [0, 2]]), np.arange(12).reshape(3, 2, 2)
    np.savez(
        tmp_path / "a.npz", genes=genes, genes_names=["x", "y"], cube=cube, acc=[1.0, 2, 3], noted=np.array("as is")
    )
    table = read(tmp_path / "a.npz", ["genes", "cube"], ["cube_1_0", "genes"], ["acc"])
    assert table.space.columns == ("genes_0", "genes_1", "cube_0_0", "cube_0_1", "cube_1_0", "cube_1_1")
    assert table.space.ordered.tolist() == [False, False, True, True, False, True]
    assert [row.values for row in table.space] == [(*g, *c.ravel()) for g, c in zip(genes, cube, strict=True)]
    assert read(tmp_path / "a.npz", ["genes_1", "genes_0"], (), ["cube_0_1"]).space.columns == ("genes_1", "genes_0")


def test_words_for_nothing_are_texts_in_genes_and_missing_in_metrics(tmp_path):
    (tmp_path / "a.csv").write_text("op,acc\nNone,1.5\nNA,\nnan,NaN\n")
    table = read(tmp_path / "a.csv", ["op"], (), ["acc"])
    assert [row.values for row in table.space] == [("None",), ("NA",), ("nan",)]
    np.testing.assert_array_equal(table.values["acc"], [1.5, np.nan, np.nan])


def test_rows_that_are_listed_twice_count_once(tmp_path):
    twice = pd.concat([frame(), frame().iloc[[2, 0]]])
    table = read(write(tmp_path / "a.csv", twice))
    assert table.space.size == 4
    np.testing.assert_array_equal(table.values["acc"], ACC)


@pytest.mark.parametrize("second", [0.75, np.nan])
def test_rows_that_contradict_each_other_are_refused(second, tmp_path):
    odd = frame().iloc[[1]].assign(acc=second)
    with pytest.raises(InputError, match=rf"rows 1 and 4 of .*a\.csv, counted from 0, have acc 0\.7 and {second}"):
        read(write(tmp_path / "a.csv", pd.concat([frame(), odd])))


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"genes": ["width", "opp"]}, r"table\.genes must be among the columns \['width', .*\], got 'opp'"),
        ({}, {"unordered": ["wid"]}, r"table\.unordered must be among the columns .*, got 'wid'"),
        ({}, {"unordered": ["acc"]}, r"table\.unordered must be among table\.genes, got \['acc'\]"),
        ({}, {"metrics": ["acc", "latency"]}, r"table\.metrics and table\.test must be among .*, got 'latency'"),
        ({}, {"metrics": ["acc", "width"]}, r"a column is a gene or a metric, got \['width'\] as both"),
        (
            {"acc": ["high", "0.5", "0.1", "1"]},
            {},
            "metrics must be numbers, but column 'acc' has values such as 'high'",
        ),
        ({"acc": FLAGS}, {}, "metrics must be numbers, but column 'acc' has values such as True"),
        ({"width": [8, 8, np.nan, 16]}, {}, "genes must be known, but column 'width' is .* in row 2"),
        ({"op": ["skip", "none", "", "none"]}, {}, "genes must be known, but column 'op' is empty in row 2"),
    ],
)
@pytest.mark.parametrize("name", ["a.npz", "a.csv"])
def test_columns_that_are_not_right_are_refused(name, change, arguments, message, tmp_path):
    if name == "a.csv" and "width" in change:
        message = "genes must be known, but column 'width' is (nan|empty) in row 2"
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / name, frame(**change)), **arguments)


def test_columns_of_different_lengths_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=[1, 2], acc=[1.0, 2.0, 3.0])
    with pytest.raises(InputError, match=r"one length, which is not 0, got \[\('a', 2\), \('acc', 3\)\]"):
        read(tmp_path / "a.npz", ["a"], (), ["acc"])


def test_an_empty_table_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a,acc\n")
    with pytest.raises(InputError, match=r"metrics must be numbers|one length, which is not 0"):
        read(tmp_path / "a.csv", ["a"], (), ["acc"])


def test_an_error_does_not_list_thousands_of_columns(tmp_path):
    np.savez(tmp_path / "a.npz", genes=np.zeros((2, 500), dtype=int))
    with pytest.raises(InputError, match=r"'genes_29', and 470 more\], got 'gene'"):
        read(tmp_path / "a.npz", ["gene"], (), ["acc"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"PK nothing", "must be a NumPy archive of plain arrays"),
        ("a.npz", b"", "must be a NumPy archive of plain arrays"),
        ("a.csv", b"", "must be a CSV file with a line of names"),
        ("a.csv", b"a,acc\n1,\xff\xfe\n", "must be a CSV file with a line of names"),
        ("a.csv.gz", b"a,acc\n1,2\n", "must be a CSV file with a line of names"),
        ("a.csv.gz", gzip.compress(b"a,acc\n1,2\n", mtime=0)[:-9], "must be a CSV file with a line of names"),
        ("a.parquet", b"PAR1", "must be a Parquet file|pip install 'spikefront\\[tables\\]'"),
        ("a.xlsx", b"", r"a table is one of \['\.csv', '\.csv\.gz', '\.npz', '\.parquet'\], got .*a\.xlsx"),
        ("a.gz", b"", "a table is one of"),
    ],
)
def test_files_that_are_no_tables_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


def test_an_archive_that_asks_for_a_password_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", width=np.arange(3))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"must be a NumPy archive of plain arrays: .* is encrypted"):
        read(tmp_path / "a.npz", ["width"], (), ["width"])


def test_a_damaged_gzip_file_is_refused(tmp_path):
    content = bytearray(gzip.compress(b"width,acc\n" + b"8,0.5\n" * 99, mtime=0))
    content[12:20] = b"\xff" * 8
    (tmp_path / "a.csv.gz").write_bytes(content)
    with pytest.raises(InputError, match="must be a CSV file with a line of names: "):
        read(tmp_path / "a.csv.gz", ["width"], (), ["acc"])


def test_a_parquet_file_whose_texts_are_none_is_refused(tmp_path):
    pd.DataFrame({"op": ["skip", "conv"], "acc": [0.5, 0.6]}).to_parquet(tmp_path / "a.parquet", compression=None)
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content.replace(b"skip", b"\xffkip"))
    with pytest.raises(InputError, match="must be a Parquet file: "):
        read(tmp_path / "a.parquet", ["op"], (), ["acc"])


def test_archives_with_code_in_them_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", width=np.array([{}, {}], dtype=object))
    with pytest.raises(InputError, match="must be a NumPy archive of plain arrays"):
        read(tmp_path / "a.npz")


def test_a_single_array_under_the_name_of_an_archive_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(InputError, match="a single array"):
        read(tmp_path / "a.npz")


def test_parquet_without_its_library_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").touch()
    monkeypatch.setattr("nas.tables.find_spec", lambda _: None)
    with pytest.raises(
        InputError, match=r"needs pyarrow: pip install 'spikefront\[tables\]'; or write the table as CSV"
    ):
        read(tmp_path / "a.parquet")


def test_a_table_lies_in_the_data_folder_or_directly_below_it(tmp_path, monkeypatch):
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / "a.csv").touch()
    assert locate_table("nas/a.csv", tmp_path) == tmp_path / "nas" / "a.csv"
    assert locate_table("nas/a.csv", tmp_path / "nas") == tmp_path / "nas" / "a.csv"
    assert locate_table(str(tmp_path / "nas" / "a.csv"), None) == tmp_path / "nas" / "a.csv"
    monkeypatch.setenv("SPIKEFRONT_DATA", str(tmp_path))
    assert locate_table("nas/a.csv", None) == tmp_path / "nas" / "a.csv"
    with pytest.raises(
        InputError, match=rf"there is no table b\.csv beside the recipe or in {tmp_path}; set table\.file"
    ):
        locate_table("b.csv", None)
    with pytest.raises(InputError, match=r"there is no table /nowhere/b\.csv; set table\.file, --data-dir"):
        locate_table("/nowhere/b.csv", None)
