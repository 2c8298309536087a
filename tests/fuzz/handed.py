"""What the fuzzed inputs begin as, and the two answers that are right: a result, or one line that refuses."""

import hashlib
import io
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import product
from pathlib import Path
from types import MappingProxyType
from unittest import mock

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from nas import cli
from spaces import InputError, ProductSpace

TABLE = {
    "name": "known",
    "seed": 3,
    "table": {
        "file": "results.csv",
        "genes": ["width", "op", "wide"],
        "unordered": ["width"],
        "metrics": {"acc": "max", "energy_mj": "min"},
        "test": {"acc": "acc_held_out"},
    },
    "search": {
        "objectives": ["acc", "energy_mj"],
        "algorithm": "nsga2",
        "population": 3,
        "expand": 1,
        "evaluations": 6,
        "seconds": 60.0,
        "stall": 5,
        "baseline": False,
        "hypervolume_reference": {"acc": 0.1, "energy_mj": 1.0},
        "constraints": {"min_acc": 0.2, "max_energy_mj": 0.2},
    },
    "workers": {"pool": "local", "count": 1, "threads": 1},
}
"""Recipe of a table."""

SUPERNET = {
    "name": "tiny",
    "seed": 9,
    "space": "space.toml",
    "metrics": ["accuracy", "energy_mj", "parameters", "f_aeb", "energy_mj:costs.toml"],
    "options": {"f_aeb": {"exponent": 0.1, "form": "sum", "reference_mj": 1.0}},
    "executor": "reference",
    "device": "cpu",
    "data": {"name": "digits", "train_images": 100},
    "training": {
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 0.01,
        "min_learning_rate": 0.0001,
        "warmup_epochs": 0.2,
        "weight_decay": 0.06,
        "label_smoothing": 0.1,
        "mixup": 0.0,
        "augment": [],
        "clip_norm": 5.0,
        "precision": "float32",
        "sampling": "single",
        "checkpoint_every": 1,
        "threads": 1,
    },
    "scoring": {
        "calibration_images": 32,
        "validation_images": 60,
        "batch_size": 64,
        "precision": "exact",
        "cache_mb": 64,
    },
    "search": {
        "objectives": ["accuracy", "energy_mj"],
        "algorithm": "ga",
        "fitness": "f_aeb",
        "population": 6,
        "evaluations": 16,
        "constraints": {"max_parameters": 100000.0},
        "warm_start": "list.json",
    },
    "workers": {"pool": "ray", "count": 2, "threads": 1},
}
"""Recipe of a supernet."""

SPACE = {
    "name": "tiny",
    "skeleton": {
        "image_size": 8,
        "in_channels": 1,
        "num_classes": 10,
        "stem_pools": [1, 3],
        "neuron": "lif",
        "surrogate": "sigmoid",
        "soft_reset": False,
    },
    "genes": {
        "embed_dim": [8, 16],
        "timesteps": [1, 2],
        "depth": [1, 2],
        "mlp_ratio": [1.0],
        "num_heads": [1, 2],
        "v_threshold": [0.8, 1.0],
        "tau": [1.5, 2.0],
    },
    "reference": {
        "embed_dim": 16,
        "timesteps": 2,
        "depth": 2,
        "mlp_ratio": 1.0,
        "num_heads": [1, 2],
        "v_threshold": 1.0,
        "tau": 2.0,
    },
}

PRODUCT = {
    "name": "curves",
    "genes": {
        "terms": [1, 2, 4],
        "basis": ["powers", "waves"],
        "skip": [False, True],
        "w": [0.5, 1.5],
        "x": [3, 1, 2],
    },
    "unordered": ["x"],
    "needs": {"skip": ["terms", 2], "w": ["terms", 4]},
}
"""Space of any genes."""

COSTS = {
    "title": "costs",
    "source": "nobody",
    "checked": "recalled",
    "operations": {"mac": 4.6, "accumulate": 0.9, "neuron": 0.1, "spike": 0.1},
    "counting": {"layers": ["linear", "analog"], "integers": "nonzero", "fan_out": "average", "analog": "once"},
    "memory": {
        "weights": {"bytes": 1, "pj_per_byte": 0.5},
        "spikes": {"bytes": 0.125, "pj_per_byte": 0.5},
        "membrane": {"bytes": 2, "pj_per_byte": 0.5},
        "activations": {"bytes": 1, "pj_per_byte": 0.5},
        "on_chip_bytes": 1e6,
        "off_chip_pj_per_byte": 100.0,
        "dense_reuse": 4,
    },
}

