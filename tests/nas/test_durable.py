"""Stores that go away: what cannot be written waits, survives the process, and is written once, in its order."""

import contextlib
import os
import subprocess
import sys
import threading
import time

import pytest
from fakes import OBJECTIVES, evaluation, half_failing
from postgres import PASSWORD
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DatabaseError, OperationalError
from test_shared_stores import same
from test_table_runs import write_run

import nas
from nas.backend import open_storage
from nas.durable import PENDING, RESERVE, Backlog
from nas.evaluation import Evaluation
from nas.storage import Store, read_trials
from spaces import InputError


class Line:
    """What lies between a store and its database, and can be cut."""

    def __init__(self, backend):
        self._backend, self.cut, self.calls = backend, False, 0

    def __getattr__(self, name):
        method = getattr(self._backend, name)

        def call(*args, **kwargs):
            self.calls += 1
            if self.cut:
                raise OperationalError("select", {}, OSError("no route to host"))
            return method(*args, **kwargs)

        return call


class Clock:
    """A time that passes while one sleeps."""

    def __init__(self):
        self.seconds, self.on_sleep = 0.0, lambda: None

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds
        self.on_sleep()


class Kept:
    """A store whose writes may wait, and all that belongs to it."""

    def __init__(self, folder, space, patience=100.0):
        storage = open_storage(folder)
        self.said, self.clock = [], Clock()
        self.backlog = Backlog(
            folder, storage, patience, self.said.append, now=self.clock.now, sleep=self.clock.sleep
        )
        self.store = Store(storage, "search", space, OBJECTIVES, self.backlog.put)
        self.store._storage = self.line = Line(self.store._storage)


@pytest.fixture
def kept(tmp_path, space):
    return Kept(tmp_path, space)


@pytest.fixture
def architectures(space):
    return [space.smallest(), space.largest(), *list(space.neighbours(space.largest()))[:6]]


def fill(store, architectures):
    for number, architecture in enumerate(architectures, len(store.known)):
        store.open(architecture, 1 + number, after=number)
        store.close(half_failing(architecture), told=number)
        store.study.set_user_attr("seconds", number)


def reopened(folder, space):
    return Store(open_storage(folder), "search", space, OBJECTIVES)


def table(store):
    return [(store._after, store._told, store.results, store.study.user_attrs, store.opened)]


def test_what_a_store_that_is_away_cannot_take_is_known_at_once_and_written_later_in_order(
    kept, architectures, space, tmp_path, tmp_path_factory
):
    whole = tmp_path_factory.mktemp("whole")
    fill(Store(open_storage(whole), "search", space, OBJECTIVES), architectures)
    fill(kept.store, architectures[:2])
    kept.line.cut = True
    fill(kept.store, architectures[2:5])
    assert (kept.store.opened, len(kept.store.known), len(kept.backlog)) == (5, 5, 9)
    assert reopened(tmp_path, space).opened == 2
    assert len((tmp_path / PENDING).read_text().splitlines()) == 9
    kept.line.cut = False
    kept.clock.seconds += 20
    fill(kept.store, architectures[5:])
    kept.backlog.settle()
    assert table(reopened(tmp_path, space)) == table(reopened(whole, space)) == table(kept.store)
    assert not (tmp_path / PENDING).exists()
    assert "is away (no route to host)" in kept.said[0]
    assert kept.said[-1].startswith("the store is back after 20 seconds; wrote the 10 that waited")


def test_a_store_that_is_away_is_not_asked_at_every_write(kept, architectures):
    kept.line.cut = True
    kept.store.open(architectures[0], 1)
    before = kept.line.calls
    fill(kept.store, architectures)
    assert kept.line.calls == before
    kept.clock.seconds += 1.5
    kept.store.study.set_user_attr("seconds", 3)
    assert kept.line.calls == before + 1


def test_a_process_that_dies_leaves_what_waits_to_the_next_one(kept, architectures, space, tmp_path):
    fill(kept.store, architectures[:1])
    kept.line.cut = True
    fill(kept.store, architectures[1:])
    with (tmp_path / PENDING).open("ab") as file:
        file.write(b'{"study": "search", "do": "clo')  # it died here
    for _ in range(2):  # a second time, as if the file could not be taken away
        lines = (tmp_path / PENDING).read_bytes()
        again = Kept(tmp_path, space)
        again.backlog.restore({"search": again.store})
        assert table(again.store) == table(kept.store) == table(reopened(tmp_path, space))
        assert not (tmp_path / PENDING).exists()
        assert again.said == ["wrote 21 results and notes of an earlier process, which could not reach its store"]
        (tmp_path / PENDING).write_bytes(lines)


