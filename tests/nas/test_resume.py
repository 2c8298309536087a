"""A search killed at any moment and run again ends with the tables of one that was never interrupted."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import lasting

import nas

NAS = Path(sys.executable).with_name("nas")
STUDIES = ("search", "random", "test", "reference")
PATIENCE = 240
"""Seconds after which a moment that never came is an error."""


def finished_trials(folder, study):
    """Return how many evaluations of a study have ended so far, by looking into the file from outside."""
    if not (folder / "study.db").exists():
        return 0
    query = (
        "select count(*) from trials join studies using (study_id) "
        "where study_name = ? and state in ('COMPLETE', 'FAIL')"
    )
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute(query, (study,)).fetchone()[0]
        except sqlite3.OperationalError:  # no tables yet, or locked
            return 0


MOMENTS = {
    "before the first checkpoint": lambda folder: (folder / "run.json").exists(),
    "between two epochs": lambda folder: (folder / "supernet.json").exists(),
    "at the reference": lambda folder: (folder / "supernet-00002.safetensors").exists(),
    "in the first generation": lambda folder: finished_trials(folder, "search") >= 2,
    "late in the search": lambda folder: finished_trials(folder, "search") >= 11,
    "in the baseline": lambda folder: finished_trials(folder, "random") >= 5,
    "at the end of the baseline": lambda folder: finished_trials(folder, "random") >= 15,
    "on the test split": lambda folder: finished_trials(folder, "test") >= 1,
}


def kill(folder, recipe, moment, *options):
    """Start a search in a process of its own and kill it when a moment has come."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in this process: sums depend on it in the last bits
    command = [NAS, "search", recipe, "--out", folder, *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        began = time.monotonic()
        while process.poll() is None and not moment(folder):
            assert time.monotonic() - began < PATIENCE, "the moment to kill never came"
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


def assert_same(run, finished, comparable):
    for study in STUDIES:
        frame = run.evaluations(study)
        assert frame["key"].is_unique, study
        assert frame["number"].tolist() == list(range(len(frame))), study
        pd.testing.assert_frame_equal(comparable(run, study), comparable(finished, study))
    assert run.reference == finished.reference
    pd.testing.assert_frame_equal(lasting(run.front()), lasting(finished.front()))
    assert (run.folder / "report.html").exists()


class Counter:
    """A reporter that counts what is reported of each study."""

    def __init__(self):
        self.counts = {}

    def say(self, line):
        pass

    def train(self, progress):
        self.counts["training"] = self.counts.get("training", 0) + 1

    def start(self, title, total, objectives, volume=None):
        self.title = title

    def evaluated(self, evaluation):
        self.counts[self.title] = self.counts.get(self.title, 0) + 1


def test_a_search_that_was_killed_ends_like_one_that_was_not(finished, recipe, trained, comparable):
    assert kill(trained, recipe, MOMENTS["late in the search"])
    kept = nas.Run(trained).evaluations()
    assert 11 <= (kept["state"] == "complete").sum() <= 16
    assert nas.Run(trained).evaluations("test").empty
    again = nas.search(recipe, trained)
    assert_same(again, finished, comparable)
    done = kept[kept["state"] == "complete"]
    pd.testing.assert_series_equal(
        again.evaluations().loc[done.index, "duration"], done["duration"]
    )  # what was done before the kill was not done again


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_search_killed_at_any_moment_ends_like_one_that_was_not(moment, finished, recipe, tmp_path, comparable):
    for attempt in range(5):
        folder = tmp_path / f"run-{attempt}"
        if kill(folder, recipe, MOMENTS[moment]):
            break
    else:
        pytest.fail("the process was always quicker than the kill")
    assert not (folder / "front.csv").exists()
    listener = Counter()
    again = nas.search(recipe, folder, reporter=listener)
    assert_same(again, finished, comparable)
    assert (listener.counts["search"], listener.counts["random"]) == (16, 16)
    one, other = again.supernet().state_dict(), finished.supernet().state_dict()
    assert all((one[name] == tensor).all() for name, tensor in other.items()), "training went on to the same weights"


@pytest.mark.slow
@pytest.mark.parametrize("more", [1, 20, 40])
def test_a_warm_start_killed_at_any_moment_ends_like_one_that_was_not(more, finished, recipe, tmp_path, comparable):
    source, folder = shutil.copytree(finished.folder, tmp_path / "source"), tmp_path / "run"
    search = {"warm_start": str(source), "algorithm": "mo-qpso", "evaluations": 40}
    whole = nas.search(recipe, tmp_path / "whole", search=search)
    taken = (whole.evaluations()["generation"] == 0).sum()
    assert taken > 20
    options = ("--warm-start", source, "--algorithm", "mo-qpso", "--evaluations", "40")
    assert kill(folder, recipe, lambda folder: finished_trials(folder, "search") >= more, *options)
    shutil.rmtree(source)
    assert_same(nas.search(recipe, folder, search=search), whole, comparable)


@pytest.mark.slow
def test_a_search_killed_again_and_again_at_random_ends_like_one_that_was_not(finished, recipe, tmp_path, comparable):
    rng = np.random.default_rng(0)
    folder, kills = tmp_path / "run", 0
    for _ in range(8):
        moment, age = time.monotonic() + 60, None

        def come(folder):
            nonlocal age
            if age is None and (folder / "study.db").exists():
                age = time.monotonic() + rng.uniform(0.0, 4.0)
            return time.monotonic() > (age or moment)  # noqa: B023  # called within this turn of the loop only

        kills += kill(folder, recipe, come)
    assert kills >= 2
    assert_same(nas.search(recipe, folder), finished, comparable)
