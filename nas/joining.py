"""Drivers that join a run share its work: who leads hands architectures to them through the run folder.

``joined/leader.json`` names who leads; a driver that joins has a folder ``joined/<leader>-<own name>`` with
``hello.json``, written anew as its sign of life. Who leads puts ``todo-<n>.json`` there; whoever joined renames it to
``doing-<n>.json`` and answers with ``done-<n>.json``. All files are JSON, written whole or not at all.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.drivers import EXPIRY, Driver
from nas.evaluation import Evaluation, SplitName
from nas.workers import NothingToComeError, Pool
from spaces import Genotype, InputError, Space
from supernet.files import write_atomically

JOINED = "joined"
"""Folder of a run folder that those who share its work meet in."""

LEADER, HELLO = "leader.json", "hello.json"
MAX_DEATHS = 2
"""An architecture at which this many drivers that had joined died has failed."""

TICK, LISTEN = 0.02, 1.0
"""Seconds between two looks for answers, and for signs of life."""


def read_message(path: Path) -> Any:
    """Return what a file says, or None if it is not there or not whole."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def write_message(path: Path, values: Any) -> None:
    """Write a file, whole or not at all."""
    write_atomically(path, json.dumps(values).encode())


@dataclass
class _Guest:
    """A driver that has joined, with what it has been handed by number, in order."""

    path: Path
    driver: Driver
    room: int
    heard: float
    tasks: dict[int, tuple[Genotype, SplitName]] = field(default_factory=dict)


class SharedPool:
    """A pool that others may join; without them it is the pool that it is made of.

    Args:
        pool: Scores here.
        folder: Run folder.
        space: Of the architectures.
        say: Tells who comes and goes.
        expiry: Seconds without a sign of life after which a driver that joined counts as dead.
    """

    def __init__(
        self, pool: Pool, folder: Path, space: Space, say: Callable[[str], None], expiry: float = EXPIRY
    ) -> None:
        self._pool, self._folder, self._space, self._say, self._expiry = pool, folder / JOINED, space, say, expiry
        self.token = secrets.token_hex(6)
        self._queue: deque[tuple[Genotype, SplitName]] = deque()
        self._own = self._number = 0
        self._guests: dict[Path, _Guest] = {}
        self._results: deque[Evaluation] = deque()
        self._deaths: Counter[Genotype] = Counter()
        self._withdrawn = False
        self._listened = 0.0

    def open(self) -> None:
        """Let others join; what those of an earlier driver left is thrown away."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):  # on a full disk nobody can join
            self._folder.mkdir(exist_ok=True)
            write_message(self._folder / LEADER, {"token": self.token})

    def close(self) -> None:
        """Let them go."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def submit(self, architecture: Genotype, split: SplitName = "validation") -> None:
        """Hand in an architecture: to this pool's own workers as long as nobody has joined."""
        if self._withdrawn:
            self._queue.clear()
            self._withdrawn = False
        self._queue.append((architecture, split))
        self._look()
        self._deal()

    def collect(self) -> Evaluation:
        """Wait for the next result, from here or elsewhere.

        Raises:
            NothingToComeError: If all was withdrawn meanwhile.
        """
        while True:
            self._look()
            if self._results:
                return self._results.popleft()
            if not self._withdrawn:
                self._deal()
            elif not self._own and not self._elsewhere:
                raise NothingToComeError
            if self._own:
                try:
                    evaluation = self._pool.collect()
                except NothingToComeError:
                    self._own = 0
                    continue
                self._own = max(self._own - 1, 0)
                return evaluation
            time.sleep(TICK)

    @property
    def hungry(self) -> bool:
        """Whether a worker, here or elsewhere, has nothing to do unless more is submitted."""
        roomy = any(len(guest.tasks) < guest.room for guest in self._guests.values())
        return not self._queue and (self._pool.hungry or roomy)

    @property
    def idle_share(self) -> float | None:
        """Share of the time in which this pool's own workers had nothing to do."""
        return self._pool.idle_share

    @property
    def _elsewhere(self) -> int:
        return sum(len(guest.tasks) for guest in self._guests.values())

    def withdraw(self) -> int:
        """Forget what nobody has begun, and return how many results are still to come at most."""
        self._withdrawn = True
        self._own = self._pool.withdraw()
        for guest in list(self._guests.values()):
            for number in list(guest.tasks):
                with suppress(OSError):
                    (guest.path / f"todo-{number}.json").unlink()
                    guest.tasks.pop(number, None)
        return self._own + self._elsewhere + len(self._results)

    def _deal(self) -> None:
        """Hand out what waits, to whoever has nothing to do; all of it to this pool's own workers without others."""
        while self._queue:
            if not self._guests or self._pool.hungry:
                self._pool.submit(*self._queue.popleft())
                self._own += 1
                continue
            guest = min(self._guests.values(), key=lambda guest: len(guest.tasks) / guest.room)
            if len(guest.tasks) >= guest.room:
                return
            architecture, split = task = self._queue.popleft()
            self._number += 1
            guest.tasks[self._number] = task
            try:
                message = {"genes": architecture.genes, "split": split}
                write_message(guest.path / f"todo-{self._number}.json", message)
            except OSError as error:
                self._part(guest, f"cannot be reached ({error.strerror})")

    def _look(self) -> None:
        """Take answers, and notice who comes and goes."""
        for guest in list(self._guests.values()):
            for number in list(guest.tasks):
                self._hear(guest, number)
        now = time.monotonic()
        if now - self._listened < LISTEN:
            return
        self._listened = now
        for path in self._folder.glob(f"{self.token}-*"):
            hello = read_message(path / HELLO) if path not in self._guests else None
            driver = Driver.parse(hello.get("driver")) if isinstance(hello, dict) else None
            room = hello.get("room") if isinstance(hello, dict) else None
            if driver is not None and isinstance(room, int) and room > 0:
                self._guests[path] = _Guest(path, driver, room, now)
                self._say(f"{driver} has joined")
        for guest in list(self._guests.values()):
            self._listen(guest, now)

    def _listen(self, guest: _Guest, now: float) -> None:
        """Notice whether a driver that joined has left or died."""
        hello = read_message(guest.path / HELLO)
        if hello is None:
            self._part(guest, "has left")
            return
        driver = Driver.parse(hello.get("driver")) if isinstance(hello, dict) else None
        if driver is not None and driver.beat != guest.driver.beat:
            guest.driver, guest.heard = driver, now
        if guest.driver.gone or now - guest.heard > self._expiry:
            self._part(guest, "is dead", died=True)

    def _hear(self, guest: _Guest, number: int) -> None:
        """Take an answer, if there is one."""
        path = guest.path / f"done-{number}.json"
        values = read_message(path)
        if values is None:
            return
        architecture, split = guest.tasks.pop(number)
        with suppress(OSError):
            path.unlink()
        try:
            if values["key"] != architecture.key:
                raise ValueError(f"it is of {values['key']}")
            metrics = {str(name): float(value) for name, value in values["metrics"].items()}
            failure = None if values["failure"] is None else str(values["failure"])
            worker = None if values.get("worker") is None else str(values["worker"])
            self._results.append(Evaluation(architecture, metrics, float(values["seconds"]), failure, worker))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._say(f"an answer of {guest.driver} is not one ({error!r}); it is scored again")
            self._queue.appendleft((architecture, split))

    def _part(self, guest: _Guest, why: str, died: bool = False) -> None:
        """Take back what a driver was handed; the first that it had begun is what it died of, if it died."""
        for number in list(guest.tasks):
            self._hear(guest, number)
        begun = [number for number in guest.tasks if (guest.path / f"doing-{number}.json").exists()]
        del self._guests[guest.path]
        shutil.rmtree(guest.path, ignore_errors=True)
        self._say(f"{guest.driver} {why}; {len(guest.tasks)} architectures are taken back")
        for number, (architecture, split) in guest.tasks.items():
            self._deaths[architecture] += died and number == min(begun, default=None)
            if self._deaths[architecture] >= MAX_DEATHS:
                failure = f"drivers that had joined died of it {MAX_DEATHS} times"
                self._results.append(Evaluation(architecture, {}, 0.0, failure))
            elif not self._withdrawn:
                self._queue.append((architecture, split))


