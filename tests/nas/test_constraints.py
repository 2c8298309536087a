"""Constraints: read, measured, kept by what is proposed, and told to the optimiser in the right order."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fakes import OBJECTIVES, FakePool, evaluation, installed, narrowed, toy_metrics
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pymoo.algorithms.moo.nsga2 import RankAndCrowdingSurvival
from pymoo.core.population import Population

from evaluators import StaticMetrics, UnbuiltCandidate, build_evaluators
from nas.admission import check_admission
from nas.algorithms import build_algorithm
from nas.backend import open_storage
from nas.constraints import Constraint, parse_constraints, squash, total_violation, violations
from nas.loop import Quest, run_search
from nas.problem import ArchitectureProblem
from nas.storage import Store
from spaces import InputError, load_space

METRICS = ["accuracy", "energy_mj", "energy_mj:fp16", "parameters", "macs"]
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def static_of(space, calls=None):
    """Return parameters and MACs of a space, and note each architecture that they are computed for."""

    def candidate(architecture):
        if calls is not None:
            calls.append(architecture)
        return UnbuiltCandidate(architecture, space.skeleton, space.largest())

    return StaticMetrics(build_evaluators(("parameters", "macs"), {}), candidate)


def bounded(space, constraints, objectives=OBJECTIVES, calls=None):
    return ArchitectureProblem(space, objectives, parse_constraints(constraints, METRICS), static_of(space, calls))


# Reading


def test_names_are_max_or_min_and_a_metric():
    found = parse_constraints({"max_parameters": 1e6, "min_accuracy": 0.9, "max_energy_mj:fp16": 0.5}, METRICS)
    assert found == (
        Constraint("parameters", 1e6, True),
        Constraint("accuracy", 0.9, False),
        Constraint("energy_mj:fp16", 0.5, True),
    )
    assert [str(each) for each in found] == [
        "max_parameters = 1000000",
        "min_accuracy = 0.9",
        "max_energy_mj:fp16 = 0.5",
    ]


def test_both_bounds_of_a_metric_may_meet_but_not_cross():
    assert len(parse_constraints({"min_macs": 5.0, "max_macs": 5.0}, METRICS)) == 2
    with pytest.raises(InputError, match=r"must leave room between min_macs and max_macs, got 6 and 5"):
        parse_constraints({"min_macs": 6.0, "max_macs": 5.0}, METRICS)


@pytest.mark.parametrize("name", ["parameters", "max_", "max_speed", "most_accuracy", "max-accuracy", ""])
def test_what_bounds_no_recorded_metric_is_refused(name):
    with pytest.raises(
        InputError, match=r"search.constraints must be max_ or min_ with one of the metrics \['accuracy'"
    ):
        parse_constraints({name: 1.0}, METRICS)


@pytest.mark.parametrize("bound", [math.inf, -math.inf, math.nan])
def test_bounds_are_finite(bound):
    with pytest.raises(InputError, match=r"search.constraints.max_macs must be finite, got"):
        parse_constraints({"max_macs": bound}, METRICS)


# Measuring


@pytest.mark.parametrize(
    ("name", "bound", "value", "excess"),
    [
        ("max_macs", 4.0, 5.0, 0.25),
        ("max_macs", 4.0, 4.0, 0.0),
        ("max_macs", 4.0, 3.0, 0.0),
        ("min_accuracy", 0.8, 0.6, 0.25),
        ("min_accuracy", 0.8, 0.9, 0.0),
        ("max_accuracy", 0.0, 0.5, 0.5),
        ("min_accuracy", -2.0, -3.0, 0.5),
    ],
)
def test_excess_by_hand(name, bound, value, excess):
    (constraint,) = parse_constraints({name: bound}, METRICS)
    assert constraint.excess(value) == pytest.approx(excess)


@given(bound=FINITE, value=FINITE, upper=st.booleans())
def test_a_violation_is_squashed_into_zero_to_one_and_zero_exactly_where_the_bound_holds(bound, value, upper):
    assume(not 0 < abs(bound) < 1e-300)
    assume(abs(value - bound) > 1e-300 or value == bound)
    constraint = Constraint("macs", bound, upper)
    violation = squash(constraint.excess(value))
    assert 0 <= violation <= 1
    assert (violation == 0) == (value <= bound if upper else value >= bound)


@example(one=6004799503160660.0, other=6004799503160661.0)
@example(one=0.75, other=math.nextafter(0.75, 1))
@example(one=5e-324, other=1e-300)
@given(one=st.floats(0, 1e300), other=st.floats(0, math.inf))
def test_squashing_keeps_the_order(one, other):
    low, high = sorted([one, other])
    assert squash(low) <= squash(high) <= 1
    assert (squash(low) == 0) == (low == 0)


def test_violations_of_a_table_are_those_of_its_rows():
    constraints = parse_constraints({"max_macs": 2.0, "min_macs": 1.0, "min_accuracy": 0.5}, METRICS)
    frame = pd.DataFrame({"macs": [1.5, 4.0, 0.0], "accuracy": [0.5, 0.25, 0.9], "other": ["a", "b", "c"]})
    assert violations(frame, constraints).tolist() == pytest.approx([0.0, 0.5 + 1 / 3, 0.5])
    assert violations(frame, ()).tolist() == [0.0, 0.0, 0.0]
    assert violations(frame.head(0), constraints).shape == (0,)
    assert total_violation({"macs": 4.0, "accuracy": 0.25}, constraints) == pytest.approx(0.5 + 1 / 3)


# The problem


def test_measured_constraints_are_columns_of_g_behind_the_failure(space):
    problem = bounded(space, {"min_accuracy": 0.5, "max_parameters": 1e9, "max_energy_mj": 2.0})
    assert problem.n_ieq_constr == 3
    assert problem.static_metrics == ("parameters", "macs")
    assert [c.metric for c in problem.static_constraints] == ["parameters"]
    metrics = [
        {"accuracy": 0.5, "energy_mj": 2.0},
        {"accuracy": 0.25, "energy_mj": 1.0},
        {"accuracy": 0.25, "energy_mj": 4.0},
        None,
    ]
    X = np.array([space.encode(space.smallest())] * 4)
    population = problem.fill(Population.new(X=X), metrics)
    third = 0.5 / 1.5
    expected = [[-1.0, -1.0, -1.0], [-1.0, third, -1.0], [-1.0, third, 0.5], [1.0, 1.0, 1.0]]
    np.testing.assert_allclose(population.get("G"), expected)
    assert population.get("feas").tolist() == [True, False, False, False]


RESULTS = st.one_of(st.none(), st.fixed_dictionaries({"accuracy": st.floats(0, 1), "energy_mj": st.floats(0, 1e300)}))


@given(rows=st.lists(RESULTS, min_size=2, max_size=12))
def test_pymoo_prefers_sound_to_infeasible_to_failed(rows):
    space = load_space("digits")
    problem = bounded(space, {"min_accuracy": 0.5, "max_energy_mj": 1e-3})

    def grade(values):
        return 2 if values is None else 0 if problem.feasible(values) else 1

    X = np.array([space.encode(space.smallest())] * len(rows))
    population = problem.fill(Population.new(X=X), rows)
    population.set("row", np.arange(len(rows)))
    violation = population.get("CV").ravel()
    grades = np.array([grade(values) for values in rows])
    for grade_, limit in ((0, 0.0), (1, 2.0), (2, 3.0)):
        assert (violation[grades == grade_] <= limit).all()
    assert (violation[grades == 1] > 0).all()
    assert (violation[grades == 2] == 3.0).all()
    kept = RankAndCrowdingSurvival().do(problem, population, n_survive=len(rows) // 2, random_state=np.random)
    chosen = sorted(grades[kept.get("row").astype(int)])
    assert chosen == sorted(grades)[: len(chosen)]


def test_admission_and_violation_follow_from_the_architecture_alone(space):
    small, large = space.smallest(), space.largest()
    calls = []
    problem = bounded(space, {"max_parameters": 3_000.0, "max_macs": 1e5, "min_accuracy": 0.9}, calls=calls)
    values = problem.static(large)
    assert problem.admits(small)
    assert problem.violation(small) == 0.0
    assert not problem.admits(large)
    assert problem.violation(large) == pytest.approx(values["parameters"] / 3_000 - 1 + values["macs"] / 1e5 - 1)
    assert not problem.in_reals().admits(large)
    assert len(calls) == 2, "computed once for each"


def test_without_constraints_everything_is_admitted_and_nothing_computed(space):
    calls = []
    problem = bounded(space, {"min_accuracy": 0.9}, calls=calls)
    assert all(problem.admits(architecture) for architecture in space)
    assert problem.violation(space.largest()) == 0.0
    assert calls == []
    assert ArchitectureProblem(space, OBJECTIVES).static(space.largest()) == {}


# Whether anything is left


def test_a_bound_below_the_smallest_network_is_refused_with_what_it_needs(space):
    need = static_of(space)(space.smallest())["parameters"]
    check_admission(bounded(space, {"max_parameters": need}), np.random.default_rng(0))
    with pytest.raises(
        InputError,
        match=f"none of the 288 architectures of the space 'tiny' .* the nearest has parameters {need:.0f}",
    ):
        check_admission(bounded(space, {"max_parameters": need - 1}), np.random.default_rng(0))


def test_in_a_large_space_a_single_network_is_found_by_descent():
    space = load_space("auto-spikformer")
    longest = replace(space.smallest(), timesteps=space.largest().timesteps)
    smallest = static_of(space)(longest)
    assert space.size > 1e9
    problem = bounded(space, {"max_parameters": smallest["parameters"], "min_macs": smallest["macs"]})
    assert not problem.admits(space.smallest())
    check_admission(problem, np.random.default_rng(0))
    with pytest.raises(
        InputError, match=r"no architecture that could be found in 8,659.* the nearest has parameters"
    ):
        check_admission(bounded(space, {"max_parameters": smallest["parameters"] - 1}), np.random.default_rng(0))


# The loop


@pytest.mark.parametrize("name", installed())
def test_nothing_is_scored_that_a_static_constraint_forbids(name, space, tmp_path):
    limit = static_of(space)(space.largest())["parameters"] / 2
    problem = bounded(space, {"max_parameters": limit}, OBJECTIVES)
    assert sum(map(problem.admits, space)) == 144
    store = Store(open_storage(tmp_path), "search", space, OBJECTIVES)
    pool = FakePool()
    run_search(Quest(problem, pool, store, 20), build_algorithm(name, problem, 6, 1, expand=1))
    assert len(pool.submitted) == len(store.results) == 20
    assert all(problem.admits(result.architecture) for result in store.results)


class Everything:
    """An algorithm of someone else's, which proposes a whole space at once and looks at no constraint."""

    def __init__(self, problem):
        self.problem, space = problem, problem.space
        self.left = Population.new(X=np.array([space.encode(architecture) for architecture in space]))

    def ask(self):
        asked, self.left = self.left, None
        return asked

    def tell(self, infills):
        self.told = infills


