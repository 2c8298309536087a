"""What a run refuses before it has written or computed anything, and what belongs to a run."""

import shutil

import numpy as np
import pytest
import torch
from fakes import write_recipe
from PIL import Image

import nas
from nas.folder import hold
from nas.scoring import build_job
from spaces import InputError
from supernet.checkpoint import save_checkpoint


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
        (
            {"search": {"algorithm": "moead"}},
            r"search.algorithm must be one of \[.*'nsga2', .*\] or package.module:Name, got 'moead'",
        ),
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


@pytest.mark.parametrize("metric", ["key", "duration", "worker", "parents", "is_pareto", "tau_0"])
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
