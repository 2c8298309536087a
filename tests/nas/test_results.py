"""Tables, fronts and hypervolume, against brute force and by hand."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from fakes import OBJECTIVES, evaluation, fails, half_failing
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas.backend import open_storage
from nas.evaluation import Evaluation
from nas.results import evaluations_frame, front_frame, hypervolume, hypervolume_curve, non_dominated
from nas.storage import Store, read_trials

SENSES = st.lists(st.sampled_from(["max", "min"]), min_size=1, max_size=3)
METRICS = ["accuracy", "energy_mj", "spikes"]


def points_of(senses):
    few = st.integers(0, 4).map(float)  # so that equal points and equal coordinates are common
    return arrays(np.float64, st.tuples(st.integers(0, 12), st.just(len(senses))), elements=few)


def named(senses):
    return {f"objective_{i}": sense for i, sense in enumerate(senses)}


def dominates(one, other, senses):
    signs = [1 if sense == "min" else -1 for sense in senses]
    pairs = [(sign * a, sign * b) for sign, a, b in zip(signs, one, other, strict=True)]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@settings(deadline=None, max_examples=150)
@given(data=st.data(), senses=SENSES)
def test_non_dominated_points_are_those_of_brute_force(data, senses):
    points = data.draw(points_of(senses))
    keep = non_dominated(points, named(senses))
    assert keep.dtype == bool
    assert keep.tolist() == [not any(dominates(q, p, senses) for q in points) for p in points]


def test_duplicates_of_a_front_point_all_stay():
    points = np.array([[0.9, 1.0], [0.9, 1.0], [0.5, 0.5], [0.5, 0.6], [0.5, 0.5]])
    assert non_dominated(points, OBJECTIVES).tolist() == [True, True, True, False, True]


# Tables


@pytest.fixture
def frame_of(tmp_path, space):
    def frame_of(results, running=(), study="search"):
        store = Store(open_storage(tmp_path), study, space, OBJECTIVES)
        for generation, result in enumerate(results):
            store.open(result.architecture, generation)
            store.close(result)
        for architecture in running:
            store.open(architecture, 99)
        return evaluations_frame(read_trials(open_storage(tmp_path), study), space, METRICS, OBJECTIVES)

    return frame_of


COLUMNS = [
    *("number", "key", "embed_dim", "timesteps", "depth"),
    *("mlp_ratio_0", "num_heads_0", "v_threshold_0", "tau_0"),
    *("mlp_ratio_1", "num_heads_1", "v_threshold_1", "tau_1"),
    *("accuracy", "energy_mj", "spikes", "generation", "parents", "state", "duration", "worker", "failure"),
    *("feasible", "is_pareto"),
]


def with_spikes(architecture):
    result = half_failing(architecture)
    metrics = {**result.metrics, "spikes": 5.0} if result.metrics else {}
    return Evaluation(architecture, metrics, result.seconds, result.failure)


def test_columns_are_exactly_these_in_this_order(frame_of, space):
    assert frame_of([with_spikes(a) for a in list(space)[:5]]).columns.tolist() == COLUMNS


def test_an_empty_table_has_the_same_columns_and_kinds(frame_of, space):
    empty = evaluations_frame([], space, METRICS, OBJECTIVES)
    assert empty.columns.tolist() == COLUMNS
    assert len(empty) == 0
    assert len(empty[empty["is_pareto"]]) == 0
    full = frame_of([with_spikes(space.smallest())])
    texts = ("key", "parents", "state", "worker", "failure", "feasible", "is_pareto")
    numeric = [c for c in COLUMNS if c not in texts]
    assert all(pd.api.types.is_numeric_dtype(full[column]) for column in numeric)


def test_rows_hold_genes_metrics_state_and_reason(frame_of, space):
    architectures = list(space)[::32]
    results = [with_spikes(architecture) for architecture in architectures]
    running = next(a for a in space if a not in architectures)
    frame = frame_of(results, running=[running])
    assert frame["key"].tolist() == [a.key for a in [*architectures, running]]
    assert frame["number"].tolist() == list(range(len(frame)))
    states = ["failed" if fails(a) else "complete" for a in architectures] + ["running"]
    assert frame["state"].tolist() == states
    assert {"failed", "complete"} < set(states)
    for row, result in zip(frame.itertuples(), results, strict=False):
        genes = result.architecture.genes
        for column in space.columns:
            value = getattr(row, column)
            assert value == genes[column] if column in genes else pd.isna(value)
        assert row.duration == result.seconds
        if result.failure is None:
            assert {m: getattr(row, m) for m in METRICS} == result.metrics
            assert pd.isna(row.failure)
        else:
            assert all(pd.isna(getattr(row, m)) for m in METRICS)
            assert row.failure == "RuntimeError: even key"
    last = frame.iloc[-1]
    assert pd.isna(last["duration"])
    assert pd.isna(last["accuracy"])


def test_is_pareto_is_brute_force_over_complete_rows_and_never_failed_ones(frame_of, space):
    results = [with_spikes(a) for a in list(space)[::13]]
    frame = frame_of(results, running=list(space)[1:2])
    complete = frame[frame["state"] == "complete"]
    rows = list(zip(complete["accuracy"], complete["energy_mj"], strict=True))
    expected = [not any(dominates(q, p, OBJECTIVES.values()) for q in rows) for p in rows]
    assert complete["is_pareto"].tolist() == expected
    assert not frame.loc[frame["state"] != "complete", "is_pareto"].any()
    assert 1 <= sum(expected) < len(expected)


def test_metrics_of_an_evaluation_that_never_ended_are_missing(frame_of, space, tmp_path):
    frame_of([with_spikes(space.smallest())], running=[space.largest()])
    storage = open_storage(tmp_path)
    _, running = read_trials(storage, "search")
    storage.backend.set_trial_user_attr(running._trial_id, "accuracy", 1.0)  # then the machine went down
    frame = evaluations_frame(read_trials(open_storage(tmp_path), "search"), space, METRICS, OBJECTIVES)
    assert frame["state"][1] == "running"
    assert pd.isna(frame["accuracy"][1])


def test_equal_rows_are_all_pareto(frame_of, space):
    results = [Evaluation(a, {"accuracy": 0.5, "energy_mj": 1.0, "spikes": 1.0}, 0.1) for a in list(space)[:4]]
    assert frame_of(results)["is_pareto"].all()


def test_a_table_of_failures_has_an_empty_front(frame_of, space):
    frame = frame_of([Evaluation(a, {}, 0.1, "no") for a in list(space)[:4]])
    assert frame["state"].tolist() == ["failed"] * 4
    assert len(front_frame(frame, frame.head(0), OBJECTIVES)) == 0


def test_front_is_sorted_best_first_and_carries_test_scores_by_key(frame_of, space):
    architectures = list(space)[::11]
    frame = frame_of([evaluation(a) for a in architectures])
    front = front_frame(frame, frame.head(0), OBJECTIVES)
    assert len(front) >= 3
    assert front["accuracy"].is_monotonic_decreasing
    assert front.index.tolist() == list(range(len(front)))
    assert set(front["key"]) == set(frame.loc[frame["is_pareto"], "key"])
    assert front["test_accuracy"].isna().all()
    by_key = {a.key: a for a in architectures}
    chosen = [by_key[key] for key in front["key"]][1:]
    scores = [Evaluation(a, {"accuracy": i / 10, "energy_mj": 7.0 + i}, 0.1) for i, a in enumerate(chosen)]
    scored = front_frame(frame, frame_of(reversed(scores), study="test"), OBJECTIVES)
    assert scored.columns.tolist() == [*COLUMNS, "test_accuracy", "test_energy_mj"]
    assert pd.isna(scored["test_accuracy"][0])
    assert scored["test_accuracy"][1:].tolist() == [i / 10 for i in range(len(chosen))]
    assert scored["test_energy_mj"][1:].tolist() == [7.0 + i for i in range(len(chosen))]
    assert scored.drop(columns=["test_accuracy", "test_energy_mj"]).equals(
        front.drop(columns=["test_accuracy", "test_energy_mj"])
    )


def test_a_front_led_by_cost_is_sorted_cheapest_first(frame_of, space):
    frame = frame_of([evaluation(a) for a in list(space)[::11]])
    front = front_frame(frame, frame.head(0), {"energy_mj": "min", "accuracy": "max"})
    assert front["energy_mj"].is_monotonic_increasing


# Hypervolume


@pytest.mark.parametrize(
    ("points", "objectives", "reference", "expected"),
    [
        ([[0.5, 1.0]], OBJECTIVES, {"accuracy": 0.0, "energy_mj": 4.0}, 0.5 * 0.75),
        ([[0.5, 1.0], [0.8, 3.0]], OBJECTIVES, {"accuracy": 0.0, "energy_mj": 4.0}, 0.5 * 0.75 + 0.3 * 0.25),
        ([[0.5, 1.0], [0.4, 2.0]], OBJECTIVES, {"accuracy": 0.0, "energy_mj": 4.0}, 0.5 * 0.75),
        ([[0.5, 1.0], [0.5, 1.0]], OBJECTIVES, {"accuracy": 0.0, "energy_mj": 4.0}, 0.5 * 0.75),
        ([[0.9, 4.0], [0.9, 5.0]], OBJECTIVES, {"accuracy": 0.0, "energy_mj": 4.0}, 0.0),
        ([[0.5, 1.0]], OBJECTIVES, {"accuracy": 0.25, "energy_mj": 4.0}, 1.0 * 0.75),
        ([[1.0, 0.5]], {"energy_mj": "min", "accuracy": "max"}, {"accuracy": 0.0, "energy_mj": 4.0}, 0.5 * 0.75),
        ([[0.25], [0.75]], {"accuracy": "max"}, {"accuracy": 0.0}, 0.75),
        ([[1.0], [3.0]], {"energy_mj": "min"}, {"energy_mj": 4.0}, 0.75),
        ([[5.0]], {"energy_mj": "min"}, {"energy_mj": 4.0}, 0.0),
        ([[0.5, 1.0, 2.0]], {"a": "max", "b": "min", "c": "min"}, {"a": 0.0, "b": 2.0, "c": 8.0}, 0.5 * 0.5 * 0.75),
    ],
    ids=lambda value: str(value)[:30],
)
def test_hypervolume_by_hand(points, objectives, reference, expected):
    assert hypervolume(np.array(points), objectives, reference) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("objectives", [OBJECTIVES, {"accuracy": "max"}], ids=["two", "one"])
def test_hypervolume_of_nothing_is_zero(objectives):
    reference = {"accuracy": 0.0, "energy_mj": 1.0}
    assert hypervolume(np.empty((0, len(objectives))), objectives, reference) == 0.0


def volume_by_inclusion_and_exclusion(points, limit):
    """Return the union of the boxes between minimised points and a limit."""
    total = 0.0
    for chosen in product([False, True], repeat=len(points)):
        corner = points[np.array(chosen, dtype=bool)]
        if len(corner):
            total -= (-1) ** len(corner) * np.prod(np.maximum(limit - corner.max(axis=0), 0))
    return total


@settings(deadline=None, max_examples=80)
@given(data=st.data(), senses=SENSES)
def test_hypervolume_is_that_of_inclusion_and_exclusion(data, senses):
    points = data.draw(points_of(senses))[:6]
    reference = data.draw(st.lists(st.integers(-3, 5).map(float), min_size=len(senses), max_size=len(senses)))
    signs = np.array([1.0 if sense == "min" else -1.0 for sense in senses])
    scale = np.array([abs(value) or 1.0 for value in reference])
    expected = volume_by_inclusion_and_exclusion(points * signs / scale, np.array(reference) * signs / scale)
    objectives = named(senses)
    found = hypervolume(points, objectives, dict(zip(objectives, reference, strict=True)))
    assert found == pytest.approx(expected, abs=1e-9)


def test_hypervolume_does_not_depend_on_the_unit_of_an_objective():
    points = np.array([[0.5, 1.0], [0.8, 3.0]])
    in_mj = hypervolume(points, OBJECTIVES, {"accuracy": 0.0, "energy_mj": 4.0})
    in_nj = hypervolume(points * [1, 1e6], OBJECTIVES, {"accuracy": 0.0, "energy_mj": 4e6})
    assert in_nj == pytest.approx(in_mj)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.one_of(st.none(), st.tuples(st.floats(0, 1), st.floats(0, 6))),
        min_size=1,
        max_size=15,
    )
)
def test_curve_never_falls_and_ends_at_the_hypervolume_of_all(rows):
    points = np.array([(np.nan, np.nan) if row is None else row for row in rows])
    frame = pd.DataFrame(points, columns=list(OBJECTIVES)).assign(feasible=np.isfinite(points).all(axis=1))
    reference = {"accuracy": 0.0, "energy_mj": 4.0}
    curve = hypervolume_curve(frame, OBJECTIVES, reference)
    assert len(curve) == len(rows)
    assert (np.diff(curve) >= -1e-12).all()
    finite = points[np.isfinite(points).all(axis=1)]
    assert curve[-1] == pytest.approx(hypervolume(finite, OBJECTIVES, reference), abs=1e-9)
    for i in (0, len(rows) // 2):
        head = points[: i + 1]
        head = head[np.isfinite(head).all(axis=1)]
        assert curve[i] == pytest.approx(hypervolume(head, OBJECTIVES, reference), abs=1e-9)


def test_curve_of_one_objective_is_the_best_so_far():
    frame = pd.DataFrame({"accuracy": [0.2, np.nan, 0.1, 0.6, 0.5], "feasible": [True, False, True, True, True]})
    curve = hypervolume_curve(frame, {"accuracy": "max"}, {"accuracy": 0.0})
    assert curve.tolist() == [0.2, 0.2, 0.2, 0.6, 0.6]
