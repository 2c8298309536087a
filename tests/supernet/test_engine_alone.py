"""A network that was cut out of its supernet and calibrated is the one that was scored there, to the last bit."""

from itertools import pairwise

import pytest
import torch

from spaces import Architecture, Layer
from supernet.engine import Engine
from supernet.extract import extract
from supernet.native import compiler_problem
from supernet.spikformer import Spikformer

DEEP = Architecture(32, 3, (Layer(2.0, 4, 0.55, 1.5), Layer(0.5, 4, 0.55, 3.0), Layer(1.0, 2, 0.8, 2.0)))
NARROW = Architecture(16, 2, (Layer(0.5, 4, 0.8, 3.0), Layer(2.0, 1, 0.55, 2.0)))
PASS = 5

needs_compiler = pytest.mark.skipif(compiler_problem() is not None, reason="needs a C compiler")


@pytest.mark.parametrize("executor", ["reference", pytest.param("native", marks=needs_compiler)])
@pytest.mark.parametrize("neuron", ["lif", "plif"])
def test_it_scores_by_itself_as_it_did_in_its_supernet(make_space, enliven, make_images, executor, neuron):
    space = make_space(neuron=neuron)
    supernet = enliven(Spikformer(space.skeleton, space.largest(), executor)).eval()
    calibration, scored = [make_images(6, 1, 8, 1), make_images(5, 1, 8, 2)], [make_images(12, 1, 8, 3)]
    engine = Engine(supernet, executor=executor, images_per_pass=PASS)
    for architecture, within in zip((DEEP, NARROW), engine.score([DEEP, NARROW], calibration, scored), strict=True):
        subnet = extract(supernet, architecture)
        for layer, row in engine.statistics(architecture, calibration).items():
            subnet.get_submodule(f"{layer.rpartition('.')[0]}.bn").set_statistics(row.mean, row.variance)
        alone = Engine(subnet, executor=executor, images_per_pass=PASS).score_itself(scored)
        assert torch.equal(alone.logits, within.logits)
        assert (alone.layers, alone.neurons, alone.images) == (within.layers, within.neurons, 12)


def test_its_own_statistics_make_the_difference(make_space, enliven, make_images):
    space = make_space()
    network, images = enliven(Spikformer(space.skeleton, space.largest())).eval(), make_images(4, 1, 8, 3)
    before = Engine(network).score_itself([images]).logits
    with torch.no_grad():
        network.blocks[0].fc1.bn.running_mean += 1
    assert not torch.equal(Engine(network).score_itself([images]).logits, before)


def test_images_come_in_any_batches(make_space, enliven, make_images):
    space = make_space()
    network, images = enliven(Spikformer(space.skeleton, space.largest())).eval(), make_images(6, 1, 8, 3)
    engine = Engine(network, images_per_pass=2)
    results = [engine.score_itself(images.split(size)) for size in (2, 4, 6)]
    assert all(torch.equal(one.logits, other.logits) for one, other in pairwise(results))


def test_statistics_are_those_that_a_network_keeps(make_space, enliven, make_images):
    space = make_space()
    supernet = enliven(Spikformer(space.skeleton, space.largest())).eval()
    found = Engine(supernet).statistics(DEEP, [make_images(6, 1, 8, 1), make_images(5, 1, 8, 2)])
    for row in found.values():
        assert torch.equal(row.variance, row.variance.float().double())
        torch.testing.assert_close(row.mean, row.mean.float().double(), rtol=0, atol=1e-13)