def test_what_is_proposed_against_a_static_constraint_is_recorded_and_not_scored(space, tmp_path):
    space = narrowed(space, tau=[2.0])
    limit = static_of(space)(space.largest())["parameters"] / 2
    problem = bounded(space, {"max_parameters": limit})
    store, pool = Store(open_storage(tmp_path), "search", space, OBJECTIVES), FakePool()
    algorithm = Everything(problem)
    run_search(Quest(problem, pool, store, space.size), algorithm)
    assert {architecture for architecture, _ in pool.submitted} == set(filter(problem.admits, space))
    refused = [result for result in store.results if not problem.admits(result.architecture)]
    assert len(refused) == space.size / 2 == 40
    assert {result.failure.split(" is ")[0] for result in refused} == {"not scored: parameters"}
    assert algorithm.told.get("feas").sum() == 40


def test_an_infeasible_result_is_told_as_such_and_the_search_moves_away_from_it(tmp_path):
    """With half of the space beyond a measured bound, nearly all of the later half of a search keeps it."""
    space = load_space("digits")
    drawn = [toy_metrics(space.sample(np.random.default_rng(seed)))["energy_mj"] for seed in range(200)]
    limit = float(np.quantile(drawn, 0.3))
    problem = bounded(space, {"max_energy_mj": limit})
    store = Store(open_storage(tmp_path), "search", space, OBJECTIVES)
    algorithm = build_algorithm("nsga2", problem, 10, 1, expand=1)
    run_search(Quest(problem, FakePool(evaluation), store, 100), algorithm)
    kept = [problem.feasible(result.metrics) for result in store.results]
    assert sum(kept[:10]) < 8
    assert sum(kept[50:]) > 40
    assert algorithm.opt.get("feas").all()


