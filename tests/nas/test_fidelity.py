"""Fidelity: the figures against ones by hand, and trainings that are kept, go on, and do not depend on workers."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import nas
from nas import inheritance, standalone
from nas.fidelity_file import FIDELITY, read_fidelity
from nas.fidelity_page import PAGE
from nas.inheritance import TRAINED, Task, spread, train_task
from nas.orders import Fidelity, Point, order_of
from nas.rescoring import evaluate
from spaces import InputError
from supernet.pretrained import WEIGHTS


def tau_by_hand(a, b):
    """Kendall's tau-b, pair by pair."""
    pairs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i in range(len(a)) for j in range(i)]
    score = sum(x * y for x, y in pairs)
    return score / math.sqrt(sum(x != 0 for x, _ in pairs) * sum(y != 0 for _, y in pairs))


def points(inherited, *standalone):
    return tuple(
        Point(f"{index:02d}", "space", value, tuple(column[index] for column in standalone), {"layers": []})
        for index, value in enumerate(inherited)
    )


@pytest.fixture(scope="module")
def measured(finished, tmp_path_factory):
    """A copy of the tiny run with its fidelity, of which tests only read."""
    folder = Path(shutil.copytree(finished.folder, tmp_path_factory.mktemp("fidelity") / "run"))
    return folder, nas.fidelity(folder, 6, epochs=1)


