"""Progress as events: a line of JSON each, for programs that start a run and want to know how it goes on."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from evaluators import Sense
from nas.evaluation import Evaluation
from nas.progress import Pace, Tally, Volume
from supernet.train import TrainProgress

if TYPE_CHECKING:
    from nas.run import Run

EVENTS: dict[str, tuple[str, ...]] = {
    "message": ("text",),
    "training": ("epoch", "epochs", "loss", "accuracy", "images_per_second"),
    "start": ("task", "total", "objectives"),
    "evaluation": (
        *("task", "done", "total", "key", "metrics", "seconds", "worker", "failure"),
        *("best", "hypervolume", "failed", "rate", "seconds_left"),
    ),
    "result": ("run",),
    "error": ("text",),
    "stopped": (),
}
"""Events, each with what it always has beside ``event`` and ``time``; a result has more."""


def emit(event: str, values: Mapping[str, Any], file: TextIO | None = None) -> None:
    """Write an event as a line of JSON; numbers that are not finite become null.

    Args:
        event: A row of ``EVENTS``.
        values: What it has beside its name and its time.
        file: Where to; standard output without one.

    Raises:
        OSError: If nobody reads it any more.
    """
    stream = file or sys.stdout
    stream.write(json.dumps(_plain({"event": event, "time": time.time(), **values})) + "\n")
    stream.flush()


def emit_result(run: Run) -> None:
    """Write that a search has ended, and what it has found: why it ended, hypervolumes, and the front in rows."""
    baseline = run.hypervolume("random") if run.config.search.baseline else None
    values: dict[str, Any] = {
        "run": str(run.folder),
        "stopped": run.stopped,
        "why": run.why_stopped() or run.why_empty(),
    }
    values |= {"hypervolume": run.hypervolume(), "random_hypervolume": baseline}
    emit("result", {**values, "front": run.front().to_dict(orient="records")})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Events:
    """Writes what it hears as events; a reader that goes away does not end the run.

    Args:
        file: Where to; what is standard output now without one.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file: TextIO | None = file or sys.stdout
        self._tally = Tally("", 0, {})
        self._pace = Pace()

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        """Write an event."""
        if self._file is None:
            return
        try:
            emit(event, values, self._file)
        except OSError:
            self._file = None

    def say(self, line: str) -> None:
        """Write a message."""
        self.write("message", {"text": line})

    def train(self, progress: TrainProgress) -> None:
        """Write where the training is, now and then, and at the end of each epoch."""
        if self._pace.lets(progress):
            self.write("training", {name: getattr(progress, name) for name in EVENTS["training"]})

    def start(self, title: str, total: int, objectives: Mapping[str, Sense], volume: Volume | None = None) -> None:
        """Write that a number of evaluations begins."""
        self._tally = Tally(title, total, objectives, volume)
        self.write("start", {"task": title, "total": total, "objectives": dict(objectives)})

    def evaluated(self, evaluation: Evaluation) -> None:
        """Write a result, and how far the task is."""
        tally = self._tally
        tally.hear(evaluation)
        result: dict[str, Any] = {"key": evaluation.architecture.key, "metrics": dict(evaluation.metrics)}
        result |= {"seconds": evaluation.seconds, "worker": evaluation.worker, "failure": evaluation.failure}
        names = ("done", "total", "best", "hypervolume", "failed", "rate", "seconds_left")
        self.write("evaluation", {"task": tally.title, **result, **{name: getattr(tally, name) for name in names}})
