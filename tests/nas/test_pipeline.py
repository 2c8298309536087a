"""A whole run of the tiny recipe, end to end: what it leaves, what it reuses, and what it refuses."""

import numpy as np
import pandas as pd
import pytest
import torch
from fakes import LITTLE, METRICS, SPACE, Listener, lasting, write_recipe

import nas
from nas.folder import create_folder
from nas.results import hypervolume
from spaces import InputError, load_space
from supernet.data import Normalise

STUDIES = ["search", "random", "test", "reference"]


# What a run leaves


def test_a_finished_run_has_its_files(finished):
    names = {path.name for path in finished.folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        "run.json",
        "supernet.json",
        "supernet-00002.safetensors",
        "study.db",
        "front.csv",
        "report.html",
    }


def test_search_and_baseline_have_the_budget_and_the_largest_architecture_is_recorded(finished, space):
    search, random, reference = (finished.evaluations(study) for study in ("search", "random", "reference"))
    assert len(search) == len(random) == 16
    assert set(search["state"]) == set(random["state"]) == {"complete"}
    assert search["key"].is_unique
    assert random["key"].is_unique
    (largest,) = reference.itertuples()
    assert largest.key == space.largest().key
    assert finished.reference == {"accuracy": 0.0, "energy_mj": largest.energy_mj}


@pytest.fixture(scope="module")
def exhausted(tmp_path_factory):
    """Run whose search and baseline both propose all 4 architectures of a space, the largest one included."""
    few = [("depth = [1, 2]", "depth = [1]"), ("v_threshold = [0.8, 1.0]", "v_threshold = [1.0]")]
    few += [("tau = [1.5, 2.0]", "tau = [2.0]"), ("num_heads = [1, 2]", "num_heads = [1]")]
    space = SPACE
    for old, new in few:
        assert old in space
        space = space.replace(old, new)
    folder = tmp_path_factory.mktemp("exhausted")
    return nas.search(write_recipe(folder, LITTLE, space=space), folder / "run")


def test_shared_architectures_have_the_same_scores_in_both_studies_and_were_scored_once(exhausted):
    search, random = (exhausted.evaluations(study).set_index("key") for study in ("search", "random"))
    assert len(search) == 4
    assert set(search.index) == set(random.index)
    pd.testing.assert_frame_equal(search[exhausted.metrics].loc[random.index], random[exhausted.metrics])
    assert (random["duration"] == 0).all()


def test_the_reference_is_not_scored_again_when_it_is_proposed(exhausted):
    columns = ["key", *exhausted.metrics]
    (reference,) = exhausted.evaluations("reference").to_dict("records")
    assert reference["duration"] > 0
    assert reference["key"] == exhausted.space.largest().key
    for study in ("search", "random"):
        frame = exhausted.evaluations(study)
        (row,) = frame[frame["key"] == reference["key"]].to_dict("records")
        assert row["duration"] == 0
        assert {name: row[name] for name in columns} == {name: reference[name] for name in columns}


def test_front_is_a_table_with_scores_on_both_splits(finished):
    front = finished.front()
    assert isinstance(front, pd.DataFrame)
    assert {"key", "accuracy", "energy_mj", "test_accuracy", "test_energy_mj"} <= set(front.columns)
    assert front["accuracy"].is_monotonic_decreasing
    assert front["energy_mj"].is_monotonic_decreasing
    assert front["test_accuracy"].between(0, 1).all()
    assert (front["test_energy_mj"] > 0).all()
    assert (front["test_energy_mj"] != front["energy_mj"]).any()
    search = finished.evaluations()
    assert set(front["key"]) == set(search.loc[search["is_pareto"], "key"])
    assert set(front["key"]) == set(finished.evaluations("test")["key"])


def test_front_csv_is_the_front(finished):
    written, front = pd.read_csv(finished.folder / "front.csv"), finished.front()
    assert written.columns.tolist() == front.columns.tolist()
    assert written["failure"].isna().all()
    pd.testing.assert_frame_equal(
        written.drop(columns="failure"), front.drop(columns="failure"), check_dtype=False, check_exact=True
    )


def test_hypervolume_is_that_of_the_search_table(finished):
    for study in ("search", "random"):
        points = finished.evaluations(study)[["accuracy", "energy_mj"]].to_numpy()
        expected = hypervolume(points, finished.objectives, finished.reference)
        assert finished.hypervolume(study) == expected
        assert 0 < expected < 1


@pytest.mark.parametrize("position", [0, -1])
def test_a_loaded_network_has_the_accuracy_of_the_table(position, finished):
    row = finished.front().iloc[position]
    network = finished.load(row["key"])
    assert isinstance(network, torch.nn.Module)
    assert not any(module.training for module in network.modules())
    assert network.architecture.key == row["key"]
    normalise = Normalise(*finished.data.moments)
    validation = finished.data.validation.head(finished.config.scoring.validation_images)
    with torch.no_grad():
        answers = network(normalise(validation.images)).argmax(dim=1).numpy()
        on_test = network(normalise(finished.data.test.images)).argmax(dim=1).numpy()
    assert (answers == validation.labels).mean() == row["accuracy"]
    assert (on_test == finished.data.test.labels).mean() == row["test_accuracy"]


