"""What a report says to run it again: files that are the recipe, and commands that are understood."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
from fakes import LITTLE, METRICS, write_recipe
from test_table_runs import write_run

import nas
from nas.cli import app
from nas.folder import RUN
from nas.reproducing import caveats, commands, recipe_files, toml
from spaces import load_space


def written(run, folder):
    """Write the files of a run into a folder, and return the recipe's path."""
    files = recipe_files(run)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / next(iter(files))


def test_the_files_of_a_run_are_its_recipe_and_its_space(finished, tmp_path):
    path = written(finished, tmp_path)
    recipe = nas.load_recipe(path)
    assert recipe.space == str(tmp_path / "space.toml")
    theirs, own = recipe.to_dict(), finished.config.to_dict()
    assert {**theirs, "space": None} == {**own, "space": None}
    assert load_space(tmp_path / "space.toml") == finished.space


def test_a_space_file_has_the_reference_of_the_run(copied, tmp_path):
    by_hand = nas.Run(copied).space.sample(np.random.default_rng(3))
    values = json.loads((copied / RUN).read_text())
    values["reference"] = by_hand.to_dict()
    (copied / RUN).write_text(json.dumps(values))
    assert load_space(nas.load_recipe(written(nas.Run(copied), tmp_path)).space).reference == by_hand


def test_the_files_of_a_run_have_the_defaults_of_keys_that_its_record_lacks(copied, tmp_path):
    values = json.loads((copied / RUN).read_text())
    del values["recipe"]["workers"], values["recipe"]["metrics"]
    (copied / RUN).write_text(json.dumps(values))
    run = nas.Run(copied)
    assert nas.load_recipe(written(run, tmp_path)).metrics == run.config.metrics


def test_the_files_of_a_run_make_it_again(finished, tmp_path, comparable, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = nas.search(written(finished, tmp_path), "again", search={"evaluations": 6, "baseline": False})
    expected = comparable(finished, rows=6)
    assert comparable(again, rows=6)["key"].tolist() == expected["key"].tolist()
    assert comparable(again, rows=6)["accuracy"].tolist() == expected["accuracy"].tolist()


def test_a_space_of_a_module_becomes_a_file_and_an_algorithm_of_one_is_said_to_be_missing(copied, tmp_path):
    values = json.loads((copied / RUN).read_text())
    values["recipe"]["space"] = "no_such_module:space"
    values["recipe"]["search"] |= {"algorithm": "no_such_module:Own", "expand": 1}
    (copied / RUN).write_text(json.dumps(values))
    run = nas.Run(copied)
    recipe = nas.load_recipe(written(run, tmp_path))
    assert load_space(recipe.space) == run.space
    assert recipe.search.algorithm == "no_such_module:Own"
    assert "The search is that of no_such_module:Own, whose code is not here." in caveats(run)


def test_models_warm_starts_and_stores_are_named_without_their_folders(tmp_path):
    board = 'title = "t"\nsource = "s"\nchecked = "measured"\n[operations]\nmac = 9.2\naccumulate = 1.8\n'
    (tmp_path / "board.toml").write_text(board)
    (tmp_path / "known.json").write_text("[]")
    metrics = 'metrics = ["accuracy", "energy_mj", "energy_mj:board.toml"]'
    recipe = write_recipe(tmp_path, LITTLE, (METRICS, metrics))
    run = nas.train(recipe, tmp_path / "run", run={"storage": f"journal:{tmp_path}/shared.log"})
    values = json.loads((run.folder / RUN).read_text())
    values["warm_start"] = {"sha256": "abc"}
    values["recipe"]["search"]["warm_start"] = str(tmp_path / "known.json")
    values["recipe"]["workers"]["address"] = None
    (run.folder / RUN).write_text(json.dumps(values))
    run = nas.Run(run.folder)
    files = recipe_files(run)
    assert list(files) == ["tiny.toml", "space.toml", "board.toml"]
    assert not [name for name, text in files.items() if str(tmp_path) in text]
    assert tomllib.loads(files["board.toml"]) == tomllib.loads(board)
    found = tomllib.loads(files["tiny.toml"])
    assert found["metrics"][-1] == "energy_mj:board.toml"
    assert found["search"]["warm_start"] == "known.json"
    assert "storage" not in found
    assert any("known.json, of SHA-256 abc" in line for line in caveats(run))


def test_commands_are_understood(finished):
    group = typer.main.get_command(app)
    lines = [line for line in commands(finished) if line.startswith("nas ")]
    assert [line.split()[1] for line in lines] == ["search", "front", "report"]
    for line in lines:
        _, verb, *words = shlex.split(line)
        group.commands[verb].make_context(verb, words)


def test_the_commands_of_the_page_on_reports_are_understood():
    text = (Path(__file__).parents[2] / "docs/report.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("nas ")]
    assert [line.split()[1] for line in lines] == ["search", "report", "dashboard"]
    group = typer.main.get_command(app)
    for line in lines:
        _, verb, *words = shlex.split(line)
        group.commands[verb].make_context(verb, words)


def test_a_table_is_named_with_its_fingerprint(tmp_path):
    run = nas.search(write_run(tmp_path), tmp_path / "run")
    path = written(run, tmp_path)
    assert nas.load_recipe(path).lookup.file == str(tmp_path / "results.csv")
    assert any("The table is results.csv, with the SHA-256 " in line for line in caveats(run))
    assert str(tmp_path) not in path.read_text()


@pytest.mark.parametrize(
    "values",
    [
        {"a": 1, "b": 1e-5, "c": True, "d": ["x", 2], "t": {"k": "v", "n": None, "deep": {"l": [0.5], "e": {}}}},
        {"text": 'quotes " \\ and \n control \x7f \x01 and \N{GREEK SMALL LETTER MU} \U0001f600'},
        {"odd keys": {"a.b": 1, "ü": 2, "": 3, "x y": {"z ": 4}}},
        {"empty": [], "table": {}},
    ],
)
def test_toml_reads_back_as_what_was_written(values):
    def without_none(value):
        if isinstance(value, dict):
            return {key: without_none(inner) for key, inner in value.items() if inner is not None}
        return value

    expected = {key: value for key, value in without_none(values).items() if value != {}}
    assert tomllib.loads(toml(values)) == expected