@pytest.mark.parametrize("name", installed())
def test_a_space_that_constraints_make_small_is_searched_to_its_end(name, space, tmp_path):
    few = narrowed(space, tau=[2.0], v_threshold=[1.0])
    problem = bounded(few, {"max_parameters": static_of(few)(few.smallest())["parameters"]}, OBJECTIVES)
    admitted = set(filter(problem.admits, few))
    store = Store(open_storage(tmp_path), "search", few, OBJECTIVES)
    pool = FakePool()
    ending = run_search(Quest(problem, pool, store, 100), build_algorithm(name, problem, 6, 1, expand=1))
    assert 0 < ending.evaluations == len(admitted) < few.size
    assert ending.reason == "exhausted"
    assert {architecture for architecture, _ in pool.submitted} == admitted


@pytest.mark.parametrize("name", installed())
def test_a_search_lives_on_the_little_that_constraints_leave_of_a_large_space(name):
    """Draws would find one in millions: walks have to lead there, and on."""
    space = load_space("auto-spikformer")
    smallest = static_of(space)(space.smallest())["parameters"]
    problem = bounded(space, {"max_parameters": 1.2 * smallest})
    assert not any(problem.admits(space.sample(np.random.default_rng(seed))) for seed in range(500))
    algorithm, proposed = build_algorithm(name, problem, 6, 1, expand=1), []
    for _ in range(4):
        asked = algorithm.ask()
        proposed += [space.decode(x) for x in asked.get("X")]
        algorithm.tell(infills=algorithm.problem.fill(asked, [toy_metrics(a) for a in proposed[-len(asked) :]]))
    assert len(set(proposed)) == 24
    assert all(map(problem.admits, proposed))
