"""Networks that leave their run: folders that are whole or not there, and that score what the run has scored."""

import json
import os
import re
import shutil

import pytest
import torch

import nas
from nas import export
from nas.export import CARD, FORMATS, write_export
from spaces import InputError, SearchSpace
from supernet.data import Normalise, load_data
from supernet.engine import Engine
from supernet.pretrained import CONFIG, WEIGHTS, Pretrained, read_pretrained
from supernet.spikformer import Spikformer

pytest.importorskip("onnx")

FILES = {
    "spikefront": {CARD, CONFIG, WEIGHTS},
    "public-spikformer": {CARD, CONFIG, WEIGHTS},
    "onnx": {CARD, CONFIG, "model.onnx"},
}
GENES = {
    "embed_dim": [16],
    "timesteps": [2],
    "depth": [2],
    "mlp_ratio": [2.0],
    "num_heads": [2],
    "v_threshold": [0.6],
    "tau": [1.5],
}


@pytest.fixture
def pretrained():
    """A network that belongs to no run."""
    skeleton = {"image_size": 8, "in_channels": 3, "num_classes": 3}
    space = SearchSpace.from_dict({"name": "lone", "skeleton": skeleton, "genes": GENES})
    network = Spikformer(space.skeleton, space.largest()).eval()
    return Pretrained(network, Normalise((0.5,) * 3, (0.25,) * 3), ("a", "b|c", "<d>"))


@pytest.fixture
def images():
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def best(finished):
    return finished.front().iloc[0]


@pytest.fixture(scope="module")
def exported(finished, best, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "best"
    finished.export(best.key, folder)
    return folder


# --- any network


@pytest.mark.parametrize("kind", FORMATS)
def test_a_network_without_a_run_is_written(pretrained, images, tmp_path, kind):
    written = write_export(tmp_path / "deep" / "out", pretrained, images, kind)
    assert {path.name for path in written.folder.iterdir()} == FILES[kind]
    assert [path.name for path in written.folder.parent.iterdir()] == ["out"]
    config = json.loads((written.folder / CONFIG).read_text())
    assert config["classes"] == ["a", "b|c", "<d>"]
    assert config["normalisation"] == {"mean": [0.5] * 3, "std": [0.25] * 3}
    card = (written.folder / CARD).read_text()
    assert "It has not been scored." in card
    assert "a, b\\|c, &lt;d>" in card
    assert written.check in card


def test_the_files_hold_the_network(pretrained, images, tmp_path):
    write_export(tmp_path / "out", pretrained, images)
    loaded = read_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(loaded.network(images), pretrained.network(images))
    assert (loaded.normalise, loaded.classes) == (pretrained.normalise, pretrained.classes)


def test_an_empty_folder_is_taken(pretrained, images, tmp_path):
    write_export(tmp_path, pretrained, images)
    assert (tmp_path / CONFIG).is_file()


@pytest.mark.parametrize("kind", ["file", "full", "export", "broken link"])
def test_what_is_there_is_never_overwritten(pretrained, images, tmp_path, snapshot, kind):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "full":
        (out / "sub").mkdir(parents=True)
    elif kind == "export":
        write_export(out, pretrained, images)
    else:
        out.symlink_to(tmp_path / "nowhere")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"new or an empty folder, but .*out is in use, and is never overwritten"):
        write_export(out, pretrained, images)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", FORMATS)
def test_a_copy_that_is_another_network_is_not_written(pretrained, images, tmp_path, kind, monkeypatch):
    target, other = FORMATS[kind], Spikformer(pretrained.network.skeleton, pretrained.network.architecture).eval()
    with torch.no_grad():
        other.head.bias.fill_(1.0)
    wrong = Pretrained(other, pretrained.normalise, pretrained.classes)
    monkeypatch.setitem(FORMATS, kind, export.Target(lambda _: target.files(wrong), target.check))
    with pytest.raises(InputError, match=r"so nothing is written|nothing is written: 8 of 8 images"):
        write_export(tmp_path / "out", pretrained, images, kind)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", range(4))
def test_a_disk_that_fills_up_leaves_nothing(pretrained, images, tmp_path, number, monkeypatch):
    synced = []

    def full(file):
        synced.append(file)
        if len(synced) > number:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    if number == 3:
        monkeypatch.setattr("pathlib.Path.rename", lambda *_: full(0))
    with pytest.raises(InputError, match=r"the export must be writable, but .*: No space left on device"):
        write_export(tmp_path / "out", pretrained, images)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(pretrained, images, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "write_card", stop)
    with pytest.raises(KeyboardInterrupt):
        write_export(tmp_path / "out", pretrained, images)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused(pretrained, images, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="the export must be writable"):
        write_export(tmp_path / "file" / "out", pretrained, images)


