"""Fuzzed space files, tables, energy models and lists of architectures: refused with a reason, or read."""

import csv
import gzip
import io
import json

import numpy as np
import pandas as pd
from handed import COSTS, LISTED, PRODUCT, SPACE, answered, command, folder, fuzz, portions, results, tried
from hypothesis import strategies as st
from mutations import DEEP, LONE, ODD, damaged, mutated, toml_text

from evaluators import load_energy_model, parse_energy_model
from nas.listing import read_architectures
from nas.tables import read_table
from spaces import ProductSpace, SearchSpace, TableSpace, load_space

GENES, METRICS = ("width", "op", "wide"), ("acc", "acc_held_out", "energy_mj")


def texts_of(values):
    """Return TOML files of changed structure or of changed bytes."""
    return st.one_of(
        mutated(values).map(lambda changed: toml_text(changed).encode()), damaged(toml_text(values).encode())
    )


# Space files


def check_space(space):
    """Check that what was read is a space: it writes itself, and draws what is in it."""
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    if space.max_depth <= 300:
        drawn = space.sample(np.random.default_rng(0))
        assert drawn in space
        assert space.decode(space.encode(drawn)) == drawn
        assert space.reference is None or space.reference in space
        assert {space.smallest(), space.largest()} <= {a for a in (space.smallest(), space.largest()) if a in space}


@portions(80, 600)
def test_a_space_file_is_read_or_refused(examples):
    def check(content):
        with folder() as place:
            (place / "space.toml").write_bytes(content)
            space, why = tried(load_space, place / "space.toml")
            if why is None:
                check_space(space)
            else:
                assert why.startswith(str(place / "space.toml"))

    fuzz(check, examples, content=texts_of(SPACE))


@portions(15, 300)
def test_a_space_file_is_profiled_or_refused(examples):
    def check(content):
        with folder() as place:
            (place / "space.toml").write_bytes(content)
            space, _ = tried(load_space, place / "space.toml")
            if space is None or space.max_depth <= 300:
                answered(command("profile", place / "space.toml", "--samples", "1"))

    fuzz(check, examples, content=texts_of(SPACE))


@portions(40, 200)
def test_plain_values_make_a_space_or_are_refused(examples):
    def check(values):
        space, why = tried(SearchSpace.from_dict, values)
        if why is None:
            check_space(space)

    fuzz(check, examples, values=mutated(SPACE, [LONE]))


@portions(300, 3000)
def test_plain_values_make_a_space_of_genes_or_are_refused(examples):
    def check(values):
        space, why = tried(ProductSpace.from_dict, values)
        if why is not None:
            return
        assert ProductSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space
        drawn = space.sample(np.random.default_rng(0))
        assert drawn in space
        assert space.decode(space.encode(drawn)) == drawn
        if space.size < 1000:
            assert len({architecture.key for architecture in space}) == space.size

    fuzz(check, examples, values=st.one_of(mutated(PRODUCT, [LONE]), st.sampled_from(ODD)))


# Tables


def check_table(path, genes=GENES, unordered=("width",), metrics=METRICS):
    """Check that a table is refused, or has different rows with a value or NaN each, and writes its space."""
    table, why = tried(read_table, path, genes, unordered, metrics)
    if why is not None:
        return
    space = table.space
    again = TableSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    keys = [row.key for row in space]
    assert keys == [row.key for row in again]
    assert len(set(keys)) == space.size
    assert space.decode(space.encode(space.row(0))) == space.row(0)
    for name in metrics:
        assert table.values[name].dtype == np.float64
        assert table.values[name].shape == (space.size,)


def csv_bytes(frame):
    return frame.to_csv(index=False).encode()


def npz_bytes(frame):
    file = io.BytesIO()
    np.savez(file, **{name: frame[name].to_numpy(str if name == "op" else None) for name in frame})
    return file.getvalue()


def parquet_bytes(frame):
    file = io.BytesIO()
    frame.to_parquet(file, index=False)
    return file.getvalue()


@portions(70, 700)
def test_a_table_of_changed_bytes_is_read_or_refused(examples):
    whole = {"csv": csv_bytes(results()), "npz": npz_bytes(results()), "parquet": parquet_bytes(results())}
    whole["csv.gz"] = gzip.compress(whole["csv"], mtime=0)

    def check(case):
        suffix, content = case
        with folder() as place:
            (place / f"results.{suffix}").write_bytes(content)
            check_table(place / f"results.{suffix}")

    cases = st.sampled_from(sorted(whole)).flatmap(lambda kind: st.tuples(st.just(kind), damaged(whole[kind])))
    fuzz(check, examples, case=cases)


