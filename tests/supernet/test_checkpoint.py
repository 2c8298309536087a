"""Checkpoints: whole after every crash, refused when damaged or foreign, and nothing pickled."""

import ast
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

import supernet
from spaces import Architecture, InputError, Layer
from supernet.checkpoint import Checkpoint, EpochRecord, load_checkpoint, save_checkpoint
from supernet.files import INDEX, write_atomically
from supernet.settings import TrainSettings
from supernet.spikformer import Spikformer, build_supernet
from supernet.train import train

SETTINGS = TrainSettings(epochs=3, warmup_epochs=0, augment=("flip",))
NETWORK = Architecture(16, 1, (Layer(1.0, 2, 0.75, 2.0),))
RECORDS = (EpochRecord(1.5, 0.25, 3.0), EpochRecord(1.25, 0.5, 4.0))


@pytest.fixture
def space(make_space):
    return make_space({"embed_dim": [8, 16], "num_heads": [1, 2]}, neuron="plif")


@pytest.fixture
def identity(space):
    return Checkpoint(3, "stripes", SETTINGS, space.largest(), space.skeleton, space)


@pytest.fixture
def trained(space, make_images):
    """A network and an optimiser with a past."""

    def trained(seed=0):
        network = build_supernet(space, seed)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        for step in range(2):
            optimizer.zero_grad()
            network(make_images(4, seed=step)).square().sum().backward()
            optimizer.step()
        return network, optimizer

    return trained


@pytest.fixture
def saved(tmp_path, identity, trained):
    """A folder with the checkpoint of two epochs, its network and its optimiser."""
    network, optimizer = trained()
    save_checkpoint(tmp_path / "run", replace(identity, history=RECORDS), network, optimizer)
    return tmp_path / "run", network, optimizer


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same_tensors(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_gives_back_weights_optimiser_and_history(saved, identity, trained):
    folder, network, optimizer = saved
    other, other_optimizer = trained(1)
    state = load_checkpoint(folder, identity, other, other_optimizer)
    assert state == replace(identity, history=RECORDS)
    assert (state.epoch, state.seconds, state.complete) == (2, 7.0, False)
    assert same_tensors(other.state_dict(), network.state_dict())
    ours, theirs = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    assert all(same_tensors(ours[index], theirs[index]) for index in ours)


def test_weights_can_be_loaded_without_an_optimiser(saved, identity, space):
    folder, network, _ = saved
    other = build_supernet(space, 1)
    assert load_checkpoint(folder, identity, other).epoch == 2
    assert same_tensors(other.state_dict(), network.state_dict())


def test_a_folder_without_checkpoint_loads_nothing(tmp_path, identity, trained):
    network, optimizer = trained()
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for folder in (tmp_path, tmp_path / "absent"):
        assert load_checkpoint(folder, identity, network, optimizer) is identity
    assert same_tensors(network.state_dict(), kept)
    assert not (tmp_path / "absent").exists()


def test_a_checkpoint_is_one_json_and_one_safetensors_file_that_it_names_with_its_digest(saved):
    folder, network, _ = saved
    assert sorted(files(folder)) == ["supernet-00002.safetensors", INDEX]
    index = json.loads((folder / INDEX).read_text())
    assert index["weights"] == "supernet-00002.safetensors"
    assert index["sha256"] == hashlib.sha256((folder / index["weights"]).read_bytes()).hexdigest()
    assert (index["seed"], index["data"], index["settings"]["augment"]) == (3, "stripes", ["flip"])
    assert [record["loss"] for record in index["history"]] == [1.5, 1.25]
    tensors = safetensors.torch.load_file(folder / index["weights"])
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensors[f"model.{name}"], tensor)


def test_a_new_checkpoint_replaces_the_old_one_and_leaves_exactly_one_weights_file(saved, identity, trained):
    folder, _, _ = saved
    network, optimizer = trained(1)
    (folder / "supernet-00001.safetensors.77.tmp").write_bytes(b"left by a crash")
    (folder / "notes.txt").write_text("the user's own")
    third = replace(identity, history=(*RECORDS, EpochRecord(1.0, 0.75, 5.0)))
    save_checkpoint(folder, third, network, optimizer)
    assert sorted(files(folder)) == ["notes.txt", "supernet-00003.safetensors", INDEX]
    other, _ = trained()
    state = load_checkpoint(folder, identity, other)
    assert state.complete
    assert same_tensors(other.state_dict(), network.state_dict())


