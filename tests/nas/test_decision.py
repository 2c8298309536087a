"""Decisions on fronts, by hand and against pymoo's own."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymoo.decomposition.asf import ASF

from nas.decision import knee, least_regret, nearest_weights, neighbours, pseudo_weights, shares, trade_offs

BENT = np.array([[0.0, 1.0], [0.1, 0.4], [0.2, 0.1], [0.6, 0.05], [1.0, 0.0]])
"""A front whose knee is its third point."""


def pseudo_weights_of_pymoo(F, weights):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it takes a module of scipy by its old name
        from pymoo.mcdm.pseudo_weights import PseudoWeights
    return PseudoWeights(weights).do(F, return_pseudo_weights=True)


def front_of(rng, n_obj, count=60):
    """Return points on a simplex, none of which dominates another, bent towards the best."""
    points = rng.dirichlet(np.ones(n_obj), count) ** 2
    return shares(points, [False] * n_obj)


def test_shares_are_of_the_range_and_zero_is_the_best():
    points = np.array([[0.9, 4.0, 7.0], [0.5, 1.0, 7.0], [0.7, 2.0, 7.0]])
    expected = [[0, 1, 0], [1, 0, 0], [0.5, 1 / 3, 0]]
    np.testing.assert_allclose(shares(points, [True, False, False]), expected)


def test_trade_offs_by_hand():
    F = np.array([[0.0, 1.0], [0.25, 0.25], [1.0, 0.0]])
    # From the middle: 0.75 of the second for 0.25 of the first, or 0.75 of the first for 0.25 of the second.
    np.testing.assert_allclose(trade_offs(F), [1 / 3, 3, 1 / 3])


def test_the_knee_is_where_the_front_bends():
    assert knee(BENT) == 2
    for order in ([4, 2, 0, 1, 3], [2, 3, 4, 0, 1]):
        assert order[knee(BENT[order])] == 2


def test_an_end_is_no_knee_unless_there_is_nothing_else():
    cliff = np.array([[0.0, 1.0], [0.05, 0.01], [1.0, 0.0]])
    assert knee(cliff) == 1
    assert knee(cliff[[0, 2]]) in (0, 1)
    assert knee(np.array([[0.0, 0.0]])) == 0
    assert knee(np.array([[0.0], [0.0]])) == 0


def test_members_that_are_equal_do_not_disturb_a_knee():
    assert np.allclose(np.vstack([BENT, BENT[2]])[knee(np.vstack([BENT, BENT[2]]))], BENT[2])


@pytest.mark.parametrize("n_obj", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_pseudo_weights_and_achievement_are_those_of_pymoo(n_obj, seed):
    rng = np.random.default_rng(seed)
    F, weights = front_of(rng, n_obj), rng.dirichlet(np.ones(n_obj))
    row, expected = pseudo_weights_of_pymoo(F, weights)
    np.testing.assert_allclose(pseudo_weights(F), expected)
    assert nearest_weights(F, weights) == row
    regrets = ASF().do(F, 1 / weights)
    assert regrets[least_regret(F, weights)] == pytest.approx(regrets.min())


def test_weights_lean_to_what_they_weigh():
    assert nearest_weights(BENT, np.array([1.0, 0.0])) == 0
    assert nearest_weights(BENT, np.array([0.0, 1.0])) == 4
    assert least_regret(BENT, np.array([0.5, 0.5])) == 2
    assert least_regret(BENT, np.array([0.0, 1.0])) == 4


@pytest.mark.parametrize("rule", [nearest_weights, least_regret])
def test_a_front_of_one_point_is_that_point(rule):
    assert rule(np.zeros((1, 3)), np.array([0.2, 0.3, 0.5])) == 0


def test_neighbours_of_two_objectives_are_the_ones_to_both_sides():
    assert set(neighbours(BENT, BENT[2])) == {1, 3}
    assert neighbours(BENT, BENT[0]) == [1]
    assert neighbours(BENT, BENT[4]) == [3]
    assert neighbours(BENT[:1], BENT[0]) == []


@given(st.integers(0, 10_000), st.integers(2, 4))
def test_each_neighbour_is_better_in_something_and_none_that_is_so_is_nearer(seed, n_obj):
    F = front_of(np.random.default_rng(seed), n_obj, 12)
    point = F[seed % 12]
    found = neighbours(F, point)
    distance = np.linalg.norm(F - point, axis=1)
    for k in range(n_obj):
        better = np.flatnonzero(F[:, k] < point[k])
        assert not len(better) or any(row in found and distance[row] == distance[better].min() for row in better)
    assert all((F[row] < point).any() for row in found)
    assert len(found) <= n_obj
