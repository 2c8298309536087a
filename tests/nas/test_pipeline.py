"""A whole run of the tiny recipe, end to end: what it leaves, what it reuses, and what it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fakes import METRICS, SPACE, write_recipe
from PIL import Image

import nas
from nas.folder import create_folder, hold
from nas.results import hypervolume
from nas.scoring import build_job
from spaces import InputError, load_space
from supernet.checkpoint import save_checkpoint
from supernet.data import Normalise

STUDIES = ["search", "random", "test", "reference"]


class Listener:
    """A reporter that remembers titles and results."""

    def __init__(self):
        self.heard, self.steps = {}, []

    def say(self, line):
        self.steps.append(line)

    def train(self, progress):
        self.steps.append("training")

    def start(self, title, total, objectives):
        self.results = self.heard.setdefault(title, [])

    def evaluated(self, evaluation):
        self.results.append(evaluation)


@pytest.fixture(scope="module")
def trained_once(recipe, tmp_path_factory):
    return nas.train(recipe, tmp_path_factory.mktemp("runs") / "trained").folder


@pytest.fixture
def trained(trained_once, tmp_path):
    """Folder of a run that is trained and not yet searched, to be changed."""
    return Path(shutil.copytree(trained_once, tmp_path / "trained"))


@pytest.fixture
def listener():
    return Listener()


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
    return nas.search(write_recipe(folder, ("epochs = 2", "epochs = 1"), space=space), folder / "run")


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
    pd.testing.assert_frame_equal(grown.front().drop(columns="duration"), whole.front().drop(columns="duration"))
    assert grown.reference == finished.reference
    assert len(grown.evaluations("reference")) == 1


class Interrupting(Listener):
    """A reporter that ends the run when its baseline begins."""

    def start(self, title, total, objectives):
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


def test_without_a_baseline_none_is_run(recipe, tmp_path):
    run = nas.search(recipe, tmp_path / "run", search={"baseline": False, "evaluations": 7})
    assert (len(run.evaluations()), len(run.evaluations("random"))) == (7, 0)
    assert run.hypervolume("random") == 0.0
    assert (tmp_path / "run" / "report.html").exists()


def test_a_given_reference_is_taken_and_the_largest_architecture_not_scored(recipe, tmp_path):
    reference = {"accuracy": 0.05, "energy_mj": 1e-4}
    run = nas.search(recipe, tmp_path / "run", search={"hypervolume_reference": reference, "evaluations": 2})
    assert run.reference == reference
    assert run.evaluations("reference").empty


def test_one_objective_is_enough(recipe, tmp_path):
    run = nas.search(
        recipe, tmp_path / "run", search={"objectives": ["accuracy"], "evaluations": 7, "baseline": False}
    )
    front = run.front()
    assert (front["accuracy"] == run.evaluations()["accuracy"].max()).all()
    assert run.hypervolume() == pytest.approx(front["accuracy"].max())


def test_three_objectives_work_in_the_order_given(recipe, tmp_path):
    objectives = ["energy_mj", "accuracy", "parameters"]
    run = nas.search(recipe, tmp_path / "run", search={"objectives": objectives, "evaluations": 7, "baseline": False})
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
        path = write_recipe(tmp_path, (METRICS, metrics), ("[data]", options), ("population = 6", GIVEN))
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
    path = write_recipe(tmp_path, (METRICS, metrics), ("[data]", options))
    with pytest.raises(InputError, match=r"the largest architecture must be scored .*LookupError.*; set search"):
        nas.search(path, tmp_path / "run")


# Refusals


@pytest.mark.parametrize(
    "changes",
    [{"run": {"seed": 4}}, {"search": {"population": 7}}, {"scoring": {"validation_images": 50}}],
    ids=["seed", "population", "images"],
)
def test_another_recipe_in_the_same_folder_is_refused_and_nothing_changes(changes, copied, recipe, snapshot):
    before = snapshot(copied)
    with pytest.raises(InputError, match="holds a run of another recipe"):
        nas.search(recipe, copied, **changes)
    with pytest.raises(InputError, match="holds a run of another recipe"):
        nas.train(recipe, copied, **changes)
    assert snapshot(copied) == before


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"search": {"algorithm": "moead"}}, r"search.algorithm must be one of \['nsga2', 'random'\], got 'moead'"),
        ({"search": {"objectives": ["latency_ms"]}}, "search.objectives must be among the metrics"),
        ({"search": {"hypervolume_reference": {"accuracy": 0.0}}}, "hypervolume_reference must have the objectives"),
        ({"run": {"metrics": ["accuracy", "enrgy"]}}, "evaluator must be one of"),
        ({"run": {"space": "mars"}}, "a space is one of"),
        ({"data": {"name": "mars"}}, "data must be one of"),
        ({"training": {"augment": ["sparkle"]}}, "augment must list some of"),
        ({"training": {"augment": ["randaugment"]}}, "randaugment needs colour images"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_is_wrong_with_a_recipe_is_said_before_anything_is_written(changes, text, recipe, tmp_path):
    with pytest.raises(InputError, match=text):
        nas.search(recipe, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("metric", ["key", "duration", "is_pareto", "tau_0"])
def test_a_metric_cannot_take_the_name_of_another_column(metric, own_module, recipe, tmp_path):
    own_module(
        "colliding", f"class Own:\n    metrics = {{{metric!r}: 'min'}}\n    def __call__(self, c): return {{}}\n"
    )
    with pytest.raises(InputError, match=f"got '{metric}'"):
        nas.train(recipe, tmp_path / "run", run={"metrics": ["accuracy", "energy_mj", "colliding:Own"]})


def test_an_unwritable_folder_is_refused_before_training(recipe, tmp_path, listener):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InputError, match="the run folder must be writable"):
        nas.search(recipe, tmp_path / "file" / "run", reporter=listener)
    assert listener.steps == []
    assert (tmp_path / "file").read_text() == "precious"


def test_a_store_that_is_no_store_is_found_before_training(recipe, trained, listener):
    for path in trained.glob("supernet*"):
        path.unlink()
    (trained / "study.db").write_text("precious")
    with pytest.raises(InputError, match="must be the store of a run"):
        nas.search(recipe, trained, reporter=listener)
    assert (trained / "study.db").read_text() == "precious"
    assert listener.steps == [], "hours of training before the error"


@pytest.mark.parametrize("name", ["study.db", "supernet.json", "report.html", "front.csv"])
def test_files_of_an_unknown_run_are_not_written_over(name, recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("precious")
    with pytest.raises(InputError, match=rf"has \['{name}'\] but no run\.json"):
        nas.search(recipe, tmp_path / "run")
    assert [path.read_text() for path in (tmp_path / "run").iterdir()] == ["precious"]


def test_results_of_one_supernet_are_not_mixed_with_those_of_another(copied, finished, recipe, tmp_path, snapshot):
    """A supernet that was trained anew, perhaps on another machine, has other weights."""
    supernet, state = finished.supernet(), finished.training()
    with torch.no_grad():
        supernet.head.weight.mul_(1.001)
    for path in copied.glob("supernet*"):
        path.unlink()
    save_checkpoint(copied, state, supernet, torch.optim.AdamW(supernet.parameters()))
    with pytest.raises(InputError, match="were scored with another supernet"):
        nas.search(recipe, copied, search={"evaluations": 18})
    assert len(nas.Run(copied).evaluations()) == 16


def test_two_processes_do_not_write_one_run(copied, recipe, listener):
    with hold(copied), pytest.raises(InputError, match="another one is at work"):
        nas.search(recipe, copied, reporter=listener)
    nas.search(recipe, copied)


def test_pictures_that_changed_after_the_search_are_noticed(tmp_path):
    recipe = write_recipe(tmp_path, ('"digits"\ntrain_images = 1000', '"folder"'))
    pictures = draw_pictures(tmp_path / "a", 1)
    run = nas.search(recipe, tmp_path / "run", pictures, search={"evaluations": 2, "baseline": False})
    draw_pictures(tmp_path / "b", 2)
    shutil.copy(tmp_path / "b" / "cats" / "0.png", pictures / "cats" / "0.png")
    with pytest.raises(InputError, match=r"the images of .* have changed"):
        nas.Run(tmp_path / "run").load(run.front().iloc[0]["key"])


def draw_pictures(folder, seed):
    rng = np.random.default_rng(seed)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_a_run_on_pictures_of_ones_own_remembers_them(tmp_path):
    recipe = write_recipe(tmp_path, ('"digits"\ntrain_images = 1000', '"folder"'))
    run = nas.search(recipe, tmp_path / "run", draw_pictures(tmp_path / "a", 1), search={"evaluations": 3})
    assert run.space.skeleton.num_classes == 2
    network = nas.Run(tmp_path / "run").load(run.front().iloc[0]["key"])
    assert network.skeleton.num_classes == 2


def test_other_pictures_are_another_run(tmp_path):
    """``data.name = "folder"`` does not say which pictures: scores of two sets must not meet in one table."""
    recipe = write_recipe(tmp_path, ('"digits"\ntrain_images = 1000', '"folder"'))
    nas.train(recipe, tmp_path / "run", draw_pictures(tmp_path / "a", 1))
    with pytest.raises(InputError, match=r"differs in (data\.)?images"):
        nas.train(recipe, tmp_path / "run", draw_pictures(tmp_path / "b", 2))


def test_jobs_hold_plain_arrays(finished):
    job = build_job(finished.config, finished.data, finished.supernet())
    assert all(isinstance(array, np.ndarray) for array in job.weights.values())
    assert set(job.splits) == {"validation", "test"}
    assert job.threads == 1
