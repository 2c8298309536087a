"""Two pools with the same methods, ``submit`` and ``collect`` above all: this process, and Ray actors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, takewhile
from typing import Protocol, Self

from nas.evaluation import Evaluation, Job, SplitName, this_process
from nas.sections import WorkersConfig
from spaces import Genotype

LOCAL_GROUP = 16
"""Most architectures that this process scores together: what an interruption can cost."""


class NothingToComeError(Exception):
    """All that was submitted was withdrawn, so that there is no result to wait for."""


class Pool(Protocol):
    """Workers that score architectures."""

    def submit(self, architecture: Genotype, split: SplitName = "validation") -> None:
        """Hand in an architecture to be scored on a split; returns at once."""
        ...

    def collect(self) -> Evaluation:
        """Wait for the next result, of whichever submitted architecture is ready first.

        Raises:
            NothingToComeError: If all was withdrawn meanwhile.
        """
        ...

    @property
    def hungry(self) -> bool:
        """Whether a worker has nothing to do unless more is submitted."""
        ...

    @property
    def idle_share(self) -> float | None:
        """Share of the workers' time so far in which they had nothing to do; None if that is not known."""
        ...

    def withdraw(self) -> int:
        """Forget what no worker has begun, and return how many results are still to come.

        A handler of signals can call it, also in the middle of another call.
        """
        ...


class OwnPool(Pool, Protocol):
    """Workers that are this pool's own, as a context manager that lets them go."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class LocalPool:
    """Scores in this process, in the order of submission; what waits is scored together.

    Args:
        job: Supernet, images and evaluators, or a table.
    """

    def __init__(self, job: Job) -> None:
        self.idle_share: float | None = None
        self._withdrawn = False
        self._scorer = job.open()
        self._queue: deque[tuple[Genotype, SplitName]] = deque()
        self._together: deque[Genotype] = deque()
        self._results: Iterator[Evaluation] = iter(())

    def submit(self, architecture: Genotype, split: SplitName = "validation") -> None:
        """Queue an architecture."""
        if self._withdrawn:
            self._forget()
        self._queue.append((architecture, split))

    @property
    def hungry(self) -> bool:
        """Whether nothing waits."""
        return self._withdrawn or (not self._queue and not self._together)

    def collect(self) -> Evaluation:
        """Return the result of the architecture that was submitted first."""
        if self._withdrawn:
            raise NothingToComeError
        if not self._together:
            split = self._queue[0][1]
            together = list(takewhile(lambda entry: entry[1] == split, islice(self._queue, LOCAL_GROUP)))
            for _ in together:
                self._queue.popleft()
            self._together.extend(architecture for architecture, _ in together)
            self._results = self._scorer.score_together(list(self._together), split)
        evaluation = next(self._results)
        self._together.popleft()
        return replace(evaluation, worker=this_process())

    def withdraw(self) -> int:
        """Forget all that waits."""
        self._withdrawn = True
        return 0

    def _forget(self) -> None:
        self._queue.clear()
        self._together.clear()
        self._withdrawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._forget()
        self._results = iter(())


def open_pool(workers: WorkersConfig, job: Job, say: Callable[[str], None] = lambda _: None) -> OwnPool:
    """Return the pool of a recipe: this process, or Ray actors.

    Args:
        workers: Who scores.
        job: Supernet, images and evaluators, or a table.
        say: Tells what the pool waits for.
    """
    if workers.pool == "local":
        return LocalPool(job)
    from nas.ray_pool import RayPool  # noqa: PLC0415  # loads Ray, a second that the local pool need not take

    return RayPool(
        job,
        None if workers.count == "auto" else workers.count,
        address=workers.address,
        timeout=workers.timeout,
        runtime_env=workers.runtime_env,
        say=say,
    )
