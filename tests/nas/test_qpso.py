"""QPSO on functions whose optimum is known: alone in pymoo, asked and told, constrained, controlled, choosing."""

import random
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymoo.core.evaluator import Evaluator
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination, TerminateIfAny
from pymoo.optimize import minimize
from pymoo.termination import get_termination
from pymoo.termination.default import DefaultSingleObjectiveTermination

from nas.diversity import Explode, Perturb, Thresholds
from nas.moqpso import MOQPSO
from nas.qpso import QPSO, best_first, improves
from nas.quantum import BOUNDARIES, MEAN_BESTS, Motion
from nas.swarm import Points, budget_spent, measure
from spaces import InputError

ALWAYS = Thresholds(first=1.0, last=1.0, recovery=1.0, until=1.0)
"""Diversity is never above these: the control always acts."""


class Shifted(Problem):
    """Sphere or Rastrigin with its optimum 0 at 1.5."""

    def __init__(self, n_var=10, ripple=0.0, xl=-5.0, xu=5.0):
        self.ripple = ripple
        super().__init__(n_var=n_var, n_obj=1, xl=xl, xu=xu)

    def _evaluate(self, x, out, *_, **__):
        z = x - 1.5
        out["F"] = (z**2 + self.ripple * (1 - np.cos(2 * np.pi * z))).sum(axis=1)


class Circle(Problem):
    """The largest x + y on the unit disk, given as a minimum: -sqrt(2)."""

    def __init__(self):
        super().__init__(n_var=2, n_obj=1, n_ieq_constr=1, xl=-2.0, xu=2.0)

    def _evaluate(self, x, out, *_, **__):
        out["F"], out["G"] = -x.sum(axis=1), (x**2).sum(axis=1) - 1


def best(problem, algorithm, n_eval, seed=1):
    return minimize(problem, algorithm, ("n_eval", n_eval), seed=seed).F.item()


def random_best(problem, n_eval, seed):
    x = np.random.default_rng(seed).uniform(*problem.bounds(), (n_eval, problem.n_var))
    return problem.evaluate(x).min()


# Convergence


@pytest.mark.parametrize("control", [None, "explode", "perturb"])
@pytest.mark.parametrize("mean_best", MEAN_BESTS)
def test_the_optimum_of_a_sphere_is_found_to_many_digits(mean_best, control):
    assert best(Shifted(), QPSO(20, mean_best=mean_best, control=control), 6000) < 1e-6


@pytest.mark.parametrize("control", [None, "explode", "perturb"])
def test_a_rippled_bowl_is_searched_far_better_than_at_random(control):
    problem = Shifted(ripple=10.0)
    found = [best(problem, QPSO(20, control=control), 4000, seed) for seed in range(5)]
    drawn = [random_best(problem, 4000, seed) for seed in range(5)]
    assert max(found) < min(drawn)
    assert np.median(found) < 0.2 * np.median(drawn)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_an_optimum_in_a_corner_is_found_with_every_boundary(boundary):
    problem = Shifted(n_var=3, xl=1.5, xu=5.0)
    assert best(problem, QPSO(20, motion=Motion(boundary=boundary)), 6000) < 1e-3


@pytest.mark.parametrize("n_var", [1, 2, 30])
@pytest.mark.parametrize("pop_size", [1, 2, 7])
@pytest.mark.parametrize("control", [None, "explode", "perturb"])
def test_any_number_of_variables_and_particles_runs_within_the_budget(n_var, pop_size, control):
    result = minimize(Shifted(n_var), QPSO(pop_size, control=control), ("n_eval", 42), seed=1)
    assert result.algorithm.evaluator.n_eval == 42
    assert ((result.X >= -5) & (result.X <= 5)).all()


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("control", [None, "explode", "perturb"])
def test_fixed_variables_stay_and_the_others_are_optimised(control, boundary):
    problem = Shifted(3, xl=np.array([-5, 1.0, -5]), xu=np.array([5, 1.0, 5]))
    result = minimize(problem, QPSO(10, control=control, motion=Motion(boundary=boundary)), ("n_gen", 150), seed=1)
    assert result.X[1] == 1.0
    assert result.F.item() == pytest.approx(0.25, abs=1e-3)


def test_a_box_of_a_single_point_is_no_error():
    result = minimize(Shifted(2, xl=2.0, xu=2.0), QPSO(4, control="explode"), ("n_gen", 5), seed=1)
    assert result.F.item() == 0.5


