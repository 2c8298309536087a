"""Runs whose search has a reranker: what decides it, what is kept of it, and what a killed one does."""

import json
import shutil

import numpy as np
import pytest
from fakes import lasting
from test_cli_refusals import refused
from test_table_runs import write_run

import nas
from nas.algorithms import EXPAND, build_algorithm
from nas.scoring import threads
from nas.sections import SearchConfig

POPULATION = ("population = 6\n", "population = 6\nexpand = 3\nbaseline = false\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reranked")


@pytest.fixture(scope="module")
def run(folder):
    """A finished search with a reranker on a table of 30; tests only read it."""
    return nas.search(write_run(folder, POPULATION), folder / "run")


def test_a_run_keeps_how_well_each_generation_was_ranked(run):
    frame = run.reranking()
    assert frame.columns.tolist() == ["scored", "batch", "tau", "aside"]
    assert frame["scored"].tolist() == [18, 21]  # before there were not ten sound results
    assert frame["batch"].tolist() == [3, 3]  # half of the population of 6
    assert frame["tau"].between(-1, 1).all()
    assert not frame["aside"].any()


def test_a_run_without_a_reranker_proposes_other_architectures_and_keeps_nothing(run, command, folder, tmp_path):
    code, _, err = command("search", folder / "known.toml", "--expand", 1, "--out", tmp_path / "run")
    assert code == 0, err
    plain = nas.Run(tmp_path / "run")
    assert plain.reranking().empty
    assert plain.config.search.expand == 1
    keys = [each.evaluations()["key"].tolist() for each in (run, plain)]
    assert keys[0][:6] == keys[1][:6]
    assert keys[0] != keys[1]


def test_a_search_that_goes_on_ranks_as_if_it_had_never_stopped(run, folder, tmp_path):
    """Replay meets the same results, so the same is learnt, on however many threads the rest of the process works."""
    recipe = folder / "known.toml"
    nas.search(recipe, tmp_path / "run", search={"evaluations": 18})
    with threads(2):
        grown = nas.search(recipe, tmp_path / "run")
    assert lasting(grown.evaluations()).equals(lasting(run.evaluations()))
    assert grown.reranking().equals(run.reranking())


def test_runs_and_comparisons_pick_by_the_reference_that_they_are_judged_by(run, folder, tmp_path, monkeypatch):
    """A run that goes on takes the recorded one."""
    given = []

    def noted(name, problem, *others, **options):
        given.append(problem.minimised_reference())
        return build_algorithm(name, problem, *others, **options)

    monkeypatch.setattr("nas.pipeline.build_algorithm", noted)
    monkeypatch.setattr("nas.comparing.build_algorithm", noted)
    recipe = folder / "known.toml"
    for evaluations in (12, 18):
        nas.search(recipe, tmp_path / "run", search={"evaluations": evaluations})
    compared = nas.compare(recipe, ["nsga2"], 1, workers=1)
    given = [reference for reference in given if reference is not None]  # None where it is only tried
    assert len(given) == 3
    for minimised, point in zip(given, [run.reference, run.reference, compared.reference], strict=True):
        assert np.abs(minimised).tolist() == [abs(point[name]) for name in run.objectives]


@pytest.mark.parametrize("value", ["0", "1001", "-2"])
def test_an_expansion_out_of_range_is_refused(value, command, folder, tmp_path):
    err = refused(command("search", folder / "known.toml", "--expand", value, "--out", tmp_path / "run"))
    assert "search.expand" in err


def test_the_recipe_and_the_function_have_one_default():
    assert SearchConfig().expand == EXPAND == 20


@pytest.mark.parametrize("name", ["nsga2", "rvea", "mo-qpso", "qpso"])
def test_a_larger_budget_goes_on_with_what_the_smaller_one_proposed(name, folder, tmp_path):
    """A schedule that was spread anew would replay to other architectures, beside those that are there."""
    recipe = folder / "known.toml"
    small = nas.search(recipe, tmp_path / "run", search={"algorithm": name, "evaluations": 12})
    before = small.evaluations()["key"].tolist()
    grown = nas.search(recipe, tmp_path / "run", search={"algorithm": name, "evaluations": 18})
    assert grown.evaluations()["key"].tolist()[:12] == before
    assert len(grown.evaluations()) == 18


def test_a_folder_from_before_there_was_a_reranker_goes_on_without_one(run, command, folder, tmp_path):
    old = shutil.copytree(run.folder, tmp_path / "old")
    values = json.loads((old / "run.json").read_text())
    del values["recipe"]["search"]["expand"]
    (old / "run.json").write_text(json.dumps(values))
    assert nas.Run(old).config.search.expand == 1
    err = refused(command("search", folder / "known.toml", "--out", old))
    assert "search.expand (1 there, 3 here)" in err