SOURCE = {
    "name": "own",
    "source": "handed:Curves",
    "search": {
        "objectives": ["fit", "cost"],
        "population": 3,
        "expand": 1,
        "evaluations": 6,
        "baseline": False,
        "hypervolume_reference": {"fit": 0.0, "cost": 9.0},
    },
    "workers": {"pool": "local", "count": 1, "threads": 1},
}
"""Recipe of a source of the user's own, which is here."""

LISTED = [
    {
        "embed_dim": 8,
        "timesteps": 1,
        "layers": [{"mlp_ratio": 1.0, "num_heads": 1, "v_threshold": 0.8, "tau": 1.5}],
    },
    {
        "embed_dim": 16,
        "timesteps": 2,
        "depth": 1,
        "mlp_ratio_0": 1.0,
        "num_heads_0": 2,
        "v_threshold_0": 1.0,
        "tau_0": 2.0,
    },
]
"""Architectures of that space, in the two ways in which they can be written."""


class Curves:
    """Scores any genes, without anything to train."""

    metrics = MappingProxyType({"fit": "max", "cost": "min"})
    fingerprint = "first"
    tested = True

    def __init__(self):
        self.space = ProductSpace.from_dict(PRODUCT)

    def open(self):
        return lambda row, split: {"fit": row.genes["terms"] - (split == "test"), "cost": row.genes["x"]}


def results():
    """Return a table of 3 x 2 x 2 combinations of which one has no accuracy."""
    frame = pd.DataFrame(list(product([8, 16, 32], ["conv", "skip"], [False, True])), columns=["width", "op", "wide"])
    frame["acc"] = 1 - 4 / frame["width"] - 0.2 * (frame["op"] == "skip") + 0.01 * frame["wide"]
    frame["acc_held_out"] = frame["acc"] - 0.01
    frame["energy_mj"] = frame["width"] * (1 + frame["wide"]) * 1e-3
    frame.loc[7, "acc"] = float("nan")
    return frame


def portions(quick, thorough):
    """Return numbers of examples to parametrise a test by: a quick one, and one that takes minutes."""
    slow = [pytest.mark.slow, pytest.mark.timeout(3600)]
    return pytest.mark.parametrize("examples", [quick, pytest.param(thorough, marks=slow)])


def fuzz(check, examples, **strategies):
    """Call a check on so many examples, the same ones each time."""
    options = settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=True,
    )
    options(given(**strategies)(check))()


@contextmanager
def folder():
    """Give a new folder that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="fuzz"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def digests(path):
    """Return the content of all files of a folder, without those of SQLite's journal and of the lock."""
    files = sorted(each for each in path.rglob("*") if each.is_file())
    passing = (".lock", "-journal", "-wal", "-shm")
    return {
        str(each.relative_to(path)): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in files
        if not each.name.endswith(passing)
    }


def command(*arguments):
    """Run the command ``nas`` in this process; return exit code, standard output and standard error.

    Whatever it raises but its exit is raised here.
    """
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    with (
        mock.patch.object(sys, "argv", ["nas", *map(str, arguments)]),
        mock.patch.object(sys, "path", sys.path[:]),
        mock.patch.dict(os.environ),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        os.environ.pop("SPIKEFRONT_DATA", None)
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code or 0
    return code, *(stream.buffer.getvalue().decode("utf-8") for stream in (out, err))


def answered(result):
    """Check that a command gave a result or refused in one line, and return whether it gave a result."""
    code, out, err = result
    assert code in (0, 2), err
    assert "Traceback" not in out + err
    if code == 2:
        assert out == ""
        assert err.startswith("error: "), err
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        assert len(err) > len("error: \n") + 10, err
    return code == 0


def tried(function, *arguments):
    """Return what a call gives and None, or None and why it refused its input; whatever else it raises is raised."""
    try:
        return function(*arguments), None
    except InputError as error:
        why = str(error)
    assert why.strip()
    return None, why