@settings(deadline=None, max_examples=25)
@given(
    n_var=st.integers(1, 5),
    pop_size=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
    low=st.floats(-1e6, 1e6),
    width=st.floats(0, 1e6),
    control=st.sampled_from([None, Explode(ALWAYS), Perturb(ALWAYS, scale=10.0)]),
    boundary=st.sampled_from(sorted(BOUNDARIES)),
)
def test_nothing_outside_the_box_is_ever_evaluated(n_var, pop_size, seed, low, width, control, boundary):
    seen = []

    class Watched(Shifted):
        def _evaluate(self, x, out, *args, **kwargs):
            seen.append(x.copy())
            super()._evaluate(x, out, *args, **kwargs)

    problem = Watched(n_var, xl=low, xu=low + width)
    minimize(problem, QPSO(pop_size, control=control, motion=Motion(boundary=boundary)), ("n_gen", 6), seed=seed)
    x = np.concatenate(seen)
    assert len(x) == 6 * pop_size
    assert ((x >= problem.xl) & (x <= problem.xu)).all()


# Seeds


@pytest.mark.parametrize("algorithm", [QPSO, MOQPSO])
def test_the_seed_decides_everything_and_global_generators_are_left_alone(algorithm):
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002  # the global state is what is watched
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    def run(seed):
        swarm = algorithm(6, control=Perturb(ALWAYS))
        return minimize(Shifted(3), swarm, ("n_gen", 12), seed=seed).algorithm.pop.get("X")

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


def test_asking_and_telling_is_the_same_as_minimizing():
    problem = Shifted(3)
    expected = minimize(problem, QPSO(6, control="explode"), ("n_gen", 20), seed=5)
    algorithm = QPSO(6, control="explode")
    algorithm.setup(problem, termination=("n_gen", 20), seed=5)
    while algorithm.has_next():
        algorithm.tell(infills=Evaluator().eval(problem, algorithm.ask()))
    np.testing.assert_array_equal(algorithm.result().X, expected.X)


def test_answers_may_come_in_another_order():
    problem = Shifted(3)
    runs = []
    for order in (slice(None), slice(None, None, -1)):
        algorithm = QPSO(6)
        algorithm.setup(problem, termination=("n_gen", 20), seed=5)
        algorithm.tell(infills=Evaluator().eval(problem, algorithm.ask()))
        while algorithm.has_next():
            algorithm.tell(infills=Evaluator().eval(problem, algorithm.ask())[order])
        runs.append(algorithm.pop.get("X"))
    np.testing.assert_array_equal(*runs)


def test_individuals_of_someone_else_are_refused():
    problem = Shifted(3)
    algorithm = QPSO(4)
    algorithm.setup(problem, termination=NoTermination(), seed=5)
    algorithm.tell(infills=Evaluator().eval(problem, algorithm.ask()))
    algorithm.ask()
    with pytest.raises(InputError, match="tell takes the individuals that ask returned"):
        algorithm.tell(infills=Evaluator().eval(problem, Population.new(X=np.zeros((4, 3)))))


@pytest.mark.parametrize("algorithm", [QPSO, MOQPSO])
def test_what_was_asked_for_belongs_to_the_asker(algorithm):
    problem = Shifted(3)
    swarm = algorithm(6)
    swarm.setup(problem, termination=NoTermination(), seed=5)
    asked = [Evaluator().eval(problem, swarm.ask())]
    swarm.tell(infills=asked[0])
    first = asked[0].get("X")
    for _ in range(5):
        swarm.tell(infills=Evaluator().eval(problem, swarm.ask()))
    np.testing.assert_array_equal(asked[0].get("X"), first)


# First generation


def test_a_swarm_starts_where_it_is_told_to_and_may_be_smaller_than_asked():
    start = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    result = minimize(Shifted(2), QPSO(10, sampling=start), ("n_gen", 10), seed=1)
    assert result.algorithm.evaluator.n_eval == 30
    first = minimize(Shifted(2), QPSO(10, sampling=start), ("n_gen", 1), seed=1)
    np.testing.assert_array_equal(first.algorithm.pop.get("X"), start)


def test_individuals_that_were_evaluated_before_are_not_evaluated_again():
    problem = Shifted(2)
    known = Evaluator().eval(problem, Population.new(X=np.array([[1.0, 2.0], [3.0, 4.0]])))
    result = minimize(problem, QPSO(10, sampling=known), ("n_gen", 3), seed=1)
    assert result.algorithm.evaluator.n_eval == 4


# Constraints and failures


