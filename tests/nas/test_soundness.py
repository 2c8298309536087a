"""Stores that no run has written: refused in one line, and left as they are."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from test_cli_refusals import refused
from test_table_runs import write_run

import nas
from spaces import InputError

FIRST = "(SELECT min(trial_id) FROM trials WHERE state = 'COMPLETE')"
OTHER = f"(SELECT min(trial_id) FROM trials WHERE trial_id > {FIRST} AND state = 'COMPLETE')"


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Folder with a table, its recipe and a finished run; tests only read it."""
    folder = tmp_path_factory.mktemp("known")
    nas.search(write_run(folder, ("evaluations = 24", "evaluations = 6\nbaseline = false")), folder / "run")
    return folder


def attribute(name, value):
    return f"UPDATE trial_user_attributes SET value_json = '{value}' WHERE key = '{name}' AND trial_id = {FIRST}"


def of_study(name, value):
    return f"UPDATE study_user_attributes SET value_json = '{value}' WHERE key = '{name}'"


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (attribute("key", '"abc"'), "has the key 'abc'"),
        (f"DELETE FROM trial_user_attributes WHERE key = 'key' AND trial_id = {FIRST}", "has the key None"),
        (attribute("generation", "-1"), "has the generation -1"),
        (attribute("generation", '"x"'), "has the generation 'x'"),
        (attribute("duration", "NaN"), "has the duration nan"),
        (attribute("worker", "3"), "has the worker 3"),
        (attribute("acc", "NaN"), "is complete and has no finite acc, got nan"),
        (attribute("acc", '"0.5"'), "is complete and has no finite acc, got '0.5'"),
        (f"DELETE FROM trial_user_attributes WHERE key = 'acc' AND trial_id = {FIRST}", "finite acc, got None"),
        (attribute("acc", "half"), "Expecting value"),
        (f"DELETE FROM trial_params WHERE param_name = 'op' AND trial_id = {FIRST}", "is of no architecture"),
        (f"UPDATE trial_params SET param_value = 9 WHERE trial_id = {FIRST}", "cannot be read"),
        (
            f"UPDATE trial_params SET param_name = 'up' WHERE param_name = 'op' AND trial_id = {FIRST}",
            "is of no architecture",
        ),
        (f"UPDATE trials SET number = 77 WHERE trial_id = {FIRST}", "has the place"),
        (f"DELETE FROM trials WHERE trial_id = {FIRST}", "has rows of nothing"),
        (f"UPDATE trials SET state = 'DONE' WHERE trial_id = {FIRST}", "DONE"),
        (of_study("hypervolume_reference", '{"acc": "low", "energy_mj": 1}'), "hypervolume_reference is a number"),
        (of_study("hypervolume_reference", "[1, 2]"), "hypervolume_reference is a number for each of"),
        (of_study("stopped", '"bored"'), "stopped is one of"),
        ("UPDATE study_directions SET direction = 'MAXIMIZE'", "with the directions ['MAXIMIZE', 'MINIMIZE']"),
        ("UPDATE study_directions SET direction = 'UP'", "with the directions ['MAXIMIZE', 'MINIMIZE']"),
        ("DROP TABLE trial_user_attributes", "has lost what was in ['trial_user_attributes']"),
        ("DELETE FROM version_info", "has lost what was in ['version_info']"),
    ],
    ids=lambda text: text[:60],
)
def test_a_store_that_no_run_has_written_is_refused(statement, text, known, tmp_path, command, snapshot):
    run = shutil.copytree(known / "run", tmp_path / "run")
    with closing(sqlite3.connect(run / "study.db")) as store:
        assert store.execute(statement).rowcount != 0
        store.commit()
    before = snapshot(run)
    err = refused(command("search", known / "known.toml", "--out", run))
    assert "study.db must " in err
    assert text in err
    assert err.endswith("choose another run folder\n")
    assert snapshot(run) == before


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Folder with a table, its recipe and a finished asynchronous run; tests only read it."""
    folder = tmp_path_factory.mktemp("told")
    nas.search(
        write_run(folder, ("evaluations = 24", 'evaluations = 12\nbaseline = false\nmode = "async"')), folder / "run"
    )
    return folder


def of_last(name, value):
    last = f"(SELECT max(trial_id) FROM trial_user_attributes WHERE key = '{name}')"
    return f"UPDATE trial_user_attributes SET value_json = '{value}' WHERE key = '{name}' AND trial_id = {last}"


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (of_last("told", '"x"'), "has the told 'x'"),
        (of_last("told", "true"), "has the told True"),
        (of_last("told", "-1"), "has the told -1"),
        (of_last("told", "77"), "has no result 11 and has result 77, or has it twice"),
        (of_last("told", "3"), "has no result 4 and has result 3, or has it twice"),
        ("DELETE FROM trial_user_attributes WHERE key = 'told' AND value_json = '0'", "has no result 0"),
        (of_last("after", "0.5"), "has the after 0.5"),
        (of_last("after", "null"), "has the after None"),
        (of_last("after", "13"), "has trial 11 after 13 results, which must be 6 or more"),
        (of_last("after", "1"), "has trial 11 after 1 results, which must be 6 or more"),
        ("DELETE FROM trial_user_attributes WHERE key = 'after'", "has told the result of trial 0, which it has not"),
        (of_study("mode", '"both"'), "whose mode is one of ['async', 'generational'], got 'both'"),
        (of_study("mode", "[1]"), "whose mode is one of ['async', 'generational'], got [1]"),
        (of_study("planned", "0"), "whose planned is a whole number, 1 or more, got 0"),
        (of_study("planned", '"12"'), "whose planned is a whole number, 1 or more, got '12'"),
        (
            "INSERT INTO study_user_attributes (study_id, key, value_json) "
            "SELECT study_id, 'idle_share', '1.5' FROM studies WHERE study_name = 'search'",
            "whose idle_share is from 0 to 1, got 1.5",
        ),
    ],
    ids=lambda text: text[:60],
)
def test_orders_and_ways_that_no_run_has_are_refused(statement, text, told, tmp_path, command, snapshot):
    run = shutil.copytree(told / "run", tmp_path / "run")
    with closing(sqlite3.connect(run / "study.db")) as store:
        assert store.execute(statement).rowcount != 0
        store.commit()
    before = snapshot(run)
    for arguments in (["search", told / "known.toml", "--out", run], ["status", run]):
        err = refused(command(*arguments))
        assert text in err
        assert err.endswith("choose another run folder\n")
    assert snapshot(run) == before


def test_orders_that_a_run_has_while_it_goes_on_are_sound(told, tmp_path):
    """The last results are not told yet, though one is half written."""
    run = shutil.copytree(told / "run", tmp_path / "run")
    with closing(sqlite3.connect(run / "study.db")) as store:
        for number in (11, 10):
            store.execute(f"UPDATE trials SET state = 'RUNNING', datetime_complete = NULL WHERE number = {number}")
        store.execute(
            "DELETE FROM trial_values WHERE trial_id IN (SELECT trial_id FROM trials WHERE state = 'RUNNING')"
        )
        store.commit()
    assert (nas.Run(run).evaluations()["state"] == "running").sum() == 2


@pytest.mark.parametrize("verb", ["front", "report"])
def test_what_no_run_has_written_is_not_shown(verb, known, tmp_path, command, snapshot):
    run = shutil.copytree(known / "run", tmp_path / "run")
    with closing(sqlite3.connect(run / "study.db")) as store:
        store.execute(attribute("acc", "NaN"))
        store.commit()
    before = snapshot(run)
    assert "is complete and has no finite acc, got nan" in refused(command(verb, run))
    assert snapshot(run) == before


def test_two_trials_of_one_architecture_are_refused(known, tmp_path):
    run = shutil.copytree(known / "run", tmp_path / "run")
    with closing(sqlite3.connect(run / "study.db")) as store:
        for table, name in (("trial_params", "param_name"), ("trial_user_attributes", "key")):
            column = "param_value" if table == "trial_params" else "value_json"
            store.execute(
                f"UPDATE {table} AS new SET {column} = (SELECT old.{column} FROM {table} AS old WHERE "
                f"old.{name} = new.{name} AND old.trial_id = {FIRST}) WHERE trial_id = {OTHER}"
            )
        store.commit()
    with pytest.raises(
        InputError, match=r"trial \d+ of study 'search' is of the architecture of trial \d+; restore it"
    ):
        nas.Run(run).evaluations()


def test_a_few_bytes_are_no_empty_store(known, tmp_path):
    run = shutil.copytree(known / "run", tmp_path / "run")
    (run / "study.db").write_bytes(b"S")
    with pytest.raises(InputError, match="must be the store of a run, but: file is not a database"):
        nas.Run(run).front()
    assert (run / "study.db").read_bytes() == b"S"


def test_what_utf_8_does_not_have_is_shown_in_the_report(known, tmp_path, command):
    run = shutil.copytree(known / "run", tmp_path / "run")
    with closing(sqlite3.connect(run / "study.db")) as store:
        store.execute(
            "INSERT INTO study_user_attributes (study_id, key, value_json) "
            "SELECT study_id, 'warm_start', '\"odd \\ud800\"' FROM studies WHERE study_name = 'search'"
        )
        store.commit()
    assert command("report", run)[0] == 0
    assert "odd \\ud800" in (run / "report.html").read_text()


def test_a_store_that_was_just_created_is_an_empty_one(known, tmp_path):
    run = shutil.copytree(known / "run", tmp_path / "run")
    (run / "study.db").write_bytes(b"")
    assert nas.Run(run).evaluations().empty
    assert (run / "study.db").read_bytes() == b""
    assert len(nas.search(known / "known.toml", run).evaluations()) == 6


def test_a_warm_start_from_a_store_that_no_run_has_written_is_refused(known, tmp_path):
    run = shutil.copytree(known / "run", tmp_path / "run")
    with closing(sqlite3.connect(run / "study.db")) as store:
        store.execute(attribute("acc", "NaN"))
        store.commit()
    with pytest.raises(InputError, match="is complete and has no finite acc"):
        nas.search(known / "known.toml", tmp_path / "new", search={"warm_start": str(run)})
    assert not (tmp_path / "new").exists()
