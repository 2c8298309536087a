"""``--join``: this process scores for the driver that leads a run, until there is none."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from nas.drivers import Driver, read_holder, signing
from nas.evaluation import Evaluation, Job
from nas.folder import is_held
from nas.interrupt import DrainedPool, drained
from nas.joining import HELLO, JOINED, LEADER, TICK, parse_task, read_message, write_message
from nas.progress import Reporter
from nas.sections import WorkersConfig
from nas.workers import open_pool
from spaces import Genotype, Space

LOCAL_ROOM = 2
"""Architectures that this process takes at a time: one to score, and one for when that is done."""


def wait_for_leader(folder: Path, reporter: Reporter, pause: float = 0.2) -> str | None:
    """Wait until who holds a run folder lets others join, and return its token; None once nobody holds it."""
    said = False
    while is_held(folder):
        values = read_message(folder / JOINED / LEADER)
        if isinstance(values, dict) and isinstance(values.get("token"), str):
            return str(values["token"])
        if not said:
            reporter.say(f"waiting for {read_holder(folder) or 'another process'} to begin its search")
            said = True
        time.sleep(pause)
    return None


def help_out(folder: Path, token: str, job: Job, workers: WorkersConfig, space: Space, reporter: Reporter) -> int:
    """Score what the driver of a run hands over, until it leads no more, and return how many that was.

    Args:
        folder: Run folder.
        token: Of who leads, from :func:`wait_for_leader`.
        job: What workers need.
        workers: Who scores here.
        space: Of the architectures.
        reporter: Hears of results.

    Raises:
        InputError: If what is handed over is no architecture of the space.
        KeyboardInterrupt: On Ctrl-C, once what is being scored is done and handed over.
    """
    me = Driver.here()
    host = re.sub(r"[^A-Za-z0-9.]+", "_", me.host)
    mine = folder / JOINED / f"{token}-{host}.{me.pid}.{int(me.since * 1000)}"
    room = LOCAL_ROOM
    if workers.pool == "ray":
        room = 2 * (workers.count if isinstance(workers.count, int) else os.cpu_count() or 1)

    def sign() -> bool:
        with suppress(OSError):  # who leads will think that this process is dead, and take its work back
            write_message(mine / HELLO, {"driver": asdict(replace(me, beat=time.time())), "room": room})
        return True

    with open_pool(workers, job, reporter.say) as own, drained(own, reporter.say) as pool:
        try:
            mine.mkdir()
        except OSError:  # it leads no more
            return 0
        sign()
        reporter.say(f"sharing the work of {read_holder(folder) or 'another process'}")
        try:
            with signing(sign):
                return _work(folder, mine, pool, space, reporter)
        finally:
            (mine / HELLO).unlink(missing_ok=True)


def _work(folder: Path, mine: Path, pool: DrainedPool, space: Space, reporter: Reporter) -> int:
    """Score until who leads is gone, and return how many results were handed over."""
    numbers: dict[Genotype, int] = {}
    count, looked = 0, time.monotonic()
    while True:
        if not pool.ending:
            for number, path in sorted(_todo(mine)):
                _take(number, path, pool, space, numbers)
        if numbers or pool.ending:
            evaluation = pool.collect()
            _answer(mine, numbers.pop(evaluation.architecture), evaluation)
            reporter.evaluated(evaluation)
            count += 1
            continue
        time.sleep(TICK)
        if not mine.exists():  # it is done, or thinks that this process is dead
            return count
        if time.monotonic() - looked > 1.0:
            looked = time.monotonic()
            if not is_held(folder):
                return count


def _todo(mine: Path) -> list[tuple[int, Path]]:
    """Return what is asked for, by number."""
    found = []
    for path in mine.glob("todo-*.json"):
        with suppress(ValueError):
            found.append((int(path.stem.partition("-")[2]), path))
    return found


def _take(number: int, path: Path, pool: DrainedPool, space: Space, numbers: dict[Genotype, int]) -> None:
    """Take a task, unless it has been taken back.

    Raises:
        InputError: If it is no task; who leads takes back what it has handed over, as this process ends.
    """
    doing = path.with_name(f"doing-{number}.json")
    try:
        path.rename(doing)
    except OSError:
        return
    architecture, split = parse_task(read_message(doing), space)
    numbers[architecture] = number
    pool.submit(architecture, split)


def _answer(mine: Path, number: int, evaluation: Evaluation) -> None:
    """Hand a result over; if that cannot be done, who leads takes the task back."""
    values = {
        "key": evaluation.architecture.key,
        "metrics": dict(evaluation.metrics),
        "seconds": evaluation.seconds,
        "failure": evaluation.failure,
        "worker": evaluation.worker,
    }
    with suppress(OSError):
        write_message(mine / f"done-{number}.json", values)
        (mine / f"doing-{number}.json").unlink()
