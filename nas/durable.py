"""Writing to a store that goes away and comes back: nothing is lost, and the search goes on meanwhile.

What cannot be written waits in memory, and in a file of the run folder in case this process dies. It is written in
its order when the store is back, by this process or by the next one.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Protocol, Self

from nas.backend import TROUBLES, Storage, unreachable
from nas.restoring import reconcile
from nas.storage import Store, Write
from spaces import InputError

PENDING = "pending.jsonl"
"""File of a run folder with what waits to be written, a line of JSON each."""

RESERVE = ".reserve"
"""File of a run folder that a run gives up when the disk is full, so that what waits finds room."""

_RESERVED = 1 << 20
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0


class Leads(Protocol):
    """That this process leads a run."""

    def check(self) -> None:
        """Raise InputError if another driver is known to have taken over."""
        ...

    def confirm(self) -> None:
        """Raise InputError if another driver has taken over, after a look at the store."""
        ...


class Alone:
    """That nobody else can lead a run, as its folder is held."""

    def check(self) -> None:
        """Never raise anything."""

    confirm = check


class Backlog:
    """What waits to be written to the studies of a run, as a context manager that keeps some room on the disk.

    Args:
        folder: Run folder.
        storage: Storage of the run.
        patience: Seconds that the store may be away for.
        say: Tells what happens.
        lead: Raises if this process must write no more.
        now: Seconds since any moment.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        folder: Path,
        storage: Storage,
        patience: float,
        say: Callable[[str], None],
        lead: Leads | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path, self._reserve = folder / PENDING, folder / RESERVE
        self._storage, self._patience, self._say = storage, patience, say
        self._lead, self._now, self._sleep = lead or Alone(), now, sleep
        self._queue: deque[tuple[Store, Write]] = deque()
        self._since, self._next, self._pause = 0.0, 0.0, _FIRST_PAUSE
        self._reason = ""

    def __len__(self) -> int:
        return len(self._queue)

    def __enter__(self) -> Self:
        try:
            self._reserve.write_bytes(os.urandom(_RESERVED))  # zeros would take no room on some file systems
        except OSError:  # as full as it can be: what waits will have to wait for room
            self._give_up_reserve()
        return self

    def __exit__(self, *exc: object) -> None:
        self._give_up_reserve()
        if self._queue:
            try:
                self._lead.confirm()
            except InputError:  # who leads now has scored what waits here anew
                self._forget()
                self._say(f"{len(self._queue)} writes are dropped, as another driver leads the run")
                return
        if self._queue and not self._write_all():
            self._say(f"{len(self._queue)} writes wait in {self._path}; the same command writes them and goes on")

    def restore(self, stores: Mapping[str, Store]) -> None:
        """Write what an earlier process could not, as far as it fits what others have written since.

        Args:
            stores: Studies by their names.

        Raises:
            InputError: If the store is away, or the file is damaged or cannot be removed.
        """
        try:
            lines = self._path.read_bytes().split(b"\n")[:-1]  # a last line without an end was never whole
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"{self._path} cannot be read: {error.strerror}") from None
        writes = [self._parse(number, line, stores) for number, line in enumerate(lines, start=1)]
        kept, dropped = reconcile(writes)
        with self._storage.sound():
            for store, write in kept:
                store.redo(write)
        if not self._forget():
            raise InputError(
                f"{self._path} must be removed, as all of it is written, but cannot be; remove it, and the same "
                "command goes on"
            )
        line = (
            f"wrote {len(lines) - dropped} results and notes of an earlier process, which could not reach its store"
        )
        if dropped:
            line += (
                f"; {dropped} are dropped, as another driver has led the run since, and are scored anew if need be"
            )
        if lines:
            self._say(line)

    def _forget(self) -> bool:
        """Take the file away, as what it holds is written or of no use; else empty it, and return whether it is."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            try:
                os.truncate(self._path, 0)
            except OSError:
                return False
        return True

    def _give_up_reserve(self) -> bool:
        """Return whether there was some room to give up."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def _parse(self, number: int, line: bytes, stores: Mapping[str, Store]) -> tuple[Store, Write]:
        """Return what a line of the file says."""
        try:
            values = json.loads(line)
            store = stores[values["study"]]
            return store, store.parse(values)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{self._path} must hold what a run could not write, but line {number} does not ({error!r}); move it "
                "away, and what it held is scored again"
            ) from None

    def put(self, store: Store, write: Write) -> None:
        """Write to a study now, or later if that is not possible now.

        Raises:
            InputError: If the store stays away for longer than there is patience, or is damaged.
        """
        self._lead.check()
        if not self._queue:
            try:
                store.apply(write)
            except TROUBLES as error:
                self._begin(self._judge(error))
            else:
                return
        self._queue.append((store, write))
        if self._keep(write) and self._now() >= self._next:
            self._try()

    def settle(self) -> None:
        """Wait until all is written.

        Raises:
            InputError: As of :meth:`put`.
        """
        while self._queue and not self._try():
            self._sleep(self._pause)

    def _begin(self, reason: str) -> None:
        self._since, self._pause, self._reason = self._now(), _FIRST_PAUSE, reason
        self._next = self._since + self._pause
        self._say(f"the store {self._storage.address} is away ({reason}); what is found is kept until it is back")

    def _judge(self, error: BaseException) -> str:
        """Return why a store is away; what is no such reason is raised."""
        reason = unreachable(error)
        if reason is None:
            with self._storage.sound():
                raise error
        return self._storage.address.without_secrets(reason)

    def _try(self) -> bool:
        """Write what waits and return True, or return False while there is patience."""
        if self._write_all():
            return True
        now = self._now()
        if now - self._since > self._patience:
            raise InputError(
                f"the store {self._storage.address} must be reachable, but has not been for {now - self._since:.0f} "
                f"seconds: {self._reason}; {len(self._queue)} writes wait in {self._path}, and the same command "
                "writes them and goes on when it is back"
            )
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._next = now + self._pause
        return False

    def _write_all(self) -> bool:
        """Write what waits, in its order, as far as that is possible, and return whether nothing waits any more."""
        self._lead.check()
        count = len(self._queue)
        try:
            for store in dict.fromkeys(store for store, _ in self._queue):
                store.look()
            self._lead.confirm()  # another one may have taken over while it was away
            while self._queue:
                store, write = self._queue[0]
                store.apply(write)
                self._queue.popleft()
        except TROUBLES as error:
            self._reason = self._judge(error)
            return False
        self._say(f"the store is back after {self._now() - self._since:.0f} seconds; wrote the {count} that waited")
        if not self._forget():
            self._say(f"{self._path} cannot be removed, though all of it is written; remove it after the run")
        return True

    def _keep(self, write: Write) -> bool:
        """Append to the file and return True; False if the store came back while there was no room for that."""
        line = json.dumps(write.to_dict()).encode() + b"\n"
        while True:
            try:
                self._append(line)
            except OSError as error:
                if self._give_up_reserve():
                    continue
                self._reason = error.strerror or str(error)
                if self._try():
                    return False
                self._sleep(self._pause)
            else:
                return True

    def _append(self, line: bytes) -> None:
        """Append a line whole and safe from a crash, or not at all.

        Raises:
            OSError: If that is not possible.
        """
        with self._path.open("a+b", buffering=0) as file:
            _cut(file)
            start = file.tell()
            try:
                if file.write(line) != len(line):
                    raise OSError("no space left on the device")
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):  # else it is cut before the next line
                    file.truncate(start)
                raise


def _cut(file: FileIO) -> None:
    """Cut a last line that has no end, as what was writing it died or had no room, and go to the end of the file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read() not in (b"", b"\n"):
        file.seek(0)
        size = file.readall().rfind(b"\n") + 1
        file.truncate(size)
    file.seek(size)
