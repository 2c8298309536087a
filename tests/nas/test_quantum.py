"""Equations of quantum-behaved swarms against values by hand and plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.diversity import (
    Explode,
    Perturb,
    Thresholds,
    acts,
    distance_to_average,
    fitness_diversity,
    mutants,
    resolve_control,
)
from nas.quantum import BOUNDARIES, Motion, contraction, plain_mean_best, quantum_step, weighted_mean_best
from spaces import InputError


def looped_step(x, pbest, leader, mean_best, alpha, rng):
    """The equation entry by entry, from the same draws."""
    phi, u, coin = rng.random(x.shape), 1 - rng.random(x.shape), rng.random(x.shape)
    moved = np.empty_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            attractor = phi[i, j] * pbest[i, j] + (1 - phi[i, j]) * leader[i, j]
            length = alpha * abs(mean_best[j] - x[i, j]) * math.log(1 / u[i, j])
            moved[i, j] = attractor - length if coin[i, j] < 0.5 else attractor + length
    return moved


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (7, 3)])
def test_step_is_the_equation_entry_by_entry(shape):
    rng = np.random.default_rng(1)
    x, pbest, leader = rng.normal(size=(3, *shape))
    arguments = (x, pbest, leader, pbest.mean(axis=0), 0.8)
    found = quantum_step(*arguments, np.random.default_rng(2))
    np.testing.assert_allclose(found, looped_step(*arguments, np.random.default_rng(2)), rtol=1e-13)


def test_one_leader_of_all_is_a_leader_for_each():
    rng = np.random.default_rng(1)
    x, pbest = rng.normal(size=(2, 6, 3))
    one, each = pbest[0], np.tile(pbest[0], (6, 1))
    found = [quantum_step(x, pbest, leader, pbest[1], 1.0, np.random.default_rng(2)) for leader in (one, each)]
    np.testing.assert_array_equal(*found)


def test_steps_have_the_mean_of_the_attractor_and_the_spread_of_the_equation():
    x, pbest, leader, mean_best = (np.full((200_000, 1), value) for value in (3.0, 1.0, 2.0, 5.0))
    moved = quantum_step(x, pbest, leader, mean_best[0], 0.75, np.random.default_rng(3))
    assert moved.mean() == pytest.approx(1.5, abs=0.02)
    # E|alpha (m - x) ln(1/u)|² = 2 (0.75 · 2)², and phi adds the variance of a uniform: 1 / 12
    assert moved.var() == pytest.approx(2 * 1.5**2 + 1 / 12, rel=0.03)
    assert np.mean(moved > 1.5) == pytest.approx(0.5, abs=0.01)


def test_leading_axes_draw_several_positions_for_each_particle():
    rng = np.random.default_rng(1)
    x, pbest = rng.normal(size=(2, 4, 3))
    drawn = quantum_step(np.broadcast_to(x, (5, 4, 3)), pbest, pbest[0], pbest.mean(axis=0), 1.0, rng)
    assert drawn.shape == (5, 4, 3)
    assert len(np.unique(drawn.reshape(5, -1), axis=0)) == 5


@pytest.mark.parametrize(("alpha", "bounded"), [(1.5, True), (2.2, False)])
def test_a_particle_stays_near_its_attractor_below_the_limit_of_alpha_and_leaves_above_it(alpha, bounded):
    rng = np.random.default_rng(4)
    x = np.ones((2000, 1))
    still = np.zeros((2000, 1))
    for _ in range(100):
        x = quantum_step(x, still, still[0], still[0], alpha, rng)
    assert (np.median(np.abs(x)) < 1) == bounded


def test_mean_best_positions_by_hand():
    pbest = np.array([[0.0, 6.0], [3.0, 0.0], [6.0, 3.0]])
    order = np.array([2, 0, 1])
    np.testing.assert_allclose(plain_mean_best(pbest, order), [3.0, 3.0])
    # weights 1.5 for row 2, 1 for row 0, 0.5 for row 1, over 3
    np.testing.assert_allclose(weighted_mean_best(pbest, order), [(9 + 0 + 1.5) / 3, (4.5 + 6 + 0) / 3])


def test_weights_of_equal_positions_and_of_one_particle_change_nothing():
    np.testing.assert_allclose(weighted_mean_best(np.full((5, 2), 7.0), np.arange(5)), [7.0, 7.0])
    np.testing.assert_allclose(weighted_mean_best(np.array([[4.0, 2.0]]), np.array([0])), [4.0, 2.0])


@pytest.mark.parametrize(("progress", "alpha"), [(0.0, 1.0), (0.5, 0.75), (1.0, 0.5), (1.7, 0.5), (-1.0, 1.0)])
def test_the_coefficient_falls_on_a_line(progress, alpha):
    assert contraction(progress) == pytest.approx(alpha)
    assert contraction(progress, 2.0, 1.0) == pytest.approx(2 * alpha)


finite = st.floats(-1e6, 1e6)


@given(name=st.sampled_from(sorted(BOUNDARIES)), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_what_is_outside_comes_inside_and_what_is_inside_stays(name, seed, data):
    n_var = data.draw(st.integers(1, 4))
    ends = np.sort([data.draw(st.lists(finite, min_size=2, max_size=2)) for _ in range(n_var)], axis=1)
    xl, xu = ends[:, 0], ends[:, 1]
    x = np.array([data.draw(st.lists(st.floats(-1e9, 1e9), min_size=n_var, max_size=n_var)) for _ in range(3)])
    moved = BOUNDARIES[name](x, xl, xu, np.random.default_rng(seed))
    assert ((moved >= xl) & (moved <= xu)).all()
    inside = (x >= xl) & (x <= xu)
    np.testing.assert_array_equal(moved[inside], x[inside])


def test_boundaries_by_hand():
    x, xl, xu = np.array([[-3.0, 1.0, 12.0, 25.0, 9.0]]), np.zeros(5), np.array([10.0, 10.0, 10.0, 10.0, 0.0])
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(BOUNDARIES["clip"](x, xl, xu, rng), [[0, 1, 10, 10, 0]])
    np.testing.assert_allclose(BOUNDARIES["reflect"](x, xl, xu, rng), [[3, 1, 8, 5, 0]])
    many = BOUNDARIES["redraw"](np.full((20_000, 5), -1.0), xl, xu, rng)
    np.testing.assert_allclose(many.mean(axis=0), [5, 5, 5, 5, 0], atol=0.1)


def test_diversities_by_hand():
    square = np.array([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]])
    assert distance_to_average(square, np.array([3.0, 4.0])) == pytest.approx(math.sqrt(2) / 5)
    assert distance_to_average(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([3.0, 4.0])) == pytest.approx(0.5)
    assert distance_to_average(np.ones((9, 2)), np.ones(2)) == 0
    assert distance_to_average(np.ones((0, 2)), np.ones(2)) == 0
    assert distance_to_average(np.ones((3, 2)), np.zeros(2)) == 0
    assert fitness_diversity(np.array([[1.0], [5.0]]), np.array([8.0])) == pytest.approx(0.25)


def test_fitness_diversity_knows_neither_units_nor_offsets():
    rng = np.random.default_rng(1)
    F = rng.normal(size=(8, 2))
    extent = np.ptp(F, axis=0)
    expected = fitness_diversity(F, extent)
    scale = np.array([1e-6, 1e6])
    assert fitness_diversity(F * scale + 3 * scale, extent * scale) == pytest.approx(expected)
    constant = np.column_stack([F, np.full(8, 4.0)])
    assert fitness_diversity(constant, np.append(extent, 0.0)) == pytest.approx(expected)
    assert fitness_diversity(np.zeros((0, 1)), np.zeros(1)) == 0


def test_a_control_acts_from_its_threshold_until_recovery_and_not_in_the_final_refinement():
    control = Explode(Thresholds(first=0.1, last=0.1, recovery=2.0, until=0.5))
    assert not acts(control, False, 0.1, 0.0)
    assert acts(control, False, 0.09, 0.0)
    assert acts(control, True, 0.19, 0.0)
    assert not acts(control, True, 0.2, 0.0)
    assert not acts(control, True, 0.05, 0.5)
    assert not acts(None, True, 0.0, 0.0)


def test_thresholds_fall_on_a_line_over_their_logarithm():
    thresholds = Thresholds(first=1e-2, last=1e-6, recovery=5.0)
    assert [thresholds.low(t) for t in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([1e-2, 1e-3, 1e-4, 1e-6])
    assert thresholds.recovered(0.5) == pytest.approx(5e-4)


def test_mutants_differ_in_few_entries_by_all_distances_and_leave_fixed_variables():
    extent = np.array([10.0, 20.0, 0.0, 10.0])
    moved = mutants(np.ones((40_000, 4)), extent, 0.3, 1e-4, np.random.default_rng(1)) - 1
    assert (moved[:, 2] == 0).all()
    # one entry by choice, the others by 1/4 each; a quarter of the choices fall on the fixed one
    assert (moved != 0)[:, 0].mean() == pytest.approx(1 - (3 / 4) ** 2, abs=0.01)
    reach = np.abs(moved[moved[:, 0] != 0, 0]) / 3
    assert np.quantile(np.log10(reach), [0.1, 0.5, 0.9]) == pytest.approx([-3.8, -2.2, -0.55], abs=0.15)
    assert np.abs(moved[:, 1]).mean() == pytest.approx(2 * np.abs(moved[:, 0]).mean(), rel=0.1)
    assert (mutants(np.ones((5, 4)), extent, 0.3, 0.0, np.random.default_rng(1)) != 1).any()


def test_controls_come_by_name_or_with_thresholds_of_their_own():
    assert resolve_control("explode") == Explode()
    assert resolve_control("perturb") == Perturb()
    assert resolve_control(None) is None
    assert resolve_control(own := Perturb(scale=0.5)) is own


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: resolve_control("melt"), r"one of \['explode', 'perturb'\] or None, got 'melt'"),
        (lambda: Thresholds(first=0.1, last=0.2), "got last 0.2 and first 0.1"),
        (lambda: Thresholds(last=0.0), "got last 0.0"),
        (lambda: Thresholds(recovery=0.5), "recovery must be at least 1, got 0.5"),
        (lambda: Thresholds(until=1.5), "got 1.5"),
        (lambda: Perturb(scale=0), "scale must be above 0, got 0"),
        (lambda: Perturb(share=0), "share must be above 0 and at most 1, got 0"),
        (lambda: Explode(alpha=0), "alpha must be above 0, got 0"),
        (lambda: Motion(start=0.5, end=1.0), "got start 0.5 and end 1.0"),
        (lambda: Motion(generations=0), "at least 1 or None, got 0"),
        (lambda: Motion(boundary="wrap"), r"one of \['clip', 'redraw', 'reflect'\], got 'wrap'"),
    ],
)
def test_values_out_of_range_are_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        wrong()
