"""Progress kept by other tools: TensorBoard and MLflow, each a reporter over one way to log numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

from evaluators import Sense
from nas.evaluation import Evaluation
from nas.progress import Pace, Tally, Volume
from spaces import InputError
from supernet.train import TrainProgress

EPOCH = 1000
"""Steps of an epoch: numbers of a training are logged at thousandths of epochs."""

EXPERIMENT = "spikefront"
"""Experiment of MLflow that runs belong to."""


class Sink(Protocol):
    """Where numbers are logged."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take finite numbers by name at a step."""
        ...

    def close(self, done: bool, /) -> None:
        """Take that nothing more comes, and whether all went well."""
        ...


class TensorBoardSink:
    """Writes event files for TensorBoard.

    Args:
        folder: Where to; created if need be.
        name: Of the run, a folder beneath it.
    """

    def __init__(self, folder: str, name: str) -> None:
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(log_dir=f"{folder}/{name}")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, global_step=step)

    def close(self, _done: bool, /) -> None:
        """Write what is left; files do not say how it ended."""
        self._writer.close()


class MLflowSink:
    """Logs metrics to a run of MLflow.

    Args:
        uri: Tracking server, or folder.
        name: Of the run.
    """

    def __init__(self, uri: str, name: str) -> None:
        mlflow = import_module("mlflow")
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        number = self._client.create_experiment(EXPERIMENT) if experiment is None else experiment.experiment_id
        self._run = self._client.create_run(number, run_name=name).info.run_id

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics, under names that MLflow takes."""
        for name, value in values.items():
            self._client.log_metric(self._run, re.sub(r"[^\w\-. /]", "_", name), value, step=step)

    def close(self, done: bool) -> None:
        """Say that the run is over."""
        self._client.set_terminated(self._run, "FINISHED" if done else "FAILED")


SINKS: dict[str, tuple[Callable[[str, str], Sink], str]] = {
    "mlflow": (MLflowSink, "a tracking server or a folder"),
    "tensorboard": (TensorBoardSink, "a folder"),
}
"""Tools by name, which is also that of their package and extra; each with what stands behind the colon."""


class Log:
    """Logs the numbers that it hears of; what a tool refuses is said once, and ends nothing but the logging.

    Names are ``training/loss``, ``training/accuracy`` and ``training/images_per_second`` at thousandths of epochs;
    and of each task (``search``, ``random``, ``test``) its metrics, ``best_`` with an objective behind it,
    ``hypervolume``, ``failed`` and ``seconds``, at the number of the result.

    Args:
        sink: Where they are logged.
        troubles: What the tool raises if it cannot.
        say: Tells that.
    """

    def __init__(self, sink: Sink, troubles: tuple[type[Exception], ...], say: Callable[[str], None]) -> None:
        self._sink: Sink | None = sink
        self._troubles, self._tell = troubles, say
        self._tally = Tally("", 0, {})
        self._pace = Pace()

    def say(self, line: str) -> None:
        """Log nothing."""

    def train(self, progress: TrainProgress) -> None:
        """Log where the training is, now and then, and at the end of each epoch."""
        if not self._pace.lets(progress):
            return
        names = ("loss", "accuracy", "images_per_second")
        self._log({f"training/{name}": getattr(progress, name) for name in names}, round(EPOCH * progress.epoch))

    def start(self, title: str, total: int, objectives: Mapping[str, Sense], volume: Volume | None = None) -> None:
        """Begin to count."""
        self._tally = Tally(title, total, objectives, volume)

    def evaluated(self, evaluation: Evaluation) -> None:
        """Log a result."""
        tally = self._tally
        tally.hear(evaluation)
        values = dict(evaluation.metrics) | {f"best_{name}": value for name, value in tally.best.items()}
        values |= {"failed": float(tally.failed), "seconds": evaluation.seconds}
        if tally.hypervolume is not None:
            values["hypervolume"] = tally.hypervolume
        self._log({f"{tally.title}/{name}": value for name, value in values.items()}, tally.done)

    def close(self, done: bool) -> None:
        """Log that nothing more comes."""
        self._try(lambda sink: sink.close(done))

    def _log(self, values: Mapping[str, float], step: int) -> None:
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._try(lambda sink: sink.log(finite, step))

    def _try(self, act: Callable[[Sink], None]) -> None:
        if self._sink is None:
            return
        try:
            act(self._sink)
        except self._troubles as error:
            self._tell(f"nothing more is logged: {type(error).__name__}: {error}")
            self._sink = None


def parse_log(text: str) -> tuple[str, str]:
    """Return tool and target of ``TOOL:TARGET``, and see that the tool is installed.

    Raises:
        InputError: If there is no such tool, no target, or if it is not installed.
    """
    tool, _, target = text.partition(":")
    if tool not in SINKS or not target:
        known = " or ".join(f"{name}:TARGET ({what})" for name, (_, what) in SINKS.items())
        raise InputError(f"--log must be {known}, got {text!r}")
    if find_spec(tool) is None:
        raise InputError(f"--log {text} needs {tool}, which is not installed; pip install 'spikefront[{tool}]'")
    return tool, target


@contextmanager
def logging_to(text: str, name: str, say: Callable[[str], None]) -> Iterator[Log]:
    """Open what an option ``--log TOOL:TARGET`` names, and close it with the block.

    Args:
        text: The option.
        name: Of the run.
        say: Tells what the tool refuses.

    Raises:
        InputError: If it names no tool, or one that is not installed or does not open.
    """
    tool, target = parse_log(text)
    troubles: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError)
    try:
        if tool == "mlflow":
            troubles = (*troubles, import_module("mlflow.exceptions").MlflowException)
        unopened: tuple[type[Exception], ...] = (*troubles, ImportError)
    except ImportError as error:
        raise InputError(f"--log {text} needs a whole {tool}, but: {error}; install it again") from None
    try:
        sink = SINKS[tool][0](target, name)
    except unopened as error:
        raise InputError(f"--log {text} must be open to be logged to, but: {error}") from None
    log, done = Log(sink, troubles, say), False
    try:
        yield log
        done = True
    finally:
        log.close(done)
