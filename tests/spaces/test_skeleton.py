"""Skeletons: what all networks of a space share."""

import json
import re

import pytest

from spaces import InputError, Skeleton


@pytest.mark.parametrize("field", ["image_size", "in_channels", "num_classes"])
@pytest.mark.parametrize("value", [0, -1, 1.0, "8", True, None])
def test_sizes_must_be_positive_integers(field, value):
    sizes = {"image_size": 8, "in_channels": 1, "num_classes": 10} | {field: value}
    with pytest.raises(InputError, match=f"{field} must be a positive integer, got {value!r}"):
        Skeleton(**sizes)


@pytest.mark.parametrize("pools", [[4], [-1], [1, 1], ["1"], [1.5], [None], [[1]], "23"])
def test_pooling_stages_must_be_different_stages_of_the_stem(pools):
    with pytest.raises(InputError, match=r"stem_pools must list different stages out of \[0, 1, 2, 3\], got"):
        Skeleton(8, 1, 10, stem_pools=pools)


@pytest.mark.parametrize("pools", [3, None, True, [True]])
def test_pooling_stages_must_be_a_list_of_numbers(pools):
    with pytest.raises(InputError, match="stem_pools must"):
        Skeleton(8, 1, 10, stem_pools=pools)


@pytest.mark.parametrize("field", ["neuron", "surrogate"])
@pytest.mark.parametrize("value", [3, None, ["lif"], True])
def test_neuron_and_surrogate_must_be_names(field, value):
    with pytest.raises(InputError, match=f"{field} must be a name, got {re.escape(repr(value))}"):
        Skeleton(8, 1, 10, **{field: value})


@pytest.mark.parametrize("value", [0, 1, "false", None])
def test_soft_reset_must_be_true_or_false(value):
    with pytest.raises(InputError, match=f"soft_reset must be true or false, got {value!r}"):
        Skeleton(8, 1, 10, soft_reset=value)


@pytest.mark.parametrize(
    ("size", "pools", "grid"),
    [(32, (2, 3), 8), (8, (3,), 4), (28, (1, 3), 7), (8, (), 8), (7, (3,), 4), (7, (0, 1, 2, 3), 1), (1, (0, 3), 1)],
)
def test_each_pooling_halves_the_grid_and_rounds_up(size, pools, grid):
    assert Skeleton(size, 1, 10, stem_pools=pools).grid_size == grid


def test_another_input_keeps_everything_else():
    skeleton = Skeleton(8, 1, 10, (3,), "plif", "atan", True)
    assert skeleton.with_input(28, 3, 7) == Skeleton(28, 3, 7, (3,), "plif", "atan", True)
    assert skeleton == Skeleton(8, 1, 10, (3,), "plif", "atan", True)


@pytest.mark.parametrize("neuron", ["plif", "package.module:Name"])
def test_json_gives_back_the_same_skeleton(neuron):
    skeleton = Skeleton(8, 1, 10, (1, 3), neuron, "atan", True)
    assert Skeleton(**json.loads(json.dumps(skeleton.to_dict()))) == skeleton


def test_defaults_are_those_of_the_public_model():
    assert Skeleton(32, 3, 10).to_dict() == {
        "image_size": 32,
        "in_channels": 3,
        "num_classes": 10,
        "stem_pools": [2, 3],
        "neuron": "lif",
        "surrogate": "sigmoid",
        "soft_reset": False,
    }