@pytest.mark.parametrize("seed", range(5))
def test_orders_are_those_by_hand(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(5, size=(2, 12)) / 4.0
    found = order_of(a, b)
    assert found.subnets == 12
    assert found.kendall_tau == pytest.approx(tau_by_hand(a, b))
    ranks = [[np.mean(np.flatnonzero(np.sort(x) == value)) for value in x] for x in (a, b)]
    assert found.spearman == pytest.approx(np.corrcoef(ranks)[0, 1])


def test_what_has_one_value_has_no_order():
    assert order_of(np.ones(3), np.arange(3.0)) == order_of(np.arange(3.0), np.ones(3))
    assert order_of(np.ones(3), np.arange(3.0)).kendall_tau is None


def test_the_best_third_is_best_when_trained_by_itself():
    found = Fidelity(points([0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.1, 0.2, 0.3, 0.4, 0.9, 0.8, 0.7]), {})
    assert found.best_third.subnets == 3
    assert found.best_third.kendall_tau == -1  # 0.4, 0.5, 0.6 against 0.9, 0.8, 0.7


def test_the_noise_ceiling_is_what_seeds_agree_in():
    inherited, first, second = [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.4, 0.3]
    repeated = Fidelity(points(inherited, first, second), {}).ceiling
    assert (repeated.subnets, repeated.seeds) == (4, 2)
    assert repeated.kendall_tau == pytest.approx(4 / 6)
    assert repeated.inherited_kendall_tau == pytest.approx((1 + 4 / 6) / 2)
    some = points(inherited, first)[:2] + points(inherited, first, second)[2:]
    assert Fidelity(some, {}).ceiling.kendall_tau == -1
    assert Fidelity(points(inherited, first), {}).ceiling is None


def test_the_mean_of_the_seeds_is_what_is_ordered():
    found = Fidelity(points([0.1, 0.2, 0.3], [0.5, 0.1, 0.6], [0.1, 0.7, 0.8]), {})
    assert [point.standalone for point in found.points] == pytest.approx([0.3, 0.4, 0.7])
    assert found.order.kendall_tau == pytest.approx(1)
    low, high = found.interval
    assert low <= 1 <= high + 1e-9


def test_subnets_are_spread_over_the_front_and_the_space(finished):
    chosen = spread(finished, 12)
    keys, front = [each.key for each, _ in chosen], finished.front()["key"].tolist()
    assert len(set(keys)) == 12
    taken = [each.key for each, source in chosen if source == "front"]
    assert taken == [key for key in front if key in taken]  # in its order
    assert len(taken) == min(6, len(front))
    assert {front[0], front[-1]} <= set(taken)
    depths = {each.depth for each, source in chosen if source == "space"}
    assert len(depths) == 2
    assert [each.key for each, _ in spread(finished, 12)] == keys


def test_a_run_that_is_only_trained_has_subnets_of_its_space(trained):
    assert {source for _, source in spread(nas.Run(trained), 6)} == {"space"}


def test_the_run_keeps_numbers_picture_and_networks(measured):
    folder, found = measured
    values = json.loads((folder / FIDELITY).read_text())
    assert values == json.loads(json.dumps(found.to_dict()))
    assert {"kendall_tau", "spearman", "best_third", "noise_ceiling", "points", "settings"} <= set(values)
    assert values["settings"]["epochs"] == 1
    assert values["repeated"]["subnets"] == 2  # a third of 6
    assert values["noise_ceiling"] == values["repeated"]["kendall_tau"]
    assert sum(len(point["standalone_by_seed"]) for point in values["points"]) == 8
    assert "inherited weights" in (folder / PAGE).read_text()
    trained = sorted((folder / TRAINED / "1-epochs").iterdir())
    assert len(trained) == 8  # and no checkpoints
    point = found.points[0]
    score = evaluate(folder / TRAINED / "1-epochs" / f"{point.key}-0", split="validation")
    assert (score.correct, score.images) != (0, 0)
    assert score.same_images


def test_inherited_accuracy_is_that_of_the_search(measured, finished):
    frame = finished.evaluations().set_index("key")["accuracy"]
    front = [point for point in measured[1].points if point.source == "front"]
    assert front
    assert [point.inherited for point in front] == [frame[point.key] for point in front]


def test_what_is_trained_is_not_trained_again(measured, monkeypatch):
    folder, found = measured
    monkeypatch.setattr(inheritance, "train_task", None)
    assert nas.fidelity(folder, 6, epochs=1) == found


def test_an_interrupted_measurement_goes_on_and_ends_alike(measured, copied, monkeypatch):
    train_alone, trained = standalone.train_alone, []

    def stop(network, plan, seed, checkpoint, report=None, distillation=None):
        trained.append(checkpoint.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train_alone(network, plan, seed, checkpoint, report, distillation)

    monkeypatch.setattr(standalone, "train_alone", stop)
    with pytest.raises(KeyboardInterrupt):
        nas.fidelity(copied, 6, epochs=1)
    assert not (copied / FIDELITY).exists()
    assert len(list((copied / TRAINED).glob("*/*"))) == 1
    assert nas.fidelity(copied, 6, epochs=1) == measured[1]
    assert len(trained) == 9


def test_a_network_is_trained_in_whole_batches_whatever_the_parts_of_the_supernet_were(copied, finished, monkeypatch):
    values = json.loads((copied / "run.json").read_text())
    values["recipe"]["training"]["parts"] = 2
    (copied / "run.json").write_text(json.dumps(values))
    run, seen = nas.Run(copied), []

    def look(network, plan, *_):
        seen.append(plan.settings.parts)
        raise KeyboardInterrupt

    monkeypatch.setattr(inheritance, "make_alone", look)
    for epochs in (1, run.config.training.epochs):
        with pytest.raises(KeyboardInterrupt):
            train_task(Task(copied, finished.space.smallest(), 1, epochs), run)
    assert (run.config.training.parts, seen) == (2, [0, 0])
    assert inheritance._settings(run, 6, None, 1, 1, 1).parts == 0


def test_an_interrupted_training_goes_on_from_its_checkpoint(finished, copied, tmp_path, monkeypatch):
    """With the weights in the end of one that nothing happened to."""
    smallest = finished.space.smallest()
    whole = Task(Path(shutil.copytree(copied, tmp_path / "whole")), smallest, 1, 2)
    accuracy, train_alone, steps = train_task(whole), standalone.train_alone, []

    def watch(network, plan, seed, checkpoint, report=None, distillation=None):
        def hear(progress):
            steps.append(progress.epoch)
            if len(steps) == 70:  # of 63 in an epoch
                raise KeyboardInterrupt

        return train_alone(network, plan, seed, checkpoint, hear, distillation)

    monkeypatch.setattr(standalone, "train_alone", watch)
    task = Task(copied, smallest, 1, 2)
    with pytest.raises(KeyboardInterrupt):
        train_task(task)
    assert not task.out.exists()
    assert train_task(task) == accuracy
    assert steps[70] > 1
    assert (task.out / WEIGHTS).read_bytes() == (whole.out / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_processes_find_what_one_finds(measured, copied):
    assert nas.fidelity(copied, 6, epochs=1, workers=2) == measured[1]


def test_the_recipe_is_shortened_as_a_whole(measured):
    training = measured[1].settings["training"]
    assert (training["epochs"], training["warmup_epochs"]) == (1, 0.1)  # of 2 and 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subnets": 5}, "subnets must be from 6 to the 288 architectures of tiny, got 5"),
        ({"subnets": 289}, "subnets must be from 6 to the 288"),
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        ({"seeds": 0}, "seeds must be 1 or more, got 0"),
        ({"workers": 0}, "workers must be 1 or more, got 0"),
        ({"repeated": 25}, "repeated must be from 0 to the 24 subnets, got 25"),
    ],
)
def test_numbers_out_of_range_are_refused(finished, snapshot, options, message):
    before = snapshot(finished.folder)
    with pytest.raises(InputError, match=message):
        nas.fidelity(finished.folder, **options)
    assert snapshot(finished.folder) == before


def test_a_damaged_result_is_refused_in_a_line(measured, tmp_path, command):
    folder = Path(shutil.copytree(measured[0], tmp_path / "damaged"))
    config = next((folder / TRAINED).glob("*/*/config.json"))
    values = json.loads(config.read_text())
    values["scores"] = {}
    config.write_text(json.dumps(values))
    code, out, err = command("fidelity", folder, "--subnets", 6, "--epochs", 1)
    assert (code, out) == (2, "")
    assert "must have a validation accuracy" in err.splitlines()[-1]
    assert "move" in err.splitlines()[-1]


def test_the_command_prints_numbers_and_says_where_the_picture_is(measured, command):
    folder, found = measured
    code, out, _ = command("fidelity", folder, "--subnets", 6, "--epochs", 1)
    assert code == 0
    assert f"picture: {folder / PAGE}" in out
    assert "noise ceiling" in out
    code, out, _ = command("fidelity", folder, "--subnets", 6, "--epochs", 1, "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == ["start", *["evaluation"] * 8, "result"]
    assert events[-1]["points"] == json.loads(json.dumps(found.to_dict()))["points"]


def test_what_was_measured_is_read_back(measured):
    folder, found = measured
    read = read_fidelity(folder)
    assert (read.points, read.ceiling, read.interval) == (found.points, found.ceiling, found.interval)
    assert json.dumps(read.to_dict()) == json.dumps(found.to_dict())
