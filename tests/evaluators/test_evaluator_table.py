"""Evaluators by name, their common contract, and what counts as a failure."""

import sys

import pytest
import torch

from evaluators import EVALUATORS, Candidate, build_evaluators, score
from spaces import InputError


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Write a user's module and make it importable under a name of its own."""

    def own_module(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    yield own_module
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


class Gives:
    """An evaluator that returns what it is given."""

    def __init__(self, values, metrics=None):
        self.values = values
        self.metrics = dict.fromkeys(values, "min") if metrics is None else metrics

    def __call__(self, candidate):
        return self.values


@pytest.mark.parametrize("name", EVALUATORS)
def test_metrics_have_names_and_senses(name):
    metrics = EVALUATORS[name]().metrics
    assert metrics
    assert set(metrics.values()) <= {"max", "min"}
    assert name in metrics


@pytest.mark.parametrize("name", EVALUATORS)
def test_call_gives_a_finite_float_for_each_metric_and_the_same_again(name, space, supernet, images):
    evaluator = EVALUATORS[name]()
    first, second = (score(Candidate(space.smallest(), supernet, images), {name: evaluator}) for _ in range(2))
    assert set(first) == set(evaluator.metrics)
    assert all(type(value) is float for value in first.values())
    assert first == second


def test_accuracy_is_the_share_of_right_answers(space, supernet, images):
    candidate = Candidate(space.largest(), supernet, images)
    with torch.no_grad():
        answers = candidate.subnet(images.normalise(images.scored.images)).argmax(dim=1).numpy()
    right = int((answers == images.scored.labels).sum())
    assert 0 < right < 24
    assert EVALUATORS["accuracy"]()(candidate) == {"accuracy": right / 24}


def test_evaluators_come_in_the_order_of_their_names():
    names = ["spikes", "accuracy", "macs"]
    assert list(build_evaluators(names, {})) == names


def test_options_reach_their_evaluator():
    built = build_evaluators(["f_aeb", "accuracy"], {"f_aeb": {"form": "sum", "exponent": 0.5}})
    assert (built["f_aeb"].form, built["f_aeb"].exponent) == ("sum", 0.5)


@pytest.mark.parametrize(
    ("names", "options", "text"),
    [
        (["speed"], {}, r"evaluator must be one of \['accuracy', .*'spikes'\] or package.module:Name, got 'speed'"),
        (["accuracy"], {"f_aeb": {}}, r"options belong to evaluators in use \['accuracy'\], got options for 'f_aeb'"),
        (
            ["f_aeb"],
            {"f_aeb": {"weight": 1, "form": "sum"}},
            r"f_aeb has the options \['exponent', 'form', 'reference_mj'\], got \['weight'\]",
        ),
        (["accuracy"], {"accuracy": {"top": 5}}, r"accuracy has the options \[\], got \['top'\]"),
        (["macs", "macs"], {}, "a metric has one evaluator, but macs and macs both give macs"),
        (["no_such_module:Thing"], {}, "evaluator 'no_such_module:Thing' cannot be imported: .*no_such_module"),
        (["evaluators:Thing"], {}, "evaluator 'evaluators:Thing' cannot be imported: .*Thing"),
        ([":Thing"], {}, "evaluator ':Thing' cannot be imported"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_names_and_options_are_refused(names, options, text):
    with pytest.raises(InputError, match=text):
        build_evaluators(names, options)


@pytest.mark.parametrize("name", ["math:pi", "math:sqrt", "evaluators:Candidate", "evaluators:OperationCounts"])
def test_a_name_of_something_else_is_refused(name):
    with pytest.raises(InputError, match=f"{name}"):
        build_evaluators(["accuracy", name], {})


@pytest.mark.parametrize("metrics", ['{"own": "maximise"}', '["own"]'], ids=["unknown sense", "without senses"])
def test_an_evaluator_with_wrong_metrics_is_refused(metrics, own_module):
    own_module("wrong_metrics", f"class Own:\n    metrics = {metrics}\n    def __call__(self, c): return {{}}\n")
    with pytest.raises(InputError, match="wrong_metrics:Own"):
        build_evaluators(["wrong_metrics:Own"], {})


def test_evaluators_of_the_user_work_with_and_without_options(own_module, space, supernet, images):
    own_module(
        "own_evaluators",
        "class Depth:\n"
        "    metrics = {'weighted_depth': 'min'}\n"
        "    def __init__(self, weight: float = 1.0):\n"
        "        self.weight = weight\n"
        "    def __call__(self, candidate):\n"
        "        return {'weighted_depth': self.weight * candidate.architecture.depth}\n",
    )
    candidate, name = Candidate(space.largest(), supernet, images), "own_evaluators:Depth"
    assert score(candidate, build_evaluators([name], {})) == {"weighted_depth": 2.0}
    assert score(candidate, build_evaluators([name], {name: {"weight": 3.0}})) == {"weighted_depth": 6.0}
    with pytest.raises(InputError, match=r"own_evaluators:Depth has the options \['weight'\], got \['heft'\]"):
        build_evaluators([name], {name: {"heft": 3.0}})


def test_metrics_of_the_user_cannot_clash_with_shipped_ones(own_module):
    own_module("clash", "class Own:\n    metrics = {'accuracy': 'max'}\n    def __call__(self, c): return {}\n")
    with pytest.raises(InputError, match="accuracy and clash:Own both give accuracy"):
        build_evaluators(["accuracy", "clash:Own"], {})


@pytest.mark.parametrize(
    ("values", "metrics", "text"),
    [
        ({"own": float("nan")}, None, "own must be finite, got nan"),
        ({"own": float("inf")}, None, "own must be finite, got inf"),
        ({"own": float("-inf")}, None, "own must be finite, got -inf"),
        ({}, {"own": "max"}, r"row must give \['own'\], got \[\]"),
        ({"other": 1.0}, {"own": "max"}, r"row must give \['own'\], got \['other'\]"),
        ({"own": 1.0, "other": 1.0}, {"own": "max"}, r"row must give \['own'\], got \['other', 'own'\]"),
    ],
    ids=["nan", "inf", "minus inf", "nothing", "something else", "too much"],
)
def test_metrics_that_are_missing_or_not_finite_are_failures(values, metrics, text, space, supernet, images):
    candidate = Candidate(space.smallest(), supernet, images)
    with pytest.raises(ArithmeticError, match=text):
        score(candidate, {"row": Gives(values, metrics)})


def test_metrics_of_all_evaluators_are_merged_as_floats(space, supernet, images):
    candidate = Candidate(space.smallest(), supernet, images)
    metrics = score(candidate, {"a": Gives({"one": 1}), "b": Gives({"two": True, "three": 0.5})})
    assert metrics == {"one": 1.0, "two": 1.0, "three": 0.5}
    assert all(type(value) is float for value in metrics.values())
