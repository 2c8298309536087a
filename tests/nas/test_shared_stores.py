"""Stores outside the run folder: databases and journals, that several runs share, and that keep no password."""

import json
import pickle
from pathlib import Path

import optuna
import pandas as pd
import pytest
from fakes import OBJECTIVES, evaluation, half_failing, lasting
from postgres import PASSWORD
from test_cli_refusals import refused
from test_table_runs import write_run

import nas
from nas import backend
from nas.address import parse_address
from nas.backend import open_storage
from nas.durable import Backlog
from nas.storage import Store, Write, read_attributes, read_trials
from spaces import InputError

STUDIES = ("search", "random", "test", "reference")
KINDS = ["sqlite", "journal", "postgres"]


@pytest.fixture
def shared(request, tmp_path):
    """Return what ``--storage`` is given for a kind of store, as a user would."""

    def shared(kind):
        if kind == "postgres":
            return request.getfixturevalue("postgres").url(PASSWORD)
        return {"sqlite": f"sqlite:///{tmp_path / 'all.db'}", "journal": f"journal:{tmp_path / 'all.log'}"}[kind]

    return shared


@pytest.fixture
def opened(shared, tmp_path, request):
    def opened(kind, prefix=""):
        return open_storage(tmp_path, parse_address(shared(kind), tmp_path), prefix or f"{request.node.name}/")

    return opened


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A finished run whose store is in its folder."""
    folder = tmp_path_factory.mktemp("plain")
    return nas.search(write_run(folder), folder / "run")


def same(run, other, studies=STUDIES):
    for study in studies:
        one, two = (lasting(each.evaluations(study)) for each in (run, other))
        pd.testing.assert_frame_equal(one, two)
    assert run.reference == other.reference


def texts(folder):
    """Return all that is written in a folder as bytes."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_recorded_is_read_back(kind, opened, space):
    store = Store(opened(kind), "search", space, OBJECTIVES)
    architectures = [space.smallest(), space.largest(), *list(space.neighbours(space.largest()))[:3]]
    for architecture in architectures:
        store.open(architecture, 2, after=1)
    for told, architecture in enumerate(reversed(architectures[1:])):
        store.close(half_failing(architecture), told=told)
    store.take(evaluation(space.architecture(next(iter(space.neighbours(space.smallest()))).genes)), 0)
    store.study.set_user_attr("said", {"so": [1, None]})
    again = Store(opened(kind), "search", space, OBJECTIVES)
    assert again.known == store.known
    assert (again.opened, again.results, again.told) == (store.opened, store.results, store.told)
    assert again.proposals == store.proposals == [(architecture, 1) for architecture in architectures]
    assert again.study.user_attrs["said"] == {"so": [1, None]}
    assert [trial.number for trial in read_trials(opened(kind), "search")] == list(range(store.opened))


@pytest.mark.parametrize("kind", KINDS)
def test_studies_of_two_runs_are_apart(kind, opened, space):
    one, two = (Store(opened(kind, f"{name}/"), "search", space, OBJECTIVES) for name in ("one", f"two {kind}"))
    one.open(space.largest(), 1)
    two.study.set_user_attr("mine", 2)
    assert Store(opened(kind, f"two {kind}/"), "search", space, OBJECTIVES).opened == 0
    assert "mine" not in read_attributes(opened(kind, "one/"), "search")


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_finds_the_same_wherever_its_store_is(kind, shared, plain, tmp_path):
    recipe, url = write_run(tmp_path), shared(kind)
    run = nas.search(recipe, tmp_path / "a", run={"storage": url})
    same(run, plain)
    nas.search(recipe, tmp_path / "b", run={"storage": url, "seed": 8}, search={"evaluations": 6})
    same(run, plain)
    assert not (tmp_path / "a" / "study.db").exists()
    same(nas.search(recipe, tmp_path / "a", run={"storage": url}), plain)
    for name in ("a", "b"):
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert record["id"].startswith("known-")
        assert record["recipe"]["storage"] == parse_address(url, tmp_path).text
        assert (tmp_path / name / "study.url").read_text().strip() == record["recipe"]["storage"]