def test_the_best_sound_point_is_found_where_the_constraint_binds():
    result = minimize(Circle(), QPSO(20), ("n_gen", 150), seed=1)
    assert result.F.item() == pytest.approx(-np.sqrt(2), abs=1e-3)
    assert (result.algorithm.pop.get("CV") == 0).all()


def test_feasibility_goes_before_the_objective():
    f, violation = np.array([9.0, -9.0, 1.0, 1.0, -9.0]), np.array([0.0, 1.0, 0.0, 0.5, 0.5])
    f_best, violation_best = np.array([0.0, 0.0, 2.0, 0.0, 0.0]), np.array([0.1, 0.0, 0.0, 1.0, 0.5])
    found, best = (Points(F[:, None], F[:, None], v) for F, v in ((f, violation), (f_best, violation_best)))
    assert improves(found, best).tolist() == [True, False, True, True, False]


def test_the_leader_is_the_best_sound_one_and_else_the_least_violating():
    F = np.array([[3.0], [-9.0], [1.0], [np.nan]])
    assert best_first(Points(F, F, np.array([0.0, 2.0, 0.0, np.inf]))).tolist() == [2, 0, 1, 3]
    assert best_first(Points(F, F, np.array([1.0, 0.5, 3.0, np.inf]))).tolist() == [1, 0, 2, 3]


def test_violations_are_measured_and_what_is_no_number_is_the_worst():
    population = Population.new(
        X=np.zeros((5, 2)),
        F=np.array([[1.0], [1.0], [np.nan], [1.0], [-np.inf]]),
        G=np.array([[-1.0], [2.0], [-1.0], [np.nan], [-1.0]]),
    )
    assert measure(Circle(), population).violation.tolist() == [0, 2, np.inf, np.inf, np.inf]
    assert measure(Shifted(2), population).violation.tolist() == [0, 0, np.inf, 0, np.inf]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["F", "G"])
def test_what_is_not_a_finite_number_never_wins(bad, where):
    class Holed(Circle):
        def _evaluate(self, x, out, *args, **kwargs):
            super()._evaluate(x, out, *args, **kwargs)
            if where == "G" and bad == -np.inf:
                return  # a constraint that holds by any margin is sound
            out[where][x[:, 0] > 0.5] = bad

    result = minimize(Holed(), QPSO(10, control="perturb"), ("n_gen", 100), seed=1)
    assert np.isfinite(result.F).all()
    if where == "F" or bad != -np.inf:
        assert result.X[0] <= 0.5
        assert result.F.item() == pytest.approx(-0.5 - np.sqrt(0.75), abs=0.01)


def test_a_problem_that_always_fails_ends_without_a_result():
    class Broken(Circle):
        def _evaluate(self, x, out, *_, **__):
            out["F"], out["G"] = np.full(len(x), np.nan), np.ones(len(x))

    result = minimize(Broken(), QPSO(4, control="explode"), ("n_gen", 10), seed=1)
    assert result.X is None
    assert [generation.fitness_diversity for generation in result.algorithm.trace] == [0.0] * 10


# Schedule and record


def told(algorithm, problem, generations, **options):
    algorithm.setup(problem, seed=1, **options)
    for _ in range(generations):
        algorithm.tell(infills=Evaluator().eval(problem, algorithm.ask()))
    return algorithm


@pytest.mark.parametrize("budget", [("n_gen", 11), ("n_eval", 44)])
def test_the_coefficient_falls_from_start_to_end_over_the_budget(budget):
    trace = minimize(Shifted(3), QPSO(4), budget, seed=1).algorithm.trace
    assert np.isnan(trace[0].alpha)
    np.testing.assert_allclose([g.alpha for g in trace[1:]], 1 - 0.5 * np.arange(1, 11) / 11)


def test_generations_of_its_own_go_before_the_budget():
    algorithm = told(QPSO(4, motion=Motion(0.9, 0.1, generations=4)), Shifted(3), 7, termination=NoTermination())
    np.testing.assert_allclose([g.alpha for g in algorithm.trace[1:]], [0.7, 0.5, 0.3, 0.1, 0.1, 0.1])


def test_without_a_budget_the_coefficient_stays_half_way():
    algorithm = told(QPSO(4), Shifted(3), 4, termination=NoTermination())
    assert [g.alpha for g in algorithm.trace[1:]] == [0.75] * 3