def test_a_key_may_be_shortened_as_long_as_it_names_one_architecture(finished):
    key = finished.front().iloc[0]["key"]
    assert finished.architecture(key[:10]) == finished.architecture(key)
    for wrong in ("", "x", key + "0"):
        with pytest.raises(InputError, match=r"a key must name one evaluated architecture, but .* names 0"):
            finished.architecture(wrong)
    prefix = next(p for p in "0123456789abcdef" if finished.evaluations()["key"].str.startswith(p).sum() > 1)
    with pytest.raises(InputError, match=f"but '{prefix}' names [0-9]+ in"):
        finished.architecture(prefix)


def test_the_search_leaves_the_weights_of_the_supernet_as_training_left_them(finished, trained):
    supernet = finished.supernet()
    assert not any(module.training for module in supernet.modules())
    one, other = nas.Run(trained).supernet().state_dict(), supernet.state_dict()
    assert all(torch.equal(one[name], tensor) for name, tensor in other.items())


# Going on


def test_running_again_evaluates_nothing_and_changes_no_table(copied, finished, recipe, listener, comparable):
    before = {study: finished.evaluations(study) for study in STUDIES}
    again = nas.search(recipe, copied, reporter=listener)
    for study, frame in before.items():
        pd.testing.assert_frame_equal(again.evaluations(study), frame)
    assert "training" not in listener.steps
    assert {title: len(results) for title, results in listener.heard.items()} == {
        "search": 16,
        "random": 16,
        "test": len(finished.front()),
    }


def test_a_longer_budget_goes_on_and_ends_like_one_that_was_long_from_the_start(
    copied, trained, finished, recipe, comparable
):
    first = {study: comparable(finished, study, 16) for study in ("search", "random")}
    grown = nas.search(recipe, copied, search={"evaluations": 21})
    whole = nas.search(recipe, trained, search={"evaluations": 21})
    for study, frame in first.items():
        assert len(grown.evaluations(study)) == 21
        pd.testing.assert_frame_equal(comparable(grown, study, 16), frame, check_dtype=False)
        pd.testing.assert_frame_equal(comparable(grown, study), comparable(whole, study))
    pd.testing.assert_frame_equal(lasting(grown.front()), lasting(whole.front()))
    assert grown.reference == finished.reference
    assert len(grown.evaluations("reference")) == 1


class Interrupting(Listener):
    """A reporter that ends the run when its baseline begins."""

    def start(self, title, total, objectives, volume=None):
        if title == "random":
            raise KeyboardInterrupt
        super().start(title, total, objectives)


def test_search_and_baseline_are_never_compared_at_different_budgets(trained, recipe):
    """A run is stopped after its search, and goes on with fewer evaluations than it has already done."""
    with pytest.raises(KeyboardInterrupt):
        nas.search(recipe, trained, reporter=Interrupting())
    assert len(nas.Run(trained).evaluations()) == 16
    try:
        nas.search(recipe, trained, search={"evaluations": 8})
    except InputError:
        nas.search(recipe, trained)
    run = nas.Run(trained)
    assert len(run.evaluations("random")) == len(run.evaluations()) == 16


def test_training_first_and_searching_later_is_the_same_run(trained, finished, recipe, comparable, listener):
    later = nas.search(recipe, trained, reporter=listener)
    assert "training" not in listener.steps
    for study in STUDIES:
        pd.testing.assert_frame_equal(comparable(later, study), comparable(finished, study))


def test_a_run_that_is_only_trained_has_an_empty_front_and_a_supernet(trained):
    run = nas.Run(trained)
    assert run.front().empty
    assert run.evaluations().empty
    assert run.reference is None
    assert (run.hypervolume(), run.hypervolume("random"), run.search_seconds()) == (0.0, 0.0, 0.0)
    assert run.training().complete
    assert not (trained / "study.db").exists()
    with pytest.raises(InputError, match="a key must name one evaluated architecture"):
        run.load("abc")


def test_an_untrained_run_has_no_supernet_to_load(recipe, tmp_path):
    config = nas.load_recipe(recipe)
    create_folder(tmp_path / "run", config, load_space(config.space), None)
    with pytest.raises(InputError, match="is trained for 0 of 2 epochs; finish it with `nas train` or `nas search`"):
        nas.Run(tmp_path / "run").supernet()


def test_without_a_baseline_none_is_run(recipe, trained):
    run = nas.search(recipe, trained, search={"baseline": False, "evaluations": 7})
    assert (len(run.evaluations()), len(run.evaluations("random"))) == (7, 0)
    assert run.hypervolume("random") == 0.0
    assert (trained / "report.html").exists()


