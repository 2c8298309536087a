"""Progress of training and search: live bars on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evaluators import Sense
from nas.evaluation import Evaluation
from supernet.train import TrainProgress

PLAIN_STEP = 0.1
"""Share of a task between two plain lines."""


class Reporter(Protocol):
    """Hears how a run goes on."""

    def say(self, line: str) -> None:
        """Hear of a step that has no length."""
        ...

    def train(self, progress: TrainProgress) -> None:
        """Hear of a training step."""
        ...

    def start(self, title: str, total: int, objectives: Mapping[str, Sense]) -> None:
        """Hear that a number of evaluations begins."""
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

    def start(self, title: str, total: int, objectives: Mapping[str, Sense]) -> None:
        """Say nothing."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """Say nothing."""


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
        self._failed = 0
        self._objectives: Mapping[str, Sense] = {}
        self._best: dict[str, float] = {}

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
        if self._title != "training":
            self._begin("training", progress.epochs)
        note = (
            f"epoch {progress.epoch:.1f}/{progress.epochs}  loss {progress.loss:.3f}  "
            f"accuracy {progress.accuracy:.3f}  {progress.images_per_second:.0f} images/s"
        )
        self._update(progress.epoch, note)

    def start(self, title: str, total: int, objectives: Mapping[str, Sense]) -> None:
        """Begin a bar of evaluations."""
        self._begin(title, total)
        self._objectives, self._best, self._failed = objectives, {}, 0

    def evaluated(self, evaluation: Evaluation) -> None:
        """Show how many are done, the best of each objective, and failures."""
        self._failed += evaluation.failure is not None
        for name, sense in self._objectives.items():
            if name in evaluation.metrics:
                pick = max if sense == "max" else min
                value = evaluation.metrics[name]
                self._best[name] = pick(self._best.get(name, value), value)
        best = "  ".join(f"best {name} {value:.4g}" for name, value in self._best.items())
        failed = f"  {self._failed} failed" if self._failed else ""
        self._update(self._done + 1, f"{self._done + 1:.0f}/{self._total:.0f}  {best}{failed}")

    def _begin(self, title: str, total: float) -> None:
        self._title, self._total, self._done, self._said = title, total, 0.0, 0.0
        self._first = -1.0
        self._begun = time.monotonic()
        self._task = self._progress.add_task(title, total=total, note="")

    def _update(self, done: float, note: str) -> None:
        self._done = done
        if self._first < 0:
            self._first = done  # a resumed task does not begin at 0
        self._progress.update(self._task, completed=done, note=note)
        if not self._live and (done >= self._said + PLAIN_STEP * self._total or done >= self._total):
            self._said = done
            elapsed = time.monotonic() - self._begun
            rate = (done - self._first) / elapsed if elapsed else 0.0
            left = f", {(self._total - done) / rate:.0f} s left" if rate else ""
            self.say(f"{self._title}: {note}  {elapsed:.0f} s{left}")
