"""Idle time by hand, and the times that a run has kept."""

import pandas as pd
import pytest

from nas.figures import idle_figure, idle_shares
from nas.workers import LOCAL_GROUP

BEGIN = pd.Timestamp("2026-01-01 10:00:00")


def timeline(*rows):
    """Return a timeline of rows of seconds: submitted, completed, duration."""
    moments = [(BEGIN + pd.Timedelta(a, "s"), BEGIN + pd.Timedelta(b, "s"), float(c)) for a, b, c in rows]
    return pd.DataFrame(moments, columns=["submitted", "completed", "duration"])


def test_a_worker_that_always_scores_is_never_idle():
    assert idle_shares(timeline((0, 2, 2), (2, 5, 3), (5, 6, 1)), 1) == pytest.approx([0, 0, 0])


def test_idle_shares_are_of_all_workers_up_to_each_result():
    found = idle_shares(timeline((0, 2, 2), (0, 4, 4), (4, 8, 4)), 2)
    assert found == pytest.approx([1 - 2 / (2 * 2), 1 - 6 / (2 * 4), 1 - 10 / (2 * 8)])


def test_a_pause_of_the_run_is_left_out():
    most = LOCAL_GROUP * 1.0
    found = idle_shares(timeline((0, 1, 1), (100_000, 100_001, 1)), 1)
    assert found == pytest.approx([0, 1 - 2 / (1 + most + 1)])


def test_no_results_give_no_shares():
    assert idle_shares(timeline(), 3) == []


def test_more_work_than_time_counts_as_no_idle_time():
    assert idle_shares(timeline((0, 1, 1), (0, 1, 1)), 1) == [0.0, 0.0]


def test_the_figure_is_in_percent():
    (trace,) = idle_figure([0.5, 0.25]).data
    assert (trace.x, trace.y) == ((1, 2), (50, 25))


def test_a_run_keeps_when_each_result_came(finished):
    frame = finished.timeline()
    assert sorted(frame["key"]) == sorted(finished.evaluations()["key"])
    assert frame["completed"].is_monotonic_increasing
    assert (frame["completed"] >= frame["submitted"]).all()
    assert frame["duration"].sum() == pytest.approx(finished.evaluations()["duration"].sum())