def drivers_that_joined(folder: Path) -> list[Driver]:
    """Return who shares the work of who leads a run folder, oldest first; none without a leader."""
    leader = read_message(folder / JOINED / LEADER)
    token = leader.get("token") if isinstance(leader, dict) else None
    paths = sorted((folder / JOINED).glob(f"*/{HELLO}")) if isinstance(token, str) else []
    hellos = [read_message(path) for path in paths if path.parent.name.startswith(f"{token}-")]
    values = [hello.get("driver") for hello in hellos if isinstance(hello, dict)]
    found = [driver for driver in map(Driver.parse, values) if driver is not None and not driver.gone]
    return sorted(found, key=lambda driver: driver.since)


@contextmanager
def shared(pool: Pool, folder: Path, space: Space, say: Callable[[str], None]) -> Iterator[SharedPool]:
    """Let other drivers join the work of a pool inside the block.

    Args:
        pool: Scores here.
        folder: Run folder.
        space: Of the architectures.
        say: Tells who comes and goes.
    """
    wrapped = SharedPool(pool, folder, space, say)
    wrapped.open()
    try:
        yield wrapped
    finally:
        wrapped.close()


def parse_task(values: Any, space: Space) -> tuple[Genotype, SplitName]:
    """Return what a driver that joined is asked for.

    Raises:
        InputError: If it is no task.
    """
    try:
        split: SplitName = "test" if values["split"] == "test" else "validation"
        return space.architecture(values["genes"]), split
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"what is asked of a driver that joined must be an architecture, but: {error!r}") from None
