"""Which architectures a training step runs."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from spaces import load_space
from supernet.sampling import SAMPLING


@pytest.fixture
def space():
    return load_space("digits")


@pytest.mark.parametrize("name", SAMPLING)
def test_sampled_architectures_are_in_the_space_and_follow_from_the_generator(space, name):
    first, second = ([SAMPLING[name](space, rng) for _ in range(10)] for rng in map(np.random.default_rng, (3, 3)))
    assert first == second
    assert len({architecture for step in first for architecture in step}) > 5
    assert all(architecture in space for step in first for architecture in step)


@pytest.mark.parametrize("name", SAMPLING)
def test_each_draw_uses_the_generator_anew(space, name):
    rng = np.random.default_rng(3)
    assert SAMPLING[name](space, rng) != SAMPLING[name](space, rng)


def test_single_path_sampling_draws_one_architecture_with_uniform_depth(space):
    rng = np.random.default_rng(4)
    steps = [SAMPLING["single"](space, rng) for _ in range(1000)]
    assert {len(step) for step in steps} == {1}
    depths = Counter(step[0].depth for step in steps)
    assert chisquare([depths[1], depths[2]]).pvalue > 0.01


def test_a_sandwich_is_the_largest_the_smallest_and_two_random_ones_between(space):
    rng = np.random.default_rng(5)
    steps = [SAMPLING["sandwich"](space, rng) for _ in range(50)]
    assert {(len(step), step[0], step[1]) for step in steps} == {(4, space.largest(), space.smallest())}
    assert len({step[2] for step in steps}) > 40
    assert len({step[3] for step in steps}) > 40
    assert sum(step[2] == step[3] for step in steps) < 5