def test_the_store_that_a_run_has_begun_in_need_not_be_named_again_and_cannot_change(plain, tmp_path, snapshot):
    recipe, url = write_run(tmp_path), f"journal:{tmp_path / 'all.log'}"
    nas.search(recipe, tmp_path / "a", run={"storage": url}, search={"evaluations": 12})
    same(nas.search(recipe, tmp_path / "a", search={"evaluations": 24}), plain, ["search", "random"])
    before = snapshot(tmp_path / "a")
    for changes in ({"storage": "journal:other.log"}, {"storage": f"sqlite:///{tmp_path}/all.db"}):
        with pytest.raises(InputError, match="a run goes on in the store it has begun in"):
            nas.search(recipe, tmp_path / "a", run=changes)
    assert snapshot(tmp_path / "a") == before
    nas.search(recipe, tmp_path / "b")
    with pytest.raises(InputError, match=r"which is .*study\.db, got journal:"):
        nas.search(recipe, tmp_path / "b", run={"storage": url})


def test_a_warm_start_reads_a_shared_store(plain, tmp_path):
    recipe, url = write_run(tmp_path), f"journal:{tmp_path / 'all.log'}"
    nas.search(recipe, tmp_path / "a", run={"storage": url})
    run = nas.search(recipe, tmp_path / "b", search={"warm_start": str(tmp_path / "a"), "evaluations": 4})
    source = nas.Run(tmp_path / "a")
    complete = pd.concat([source.evaluations(study).query("state == 'complete'") for study in ("search", "random")])
    assert (run.evaluations()["generation"] == 0).sum() == complete["key"].nunique() > 10


def test_no_file_of_a_run_and_no_message_has_the_password(postgres, command, tmp_path, monkeypatch):
    recipe, folder = write_run(tmp_path), tmp_path / "run"
    code, _, err = command("search", recipe, "--out", folder, "--storage", postgres.url(PASSWORD))
    assert code == 0, err
    for secret in (PASSWORD, PASSWORD.replace("@", "%40").replace("/", "%2F")):
        assert secret.encode() not in texts(folder)
    assert postgres.url().encode() in texts(folder)
    message = refused(command("front", folder))
    assert "must be the store of a run, but: " in message
    assert "SPIKEFRONT_STORAGE_PASSWORD" in message
    monkeypatch.setenv("SPIKEFRONT_STORAGE_PASSWORD", PASSWORD)
    assert command("front", folder)[0] == 0
    monkeypatch.setenv("SPIKEFRONT_STORAGE_PASSWORD", "wr0ng-one")
    assert "wr0ng-one" not in refused(command("front", folder))
    assert nas.Run(folder, postgres.url(PASSWORD)).evaluations().shape[0] == 24


def test_a_server_that_is_not_there_is_refused_without_a_traceback(command, tmp_path):
    pytest.importorskip("psycopg2")
    url = "postgresql+psycopg2://tester:s3cr3t@127.0.0.1:1/postgres"
    message = refused(command("search", write_run(tmp_path), "--out", tmp_path / "run", "--storage", url))
    assert message.splitlines()[-1].startswith("error: postgresql+psycopg2://tester@127.0.0.1:1/postgres must be")
    assert "s3cr3t" not in message
    assert not (tmp_path / "run" / "study.url").exists()


def test_a_database_whose_driver_is_missing_is_refused_with_the_way_to_get_it(tmp_path):
    address = parse_address("mysql+oursql://user@host/name", tmp_path)
    with pytest.raises(InputError, match="oursql"):
        open_storage(tmp_path, address)


# Journals


