"""Warm starts of whole runs: what is taken from an earlier run or a list, kept, resumed, reported and refused."""

import json
import shutil

import pandas as pd
import pytest
from test_cli_refusals import refused
from test_resume import finished_trials
from test_table_runs import results, write_run

import nas
from nas.figures import hypervolume_figure
from nas.report import REPORT
from nas.results import non_dominated
from spaces import InputError

QUICK = ("evaluations = 24", "evaluations = 8\nbaseline = false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("warm")


@pytest.fixture(scope="module")
def early(folder):
    """A finished run on a table, to begin others with; tests only read it."""
    return nas.search(write_run(folder, QUICK), folder / "early", search={"evaluations": 12, "baseline": True})


def sound(run):
    """Return the complete rows of search and baseline, each architecture once, by key."""
    frame = pd.concat([run.evaluations(), run.evaluations("random")])
    return frame[frame["state"] == "complete"].drop_duplicates("key").set_index("key")


# Runs that are taken


@pytest.mark.parametrize("algorithm", ["nsga2", "qpso"])
def test_results_of_the_same_table_are_taken_and_cost_nothing(algorithm, early, folder, tmp_path):
    run = nas.search(
        folder / "known.toml",
        tmp_path / "run",
        search={"warm_start": early.folder, "evaluations": 6, "algorithm": algorithm, "baseline": True}
        | {"warm_start": str(early.folder)},
    )
    frame, expected = run.evaluations(), sound(early)
    taken = frame[frame["generation"] == 0].set_index("key")
    assert set(taken.index) == set(expected.index)
    columns = ["acc", "energy_mj", "width", "op", "wide", "state"]
    pd.testing.assert_frame_equal(taken[columns], expected.loc[taken.index, columns])
    assert (taken["duration"] == 0).all()
    new = frame[frame["generation"] > 0]
    assert len(new) == len(run.evaluations("random")) == 6
    assert not set(new["key"]) & set(expected.index)
    assert frame["number"].tolist() == list(range(len(frame)))
    assert frame["key"].is_unique
    assert run.hypervolume() >= early.hypervolume()
    line = f"{len(taken)} results of {early.folder}, taken as they are"
    assert run.warm_start == line
    page = (run.folder / REPORT).read_text()
    assert line in page
    assert f"of 6 evaluations and {len(taken)} results that were taken (" in page
    assert run.why_stopped() == "stopped after 6 evaluations: all that search.evaluations allows"
    search, random = hypervolume_figure(run, frame, run.evaluations("random")).data
    assert list(search.x) == list(range(7))
    assert list(random.x) == list(range(1, 7))
    assert search.y[-1] == run.hypervolume()


def test_other_objectives_and_constraints_are_no_other_question(early, folder, tmp_path):
    search = {"warm_start": str(early.folder), "objectives": ["acc"], "constraints": {"max_energy_mj": 0.1}}
    run = nas.search(folder / "known.toml", tmp_path / "run", search=search)
    taken = run.evaluations().query("generation == 0")
    assert len(taken) == len(sound(early))
    assert (taken["feasible"] == (taken["energy_mj"] <= 0.1)).all()
    assert early.warm_start is None


def test_a_run_that_was_itself_begun_with_another_gives_all_it_knows(early, folder, tmp_path):
    second = nas.search(
        folder / "known.toml", tmp_path / "2", search={"warm_start": str(early.folder), "evaluations": 6}
    )
    third = nas.search(
        folder / "known.toml", tmp_path / "3", search={"warm_start": str(second.folder), "evaluations": 4}
    )
    assert set(third.evaluations().query("generation == 0")["key"]) == set(sound(second).index)


class Interrupting:
    """A reporter that ends the process after some evaluations of the search."""

    def __init__(self, after):
        self.left, self.heard = after, []

    def say(self, line):
        self.heard.append(line)

    def start(self, title, total, objectives, volume=None):
        self.title = title

    def evaluated(self, evaluation):
        self.left -= self.title == "search"
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["run", "list"])
def test_an_interrupted_run_goes_on_the_same_when_what_it_began_with_is_gone(
    kind, early, folder, tmp_path, comparable
):
    source = tmp_path / ("source" if kind == "run" else "source.csv")
    if kind == "run":
        shutil.copytree(early.folder, source)
    else:
        early.evaluations().to_csv(source, index=False)
    search = {"warm_start": str(source), "evaluations": 12, "algorithm": "mo-qpso"}
    whole = nas.search(folder / "known.toml", tmp_path / "whole", search=search)
    for after in (0, 3, 6):
        with pytest.raises(KeyboardInterrupt):
            nas.search(folder / "known.toml", tmp_path / "run", reporter=Interrupting(after), search=search)
        shutil.rmtree(source, ignore_errors=True)
        source.unlink(missing_ok=True)
    again = nas.search(folder / "known.toml", tmp_path / "run", search=search)
    for study in ("search", "random", "test"):
        pd.testing.assert_frame_equal(comparable(again, study), comparable(whole, study))
    assert again.warm_start == whole.warm_start
    longer = nas.search(folder / "known.toml", tmp_path / "run", search={**search, "evaluations": 14})
    pd.testing.assert_frame_equal(comparable(longer, rows=12), comparable(whole, rows=12))


