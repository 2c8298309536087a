"""When a search ends: its evaluations or its time are spent, it finds nothing better, or nothing is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nas.evaluation import Evaluation
from nas.problem import ArchitectureProblem
from nas.results import GrowingHypervolume
from nas.sections import SearchConfig

Reason = Literal["evaluations", "seconds", "stall", "exhausted"]

STOPPED, SECONDS = "stopped", "seconds"
"""User attributes of the study ``search``: why it ended, None while it goes on, and the seconds of work in it."""

TOLERANCE = 1e-4
"""Share by which the hypervolume has to grow for a search to be no longer stalled."""

BEAT = 1.0
"""Seconds between two records of the time within a generation."""


@dataclass(frozen=True)
class Ending:
    """How a search ended.

    Attributes:
        evaluations: What it has spent.
        reason: Why it went no further.
    """

    evaluations: int
    reason: Reason


class Clock:
    """Wall time of a search, in seconds, over all the processes that worked on it.

    It runs from the first evaluation that a process has to score; replaying what is known takes no time. What a
    killed process did after its last result is lost.

    Args:
        before: Time of earlier processes.
        keep: Records the time.
        now: Seconds since any moment.
    """

    def __init__(
        self, before: float, keep: Callable[[float], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._before, self._keep, self._now = before, keep, now
        self._recorded = before
        self._began: float | None = None

    @property
    def seconds(self) -> float:
        """Time so far."""
        return self._before + (0.0 if self._began is None else self._now() - self._began)

    def start(self) -> None:
        """Run from now on, if it does not run yet."""
        if self._began is None:
            self._began = self._now()

    def beat(self) -> None:
        """Record the time now and then."""
        if self.seconds >= self._recorded + BEAT:
            self.record()

    def record(self) -> None:
        """Record the time, if it has run."""
        if self.seconds > self._recorded:
            self._recorded = self.seconds
            self._keep(self._recorded)


class Stall:
    """Counts evaluations since the hypervolume of the feasible ones last grew.

    It has grown where it is above its value when it last had, by more than ``TOLERANCE`` of that. Failed and
    infeasible evaluations count and add nothing.

    Args:
        problem: Objectives and constraints.
        reference: Worst value of each objective that counts.
    """

    def __init__(self, problem: ArchitectureProblem, reference: Mapping[str, float]) -> None:
        self._problem = problem
        self._volume = GrowingHypervolume(problem.objectives, reference)
        self._best = 0.0
        self.evaluations = 0

    def begin(self, results: Sequence[Evaluation]) -> None:
        """Take what was known before the first evaluation."""
        self.hear(results)
        self.evaluations = 0

    def hear(self, evaluations: Sequence[Evaluation]) -> None:
        """Take the next results, in the order of submission."""
        for result in evaluations:
            self.evaluations += 1
            if result.failure is None and self._problem.feasible(result.metrics):
                volume = self._volume.add(self._problem.point(result.metrics))
                if volume > self._best * (1 + TOLERANCE):
                    self._best, self.evaluations = volume, 0


@dataclass(frozen=True)
class Limits:
    """What ends a search before its evaluations are spent.

    Attributes:
        clock: Its time.
        stall: Its evaluations without progress.
        most_seconds: Bound of its time, or None.
        most_stalled: Bound of its evaluations without progress, or None.
    """

    clock: Clock
    stall: Stall
    most_seconds: float | None = None
    most_stalled: int | None = None

    def hear(self, evaluations: Sequence[Evaluation]) -> None:
        """Take the results of a generation, in the order of submission, and record the time."""
        self.stall.hear(evaluations)
        self.clock.record()

    def reached(self) -> Reason | None:
        """Return which limit is reached, or None."""
        if self.most_seconds is not None and self.clock.seconds >= self.most_seconds:
            return "seconds"
        if self.most_stalled is not None and self.stall.evaluations >= self.most_stalled:
            return "stall"
        return None


def why_stopped(reason: Reason, search: SearchConfig) -> str:
    """Return in words why the search of a recipe ended."""
    return {
        "evaluations": "all that search.evaluations allows",
        "seconds": f"{search.seconds or 0:g} seconds were over",
        "stall": f"no increase of the hypervolume in {search.stall} evaluations",
        "exhausted": "nothing new was left to propose",
    }[reason]
