"""Fuzzed run folders: refused in one line and left as they are, or read, and finished where they were interrupted."""

import json
import math
import shutil
import sqlite3
from contextlib import closing

import pandas as pd
import pytest
from handed import SOURCE, TABLE, answered, command, digests, folder, fuzz, portions, results, tried
from hypothesis import strategies as st
from mutations import DEEP, LONE, damaged, mutated, toml_text

import nas
from nas.progress import Silent

FILES = ("run.json", "study.db")


class Killed(BaseException):
    """Ends a search as a signal would."""


class Killer(Silent):
    """Kills the driver after so many results."""

    def __init__(self, results):
        self.left = results

    def evaluated(self, evaluation):
        self.left -= 1
        if self.left <= 0:
            raise Killed


def make_base(place):
    """Write a table with its recipe, a finished run of it, and one that was killed."""
    results().to_csv(place / "results.csv", index=False)
    results()[["width", "op", "wide"]].iloc[[0, 7]].to_csv(place / "list.csv", index=False)
    search = {"baseline": True, "stall": None, "seconds": None, "warm_start": "list.csv"}
    values = {**TABLE, "search": {**TABLE["search"], **search}}
    (place / "recipe.toml").write_text(toml_text(values))
    nas.search(place / "recipe.toml", place / "finished")
    with pytest.raises(Killed):
        nas.search(place / "recipe.toml", place / "killed", reporter=Killer(5))
    return place


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Folder of a recipe of a source of the user's own, with a finished run of it, and one that was killed."""
    place = tmp_path_factory.mktemp("own")
    (place / "recipe.toml").write_text(toml_text(SOURCE))
    nas.search(place / "recipe.toml", place / "finished")
    with pytest.raises(Killed):
        nas.search(place / "recipe.toml", place / "killed", reporter=Killer(5))
    return place


def check_folder(place, verb):
    """Check what a command makes of a run folder that was changed."""
    run, before = place / "run", digests(place)
    if verb == "search":
        done = answered(command("search", place / "recipe.toml", "--out", run, "-f", "json"))
    elif verb == "front":
        done = answered(command("front", run, "-f", "json"))
    elif verb == "table":
        done = answered(command("front", run))
    else:
        done = answered(command("report", run))
    if not done or verb in ("front", "table"):
        assert digests(place) == before, verb
    if done and verb == "search":
        check_run(nas.Run(run), True)
    elif done:  # what this command did not look at may still be refused
        tried(lambda: check_run(nas.Run(run), False))


def check_run(run, finished):
    """Check that a run reads as one."""
    for study in ("search", "random", "test", "reference"):
        frame = run.evaluations(study)
        assert frame["key"].is_unique
        assert frame["state"].isin(["complete", "failed", "running"]).all()
        complete = frame[frame["state"] == "complete"]
        assert all(math.isfinite(value) for name in run.metrics for value in complete[name])
        for row in frame.itertuples():
            genes = {name: getattr(row, name) for name in run.space.columns if pd.notna(getattr(row, name))}
            assert run.space.architecture(genes).key == row.key
    assert run.front()["key"].is_unique
    assert math.isfinite(run.hypervolume())
    if finished:
        frame = run.evaluations()
        assert len(frame) == run.config.search.evaluations
        assert (frame["state"] != "running").all()
        assert run.stopped == "evaluations"


verbs = st.sampled_from(["search", "search", "front", "table", "report"])
states = st.sampled_from(["finished", "killed"])


@portions(12, 400)
def test_a_run_whose_files_are_damaged_is_finished_or_refused(examples, base):
    whole = {(state, name): (base / state / name).read_bytes() for state in ("finished", "killed") for name in FILES}
    others = {state: [path.name for path in sorted((base / state).iterdir())] for state in ("finished", "killed")}

    def check(state, verb, change):
        kind, name, content = change
        with folder() as place:
            copy_of(base, state, place)
            path = place / "run" / name
            if kind == "write":
                path.write_bytes(content)
            elif kind == "swap":
                path.write_bytes(
                    (place / "run" / content).read_bytes() if (place / "run" / content).exists() else b""
                )
            elif path.exists():
                path.unlink()
                if kind == "folder":
                    path.mkdir()
            check_folder(place, verb)

    writes = st.sampled_from(sorted(whole)).flatmap(
        lambda place: st.tuples(st.just("write"), st.just(place[1]), damaged(whole[place]))
    )
    empty = st.tuples(
        st.just("write"), st.sampled_from(FILES), st.sampled_from([b"", b"{}", b"[]", b"null", b"\0" * 99])
    )
    names = st.sampled_from(sorted({*others["finished"], *others["killed"]}))
    moves = st.tuples(st.sampled_from(["swap", "remove", "folder"]), names, names)
    fuzz(check, examples, state=states, verb=verbs, change=st.one_of(writes, writes, empty, moves))