def test_budgets_are_found_within_other_criteria_and_tolerances_are_passed_over():
    algorithm = told(QPSO(4), Shifted(3), 3, termination=DefaultSingleObjectiveTermination(n_max_gen=10))
    assert budget_spent(algorithm.termination) == pytest.approx(0.3)
    both = TerminateIfAny(get_termination("n_gen", 10), NoTermination())
    assert budget_spent(told(QPSO(4), Shifted(3), 2, termination=both).termination) == pytest.approx(0.2)
    assert budget_spent(TerminateIfAny(NoTermination())) is None


def test_the_record_of_a_run_is_a_table_of_its_generations():
    result = minimize(Shifted(3), QPSO(8), ("n_gen", 30), seed=1)
    table = pd.DataFrame(result.algorithm.trace)
    assert table["generation"].tolist() == list(range(1, 31))
    assert not table["acted"].any()
    assert table["fitness_diversity"].iloc[0] > 0
    assert table["diversity"].iloc[0] == pytest.approx(0.25, abs=0.1)
    assert table["diversity"].iloc[-1] < 0.1 * table["diversity"].iloc[0]
    assert table["fitness_diversity"].iloc[-1] < 0.1 * table["fitness_diversity"].iloc[0]


# Control of diversity


def test_an_explosion_raises_diversity_from_below_the_low_threshold_to_recovery():
    control = Explode(Thresholds(first=0.01, last=0.01, recovery=10.0, until=1.0))
    trace = minimize(Shifted(5), QPSO(10, control=control), ("n_gen", 400), seed=1).algorithm.trace
    acted = [generation.acted for generation in trace]
    assert 5 < sum(acted) < 200
    for before, after in pairwise(trace):
        if after.acted:
            assert before.diversity < (0.1 if before.acted else 0.01)
            assert after.alpha == 2.0
        elif before.acted:
            assert before.diversity >= 0.1
        else:
            assert before.diversity >= 0.01


def test_thresholds_fall_with_the_budget():
    control = Explode(Thresholds(first=0.1, last=1e-5, recovery=1.0, until=1.0))
    trace = minimize(Shifted(5), QPSO(10, control=control), ("n_gen", 100), seed=1).algorithm.trace
    assert any(generation.acted for generation in trace)
    for spent, (before, after) in enumerate(pairwise(trace), start=1):
        assert after.acted == (before.diversity < 0.1 * 1e-4 ** (spent / 100))


def test_an_explosion_forgets_all_personal_bests_but_the_leader_and_no_sound_one_for_an_unsound_one():
    problem = Circle()
    for forget in (True, False):
        algorithm = QPSO(30, control=Explode(ALWAYS, alpha=1.5, forget=forget))
        algorithm.setup(problem, termination=("n_gen", 12), seed=1)
        lost = 0
        for _ in range(10):
            before = algorithm.pop.get("F", "CV") if algorithm.is_initialized else None
            algorithm.tell(infills=Evaluator().eval(problem, algorithm.ask()))
            if before is not None:
                F, CV = algorithm.pop.get("F", "CV")
                assert (before[1] >= CV).all()
                assert F[CV <= 0].min() >= algorithm.opt[0].F
                lost += np.sum((before[0] < F) & (before[1] == CV))
                sound = before[1][:, 0] == 0
                assert not sound.any() or before[0][sound].min() >= algorithm.opt[0].F
        assert (lost > 0) == forget


def test_a_control_leaves_the_end_of_the_budget_to_refinement():
    control = Explode(Thresholds(first=0.5, last=0.5, recovery=1.0, until=0.75))
    trace = minimize(Shifted(5), QPSO(10, control=control), ("n_gen", 100), seed=1).algorithm.trace
    assert [g.acted for g in trace] == [False] + [True] * 74 + [False] * 25


@pytest.mark.parametrize("n_candidates", [1, 3])
def test_perturbing_tries_mutants_of_the_leader_alone_and_lets_all_others_make_their_step(n_candidates):
    problem = Shifted(30)
    drawn = {}
    for name, control in {"plain": None, "perturbed": Perturb(ALWAYS, share=0.2)}.items():

        def keep(problem, positions, random_state, name=name):
            drawn[name] = positions
            return np.arange(20), positions[0]

        algorithm = QPSO(20, control=control, chooser=keep, n_candidates=n_candidates)
        algorithm.setup(problem, termination=("n_gen", 10), seed=1)
        algorithm.tell(infills=Evaluator().eval(problem, algorithm.ask()))
        algorithm.ask()
        F, leader = algorithm.pop.get("F")[:, 0], algorithm.opt[0].X
    tried = np.argsort(F)[:4]
    others = np.setdiff1d(np.arange(20), tried)
    np.testing.assert_array_equal(drawn["plain"][:, others], drawn["perturbed"][:, others])
    changed = (drawn["perturbed"][:, tried] != leader).sum(axis=2)
    assert changed.min() >= 1
    assert changed.max() <= 8  # of 30, each with probability 1/30
    assert len(np.unique(drawn["perturbed"][:, tried].reshape(-1, 30), axis=0)) == 4 * n_candidates


