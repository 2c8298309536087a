"""One driver at a time: the second is told who is first, and a dead one holds nobody up."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from fakes import OBJECTIVES, evaluation
from postgres import PASSWORD
from test_durable import Line
from test_shared_stores import same
from test_table_runs import write_run

import nas
from nas import drivers
from nas.address import parse_address
from nas.backend import open_storage
from nas.drivers import HOLDER, Driver, Lead, hold_folder, lead, read_holder
from nas.durable import PENDING, Backlog
from nas.storage import Store, read_trials
from spaces import InputError

KINDS = ["sqlite", "journal", "postgres"]
WHO = rf"process {os.getpid()} of \S+ on \S+, since \d{{4}}-\d\d-\d\d .*, last heard of \d+ seconds ago"


@pytest.fixture
def opened(request, tmp_path):
    def opened(kind):
        """Return the storage of a run as another process would open it."""
        if kind == "postgres":
            text = request.getfixturevalue("postgres").url(PASSWORD)
        else:
            text = {"sqlite": f"sqlite:///{tmp_path / 'all.db'}", "journal": "journal:all.log"}[kind]
        return open_storage(tmp_path, parse_address(text, tmp_path), f"{request.node.name}/")

    return opened


def pretend(monkeypatch, **changes):
    """Let drivers of this process pass for others."""
    me = Driver.here()
    monkeypatch.setattr(Driver, "here", classmethod(lambda _: replace(me, **changes)))


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_folder_says_who_holds_it(tmp_path):
    (tmp_path / ".lock").touch()
    with hold_folder(tmp_path):
        assert read_holder(tmp_path).pid == os.getpid()
        with (
            pytest.raises(InputError, match=rf"one process at a time writes a run, but .* \({WHO}\)"),
            hold_folder(tmp_path),
        ):
            pass
    assert not (tmp_path / HOLDER).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}', '{"host": "a", "boot": "", "pid": "x"}'])
def test_a_damaged_file_of_the_holder_only_names_nobody(text, tmp_path):
    with hold_folder(tmp_path):
        (tmp_path / HOLDER).write_text(text)
        with pytest.raises(InputError, match=r"share its search with `nas search --join`$"), hold_folder(tmp_path):
            pass


def test_an_error_inside_the_block_is_left_as_it_is(tmp_path):
    with pytest.raises(InputError, match=r"^mine$"), hold_folder(tmp_path):
        raise InputError("mine")


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(drivers, "BEAT", 0.01)
    with hold_folder(tmp_path):
        first = read_holder(tmp_path).beat
        deadline = time.monotonic() + 30
        while read_holder(tmp_path).beat == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_driver_of_a_shared_store_is_refused_with_who_is_first(kind, opened):
    with lead(opened(kind)):
        for _ in range(2):
            with pytest.raises(InputError, match=rf"one driver at a time works on a run, but {WHO} is at work"):
                Lead(opened(kind)).begin()
    with lead(opened(kind)) as mine:
        mine.check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_driver_of_this_machine_is_replaced_at_once(kind, opened, monkeypatch):
    with monkeypatch.context() as patch:
        pretend(patch, pid=dead_pid())
        Lead(opened(kind)).begin()
    with lead(opened(kind)) as mine:
        mine.check()


def test_a_driver_of_another_machine_is_replaced_once_it_is_silent_for_long(opened, monkeypatch):
    monkeypatch.setattr(drivers, "BEAT", 0.01)
    with monkeypatch.context() as patch:
        pretend(patch, host="elsewhere", pid=dead_pid())
        old = Lead(opened("sqlite"))
        old.begin()
    with pytest.raises(InputError, match=r"on elsewhere, .*; if it is dead, the run is free in \d+ seconds"):
        Lead(opened("sqlite")).begin()
    monkeypatch.setattr(drivers, "EXPIRY", 0.0)
    Lead(opened("sqlite")).begin()
    assert not old.sign()
    with pytest.raises(InputError, match="another driver has taken over"):
        old.check()


def test_a_driver_whose_clock_is_slow_is_not_taken_for_dead(opened, monkeypatch):
    monkeypatch.setattr(drivers, "BEAT", 0.2)
    pretend(monkeypatch, host="elsewhere", beat=0.0, since=0.0)
    slow = [1000.0]

    def slowly():
        slow[0] += 1
        return slow[0]

    with lead(opened("sqlite")), monkeypatch.context() as patch:
        patch.setattr(drivers.time, "time", slowly)
        time.sleep(0.5)
        patch.setattr(drivers, "EXPIRY", -1.0)
        with pytest.raises(InputError, match="on elsewhere"):
            Lead(opened("sqlite")).begin()


def test_a_store_that_is_away_takes_no_lead_away(opened, monkeypatch):
    mine = Lead(opened("sqlite"))
    mine.begin()

    def away(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(mine._storage.backend, "set_trial_user_attr", away)
    assert mine.sign()
    mine.check()


@pytest.mark.parametrize("ended", [False, True], ids=["goes on", "ends"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_driver_whose_store_comes_back_under_another_one_writes_nothing(
    kind, ended, opened, monkeypatch, tmp_path, space
):
    """It asks at once: until its next sign of life it could spoil what the other one has written."""
    monkeypatch.setattr(drivers, "BEAT", 0.01)
    with monkeypatch.context() as patch:
        pretend(patch, host="elsewhere", pid=dead_pid())
        old = Lead(opened(kind))
        old.begin()
    storage, now, said = opened(kind), [0.0], []
    backlog = Backlog(tmp_path, storage, 100.0, said.append, old, lambda: now[0])
    store = Store(storage, "search", space, OBJECTIVES, backlog.put)
    store._storage = Line(store._storage)
    store._storage.cut = True
    store.open(space.smallest(), 1)
    monkeypatch.setattr(drivers, "EXPIRY", 0.0)
    Lead(opened(kind)).begin()
    store._storage.cut = False
    if ended:
        with backlog:
            pass
        assert said[-1] == "1 writes are dropped, as another driver leads the run"
        assert not (tmp_path / PENDING).exists()
    else:
        now[0] = 20.0
        with pytest.raises(InputError, match="another driver has taken over the run"):
            store.close(evaluation(space.smallest()))
    assert read_trials(opened(kind), "search") == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "postgres"])
def test_a_search_killed_on_a_shared_store_goes_on_at_once_and_ends_the_same(kind, request, tmp_path):
    url = (
        request.getfixturevalue("postgres").url(PASSWORD) if kind == "postgres" else f"journal:{tmp_path / 'all.log'}"
    )
    recipe, folder = write_run(tmp_path), tmp_path / "run"
    plain = nas.search(recipe, tmp_path / "plain")
    code = "from nas.cli import main; main()"
    command = [sys.executable, "-c", code, "search", recipe, "--out", folder, "--storage", url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (folder / "study.url").exists() or len(nas.Run(folder, url).evaluations()) < 3:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        os.kill(process.pid, signal.SIGKILL)
    assert second.returncode in (0, 2)
    assert json.loads((folder / "run.json").read_text())["id"]
    same(nas.search(recipe, folder, run={"storage": url}), plain)