CELLS = st.sampled_from(
    ["", " ", "nan", "inf", "-inf", "1e400", "1e300", "0", "-1", "8", "08", "8.0", "True", "true", "conv", "None",
     "\N{SNOWMAN}", "'", '"', "a,b", "a\nb", "1" * 400, "0x10", "1_000", "1j", "2020-01-01", "\0"]
)  # fmt: skip


@st.composite
def changed_rows(draw):
    """Return a CSV file in which cells, names or rows are odd."""
    rows = [list(results().columns), *results().astype(str).to_numpy().tolist()]
    for _ in range(draw(st.integers(1, 4))):
        row = draw(st.integers(0, len(rows) - 1))
        change = draw(st.sampled_from(["cell", "cell", "column", "drop", "repeat", "shorten", "lengthen", "name"]))
        if change == "cell" and rows[row]:
            rows[row][draw(st.integers(0, len(rows[row]) - 1))] = draw(CELLS)
        elif change == "column":
            column, value = draw(st.integers(0, 5)), draw(CELLS)
            for line in rows[1:]:
                line[column : column + 1] = [value]
        elif change == "drop" and len(rows) > 1:
            del rows[row]
        elif change == "repeat":
            rows.insert(row, list(rows[row]))
        elif change == "shorten":
            rows[row] = rows[row][:-1]
        elif change == "lengthen":
            rows[row] = [*rows[row], draw(CELLS)]
        elif change == "name" and rows[0]:
            rows[0][draw(st.integers(0, len(rows[0]) - 1))] = draw(
                st.sampled_from(["", "width", "op", "acc", "key", "width_0", "state", "\N{SNOWMAN}"])
            )
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue().encode()


@portions(40, 400)
def test_a_table_of_changed_rows_is_read_or_refused(examples):
    def check(content):
        with folder() as place:
            (place / "results.csv").write_bytes(content)
            check_table(place / "results.csv")

    fuzz(check, examples, content=changed_rows())


def odd_arrays():
    """Return arrays that a column may be and should not."""
    date = np.datetime64("2020-01-01")
    return st.sampled_from(
        [
            np.array(8), np.zeros(0), np.arange(12), np.arange(5), np.arange(12.0), np.full(12, np.nan),
            np.full(12, np.inf), np.arange(24).reshape(12, 2), np.arange(12).reshape(1, 12), np.zeros((12, 0)),
            np.zeros((0, 3)), np.zeros((12, 2, 2)), np.array(["a"] * 12), np.array(["", *"abcdefghijk"]),
            np.array([b"a"] * 12), np.arange(12) > 5, np.arange(12) * 1j, np.full(12, date), np.full(12, date) - date,
            np.array([{"a": 1}] * 12, dtype=object), np.array([None, *range(11)], dtype=object),
            np.zeros(12, dtype=[("a", int), ("b", float)]), np.arange(12, dtype=np.float16),
            np.arange(12, dtype=">i8"), np.arange(12, dtype=np.uint64) + 2**63, np.full(12, 1.7e308),
            np.array([0.0, -0.0] * 6), np.array(["a\0b"] * 12), np.array(["\N{SNOWMAN}"] * 12),
        ]
    )  # fmt: skip


columns = st.dictionaries(
    st.sampled_from([*GENES, *METRICS, "width_0", "op_1_1", "op_x", "", "key"]), odd_arrays(), min_size=1, max_size=2
)


@portions(25, 400)
def test_an_archive_of_odd_arrays_is_read_or_refused(examples):
    def check(odd):
        with folder() as place:
            whole = {name: results()[name].to_numpy(str if name == "op" else None) for name in results()}
            np.savez(place / "results.npz", **{**whole, **odd})  # objects as pickles, which must be refused
            check_table(place / "results.npz")

    fuzz(check, examples, odd=columns)