def test_a_write_that_arrived_though_the_answer_did_not_is_not_written_twice(kept, architectures, space, tmp_path):
    create = kept.line._backend.create_new_trial

    def lose(*args, **kwargs):
        create(*args, **kwargs)
        raise OperationalError("insert", {}, OSError("connection reset"))

    kept.line._backend.create_new_trial = lose
    kept.store.open(architectures[0], 1)
    kept.line._backend.create_new_trial = create
    state = kept.line._backend.set_trial_state_values

    def lose_state(*args, **kwargs):
        state(*args, **kwargs)
        raise OperationalError("update", {}, OSError("connection reset"))

    kept.backlog.settle()
    kept.line._backend.set_trial_state_values = lose_state
    kept.store.close(evaluation(architectures[0]))
    kept.line._backend.set_trial_state_values = state
    kept.backlog.settle()
    again = reopened(tmp_path, space)
    assert again.results == [evaluation(architectures[0])]
    assert len(read_trials(open_storage(tmp_path), "search")) == 1


def test_a_store_that_stays_away_ends_the_search_and_loses_nothing(kept, architectures, space, tmp_path):
    fill(kept.store, architectures[:1])
    kept.line.cut = True
    message = r"must be reachable, but has not been for 1\d\d seconds: no route to host; \d+ writes wait in .*pending"

    def search_on():
        with kept.backlog:
            for architecture in architectures[1:]:
                fill(kept.store, [architecture])
                kept.clock.seconds += 30

    with pytest.raises(InputError, match=message):
        search_on()
    assert kept.said[-1].endswith("pending.jsonl; the same command writes them and goes on")
    again = Kept(tmp_path, space)
    again.backlog.restore({"search": again.store})
    assert table(again.store) == table(kept.store)
    with pytest.raises(InputError, match="must be reachable"):
        kept.backlog.settle()


def test_settling_waits_for_the_store(kept, architectures, space, tmp_path):
    kept.line.cut = True
    fill(kept.store, architectures)

    def come_back():
        kept.line.cut = kept.clock.seconds < 50

    kept.clock.on_sleep = come_back
    kept.backlog.settle()
    assert 50 <= kept.clock.seconds <= 60
    assert table(reopened(tmp_path, space)) == table(kept.store)


def test_what_waits_takes_the_room_that_was_kept_and_then_waits_for_more(
    kept, architectures, space, tmp_path, monkeypatch
):
    append, room = Backlog._append, [3]

    def full(backlog, line):
        if not room[0] and (tmp_path / RESERVE).exists():
            raise OSError(28, "No space left on device")
        if room[0] < -4:
            raise OSError(28, "No space left on device")
        room[0] -= 1
        append(backlog, line)

    monkeypatch.setattr(Backlog, "_append", full)
    kept.line.cut = True
    kept.clock.on_sleep = lambda: setattr(kept.line, "cut", kept.clock.seconds < 50)
    with kept.backlog:
        assert (tmp_path / RESERVE).stat().st_size == 1 << 20
        fill(kept.store, architectures)
        assert not (tmp_path / RESERVE).exists()
        kept.backlog.settle()
    assert kept.clock.seconds >= 50
    assert table(reopened(tmp_path, space)) == table(kept.store)
    assert not (tmp_path / RESERVE).exists()