def test_a_kill_while_results_are_taken_loses_none(early, folder, tmp_path, monkeypatch, comparable):
    search = {"warm_start": str(early.folder), "evaluations": 6}
    whole = nas.search(folder / "known.toml", tmp_path / "whole", search=search)
    take, left = nas.pipeline.Store.take, [4]

    def killed(store, *arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        take(store, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr("nas.pipeline.Store.take", killed)
        with pytest.raises(KeyboardInterrupt):
            nas.search(folder / "known.toml", tmp_path / "run", search=search)
    assert finished_trials(tmp_path / "run", "search") == 4
    again = nas.search(folder / "known.toml", tmp_path / "run", search=search)
    pd.testing.assert_frame_equal(comparable(again), comparable(whole))


def test_what_was_taken_is_where_stalling_is_measured_from(tmp_path):
    one = results()["width"] == 8
    flat = write_run(tmp_path, QUICK, table=results().assign(acc=0.5 - 0.1 * one, energy_mj=1.0 + one))
    early = nas.search(flat, tmp_path / "early", search={"evaluations": 6})
    search = {"warm_start": str(early.folder), "stall": 4, "evaluations": 18, "population": 2}
    run = nas.search(flat, tmp_path / "run", search=search)
    assert run.hypervolume() == early.hypervolume() > 0
    assert (run.stopped, len(run.evaluations().query("generation > 0"))) == ("stall", 4)


# Runs whose architectures are scored anew


def test_architectures_of_another_table_are_scored_anew(early, tmp_path):
    table = results().assign(acc=lambda frame: 1 - frame["acc"])
    run = nas.search(
        write_run(tmp_path, QUICK, table=table), tmp_path / "run", search={"warm_start": str(early.folder)}
    )
    frame = run.evaluations()
    first = frame[frame["generation"] == 1]
    known = sound(early)
    best = set(known.index[non_dominated(known[["acc", "energy_mj"]].to_numpy(), early.objectives)])
    assert len(first) == 6, "as many as a population has"
    assert set(first["key"]) <= set(sound(early).index)
    assert set(first["key"]) <= best or best <= set(first["key"])
    assert len(frame) == 8, "they count"
    assert frame["generation"].min() == 1
    merged = frame.merge(table, on=["width", "op", "wide"], suffixes=("", "_listed"))
    complete = merged["state"] == "complete"
    assert (merged.loc[complete, "acc"] == merged.loc[complete, "acc_listed"]).all()
    assert run.warm_start == f"6 best architectures of {early.folder}, scored anew, as the runs differ in table"


def test_metrics_that_a_run_lacks_make_another_question(early, folder, tmp_path, own_module):
    own_module(
        "warm_metrics",
        "class Squared:\n    metrics = {'squared': 'min'}\n"
        "    def __init__(self, scale=1):\n        self.scale = scale\n"
        "    def __call__(self, candidate):\n"
        "        return {'squared': self.scale * candidate.architecture.genes['width'] ** 2}\n",
    )
    own = {"metrics": ["warm_metrics:Squared"]}
    search = {"evaluations": 8, "warm_start": str(early.folder)}
    run = nas.search(folder / "known.toml", tmp_path / "more", run=own, search=search)
    assert run.warm_start.endswith("scored anew, as the runs differ in warm_metrics:Squared")
    assert run.evaluations().query("generation == 0").empty
    same = nas.search(
        folder / "known.toml", tmp_path / "same", run=own, search={**search, "warm_start": str(run.folder)}
    )
    assert same.warm_start.endswith("taken as they are")
    assert same.evaluations().query("generation == 0")["squared"].notna().all()
    less = nas.search(folder / "known.toml", tmp_path / "less", search={**search, "warm_start": str(run.folder)})
    assert less.warm_start.endswith("taken as they are")
    other = {"options": {"warm_metrics:Squared": {"scale": 2}}}
    run = nas.search(
        folder / "known.toml",
        tmp_path / "other",
        run={**own, **other},
        search={**search, "warm_start": str(run.folder)},
    )
    assert run.warm_start.endswith("scored anew, as the runs differ in warm_metrics:Squared")


def test_results_of_a_supernet_are_taken_with_the_same_weights_and_scoring_only(finished, trained, recipe, tmp_path):
    search = {"warm_start": str(finished.folder), "evaluations": 3, "algorithm": "ga"}
    copy = shutil.copytree(trained, tmp_path / "copy")
    run = nas.search(recipe, trained, search=search)
    taken = run.evaluations().query("generation == 0")
    known = sound(finished)
    assert set(taken["key"]) == set(known.index)
    assert (taken.set_index("key")["accuracy"] == known.loc[taken["key"], "accuracy"]).all()
    assert len(run.evaluations()) == len(taken) + 3
    assert len(run.front())
    others = {"run": {"seed": 8}, "training": {"epochs": 1}, "scoring": {"validation_images": 20}}
    other = nas.search(recipe, tmp_path / "other", search=search, **others)
    assert other.warm_start.endswith("scored anew, as the runs differ in supernet, scoring")
    assert set(other.evaluations()["key"]) <= set(known.index)
    assert len(other.evaluations()) == 3
    assert copy.is_dir()


# Lists


def genes_of(run, count=8):
    return [dict(run.architecture(key).genes) for key in run.evaluations()["key"][:count]]


@pytest.mark.parametrize("kind", ["genes", "front.csv"])
def test_architectures_of_a_list_are_scored_first_and_count(kind, early, folder, tmp_path):
    if kind == "genes":
        path, keys = tmp_path / "list.json", early.evaluations()["key"].tolist()[:8]
        path.write_text(json.dumps(genes_of(early) + genes_of(early, 3)))
    else:
        path, keys = early.folder / "front.csv", early.front()["key"].tolist()
    run = nas.search(
        folder / "known.toml", tmp_path / "run", search={"warm_start": str(path), "evaluations": 12, "baseline": True}
    )
    frame = run.evaluations()
    assert frame["key"].tolist()[: len(keys)] == keys
    assert (frame["generation"][: len(keys)] == 1).all()
    assert frame["generation"][len(keys)] == 2
    assert len(frame) == len(run.evaluations("random")) == 12
    assert run.warm_start == f"{len(keys)} architectures of {path}, scored first"


def test_a_list_is_cut_at_the_budget(early, folder, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps(genes_of(early)))
    run = nas.search(
        folder / "known.toml", tmp_path / "run", search={"warm_start": str(tmp_path / "list.json"), "evaluations": 5}
    )
    assert run.evaluations()["key"].tolist() == early.evaluations()["key"].tolist()[:5]
    assert run.stopped == "evaluations"


def test_a_recipe_names_it_relative_to_itself_and_the_command_to_the_working_directory(
    early, folder, tmp_path, command, monkeypatch
):
    recipe = write_run(tmp_path, QUICK, ("population = 6", 'warm_start = "list.json"\npopulation = 6'))
    (tmp_path / "list.json").write_text(json.dumps(genes_of(early)))
    monkeypatch.chdir(folder)
    by_recipe = nas.search(recipe, tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    code, _, err = command("search", folder / "known.toml", "--out", "b", "--warm-start", "list.json")
    assert (code, nas.Run("b").warm_start) == (0, by_recipe.warm_start)
    assert f"warm start: {by_recipe.warm_start}" in err.replace("\n", " ")
    (tmp_path / "list.json").rename(tmp_path / "moved.json")
    code, _, _ = command("search", folder / "known.toml", "--out", "b", "--warm-start", "moved.json")
    assert code == 0, "the same list in another place"
    (tmp_path / "list.json").write_text(json.dumps(genes_of(early)[1:]))
    err = refused(command("search", folder / "known.toml", "--out", "b", "--warm-start", "list.json"))
    assert "differs in search.warm_start" in err
    assert "differs in search.warm_start" in refused(command("search", folder / "known.toml", "--out", "b"))


def test_what_static_constraints_forbid_is_left_out(early, folder, tmp_path, own_module):
    own_module(
        "warm_static",
        "class Wide:\n    metrics = {'w': 'min'}\n    static = True\n    def __call__(self, candidate):\n"
        "        return {'w': float(candidate.architecture.genes['width'])}\n",
    )
    (tmp_path / "list.json").write_text(json.dumps(genes_of(early)))
    recipe = folder / "known.toml"
    own = {"metrics": ["warm_static:Wide"]}
    search = {"warm_start": str(tmp_path / "list.json"), "constraints": {"max_w": 16.0}, "evaluations": 8}
    run = nas.search(recipe, tmp_path / "run", run=own, search=search)
    few = [genes for genes in genes_of(early) if genes["width"] <= 16]
    assert 0 < len(few) < 8
    assert run.warm_start.startswith(f"{len(few)} architectures of")
    assert (run.evaluations()["width"] <= 16).all()
    loose = nas.search(recipe, tmp_path / "loose", run=own, search={"evaluations": 16})
    run = nas.search(recipe, tmp_path / "taken", run=own, search={**search, "warm_start": str(loose.folder)})
    assert run.warm_start.endswith("taken as they are")
    assert (run.evaluations()["width"] <= 16).all()
    wide = [genes for genes in genes_of(early) if genes["width"] > 16]
    (tmp_path / "wide.json").write_text(json.dumps(wide))
    with pytest.raises(
        InputError, match=r"must have an architecture that keeps max_w = 16, but none of .*wide\.json"
    ):
        nas.search(recipe, tmp_path / "none", run=own, search={**search, "warm_start": str(tmp_path / "wide.json")})


def test_a_comparison_begins_with_nothing(early, folder, tmp_path):
    recipe = write_run(tmp_path, QUICK, ("population = 6", f'warm_start = "{early.folder}"\npopulation = 6'))
    found, cold = (
        nas.compare(each, ["nsga2"], 1, workers=1, evaluations=12) for each in (recipe, folder / "known.toml")
    )
    assert found.traces[0].keys == cold.traces[0].keys


# Refusals


def test_runs_that_do_not_fit_or_are_damaged_are_refused(early, folder, tmp_path, command):
    def error(path, recipe=folder / "known.toml"):
        err = refused(command("search", recipe, "--out", tmp_path / "run", "--warm-start", path))
        assert not (tmp_path / "run").exists()
        return err

    few = write_run(tmp_path, QUICK, table=results(rows=17))
    text = "search.warm_start must be a run in the same space, but"
    assert text in error(early.folder, few)
    damaged = shutil.copytree(early.folder, tmp_path / "damaged")
    (damaged / "study.db").write_text("no database")
    assert "study.db must be the store of a run" in error(damaged)
    (damaged / "study.db").unlink()
    assert "damaged has no complete evaluation; search it first" in error(damaged)
    (damaged / "run.json").write_text("{}")
    assert "run.json must be of format" in error(damaged)


def test_a_run_cannot_begin_with_itself(early, folder, tmp_path):
    kept = shutil.copytree(early.folder, tmp_path / "kept")
    with pytest.raises(InputError, match=r"differs in .*search\.warm_start"):
        nas.search(folder / "known.toml", kept, search={"evaluations": 12, "warm_start": str(kept)})


def test_a_damaged_copy_of_a_warm_start_is_refused(early, folder, tmp_path):
    search = {"warm_start": str(early.folder), "evaluations": 6}
    run = nas.search(folder / "known.toml", tmp_path / "run", search=search)
    values = json.loads((run.folder / "run.json").read_text())
    del values["warm_start"]["results"]
    (run.folder / "run.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"the warm start in .*run\.json is damaged"):
        nas.search(folder / "known.toml", run.folder, search=search)
