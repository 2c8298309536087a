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