def test_a_journal_holds_lines_of_json_and_is_never_unpickled(tmp_path, space, monkeypatch):
    def refuse(*_):
        raise AssertionError("a journal must not be unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    address = parse_address("journal:all.log", tmp_path)
    for _ in range(2):
        store = Store(open_storage(tmp_path, address), "search", space, OBJECTIVES)
        store.open(space.largest(), 1)
        store.close(evaluation(space.largest()))
    lines = (tmp_path / "all.log").read_text().splitlines()
    assert len(lines) > 5
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert not isinstance(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "all.log")),
        optuna.storages.journal._base.BaseJournalSnapshot,
    )


@pytest.mark.parametrize("torn", ["{", '{"op_code":4,"study_id', "x" * 10000])
def test_a_line_that_a_full_disk_cut_off_is_taken_away_before_the_next_one(torn, tmp_path, space):
    address = parse_address("journal:all.log", tmp_path)
    store = Store(open_storage(tmp_path, address), "search", space, OBJECTIVES)
    store.open(space.largest(), 1)
    with (tmp_path / "all.log").open("a") as file:
        file.write(torn)
    store.close(evaluation(space.largest()))
    assert torn not in (tmp_path / "all.log").read_text().splitlines()
    again = Store(open_storage(tmp_path, address), "search", space, OBJECTIVES)
    assert again.known == {space.largest(): evaluation(space.largest())}


def test_a_journal_that_is_something_else_is_refused(tmp_path):
    path = tmp_path / "all.log"
    path.write_text("this is\nno journal\n")
    with pytest.raises(InputError, match=r"all\.log must be the store of a run, but: .*; choose another storage"):
        open_storage(tmp_path, parse_address("all.log", tmp_path))
    assert path.read_text() == "this is\nno journal\n"


class Thief:
    """A lock whose file somebody else takes away, the next so many times that it is held."""

    def __init__(self, lock, path):
        self._lock, self._path, self.times = lock, path, 1

    def acquire(self):
        self._lock.acquire()
        if self.times:
            self.times -= 1
            self._path.unlink()
        return True

    def release(self):
        self._lock.release()


@pytest.mark.parametrize("torn", ["", "{"])
def test_a_journal_whose_lock_is_taken_away_is_written_again_once(torn, tmp_path, space):
    address = parse_address("journal:all.log", tmp_path)
    storage, said, now = open_storage(tmp_path, address), [], [0.0]
    backlog = Backlog(tmp_path, storage, 100.0, said.append, now=lambda: now[0])
    store = Store(storage, "search", space, OBJECTIVES, backlog.put)
    with (tmp_path / "all.log").open("a") as file:
        file.write(torn)
    journal = storage.backend._backend
    journal._lock = Thief(journal._lock, tmp_path / "all.log.lock")
    store.open(space.largest(), 1)
    assert "is away (its lock file was taken away while it was held" in said[0]
    now[0] = 5.0
    store.close(evaluation(space.largest()))
    assert len(backlog) == 0
    again = Store(open_storage(tmp_path, address), "search", space, OBJECTIVES)
    assert again.results == [evaluation(space.largest())]
    assert len(read_trials(open_storage(tmp_path, address), "search")) == 1


def test_a_journal_whose_lock_is_taken_away_as_a_run_begins_is_refused_in_one_line(tmp_path, space, monkeypatch):
    lock = backend.JournalFileOpenLock
    monkeypatch.setattr(backend, "JournalFileOpenLock", lambda path: Thief(lock(path), Path(f"{path}.lock")))
    storage = open_storage(tmp_path, parse_address("journal:all.log", tmp_path))
    with pytest.raises(InputError, match=r"all\.log must be the store of a run, but: its lock file was taken away"):
        Store(storage, "search", space, OBJECTIVES)


def test_a_write_is_plain_values(space):
    write = Write("search", "open", {"generation": 1}, space.largest())
    assert json.loads(json.dumps(write.to_dict()))["genes"] == space.largest().genes
