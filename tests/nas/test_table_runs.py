"""Runs on tables of known results: the whole engine and command, resuming, failures, refusals."""

import io
import json
import os
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import lasting
from test_cli_refusals import refused
from test_tables import write

import nas
from nas.config import load_recipe
from nas.results import non_dominated
from spaces import InputError

RECIPES = Path(__file__).parents[2] / "benchmarks" / "tables"
REAL = os.environ.get("SPIKEFRONT_DATA")
real = pytest.mark.skipif(
    not REAL or not Path(REAL, "nas").is_dir(), reason="SPIKEFRONT_DATA names no folder with the real tables"
)

RECIPE = """
name = "known"
seed = 3

[table]
file = "results.csv"
genes = ["width", "op", "wide"]
metrics = { acc = "max", energy_mj = "min" }
test = { acc = "acc_held_out" }

[search]
objectives = ["acc", "energy_mj"]
population = 6
evaluations = 24
"""


def results(rows=None):
    """Return a table of 5 x 3 x 2 combinations, or the first ones, of which one in seven has no accuracy."""
    frame = pd.DataFrame(list(product([8, 16, 32, 64, 128], ["conv", "none", "skip"], [False, True])))
    frame.columns = ["width", "op", "wide"]
    rng = np.random.default_rng(0)
    frame["acc"] = 1 - 4 / frame["width"] - 0.2 * (frame["op"] == "none") + rng.normal(0, 0.03, len(frame))
    frame["acc_held_out"] = frame["acc"] - 0.01
    frame["energy_mj"] = frame["width"] * (1 + frame["wide"]) * 1e-3
    frame.loc[::7, "acc"] = np.nan
    return frame.sample(frac=1, random_state=1).head(rows)


def write_run(folder, *changes, table=None, file="results.csv"):
    """Write a table and its recipe with some texts replaced into a folder; return the recipe's path."""
    write(folder / file, results() if table is None else table)
    text = RECIPE.replace("results.csv", file)
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} must stand once in the recipe"
        text = text.replace(old, new)
    (folder / "known.toml").write_text(text)
    return folder / "known.toml"


