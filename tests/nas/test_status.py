"""``nas status``: what it says of a run that is done, died, goes on, or has not begun."""

import json
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from test_table_runs import write_run

import nas
from nas.status import describe, recent_rate, status


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("looked-at")


@pytest.fixture(scope="module")
def run(folder):
    """A finished search of a table; tests only read it."""
    return nas.search(write_run(folder), folder / "run")


def test_a_finished_run_says_what_it_spent_and_why_it_ended(run, command):
    found = status(run.folder)
    frame = run.evaluations()
    assert (found.state, found.evaluations, found.budget, found.running) == ("finished", 24, 24, 0)
    assert found.failed == sum(found.reasons.values()) == (frame["state"] == "failed").sum() > 0
    assert found.hypervolume == run.hypervolume()
    assert found.why == run.why_stopped()
    assert found.seconds_left is None
    code, out, _ = command("status", run.folder, "--json")
    assert code == 0
    assert json.loads(out) == found.to_dict()
    code, out, _ = command("status", run.folder)
    assert out.strip() == describe(found)
    assert out.startswith("finished: 24 of 24 evaluations")


def test_a_folder_without_a_run_is_refused(command, tmp_path):
    code, out, err = command("status", tmp_path)
    assert (code, out) == (2, "")
    assert "is not a run folder" in err


SLOW = """
import sys, time
import nas
from nas.table_source import TableScorer

answer = TableScorer.score_together

def slowly(self, *given):
    for result in answer(self, *given):
        time.sleep(0.05)
        yield result

TableScorer.score_together = slowly
from nas.cli import main
sys.argv = ["nas", "search", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_run_at_work_is_seen_and_once_it_stopped_says_how_it_goes_on(ending, run, folder, tmp_path):
    recipe, out = folder / "known.toml", tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(recipe), "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    while not ((out / "study.db").exists() and status(out).evaluations >= 3):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    live = status(out)
    process.send_signal(ending)
    err = process.communicate(timeout=60)[1]
    dead = status(out)
    assert live.state == "at work"
    assert live.rate > 0
    assert live.seconds_left > 0
    assert dead.state == "stopped"
    assert dead.evaluations >= live.evaluations
    assert "go on with the same `nas search` command" in describe(dead)
    if ending == signal.SIGINT:
        assert process.returncode == 130
        assert "go on with the same command" in err
        assert "Traceback" not in err
    again = nas.search(recipe, out)
    pd.testing.assert_frame_equal(
        again.evaluations().drop(columns="duration"), run.evaluations().drop(columns="duration")
    )


def test_the_rate_is_of_the_last_results():
    early = pd.Series(pd.date_range("2026-01-01", periods=50, freq="100s"))
    late = pd.Series(pd.date_range("2026-01-02", periods=50, freq="2s"))
    assert recent_rate(pd.concat([early, late], ignore_index=True)) == pytest.approx(0.5)
    assert recent_rate(late.iloc[:1]) is None
    assert recent_rate(late.iloc[:0]) is None
