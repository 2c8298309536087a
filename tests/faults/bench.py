"""What all fault tests share: a search in a process of its own, and a judge of what became of it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from fault_evaluator import chance

import nas
from nas.backend import open_run_storage
from nas.storage import read_trials

HERE = Path(__file__).parent
STUDIES = ("search", "random")
PATIENCE = 900
"""Seconds after which a moment that never came is an error."""

GENES = ("width", "depth", "heads", "ratio", "steps")
CHOICES = 5
MARK = "SPIKEFRONT_FAULT_TEST"
"""Environment variable of all processes that a bench started, whose value is the bench's folder."""

RECIPE = """
name = "faults"
seed = {seed}
metrics = ["fault_evaluator:Faulty"]

[options."fault_evaluator:Faulty"]
log = "{log}"
seconds = {seconds}
raising = {raising}
{shares}

[table]
file = "results.csv"
genes = {genes}
metrics = {{ accuracy = "max", energy_mj = "min" }}

[search]
objectives = ["accuracy", "energy_mj"]
population = 10
evaluations = {evaluations}
mode = "{mode}"

[workers]
pool = "{pool}"
{workers}
"""

ELSEWHERE = """
[workers.runtime_env.env_vars]
PYTHONPATH = "{path}"
"""
"""What machines of a cluster have to be told, where the evaluator is not installed."""


def results():
    """Return a table of all combinations, each with an accuracy that grows, not smoothly, with its energy."""
    frame = pd.DataFrame(list(product(range(1, CHOICES + 1), repeat=len(GENES))), columns=list(GENES))
    size = frame.to_numpy() @ np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    noise = [chance("-".join(map(str, row)), "noise") for row in frame.to_numpy()]
    frame["accuracy"] = size / (size + 20) * (0.8 + 0.2 * np.array(noise))
    frame["energy_mj"] = size * 1e-3
    return frame


@cache
def table_text():
    return results().to_csv(index=False)


