"""Lineage: what each proposal was made from, noted without changing what is proposed, and kept by the store."""

import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pandas as pd
import pytest
from fakes import OBJECTIVES, evaluation, installed, proposals
from test_table_runs import write_run

import nas
from nas import lineage
from nas.algorithms import build_algorithm
from nas.mating import GeneMutation
from nas.problem import ArchitectureProblem
from spaces import load_space

WITHOUT = {"random"}
"""Algorithms that make nothing from anything."""


@pytest.mark.parametrize("expand", [1, 4])
@pytest.mark.parametrize("name", ["nsga2", "sms-emoa", "ga", "mo-qpso"])
def test_noting_parents_changes_no_proposal(name, expand, space, monkeypatch):
    with_parents, _ = proposals(name, space, 60, expand=expand)
    for module in ("nas.mating", "nas.swarm"):
        monkeypatch.setattr(f"{module}.note_parents", lambda *_: None)
    monkeypatch.delattr("nas.mating.UnseenMating._do")
    without, _ = proposals(name, space, 60, expand=expand)
    assert with_parents == without


def asked(name, generations, space=None, **options):
    """Return the individuals of each ask of an algorithm, and its problem."""
    problem = ArchitectureProblem(space or load_space("digits"), OBJECTIVES)
    algorithm = build_algorithm(name, problem, 12, 1, 120, **options)
    found = []
    for _ in range(generations):
        population = algorithm.ask()
        found.append(population)
        metrics = [evaluation(problem.space.decode(x)).metrics for x in population.get("X")]
        algorithm.tell(infills=algorithm.problem.fill(population, metrics))
    return found, algorithm.problem


@pytest.mark.parametrize("expand", [1, 5])
@pytest.mark.parametrize("name", sorted(set(installed()) - WITHOUT))
def test_parents_were_proposed_before_and_the_first_have_none(name, expand):
    generations, problem = asked(name, 5, expand=expand)
    seen = {problem.space.decode(x).key for x in generations[0].get("X")}
    assert not any(lineage.parents_of(problem.space, each) for each in generations[0])
    for population in generations[1:]:
        parents = [lineage.parents_of(problem.space, each) for each in population]
        assert sum(map(bool, parents)) >= len(parents) / 2
        assert {key for keys in parents for key in keys} <= seen
        assert max(map(len, parents)) <= 2
        assert all(len(set(keys)) == len(keys) for keys in parents)
        seen |= {problem.space.decode(x).key for x in population.get("X")}


@pytest.mark.parametrize("expand", [1, 5])
def test_without_mutation_every_gene_of_a_child_is_of_one_of_its_parents(expand, monkeypatch):
    monkeypatch.setattr(GeneMutation, "_do", lambda self, problem, X, *_, random_state, **__: X)
    generations, _ = asked("nsga2", 4, expand=expand)
    children = [each for population in generations[1:] for each in population]
    crossed = 0
    for child in children:
        vectors = lineage.noted_parents(child)
        if vectors is not None:
            assert (vectors == child.X).any(axis=0).all()
            crossed += not (vectors == child.X).all(axis=1).any()
    assert crossed > 10


def test_a_particle_follows_its_leader_and_one_that_was_drawn_follows_nobody(space):
    generations, problem = asked("qpso", 4)
    leaders = [lineage.parents_of(problem.space, each) for each in generations[1]]
    best = max(generations[0], key=lambda each: -each.F[0])
    assert set(leaders) == {(problem.space.decode(best.X).key,)}
    crowded, problem = asked("qpso", 20, space)  # nearly all of 288 are seen in the end
    assert any(not lineage.parents_of(problem.space, each) for each in crowded[-1])


def test_random_search_makes_nothing_from_anything(space):
    generations, problem = asked("random", 3, space)
    assert not any(lineage.parents_of(problem.space, each) for population in generations for each in population)


# Runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lineage")


@pytest.fixture(scope="module")
def known(folder):
    """A finished run on a table; tests only read it."""
    return nas.search(write_run(folder), folder / "run")


@pytest.mark.parametrize("mode", ["async", "generational"])
@pytest.mark.parametrize("algorithm", ["nsga2", "mo-qpso"])
def test_a_run_keeps_parents_and_who_scored(algorithm, mode, folder, tmp_path):
    changes = {"algorithm": algorithm, "mode": mode, "evaluations": 18}
    frame = nas.search(write_run(tmp_path), tmp_path / "run", search=changes).evaluations()
    numbers = frame.set_index("key")["number"]
    made = frame[frame["parents"].notna()]
    assert len(made) >= 6
    assert made["number"].min() >= 6
    for row in made.itertuples():
        assert all(numbers[key] < row.number for key in row.parents.split(" "))
    assert set(frame["worker"]) == {f"{platform.node()}:{os.getpid()}"}


def test_a_search_that_goes_on_has_the_parents_of_one_that_was_never_interrupted(known, folder, tmp_path, comparable):
    half = nas.search(folder / "known.toml", tmp_path / "run", search={"evaluations": 14})
    assert half.evaluations()["parents"].notna().any()
    whole = nas.search(folder / "known.toml", tmp_path / "run")
    pd.testing.assert_frame_equal(comparable(whole), comparable(known))


def test_what_another_study_has_scored_was_scored_by_nobody_here(known):
    test, random = known.evaluations("test"), known.evaluations("random")
    assert test["worker"].notna().all()
    assert not random[random["duration"] == 0]["worker"].notna().any()
    assert random["parents"].isna().all()


def test_runs_from_before_there_were_parents_have_none_and_go_on(known, folder, tmp_path, edited):
    edited("delete from trial_user_attributes where key in ('parents', 'worker')")
    old = nas.Run(edited.folder)
    assert old.evaluations()["parents"].isna().all()
    assert old.evaluations()["worker"].isna().all()
    grown = nas.search(folder / "known.toml", edited.folder, search={"evaluations": 27}).evaluations()
    assert grown["parents"].notna().sum() <= 3
    assert grown["key"].head(24).tolist() == known.evaluations()["key"].tolist()


@pytest.fixture
def edited(known, tmp_path):
    """A copy of the run whose store is changed by SQL."""
    folder = tmp_path / "edited"
    shutil.copytree(known.folder, folder)

    def edited(statement):
        with closing(sqlite3.connect(folder / "study.db")) as database, database:
            assert database.execute(statement).rowcount > 0

    edited.folder = folder
    return edited


def test_results_come_without_torch_and_without_what_scored(known):
    code = (
        "import sys, nas; run = nas.Run(sys.argv[1]); run.front(); run.evaluations('random'); run.hypervolume(); "
        "run.why_stopped(); print(sorted({'torch', 'ray', 'kornia', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, known.folder], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
