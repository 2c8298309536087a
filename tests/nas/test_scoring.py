"""What a worker does: the same score for the same architecture, on the split asked, and failures as data."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluators import score
from nas.config import load_recipe
from nas.scoring import Scorer, build_job, load_run_data, objective_senses
from spaces import Architecture, InputError, Layer
from supernet.data import Split


@pytest.fixture(scope="module")
def job(finished):
    return build_job(finished.config, finished.data, finished.supernet())


@pytest.fixture(scope="module")
def architecture(finished):
    return finished.architecture(finished.front().iloc[0]["key"])


def scores(job, architecture, split="validation"):
    result = Scorer(job).score(architecture, split)
    assert result.failure is None
    assert result.seconds > 0
    return dict(result.metrics)


def garbled(split):
    return Split(255 - split.images, (split.labels + 1) % 10)


def test_a_worker_scores_what_the_table_holds(finished, job):
    frame = finished.evaluations()
    scorer = Scorer(job)
    for row in frame.iloc[::5].itertuples():
        metrics = scorer.score(finished.architecture(row.key)).metrics
        assert metrics == {metric: getattr(row, metric) for metric in finished.metrics}


def test_test_images_play_no_part_in_the_validation_score(job, architecture):
    altered = replace(job, splits={**job.splits, "test": garbled(job.splits["test"])})
    assert scores(altered, architecture) == scores(job, architecture)
    assert scores(altered, architecture, "test") != scores(job, architecture, "test")


def test_validation_images_play_no_part_in_the_test_score(job, architecture):
    altered = replace(job, splits={**job.splits, "validation": garbled(job.splits["validation"])})
    assert scores(altered, architecture, "test") == scores(job, architecture, "test")
    assert scores(altered, architecture) != scores(job, architecture)


def test_the_three_splits_share_no_image(finished, job):
    splits = (finished.data.train, job.splits["validation"], job.splits["test"])
    assert [len(split) for split in splits] == [1000, 60, 360]
    images = [{image.tobytes() for image in split.images} for split in splits]
    assert not images[0] & images[1]
    assert not images[0] & images[2]
    assert not images[1] & images[2]


def test_calibration_takes_training_images_as_many_as_the_recipe_says(finished, job):
    assert len(job.calibration) == 32
    training = {image.tobytes() for image in finished.data.train.images}
    assert {image.tobytes() for image in job.calibration.images} <= training


def test_scoring_leaves_the_job_and_the_number_of_threads_alone(job, architecture):
    weights = {name: array.copy() for name, array in job.weights.items()}
    for array in job.weights.values():
        array.flags.writeable = False  # as Ray hands them out
    threads = torch.get_num_threads()
    scores(replace(job, threads=2), architecture)
    assert torch.get_num_threads() == threads
    assert all(np.array_equal(weights[name], array) for name, array in job.weights.items())


def test_order_of_scoring_does_not_matter(job, space):
    architectures = list(space)[::60]
    scorer = Scorer(job)
    forwards = [scorer.score(a).metrics for a in architectures]
    backwards = [scorer.score(a).metrics for a in reversed(architectures)]
    assert forwards == backwards[::-1]


RAISING = """
class Raises:
    metrics = {"own": "min"}
    def __call__(self, candidate):
        raise LookupError("no such thing")

class Exits:
    metrics = {"own": "min"}
    def __call__(self, candidate):
        raise SystemExit("gave up")

class Gives:
    metrics = {"own": "min"}
    def __init__(self, value: str = "nan"):
        self.value = value
    def __call__(self, candidate):
        return {"other": 1.0} if self.value == "other" else {"own": float(self.value)}
"""


@pytest.mark.parametrize(
    ("evaluator", "options", "reason"),
    [
        ("Raises", {}, "LookupError: no such thing"),
        ("Exits", {}, "SystemExit: gave up"),
        ("Gives", {"value": "nan"}, "ArithmeticError: own must be finite, got nan"),
        ("Gives", {"value": "inf"}, "ArithmeticError: own must be finite, got inf"),
        ("Gives", {"value": "other"}, "ArithmeticError: raising:Gives must give ['own'], got ['other']"),
    ],
)
def test_whatever_goes_wrong_is_a_failure_with_its_reason_and_no_metrics(
    evaluator, options, reason, job, architecture, own_module
):
    own_module("raising", RAISING)
    name = f"raising:{evaluator}"
    result = Scorer(replace(job, metrics=("accuracy", name), options={name: options})).score(architecture)
    assert (result.architecture, result.metrics, result.failure) == (architecture, {}, reason)
    assert result.seconds > 0


def test_an_architecture_too_large_for_the_supernet_is_a_failure(job):
    result = Scorer(job).score(Architecture(32, 1, (Layer(1.0, 1, 1.0, 2.0),)))
    assert result.failure.startswith("InputError: an architecture must fit into the network that runs it")


def test_training_images_are_as_many_as_the_recipe_says():
    config = load_recipe("digits")
    assert len(load_run_data(config.changed(data={"train_images": 50}), None).train) == 50
    assert len(load_run_data(config, None).train) > 1000


@pytest.mark.parametrize(
    ("objectives", "text"),
    [
        (["accuracy", "latency"], r"search.objectives must be among the metrics \['accuracy', .*\], got 'latency'"),
        (["accuracy", "accuracy"], r"search.objectives must differ, got \['accuracy', 'accuracy'\]"),
    ],
)
def test_objectives_must_be_different_metrics(objectives, text):
    config = load_recipe("digits").changed(search={"objectives": objectives})
    with pytest.raises(InputError, match=text):
        objective_senses(config)


def test_objectives_keep_the_order_of_the_recipe():
    config = load_recipe("digits").changed(search={"objectives": ["spikes", "accuracy", "macs"]})
    assert list(objective_senses(config).items()) == [("spikes", "min"), ("accuracy", "max"), ("macs", "min")]


@pytest.mark.parametrize("executor", ["auto", "reference"])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("CPUAllocator: can't allocate memory")]
)
def test_what_runs_out_of_memory_is_tried_again_with_half_the_batch(error, executor, job, architecture, monkeypatch):
    sizes = []
    job = replace(job, executor=executor, batch_size=32)

    def greedy(candidate, evaluators):
        sizes.append(candidate._images.batch_size)
        if len(sizes) <= failing:
            raise error
        return score(candidate, evaluators)

    monkeypatch.setattr("nas.scoring.score", greedy)
    for failing, expected in ((0, [32]), (1, [32, 16]), (2, [32, 16])):
        sizes.clear()
        result = Scorer(job).score(architecture)
        assert sizes == expected
        assert (result.failure is not None) == (failing == 2)
    sizes.clear()
    error, failing = LookupError("no such thing"), 1
    assert Scorer(job).score(architecture).failure == "LookupError: no such thing"
    assert sizes == [32]