@pytest.mark.parametrize("survived", [0, 1])
def test_a_crash_between_the_two_files_leaves_the_old_checkpoint_whole(
    saved, identity, trained, space, monkeypatch, survived
):
    """The disk fails at the first or the second rename; the next save then succeeds and tidies up."""
    folder, network, _ = saved
    newer, optimizer = trained(1)
    third = replace(identity, history=(*RECORDS, EpochRecord(1.0, 0.75, 5.0)))
    renamed, rename = [], Path.replace

    def failing(self, target):
        if len(renamed) == survived:
            raise OSError("no space left on device")
        renamed.append(target)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(OSError, match="no space left"):
            save_checkpoint(folder, third, newer, optimizer)
    other = build_supernet(space, 5)
    assert load_checkpoint(folder, identity, other).epoch == 2
    assert same_tensors(other.state_dict(), network.state_dict())
    save_checkpoint(folder, third, newer, optimizer)
    assert [path.name for path in folder.glob("*.safetensors*")] == ["supernet-00003.safetensors"]
    assert load_checkpoint(folder, identity, other).epoch == 3


def test_writing_replaces_a_file_whole_and_leaves_no_other(tmp_path):
    path = tmp_path / "file.json"
    for content in (b"old and long", b"new"):
        write_atomically(path, content)
        assert files(tmp_path) == {"file.json": content}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:400] + bytes([data[400] ^ 1]) + data[401:],
        lambda data: data + b"\0",
    ],
    ids=["truncated", "empty", "last bit", "a bit", "longer"],
)
def test_damaged_weights_are_refused_and_stay_as_they_are(saved, identity, space, damage):
    folder, _, _ = saved
    weights = folder / "supernet-00002.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    before, network = files(folder), build_supernet(space, 1)
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(
        InputError, match=r"safetensors is damaged: its SHA-256 .*; choose another run folder, or move"
    ):
        load_checkpoint(folder, identity, network)
    assert files(folder) == before
    assert same_tensors(network.state_dict(), kept)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: b"",
        lambda text: b"\xff" + text,
        lambda text: b"[]",
        lambda text: b"3",
        lambda text: b"{}",
        lambda text: b"[" * 99999,
        lambda text: text.replace(b"supernet-00002", b"supernet-00009"),
        lambda text: text.replace(b"supernet-00002", b"../run/supernet-00002"),
        lambda text: text.replace(b'"supernet-00002.safetensors"', b"7"),
    ],
    ids=[
        "truncated",
        "empty",
        "not text",
        "list",
        "number",
        "no keys",
        "too deep",
        "missing weights",
        "path",
        "no name",
    ],
)
def test_a_damaged_index_is_refused_and_stays_as_it_is(saved, identity, space, damage):
    folder, _, _ = saved
    (folder / INDEX).write_bytes(damage((folder / INDEX).read_bytes()))
    before = files(folder)
    with pytest.raises(InputError, match=r"supernet\.json is not a whole checkpoint: .*; choose another run folder"):
        load_checkpoint(folder, identity, build_supernet(space, 1))
    assert files(folder) == before


def test_missing_weights_are_refused(saved, identity, space):
    folder, _, _ = saved
    (folder / "supernet-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"supernet\.json is not a whole checkpoint: .*supernet-00002\.safetensors"):
        load_checkpoint(folder, identity, build_supernet(space, 1))


@pytest.mark.parametrize("history", ["gone", 3, [{"loss": 1.0}], [3]])
def test_an_index_without_a_proper_history_is_refused(saved, identity, space, history):
    folder, _, _ = saved
    index = json.loads((folder / INDEX).read_text())
    if history == "gone":
        del index["history"]
    else:
        index["history"] = history
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"supernet\.json does not fit its network: .*; choose another run folder"):
        load_checkpoint(folder, identity, build_supernet(space, 1))


