"""What a worker returns, and what it is made from: the job, for supernets and tables alike."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from spaces import Genotype

SplitName = Literal["validation", "test"]


@dataclass(frozen=True)
class Evaluation:
    """Result of scoring one architecture.

    Attributes:
        architecture: What was scored.
        metrics: Values by metric name, empty if the scoring failed.
        seconds: Wall time of the scoring.
        failure: Why there are no metrics, or None.
        worker: Which process scored it, ``host:process``; None if nothing was scored, or if that is not known.
    """

    architecture: Genotype
    metrics: Mapping[str, float]
    seconds: float
    failure: str | None = None
    worker: str | None = field(default=None, compare=False)


def attempt(architecture: Genotype, compute: Callable[[], Mapping[str, float]]) -> Evaluation:
    """Return the evaluation of an architecture; whatever goes wrong in ``compute`` makes it a failed one."""
    began = time.perf_counter()
    try:
        metrics, failure = compute(), None
    except (Exception, SystemExit) as error:  # the worker boundary: a failure is data
        metrics, failure = {}, f"{type(error).__name__}: {error}"
    return Evaluation(architecture, metrics, time.perf_counter() - began, failure)


def this_process() -> str:
    """Return the name of this process among those that score: ``host:process``."""
    return f"{platform.node()}:{os.getpid()}"


class Scores(Protocol):
    """Scores architectures; nothing survives a call."""

    def score_together(self, architectures: Sequence[Any], split: SplitName = "validation") -> Iterator[Evaluation]:
        """Yield the evaluations of architectures in order; whatever goes wrong becomes a failed one."""
        ...


class Job(Protocol):
    """All that a worker needs, as plain arrays and values that can be sent to it."""

    @property
    def threads(self) -> int:
        """Threads per worker."""
        ...

    @property
    def device(self) -> str:
        """Where to compute, as torch names it."""
        ...

    def open(self) -> Scores:
        """Return what scores, in the worker."""
        ...

    def in_turns(self, architectures: Sequence[Any]) -> Sequence[Genotype]:
        """Return architectures such that those that are cheaper to score together follow each other."""
        ...
