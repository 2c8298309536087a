"""The search loop: opened before scored, told in order, replayed from the store, and nothing scored twice."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from fakes import OBJECTIVES, FakePool, evaluation, half_failing, installed, narrowed
from optuna.trial import TrialState

from nas.algorithms import build_algorithm
from nas.backend import open_storage
from nas.evaluation import Evaluation
from nas.loop import Quest, evaluate, run_search
from nas.problem import ArchitectureProblem
from nas.results import evaluations_frame
from nas.storage import Store, read_trials

METRICS = ["accuracy", "energy_mj"]


@cache
def storage_of(folder):
    return open_storage(folder)


def searched(folder, space, pool, name="nsga2", study="search", budget=20, known=None, seed=1, heard=None):
    """Search with a fresh optimiser on whatever the folder's store holds; return spent evaluations and the store."""
    problem = ArchitectureProblem(space, OBJECTIVES)
    store = Store(storage_of(folder), study, space, OBJECTIVES)
    algorithm = build_algorithm(name, problem, 6, seed, expand=1)
    listen = (lambda _: None) if heard is None else heard.append
    with pool:
        ending = run_search(Quest(problem, pool, store, budget, known or {}, listen), algorithm)
    return ending.evaluations, store


def table(folder, space, study="search"):
    trials = read_trials(storage_of(folder), study)
    return evaluations_frame(trials, space, METRICS, OBJECTIVES)


@pytest.fixture
def folder(tmp_path):
    def folder(name):
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        return path

    return folder


def test_each_evaluation_is_one_trial_in_order_of_submission(folder, space):
    pool, heard = FakePool(), []
    spent, store = searched(folder("a"), space, pool, heard=heard)
    frame = table(folder("a"), space)
    assert spent == len(heard) == len(pool.submitted) == len(frame) == 20
    assert frame["number"].tolist() == list(range(20))
    assert frame["key"].tolist() == [architecture.key for architecture, _ in pool.submitted]
    assert frame["generation"].tolist() == [1] * 6 + [2] * 6 + [3] * 6 + [4] * 2
    assert set(frame["state"]) == {"complete"}
    assert [result.architecture for result in store.results] == [a for a, _ in pool.submitted]


def test_trials_are_open_before_anything_is_scored(folder, space):
    storage = storage_of(folder("a"))

    def look(architecture):
        states = {trial.user_attrs["key"]: trial.state for trial in read_trials(storage, "search")}
        assert states[architecture.key] == TrialState.RUNNING
        return evaluation(architecture)

    spent, _ = searched(folder("a"), space, FakePool(look), budget=12)
    assert spent == 12


def test_results_are_recorded_as_they_arrive_not_at_the_end_of_a_generation(folder, space):
    with pytest.raises(KeyboardInterrupt):
        searched(folder("a"), space, FakePool(dies_after=3))
    assert table(folder("a"), space)["state"].tolist() == ["complete"] * 3 + ["running"] * 3


@pytest.mark.parametrize("answer", [evaluation, half_failing], ids=["sound", "half failing"])
@pytest.mark.parametrize("name", installed())
def test_results_out_of_order_give_the_same_table(name, answer, folder, space):
    searched(folder("ordered"), space, FakePool(answer), name)
    searched(folder("shuffled"), space, FakePool(answer, shuffle=np.random.default_rng(0)), name)
    pd.testing.assert_frame_equal(table(folder("ordered"), space), table(folder("shuffled"), space))


@pytest.mark.parametrize("name", installed())
def test_replay_asks_the_pool_for_nothing_and_hears_everything(name, folder, space):
    heard, replayed = [], []
    searched(folder("a"), space, FakePool(half_failing), name, heard=heard)
    before = table(folder("a"), space)
    pool = FakePool()
    spent, _ = searched(folder("a"), space, pool, name, heard=replayed)
    assert spent == 20
    assert pool.submitted == []
    assert replayed == heard
    pd.testing.assert_frame_equal(table(folder("a"), space), before)


