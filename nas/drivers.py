"""Who works on a run: one driver at a time, known by name to those that are refused.

The kernel guards a run folder, and frees it when its driver dies; a file says who that is. A store that runs share
may be reached from other folders and machines, so it also has a list of drivers, a trial of the study ``drivers``
each: stores number trials one by one, and the first that is alive leads. A driver is dead if its process is known to
be, on this machine, or if it has not been heard of for a while.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.backend import TROUBLES, Storage
from nas.durable import Alone, Leads
from nas.folder import HeldError, hold
from nas.storage import read_trials
from spaces import InputError
from supernet.files import write_atomically

HOLDER = ".driver.json"
"""File of a run folder that says which process works on it."""

DRIVERS = "drivers"
"""Study of a shared store with a trial for each driver of a run."""

BEAT, EXPIRY = 5.0, 60.0
"""Seconds between two signs of life, and without any after which a driver counts as dead."""

_KEY = "driver"


@dataclass(frozen=True)
class Driver:
    """A process that works on a run.

    Attributes:
        host: Machine.
        boot: What tells one start of the machine from another.
        pid: Process.
        user: Whose it is.
        since: Unix time of its start.
        beat: Unix time of its last sign of life.
    """

    host: str
    boot: str
    pid: int
    user: str
    since: float
    beat: float

    @classmethod
    def here(cls) -> Driver:
        """Return this process."""
        now = time.time()
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container knows numbers only
            user = str(os.getuid())
        return cls(platform.node(), _boot(), os.getpid(), user, now, now)

    @classmethod
    def parse(cls, values: Any) -> Driver | None:
        """Return what plain values describe, or None if that is no driver."""
        try:
            driver = cls(**values)
            return replace(driver, pid=int(driver.pid), since=float(driver.since), beat=float(driver.beat))
        except (TypeError, ValueError):
            return None

    @property
    def silent(self) -> float:
        """Seconds without a sign of life."""
        return max(time.time() - self.beat, 0.0)

    @property
    def gone(self) -> bool:
        """Whether it was a process of this machine that is no more."""
        if (self.host, self.boot) != (platform.node(), _boot()):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        heard = f"last heard of {self.silent:.0f} seconds ago"
        return f"process {self.pid} of {self.user} on {self.host}, since {since}, {heard}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a run folder inside the block, and tell them who does.

    Raises:
        HeldError: If another process holds the folder; says which.
    """
    me, path = Driver.here(), folder / HOLDER
    with _explained(path), hold(folder):

        def sign() -> bool:
            with suppress(OSError):  # a full disk is no reason to stop
                write_atomically(path, json.dumps(asdict(replace(me, beat=time.time()))).encode())
            return True

        sign()
        try:
            with signing(sign):
                yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Add who holds a folder to the refusal of those that come second."""
    try:
        yield
    except HeldError as error:
        holder = read_holder(path.parent)
        raise HeldError(f"{error} ({holder})" if holder else str(error)) from None


def read_holder(folder: Path) -> Driver | None:
    """Return which process holds a run folder, as far as it has said so."""
    try:
        return Driver.parse(json.loads((folder / HOLDER).read_bytes()))
    except (OSError, ValueError):
        return None


@contextmanager
def signing(sign: Callable[[], bool]) -> Iterator[None]:
    """Give signs of life inside the block, until one is not wanted any more."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(BEAT) and sign():
            pass

    thread = threading.Thread(target=go_on, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Lead:
    """That this process leads a run whose store others can reach; asked for before each write.

    Args:
        storage: Storage of the run.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage, self._me = storage, Driver.here()
        self._study = self._trial = -1
        self._lost = False

    def check(self) -> None:
        """Raise InputError if another driver has taken over, since this one was silent for too long."""
        if self._lost:
            raise InputError(
                f"another driver has taken over the run in {self._storage.address}, as this one had not been heard "
                f"of for {EXPIRY:.0f} seconds; let that one finish"
            )

    def confirm(self) -> None:
        """Raise InputError as :meth:`check` does, after a look at the store, which may have been away."""
        self.sign()
        self.check()

    def begin(self) -> None:
        """Take the lead.

        Raises:
            HeldError: If another driver has it; says which.
        """
        backend = self._storage.backend
        with self._storage.sound():
            name = self._storage.prefix + DRIVERS
            optuna.create_study(storage=backend, study_name=name, load_if_exists=True)
            self._study = backend.get_study_id_from_name(name)
            entry = create_trial(state=TrialState.RUNNING, user_attrs={_KEY: asdict(self._me)})
            self._trial = backend.create_new_trial(self._study, template_trial=entry)
            other = self._first_alive()
        if other is not None:
            self.end()
            left = max(EXPIRY - other.silent, 0.0)
            raise HeldError(
                f"one driver at a time works on a run, but {other} is at work in {self._storage.address}; wait for "
                f"it or stop it; if it is dead, the run is free in {left:.0f} seconds"
            )

    def _first_alive(self) -> Driver | None:
        """Return the driver that is before this one and alive, if there is one, and strike off the dead."""
        backend = self._storage.backend
        for trial in backend.get_all_trials(self._study, deepcopy=False, states=(TrialState.RUNNING,)):
            if trial._trial_id == self._trial:
                return None
            driver = _driver(trial)
            if driver is not None and not driver.gone and not self._expired(trial, driver):
                return driver
            with suppress(UpdateFinishedTrialError):
                backend.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return None

    def _expired(self, trial: FrozenTrial, driver: Driver) -> bool:
        """Return whether a driver is silent; as clocks of machines differ, it is listened to for a moment."""
        if driver.silent <= EXPIRY:
            return False
        time.sleep(2 * BEAT)
        again = _driver(self._storage.backend.get_trial(trial._trial_id))
        return again is None or again.beat == driver.beat

    def sign(self) -> bool:
        """Give a sign of life, and return whether this process still leads."""
        values = asdict(replace(self._me, beat=time.time()))
        try:
            self._storage.backend.set_trial_user_attr(self._trial, _KEY, values)
        except UpdateFinishedTrialError:
            self._lost = True
        except TROUBLES:  # it is away; whoever leads will be seen when it is back
            pass
        return not self._lost

    def end(self) -> None:
        """Let others lead."""
        with suppress(UpdateFinishedTrialError, *TROUBLES):
            self._storage.backend.set_trial_state_values(self._trial, TrialState.COMPLETE, [0.0])


def find_leader(storage: Storage) -> Driver | None:
    """Return who leads a run whose store others can reach, as far as its last sign of life tells; changes nothing."""
    for trial in read_trials(storage, DRIVERS) if storage.prefix else ():
        driver = _driver(trial) if trial.state == TrialState.RUNNING else None
        if driver is not None and not driver.gone and driver.silent <= EXPIRY:
            return driver
    return None


def _driver(trial: FrozenTrial) -> Driver | None:
    return Driver.parse(trial.user_attrs.get(_KEY))


@contextmanager
def lead(storage: Storage) -> Iterator[Leads]:
    """Lead a run inside the block, and yield what raises InputError once another driver has taken over.

    Only a store that others can reach from elsewhere needs it; the folder guards its own.

    Raises:
        InputError: If another driver leads.
    """
    if not storage.prefix:
        yield Alone()
        return
    mine = Lead(storage)
    mine.begin()
    try:
        with signing(mine.sign):
            yield mine
    finally:
        mine.end()
