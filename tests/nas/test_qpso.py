"""QPSO on functions whose optimum is known: alone in pymoo, asked and told, constrained, controlled, choosing."""

import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymoo.core.evaluator import Evaluator
from pymoo.core.population import Population
from pymoo.core.termination import NoTermination, TerminateIfAny
from pymoo.optimize import minimize
from pymoo.termination import get_termination
from pymoo.termination.default import DefaultSingleObjectiveTermination
from swarm_problems import ALWAYS, Circle, Shifted, told

from nas.diversity import Explode, Perturb
from nas.moqpso import MOQPSO
from nas.qpso import QPSO, best_first, improves
from nas.quantum import BOUNDARIES, MEAN_BESTS, Motion
from nas.swarm import Points, budget_spent, measure
from spaces import InputError


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
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002  # the global generator is what is watched

    def run(seed):
        swarm = algorithm(6, control=Perturb(ALWAYS))
        return minimize(Shifted(3), swarm, ("n_gen", 12), seed=seed).algorithm.pop.get("X")

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002  # the global generator is what is watched


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


@pytest.mark.parametrize("offset", [0.0, 0.1], ids=["best last", "best first"])
@pytest.mark.parametrize("kind", [QPSO, MOQPSO])
def test_a_particle_that_is_told_twice_at_once_keeps_the_better_and_stands_at_the_later(kind, offset):
    """Results that come in any order can be of two asks."""
    problem = Shifted(n_var=2)
    algorithm = told(kind(4, control=None), problem, 1)
    positions = np.array([[1.5, 1.5], [1.7, 1.5], [1.5 + offset, 1.5], [1.51, 1.51]])
    positions[0] += 0.05
    infills = Population.new(X=positions, particle=np.array([2, 1, 2, 0]))
    algorithm.tell(infills=Evaluator().eval(problem, infills))
    better = positions[2 if offset == 0 else 0]
    assert (algorithm.swarm.best.x[2] == better).all()
    assert (better == algorithm.pop[2].X).all()
    assert (algorithm.swarm.now.x[[0, 1, 2]] == positions[[3, 1, 2]]).all()
    assert (algorithm.swarm.best.x[[0, 1]] == positions[[3, 1]]).all()


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