@pytest.mark.parametrize("name", installed())
def test_a_search_killed_again_and_again_ends_with_the_table_of_one_that_was_not(name, folder, space):
    searched(folder("whole"), space, FakePool(half_failing), name)
    rng = np.random.default_rng(4)
    scored = []
    for lives in (1, 7, 4, 100):
        pool = FakePool(half_failing, shuffle=rng, dies_after=lives)
        known_before = set(table(folder("killed"), space)["key"]) if scored else set()
        try:
            searched(folder("killed"), space, pool, name)
        except KeyboardInterrupt:
            assert lives < 100
        frame = table(folder("killed"), space)
        assert known_before <= set(frame["key"])
        scored.append(pool.collected)
    assert sum(scored) == 20
    pd.testing.assert_frame_equal(table(folder("killed"), space), table(folder("whole"), space))


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(folder, space):
    searched(folder("grown"), space, FakePool(half_failing), budget=15)
    first = table(folder("grown"), space)
    pool = FakePool(half_failing)
    spent, _ = searched(folder("grown"), space, pool, budget=27)
    searched(folder("whole"), space, FakePool(half_failing), budget=27)
    grown = table(folder("grown"), space)
    assert (spent, len(pool.submitted)) == (27, 12)
    pd.testing.assert_frame_equal(grown, table(folder("whole"), space))
    pd.testing.assert_frame_equal(
        grown.head(15).drop(columns="is_pareto"), first.drop(columns="is_pareto"), check_dtype=False
    )


def test_no_architecture_is_scored_twice_across_search_and_baseline(folder, space):
    small = narrowed(space, tau=[2.0], v_threshold=[1.0])
    assert small.size == 24
    pool = FakePool(half_failing)
    _, found = searched(folder("a"), small, pool)
    _, random = searched(folder("a"), small, pool, "random", "random", known=found.known, seed=2)
    shared = set(found.known) & set(random.known)
    assert 16 <= len(shared) < 20
    assert len(found.known) == len(random.known) == 20
    assert pool.counts.most_common(1)[0][1] == 1
    assert len(pool.submitted) == 40 - len(shared)

    random, search = (table(folder("a"), small, study).set_index("key") for study in ("random", "search"))
    keys = [architecture.key for architecture in shared]
    assert (random.loc[keys, "duration"] == 0).all(), "no work was done for these"
    assert (random.drop(keys)["duration"] > 0).all()
    assert (search["duration"] > 0).all()
    columns = ["accuracy", "energy_mj", "state", "failure"]
    pd.testing.assert_frame_equal(random.loc[keys, columns], search.loc[keys, columns])
    assert set(search.loc[keys, "state"]) == {"complete", "failed"}


@pytest.mark.parametrize("budget", [1, 5, 6, 7])
def test_a_budget_is_kept_to_the_last_evaluation(budget, folder, space):
    pool = FakePool()
    assert searched(folder("a"), space, pool, budget=budget)[0] == budget
    assert len(pool.submitted) == budget


@pytest.mark.parametrize("name", installed())
def test_a_space_smaller_than_the_budget_is_evaluated_once_each_and_the_search_ends(name, folder, space):
    small = narrowed(space, tau=[2.0], v_threshold=[1.0], timesteps=[1], depth=[1])
    pool = FakePool()
    spent, _ = searched(folder("a"), small, pool, name, budget=50)
    assert spent == small.size == 4
    assert set(pool.counts) == set(small)
    assert pool.counts.most_common(1)[0][1] == 1


def test_evaluate_returns_results_in_the_order_asked_on_the_split_asked(folder, space):
    store = Store(storage_of(folder("a")), "test", space, OBJECTIVES)
    architectures = list(space)[:6]
    pool = FakePool(shuffle=np.random.default_rng(1))
    results = evaluate(architectures, pool, store, 1, {}, lambda _: None, split="test")
    assert [result.architecture for result in results] == architectures
    assert pool.submitted == [(architecture, "test") for architecture in architectures]


def test_a_known_failure_is_not_tried_again(folder, space):
    architecture = space.smallest()
    store = Store(storage_of(folder("a")), "random", space, OBJECTIVES)
    known = {architecture: Evaluation(architecture, {}, 3.0, "RuntimeError: no")}
    pool = FakePool()
    (result,) = evaluate([architecture], pool, store, 1, known, lambda _: None)
    assert result == Evaluation(architecture, {}, 0.0, "RuntimeError: no")
    assert pool.submitted == []
