"""Parameters and dense operations: right, and without weights."""

import numpy as np
import pytest
import torch

from evaluators import EVALUATORS, Candidate, count_macs, count_parameters, dense_operations
from spaces import Architecture, Layer, Skeleton
from supernet.spikformer import Spikformer


class Weightless(Candidate):
    """A candidate that must not be built."""

    @property
    def subnet(self):
        raise AssertionError("the subnet was built")

    @property
    def outcome(self):
        raise AssertionError("the subnet was run")


def spikformer(depth, width, heads):
    return Architecture(width, 4, tuple(Layer(4.0, heads, 1.0, 2.0) for _ in range(depth)))


@pytest.mark.parametrize(
    ("architecture", "published"),
    [
        (spikformer(4, 384, 12), 9_330_874),
        (spikformer(4, 256, 8), 4_159_274),
        (spikformer(2, 384, 12), 5_768_122),
    ],
    ids=["4-384", "4-256", "2-384"],
)
def test_parameters_are_those_of_the_public_model_but_its_unused_norms(architecture, published):
    unused = architecture.depth * 2 * 2 * architecture.embed_dim
    assert count_parameters(Skeleton(32, 3, 10), architecture) == published - unused


SKELETONS = [
    {},
    {"image_size": 13, "in_channels": 3, "num_classes": 7, "stem_pools": [0, 1, 3]},
    {"stem_pools": [], "neuron": "plif"},
    {"neuron": "if"},
]


@pytest.mark.parametrize("skeleton", SKELETONS, ids=str)
def test_closed_forms_equal_real_networks_and_the_sum_over_layers(skeleton, make_space):
    space = make_space(**skeleton)
    drawn = [space.sample_genes(np.random.default_rng(seed)) for seed in range(6)]
    for architecture in (space.smallest(), space.largest(), *drawn):
        with torch.device("meta"):
            real = Spikformer(space.skeleton, architecture)
        assert count_parameters(space.skeleton, architecture) == sum(p.numel() for p in real.parameters())
        counted = dense_operations(space.skeleton, architecture).macs_per_image
        assert count_macs(space.skeleton, architecture) == counted


@pytest.mark.parametrize("name", ["parameters", "macs"])
def test_complexity_never_touches_weights(name, space, supernet, images):
    metrics = EVALUATORS[name]()(Weightless(space.smallest(), supernet, images))
    assert metrics[name] > 0


def test_weightless_candidates_cannot_be_scored_by_their_spikes(space, supernet, images):
    candidate = Weightless(space.smallest(), supernet, images)
    for name in ("accuracy", "energy_mj", "spikes", "f_aeb"):
        with pytest.raises(AssertionError, match="the subnet was"):
            EVALUATORS[name]()(candidate)


def test_counting_takes_no_memory_and_leaves_the_default_device_alone():
    huge = Architecture(65_536, 2, tuple(Layer(4.0, 8, 1.0, 2.0) for _ in range(2)))
    skeleton = Skeleton(32, 3, 10)
    assert count_parameters(skeleton, huge) > 1e11
    assert dense_operations(skeleton, huge).macs_per_image > 1e13
    assert torch.zeros(1).device.type == "cpu"


def test_macs_by_hand():
    skeleton = Skeleton(image_size=8, in_channels=1, num_classes=3, stem_pools=(3,))
    layer = Layer(2.0, 2, 1.0, 2.0)
    tokens, width, timesteps = 16, 16, 3
    stem = 64 * 9 * (2 * 4 + 4 * 8 + 8 * 16) + 16 * 9 * 16 * 16  # second to fourth stage, then position
    block = tokens * width * width * (4 + 2 + 2) + 2 * tokens * tokens * width
    once = 64 * 9 * 1 * 2 + width * 3
    counts = dense_operations(skeleton, Architecture(width, timesteps, (layer,)))
    assert counts.macs_per_image == once + timesteps * (stem + block)
    assert counts.analog_macs_per_image == once


def test_neither_threshold_nor_tau_changes_complexity(space):
    skeleton = space.skeleton
    excitable, calm = (Architecture(16, 2, (Layer(1.0, 2, v, tau),)) for v, tau in [(0.5, 1.5), (1.0, 2.0)])
    assert count_parameters(skeleton, excitable) == count_parameters(skeleton, calm)
    assert dense_operations(skeleton, excitable) == dense_operations(skeleton, calm)
