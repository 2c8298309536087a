"""Static metrics: those of evaluators that say so, from the architecture alone."""

from typing import ClassVar

import pytest

from evaluators import EVALUATORS, Candidate, StaticMetrics, UnbuiltCandidate, build_evaluators
from spaces import InputError


class Depth:
    metrics: ClassVar = {"own_depth": "min", "own_width": "min"}
    static = True

    def __call__(self, candidate):
        widest = candidate.largest.embed_dim * candidate.skeleton.in_channels
        return {
            "own_depth": float(candidate.architecture.depth),
            "own_width": widest / candidate.architecture.embed_dim,
        }


class Hasty(Depth):
    """Calls itself static and looks at the network."""

    def __call__(self, candidate):
        return {"own_depth": float(len(candidate.subnet.blocks)), "own_width": 1.0}


class Endless(Depth):
    def __call__(self, candidate):
        return {"own_depth": float("inf"), "own_width": 1.0}


def static(evaluators, space):
    return StaticMetrics(evaluators, lambda a: UnbuiltCandidate(a, space.skeleton, space.largest()))


def test_only_marked_evaluators_are_static(space):
    metrics = static(build_evaluators(("accuracy", "macs", "energy_mj", "parameters", "spikes", "f_aeb"), {}), space)
    assert metrics.names == ("macs", "parameters")
    assert set(metrics(space.smallest())) == {"macs", "parameters"}


def test_static_metrics_are_those_that_the_worker_gives(space, supernet, images):
    built = {**build_evaluators(("parameters", "macs"), {}), "own": Depth()}
    metrics = static(built, space)
    assert metrics.names == ("parameters", "macs", "own_depth", "own_width")
    for architecture in (space.smallest(), space.largest()):
        candidate = Candidate(architecture, supernet, images)
        scored = {name: value for each in built.values() for name, value in each(candidate).items()}
        assert metrics(architecture) == scored


def test_every_evaluator_of_the_table_that_is_static_needs_no_weights(space):
    marked = [name for name, build in EVALUATORS.items() if getattr(build(), "static", False)]
    assert marked == ["macs", "parameters"]


@pytest.mark.parametrize("broken", [Hasty, Endless])
def test_an_evaluator_that_is_static_in_name_only_is_refused(broken, space):
    with pytest.raises(InputError, match=r"evaluators with static = True give finite values .*take its static away"):
        static({"own": broken()}, space)(space.smallest())
