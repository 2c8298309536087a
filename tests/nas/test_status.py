"""``nas status``: what it says of a run that is done, died, goes on, or has not begun."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pandas as pd
import pytest
from fakes import OnePerson, lasting
from test_table_runs import write_run

import nas
from nas import drivers
from nas.backend import open_run_storage, open_storage
from nas.drivers import Driver, find_leader, lead
from nas.folder import hold, is_held
from nas.joining import HELLO, JOINED, LEADER, shared, write_message
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
        lasting(again.evaluations()),
        lasting(run.evaluations()),
    )


def test_who_shares_the_work_of_a_run_is_named(run, tmp_path):
    copy = shutil.copytree(run.folder, tmp_path / "run")
    here = Driver.here()
    hosts = {"late": here.since + 9, "early": here.since}
    with hold(copy), shared(OnePerson(), copy, run.space, print) as pool:
        assert status(copy).joined == ()
        for host, since in {**hosts, "dead": here.since}.items():
            mine = copy / JOINED / f"{pool.token}-{host}"
            mine.mkdir()
            there = {"host": host, "since": since} if host in hosts else {"pid": 2**22 + 1}
            write_message(mine / HELLO, {"driver": asdict(replace(here, **there)), "room": 2})
        shutil.copytree(copy / JOINED / f"{pool.token}-late", copy / JOINED / "earlier-late")
        (copy / JOINED / f"{pool.token}-torn").mkdir()
        (copy / JOINED / f"{pool.token}-torn" / HELLO).write_text("{")
        found = status(copy)
        assert [driver.split(" on ")[1].split(",")[0] for driver in found.joined] == ["early", "late"]
        assert [line for line in describe(found).splitlines() if line.startswith("shared by process")]
        (copy / JOINED / LEADER).unlink()
        assert status(copy).joined == ()
    assert status(copy).joined == ()


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_run_that_a_copy_of_its_folder_leads_in_a_shared_store_is_at_work(kind, tmp_path):
    address = {"journal": f"journal:{tmp_path / 'all.log'}", "sqlite": f"sqlite:///{tmp_path / 'all.db'}"}[kind]
    recipe = write_run(tmp_path)
    nas.search(recipe, tmp_path / "run", run={"storage": address}, search={"evaluations": 4})
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert status(copy).state == "finished"
    with lead(open_run_storage(tmp_path / "run")):
        assert status(copy).state == "at work"
        assert nas.Run(copy).leader().pid == os.getpid()
    assert status(copy).state == "finished"
    assert nas.Run(copy).leader() is None


def test_a_leader_that_died_or_fell_silent_is_not_at_work(tmp_path, monkeypatch):
    storage = open_storage(tmp_path, prefix="mine/")
    with lead(storage):
        assert find_leader(storage).pid == os.getpid()
        assert find_leader(open_storage(tmp_path, prefix="other/")) is None
        monkeypatch.setattr(drivers, "EXPIRY", -1.0)
        assert find_leader(storage) is None
        monkeypatch.undo()
        monkeypatch.setattr(drivers, "_boot", lambda: "another")
        assert find_leader(storage).pid == os.getpid()
        monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("it is of another boot"))
        assert find_leader(storage) is not None


def test_a_look_at_the_folder_refuses_nobody(tmp_path):
    """Its lock is asked for at the very instant at which somebody looks."""
    with hold(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with (tmp_path / ".lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.2, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with hold(tmp_path):
            assert is_held(tmp_path)


def test_the_rate_is_of_the_last_results():
    early = pd.Series(pd.date_range("2026-01-01", periods=50, freq="100s"))
    late = pd.Series(pd.date_range("2026-01-02", periods=50, freq="2s"))
    assert recent_rate(pd.concat([early, late], ignore_index=True)) == pytest.approx(0.5)
    assert recent_rate(late.iloc[:1]) is None
    assert recent_rate(late.iloc[:0]) is None
