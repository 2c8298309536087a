"""The statistics of the CEC 2005 study, on values that can be worked out by hand."""

import numpy as np
import pytest
from cec2005 import ALGORITHMS, compare, mean_run_ranks, numbers, signed_rank, solve, table
from cec2005_functions import data_file


def test_functions_are_given_one_by_one_or_as_ranges():
    assert numbers("1-3,7") == [1, 2, 3, 7]


def errors():
    """Three algorithms on four functions, ten runs: a is best, c worst; on the last function all solve it."""
    rng = np.random.default_rng(1)
    base = rng.random((4, 10))
    values = {"a": base + 1, "b": base + 5, "c": base + 9}
    return {name: np.where(np.arange(4)[:, None] == 3, 1e-12, v) for name, v in values.items()}


def test_ranks_share_places_where_all_solve_a_function():
    found = compare(errors())
    assert found["mean rank of medians"] == {"a": 1.25, "b": 2.0, "c": 2.75}
    assert found["mean rank of means"] == {"a": 1.25, "b": 2.0, "c": 2.75}
    assert found["mean rank of runs"] == {"a": 1.25, "b": 2.0, "c": 2.75}
    assert found["pairs"]["a / c"]["better"] == 3
    assert found["pairs"]["a / c"]["alike"] == 1
    assert found["pairs"]["a / c"]["worse"] == 0
    assert found["friedman"]["p"] == pytest.approx(0.0498, abs=1e-3)  # ranks 1, 2, 3 thrice and a tie: 6 on 2 degrees


def test_equal_algorithms_share_the_mean_rank_of_runs_and_do_not_differ():
    same = np.arange(20.0).reshape(2, 10)
    assert mean_run_ranks({"a": same, "b": same, "c": same}) == pytest.approx([2.0, 2.0, 2.0])
    assert signed_rank(same[0], same[0]) == 1.0


def test_the_table_marks_the_best_median():
    lines = table([1, 2, 5, 9], errors(), compare(errors())).splitlines()
    assert lines[0] == "| | a | b | c |"
    assert lines[2].startswith("| F1 sphere | **1.")
    assert lines[5] == "| F9 Rastrigin | **0** | **0** | **0** |"
    assert lines[6] == "| mean rank of medians | 1.25 | 2.00 | 2.75 |"


@pytest.mark.skipif(data_file() is None, reason="SPIKEFRONT_DATA has no cec2005/cec2005_f1_f14.npz")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_runs_repeat_from_their_seed_and_start_alike(name):
    assert solve((name, 4, 7, 400)) == solve((name, 4, 7, 400))
    assert solve((name, 9, 7, 40)) == solve(("qpso", 9, 7, 40))