def test_an_unknown_format_is_refused(pretrained, images, tmp_path):
    with pytest.raises(InputError, match=r"format must be one of \['spikefront', 'public-spikformer', 'onnx'\]"):
        write_export(tmp_path / "out", pretrained, images, "tflite")


# --- a run's network


@pytest.mark.parametrize("row", [0, -1])
def test_it_scores_what_the_run_has_scored_on_the_test_split(finished, tmp_path, row):
    key = finished.front().iloc[row].key
    finished.export(key[:6], tmp_path / "out")
    expected = finished.evaluations("test").set_index("key").loc[key]
    score = nas.evaluate(tmp_path / "out")
    metrics = score.metrics()
    assert (score.data, score.split, score.images, score.same_images) == ("digits", "test", 360, True)
    assert metrics["accuracy"] == expected.accuracy
    assert metrics["energy_mj:sop45"] == expected.energy_mj
    assert (metrics["spikes"], metrics["parameters"]) == (expected.spikes, expected.parameters)


def test_it_knows_how_the_run_has_scored(finished, exported):
    passes = Engine(finished.supernet()).images_per_pass
    expected = {"batch_size": 64, "images_per_pass": passes, "threads": 1, "energy_models": {}}
    assert json.loads((exported / CONFIG).read_text())["scoring"] == expected


def test_it_is_the_network_that_the_run_loads(finished, best, exported, images):
    loaded, network = Spikformer.from_pretrained(exported), finished.load(best.key)
    assert (network.normalise, network.classes) == (loaded.normalise, loaded.classes)
    pixels = finished.data.test.images[:16]
    with torch.no_grad():
        assert torch.equal(loaded(loaded.normalise(pixels)), network(network.normalise(pixels)))


def test_validation_images_can_be_scored(finished, best, exported):
    score = nas.evaluate(exported, split="validation")
    assert (score.images, score.split, score.same_images) == (len(finished.data.validation), "validation", True)
    row = json.loads((exported / CONFIG).read_text())["scores"]["validation"]
    assert (row["images"], row["accuracy"], row["energy_mj:sop45"]) == (60, best.accuracy, best.energy_mj)


def test_the_card_has_scores_energies_and_provenance(finished, best, exported):
    card = (exported / CARD).read_text()
    config = json.loads((exported / CONFIG).read_text())
    assert card.startswith(f"# Spikformer {best.key}\n")
    for name, value in config["scores"]["test"].items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
        assert re.search(rf"^\| `{name.removeprefix('energy_mj:')}` \| {re.escape(shown)} \|", card, re.M), name
    assert config["provenance"]["supernet_sha256"] in card
    assert config["provenance"]["run"] == "finished"
    assert str(finished.folder.parent) not in card + json.dumps(config)


def test_the_code_of_the_card_runs(exported):
    (code,) = re.findall(r"```python\n(.*?)```", (exported / CARD).read_text(), re.S)
    names = {}
    exec(compile(code.replace("'DIR'", repr(str(exported))), "card", "exec"), names)
    assert names["logits"].shape == (1, 10)


def test_the_code_of_an_onnx_card_runs(finished, best, tmp_path, monkeypatch, capsys):
    finished.export(best.key, tmp_path / "out", target="onnx")
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / CARD).read_text(), re.S)
    monkeypatch.chdir(tmp_path / "out")
    exec(compile(code, "card", "exec"), {})
    assert capsys.readouterr().out.strip() in "0123456789"


def test_an_energy_model_of_the_users_own_goes_along(finished, exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "own")
    config = json.loads((folder / CONFIG).read_text())
    table = {"title": "Mine", "source": "me", "checked": "measured", "operations": {"mac": 1.0, "accumulate": 1.0}}
    config["scoring"]["energy_models"] = {"mine": table}
    (folder / CONFIG).write_text(json.dumps(config))
    assert nas.evaluate(folder).metrics()["energy_mj:mine"] > 0


# --- the command line


def test_export_and_evaluate_from_the_command_line(finished, best, tmp_path, command):
    out = tmp_path / "out"
    code, printed, error = command("export", finished.folder, best.key[:5], out)
    assert (code, error) == (0, "")
    assert printed == f"{out}: spikefront; it loads back to identical logits on 64 images\n"
    code, printed, _ = command("evaluate", out, "-f", "json")
    (row,) = json.loads(printed)
    assert (code, row["accuracy"], row["energy_mj:sop45"]) == (0, best.test_accuracy, best.test_energy_mj)
    code, printed, _ = command("evaluate", out)
    assert printed.startswith(f"{out}: accuracy {best.test_accuracy:.4f} on 360 test images of digits\n")
    assert all(name in printed for name in ("sop45", "strict", "loihi", "parameters"))