@dataclass
class Bench:
    """A run folder with its recipe, and the log of what was scored.

    Args:
        folder: Of all of it.
        mode: ``generational`` or ``async``.
        workers: Ray workers, ``auto``, or None for this process.
        evaluations: Budget of the search, and of its random baseline.
        seconds: Median duration of an evaluation.
        shares: Share of architectures that each kind of fault befalls.
        raising: Whether those faults raise instead.
        seed: Of the search.
        options: Further options of ``nas search``.
    """

    folder: Path
    mode: str = "generational"
    workers: int | str | None = None
    evaluations: int = 60
    seconds: float = 0.02
    shares: dict = field(default_factory=dict)
    raising: bool = False
    seed: int = 0
    options: tuple = ()

    def __post_init__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log, self.run_folder = self.folder / "calls.log", self.folder / "run"
        self.log.touch()
        (self.folder / "results.csv").write_text(table_text())
        text = RECIPE.format(
            seed=self.seed,
            log=self.log,
            seconds=self.seconds,
            raising=str(self.raising).lower(),
            shares="\n".join(f"{kind} = {share}" for kind, share in self.shares.items()),
            genes=list(GENES),
            evaluations=self.evaluations,
            mode=self.mode,
            pool="local" if self.workers is None else "ray",
            workers="" if self.workers is None else f"count = {self.workers!r}",
        ).replace("'", '"')
        if "--address" in self.options:
            text += ELSEWHERE.format(path=python_path())
        (self.folder / "recipe.toml").write_text(text)

    @contextlib.contextmanager
    def driver(self, *options, out=None):
        """Start ``nas search``, and kill what is left of it afterwards."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path(), MARK: str(self.folder)}
        program = "import sys; from nas.cli import main; main()"
        arguments = ["search", self.folder / "recipe.toml", "--out", out or self.run_folder, *self.options, *options]
        with (
            (self.folder / "errors").open("ab") as errors,
            subprocess.Popen(
                [sys.executable, "-c", program, *map(str, arguments)],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    def finish(self, *options):
        """Let a search go on to its end; return its exit code."""
        with self.driver(*options) as process:
            return process.wait(PATIENCE)

    @property
    def errors(self):
        """What all drivers have said to standard error."""
        return (self.folder / "errors").read_text()

    def calls(self):
        """Return the log as a table, which a line that is being written is not in."""
        rows = [line.split() for line in self.log.read_text().split("\n")[:-1]]
        frame = pd.DataFrame(rows, columns=["event", "key", "time", "process"])
        return frame.astype({"time": float, "process": int})

    def begun(self):
        """Return how many evaluations have begun."""
        return self.log.read_bytes().count(b"begin")

    def at_work(self):
        """Return the processes that have begun an evaluation and not ended it."""
        last = self.calls().groupby("process")["event"].last()
        return last.index[last == "begin"].tolist()

    def kept(self):
        """Return all results that the store has, by study and key."""
        if not (self.run_folder / "run.json").exists():
            return {}
        run, kept = nas.Run(self.run_folder), {}
        for study in STUDIES:
            frame = run.evaluations(study)
            if "state" in frame:
                done = frame[frame["state"] != "running"]
                kept |= {(study, key): value for key, value in zip(done["key"], done["accuracy"], strict=True)}
        return kept


def python_path():
    """Return where processes find the evaluator, and Spikefront if it is found so here."""
    return os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])


def wait_until(come, process=None):
    """Wait until a moment has come, and return True; False if a process ended before."""
    began = time.monotonic()
    while not come():
        if process is not None and process.poll() is not None:
            return False
        assert time.monotonic() - began < PATIENCE, "the moment never came"
        time.sleep(0.003)
    return True


def survivors(bench):
    """Return the processes that a bench started and that are still there."""
    mark, found = f"{MARK}={bench.folder}".encode(), []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found


@dataclass
class Verdict:
    """What became of a search.

    Attributes:
        evaluations: Results of the search and of its baseline.
        lost: Results that were in the store once, and are not in it, or differ, at the end.
        repeated: Evaluations that began although their result was in the store.
        again: Evaluations that began once more since whoever was at them died.
        failed: Failed evaluations.
        wrong: What is not as it should be, in words.
    """

    evaluations: int
    lost: int
    repeated: int
    again: int
    failed: int
    wrong: list[str]


def judge(bench, kept=(), reference=None):
    """Judge a search that has ended.

    Args:
        bench: Its bench.
        kept: Results that its store had on the way, from :meth:`Bench.kept`.
        reference: Bench of the search that its table must equal, but for durations and reasons of failures.
    """
    run, calls, wrong = nas.Run(bench.run_folder), bench.calls(), []
    completed, frames = {}, {}
    for study in STUDIES:
        frames[study] = frame = run.evaluations(study)
        for trial in read_trials(open_run_storage(bench.run_folder), study):
            key, moment = trial.user_attrs["key"], trial.datetime_complete
            if moment is not None:
                completed[key] = min(completed.get(key, np.inf), moment.timestamp())
        if len(frame) != bench.evaluations or not frame["key"].is_unique:
            wrong.append(f"{study} has {len(frame)} rows, {frame['key'].nunique()} keys")
        if (frame["state"] == "running").any():
            wrong.append(f"{study} has open trials")
        wrong += wrong_values(frame, study)
    begins = calls[calls["event"] == "begin"]
    repeated = sum(
        begun > completed.get(key, np.inf) for key, begun in zip(begins["key"], begins["time"], strict=True)
    )
    again = sum(count - 1 for count in Counter(begins["key"]).values()) - repeated
    final = bench.kept()
    lost = sum(name not in final or not same(final[name], value) for name, value in dict(kept).items())
    if reference is not None:
        wrong += differences(frames, reference)
    if bench.mode == "async":
        wrong += wrong_orders(bench)
    if "Traceback" in bench.errors:
        wrong.append("a traceback")
    if not (bench.run_folder / "report.html").exists():
        wrong.append("no report")
    failed = sum(int((frame["state"] == "failed").sum()) for frame in frames.values())
    return Verdict(sum(map(len, frames.values())), lost, int(repeated), int(again), failed, wrong)


def same(one, other):
    return one == other or (one != one and other != other)  # failed ones have NaN


def wrong_values(frame, study):
    """Return whether a value is not the table's."""
    expected = frame[["key", "state", *GENES]].merge(results(), on=list(GENES))
    merged = frame.merge(expected, on="key", suffixes=("", "_true"))
    done = merged[merged["state"] == "complete"]
    good = len(merged) == len(frame) and (done["accuracy"] == done["accuracy_true"]).all()
    return [] if good else [f"{study} has values that the table has not"]


def differences(frames, reference):
    """Return in what studies a table differs from that of the reference."""
    run, wrong = nas.Run(reference.run_folder), []
    for study, frame in frames.items():
        without = ["duration", "worker", "failure"]
        try:
            pd.testing.assert_frame_equal(
                frame.drop(columns=without), run.evaluations(study).drop(columns=without), check_dtype=False
            )
        except AssertionError as error:
            wrong.append(f"{study} differs from the uninterrupted one: {error}")
    return wrong


def wrong_orders(bench):
    """Return whether an asynchronous search lacks a place in its order of results."""
    wrong = []
    for study in STUDIES:
        told = sorted(
            trial.user_attrs.get("told", -1) for trial in read_trials(open_run_storage(bench.run_folder), study)
        )
        if told != list(range(len(told))):
            wrong.append(f"{study} has gaps in its order")
    return wrong


def after(moment):
    return time.monotonic() > moment


def begun_since(bench, before, more):
    """Return whether so many evaluations more have begun than before."""
    return bench.begun() - before >= more


def kill_at_random(bench, rng, kills, most=16):
    """Kill the driver of a search again and again; return the number of kills and all that was kept before them."""
    done, kept = 0, {}
    for _ in range(kills):
        with bench.driver() as process:
            before, began = bench.begun(), time.monotonic()
            if rng.random() < 0.2:  # before it has done anything, often
                late = rng.uniform(0, 4)
                come = partial(after, began + late)
            else:
                more = int(rng.integers(1, most))
                come = partial(begun_since, bench, before, more)
            if wait_until(come, process):
                time.sleep(rng.uniform(0, 0.03))
                process.send_signal(signal.SIGKILL)
            done += process.wait(PATIENCE) == -signal.SIGKILL
        kept |= bench.kept()
    return done, kept
