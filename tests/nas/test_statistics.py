"""Statistics of several runs, by hand and against other implementations."""

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import false_discovery_control, mannwhitneyu, norm

from nas.statistics import (
    attainment,
    effect_size,
    evaluations_to_reach,
    holm,
    median_to_reach,
    padded,
    quartiles,
    rank_test,
    wilson,
)

MIN_MIN = {"a": "min", "b": "min"}
samples = arrays(float, st.integers(1, 12), elements=st.integers(0, 6).map(float))


def test_curves_that_end_early_go_on_with_their_last_value():
    rows = padded([np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0, 6.0]), np.array([])], 3)
    assert rows.tolist() == [[1.0, 2.0, 2.0], [3.0, 4.0, 5.0], [0.0, 0.0, 0.0]]


def test_quartiles_are_over_the_runs():
    assert quartiles([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0], [5.0, 50.0]]).tolist() == [
        [2.0, 20.0],
        [3.0, 30.0],
        [4.0, 40.0],
    ]


@pytest.mark.parametrize(
    ("level", "expected"), [(0.0, 1), (0.2, 1), (0.3, 3), (0.5, 4), (0.5 + 1e-14, 4), (0.51, np.inf)]
)
def test_a_level_is_reached_by_the_first_evaluation_at_or_above_it(level, expected):
    assert evaluations_to_reach(np.array([0.2, 0.2, 0.4, 0.5]), level) == expected


def test_no_evaluation_reaches_nothing():
    assert evaluations_to_reach(np.array([]), 0.1) == np.inf


def test_the_effect_is_the_share_of_pairs_that_are_won_by_hand():
    # 3 wins over 1, 2 and a tie with 3; 1 ties with 1 and loses to 2 and 3: (2 + 0.5 + 0.5) / 6
    assert effect_size([3.0, 1.0], [1.0, 2.0, 3.0]) == pytest.approx(3 / 6)
    assert effect_size([4.0, 5.0], [1.0, 2.0]) == 1.0
    assert effect_size([1.0], [2.0]) == 0.0


@given(samples, samples)
def test_the_effect_is_that_of_the_u_statistic_and_mirrors(one, other):
    u = mannwhitneyu(one, other, method="asymptotic").statistic if len({*one, *other}) > 1 else None
    assert effect_size(one, other) == pytest.approx(1 - effect_size(other, one))
    if u is not None:
        assert effect_size(one, other) == pytest.approx(u / (len(one) * len(other)))


def test_the_test_of_two_small_samples_is_exact():
    # of the 20 ways to choose 3 of 6 ranks, one is as low and one as high as this
    assert rank_test([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]) == pytest.approx(2 / 20)


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]])
def test_equal_samples_do_not_differ(values):
    assert rank_test(values, values) == pytest.approx(1.0)
    assert effect_size(values, values) == 0.5


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1 are 0.04, 0.06, 0.06, 0.5
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni_and_above_the_false_discovery_rate(p):
    corrected = holm(p)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(np.array(p) * len(p), 1) + 1e-12).all()
    assert (corrected >= false_discovery_control(p) - 1e-12).all()


def test_wilsons_interval_by_hand_and_by_what_it_solves():
    assert wilson(0.5, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    for share, count, level in ((0.9, 360, 0.95), (0.0, 10, 0.9), (1.0, 10, 0.99), (2 / 3, 3, 0.95)):
        z = norm.ppf((1 + level) / 2)
        for end in wilson(share, count, level):  # of which the share is z standard errors away
            assert (share - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / count, abs=1e-12)


def test_attainment_surfaces_by_hand():
    runs = [np.array([[1.0, 3.0], [3.0, 1.0], [3.0, 3.0]]), np.array([[2.0, 2.0]])]
    surfaces = attainment(runs, MIN_MIN)
    assert surfaces["best"].tolist() == [[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]]
    assert surfaces["median"].tolist() == surfaces["best"].tolist()  # half of two runs is one
    assert surfaces["worst"].tolist() == [[3.0, 2.0], [2.0, 3.0]]


@pytest.mark.parametrize("senses", [("max", "min"), ("min", "max"), ("max", "max")])
def test_attainment_does_not_depend_on_how_objectives_are_written(senses):
    rng = np.random.default_rng(4)
    runs = [rng.random((6, 2)) for _ in range(5)]
    sign = np.array([-1.0 if sense == "max" else 1.0 for sense in senses])
    plain = attainment(runs, MIN_MIN)
    turned = attainment([run * sign for run in runs], dict(zip("ab", senses, strict=True)))
    for name, corners in plain.items():
        assert sorted(map(tuple, turned[name] * sign)) == sorted(map(tuple, corners))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 10, 20])
def test_surfaces_are_those_of_one_run_of_half_of_them_and_of_all(count):
    rng = np.random.default_rng(count)
    runs = [rng.random((5, 2)) for _ in range(count)]
    needed = {"best": 1, "median": (count + 1) // 2, "worst": count}
    for name, corners in attainment(runs, MIN_MIN).items():
        for corner in corners:
            assert sum((run <= corner).all(axis=1).any() for run in runs) >= needed[name]
            inside = corner - 1e-9
            assert sum((run <= inside).all(axis=1).any() for run in runs) < needed[name]
        assert moocore.is_nondominated(corners).all()


def test_a_run_without_a_sound_point_attains_nothing():
    nothing = np.full((3, 2), np.nan)
    surfaces = attainment([np.array([[1.0, 1.0], [np.nan, 0.0]]), nothing], MIN_MIN)
    assert surfaces["best"].tolist() == [[1.0, 1.0]]
    assert surfaces["worst"].shape == (0, 2)
    assert all(len(corners) == 0 for corners in attainment([nothing], MIN_MIN).values())


def test_the_median_to_a_level_is_that_of_the_searches_and_missing_if_half_never_get_there():
    curves = np.array([[1.0, 2, 3, 4], [0, 0, 3, 4], [4, 4, 4, 4], [0, 0, 0, 3]])
    assert median_to_reach(curves, 3.0) == (3.0, 4)
    assert median_to_reach(curves, 4.0) == (4.0, 3)
    assert median_to_reach(curves[:3], 2.0) == (2.0, 3)
    middle, found = median_to_reach(curves, 4.5)
    assert (np.isnan(middle), found) == (True, 0)
    middle, found = median_to_reach(curves[2:], 4.0)
    assert (np.isnan(middle), found) == (True, 1)