def odd_series():
    """Return columns of frames that hold more kinds than arrays."""
    date = pd.Timestamp("2020-01-01")
    return st.sampled_from(
        [
            pd.Series(range(12), dtype="Int64"), pd.Series([None, *range(11)], dtype="Int64"),
            pd.Series([None, True] * 6, dtype="boolean"), pd.Series([True, False] * 6, dtype="boolean"),
            pd.Series(["a", None] * 6, dtype="string"), pd.Series(["a", "b"] * 6, dtype="category"),
            pd.Series([1, 2] * 6, dtype="category"), pd.Series([date] * 12), pd.Series([date, None] * 6),
            pd.Series([date] * 12).dt.tz_localize("UTC"), pd.Series([date - date] * 12), pd.Series([[1], [2]] * 6),
            pd.Series([{"a": 1}] * 12), pd.Series([None] * 12), pd.Series([b"a"] * 12), pd.Series(["a\0"] * 12),
            pd.Series([1.5, None] * 6, dtype="Float64"), pd.Series(range(12), dtype="uint8"),
            pd.Series(pd.period_range("2020", periods=12, freq="D")), pd.Series(pd.interval_range(0, 12)),
        ]
    )  # fmt: skip


@portions(20, 200)
def test_a_parquet_file_of_odd_columns_is_read_or_refused(examples):
    def check(odd):
        with folder() as place:
            results().assign(**odd).to_parquet(place / "results.parquet", index=False)
            check_table(place / "results.parquet")

    odd = st.dictionaries(st.sampled_from([*GENES, *METRICS]), odd_series(), min_size=1, max_size=2)
    fuzz(check, examples, odd=odd)


@portions(30, 200)
def test_a_kept_table_is_read_or_refused(examples):
    def check(values):
        space, why = tried(TableSpace.from_dict, values)
        if why is None:
            assert len({row.key for row in space}) == space.size

    with folder() as place:
        (place / "results.csv").write_bytes(csv_bytes(results()))
        kept = read_table(place / "results.csv", GENES, ("width",), METRICS).space.to_dict()
    fuzz(check, examples, values=mutated(kept, [LONE]))


# Energy models


@portions(60, 400)
def test_an_energy_model_is_read_or_refused(examples):
    def check(content):
        with folder() as place:
            path = place / "costs.toml"
            path.write_bytes(content)
            model, why = tried(load_energy_model, str(path))
            if why is not None:
                assert str(path) in why
            else:
                assert model.name == "costs"
                assert 0 <= model.operations.mac < float("inf")

    fuzz(check, examples, content=texts_of(COSTS))


@portions(30, 200)
def test_plain_values_make_an_energy_model_or_are_refused(examples):
    def check(values):
        _, why = tried(parse_energy_model, "costs", values, "values")
        assert why is None or why.startswith("values: ")

    fuzz(check, examples, values=mutated(COSTS, [LONE]))


# Lists of architectures


def known_rows():
    return [dict(row) for row in results()[list(GENES)].head(3).to_dict("records")]


def listed_csv():
    return results()[list(GENES)].head(3).to_csv(index=False).encode()


@portions(60, 400)
def test_a_list_of_architectures_is_read_or_refused(examples):
    with folder() as place:
        (place / "results.csv").write_bytes(csv_bytes(results()))
        table = read_table(place / "results.csv", GENES, ("width",), METRICS).space
    spaces = {"networks": SearchSpace.from_dict(SPACE), "table": table}

    def check(case, space):
        suffix, content = case
        with folder() as place:
            path = place / f"list{suffix}"
            path.write_bytes(content)
            listed, why = tried(read_architectures, path, spaces[space])
            if why is not None:
                assert str(path) in why
            else:
                assert listed
                assert len(set(listed)) == len(listed)
                assert all(architecture in spaces[space] for architecture in listed)

    def as_json(values):
        return json.dumps(values).encode()

    texts = st.one_of(
        *(mutated(values, [LONE]).map(as_json) for values in (LISTED, known_rows())),
        *(damaged(as_json(values)) for values in (LISTED, known_rows())),
        st.sampled_from([b"[" * DEEP, b'[{"a":' * DEEP, b"9" * 5000, b"", b"\xef\xbb\xbf[]"]),
        st.sampled_from(ODD).filter(lambda value: value is not ...).map(as_json),
    ).map(lambda content: (".json", content))
    tables = damaged(listed_csv()).map(lambda content: (".csv", content))
    fuzz(check, examples, case=st.one_of(texts, tables), space=st.sampled_from(sorted(spaces)))