def copy_of(base, state, place):
    """Copy a run with its recipe and table into a folder."""
    for path in base.iterdir():
        if path.is_file():
            shutil.copy(path, place / path.name)
    shutil.copytree(base / state, place / "run")


@portions(12, 400)
@pytest.mark.parametrize("kind", ["base", "own"])
def test_a_run_whose_record_has_another_structure_is_finished_or_refused(kind, examples, request):
    base = request.getfixturevalue(kind)
    kept = {state: json.loads((base / state / "run.json").read_bytes()) for state in ("finished", "killed")}

    def check(case, verb):
        state, values = case
        with folder() as place:
            copy_of(base, state, place)
            (place / "run" / "run.json").write_text(json.dumps(values))
            check_folder(place, verb)

    def changed(state):
        """Return records of which anything has changed, or something of where scores come from."""
        values = kept[state]
        part = {name: values[name] for name in ("source", "space", "metrics")}
        return st.one_of(mutated(values, [LONE]), mutated(part, [LONE]).map(lambda new: {**values, **new}))

    cases = states.flatmap(lambda state: st.tuples(st.just(state), changed(state)))
    fuzz(check, examples, case=cases, verb=verbs)


CELLS = st.sampled_from(
    [None, 0, 1, -1, 2, 3, 99, 2**40, 0.5, math.inf, -math.inf, "", "x", "acc", "op", "key", "generation", "failure",
     "COMPLETE", "FAIL", "RUNNING", "WAITING", "PRUNED", "FINITE", "INF_POS", "INF_NEG", "MAXIMIZE", "MINIMIZE",
     "search", "random", "NaN", "Infinity", "null", "true", "[]", "{}", "0.5", "1e400", '"x"', '"\\ud800"', "[1, 2]",
     '{"acc": 0.1}', '{"acc": "x", "energy_mj": 1}', "2020-01-01 00:00:00", "[" * DEEP, b"\xff",
     '{"name": "CategoricalDistribution", "attributes": {"choices": [1]}}',
     '{"name": "FloatDistribution", "attributes": {"low": 0, "high": 1, "log": false, "step": null}}']
)  # fmt: skip

USED = (
    "trials", "trial_params", "trial_user_attributes", "trial_values", "studies", "study_user_attributes",
    "study_directions", "study_system_attributes", "version_info", "alembic_version",
)  # fmt: skip


@st.composite
def row_changes(draw):
    """Return changes of rows of a store: table, kind, row and column as shares of their number, value."""
    table = draw(st.sampled_from([*USED[:4], *USED]))
    kind = draw(st.sampled_from(["set", "set", "set", "remove", "repeat", "swap", "empty", "drop"]))
    shares = st.integers(0, 999)
    return table, kind, draw(shares), draw(shares), draw(shares), draw(CELLS)


def change_rows(path, changes):
    """Change rows of an SQLite file, whatever its schema says of them."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        for table, kind, row, other, column, value in changes:
            try:
                names = [each[1] for each in connection.execute(f"PRAGMA table_info({table})")]
                rowids = [each[0] for each in connection.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
                if kind == "drop":
                    connection.execute(f"DROP TABLE {table}")
                elif kind == "empty":
                    connection.execute(f"DELETE FROM {table}")
                elif rowids:
                    first, second = (rowids[share % len(rowids)] for share in (row, other))
                    name = names[column % len(names)]
                    if kind == "set":
                        connection.execute(f"UPDATE {table} SET {name} = ? WHERE rowid = ?", (value, first))
                    elif kind == "remove":
                        connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (first,))
                    elif kind == "repeat":
                        rest = ", ".join(names[1:])
                        connection.execute(
                            f"INSERT INTO {table} ({rest}) SELECT {rest} FROM {table} WHERE rowid = ?", (first,)
                        )
                    elif kind == "swap":
                        query = f"SELECT {name} FROM {table} WHERE rowid = ?"
                        (a,), (b,) = (connection.execute(query, (each,)).fetchone() for each in (first, second))
                        connection.execute(f"UPDATE {table} SET {name} = ? WHERE rowid = ?", (b, first))
                        connection.execute(f"UPDATE {table} SET {name} = ? WHERE rowid = ?", (a, second))
            except sqlite3.Error:  # the schema does not have it so
                continue
        connection.commit()


@portions(24, 700)
def test_a_run_whose_store_has_other_rows_is_finished_or_refused(examples, base):
    def check(state, changes, verb):
        with folder() as place:
            copy_of(base, state, place)
            change_rows(place / "run" / "study.db", changes)
            check_folder(place, verb)

    fuzz(check, examples, state=states, changes=st.lists(row_changes(), min_size=1, max_size=2), verb=verbs)
