"""Retraining an export: what it starts from, who teaches it, where it goes on, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import nas
from nas import retraining, standalone
from nas.retraining import RETRAIN
from spaces import InputError
from supernet.data import Normalise
from supernet.pretrained import CONFIG, WEIGHTS, read_pretrained
from supernet.settings import TrainSettings
from supernet.spikformer import build_network


class StoppedError(Exception):
    """What the tests interrupt a training with."""


class Steps:
    """Keeps the steps of a training, and stops it when it is so many epochs old."""

    def __init__(self, stop=None):
        self.losses, self.stop = [], stop

    def say(self, line):
        """Hear nothing."""

    def train(self, progress):
        self.losses.append(progress.loss)
        if self.stop is not None and progress.epoch > self.stop:
            raise StoppedError


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """An export of the tiny run, of which tests only read."""
    folder = tmp_path_factory.mktemp("exports") / "best"
    finished.export(finished.front().iloc[0].key, folder)
    return folder


@pytest.fixture(scope="module")
def retrained(exported, tmp_path_factory):
    return nas.retrain(exported, tmp_path_factory.mktemp("retrained") / "new", ema=0.9)


def weights(folder):
    return load_file(folder / WEIGHTS)


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def test_a_retrained_network_is_an_export_with_its_scores(retrained, exported):
    folder = retrained.network(0)
    config = json.loads((folder / CONFIG).read_text())
    assert set(config["scores"]) == {"test", "validation"}
    for split in ("test", "validation"):
        assert nas.evaluate(folder, split=split).accuracy == config["scores"][split]["accuracy"]
    assert nas.evaluate(folder).same_images
    old = json.loads((exported / CONFIG).read_text())
    assert config["architecture"] == old["architecture"]
    told = config["provenance"]
    assert (told["weights"], told["seed"]) == ("trained from scratch", 0)
    assert told["export_sha256"] == old["weights_sha256"]
    assert told["training"]["ema"] == 0.9
    assert told["run_id"] == old["provenance"]["run_id"]
    card = (folder / "README.md").read_text()
    assert "trained from scratch" in card
    assert "| `accuracy` |" in card
    frame, summary = retrained.frame(), retrained.summary()
    assert frame["accuracy"].tolist() == [config["scores"]["test"]["accuracy"]]
    assert summary == {"mean": frame.accuracy[0], "std": 0, "lowest": frame.accuracy[0], "highest": frame.accuracy[0]}
    assert {path.name for path in retrained.folder.iterdir()} == {".lock", RETRAIN, "seed-0"}


def test_the_recipe_is_that_of_the_supernet(retrained, finished):
    told = json.loads((retrained.folder / RETRAIN).read_text())["training"]
    settings = TrainSettings(**{**told, "augment": tuple(told["augment"])})
    assert settings.ema == 0.9
    assert {**vars(settings), "ema": 0.0} == vars(finished.config.training)


def test_what_is_done_is_not_done_again(retrained, exported, monkeypatch):
    monkeypatch.setattr(standalone, "train_alone", None)
    assert nas.retrain(exported, retrained.folder, ema=0.9) == retrained


def test_what_was_done_before_there_were_parts_is_done(retrained, exported, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(retrained.folder, tmp_path / "copy"))
    told = json.loads((folder / RETRAIN).read_text())
    assert told["training"].pop("parts") == 0
    (folder / RETRAIN).write_text(json.dumps(told))
    monkeypatch.setattr(standalone, "train_alone", None)
    assert nas.retrain(exported, folder, ema=0.9).scores == retrained.scores


def test_a_network_is_trained_in_whole_batches_unless_it_is_said_otherwise(exported):
    """Those who trained the supernet in parts did so as several, which one network needs not."""
    provenance = json.loads((exported / CONFIG).read_text())["provenance"]
    provenance["training"]["parts"] = 2
    settings = retraining._recorded_settings(provenance, "it")
    assert settings.parts == 0
    assert retraining._changed(settings, {"parts": 2}).parts == 2


@pytest.mark.parametrize("scores", [{}, {"test": {"accuracy": 0.5}, "validation": {}}, {"test": 1, "validation": 1}])
def test_what_is_done_must_have_its_scores(retrained, exported, tmp_path, scores):
    folder = Path(shutil.copytree(retrained.folder, tmp_path / "copy"))
    path = folder / "seed-0" / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), "scores": scores}))
    with pytest.raises(InputError, match=r"must have a test and a validation accuracy; move .*seed-0 away"):
        nas.retrain(exported, folder, ema=0.9)


def test_several_seeds_give_several_networks(exported, tmp_path):
    found = nas.retrain(exported, tmp_path / "new", epochs=1, seeds=2)
    first, second = (weights(found.network(seed)) for seed in (0, 1))
    assert not same(first, second)
    assert found.frame()["seed"].tolist() == [0, 1]
    accuracies = found.frame()["accuracy"]
    assert found.summary()["mean"] == pytest.approx(accuracies.mean())
    assert found.summary()["std"] == pytest.approx(accuracies.std())


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "mixup": 0.4, "precision": "bfloat16"}])
def test_an_interrupted_training_ends_with_the_weights_of_a_whole_one(exported, tmp_path, changes):
    whole = nas.retrain(exported, tmp_path / "whole", **changes, checkpoint_every=1)
    with pytest.raises(StoppedError):
        nas.retrain(exported, tmp_path / "broken", **changes, checkpoint_every=1, reporter=Steps(stop=1.2))
    assert not (tmp_path / "broken/seed-0").exists()
    rest = Steps()
    again = nas.retrain(exported, tmp_path / "broken", **changes, checkpoint_every=1, reporter=rest)
    assert same(weights(again.network(0)), weights(whole.network(0)))
    assert again.scores == whole.scores
    assert 0 < len(rest.losses) <= 63  # the steps of the second epoch


def first_weights(monkeypatch, *arguments, **options):
    """Return the weights that a training would start from, its teacher, and its seed."""
    found = []

    def stop(network, plan, seed, checkpoint, report=None, distillation=None):
        found.extend([network.state_dict(), distillation, seed])
        raise StoppedError

    monkeypatch.setattr(standalone, "train_alone", stop)
    with pytest.raises(StoppedError):
        nas.retrain(*arguments, **options)
    return found


def test_a_training_starts_from_random_or_from_inherited_weights(exported, tmp_path, monkeypatch):
    network = read_pretrained(exported).network
    state, _, seed = first_weights(monkeypatch, exported, tmp_path / "a")
    assert seed == 0
    assert same(state, build_network(network.skeleton, network.architecture, 0).state_dict())
    state, _, _ = first_weights(monkeypatch, exported, tmp_path / "b", "inherited")
    assert same(state, network.state_dict())


def test_the_largest_network_of_a_run_teaches(exported, finished, tmp_path, monkeypatch):
    options = {"distil": finished, "share": 0.7, "temperature": 4.0}
    _, found, _ = first_weights(monkeypatch, exported, tmp_path / "new", **options)
    assert (found.share, found.temperature) == (0.7, 4.0)
    assert found.teacher.architecture == finished.space.largest()
    assert not found.teacher.training
    told = json.loads((tmp_path / "new" / RETRAIN).read_text())["distilled"]
    assert told["key"] == finished.space.largest().key
    largest = finished.evaluations("reference")  # the search has scored it
    assert told["key"] in set(largest["key"])
    images = finished.data.validation.head(finished.config.scoring.validation_images)
    with torch.no_grad():
        answers = found.teacher(Normalise(*finished.data.moments)(images.images))
    accuracy = (answers.argmax(dim=1).numpy() == images.labels).mean()
    assert accuracy == pytest.approx(largest.set_index("key")["accuracy"][told["key"]], abs=0.02)


def test_a_taught_network_is_another_one(exported, finished, retrained, tmp_path):
    found = nas.retrain(exported, tmp_path / "new", distil=finished.folder, ema=0.9)
    assert not same(weights(found.network(0)), weights(retrained.network(0)))
    told = json.loads((found.network(0) / CONFIG).read_text())["provenance"]["distilled"]
    assert told["run"] == finished.folder.name


def test_a_recipe_says_how_to_train(exported, recipe, tmp_path):
    config = nas.load_recipe(recipe).changed(training={"epochs": 1, "warmup_epochs": 0.0}, run={"seed": 4})
    found = nas.retrain(exported, tmp_path / "new", recipe=config, mixup=0.3)
    told = json.loads((found.folder / RETRAIN).read_text())["training"]
    assert (told["epochs"], told["mixup"]) == (1, 0.3)
    assert list(found.scores) == [4]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_two_processes_train_like_one(exported, finished, tmp_path):
    pytest.importorskip("pyarrow")
    options = {"epochs": 1, "distil": finished, "ema": 0.5, "threads": 1}
    alone, together = Steps(), Steps()
    nas.retrain(exported, tmp_path / "alone", reporter=alone, **options)
    found = nas.retrain(exported, tmp_path / "together", workers=2, reporter=together, **options)
    assert together.losses[:10] == pytest.approx(alone.losses[:10], abs=1e-3)
    assert found.network(0).is_dir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds must be 1 or more, got 0"),
        ({"workers": 0}, "workers must be 1 or more"),
        ({"epochs": 0}, "epochs must be 1 or more"),
        ({"start": "nothing"}, "a training starts from one of"),
        ({"address": "auto"}, "one process trains on this machine"),
        ({"share": 2.0}, "share of distillation must be in"),
        ({"temperature": 0.0}, "temperature of distillation must be above 0"),
        ({"data": "nowhere"}, "data must be one of"),
        ({"ema": 1.5}, r"training.ema must be in \[0, 1\), got 1.5"),
        ({"ema": "much"}, "training.ema: .*number"),
        ({"epoch": 3}, "unknown key training.epoch; known keys are .*ema"),
        ({"distil": "nowhere"}, "nowhere is not a run folder"),
        ({"recipe": "nowhere"}, "a recipe is one of .*nowhere"),
    ],
)
def test_what_is_not_right_is_refused_before_anything_is_written(exported, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        nas.retrain(exported, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_an_export_that_does_not_say_how_it_was_trained_needs_a_recipe(exported, recipe, tmp_path):
    folder = Path(shutil.copytree(exported, tmp_path / "old"))
    config = json.loads((folder / CONFIG).read_text())
    del config["provenance"]["training"]
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match="does not say how its network was trained; name a recipe with --recipe"):
        nas.retrain(folder)
    config["provenance"]["training"] = {"epochs": "many"}
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"provenance.training: training.epochs: .*integer"):
        nas.retrain(folder)
    config["provenance"]["training"] = {"epochs": -1}
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"training\.epochs must be 1 or more, got -1"):
        nas.retrain(folder)
    assert not (tmp_path / "old-retrained").exists()


def test_another_teacher_or_recipe_needs_another_folder(exported, finished, retrained, snapshot):
    before = snapshot(retrained.folder)
    for options, different in [({"ema": 0.8}, "training"), ({"ema": 0.9, "distil": finished}, "distilled")]:
        with pytest.raises(InputError, match=f"differs in {different}; choose another folder with --to"):
            nas.retrain(exported, retrained.folder, **options)
    with pytest.raises(InputError, match="differs in start"):
        nas.retrain(exported, retrained.folder, "inherited", ema=0.9)
    assert snapshot(retrained.folder) == before


def test_a_folder_in_use_is_not_touched(exported, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="needs a new or an empty folder"):
        nas.retrain(exported, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_teacher_of_other_images_is_refused(exported, finished, recipe, tmp_path):
    config = nas.load_recipe(recipe).changed(data={"train_images": 500})
    with pytest.raises(InputError, match="must have learnt from the same training images"):
        nas.retrain(exported, tmp_path / "new", recipe=config, distil=finished)


def test_the_command_trains_and_prints(exported, command, tmp_path):
    order = ["retrain", exported, "--to", tmp_path / "new", "--from", "inherited", "--epochs", 1, "--ema", "0.9"]
    code, out, err = command(*order)
    assert code == 0, err
    assert "seed-0" in out
    assert "over 1 seed(s)" in out
    code, out, _ = command(*order, "-f", "json")
    assert json.loads(out)[0]["network"] == str(tmp_path / "new/seed-0")
    code, out, _ = command(*order, "--json")
    result = json.loads(out.splitlines()[-1])
    assert (result["event"], result["run"]) == ("result", str(tmp_path / "new"))
    assert result["networks"][0]["accuracy"] == result["mean"]
    code, out, err = command("retrain", exported, "--to", tmp_path / "new", "--seeds", "0")
    assert (code, out) == (2, "")
    assert err == "error: seeds must be 1 or more, got 0\n"