def test_a_mutant_becomes_the_leader_only_if_it_is_better():
    algorithm = told(QPSO(6, control=Perturb(ALWAYS, share=1.0)), Shifted(4), 60, termination=("n_gen", 60))
    assert all(generation.acted for generation in algorithm.trace[1:])
    assert algorithm.opt[0].F < 1e-2
    for _ in range(5):
        before = algorithm.pop.get("F")
        algorithm.tell(infills=Evaluator().eval(algorithm.problem, algorithm.ask()))
        assert (algorithm.pop.get("F") <= before).all()


# Choosers


class Recorder:
    """Chooser that keeps what it is given, and lets every second particle move to its last candidate."""

    def __init__(self):
        self.shapes, self.problems, self.chosen = [], [], []

    def __call__(self, problem, positions, random_state):
        self.shapes.append(positions.shape)
        self.problems.append(problem)
        assert ((positions >= problem.xl) & (positions <= problem.xu)).all()
        assert isinstance(random_state, np.random.Generator)
        particles = np.arange(1, positions.shape[1], 2)
        self.chosen.append(positions[-1, particles])
        return particles, positions[-1, particles]


@pytest.mark.parametrize("algorithm", [QPSO, MOQPSO])
def test_a_chooser_sees_all_candidates_and_decides_who_moves_where(algorithm):
    problem = Shifted(3)
    chooser = Recorder()
    swarm = algorithm(6, chooser=chooser, n_candidates=5)
    swarm.setup(problem, termination=NoTermination(), seed=1)
    swarm.tell(infills=Evaluator().eval(problem, swarm.ask()))
    before = swarm.swarm.now.x.copy()
    infills = swarm.ask()
    assert chooser.shapes == [(5, 6, 3)]
    assert chooser.problems == [problem]
    np.testing.assert_array_equal(infills.get("X"), chooser.chosen[0])
    swarm.tell(infills=Evaluator().eval(problem, infills))
    np.testing.assert_array_equal(swarm.swarm.now.x[1::2], chooser.chosen[0])
    np.testing.assert_array_equal(swarm.swarm.now.x[::2], before[::2])
    assert len(swarm.pop) == 6


@pytest.mark.parametrize("algorithm", [QPSO, MOQPSO])
def test_a_chooser_that_finds_nothing_ends_the_search(algorithm):
    calls = []

    def thrice(problem, positions, random_state):
        calls.append(1)
        n = 0 if len(calls) > 3 else positions.shape[1]
        return np.arange(n), positions[0, :n]

    result = minimize(Shifted(3), algorithm(4, chooser=thrice), ("n_eval", 10_000), seed=1)
    assert len(calls) == 4
    assert result.algorithm.evaluator.n_eval == 16
    assert result.F is not None


@pytest.mark.parametrize("algorithm", [QPSO, MOQPSO])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pop_size": 0}, "pop_size must be at least 1, got 0"),
        ({"control": "melt"}, "got 'melt'"),
        ({"n_candidates": 0}, "n_candidates must be at least 1, got 0"),
        ({"n_candidates": 3}, "n_candidates = 3 needs a chooser, got None"),
    ],
)
def test_arguments_out_of_range_are_refused(algorithm, options, says):
    with pytest.raises(InputError, match=says):
        algorithm(**options)


def test_other_mean_bests_boxes_and_numbers_of_objectives_are_refused():
    with pytest.raises(InputError, match=r"one of \['plain', 'weighted'\], got 'median'"):
        QPSO(mean_best="median")
    with pytest.raises(InputError, match="archive_size must be at least 1, got 0"):
        MOQPSO(archive_size=0)
    with pytest.raises(InputError, match="without xl and xu"):
        QPSO().setup(Problem(n_var=2, n_obj=1))
    with pytest.raises(InputError, match="finite"):
        QPSO().setup(Problem(n_var=2, n_obj=1, xl=0.0, xu=np.inf))
    with pytest.raises(InputError, match="got 2; MOQPSO takes several"):
        QPSO().setup(Problem(n_var=2, n_obj=2, xl=0.0, xu=1.0))
