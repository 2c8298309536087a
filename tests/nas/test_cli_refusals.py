"""Wrong input to the command: one line with rule, fact and way out, exit code 2, and nothing lost."""

import gzip
import hashlib
import json
import re
import shutil
import struct

import numpy as np
import pytest
from fakes import METRICS, SPACE, write_recipe
from safetensors.numpy import load, save


def refused(result):
    code, out, err = result
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, "one line"
    assert err.endswith("\n")
    return err


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("[search]", "[search]\npopulatoin = 5", "unknown key search.populatoin; known keys here are"),
        ("seed = 9", "sede = 9", "unknown key sede; known keys here are"),
        ("evaluations = 16", "evaluations = 0", "search.evaluations should be greater than or equal to 1, got 0"),
        ("epochs = 2", 'epochs = "2"', "training.epochs should be a valid integer, got '2'"),
        (
            "warmup_epochs = 0.2",
            "warmup_epochs = 5",
            "training.warmup_epochs must be 0 or more and below epochs 2",
        ),
        (METRICS, 'metrics = ["accuracy", "speed"]', "evaluator must be one of"),
        (METRICS, 'metrics = ["accuracy", "energy_mj", "nothing.here:Own"]', "cannot be imported"),
        (METRICS, 'metrics = ["accuracy", "energy_mj", "math:pi"]', "math:pi"),
        ("[data]", '[options.f_aeb]\nform = "sum"\n[data]', "options belong to evaluators in use"),
        (METRICS, 'metrics = ["accuracy", "f_aeb", "energy_mj"]\noptions.f_aeb.exponent = "high"', "exponent"),
        ('pool = "local"', 'pool = "slurm"', "workers.pool should be 'local' or 'ray', got 'slurm'"),
        ("epochs = 2", 'epochs = 2\naugment = ["sparkle"]', "augment must list some of"),
        ("[workers]", "constraints = { max_speed = 1 }\n[workers]", "must be max_ or min_ with one of the metrics"),
        ("[workers]", "constraints = { max_parameters = inf }\n[workers]", "must be texts, finite numbers"),
        ("[workers]", "constraints = { max_parameters = 9 }\n[workers]", "the nearest has parameters"),
        (
            "[workers]",
            "constraints = { min_spikes = 9, max_spikes = 8 }\n[workers]",
            "must leave room between min_spikes and max_spikes, got 9 and 8",
        ),
        ("space.toml", "mars.toml", "no space file at"),
        ("space.toml", "mars", "a space is one of"),
        ('"digits"', '"mars"', "data must be one of"),
        ("seed = 9", "seed = ", "must be a TOML file"),
    ],
    ids=lambda text: text[:40],
)
@pytest.mark.parametrize("verb", ["search", "train"])
def test_a_wrong_recipe_is_refused(verb, old, new, text, command, tmp_path):
    path = write_recipe(tmp_path, (old, new))
    assert text in refused(command(verb, path, "--out", tmp_path / "run"))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("num_heads = [1, 2]", "num_heads = [1, 3]", "embed_dim must be divisible by every num_heads choice"),
        ("mlp_ratio = [1.0]", "mlp_ratio = [1.01]", "embed_dim times mlp_ratio must be a whole number"),
        ("embed_dim = [8, 16]", "embed_dim = [12]", "choices of embed_dim must be positive multiples of 8"),
        ("depth = [1, 2]", "depth = []", "depth must be a non-empty list"),
        ("tau = [1.5, 2.0]", "tau = [1.0]", "choices of tau must be numbers above 1"),
        ("tau = [1.5, 2.0]", "taus = [2.0]", r"missing ['tau'], unknown ['taus']"),
        ("stem_pools = [1, 3]", 'stem_pools = [1, 3]\nneuron = "hh"', "neuron must be one of"),
        ("stem_pools = [1, 3]", "stem_pools = [4]", "stem_pools must list different stages"),
        ("[genes]", "[genes", "must be a TOML file"),
    ],
    ids=lambda text: text[:40],
)
def test_a_space_that_no_architecture_satisfies_is_refused(old, new, text, command, tmp_path):
    path = write_recipe(tmp_path, space=SPACE.replace(old, new))
    assert SPACE.count(old) == 1
    assert text in refused(command("search", path, "--out", tmp_path / "run"))
    assert text in refused(command("profile", tmp_path / "space.toml"))
    assert not (tmp_path / "run").exists()


def test_a_reason_of_several_lines_becomes_one(command, own_module, tmp_path):
    own_module("wordy", "class Own:\n    def __init__(self):\n        raise ValueError('one\\ntwo\\n\\n  three')\n")
    path = write_recipe(tmp_path, (METRICS, 'metrics = ["accuracy", "energy_mj", "wordy:Own"]'))
    assert "one two three" in refused(command("train", path, "--out", tmp_path / "run"))


