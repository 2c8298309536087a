"""The rows of a table as a space: exact rows, the nearest one otherwise, and nothing else."""

import json
import math
import pickle
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from spaces import Column, InputError, Row, TableSpace, gene_columns
from spaces.table import STEPS

PROPERTY = settings(deadline=None, max_examples=50)

POOLS = ([1, 2, 4, 8], [0.5, 1.5, -2.0], [False, True], ["none", "skip", "conv"], [3, 0, 7, 250, -1])
"""Values that a column draws from."""


def table(values, unordered=(), name="listed"):
    columns, rows = gene_columns({key: np.array(column) for key, column in values.items()}, unordered)
    return TableSpace(name, columns, rows)


@st.composite
def tables(draw):
    """Spaces of one to four columns of all kinds and one to twelve different rows."""
    pools = draw(st.lists(st.sampled_from(POOLS), min_size=1, max_size=4))
    rows = draw(st.lists(st.tuples(*map(st.sampled_from, pools)), min_size=1, max_size=12, unique=True))
    values = {f"g{i}": list(column) for i, column in enumerate(zip(*rows, strict=True))}
    return table(values, draw(st.sets(st.sampled_from(list(values)))))


def vectors(space):
    """Real vectors of a space, both edges of every bucket included."""
    entries = [
        st.integers(0, int(n) - 1).flatmap(lambda i: st.sampled_from([i, i + 0.5, float(np.nextafter(i + 1, 0))]))
        for n in space.cardinalities
    ]
    return st.tuples(*entries)


@pytest.fixture
def mixed():
    """Four of the twelve combinations of a number, an unordered number and a text."""
    return table({"n": [10, 20, 40, 40], "kind": [2, 1, 2, 1], "op": ["b", "a", "a", "b"]}, unordered=["kind"])


# --- rows and vectors


@PROPERTY
@given(tables())
def test_every_row_has_a_vector_that_names_it(space):
    rows = list(space)
    assert len(set(rows)) == len({row.key for row in rows}) == space.size
    for number, row in enumerate(rows):
        assert row in space
        assert space.number(row) == number
        assert space.decode(space.encode(row)) == space.row(number) == row
        assert space.architecture(row.genes) == space.architecture(dict(reversed(row.genes.items()))) == row
        assert row.genes == {c: space.choices(c)[i] for c, i in zip(space.columns, space.encode(row), strict=True)}


@PROPERTY
@given(st.data())
def test_any_vector_stands_for_the_nearest_row_and_the_first_of_equally_near_ones(data):
    space = data.draw(tables())
    vector = data.draw(vectors(space))
    steps = STEPS // len(space.columns)

    def distance(row):
        far = 0
        for i, j, n, ordered in zip(
            map(int, vector), space.encode(row).tolist(), space.cardinalities.tolist(), space.ordered, strict=True
        ):
            far += abs(i - j) * steps // max(n - 1, 1) if ordered else (i != j) * steps
        return far

    nearest = min(space, key=distance)
    assert space.decode(vector) == space.decode(np.array(vector)) == space.decode(list(vector)) == nearest
    assert space.distances([int(v) for v in vector]).tolist() == [distance(row) for row in space]


def test_distances_are_what_one_computes_by_hand(mixed):
    assert mixed.cardinalities.tolist() == [3, 2, 2]
    assert mixed.ordered.tolist() == [True, False, False]
    shares = mixed.distances([0, 0, 0]) / STEPS * 3  # n = 10, kind = 1, op = a
    np.testing.assert_allclose(shares, [0 + 1 + 1, 0.5 + 0 + 0, 1 + 1 + 0, 1 + 0 + 1], atol=1e-8)
    assert mixed.decode([0, 0, 0]).genes == {"n": 20, "kind": 1, "op": "a"}


def test_of_rows_that_are_equally_near_the_first_is_taken():
    space = table({"a": [3, 1, 3], "b": ["y", "x", "x"]})
    assert space.decode([0, 1]).genes == {"a": 3, "b": "y"}  # (1, y) differs from each of the first two in one gene


def test_a_table_of_all_combinations_is_the_product_of_its_genes():
    combinations = list(product([1, 2, 3], ["a", "b"], [False, True]))
    a, b, c = zip(*combinations, strict=True)
    space = table({"a": list(a), "b": list(b), "c": list(c)})
    assert space.complete
    named = {space.decode(vector) for vector in product(range(3), range(2), range(2))}
    assert {row.values for row in named} == set(combinations)
    assert not table({"a": [1, 2], "b": ["a", "b"]}).complete


def test_many_searched_vectors_do_not_change_what_they_name(monkeypatch, mixed):
    monkeypatch.setattr("spaces.table.REMEMBERED", 2)
    monkeypatch.setattr("spaces.table.MEMORY", 40)
    for _ in range(2):
        for vector in product(range(3), range(2), range(2)):
            assert mixed.decode(vector) == mixed.row(int(mixed.distances(vector).argmin()))
    assert len(mixed._near) <= 2
    assert sum(part.nbytes for part in mixed._parts.values()) <= 40


def test_all_entries_are_active_and_numbers_are_ordered_unless_named_otherwise(mixed):
    assert mixed.active([0, 0, 0]).tolist() == [True] * 3
    assert table({"n": [1, 2], "x": [0.5, 1.5], "b": [True, False], "t": ["a", "b"]}).ordered.tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_choices_are_sorted_plain_values(mixed):
    assert mixed.choices("n") == (10, 20, 40)
    assert mixed.choices("op") == ("a", "b")
    assert {type(value) for column in mixed.columns for value in mixed.choices(column)} == {int, str}