def test_a_given_reference_is_taken_and_the_largest_architecture_not_scored(recipe, trained):
    reference = {"accuracy": 0.05, "energy_mj": 1e-4}
    run = nas.search(recipe, trained, search={"hypervolume_reference": reference, "evaluations": 2})
    assert run.reference == reference
    assert run.evaluations("reference").empty


def test_one_objective_is_enough(recipe, trained):
    run = nas.search(recipe, trained, search={"objectives": ["accuracy"], "evaluations": 7, "baseline": False})
    front = run.front()
    assert (front["accuracy"] == run.evaluations()["accuracy"].max()).all()
    assert run.hypervolume() == pytest.approx(front["accuracy"].max())


def test_three_objectives_work_in_the_order_given(recipe, trained):
    objectives = ["energy_mj", "accuracy", "parameters"]
    run = nas.search(recipe, trained, search={"objectives": objectives, "evaluations": 7, "baseline": False})
    assert list(run.objectives.items()) == [("energy_mj", "min"), ("accuracy", "max"), ("parameters", "min")]
    assert run.front()["energy_mj"].is_monotonic_increasing
    assert list(run.reference) == objectives


# Failures


OWN = """
import pathlib

class Tally:
    metrics = {"own_depth": "min"}
    def __init__(self, log: str, failing: str = ""):
        self.log, self.failing = pathlib.Path(log), failing
    def __call__(self, candidate):
        key = candidate.architecture.key
        with self.log.open("a") as log:
            log.write(key + "\\n")
        if self.failing and (self.failing == "all" or int(key, 16) % 2):
            raise LookupError("<b>odd</b> & key")
        return {"own_depth": float(candidate.architecture.depth)}
"""
GIVEN = "population = 6\nhypervolume_reference = { accuracy = 0.0, energy_mj = 1e-4 }"


@pytest.fixture
def tallied(tmp_path, own_module):
    def tallied(failing=""):
        """Run the tiny recipe with an evaluator that writes down what it is called for."""
        own_module("tally", OWN)
        options = f'[options."tally:Tally"]\nlog = "{tmp_path / "log"}"\nfailing = "{failing}"\n\n[data]'
        metrics = 'metrics = ["tally:Tally", "accuracy", "energy_mj"]'
        path = write_recipe(tmp_path, LITTLE, (METRICS, metrics), ("[data]", options), ("population = 6", GIVEN))
        run = nas.search(path, tmp_path / "run")
        return run, (tmp_path / "log").read_text().split()

    return tallied


def test_each_architecture_is_scored_once_and_the_front_once_more_on_test_images(tallied):
    run, calls = tallied()
    keys = set(run.evaluations()["key"]) | set(run.evaluations("random")["key"])
    front = list(run.front()["key"])
    assert sorted(calls) == sorted([*keys, *front])
    assert run.evaluations()["own_depth"].isin([1.0, 2.0]).all()


def test_half_failing_evaluations_are_recorded_with_their_reason_and_stay_off_the_front(tallied):
    run, calls = tallied("odd")
    frame = run.evaluations()
    odd = frame["key"].map(lambda key: int(key, 16) % 2 == 1)
    assert 2 < odd.sum() < 14
    assert (frame["state"] == np.where(odd, "failed", "complete")).all()
    assert set(frame.loc[odd, "failure"]) == {"LookupError: <b>odd</b> & key"}
    assert frame.loc[odd, run.metrics].isna().all(axis=None)
    assert not frame.loc[odd, "is_pareto"].any()
    front = run.front()
    assert len(front) >= 1
    assert not front["key"].isin(frame.loc[odd, "key"]).any()
    assert len(frame) == len(run.evaluations("random")) == 16
    assert len(calls) == len(set(calls)) + len(front), "failures are not tried again"


def test_a_search_in_which_everything_fails_ends_with_an_empty_front_and_a_report(tallied):
    run, _ = tallied("all")
    assert set(run.evaluations()["state"]) == {"failed"}
    assert len(run.evaluations()) == 16
    assert run.front().empty
    assert run.hypervolume() == 0.0
    assert "(16 failed)" in (run.folder / "report.html").read_text()


def test_a_reference_that_cannot_be_scored_is_an_error_with_a_way_out(tmp_path, own_module):
    own_module("tally", OWN)
    options = f'[options."tally:Tally"]\nlog = "{tmp_path / "log"}"\nfailing = "all"\n\n[data]'
    metrics = 'metrics = ["tally:Tally", "accuracy", "energy_mj"]'
    path = write_recipe(tmp_path, LITTLE, (METRICS, metrics), ("[data]", options))
    with pytest.raises(InputError, match=r"the largest architecture must be scored .*LookupError.*; set search"):
        nas.search(path, tmp_path / "run")
