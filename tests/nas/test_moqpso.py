"""MOQPSO on fronts that are known: archive, leaders, personal bests, constraints."""

import moocore
import numpy as np
import pytest
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.optimize import minimize
from pymoo.problems import get_problem

from nas.moqpso import MOQPSO, bounded_front, by_crowding, replaces
from nas.swarm import Points

REFERENCE = np.array([1.1, 1.1])


def hypervolume(F):
    return moocore.hypervolume(F, ref=REFERENCE)


class Free(Problem):
    """A problem of two objectives whose constraint, if any, is told with the individuals."""

    def __init__(self, n_ieq_constr=0):
        super().__init__(n_var=1, n_obj=2, n_ieq_constr=n_ieq_constr, xl=0.0, xu=1.0)


def people(F, violation=None):
    F = np.asarray(F, float)
    population = Population.new(X=np.arange(len(F))[:, None] / len(F), F=F)
    if violation is not None:
        population.set("G", np.asarray(violation, float)[:, None])
    return population


@pytest.mark.parametrize(
    ("name", "best", "level"), [("zdt1", 0.8762, 0.98), ("zdt2", 0.5432, 0.97), ("zdt3", 1.3323, 0.98)]
)
def test_known_fronts_are_reached_and_random_search_is_left_behind(name, best, level):
    problem = get_problem(name, n_var=10)
    for seed in range(3):
        result = minimize(problem, MOQPSO(20), ("n_eval", 4000), seed=seed)
        assert hypervolume(result.F) > level * best
        drawn = np.random.default_rng(seed).random((4000, 10))
        assert hypervolume(result.F) > 2 * hypervolume(problem.evaluate(drawn))


def test_mutants_of_leaders_find_a_front_that_the_steps_alone_do_not():
    problem = get_problem("zdt6", n_var=10)
    runs = {
        control: [
            hypervolume(minimize(problem, MOQPSO(20, control=control), ("n_eval", 4000), seed=s).F) for s in (1, 2)
        ]
        for control in (None, "explode", "perturb")
    }
    assert min(runs["perturb"]) > 0.45
    assert max(runs[None] + runs["explode"]) < 0.3


@pytest.mark.parametrize("n_obj", [1, 2, 3])
def test_any_number_of_objectives_runs_and_the_archive_is_the_optimum(n_obj):
    problem = get_problem("dtlz2", n_var=5, n_obj=n_obj) if n_obj > 1 else get_problem("sphere", n_var=5)
    result = minimize(problem, MOQPSO(10, archive_size=12), ("n_gen", 30), seed=1)
    assert result.algorithm.opt is result.opt
    F = result.opt.get("F")
    assert 1 <= len(F) <= 12
    assert moocore.is_nondominated(F).all()
    assert len(result.algorithm.trace) == 30


def test_an_archive_drops_the_most_crowded_one_by_one():
    # Of five on a line, 1 is the most crowded (gaps 1 + 1); without it, 2 has gaps 2 + 3 and 5 has 3 + 5.
    x = np.array([0.0, 1.0, 2.0, 5.0, 10.0])
    front = bounded_front(Free(), people(np.column_stack([x, 10 - x])), 4)
    assert front.get("F")[:, 0].tolist() == [0, 2, 5, 10]
    front = bounded_front(Free(), people(np.column_stack([x, 10 - x])), 3)
    assert front.get("F")[:, 0].tolist() == [0, 5, 10]


def test_crowding_is_computed_anew_after_each_drop():
    # 1.0 and 1.1 are both crowded; once one of them has gone the other has room, and 3.0 goes next.
    x = np.array([0.0, 1.0, 1.1, 2.6, 3.0, 3.6, 9.0])
    front = bounded_front(Free(), people(np.column_stack([x, 10 - x])), 5)
    assert len({1.0, 1.1} & set(front.get("F")[:, 0])) == 1


def test_dominated_and_equal_individuals_are_not_kept():
    front = bounded_front(Free(), people([[1, 2], [2, 1], [1, 2], [2, 2], [0, 3]]), 10)
    assert sorted(map(tuple, front.get("F"))) == [(0, 3), (1, 2), (2, 1)]


def test_only_sound_individuals_are_kept_and_else_the_least_violating():
    front = bounded_front(Free(1), people([[0, 0], [5, 5], [np.nan, 1], [1, 9]], [1, 0, 0, -1]), 10)
    assert sorted(map(tuple, front.get("F"))) == [(1, 9), (5, 5)]
    front = bounded_front(Free(1), people([[0, 0], [5, 5], [np.nan, 1]], [3, 2, 0]), 10)
    assert front.get("F").tolist() == [[5, 5]]


def test_leaders_are_rather_those_with_room_around_them():
    x = np.array([0.0, 4.9, 5.0, 5.1, 10.0])
    rows = by_crowding(np.column_stack([x, 10 - x]), 50_000, np.random.default_rng(1))
    share = np.bincount(rows, minlength=5) / len(rows)
    # The less crowded of two drawn with repetition: 0 and 10 beat the other three and halve their meetings.
    np.testing.assert_allclose(share[[0, 4]], 8 / 25, atol=0.01)
    assert share[2] == pytest.approx(1 / 25, abs=0.01)
    assert by_crowding(np.array([[1.0, 2.0]]), 3, np.random.default_rng(1)).tolist() == [0, 0, 0]


def test_personal_bests_follow_constraint_dominance_and_coins():
    F = np.array([[1.0, 1.0], [3.0, 3.0], [0.0, 9.0], [9.0, 9.0], [0.0, 0.0], [0.0, 0.0]])
    F_best = np.full((6, 2), 2.0)
    violation, violation_best = np.array([0, 0, 0, 0, 1, 1.0]), np.array([0, 0, 0, 0.5, 0, 1.0])
    found, best = Points(F, F, violation), Points(F_best, F_best, violation_best)
    wins = np.mean([replaces(found, best, np.random.default_rng(s)) for s in range(400)], axis=0)
    assert wins[[0, 1, 3, 4, 5]].tolist() == [1, 0, 1, 0, 0]
    assert 0.4 < wins[2] < 0.6


def test_constrained_fronts_hold_only_sound_individuals():
    result = minimize(get_problem("bnh"), MOQPSO(20, control="perturb"), ("n_gen", 60), seed=1)
    assert (result.CV == 0).all()
    assert len(result.F) > 50


def test_failures_as_numbers_that_are_none_leave_a_sound_front():
    class Holed(Problem):
        def __init__(self):
            super().__init__(n_var=3, n_obj=2, xl=0.0, xu=1.0)

        def _evaluate(self, x, out, *_, **__):
            out["F"] = np.column_stack([x[:, 0], 1 - x[:, 0] + x[:, 1:].sum(axis=1)])
            out["F"][x[:, 0] > 0.5] = np.nan

    result = minimize(Holed(), MOQPSO(10), ("n_gen", 40), seed=1)
    assert np.isfinite(result.F).all()
    assert (result.X[:, 0] <= 0.5).all()
    assert len(result.F) > 20
