"""Spaces of any genes: exact sizes, genes that exist only where another is large enough, plain values, refusals."""

import json
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
from scipy.stats import chisquare

from spaces import InputError, ProductSpace, Row

CELLS = {
    "name": "cells",
    "genes": {
        "width": [16, 8],
        "depth": [1, 2, 3],
        "kernel_2": [3, 5],
        "kernel_3": [3, 5, 7],
        "op": ["skip", "conv"],
        "wide": [False, True],
        "stride": [1.5, 1, 2],
    },
    "unordered": ["stride"],
    "needs": {"kernel_2": ["depth", 2], "kernel_3": ["depth", 3]},
}
"""2 · (1 + 2 + 2·3) · 2 · 2 · 3 = 216 architectures."""


@pytest.fixture
def cells():
    return ProductSpace.from_dict(CELLS)


def test_every_architecture_is_listed_once_and_is_as_many_as_the_size(cells):
    everything = list(cells)
    assert cells.size == len(everything) == len(set(everything)) == len({a.key for a in everything}) == 216
    assert all(architecture in cells for architecture in everything)


def test_decode_gives_back_what_encode_is_of(cells):
    for architecture in cells:
        assert cells.decode(cells.encode(architecture)) == architecture
        assert cells.decode(cells.encode(architecture) + 0.99) == architecture
        assert cells.architecture(json.loads(json.dumps(architecture.genes))) == architecture


def test_genes_exist_where_what_they_need_is_large_enough(cells):
    for architecture in cells:
        genes = architecture.genes
        assert ("kernel_2" in genes) == (genes["depth"] >= 2)
        assert ("kernel_3" in genes) == (genes["depth"] >= 3)
    shallow = cells.decode([0, 0, 1, 2, 0, 0, 0])
    assert shallow == cells.decode([0, 0, 0, 0, 0, 0, 0])
    assert cells.active([0, 0, 1, 2, 0, 0, 0]).tolist() == [True, True, False, False, True, True, True]


def test_numbers_are_in_order_unless_it_means_nothing(cells):
    assert dict(zip(cells.columns, cells.ordered.tolist(), strict=True)) == {
        **dict.fromkeys(("width", "depth", "kernel_2", "kernel_3"), True),
        **dict.fromkeys(("op", "wide", "stride"), False),
    }
    assert (cells.choices("width"), cells.choices("op"), cells.choices("stride")) == (
        (8, 16),
        ("skip", "conv"),
        (1, 1.5, 2),
    )


def test_draws_are_uniform_over_distinct_architectures(cells):
    rng = np.random.default_rng(0)
    drawn = Counter(cells.sample(rng) for _ in range(216 * 60))
    assert len(drawn) == 216
    assert chisquare(list(drawn.values())).pvalue > 1e-4


def test_json_gives_back_the_same_space(cells):
    assert ProductSpace.from_dict(json.loads(json.dumps(cells.to_dict()))) == cells


def test_a_space_far_too_large_to_list_has_its_exact_size_and_is_sampled():
    genes = {"depth": [2, 3, 4], **{f"kernel_{layer}": [3, 5, 7] for layer in range(40)}}
    space = ProductSpace.from_dict(
        {"name": "large", "genes": genes, "needs": {f"kernel_{i}": ["depth", 3] for i in range(30, 40)}}
    )
    assert space.size == 3**30 * (1 + 2 * 3**10)
    rng = np.random.default_rng(0)
    assert all(space.sample(rng) in space for _ in range(20))
    assert len(set(islice(space, 100))) == 100
    assert all(one != other for one, other in pairwise(islice(space, 100)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": ""}, "name must be a non-empty text, got ''"),
        ({"size": 3}, r"has the keys \['genes', 'name', 'needs', 'unordered'\], got .*size"),
        ({"genes": {}}, "genes must be lists of choices by their names, got {}"),
        ({"genes": [3]}, r"genes must be lists of choices by their names, got \[3\]"),
        ({"unordered": [["op"]]}, r"unordered must list some of"),
        ({"needs": {"op": ["depth", float("nan")]}}, "needs must give"),
        ({"unordered": ["stripe"]}, r"unordered must list some of .*, got \['stripe'\]"),
        ({"genes": CELLS["genes"] | {"op": []}}, r"op must be a list of different numbers, .*, got \[\]"),
        ({"genes": CELLS["genes"] | {"op": "ab"}}, "op must be a list of different numbers, .*, got 'ab'"),
        ({"genes": CELLS["genes"] | {"op": ["a", 1]}}, "op must be a list .*, all of one kind, got"),
        ({"genes": CELLS["genes"] | {"op": [True, 1]}}, "op must be a list .*, all of one kind, got"),
        ({"genes": CELLS["genes"] | {"op": [None]}}, "op must be a list .*, all of one kind, got"),
        ({"genes": CELLS["genes"] | {"op": ["a", "a"]}}, r"op must be a list .*, got \['a', 'a'\]"),
        ({"genes": CELLS["genes"] | {"op": [1.0, float("inf")]}}, "op must be a list .*, finite ones, got"),
        ({"needs": 3}, "needs must give a gene another one .*, got 3"),
        ({"needs": {"stripe": ["depth", 2]}}, r"needs must give .*, got \['depth', 2\] for 'stripe'"),
        ({"needs": {"op": ["stripe", 2]}}, "needs must give"),
        ({"needs": {"op": ["wide", 1]}}, "needs must give"),
        ({"needs": {"op": ["depth"]}}, "needs must give"),
        ({"needs": {"op": ["depth", "2"]}}, "needs must give"),
        ({"needs": {"op": ["width", 2], "width": ["depth", 2]}}, "needs must give"),
        ({"needs": {"op": ["depth", 10**400]}}, "needs must give"),
        (
            {"genes": CELLS["genes"] | {"op": list(range(2**16 + 1))}},
            "op must .*, 65536 at most, got 65537$",
        ),
        ({3: 1}, r"has the keys .*, got \['3', 'genes', 'name', "),
    ],
)
def test_values_that_are_no_space_are_refused(keys, message):
    with pytest.raises(InputError, match=message):
        ProductSpace.from_dict({**CELLS, **keys})


@pytest.mark.parametrize("vector", [[0] * 6, [2, 0, 0, 0, 0, 0, 0], [-1, 0, 0, 0, 0, 0, 0], [np.nan] * 7])
def test_what_is_no_vector_is_refused(vector, cells):
    with pytest.raises(InputError, match=r"has 7 entries|width must be in \[0, 2\)"):
        cells.decode(vector)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"width": 9}, r"width must be one of \[8, 16\], got 9"),
        ({"height": 9}, "height must be one of none: it is no gene of 'cells', got 9"),
        (
            {"kernel_2": 3},
            r"an architecture of 'cells' has here the genes \['depth', .*\], got \['depth', 'kernel_2'",
        ),
        ({"op": ["conv"]}, "op must be one of"),
    ],
)
def test_an_architecture_of_another_space_is_refused(changed, message, cells):
    genes = cells.decode([0] * 7).genes | changed
    with pytest.raises(InputError, match=message):
        cells.architecture(genes)
    assert Row(("width",), (8,)) not in cells
    assert "width" not in cells
