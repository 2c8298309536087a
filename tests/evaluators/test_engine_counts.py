"""The fast engine counts what hooks on each layer count, to the last operation, wherever it fires the same spikes."""

import pytest
import torch

from evaluators import Candidate, SharedOutcomes, counting
from spaces import Architecture, Layer
from supernet.calibrate import calibrate
from supernet.engine import Engine
from supernet.extract import extract
from supernet.layers import EntangledBatchNorm, EntangledConv2d, EntangledLinear
from supernet.neurons import NEURONS, SpikingNeuron

ARCHITECTURES = [
    Architecture(32, 4, (Layer(2.0, 4, 0.5, 2.0), Layer(1.0, 2, 1.0, 2.0))),
    Architecture(32, 4, (Layer(2.0, 4, 0.5, 2.0), Layer(2.0, 1, 0.5, 2.0))),
    Architecture(16, 1, (Layer(1.0, 1, 1.0, 2.0),)),
    Architecture(16, 3, (Layer(2.0, 2, 0.5, 2.0),)),
]


def rounded(supernet):
    """Make all sums of weights exact, so that both paths compute the same currents."""
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, EntangledConv2d | EntangledLinear):
                module.weight.copy_((module.weight * 64).round() / 64)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, EntangledBatchNorm):
                module.weight.copy_((module.weight * 4).round() / 4)
    return supernet


@pytest.mark.parametrize("executor", ["native", "reference"])
@pytest.mark.parametrize("neuron", NEURONS)
def test_the_engine_counts_what_hooks_count(neuron, executor, make_space, make_supernet, make_images):
    space = make_space(neuron=neuron, stem_pools=(1, 3))
    supernet = rounded(make_supernet(space))
    for module in supernet.modules():
        if isinstance(module, SpikingNeuron):
            module.executor = executor
    images = make_images(batch_size=64)
    engine = Engine(supernet, executor=executor)
    outcomes = SharedOutcomes(engine, ARCHITECTURES, images)
    x = images.normalise(images.scored.images)
    agreed = 0
    for architecture in ARCHITECTURES:
        subnet = outcomes.calibrate(extract(supernet, architecture))
        with torch.no_grad(), counting(subnet) as plain:
            subnet(x)
        shared = outcomes[architecture].operations
        assert set(shared.layers) == set(plain.layers)
        assert set(shared.neurons) == set(plain.neurons)
        if shared.neurons == plain.neurons:  # else rounding has tipped a potential
            agreed += 1
            assert shared == plain
            assert shared.timesteps == architecture.timesteps
    assert agreed >= 3


def test_counts_of_the_same_network_do_not_depend_on_who_else_is_scored(space, supernet, images):
    engine = Engine(supernet)
    together = SharedOutcomes(engine, ARCHITECTURES[:2], images)
    for architecture in ARCHITECTURES[:2]:
        alone = Candidate(architecture, supernet, images, SharedOutcomes(engine, [architecture], images)).outcome
        assert together[architecture].operations == alone.operations


def test_spikes_of_each_timestep_add_up(space, supernet, images):
    """A current that is the same at each timestep makes neurons fire later, not at the first timestep only."""
    counts = Candidate(space.largest(), supernet, images).outcome.operations
    for name, row in counts.neurons.items():
        assert row.timesteps == 4, name
        assert row.fired == sum(row.spikes), name
        assert row.rate == row.fired / row.updates <= 1, name
    assert counts.spikes == sum(row.fired for row in counts.neurons.values())
    assert counts.rate == pytest.approx(counts.spikes / sum(row.updates for row in counts.neurons.values()))
    assert len({row.spikes for row in counts.neurons.values()}) > 5


def test_calibration_counts_nothing(space, supernet, images):
    """Only scored images appear in the counts, however many calibrate."""
    counts = Candidate(
        space.smallest(), supernet, images, SharedOutcomes(Engine(supernet), [space.smallest()], images)
    ).outcome.operations
    assert counts.images == len(images.scored)
    calibrated = calibrate(
        extract(supernet, space.smallest()), list(images.calibration_batches())
    )  # the plain path's own statistics
    with torch.no_grad(), counting(calibrated) as plain:
        calibrated(images.normalise(images.scored.images))
    assert {name: row.macs for name, row in counts.layers.items()} == {n: r.macs for n, r in plain.layers.items()}
