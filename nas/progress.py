"""Progress of training and search: live bars on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evaluators import Sense
from nas.evaluation import Evaluation
from nas.problem import ArchitectureProblem
from nas.results import GrowingHypervolume
from supernet.train import TrainProgress

PLAIN_STEP = 0.1
"""Share of a task between two plain lines."""

PAUSE = 1.0
"""Seconds between two steps of a training that are told at least, but for whole epochs."""

RECENT = 50
"""Results that a rate is of at most: those that a resumed search replays would make it a fast one."""

Volume = Callable[[Evaluation], float]
"""A result to the hypervolume of all so far; hearing of one twice changes nothing."""


def volume_of(problem: ArchitectureProblem, reference: Mapping[str, float]) -> Volume:
    """Return what gives the hypervolume of the feasible results so far.

    Args:
        problem: Objectives and constraints.
        reference: Worst value of each objective that counts.
    """
    growing = GrowingHypervolume(problem.objectives, reference)
    nothing = np.full(len(problem.objectives), np.nan)

    def volume(evaluation: Evaluation) -> float:
        sound = evaluation.failure is None and problem.feasible(evaluation.metrics)
        return growing.add(problem.point(evaluation.metrics) if sound else nothing)

    return volume


class Reporter(Protocol):
    """Hears how a run goes on."""

    def say(self, line: str) -> None:
        """Hear of a step that has no length."""
        ...

    def train(self, progress: TrainProgress) -> None:
        """Hear of a training step."""
        ...

    def start(self, title: str, total: int, objectives: Mapping[str, Sense], volume: Volume | None = None) -> None:
        """Hear that a number of evaluations begins, and what gives their hypervolume if it is of interest."""
        ...

    def evaluated(self, evaluation: Evaluation) -> None:
        """Hear of a result."""
        ...


class Silent:
    """Says nothing."""

    def say(self, line: str) -> None:
        """Say nothing."""

    def train(self, progress: TrainProgress) -> None:
        """Say nothing."""

    def start(self, title: str, total: int, objectives: Mapping[str, Sense], volume: Volume | None = None) -> None:
        """Say nothing."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """Say nothing."""


class Several:
    """Tells several reporters.

    Args:
        reporters: Who hears, in order.
    """

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = tuple(reporters)

    def say(self, line: str) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.say(line)

    def train(self, progress: TrainProgress) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.train(progress)

    def start(self, title: str, total: int, objectives: Mapping[str, Sense], volume: Volume | None = None) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.start(title, total, objectives, volume)

    def evaluated(self, evaluation: Evaluation) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.evaluated(evaluation)


class Pace:
    """Lets through what is worth telling of a training: about one step a second, and the end of each epoch."""

    def __init__(self) -> None:
        self._told = -math.inf

    def lets(self, progress: TrainProgress) -> bool:
        """Return whether a step is to be told."""
        now = time.monotonic()
        if now < self._told + PAUSE and not float(progress.epoch).is_integer():
            return False
        self._told = now
        return True


class Tally:
    """How far a number of evaluations is.

    Args:
        title: What they are for.
        total: How many there are to be.
        objectives: Objectives in order, each with its sense.
        volume: Gives their hypervolume, if that is of interest.

    Attributes:
        done: Results so far, failed ones included.
        failed: Those that failed.
        best: Best value so far of each objective.
        hypervolume: Of the feasible ones so far, or None.
    """

    def __init__(self, title: str, total: int, objectives: Mapping[str, Sense], volume: Volume | None = None) -> None:
        self.title, self.total, self._objectives, self._volume = title, total, objectives, volume
        self.done = self.failed = 0
        self.best: dict[str, float] = {}
        self.hypervolume: float | None = None
        self._times: deque[float] = deque([time.monotonic()], maxlen=RECENT + 1)

    def hear(self, evaluation: Evaluation) -> None:
        """Count a result."""
        self.done += 1
        self.failed += evaluation.failure is not None
        self._times.append(time.monotonic())
        for name, sense in self._objectives.items():
            if name in evaluation.metrics:
                pick = max if sense == "max" else min
                value = evaluation.metrics[name]
                self.best[name] = pick(self.best.get(name, value), value)
        if self._volume is not None:
            self.hypervolume = self._volume(evaluation)

    @property
    def rate(self) -> float | None:
        """Results per second over the last ones, or None."""
        elapsed = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / elapsed if elapsed > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all are done at that rate, or None."""
        return (self.total - self.done) / self.rate if self.rate else None


class Bars:
    """Shows a bar per task on standard error; used as a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = sys.stderr.isatty()
        self._progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._progress.add_task("", total=1.0, visible=False, note="")
        self._title = ""
        self._begun = self._total = self._done = self._said = self._first = 0.0
        self._tally = Tally("", 0, {})

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def train(self, progress: TrainProgress) -> None:
        """Show loss, accuracy and throughput."""
        if self._title != "training" or progress.epoch < self._done:  # another one, or one that begins again
            self._begin("training", progress.epochs)
            self._first = progress.epoch  # a resumed training does not begin at 0
        note = (
            f"epoch {progress.epoch:.1f}/{progress.epochs}  loss {progress.loss:.3f}  "
            f"accuracy {progress.accuracy:.3f}  {progress.images_per_second:.0f} images/s"
        )
        elapsed = time.monotonic() - self._begun
        rate = (progress.epoch - self._first) / elapsed if elapsed else 0.0
        self._update(progress.epoch, note, (progress.epochs - progress.epoch) / rate if rate else None)

    def start(self, title: str, total: int, objectives: Mapping[str, Sense], volume: Volume | None = None) -> None:
        """Begin a bar of evaluations."""
        self._begin(title, total)
        self._tally = Tally(title, total, objectives, volume)

    def evaluated(self, evaluation: Evaluation) -> None:
        """Show how many are done, the best of each objective, hypervolume, failures and rate."""
        tally = self._tally
        tally.hear(evaluation)
        parts = [f"{tally.done}/{tally.total}", *(f"best {name} {value:.4g}" for name, value in tally.best.items())]
        if tally.hypervolume is not None:
            parts.append(f"hypervolume {tally.hypervolume:.4f}")
        if tally.failed:
            parts.append(f"{tally.failed} failed")
        if tally.rate is not None:
            parts.append(f"{tally.rate:.3g}/s")
        self._update(tally.done, "  ".join(parts), tally.seconds_left)

    def _begin(self, title: str, total: float) -> None:
        self._title, self._total, self._done, self._said = title, total, 0.0, 0.0
        self._begun = time.monotonic()
        self._task = self._progress.add_task(title, total=total, note="")

    def _update(self, done: float, note: str, seconds_left: float | None) -> None:
        self._done = done
        self._progress.update(self._task, completed=done, note=note)
        if not self._live and (done >= self._said + PLAIN_STEP * self._total or done >= self._total):
            self._said = done
            left = "" if seconds_left is None else f", {seconds_left:.0f} s left"
            self.say(f"{self._title}: {note}  {time.monotonic() - self._begun:.0f} s{left}")