def test_other_formats_from_the_command_line(finished, best, tmp_path, command):
    code, printed, _ = command("export", finished.folder, best.key, tmp_path / "out", "--format", "onnx")
    assert (code, printed.split(";")[0]) == (0, f"{tmp_path / 'out'}: onnx")
    code, printed, error = command("evaluate", tmp_path / "out")
    assert (code, printed) == (2, "")
    assert "must be of format spikefront-network-1, got 'onnx-1'" in error


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("zzz", "out"), "a key must name one evaluated architecture, but 'zzz' names 0"),
        (("", "out"), "a key must name one evaluated architecture, but '' names 0"),
        (("KEY", "out", "--format", "pickle"), "format must be one of"),
        (("KEY", "out", "--format", "public-spikformer"), "the public class cannot compute this network: it pools"),
        (("KEY", "taken"), "new or an empty folder, but taken is in use"),
    ],
)
def test_a_refused_export_is_one_line_and_writes_nothing(
    finished, best, tmp_path, command, monkeypatch, arguments, reason
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("mine")
    code, printed, error = command("export", finished.folder, *(best.key if a == "KEY" else a for a in arguments))
    assert (code, printed) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert reason in error
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_untrained_run_has_nothing_to_export(trained, tmp_path, command):
    (trained / "supernet.json").unlink()
    code, _, error = command("export", trained, "abc", tmp_path / "out")
    assert code == 2
    assert error.startswith("error: ")


# --- what evaluate refuses


def damaged(exported, tmp_path, table, **values):
    folder = shutil.copytree(exported, tmp_path / "damaged")
    config = json.loads((folder / CONFIG).read_text())
    config[table] = {**config[table], **values}
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"threads": 0}, "scoring.threads must be a whole number from 1 to 1024, got 0"),
        ({"threads": 1025}, "scoring.threads must be a whole number from 1 to 1024, got 1025"),
        ({"batch_size": True}, "scoring.batch_size must be a whole number from 1 to 1048576, got True"),
        ({"batch_size": None}, "scoring.batch_size must be a whole number from 1 to 1048576, got None"),
        ({"images_per_pass": 1.5}, "scoring.images_per_pass must be a whole number from 1 to 1048576, got 1.5"),
        ({"speed": 1}, r"scoring has the keys .*, got \['speed'\]"),
        ({"energy_models": []}, r"scoring.energy_models must be a table, got \[\]"),
        ({"energy_models": {"mine": {"title": 3}}}, "mine"),
    ],
)
def test_wrong_facts_about_scoring_are_refused(exported, tmp_path, values, reason):
    with pytest.raises(InputError, match=reason):
        nas.evaluate(damaged(exported, tmp_path, "scoring", **values))


@pytest.mark.parametrize("name", [None, 3, "imagenet"])
def test_images_that_nobody_knows_are_refused(exported, tmp_path, name):
    with pytest.raises(InputError, match=r"does not say which images it is for|data must be one of"):
        nas.evaluate(damaged(exported, tmp_path, "data", name=name))


def test_other_images_are_noticed(exported, tmp_path, command):
    folder = damaged(exported, tmp_path, "data", test_sha256="0")
    code, _, error = command("evaluate", folder)
    assert (code, error) == (0, "these test images of digits are not those that the network was exported with\n")


def test_images_of_another_shape_are_refused(exported, tmp_path):
    from PIL import Image

    for split, label, number in [(s, c, i) for s in ("train", "test") for c in "ab" for i in range(12)]:
        path = tmp_path / "pictures" / split / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(path)
    with pytest.raises(InputError, match=r"\(8, 1, 10\), and folder has \(8, \d, 2\); name its own images"):
        nas.evaluate(exported, data="folder", data_dir=tmp_path / "pictures")


def test_images_of_other_classes_are_refused(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "renamed")
    config = json.loads((folder / CONFIG).read_text())
    config["classes"][3] = "three"
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"the network tells apart .*'three'.*, and digits has the classes"):
        nas.evaluate(folder)


def test_want_of_memory_is_told_in_a_line(exported, monkeypatch, command):
    def fail(*_):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(Engine, "score_itself", fail)
    code, _, error = command("evaluate", exported)
    assert (code, error.count("\n")) == (2, 1)
    assert "the network cannot be scored: RuntimeError: can't allocate memory; with less memory, lower" in error


def test_an_unknown_split_is_refused(exported):
    with pytest.raises(InputError, match=r"split must be one of \['validation', 'test'\], got 'train'"):
        nas.evaluate(exported, split="train")


def test_the_fingerprint_of_a_split_is_that_of_its_images_and_labels():
    data = load_data("digits")
    assert data.test.fingerprint == load_data("digits").test.fingerprint
    assert len({data.train.fingerprint, data.test.fingerprint, data.test.head(10).fingerprint}) == 3
