"""Results as users take them away: documented columns, files, and two runs side by side."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli_refusals import refused
from test_table_runs import results, write_run

import nas
from nas import tabling
from nas.results import RESULT_COLUMNS
from nas.run_comparison import dominated_share
from nas.tabling import write_table
from spaces import LAYER_GENES, NETWORK_GENES, InputError

PAGE = Path(__file__).parents[2] / "docs" / "runs.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def known(folder):
    """A finished run on a table with failures; tests only read it."""
    return nas.search(write_run(folder), folder / "run")


@pytest.fixture(scope="module")
def other(folder, known):
    """Another one, of random search."""
    return nas.search(folder / "known.toml", folder / "other", search={"algorithm": "random", "evaluations": 10})


def test_the_page_on_runs_has_every_column_in_order():
    rows = re.findall(
        r"^\| (`.*?|one per metric) \|", PAGE.read_text(encoding="utf-8").split("## Columns")[1], flags=re.MULTILINE
    )
    named = [name for row in rows for name in re.findall(r"[\w…]+", row.replace("`", ""))]
    at = named.index("one")
    assert named[:2] == list(RESULT_COLUMNS[:2])
    assert named[2:at] == [*NETWORK_GENES, *(f"{gene}_0" for gene in LAYER_GENES), "…"]
    assert named[at + 3 :] == [*RESULT_COLUMNS[2:], "test_…"]


@pytest.mark.parametrize("study", ["search", "random", "test"])
def test_every_study_has_the_same_columns(study, known):
    genes, metrics = ["width", "op", "wide"], ["acc", "energy_mj"]
    assert known.evaluations(study).columns.tolist() == [*RESULT_COLUMNS[:2], *genes, *metrics, *RESULT_COLUMNS[2:]]


# Files


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
@pytest.mark.parametrize("part", [[], ["--front"], ["--study", "random"]], ids=["search", "front", "random"])
def test_what_is_written_is_read_back(suffix, part, known, command, tmp_path):
    path = tmp_path / f"results.{suffix}"
    code, out, err = command("results", known.folder, *part, "-o", path)
    frame = known.front() if part == ["--front"] else known.evaluations("random" if part else "search")
    assert (code, out, err) == (0, f"{path}: {len(frame)} rows\n", "")
    read = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}[suffix](path)
    assert read.columns.tolist() == frame.columns.tolist()
    assert read["key"].tolist() == frame["key"].tolist()
    for name in ("acc", "energy_mj", "duration"):
        np.testing.assert_allclose(read[name], frame[name], rtol=1e-9)
    assert read["is_pareto"].tolist() == frame["is_pareto"].tolist()
    for name in ("parents", "failure", "worker"):
        assert read[name].isna().tolist() == frame[name].isna().tolist()


def test_columns_of_parquet_are_of_one_kind_however_little_there_is(known, tmp_path):
    frame = known.evaluations()
    kinds = []
    for rows in (frame, frame.head(1).assign(parents=None, failure=None, worker=None), frame.head(0)):
        write_table(rows, tmp_path / "some.parquet")
        kinds.append(pd.read_parquet(tmp_path / "some.parquet").dtypes.astype(str))
    texts = ["key", "parents", "state", "worker", "failure"]
    assert kinds[0][texts].equals(kinds[1][texts])
    assert kinds[0][texts].equals(kinds[2][texts])


def test_the_screen_gets_what_fits_and_csv_all(known, command):
    code, out, err = command("results", known.folder)
    assert (code, err) == (0, "")
    assert known.front()["key"].iloc[0] in out
    code, out, err = command("results", known.folder, "-f", "csv")
    assert pd.read_csv(io.StringIO(out)).columns.tolist() == known.evaluations().columns.tolist()
    code, out, err = command("results", known.folder, "--study", "test", "-f", "json")
    assert [row["key"] for row in json.loads(out)] == known.evaluations("test")["key"].tolist()


def test_a_format_that_is_named_wins_over_the_suffix(known, command, tmp_path):
    path = tmp_path / "results.txt"
    code, _, _ = command("results", known.folder, "-o", path, "-f", "csv")
    assert code == 0
    assert pd.read_csv(path)["key"].tolist() == known.evaluations()["key"].tolist()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--study", "compare"], "a run has the studies"),
        (["--front", "--study", "test"], "the front is of the study search"),
        (["-f", "parquet"], "Parquet is for files"),
        (["-o", "x.csv", "-f", "table"], "tables are for the screen"),
        (["-o", "results.xlsx"], "tables are written as ['csv', 'json', 'parquet'], got 'results.xlsx'"),
        (["-o", "nowhere/results.csv"], "the table must go to a file that can be written"),
        (["--against", "nowhere"], "is not a run folder"),
        (["--against", "x", "--front"], "--against compares whole runs"),
    ],
)
def test_what_cannot_be_printed_or_written_is_refused(options, text, known, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert text in refused(command("results", known.folder, *options))
    assert list(tmp_path.iterdir()) == []


def test_parquet_without_pyarrow_says_how_to_get_it(known, tmp_path, monkeypatch):
    monkeypatch.setattr(tabling, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'spikefront\[tables\]'; or write CSV or JSON"):
        write_table(known.evaluations(), tmp_path / "x.parquet")


# Two runs


def test_two_runs_side_by_side(known, other):
    frame = known.compare(other)
    assert frame["run"].tolist() == [str(known.folder), str(other.folder)]
    assert frame["evaluations"].tolist() == [24, 10]
    assert frame["front"].tolist() == [len(known.front()), len(other.front())]
    assert frame["hypervolume"][0] == pytest.approx(known.hypervolume())
    assert frame["failed"].tolist() == [(run.evaluations()["state"] == "failed").sum() for run in (known, other)]
    assert frame["best_acc"].tolist() == [run.front()["acc"].max() for run in (known, other)]
    assert frame["best_energy_mj"].tolist() == [run.front()["energy_mj"].min() for run in (known, other)]
    mine, theirs = (set(run.evaluations()["key"]) for run in (known, other))
    assert frame["alone"].tolist() == [len(mine - theirs), len(theirs - mine)]
    again = known.compare(known)
    assert again["ahead"].tolist() == [0.0, 0.0]
    assert again["alone"].tolist() == [0, 0]


def test_the_command_compares(known, other, command):
    code, out, err = command("results", known.folder, "--against", other.folder, "-f", "json")
    assert (code, err) == (0, "")
    assert [row["evaluations"] for row in json.loads(out)] == [24, 10]
    code, out, err = command("results", known.folder, "--against", other.folder)
    assert (code, err) == (0, "")
    assert "hypervolume" in out


def test_runs_of_other_objectives_are_not_compared(known, tmp_path):
    recipe = write_run(tmp_path, ('objectives = ["acc", "energy_mj"]', 'objectives = ["energy_mj", "acc"]'))
    turned = nas.search(recipe, tmp_path / "run", search={"evaluations": 6, "baseline": False})
    with pytest.raises(InputError, match="runs are compared in the same objectives"):
        known.compare(turned)


def test_dominated_shares_by_hand():
    objectives = {"acc": "max", "energy_mj": "min"}
    points = np.array([[0.9, 2.0], [0.5, 1.0], [0.7, 1.5]])
    assert dominated_share(points, np.array([[0.9, 1.9]]), objectives) == pytest.approx(1 / 3)
    assert dominated_share(points, points, objectives) == 0.0
    assert dominated_share(points, np.array([[0.95, 0.5]]), objectives) == 1.0
    assert dominated_share(points, np.empty((0, 2)), objectives) == 0.0
    assert np.isnan(dominated_share(np.empty((0, 2)), points, objectives))


def recorded(folder, metrics):
    """Change what run.json says of a run's metrics; None takes it away."""
    path = folder / "run.json"
    values = json.loads(path.read_text()) | {"metrics": metrics}
    if metrics is None:
        del values["metrics"]
    path.write_text(json.dumps(values))


