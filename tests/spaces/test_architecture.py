"""Architectures as values: equality, keys, JSON."""

import hashlib
import json
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from spaces import Architecture, InputError, Layer, load_space, space_names

SMALL = Architecture(16, 2, (Layer(2.0, 4, 0.8, 1.5), Layer(3.0, 1, 1.0, 2.0)))
VALUES = {
    "embed_dim": 16,
    "timesteps": 2,
    "layers": [
        {"mlp_ratio": 2.0, "num_heads": 4, "v_threshold": 0.8, "tau": 1.5},
        {"mlp_ratio": 3.0, "num_heads": 1, "v_threshold": 1.0, "tau": 2.0},
    ],
}


def test_key_is_twelve_hexadecimal_digits_of_the_sorted_compact_json():
    text = (
        '{"embed_dim":16,"layers":['
        '{"mlp_ratio":2.0,"num_heads":4,"tau":1.5,"v_threshold":0.8},'
        '{"mlp_ratio":3.0,"num_heads":1,"tau":2.0,"v_threshold":1.0}],"timesteps":2}'
    )
    assert SMALL.key == hashlib.sha256(text.encode()).hexdigest()[:12] == "b21ff0d52c6c"


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_key_is_the_same_in_another_process(hash_seed):
    script = (
        "import sys, json; from spaces import Architecture; print(Architecture.from_dict(json.load(sys.stdin)).key)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(SMALL.to_dict()),
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == SMALL.key


@pytest.mark.parametrize("name", space_names())
def test_json_gives_back_the_same_value_and_key(name):
    space = load_space(name)
    rng = np.random.default_rng(0)
    for _ in range(20):
        architecture = space.sample_genes(rng)
        back = Architecture.from_dict(json.loads(json.dumps(architecture.to_dict())))
        assert back == architecture
        assert back.key == architecture.key


def test_whole_numbers_in_json_and_numbers_with_a_point_are_one_architecture():
    values = deepcopy(VALUES)
    values["embed_dim"] = 16.0
    values["layers"][0]["mlp_ratio"] = 2
    assert Architecture.from_dict(values) == SMALL
    assert Architecture.from_dict(values).key == SMALL.key


def test_equal_architectures_have_equal_keys_and_hashes_however_their_numbers_are_written():
    written = Architecture(16, 2, (Layer(2, 4, 0.8, 1.5), Layer(3, 1, 1, 2)))
    assert written == SMALL
    assert hash(written) == hash(SMALL)
    assert written.key == SMALL.key


def test_different_architectures_have_different_keys(tiny):
    architectures = list(tiny)
    assert len({architecture.key for architecture in architectures}) == len(architectures)


def test_order_of_layers_matters():
    swapped = Architecture(16, 2, SMALL.layers[::-1])
    assert swapped != SMALL
    assert swapped.key != SMALL.key


def test_genes_are_named_by_layer_and_only_those_of_existing_layers():
    assert SMALL.genes == {
        "embed_dim": 16,
        "timesteps": 2,
        "depth": 2,
        "mlp_ratio_0": 2.0,
        "num_heads_0": 4,
        "v_threshold_0": 0.8,
        "tau_0": 1.5,
        "mlp_ratio_1": 3.0,
        "num_heads_1": 1,
        "v_threshold_1": 1.0,
        "tau_1": 2.0,
    }
    assert SMALL.to_dict() == VALUES


def test_an_architecture_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        SMALL.embed_dim = 32
    with pytest.raises(FrozenInstanceError):
        SMALL.layers[0].tau = 3.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("timesteps"), "exactly the fields .*timesteps.*, got .*embed_dim"),
        (lambda v: v.update(depth=2), "exactly the fields .*, got .*depth"),
        (lambda v: v.update(layers=[]), r"layers must be a non-empty list, got \[\]"),
        (lambda v: v.update(layers={}), "layers must be a non-empty list, got {}"),
        (lambda v: v.update(layers=[3]), "a layer has exactly the fields .*, got 3"),
        (lambda v: v["layers"][1].pop("tau"), "a layer has exactly the fields .*tau.*, got"),
        (lambda v: v["layers"][1].update(alpha=1.0), "a layer has exactly the fields .*, got .*alpha"),
        (lambda v: v.update(embed_dim="16"), "embed_dim must be a finite number, got '16'"),
        (lambda v: v.update(embed_dim=True), "embed_dim must be a finite number, got True"),
        (lambda v: v.update(timesteps=None), "timesteps must be a finite number, got None"),
        (lambda v: v.update(timesteps=1.5), "timesteps must be a whole number, got 1.5"),
        (lambda v: v["layers"][0].update(num_heads=2.5), "num_heads must be a whole number, got 2.5"),
        (lambda v: v["layers"][0].update(tau=[2.0]), r"tau must be a finite number, got \[2.0\]"),
        (lambda v: v["layers"][0].update(mlp_ratio=False), "mlp_ratio must be a finite number, got False"),
    ],
)
def test_values_that_describe_no_architecture_are_refused(change, message):
    values = deepcopy(VALUES)
    change(values)
    with pytest.raises(InputError, match=message):
        Architecture.from_dict(values)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["embed_dim", "timesteps", "mlp_ratio", "num_heads", "v_threshold", "tau"])
def test_not_a_number_and_infinity_are_refused(field, number):
    values = deepcopy(VALUES)
    (values if field in values else values["layers"][0])[field] = number
    with pytest.raises(InputError, match=f"{field} must be a"):
        Architecture.from_dict(values)


def test_something_that_is_no_table_is_refused():
    with pytest.raises(InputError, match=r"an architecture has exactly the fields .*, got 3"):
        Architecture.from_dict(3)