def test_weights_of_another_network_under_the_right_digest_are_refused(saved, identity, space):
    folder, _, _ = saved
    blob = safetensors.torch.save({"model.head.weight": torch.zeros(3, 3)})
    (folder / "supernet-00002.safetensors").write_bytes(blob)
    index = json.loads((folder / INDEX).read_text()) | {"sha256": hashlib.sha256(blob).hexdigest()}
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match="does not fit its network: "):
        load_checkpoint(folder, identity, build_supernet(space, 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("optimizer.3.exp_avg"),
        lambda tensors: tensors.update({"optimizer.3.exp_avg": torch.zeros(1)}),
        lambda tensors: tensors.update({"optimizer.3.step": torch.zeros(4)}),
        lambda tensors: tensors.update({"optimizer.999.step": torch.zeros(())}),
        lambda tensors: tensors.update({"optimizer.x.step": torch.zeros(())}),
    ],
    ids=["lost", "another shape", "many steps", "no such parameter", "no number"],
)
def test_an_optimisers_state_that_it_cannot_go_on_from_is_refused(change, saved, identity, trained):
    folder, _, _ = saved
    tensors = safetensors.torch.load((folder / "supernet-00002.safetensors").read_bytes())
    change(tensors)
    blob = safetensors.torch.save(tensors)
    (folder / "supernet-00002.safetensors").write_bytes(blob)
    index = json.loads((folder / INDEX).read_text()) | {"sha256": hashlib.sha256(blob).hexdigest()}
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match="does not fit its network: "):
        load_checkpoint(folder, identity, *trained(1))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("seed", lambda c, _: {"seed": 4}),
        ("data", lambda c, _: {"data": "digits"}),
        ("settings", lambda c, _: {"settings": replace(c.settings, epochs=9)}),
        ("settings", lambda c, _: {"settings": replace(c.settings, augment=())}),
        ("settings", lambda c, _: {"settings": replace(c.settings, learning_rate=6e-4)}),
        ("architecture", lambda c, _: {"architecture": c.space.smallest()}),
        ("skeleton", lambda c, _: {"skeleton": replace(c.skeleton, surrogate="atan")}),
        ("space", lambda c, make_space: {"space": make_space({"tau": [2.0]})}),
        ("space", lambda c, _: {"space": None}),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_by_what_differs(
    saved, identity, space, make_space, field, change
):
    folder, _, _ = saved
    before, network = files(folder), build_supernet(space, 1)
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    message = rf"must be a checkpoint of this run, but its {field} differs: expected .*, got .*; choose another run"
    with pytest.raises(InputError, match=message):
        load_checkpoint(folder, replace(identity, **change(identity, make_space)), network)
    assert files(folder) == before
    assert same_tensors(network.state_dict(), kept)


def test_training_into_the_folder_of_another_training_is_refused_and_changes_nothing(tmp_path, make_space, make_data):
    skeleton, data = make_space().skeleton, make_data(24)
    settings = TrainSettings(epochs=1, warmup_epochs=0, batch_size=12)
    train(Spikformer(skeleton, NETWORK), data, settings, 0, checkpoint=tmp_path)
    before = files(tmp_path)
    for change, seed, architecture in (
        ({}, 1, NETWORK),
        ({"mixup": 0.1}, 0, NETWORK),
        ({}, 0, replace(NETWORK, embed_dim=32)),
    ):
        network = Spikformer(skeleton, architecture)
        with pytest.raises(InputError, match="must be a checkpoint of this run, but its"):
            train(network, data, replace(settings, **change), seed, checkpoint=tmp_path)
    with pytest.raises(InputError, match="but its data differs: expected 'other', got 'stripes'"):
        train(Spikformer(skeleton, NETWORK), replace(data, name="other"), settings, 0, checkpoint=tmp_path)
    assert files(tmp_path) == before


def test_nothing_on_this_floor_pickles():
    """torch.load and torch.save pickle; NumPy does so if allowed to."""
    for path in Path(supernet.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not modules & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}, path
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}, path
            elif isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", path