def test_an_error_that_does_not_pass_is_not_waited_for(kept, architectures, monkeypatch):
    fill(kept.store, architectures[:1])
    monkeypatch.setattr(kept.line._backend, "create_new_trial", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kept.store.open(architectures[1], 1)


def test_a_damaged_store_is_refused_at_once_and_not_waited_for(kept, architectures, monkeypatch):
    def damaged(*_, **__):
        raise DatabaseError("insert", {}, OSError("database disk image is malformed"))

    monkeypatch.setattr(kept.line._backend, "create_new_trial", damaged)
    with pytest.raises(InputError, match="must be the store of a run, but: database disk image is malformed"):
        kept.store.open(architectures[0], 1)
    assert (len(kept.backlog), kept.said) == (0, [])


def test_a_result_that_another_driver_has_written_stays(tmp_path, space, architectures):
    one = reopened(tmp_path, space)
    one.open(architectures[0], 1)
    two = reopened(tmp_path, space)
    one.close(evaluation(architectures[0]))
    two.close(Evaluation(architectures[0], {}, 1.0, "RuntimeError: late"))
    assert reopened(tmp_path, space).results == [evaluation(architectures[0])]


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{",
        '{"study": "other", "do": "open", "notes": {}, "genes": null}',
        '{"study": "search", "do": "sing", "notes": {}, "genes": null}',
        '{"study": "search", "do": "open", "notes": {"generation": 1}, "genes": {"embed_dim": 7}}',
        '{"study": "search", "do": "open", "notes": {"generation": 1}, "genes": null}',
        '{"study": "search", "do": "note", "notes": 3, "genes": null}',
    ],
)
def test_a_damaged_file_of_what_waits_is_refused_before_any_of_it_is_written(line, kept, space, tmp_path):
    (tmp_path / PENDING).write_text(
        f'{{"study": "search", "do": "note", "notes": {{"a": 1}}, "genes": null}}\n{line}\n'
    )
    with pytest.raises(InputError, match=r"pending\.jsonl must hold what a run could not write, but line 2 does not"):
        kept.backlog.restore({"search": kept.store})
    assert (tmp_path / PENDING).exists()
    assert reopened(tmp_path, space).study.user_attrs == {}


# Whole runs


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return nas.search(write_run(folder), folder / "run")


class Slow:
    """A reporter that takes its time for each result, and remembers what is said."""

    def __init__(self, seconds=0.0, on_result=lambda number: None):
        self.seconds, self.on_result, self.said, self.number = seconds, on_result, [], 0

    def say(self, line):
        self.said.append(line)

    def start(self, title, total, objectives, volume=None):
        pass

    def evaluated(self, _):
        self.number += 1
        self.on_result(self.number)
        time.sleep(self.seconds)


def test_a_search_whose_database_is_full_goes_on_when_there_is_room_again(plain, tmp_path, request):
    """SQLite itself says so; a limit on its pages does what a full disk does."""
    limit = [None]

    def set_limit(connection, *_):
        if limit[0] is not None:
            connection.execute(f"PRAGMA max_page_count = {limit[0]}")

    def on_result(number):
        if number == 8:
            limit[0] = 1  # as many as there are

    reporter = Slow(on_result=on_result)
    event.listen(Engine, "checkout", set_limit)
    request.addfinalizer(lambda: event.remove(Engine, "checkout", set_limit))
    recipe = write_run(tmp_path)
    with pytest.raises(InputError, match=r"must be reachable, but has not been for .* database or disk is full"):
        nas.search(recipe, tmp_path / "run", reporter=reporter, run={"storage_patience": 0})
    limit[0] = 1_000_000
    written = len(nas.Run(tmp_path / "run").evaluations())
    assert written < 24
    assert (tmp_path / "run" / PENDING).exists()
    again = Slow()
    same(nas.search(recipe, tmp_path / "run", reporter=again), plain)
    assert any(line.startswith("wrote ") for line in again.said)
    assert not (tmp_path / "run" / PENDING).exists()


def test_a_search_survives_a_server_that_is_away_for_a_while(postgres, plain, tmp_path):
    def on_result(number):
        if number == 6:
            postgres.stop()
            threading.Timer(4, postgres.start).start()

    reporter = Slow(0.05, on_result)
    run = nas.search(
        write_run(tmp_path), tmp_path / "run", reporter=reporter, run={"storage": postgres.url(PASSWORD)}
    )
    same(run, plain)
    assert any("is away" in line for line in reporter.said)
    assert any("is back" in line for line in reporter.said)
    assert not any(PASSWORD in line for line in reporter.said)


@pytest.mark.slow
def test_a_search_on_a_full_disk_stops_and_goes_on_without_loss_once_there_is_room(plain, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small disk can be mounted by root only")
    recipe = write_run(tmp_path)
    command = [sys.executable, "-c", "from nas.cli import main; main()", "search", str(recipe)]
    try:
        ballast = disk / "ballast"

        def fill_up(number):
            if number >= 8:
                with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                    while file.write(bytes(4096)):
                        pass

        with pytest.raises(InputError, match="must be reachable"):
            nas.search(recipe, disk / "run", reporter=Slow(on_result=fill_up), run={"storage_patience": 3})
        refused = subprocess.run([*command, "--out", disk / "run"], check=False, capture_output=True, text=True)
        assert refused.returncode == 2, refused.stderr
        assert "Traceback" not in refused.stderr
        ballast.unlink()
        same(nas.search(recipe, disk / "run"), plain)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
