"""Progress off a terminal: a few plain lines on standard error, and nothing on standard output."""

import re

from fakes import OBJECTIVES, evaluation, half_failing

from nas.problem import ArchitectureProblem
from nas.progress import Bars, volume_of
from supernet.train import TrainProgress


def lines(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_training_says_epoch_loss_accuracy_and_speed_in_a_few_lines(capsys):
    with Bars() as bars:
        for step in range(1, 201):
            bars.train(TrainProgress(step / 50, 4, 2.0 - step / 200, step / 400, 1234.0))
    said = lines(capsys)
    assert 5 <= len(said) <= 11
    assert said[-1].startswith("training: epoch 4.0/4  loss 1.000  accuracy 0.500  1234 images/s")
    assert said[-1].endswith("0 s left")


def test_a_search_says_how_many_the_best_of_each_objective_and_failures(capsys, space):
    results = [half_failing(architecture) for architecture in list(space)[:40]]
    with Bars() as bars:
        bars.start("search", 40, OBJECTIVES)
        for result in results:
            bars.evaluated(result)
    said = lines(capsys)
    assert len(said) == 10
    failed = sum(result.failure is not None for result in results)
    best = max(result.metrics["accuracy"] for result in results if result.metrics)
    assert said[-1].startswith(f"search: 40/40  best accuracy {best:.4g}  best energy_mj ")
    assert f"  {failed} failed  " in said[-1]


def test_a_search_says_hypervolume_rate_and_time_left(capsys, space, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("nas.progress.time.monotonic", lambda: now[0])
    problem = ArchitectureProblem(space, OBJECTIVES)
    with Bars() as bars:
        bars.start("search", 20, OBJECTIVES, volume_of(problem, {"accuracy": 0.0, "energy_mj": 1e-3}))
        for architecture in list(space)[:10]:
            now[0] += 2.0
            bars.evaluated(evaluation(architecture))
    said = lines(capsys)
    assert len(said) == 5
    volumes = [float(re.search(r"  hypervolume (\d\.\d{4})  0\.5/s  ", line)[1]) for line in said]
    assert 0 < volumes[0] <= volumes[-1]
    assert said[-1].endswith("  20 s, 20 s left")


def test_a_second_task_starts_from_nothing(capsys, space):
    with Bars() as bars:
        bars.start("search", 1, OBJECTIVES)
        bars.evaluated(evaluation(space.largest()))
        bars.start("random", 1, OBJECTIVES)
        bars.evaluated(evaluation(space.smallest()))
    first, second = lines(capsys)
    cheapest = evaluation(space.smallest()).metrics
    assert first.startswith("search: 1/1")
    assert second.startswith(f"random: 1/1  best accuracy {cheapest['accuracy']:.4g}")


def test_a_task_of_nothing_says_nothing(capsys):
    with Bars() as bars:
        bars.start("test", 0, OBJECTIVES)
    assert lines(capsys) == []
