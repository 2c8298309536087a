"""Logging to TensorBoard and MLflow, through stand-ins for both where they are not installed."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
from fakes import OBJECTIVES, evaluation, half_failing
from test_cli_refusals import refused
from test_table_runs import write_run

import nas
from nas import logs
from nas.logs import logging_to
from spaces import InputError
from supernet.train import TrainProgress


class MlflowException(Exception):  # noqa: N818  # as MLflow calls it
    """What MLflow raises."""


class Client:
    """A stand-in for ``mlflow.MlflowClient`` that remembers."""

    made: ClassVar = []

    def __init__(self, tracking_uri):
        if tracking_uri == "http://nowhere":
            raise MlflowException("no server")
        self.uri, self.metrics, self.status, self.experiments, self.runs = tracking_uri, [], None, [], []
        self.broken = False
        Client.made.append(self)

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if self.uri == "http://known" else None

    def create_experiment(self, name):
        self.experiments.append(name)
        return "1"

    def create_run(self, experiment, run_name):
        self.runs.append((experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r"))

    def log_metric(self, run, name, value, step):
        if self.broken:
            raise MlflowException("gone")
        self.metrics.append((run, name, value, step))

    def set_terminated(self, run, status):
        self.status = status


class Writer:
    """A stand-in for ``torch.utils.tensorboard.SummaryWriter``."""

    made: ClassVar = []

    def __init__(self, log_dir):
        self.folder, self.scalars, self.closed = log_dir, {}, False
        Writer.made.append(self)

    def add_scalar(self, tag, value, global_step):
        self.scalars.setdefault(tag, []).append((global_step, value))

    def close(self):
        self.closed = True


@pytest.fixture
def tools(monkeypatch):
    """Both tools, as far as they are used."""
    mlflow, errors, board = ModuleType("mlflow"), ModuleType("mlflow.exceptions"), ModuleType("board")
    mlflow.MlflowClient, errors.MlflowException, board.SummaryWriter = Client, MlflowException, Writer
    for name, module in {"mlflow": mlflow, "mlflow.exceptions": errors, "torch.utils.tensorboard": board}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(logs, "find_spec", lambda name: object())
    monkeypatch.setattr(Client, "made", [])
    monkeypatch.setattr(Writer, "made", [])


def test_a_search_is_logged_to_both(tools, command, tmp_path):
    options = ["--quiet", "--log", f"tensorboard:{tmp_path / 'logs'}", "--log", "mlflow:http://here"]
    code, _, err = command("search", write_run(tmp_path), "--out", tmp_path / "run", *options)
    assert (code, err) == (0, "")
    (writer,), (client,) = Writer.made, Client.made
    run = nas.Run(tmp_path / "run")
    frame = run.evaluations()
    assert (writer.folder, writer.closed) == (f"{tmp_path / 'logs'}/known", True)
    sound = frame[frame["state"] == "complete"]
    assert writer.scalars["search/acc"] == [(row.number + 1, row.acc) for row in sound.itertuples()]
    assert [step for step, _ in writer.scalars["search/failed"]] == list(range(1, 25))
    assert writer.scalars["search/hypervolume"][-1] == (24, pytest.approx(run.hypervolume()))
    assert writer.scalars["search/best_acc"][-1] == (24, frame["acc"].max())
    assert {"random/hypervolume", "test/acc"} <= set(writer.scalars)
    assert (client.experiments, client.runs, client.status) == (["spikefront"], [("1", "known")], "FINISHED")
    logged = {name: value for _, name, value, _ in client.metrics}
    assert {tag: values[-1][1] for tag, values in writer.scalars.items()} == logged


def test_training_is_logged_at_thousandths_of_epochs(tools, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("nas.progress.time.monotonic", lambda: now[0])
    with logging_to("tensorboard:x", "run", print) as log:
        for step in range(1, 201):
            now[0] += 0.3
            log.train(TrainProgress(step / 100, 2, 1 / step, 0.5, float("nan")))
    (writer,) = Writer.made
    steps = [step for step, _ in writer.scalars["training/loss"]]
    assert {1000, 2000} <= set(steps)
    assert 50 <= len(steps) <= 60
    assert "training/images_per_second" not in writer.scalars, "what is not finite is not logged"


def test_names_are_such_as_mlflow_takes_and_a_known_experiment_is_used_again(tools, space):
    result = evaluation(space.largest())
    odd = type(result)(result.architecture, {"energy_mj:my model": 1.0}, 0.5)
    with logging_to("mlflow:http://known", "run", print) as log:
        log.start("search", 1, {})
        log.evaluated(odd)
    (client,) = Client.made
    assert client.runs == [("7", "run")]
    assert ("r", "search/energy_mj_my model", 1.0, 1) in client.metrics


def test_a_tool_that_fails_later_is_told_of_once_and_ends_nothing(tools, space):
    said = []
    with logging_to("mlflow:http://here", "run", said.append) as log:
        Client.made[0].broken = True
        log.start("search", 2, OBJECTIVES)
        for architecture in (space.largest(), space.smallest()):
            log.evaluated(half_failing(architecture))
    assert said == ["nothing more is logged: MlflowException: gone"]


def test_a_run_that_fails_is_logged_as_such(tools):
    with pytest.raises(InputError), logging_to("mlflow:http://here", "run", print):
        raise InputError("no")
    assert Client.made[0].status == "FAILED"


def test_a_server_that_is_not_there_is_refused(tools, command, tmp_path):
    err = refused(command("search", write_run(tmp_path), "--out", tmp_path / "run", "--log", "mlflow:http://nowhere"))
    assert "--log mlflow:http://nowhere must be open to be logged to, but: no server" in err


@pytest.mark.parametrize("tool", ["mlflow", "tensorboard"])
def test_a_tool_that_is_not_installed_says_how_to_get_it(tool, command, tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "find_spec", lambda name: None)
    err = refused(command("search", write_run(tmp_path), "--out", tmp_path / "run", "--log", f"{tool}:x"))
    assert f"needs {tool}, which is not installed; pip install 'spikefront[{tool}]'" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_real_event_files_hold_what_was_logged(tmp_path, space):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with logging_to(f"tensorboard:{tmp_path}", "run", print) as log:
        log.start("search", 1, OBJECTIVES)
        log.evaluated(evaluation(space.largest()))
    found = EventAccumulator(str(tmp_path / "run")).Reload()
    (scalar,) = found.Scalars("search/accuracy")
    assert scalar.value == pytest.approx(evaluation(space.largest()).metrics["accuracy"])
