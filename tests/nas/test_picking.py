"""Which candidates are picked: by what they would add, in random directions, and the best of each cost band."""

import moocore
import numpy as np
import pytest

from nas.picking import Box, Picks, _pick_by_gain, pick_by_band, pick_by_volume

UNIT = Box(np.ones(2), np.zeros(2))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_candidate_is_picked_once_and_an_owner_takes_one(rng):
    picks = Picks(np.array([0, 0, 1, 2]))
    for _ in range(5):
        picks.take_least(np.array([1.0, 0.0, 3.0, 2.0]))
    assert picks.taken == [1, 3, 2]
    assert not picks.free.any()
    picks = Picks(np.arange(4))
    picks.take_least(np.array([1.0, 0.0, 3.0, 2.0]), np.array([2, 3]))
    assert picks.taken == [3]


def test_picks_by_volume_are_on_the_front_and_all_along_it(rng):
    angle = np.linspace(0.02, np.pi / 2 - 0.02, 30)
    front = 1 - np.column_stack([np.cos(angle), np.sin(angle)])
    F = np.vstack([front, front + 0.2, [[5.0, 5.0]]])
    picks = Picks(np.arange(len(F)))
    pick_by_volume(picks, F, F[-1:], UNIT, 12, rng)
    assert len(picks.taken) == 12
    assert max(picks.taken) < 30
    assert np.ptp(picks.taken) > 20


def test_half_of_them_add_most_to_results_and_picks_as_long_as_any_does(rng):
    """Checked with hypervolumes: the best first of what adds any; where nothing does, by directions."""
    F, known = rng.random((60, 2)), np.array([[0.3, 0.1], [0.1, 0.5]])
    picks = Picks(np.arange(60))
    picks.take(7)
    pick_by_volume(picks, F, known, UNIT, 10, rng)
    before = np.vstack([known, F[7:8]])
    for row in picks.taken[1:6]:
        volumes = np.array([moocore.hypervolume(np.vstack([before, point]), ref=[1, 1]) for point in F])
        volumes[picks.taken[: picks.taken.index(row)]] = 0
        added = volumes - moocore.hypervolume(before, ref=[1, 1])
        if added.max() < 1e-6:
            break
        assert added[row] > 0.8 * added.max()
        before = np.vstack([before, F[row]])
    assert len(before) > 4
    assert len(picks.taken) == 11
    dominated = Picks(np.arange(60))
    assert _pick_by_gain(dominated, F + 0.2, np.zeros((1, 2)), UNIT, 10, rng) == 0  # nothing can be added
    pick_by_volume(dominated, F + 0.2, np.zeros((1, 2)), UNIT, 10, rng)
    assert len(dominated.taken) == 10
    assert _pick_by_gain(dominated, F, known, UNIT, 10, rng) > 0
    dominated.free[:] = False
    pick_by_volume(dominated, F, known, UNIT, 10, rng)
    assert len(dominated.taken) < 30


def test_half_are_as_many_as_half_of_any_number(rng, monkeypatch):
    """In the mean, where the number is odd."""
    asked = []
    monkeypatch.setattr("nas.picking._pick_by_gain", lambda *given: asked.append(given[4]) or 0)
    F = rng.random((10, 2))
    for count in [10] * 20 + [1] * 200:
        pick_by_volume(Picks(np.arange(10)), F, F[:1], UNIT, count, rng)
    assert set(asked[:20]) == {5}
    assert set(asked[20:]) == {0, 1}
    assert 70 < sum(asked[20:]) < 130


def test_what_is_picked_already_leaves_nothing_to_add_beside_it(rng):
    F = np.array([[0.10, 0.10], [0.11, 0.11], [0.05, 0.90], [0.90, 0.05]])
    picks = Picks(np.arange(4))
    picks.take(0)
    assert _pick_by_gain(picks, F, np.ones((1, 2)), UNIT, 3, rng) == 2
    assert sorted(picks.taken) == [0, 2, 3]


@pytest.mark.parametrize("n_obj", [2, 3])
def test_the_first_of_them_adds_most_of_all(n_obj, monkeypatch):
    monkeypatch.setattr("nas.picking.DIRECTIONS", 20_000)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        F, known = rng.random((40, n_obj)), rng.random((6, n_obj)) * 0.5 + 0.3
        picks, box = Picks(np.arange(40)), Box(np.ones(n_obj), np.zeros(n_obj))
        pick_by_volume(picks, F, known, box, 2, rng)
        volumes = [moocore.hypervolume(np.vstack([known, point]), ref=np.ones(n_obj)) for point in F]
        gains = np.array(volumes) - moocore.hypervolume(known, ref=np.ones(n_obj))
        assert gains[picks.taken[0]] > 0.97 * gains.max() > 0


def test_picks_by_volume_do_not_care_about_units(rng):
    F = rng.random((40, 3))
    scale, shift = np.array([1e-6, 1.0, 1e9]), np.array([3.0, 0.0, -7.0])
    found = []
    for a, b in ((np.ones(3), np.zeros(3)), (scale, shift)):
        picks = Picks(np.arange(40))
        pick_by_volume(picks, F * a + b, F[:3] * a + b, Box(a + b, b), 10, np.random.default_rng(1))
        found.append(picks.taken)
    assert found[0] == found[1]


def test_picks_by_band_are_the_best_of_each(rng):
    cost = np.arange(60) / 60
    scores = np.column_stack([rng.random(60) + 2 * cost, cost])  # no conflict between the two
    picks = Picks(np.arange(60))
    pick_by_band(picks, scores, 1, np.arange(60), 6, rng)
    assert [row // 10 for row in picks.taken] == list(range(6))
    assert picks.taken == [int(np.argmin(scores[10 * b : 10 * b + 10, 0])) + 10 * b for b in range(6)]


def test_picks_by_band_are_not_the_dearest_where_objectives_contradict_each_other(rng):
    cost = np.arange(60) / 60
    quality = -cost + 0.01 * rng.random(60)
    special = [4, 13, 22, 35, 44, 51]
    quality[special] -= 0.05
    picks = Picks(np.arange(60))
    pick_by_band(picks, np.column_stack([quality, cost]), 1, np.arange(60), 6, rng)
    assert sorted(picks.taken) == special
