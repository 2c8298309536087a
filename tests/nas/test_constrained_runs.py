"""Whole runs with constraints: what counts as found, what is said where nothing is, and what is refused."""

import json

import pandas as pd
import pytest
from fakes import Listener, write_recipe

import nas
from nas.report import REPORT
from nas.results import hypervolume, hypervolume_curve, non_dominated
from spaces import InputError

FAST = (("epochs = 2", "epochs = 1"), ("validation_images = 60", "validation_images = 20"))


def constrained(folder, constraints, *changes, **search):
    recipe = write_recipe(
        folder, ("evaluations = 16", f"evaluations = 12\nconstraints = {constraints}"), *FAST, *changes
    )
    return nas.search(recipe, folder / "run", search=search)


@pytest.fixture(scope="module")
def bounded(tmp_path_factory):
    """Run in which every other network is too large, and some of the others spend too much."""
    return constrained(tmp_path_factory.mktemp("bounded"), "{ max_parameters = 7000, max_energy_mj = 5.5e-6 }")


def test_feasible_ones_keep_every_bound_and_only_they_are_on_the_front(bounded):
    for study in ("search", "random"):
        frame = bounded.evaluations(study)
        complete = frame["state"] == "complete"
        keeps = complete & (frame["parameters"] <= 7000) & (frame["energy_mj"] <= 5.5e-6)
        assert (frame["feasible"] == keeps).all()
        assert not frame.loc[~keeps, "is_pareto"].any()
        points = frame.loc[keeps, ["accuracy", "energy_mj"]].to_numpy()
        assert (frame.loc[keeps, "is_pareto"] == non_dominated(points, bounded.objectives)).all()
        assert bounded.hypervolume(study) == hypervolume(points, bounded.objectives, bounded.reference)
        curve = hypervolume_curve(frame, bounded.objectives, bounded.reference)
        assert curve[-1] == pytest.approx(bounded.hypervolume(study))
    search = bounded.evaluations()
    assert 0 < search["feasible"].sum() < (search["state"] == "complete").sum()
    assert set(bounded.front()["key"]) == set(bounded.evaluations("test")["key"])


def test_no_network_beyond_a_static_bound_was_proposed(bounded):
    for study in ("search", "random"):
        frame = bounded.evaluations(study)
        assert len(frame) == 12
        assert (frame["parameters"] <= 7000).all()


def test_the_report_says_which_bounds_there_were_and_how_many_broke_them(bounded):
    page = (bounded.folder / REPORT).read_text(encoding="utf-8")
    frame = bounded.evaluations()
    broken = int(((frame["state"] == "complete") & ~frame["feasible"]).sum())
    assert broken
    assert f"{broken} violate constraints) in a space of 288" in page
    assert f"max_parameters = 7000, max_energy_mj = 5.5e-06; violated by {broken} of 12 evaluations" in page
    assert "violates constraints" in page
    assert bounded.why_empty() is None


def test_a_run_with_constraints_goes_on_and_repeats(bounded, tmp_path):
    listener = Listener()
    recipe = bounded.config
    again = nas.search(recipe, bounded.folder, reporter=listener)
    pd.testing.assert_frame_equal(again.evaluations(), bounded.evaluations())
    assert "training" not in listener.steps
    with pytest.raises(
        InputError, match=r"differs in search.constraints.max_parameters \(7000.0 there, 4000.0 here\)"
    ):
        nas.search(
            recipe, bounded.folder, search={"constraints": {"max_parameters": 4000.0, "max_energy_mj": 5.5e-6}}
        )


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory):
    """Run in which nothing can be as accurate as it must."""
    return constrained(tmp_path_factory.mktemp("hopeless"), "{ min_accuracy = 1.5 }")


def test_a_search_that_finds_nothing_feasible_says_so_and_names_the_nearest(hopeless, command):
    frame = hopeless.evaluations()
    best = frame.sort_values("accuracy", ascending=False, kind="stable").iloc[0]
    assert hopeless.front().empty
    assert hopeless.hypervolume() == 0.0
    assert hopeless.evaluations("test").empty
    said = (
        f"none of {len(frame)} evaluations keeps min_accuracy = 1.5; the nearest is {best['key']} with accuracy "
        f"{best['accuracy']:.6g}"
    )
    assert hopeless.why_empty() == said
    assert f"There is no front: {said}" in (hopeless.folder / REPORT).read_text(encoding="utf-8")
    for format_ in ("table", "json", "csv"):
        code, _, err = command("front", hopeless.folder, "-f", format_)
        assert (code, err) == (0, f"there is no front: {said}\n")
    assert json.loads(command("front", hopeless.folder, "-f", "json")[1]) == []


def test_a_folder_from_before_there_were_constraints_goes_on(copied, finished, recipe):
    path = copied / "run.json"
    values = json.loads(path.read_text())
    del values["recipe"]["search"]["constraints"]
    path.write_text(json.dumps(values))
    run = nas.Run(copied)
    assert run.constraints == ()
    pd.testing.assert_frame_equal(nas.search(recipe, copied).evaluations(), finished.evaluations())
    assert (run.evaluations()["feasible"] == (run.evaluations()["state"] == "complete")).all()