def true_front(table):
    sound = table.dropna()
    keep = non_dominated(sound[["acc", "energy_mj"]].to_numpy(), {"acc": "max", "energy_mj": "min"})
    return sound[keep].sort_values("acc", ascending=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("known")


@pytest.fixture(scope="module")
def known(folder):
    """A finished run on a table; tests only read it."""
    return nas.search(write_run(folder), folder / "run")


# The command


@pytest.mark.parametrize("file", ["results.npz", "results.csv.gz", "results.parquet"])
def test_the_command_finds_the_true_front_of_a_table_that_it_walks_through(file, command, tmp_path):
    recipe = write_run(tmp_path, ("evaluations = 24", "evaluations = 500"), file=file)
    code, out, _ = command("search", recipe, "--out", tmp_path / "run", "-f", "csv")
    assert code == 0
    front = pd.read_csv(io.StringIO(out))
    pd.testing.assert_frame_equal(front, pd.read_csv(tmp_path / "run" / "front.csv"))
    expected = true_front(results())
    assert front["width"].tolist() == expected["width"].tolist()
    np.testing.assert_allclose(front["acc"], expected["acc"], rtol=0, atol=0)
    np.testing.assert_allclose(front["test_acc"], expected["acc_held_out"], rtol=0, atol=0)
    np.testing.assert_allclose(front["test_energy_mj"], expected["energy_mj"], rtol=0, atol=0)
    frame = nas.Run(tmp_path / "run").evaluations()
    assert len(frame) == len(results())
    assert (frame["state"] == "failed").sum() == results()["acc"].isna().sum() == 5


def test_front_and_report_need_no_table_file(command, tmp_path):
    kept = tmp_path / "run"
    known = nas.search(write_run(tmp_path), kept)
    (tmp_path / "results.csv").unlink()
    (kept / "report.html").unlink()
    code, out, err = command("front", kept, "-f", "json")
    assert (code, err) == (0, "")
    assert [row["key"] for row in json.loads(out)] == known.front()["key"].tolist()
    code, out, _ = command("front", kept)
    assert all(name in out for name in ("acc", "test_acc", "width", "op", "wide"))
    code, out, err = command("report", kept)
    assert (code, err) == (0, "")
    page = (kept / "report.html").read_text()
    assert "looked up in a table; columns with" in page
    assert "results.csv, SHA-256 " in page
    assert "op skip" in page
    assert "Energy of the front's members" not in page
    assert "<td>training</td>" not in page


@pytest.mark.parametrize("arguments", [["energy", "RUN", "KEY"], ["profile", "--time", "--run", "RUN"]])
def test_commands_that_need_a_network_say_that_a_table_has_none(arguments, command, known):
    values = {"RUN": known.folder, "KEY": known.front()["key"][0]}
    err = refused(command(*[values.get(word, word) for word in arguments]))
    assert "has searched a table, which has no supernet and no networks" in err


def test_a_table_cannot_be_trained(command, known, folder):
    assert "a table has no supernet to train; search it with `nas search`" in refused(
        command("train", folder / "known.toml", "--out", known.folder)
    )


# Runs


def test_a_run_has_the_values_of_the_table(known):
    frame, table = known.evaluations(), results()
    assert len(frame) == 24
    found = frame.merge(table, on=["width", "op", "wide"], suffixes=("", "_listed"))
    assert len(found) == 24
    sound = found["acc_listed"].notna()
    assert ((found["state"] == "complete") == sound).all()
    assert (found.loc[sound, "acc"] == found.loc[sound, "acc_listed"]).all()
    assert (
        found.loc[~sound, "failure"].str.fullmatch("LookupError: the table 'results' has no acc for this row").all()
    )
    assert len(known.evaluations("random")) == 24
    assert known.evaluations("reference").empty
    assert not known.evaluations("random")["key"].duplicated().any()


def test_the_reference_is_the_worst_of_the_rows_with_all_metrics(known):
    sound = results().dropna()
    assert known.reference == {"acc": sound["acc"].min(), "energy_mj": sound["energy_mj"].max()}
    assert known.hypervolume() > 0


def test_architectures_of_a_run_are_rows_and_have_no_network(known):
    key = known.front()["key"][0]
    row = known.architecture(key[:8])
    assert row in known.space
    assert row.key == key
    assert set(row.genes) == {"width", "op", "wide"}
    assert known.space.size == 30
    for call in (known.supernet, known.training, lambda: known.load(key), lambda: known.operations([key])):
        with pytest.raises(InputError, match="has searched a table, which has no supernet and no networks"):
            call()
    with pytest.raises(InputError, match="known searches a table, which has no images and no supernet"):
        _ = known.data


def test_a_run_repeats_exactly(known, folder, tmp_path, comparable):
    again = nas.search(folder / "known.toml", tmp_path / "run")
    for study in ("search", "random", "test"):
        pd.testing.assert_frame_equal(comparable(again, study), comparable(known, study))
    assert lasting(again.front()).equals(lasting(known.front()))


@pytest.mark.parametrize("study", ["search", "random", "test"])
def test_an_interrupted_run_goes_on_to_the_same_tables(study, known, folder, tmp_path, comparable, listener):
    class Interrupting(type(listener)):
        def evaluated(self, evaluation):
            super().evaluated(evaluation)
            if len(self.heard.get(study, ())) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nas.search(folder / "known.toml", tmp_path / "run", reporter=Interrupting())
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    again = nas.search(write_run(moved), tmp_path / "run")  # the same table in another place
    for name in ("search", "random", "test"):
        pd.testing.assert_frame_equal(comparable(again, name), comparable(known, name))


def test_a_run_can_be_made_longer(known, tmp_path, comparable):
    kept = shutil.copytree(known.folder, tmp_path / "run")
    longer = nas.search(Path(known.folder).parent / "known.toml", kept, search={"evaluations": 30})
    assert len(longer.evaluations()) == 30
    pd.testing.assert_frame_equal(comparable(longer, rows=24), comparable(known, rows=24))


def test_another_table_is_another_run(known, tmp_path):
    recipe = write_run(tmp_path, table=results().assign(acc=0.5))
    with pytest.raises(InputError, match=r"differs in table\.sha256 \('\w+' there, '\w+' here\)"):
        nas.search(recipe, known.folder)


def test_a_choice_among_some_rows_stays_among_them(tmp_path):
    table = results(rows=17)
    run = nas.search(write_run(tmp_path, table=table), tmp_path / "run", search={"evaluations": 100})
    found = run.evaluations()[["width", "op", "wide"]]
    assert len(found) == 17
    assert set(found.itertuples(index=False, name=None)) == set(
        table[["width", "op", "wide"]].itertuples(index=False, name=None)
    )


def test_without_columns_on_a_test_split_none_are_made_up(tmp_path):
    recipe = write_run(
        tmp_path,
        ('test = { acc = "acc_held_out" }\n', ""),
        ('{ acc = "max", energy_mj = "min" }', '{ acc = "max", test_acc = "max", energy_mj = "min" }'),
        table=results().rename(columns={"acc_held_out": "test_acc"}),
    )
    run = nas.search(recipe, tmp_path / "run")
    assert run.metrics == ["acc", "test_acc", "energy_mj"]
    assert list(run.front().columns).count("test_acc") == 1
    assert "test_energy_mj" not in run.front()
    assert run.evaluations("test").empty
    assert "on the test split" not in (run.folder / "report.html").read_text()


def test_own_evaluators_may_look_at_the_architecture_and_only_at_it(tmp_path, own_module):
    own_module(
        "own_metrics",
        "class Squared:\n"
        "    metrics = {'squared': 'min'}\n"
        "    def __call__(self, candidate):\n"
        "        return {'squared': candidate.architecture.genes['width'] ** 2}\n"
        "class Network(Squared):\n"
        "    metrics = {'own_layers': 'min'}\n"
        "    def __call__(self, candidate):\n"
        "        return {'own_layers': len(candidate.subnet)}\n",
    )
    objectives = ('objectives = ["acc", "energy_mj"]', 'objectives = ["acc", "squared"]')
    recipe = write_run(tmp_path, objectives, ("seed = 3", 'seed = 3\nmetrics = ["own_metrics:Squared"]'))
    with pytest.raises(InputError, match=r"\['squared'\] are not in the table.* set search\.hypervolume_reference"):
        nas.search(recipe, tmp_path / "first")
    reference = {"hypervolume_reference": {"acc": 0.0, "squared": 2.0**15}}
    frame = nas.search(recipe, tmp_path / "run", search=reference).evaluations()
    sound = frame["state"] == "complete"
    assert (frame.loc[sound, "squared"] == frame.loc[sound, "width"] ** 2).all()
    recipe = write_run(tmp_path, ("seed = 3", 'seed = 3\nmetrics = ["own_metrics:Network"]'))
    frame = nas.search(recipe, tmp_path / "network").evaluations()
    assert frame["failure"].str.contains("subnet|no acc").all()


# Refusals


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("[table]\n", '[data]\nname = "digits"\n\n[table]\n', "data cannot go with a table"),
        ("seed = 3", 'space = "digits"', "a recipe has space and [data], or [table]: space cannot go with a table"),
        ("[search]", "[training]\nepochs = 3\n\n[search]", "training cannot go with a table"),
        ("seed = 3", 'device = "cpu"\nexecutor = "native"', "executor, device cannot go with a table"),
        ("seed = 3", 'metrics = ["accuracy"]', "accuracy needs a network, which a table does not have"),
        ("seed = 3", 'metrics = ["energy_mj:strict"]', "energy_mj:strict needs a network"),
        ("genes = [", 'gnes = ["width"]\ngenes = [', "unknown key table.gnes; known keys here are ['file', 'genes',"),
        ('file = "results.csv"\n', "", "missing key table.file"),
        ('"results.csv"', '"nowhere.csv"', "there is no table nowhere.csv beside the recipe or in a data folder"),
        ('energy_mj = "min"', 'energy_mj = "low"', "table.metrics.energy_mj should be 'max' or 'min', got 'low'"),
        ('{ acc = "max", energy_mj = "min" }', "{}", "table.metrics"),
        ('energy_mj = "min"', 'op = "min", energy_mj = "min"', "metrics must be numbers, but column 'op' has values"),
        (
            'energy_mj = "min"',
            'energy_mj = "min", latency = "min"',
            "table.metrics and table.test must be among ['width', 'op',",
        ),
        ('test = { acc = "acc_held_out" }', 'test = { top1 = "acc" }', "table.test must be among table.metrics"),
        ('test = { acc = "acc_held_out" }', 'test = { acc = "top1" }', "must be among ['width', 'op', 'wide',"),
        ('"op", ', '"opp", ', "table.genes must be among the columns ['width', 'op',"),
        ('objectives = ["acc", "energy_mj"]', "", "search.objectives must be among the metrics ['acc', 'energy_mj']"),
        ("[search]", '[options."own:Thing"]\nx = 1\n\n[search]', "options belong to evaluators in use []"),
    ],
)
def test_recipes_of_tables_are_refused_in_one_line(old, new, text, command, tmp_path):
    err = refused(command("search", write_run(tmp_path, (old, new)), "--out", tmp_path / "run"))
    assert text in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["number", "key", "test_acc"])
