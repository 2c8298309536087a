"""Events: lines of JSON with the documented names, and who else hears of a run."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from fakes import OBJECTIVES, evaluation, half_failing, lasting, write_recipe
from test_cli_refusals import refused
from test_table_runs import write_run

import nas
from nas.constraints import parse_constraints
from nas.events import EVENTS, Events, emit
from nas.problem import ArchitectureProblem
from nas.progress import Several, Silent, Tally, volume_of
from nas.reporting import reporting
from nas.results import hypervolume_growth
from spaces import InputError
from supernet.train import TrainProgress

PAGE = (Path(__file__).parents[2] / "docs" / "progress.md").read_text(encoding="utf-8")


def parsed(text):
    return [json.loads(line) for line in text.splitlines()]


def test_the_page_has_every_event_with_what_it_has():
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (?:`([^`]*)`)?", PAGE, flags=re.MULTILINE)
    assert {event: tuple(filter(None, names.split(", "))) for event, names in rows} == EVENTS


def test_a_search_is_told_by_events_and_the_last_one_is_the_result(command, tmp_path):
    code, out, _ = command("search", write_run(tmp_path), "--out", tmp_path / "run", "--json")
    assert code == 0
    events, run = parsed(out), nas.Run(tmp_path / "run")
    for event in events:
        assert {"event", "time", *EVENTS[event["event"]]} <= set(event)
    tasks = [event["task"] for event in events if event["event"] == "start"]
    assert tasks == ["search", "random", "test"]
    heard = [event for event in events if event["event"] == "evaluation" and event["task"] == "search"]
    frame = run.evaluations()
    assert [event["key"] for event in heard] == frame["key"].tolist()
    assert [event["done"] for event in heard] == list(range(1, 25))
    assert [event["failure"] for event in heard] == frame["failure"].tolist()
    assert heard[-1]["best"] == {"acc": frame["acc"].max(), "energy_mj": frame["energy_mj"].min()}
    assert heard[-1]["hypervolume"] == pytest.approx(run.hypervolume())
    result = events[-1]
    assert (result["event"], result["run"]) == ("result", str(run.folder))
    assert result["stopped"] == "evaluations"
    assert [row["key"] for row in result["front"]] == run.front()["key"].tolist()
    assert result["random_hypervolume"] == pytest.approx(run.hypervolume("random"))


def test_a_training_is_told_by_events(command, tmp_path):
    recipe = write_recipe(tmp_path, ("train_images = 1000", "train_images = 100"))
    code, out, _ = command("train", recipe, "--out", tmp_path / "run", "--json")
    assert code == 0
    *steps, result = parsed(out)
    assert {step["event"] for step in steps} == {"training"}
    assert {1.0, 2.0} <= {step["epoch"] for step in steps}
    assert (result["event"], result["epochs"]) == ("result", 2)
    assert result["loss"] == nas.Run(tmp_path / "run").training().history[-1].loss


def test_quiet_prints_the_result_and_nothing_else(command, tmp_path):
    code, out, err = command("search", write_run(tmp_path), "--out", tmp_path / "run", "--quiet", "-f", "json")
    assert (code, err) == (0, "")
    assert [row["key"] for row in json.loads(out)] == nas.Run(tmp_path / "run").front()["key"].tolist()


def test_who_hears_changes_nothing(command, tmp_path):
    recipe = write_run(tmp_path)
    for option in ("--json", "--quiet"):
        assert command("search", recipe, "--out", tmp_path / option, option)[0] == 0
    runs = [nas.Run(tmp_path / option) for option in ("--json", "--quiet")]
    assert lasting(runs[0].evaluations()).equals(lasting(runs[1].evaluations()))


def test_an_error_is_an_event_and_a_line_on_standard_error(command, tmp_path):
    recipe = write_run(tmp_path)
    assert command("search", recipe, "--out", tmp_path / "run", "--quiet")[0] == 0
    code, out, err = command("search", recipe, "--out", tmp_path / "run", "--json", "--seed", 4)
    (event,) = parsed(out)
    assert (code, event["event"]) == (2, "error")
    assert err == f"error: {event['text']}\n"


def test_options_that_exclude_each_other_are_refused(command, tmp_path):
    recipe = write_run(tmp_path)
    assert "--quiet or writes events" in refused(command("search", recipe, "--quiet", "--json"))
    assert "got --format csv" in refused(command("search", recipe, "--json", "-f", "csv"))


def test_ctrl_c_is_an_event(capsys):
    with pytest.raises(KeyboardInterrupt), reporting(False, True, None, "x"):
        raise KeyboardInterrupt
    assert [event["event"] for event in parsed(capsys.readouterr().out)] == ["stopped"]


def test_what_is_not_finite_is_null():
    file = io.StringIO()
    emit("message", {"text": [float("nan"), {"a": float("inf")}, 1.5]}, file)
    assert parsed(file.getvalue())[0]["text"] == [None, {"a": None}, 1.5]


def test_a_reader_that_goes_away_ends_nothing(space):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    events = Events(Closed())
    events.say("one")
    events.start("search", 2, OBJECTIVES)
    events.evaluated(evaluation(space.largest()))


def test_steps_of_a_training_come_about_once_a_second(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("nas.progress.time.monotonic", lambda: now[0])
    file = io.StringIO()
    events = Events(file)
    for step in range(1, 401):
        now[0] += 0.1
        events.train(TrainProgress(step / 100, 4, 1.0, 0.5, 99.0))
    said = parsed(file.getvalue())
    assert 40 <= len(said) <= 50
    assert {1.0, 2.0, 3.0, 4.0} <= {event["epoch"] for event in said}


# Who counts


def test_the_hypervolume_is_that_of_feasible_results_and_hearing_twice_changes_nothing(space):
    constraints = parse_constraints({"max_energy_mj": 2e-4}, ["accuracy", "energy_mj"])
    problem = ArchitectureProblem(space, OBJECTIVES, constraints)
    reference = {"accuracy": 0.0, "energy_mj": 1e-3}
    results = [half_failing(a) for a in list(space)[::9]]
    volume = volume_of(problem, reference)
    points = [
        problem.point(r.metrics) if not r.failure and problem.feasible(r.metrics) else [float("nan")] * 2
        for r in results
    ]
    found = [max(volume(result), volume(result)) for result in results]
    assert found == hypervolume_growth(np.array(points), OBJECTIVES, reference).tolist()
    assert found[-1] > 0


def test_the_rate_is_that_of_the_last_results(monkeypatch, space):
    now = [0.0]
    monkeypatch.setattr("nas.progress.time.monotonic", lambda: now[0])
    tally = Tally("search", 1000, OBJECTIVES)
    assert tally.rate is None
    assert tally.seconds_left is None
    for _ in range(500):  # replayed
        now[0] += 0.001
        tally.hear(evaluation(space.largest()))
    for _ in range(100):
        now[0] += 2.0
        tally.hear(evaluation(space.largest()))
    assert tally.rate == pytest.approx(0.5)
    assert tally.seconds_left == pytest.approx(800)


def test_several_hear_the_same(listener, space):
    class Other(type(listener)):
        pass

    other = Other()
    several = Several([listener, Silent(), other])
    several.start("search", 1, OBJECTIVES)
    several.evaluated(evaluation(space.largest()))
    several.say("hello")
    several.train(TrainProgress(1.0, 2, 1.0, 0.5, 99.0))
    assert listener.heard == other.heard == {"search": [evaluation(space.largest())]}
    assert listener.steps == other.steps == ["hello", "training"]


def test_a_log_that_is_none_is_refused_before_anything_is_done(command, tmp_path):
    recipe = write_run(tmp_path)
    err = refused(command("search", recipe, "--out", tmp_path / "run", "--log", "wandb:x"))
    assert "--log must be mlflow:TARGET" in err
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="got 'tensorboard:'"), reporting(True, False, ["tensorboard:"], "x"):
        pass