def test_every_row_is_drawn_equally_often():
    space = table({"a": list(range(8)), "b": [0, 0, 0, 0, 0, 0, 1, 1]})
    rng = np.random.default_rng(3)
    counts = Counter(space.sample(rng) for _ in range(4000))
    assert len(counts) == 8
    assert chisquare(list(counts.values())).pvalue > 1e-3


# --- what is no row


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([0, 0], "a vector of space 'listed' has 3 entries, got shape"),
        ([3, 0, 0], r"n must be in \[0, 3\), got 3"),
        ([0, -1, 0], r"kind must be in \[0, 2\), got -1"),
        ([0, 0, float("nan")], r"op must be in \[0, 2\), got nan"),
    ],
)
def test_vectors_out_of_range_are_refused(mixed, vector, message):
    with pytest.raises(InputError, match=message):
        mixed.decode(vector)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ({"n": 10, "kind": 2}, r"has the genes \['n', 'kind', 'op'\], got \['n', 'kind'\]"),
        ({"n": 10, "kind": 2, "op": "b", "more": 1}, "got .*'more'"),
        ({"n": 11, "kind": 2, "op": "b"}, r"n must be one of \[10, 20, 40\], got 11"),
        ({"n": [10], "kind": 2, "op": "b"}, r"n must be one of \[10, 20, 40\], got \[10\]"),
        ({"n": 10, "kind": 1, "op": "b"}, "the table 'listed' has no row with the genes .*'kind': 1"),
    ],
)
def test_genes_that_are_no_row_are_refused(mixed, genes, message):
    with pytest.raises(InputError, match=message):
        mixed.architecture(genes)
    assert Row(tuple(genes), tuple(genes.values())) not in mixed


def test_what_is_no_row_at_all_is_not_in_the_table(mixed):
    assert "59a379f57673" not in mixed
    with pytest.raises(InputError, match="has rows, got 3"):
        mixed.encode(3)


def test_an_error_does_not_list_thousands_of_choices():
    with pytest.raises(InputError, match="a must be one of 5000 values, 0 to 4999, got -1"):
        table({"a": list(range(5000))}).architecture({"a": -1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": [1.0, np.nan]}, "genes must be known, but column 'a' is nan in row 1"),
        ({"a": [1.0, np.inf]}, "genes must be known, but column 'a' is inf in row 1"),
        ({"a": ["x", ""]}, "genes must be known, but column 'a' is empty in row 1"),
        ({"a": [1j, 2j]}, "genes must be numbers, booleans or texts, but column 'a' is of complex128"),
        ({"a": np.array([1, "x"], dtype=object)}, "but column 'a' is of object"),
        ({"a": [1, 1]}, "rows that differ in their genes, got 2"),
        ({"a": np.empty(0, dtype=int)}, "one or more rows that differ in their genes, got 0"),
    ],
)
def test_genes_that_cannot_be_searched_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        table(values)


# --- keys, and plain values


def test_a_key_depends_on_names_and_values_only():
    row = Row(("a", "b"), (1, "x"))
    assert row.key == Row(("b", "a"), ("x", 1)).key
    assert len({row.key, Row(("a", "c"), (1, "x")).key, replace(row, values=(2, "x")).key}) == 3
    assert row.key == "ecf9e98ec064"  # of {"a":1,"b":"x"}


@PROPERTY
@given(tables())
def test_plain_values_and_other_processes_give_the_same_space(space):
    written = json.loads(json.dumps(space.to_dict()))
    # Pickled in memory, as Ray sends a space to its workers; no file is read.
    for other in (TableSpace.from_dict(written), pickle.loads(pickle.dumps(space))):
        assert list(other) == list(space)
        assert other.to_dict() == space.to_dict()
        assert (other.name, other.columns, other.size) == (space.name, space.columns, space.size)
        assert other.ordered.tolist() == space.ordered.tolist()


@pytest.mark.parametrize("choices", [256, 257, 70_000])
def test_columns_of_many_choices_are_kept_whole(choices):
    space = TableSpace("wide", [Column("a", tuple(range(choices)), True)], np.arange(choices)[:, None])
    assert TableSpace.from_dict(space.to_dict()).row(choices - 1).genes == {"a": choices - 1}
    assert space.decode([choices - 1]) == space.row(choices - 1)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": "no base 64"},
        {"rows": "AAAA"},
        {"size": 3},
        {"size": 5},
        {"size": -1},
        {"columns": [{"name": "n", "choices": [10], "ordered": True}]},
        {"columns": 7},
        {"name": None, "size": None},
        {"size": 10**40},
        {"columns": [{"name": n, "choices": [1, 2, 3], "ordered": True} for n in ("n", "n", "op")]},
        {"columns": [{"name": n, "choices": [1, 2, 2], "ordered": True} for n in ("n", "kind", "op")]},
        {"columns": [{"name": n, "choices": [[1], [2], 3], "ordered": True} for n in ("n", "kind", "op")]},
        {"columns": [{"name": n, "choices": [1, 2, "a"], "ordered": True} for n in ("n", "kind", "op")]},
        {"columns": [{"name": n, "choices": [1, 2, math.nan], "ordered": True} for n in ("n", "kind", "op")]},
    ],
    ids=str,
)
def test_damaged_plain_values_are_refused(mixed, change):
    with pytest.raises(InputError, match="the rows of a table"):
        TableSpace.from_dict({**mixed.to_dict(), **change})


def test_plain_values_without_a_name_are_refused(mixed):
    with pytest.raises(InputError, match="the rows of a table"):
        TableSpace.from_dict({key: value for key, value in mixed.to_dict().items() if key != "name"})