def test_metrics_with_names_of_other_columns_are_refused(name, command, tmp_path):
    more = ('energy_mj = "min"', f'energy_mj = "min", {name} = "max"')
    recipe = write_run(tmp_path, more, table=results().assign(**{name: 1.0}))
    err = refused(command("search", recipe, "--out", tmp_path / "run"))
    assert "a metric must not be called one of [" in err
    assert f"got '{name}'" in err


def test_genes_with_names_of_other_columns_are_refused(command, tmp_path):
    recipe = write_run(tmp_path, ('"op", ', '"op", "state", '), table=results().assign(state=1))
    assert "a gene must not be called one of" in refused(command("search", recipe, "--out", tmp_path / "run"))


def test_rows_that_contradict_each_other_are_refused(command, tmp_path):
    table = pd.concat([results(), results().dropna().head(1).assign(acc=0.0)])
    err = refused(command("search", write_run(tmp_path, table=table), "--out", tmp_path / "run"))
    assert "rows of equal genes must have equal metrics" in err


def test_a_table_without_a_sound_row_is_refused(command, tmp_path):
    recipe = write_run(tmp_path, table=results().assign(acc=np.nan))
    assert "has no row with all metrics ['acc', 'energy_mj']" in refused(
        command("search", recipe, "--out", tmp_path / "run")
    )


def test_a_damaged_list_of_rows_is_refused(command, known, tmp_path):
    kept = Path(shutil.copytree(known.folder, tmp_path / "run"))
    values = json.loads((kept / "run.json").read_text())
    values["space"]["rows"] = "AAAA"
    (kept / "run.json").write_text(json.dumps(values))
    assert "the rows of a table cannot be read" in refused(command("front", kept))


# The real tables


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_of_tables_are_valid(recipe):
    config = load_recipe(recipe)
    assert config.name == recipe.stem
    assert set(config.search.objectives) <= set(config.lookup.metrics)


@real
@pytest.mark.parametrize(
    ("name", "size", "complete"), [("spikenas", 15625, True), ("hwgpt_s", 10000, False), ("ecnas", 91, False)]
)
def test_shipped_recipes_search_the_real_tables(name, size, complete, command, tmp_path):
    recipe, out = RECIPES / f"{name}.toml", tmp_path / "run"
    code, _, _ = command("search", recipe, "--out", out, "--data-dir", REAL, "--evaluations", 24)
    run = nas.Run(out)
    assert code == 0
    assert (run.space.size, run.space.complete) == (size, complete)
    assert (run.evaluations()["state"] == "complete").sum() == 24
    assert len(run.front()) > 0
