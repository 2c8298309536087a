"""Networks as folders: what is written is read back, and what is damaged is refused in one line."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from spaces import InputError
from supernet.data import Normalise
from supernet.pretrained import CONFIG, WEIGHTS, Pretrained, read_config, read_pretrained
from supernet.spikformer import Spikformer

CLASSES = ("cat", "dog", "Ünïcode | class")
OWN = "neurons_of_my_own:Adaptive"


@pytest.fixture
def make_pretrained(make_space, enliven):
    def make_pretrained(architecture="largest", **skeleton):
        space = make_space(**skeleton)
        network = enliven(Spikformer(space.skeleton, getattr(space, architecture)())).eval()
        return Pretrained(network, Normalise((0.25,), (0.5,)), CLASSES, {"data": {"name": "digits"}})

    return make_pretrained


@pytest.fixture
def write(tmp_path):
    def write(pretrained):
        folder = tmp_path / "network"
        folder.mkdir()
        for name, content in pretrained.files().items():
            (folder / name).write_bytes(content)
        return folder

    return write


@pytest.fixture
def folder(make_pretrained, write):
    return write(make_pretrained())


def change(folder, **values):
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rewrite(folder, tensors):
    """Replace the weights, and their digest, so that only their content can be wrong."""
    blob = save(tensors)
    (folder / WEIGHTS).write_bytes(blob)
    change(folder, weights_sha256=hashlib.sha256(blob).hexdigest())


def refused(folder, **options):
    with pytest.raises(InputError) as caught:
        Spikformer.from_pretrained(folder, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("neuron", ["lif", "plif", "if"])
@pytest.mark.parametrize("architecture", ["smallest", "largest"])
def test_a_network_is_read_back_to_the_last_bit(make_pretrained, write, make_images, neuron, architecture):
    pretrained = make_pretrained(architecture, neuron=neuron, soft_reset=True)
    network, images = pretrained.network, make_images(4, 1, 8)
    loaded = Spikformer.from_pretrained(write(pretrained))
    assert not loaded.training
    assert (loaded.architecture, loaded.skeleton) == (network.architecture, network.skeleton)
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))


def test_raw_images_can_be_fed_and_answers_have_names(folder):
    loaded = Spikformer.from_pretrained(folder)
    pixels = np.full((2, 1, 8, 8), 255, dtype=np.uint8)
    assert loaded.classes == CLASSES
    assert torch.equal(loaded.normalise(pixels), torch.full((2, 1, 8, 8), 1.5))
    assert loaded(loaded.normalise(pixels)).shape == (2, 3)


def test_a_network_that_was_not_loaded_has_no_normalisation(make_space):
    space = make_space()
    network = Spikformer(space.skeleton, space.smallest())
    assert (network.normalise, network.classes) == (None, ())


def test_a_loaded_network_learns(folder, make_images):
    loaded = Spikformer.from_pretrained(folder).train()
    loaded(make_images(4, 1, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_facts_are_read_back(folder):
    facts = read_pretrained(folder).facts
    assert facts == {"data": {"name": "digits"}, "scoring": {}, "scores": {}, "provenance": {}}


def test_the_files_of_equal_networks_are_equal(make_pretrained):
    assert make_pretrained().files() == make_pretrained().files()


def test_a_neuron_of_the_users_own_runs_only_if_it_is_named(make_pretrained, write):
    folder = write(make_pretrained())
    skeleton = {**json.loads((folder / CONFIG).read_text())["skeleton"], "neuron": "a_stranger:Neuron"}
    change(folder, skeleton=skeleton)
    for given in (None, "lif", "another:Neuron"):
        assert "a neuron of somebody's own, 'a_stranger:Neuron'" in refused(folder, neuron=given)
    assert "a_stranger" not in sys.modules
    assert "neuron 'a_stranger:Neuron' cannot be imported" in refused(folder, neuron="a_stranger:Neuron")


def test_loading_brings_nothing_that_unpickles_or_searches(folder):
    code = (
        "import sys; from supernet.spikformer import Spikformer; "
        f"Spikformer.from_pretrained({str(folder)!r}); print({{'nas', 'ray', 'optuna', 'pymoo'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- what is not right


def test_a_folder_without_a_configuration_is_none_of_a_network(tmp_path):
    reason = "has no config.json, so it is no exported network; `nas export` writes one"
    assert refused(tmp_path) == f"{tmp_path} {reason}"
    assert "has no config.json" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"\\ud800"', "[" * 100_000, "\xff"])
def test_a_configuration_that_is_no_json_object_is_refused(folder, text):
    (folder / CONFIG).write_bytes(text.encode("latin-1"))
    assert str(folder / CONFIG) in refused(folder)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("format", "onnx-1", "must be of format spikefront-network-1, got 'onnx-1'"),
        ("format", None, "must be of format spikefront-network-1, got None"),
        ("extra", 1, "has exactly the keys"),
        ("scores", 3, "data, scoring, scores, provenance being tables"),
        ("classes", ["a"], "classes must be 3 names, got ['a']"),
        ("classes", ["a", "b", 3], "classes must be 3 names"),
        ("normalisation", {"mean": [0.0]}, "normalisation has exactly the keys ['mean', 'std']"),
        ("normalisation", {"mean": [0.0], "std": [0.0]}, "normalisation.std must be 1 finite numbers above 0"),
        ("normalisation", {"mean": [0.0, 1.0], "std": [1.0]}, "normalisation.mean must be 1 finite numbers"),
        ("normalisation", {"mean": [float("nan")], "std": [1.0]}, "normalisation.mean must be 1 finite numbers"),
        ("normalisation", {"mean": [True], "std": [1.0]}, "normalisation.mean must be 1 finite numbers"),
        ("normalisation", {"mean": [10**400], "std": [1.0]}, "normalisation.mean must be 1 finite numbers"),
        ("normalisation", {"mean": [1e39], "std": [1.0]}, "normalisation.mean must be 1 finite numbers"),
        ("normalisation", {"mean": [0.0], "std": [1e-46]}, "normalisation.std must be 1 finite numbers above 0"),
        ("architecture", {}, "an architecture has exactly the fields"),
        ("architecture", None, "an architecture has exactly the fields"),
        ("skeleton", {}, "skeleton has exactly the keys"),
        ("skeleton", [], "skeleton has exactly the keys"),
    ],
)
def test_a_configuration_with_a_wrong_value_is_refused(folder, key, value, reason):
    change(folder, **{key: value})
    message = refused(folder)
    assert reason in message
    assert message.startswith(str(folder / CONFIG))


@pytest.mark.parametrize(
    ("gene", "value", "reason"),
    [
        ("embed_dim", 12, "choices of embed_dim must be positive multiples of 8, got 12"),
        ("embed_dim", 2**40, "choices of embed_dim must be positive multiples of 8"),
        ("timesteps", 0, "choices of timesteps must be positive integers, got 0"),
        ("num_heads", 5, "embed_dim must be divisible by every num_heads, got 32 and 5"),
        ("tau", 1.0, "choices of tau must be numbers above 1, got 1.0"),
        ("v_threshold", -1.0, "choices of v_threshold must be positive numbers, got -1.0"),
        ("mlp_ratio", 0.001, "embed_dim times mlp_ratio must be 1 or more"),
        ("layers", 127, "depth must be 126 or less"),
    ],
)
def test_an_architecture_that_no_space_could_have_is_refused(folder, gene, value, reason):
    architecture = json.loads((folder / CONFIG).read_text())["architecture"]
    if gene == "layers":
        architecture["layers"] *= value // 3 + 1
    elif gene in architecture:
        architecture[gene] = value
    else:
        architecture["layers"][0][gene] = value
    change(folder, architecture=architecture)
    assert reason in refused(folder)


def test_a_network_too_large_for_its_file_takes_no_memory(folder):
    architecture = json.loads((folder / CONFIG).read_text())["architecture"]
    architecture["embed_dim"] = 2**16  # its weights would take 4 TB
    change(folder, architecture=architecture)
    assert "must be torch.float32" in refused(folder)


def test_damaged_weights_are_refused(folder):
    path = folder / WEIGHTS
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)
    assert refused(folder) == (f"{path} is damaged: its SHA-256 is not that of config.json; export the network again")
    path.unlink()
    assert refused(folder) == f"{path} cannot be read: No such file or directory; export the network again"


def test_weights_that_are_no_safetensors_are_refused(folder):
    (folder / WEIGHTS).write_bytes(b"pickle")
    change(folder, weights_sha256=hashlib.sha256(b"pickle").hexdigest())
    assert "is no safetensors file" in refused(folder)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda t: t.pop("head.bias"), "head.bias is missing"),
        (lambda t: t.update({"head.more": torch.zeros(1)}), "head.more is in the file only"),
        (lambda t: t.update({"head.bias": torch.zeros(4)}), "must be torch.float32 (3,), got torch.float32 (4,)"),
        (lambda t: t.update({"head.bias": torch.zeros(3).double()}), "got torch.float64 (3,)"),
        (lambda t: t.update({"head.bias": torch.full((3,), torch.nan)}), "head.bias of"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, wrong, reason):
    tensors = load((folder / WEIGHTS).read_bytes())
    wrong(tensors)
    rewrite(folder, tensors)
    assert reason in refused(folder)


def test_an_unknown_executor_is_refused(folder):
    assert "executor must be one of" in refused(folder, executor="gpu")


def test_a_configuration_is_read_as_it_is(folder):
    assert read_config(folder)["classes"] == list(CLASSES)
