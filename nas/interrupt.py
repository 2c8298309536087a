"""Ctrl-C: what is being scored is waited for and kept, and nothing new is begun."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from nas.evaluation import Evaluation, SplitName
from nas.workers import NothingToComeError, Pool
from spaces import Genotype


class DrainedPool:
    """A pool that, once it is told to end, hands over what its workers are at, and raises KeyboardInterrupt then.

    Args:
        pool: Scores.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._ending = False

    def end(self) -> None:
        """Begin nothing new from now on."""
        self._ending = True
        self._pool.withdraw()

    @property
    def ending(self) -> bool:
        """Whether it is to end."""
        return self._ending

    def submit(self, architecture: Genotype, split: SplitName = "validation") -> None:
        """Hand in an architecture.

        Raises:
            KeyboardInterrupt: If it is to end.
        """
        if self._ending:
            raise KeyboardInterrupt
        self._pool.submit(architecture, split)

    def collect(self) -> Evaluation:
        """Wait for the next result.

        Raises:
            KeyboardInterrupt: If it is to end, and nothing is being scored any more.
        """
        if self._ending and self._pool.withdraw() == 0:
            raise KeyboardInterrupt
        try:
            return self._pool.collect()
        except NothingToComeError:
            raise KeyboardInterrupt from None

    @property
    def hungry(self) -> bool:
        """Whether a worker has nothing to do unless more is submitted."""
        return not self._ending and self._pool.hungry

    @property
    def idle_share(self) -> float | None:
        """Share of the workers' time in which they had nothing to do."""
        return self._pool.idle_share

    def withdraw(self) -> int:
        """Forget what no worker has begun, and return how many results are still to come."""
        return self._pool.withdraw()


@contextmanager
def drained(pool: Pool, say: Callable[[str], None]) -> Iterator[DrainedPool]:
    """Let the first Ctrl-C inside the block end a pool's work, and the second one stop at once.

    Outside the main thread, where Python hears no signals, Ctrl-C stays what it was.

    Args:
        pool: Scores.
        say: Tells what happens.
    """
    wrapped = DrainedPool(pool)
    if threading.current_thread() is not threading.main_thread():
        yield wrapped
        return

    def first(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        wrapped.end()
        say("stopping when what is being scored is done; Ctrl-C once more stops at once, and nothing is lost either")

    before = signal.signal(signal.SIGINT, first)
    try:
        yield wrapped
    finally:
        signal.signal(signal.SIGINT, before)
