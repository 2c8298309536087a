"""Batches in a fixed number of parts, so that a training is the same on any number of processes, bit for bit.

Each process computes the parts that fall to it, side by side in threads, and sums are taken over all parts in their
order. What a part computes does not depend on where it is computed, and no sum on who takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from threading import Barrier, BrokenBarrierError
from typing import TypeVar

import torch
from torch import Tensor

from spaces import InputError
from supernet.ranks import Ranks
from supernet.spikformer import Spikformer

T = TypeVar("T")


class Table:
    """Where the parts of this process meet, each in a thread of its own.

    Args:
        processes: The processes that train together, None for this one alone.
        parts: Parts of a batch over all processes, at least as many as there are processes.
    """

    def __init__(self, processes: Ranks | None, parts: int) -> None:
        rank, count = (0, 1) if processes is None else (processes.rank, processes.count)
        self._processes, self._parts = processes, parts
        self.local = range(parts * rank // count, parts * (rank + 1) // count)
        self._given: dict[int, Tensor] = {}
        self._total = torch.empty(0)
        self._met = Barrier(len(self.local))

    def add(self, part: int, tensor: Tensor) -> None:
        """Replace a tensor of a part by the sum over all parts in their order; all parts of the process call this.

        Raises:
            threading.BrokenBarrierError: If another part has left (:meth:`leave`).
        """
        self._given[part] = tensor
        self._met.wait()
        if part == self.local.start:
            self._total = self._sum()
        self._met.wait()
        tensor.copy_(self._total)

    def leave(self) -> None:
        """Let nobody wait any longer, as a part has failed."""
        self._met.abort()

    def _sum(self) -> Tensor:
        first = self._given[self.local.start]
        every = first.new_zeros((self._parts, *first.shape))
        for part in self.local:
            every[part] = self._given[part]
        if self._processes is not None:
            self._processes.add(every)  # nothing but zeros is added to a part, so no order can change it
        total = torch.zeros_like(first)
        for one in every:
            total += one
        return total


@dataclass(frozen=True)
class Seat(Ranks):
    """A part of every batch, whichever process has it.

    Attributes:
        rank: Number of the part, from 0.
        count: Number of parts.
        table: Where the parts of the process meet.
    """

    table: Table

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the parts, in their order."""
        self.table.add(self.rank, tensor)


@dataclass(frozen=True)
class Place:
    """Where a part of every batch is computed, or whole batches are.

    Attributes:
        ranks: The part among all of them, None for whole batches.
        model: Network, which has the weights of all places of a process and gradients of its own.
    """

    ranks: Ranks | None
    model: Spikformer


class Crew:
    """Computes what falls to this process of every batch.

    Args:
        model: Network that learns: the first place has it.
        processes: The processes that train together, None for this one alone.
        parts: Parts of a batch over all processes, at least as many as there are processes; 0 for one of each.
        threads: Threads that each of several places computes on.
    """

    def __init__(self, model: Spikformer, processes: Ranks | None, parts: int, threads: int) -> None:
        self._table = table = Table(processes, parts) if parts else None
        self._seats = [] if table is None else [Seat(part, parts, table) for part in table.local]
        self._places = [Place(self._seats[0] if self._seats else processes, model)]
        self._parts, self._threads = parts, threads
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Have a thread and a model for each place inside the block, if there are several.

        Raises:
            InputError: If the network is on a GPU and several parts fall to this process.
        """
        others = self._seats[1:]
        if not others:
            yield
            return
        model = self._places[0].model
        device = next(model.parameters()).device
        if device.type != "cpu":
            raise InputError(
                f"training.parts must be as many as there are processes on {device.type}, where parts of one process "
                f"would wait for each other; got {self._parts} parts: train with {self._parts} workers, with device "
                "'cpu', or with parts = 0"
            )
        self._places += [Place(seat, _twin(model)) for seat in others]
        with ThreadPoolExecutor(
            len(self._places), "spikefront-part", initializer=torch.set_num_threads, initargs=(self._threads,)
        ) as self._pool:
            yield

    def each(self, compute: Callable[[Place], T]) -> T:
        """Compute at every place, all at once, and return what the first one found."""
        if self._pool is None:
            return compute(self._places[0])
        assert self._table is not None
        with ExitStack() as unless_done:  # as on a Ctrl-C: nobody is to wait for a part that has not begun
            unless_done.callback(self._table.leave)
            futures = [self._pool.submit(self._compute, compute, place) for place in self._places]
            errors = [error for future in futures if (error := future.exception()) is not None]
            unless_done.pop_all()
        if errors:  # others only say that a part has left
            raise min(errors, key=lambda error: isinstance(error, BrokenBarrierError))
        return futures[0].result()

    def _compute(self, compute: Callable[[Place], T], place: Place) -> T:
        assert self._table is not None
        with ExitStack() as unless_done:
            unless_done.callback(self._table.leave)
            place.model.zero_grad()
            found = compute(place)
            unless_done.pop_all()
        return found


def _twin(model: Spikformer) -> Spikformer:
    """Return a copy of a network, to train: the same weights in memory, gradients and statistics of its own."""
    twin = deepcopy(model)
    for mine, others in zip(model.parameters(), twin.parameters(), strict=True):
        others.data = mine.data
        others.grad = None
    return twin.train()