def test_a_run_from_before_senses_were_kept_is_looked_at_and_goes_on(known, folder, tmp_path, comparable):
    old = Path(shutil.copytree(known.folder, tmp_path / "old"))
    recorded(old, None)
    assert comparable(nas.Run(old)).equals(comparable(known))
    nas.search(folder / "known.toml", old)
    assert json.loads((old / "run.json").read_text())["metrics"] == {"acc": "max", "energy_mj": "min"}


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({"acc": "max"}, r"must have a sense for each objective, and has none for \['energy_mj'\]"),
        ({"acc": "up", "energy_mj": "min"}, "must be of format"),
        (["acc"], "must be of format"),
    ],
)
def test_senses_that_no_run_has_written_are_refused(metrics, text, known, tmp_path):
    odd = Path(shutil.copytree(known.folder, tmp_path / "odd"))
    recorded(odd, metrics)
    with pytest.raises(InputError, match=text):
        nas.Run(odd).front()


def test_the_table_has_failures_to_show():
    assert results()["acc"].isna().any()


@pytest.mark.parametrize("verb", ["front", "pick", "status", "report"])
def test_a_run_is_read_without_the_modules_that_it_names(verb, copied, command, tmp_path, monkeypatch):
    (tmp_path / "unwanted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    record = json.loads((copied / "run.json").read_text())
    record["recipe"]["metrics"].append("unwanted:Own")
    record["recipe"]["options"]["unwanted:Own"] = {"strength": 1.0}
    record["recipe"]["search"] |= {"algorithm": "unwanted:Algorithm", "expand": 1}
    record["recipe"]["space"] = "unwanted:Space"
    (copied / "run.json").write_text(json.dumps(record))
    code, _, err = command(verb, copied)
    assert (code, err) == (0, "")
    record["metrics"] = None  # as in a folder from before runs kept them
    (copied / "run.json").write_text(json.dumps(record))
    code, _, err = command(verb, copied)
    assert code == 2
    assert "to read a run imports none of its modules" in err