def test_a_missing_recipe_or_space_is_refused(command, tmp_path):
    assert "no recipe at" in refused(command("search", tmp_path / "none.toml"))
    assert "a recipe is one of" in refused(command("train", "mars"))
    assert "no space file at" in refused(command("profile", tmp_path / "none.toml"))
    assert "a space is one of" in refused(command("profile", "mars"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--evaluations", "0"], "search.evaluations should be greater than or equal to 1, got 0"),
        (["--seed", "-1"], "seed should be greater than or equal to 0, got -1"),
        (["--pool", "slurm"], "workers.pool should be 'local' or 'ray', got 'slurm'"),
        (["--workers", "0"], "workers.count should be greater than or equal to 1, or 'auto', got 0"),
        (["--data-dir", "/nowhere/at/all"], "the data folder must exist, got /nowhere/at/all"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_options_are_refused(options, text, command, recipe, copied, snapshot):
    before = snapshot(copied)
    assert text in refused(command("search", recipe, "--out", copied, *options))
    assert snapshot(copied) == before


@pytest.mark.parametrize("option", ["--image-size", "--channels", "--classes"])
def test_profile_refuses_an_input_of_nothing(option, command):
    assert "must be a positive integer, got 0" in refused(command("profile", "digits", option, 0))


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("missing", r"mnist needs the files .*; some are missing"),
        ("truncated", r"it is truncated or damaged: fetch it again"),
        ("half a gzip", r"must be a complete gzip file"),
        ("no idx", r"must be an IDX file of unsigned bytes"),
    ],
)
def test_missing_or_truncated_data_is_refused(how, text, command, tmp_path):
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 200), ("t10k", 50)):
        images = idx(rng.integers(0, 256, (count, 8, 8)).astype(np.uint8))
        labels = idx((np.arange(count) % 10).astype(np.uint8))
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    path = write_recipe(tmp_path, ('"digits"\ntrain_images = 1000', '"mnist"'))
    assert command("train", path, "--out", tmp_path / "whole", "--data-dir", tmp_path)[0] == 0
    victim = tmp_path / "train-images-idx3-ubyte.gz"
    whole = victim.read_bytes()
    if how == "missing":
        victim.unlink()
    else:
        plain = gzip.decompress(whole)
        damaged = {
            "truncated": gzip.compress(plain[:5000]),
            "half a gzip": whole[:2000],
            "no idx": gzip.compress(b"PNG"),
        }
        victim.write_bytes(damaged[how])
    err = refused(command("train", path, "--out", tmp_path / "run", "--data-dir", tmp_path))
    assert re.search(text, err)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def other_space(tmp_path):
    """Path of the tiny recipe with a space of other widths."""
    folder = tmp_path / "other"
    folder.mkdir()
    return write_recipe(folder, space=SPACE.replace("embed_dim = [8, 16]", "embed_dim = [8, 24]"))


def checkpoint(folder):
    return [folder / "supernet.json", folder / "supernet-00002.safetensors"]


def test_a_checkpoint_of_another_space_is_refused(command, finished, other_space, tmp_path, snapshot):
    run = tmp_path / "run"
    assert command("train", other_space, "--out", run)[0] == 0
    for path in checkpoint(finished.folder):
        shutil.copy(path, run)
    before = snapshot(run)
    for verb in ("train", "search"):
        err = refused(command(verb, other_space, "--out", run))
        assert "supernet.json must be a checkpoint of this run, but its architecture differs" in err
    after = snapshot(run)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("weights flipped", "is damaged: its SHA-256 is not that of supernet.json"),
        ("weights truncated", "is damaged: its SHA-256 is not that of supernet.json"),
        ("weights missing", "is not a whole checkpoint"),
        ("index truncated", "is not a whole checkpoint"),
        ("weights of another network", "does not fit its network"),
        ("weights of no network", "does not fit its network"),
    ],
)
def test_a_damaged_checkpoint_is_refused(how, text, command, copied, recipe, snapshot):
    index, weights = checkpoint(copied)
    blob = weights.read_bytes()
    if how == "weights flipped":
        weights.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    elif how == "weights truncated":
        weights.write_bytes(blob[: len(blob) // 2])
    elif how == "weights missing":
        weights.unlink()
    elif how == "index truncated":
        index.write_bytes(index.read_bytes()[:100])
    else:
        other = b"x" * 100
        if how == "weights of another network":
            other = save({name: array[:1] if array.ndim else array for name, array in load(blob).items()})
        weights.write_bytes(other)
        values = json.loads(index.read_text())
        index.write_text(json.dumps({**values, "sha256": hashlib.sha256(other).hexdigest()}))
    before = snapshot(copied)
    for verb in ("train", "search"):
        assert text in refused(command(verb, recipe, "--out", copied))
    assert text in refused(command("report", copied))
    after = snapshot(copied)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("verb", ["train", "search"])
def test_a_run_folder_of_another_recipe_is_refused(verb, command, recipe, other_space, copied, snapshot):
    before = snapshot(copied)
    assert "differs in space.genes.embed_dim" in refused(command(verb, other_space, "--out", copied))
    assert "differs in seed (9 there, 4 here)" in refused(command(verb, recipe, "--out", copied, "--seed", 4))
    assert snapshot(copied) == before


@pytest.mark.parametrize("verb", ["train", "search"])
def test_an_unwritable_folder_is_refused(verb, command, recipe, tmp_path):
    (tmp_path / "file").write_text("precious")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        assert "the run folder must be writable" in refused(command(verb, recipe, "--out", folder))
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("verb", ["front", "report"])
def test_what_is_no_run_folder_is_refused_and_left_alone(verb, command, tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "empty").mkdir()
    assert "is not a run folder" in refused(command(verb, tmp_path / "empty"))
    assert "is not a run folder" in refused(command(verb, tmp_path / "missing"))
    assert "cannot be read" in refused(command(verb, tmp_path / "file"))
    assert list((tmp_path / "empty").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.parametrize("how", ["text", "truncated", "trials"])
def test_a_damaged_store_is_refused(how, command, copied, recipe, snapshot):
    path = copied / "study.db"
    whole = path.read_bytes()
    if how == "text":
        path.write_text("no database")
    elif how == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        middle = len(whole) // 2 // 4096 * 4096
        path.write_bytes(whole[:middle] + b"\xab" * (len(whole) - middle))
    before = snapshot(copied)
    for words in (("front", copied), ("report", copied)):
        assert "study.db must be the store of a run" in refused(command(*words))
    code, out, err = command("search", recipe, "--out", copied)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {path} must be the store of a run")
    assert snapshot(copied) == before
