"""Figures of the benchmark that holds few evaluations with the reranker against many without."""

import numpy as np
import pytest
from rerank_digits import PLAIN, RERANKED, measure

from nas.comparison import Comparison, Level
from nas.contest import Trace

STEPS = {PLAIN: 0.001, RERANKED: 0.004}
"""What each evaluation adds to the accuracy at no energy: the hypervolume of the front so far."""


def trace(algorithm, index):
    accuracy = STEPS[algorithm] * np.arange(1, 201) + index / 100
    points = np.column_stack([accuracy, np.zeros(200)])
    return Trace(algorithm, index, points, tuple(map(str, range(200))), {})


@pytest.fixture
def comparison():
    traces = tuple(trace(name, index) for index in range(3) for name in (PLAIN, RERANKED))
    objectives, reference = {"accuracy": "max", "energy_mj": "min"}, {"accuracy": 0.0, "energy_mj": 1.0}
    return Comparison(traces, objectives, reference, 1.0, 200, Level(PLAIN, 200), {})


def test_half_the_evaluations_with_the_reranker_are_held_against_all_without(comparison):
    values = measure(comparison)
    assert values["hypervolumes"][PLAIN][200] == {"mean": 0.21, "median": 0.21, "seeds": [0.2, 0.21, 0.22]}
    assert values["hypervolumes"][RERANKED][100]["median"] == pytest.approx(0.41)
    against = values["few against many"]
    assert against["median"] == against["mean"] == pytest.approx(0.2)
    assert against["a12"] == 1.0
