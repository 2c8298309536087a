"""Against the operation counter of SpikingJelly 2.0: equal where it counts the same, pinned where it does not.

SpikingJelly looks at operations of torch, input by input: a binary operand makes accumulates, anything else
multiply-accumulates. docs/energy.md explains the differences that are pinned here.
"""

import warnings

import pytest
import torch

from evaluators import counting, load_energy_model
from evaluators.energy import multiplied_and_accumulated
from spaces import Architecture, Layer, Skeleton
from supernet.calibrate import calibrate
from supernet.spikformer import Spikformer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    counters = pytest.importorskip(
        "spikingjelly.activation_based.op_counter", reason="needs pip install --no-deps 'spikingjelly>=2.0'"
    )

STRICT = load_energy_model("strict")


@pytest.fixture(scope="module")
def both():
    """Our counts of one image and network, and SpikingJelly's accumulates and multiply-accumulates by layer."""
    torch.manual_seed(0)
    layers = (Layer(2.0, 4, 0.5, 2.0), Layer(1.0, 2, 0.5, 2.0))
    network = Spikformer(Skeleton(8, 1, 3, stem_pools=(1, 3)), Architecture(32, 3, layers), "reference").eval()
    calibrate(network, [torch.randn(16, 1, 8, 8)])
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad(), counting(network) as counts:
        network(x)
    theirs = {}
    for name, module in network.named_modules():
        if name not in counts.layers:
            continue

        def count(module, args, output, name=name):
            synaptic, dense = counters.SynOpCounter(), counters.MACCounter()
            with counters.DispatchCounterMode([synaptic, dense]):
                type(module).forward(module, *args)
            theirs[name] = synaptic.get_total(), dense.get_total()

        module.register_forward_hook(count)
    with torch.no_grad():
        network(x)
    return counts, theirs


def test_layers_of_binary_inputs_have_the_same_accumulates(both):
    counts, theirs = both
    binary = {name for name, row in counts.layers.items() if row.binary}
    assert {"stem.stages.1.conv", "stem.position.conv", "blocks.0.attention.scores", "blocks.1.fc2.linear"} <= binary
    for name in binary:
        row = counts.layers[name]
        assert theirs[name] == (row.accumulates, 0) == (row.nonzero, 0), name


def test_layers_of_integers_and_of_pixels_have_the_multiply_accumulates_of_strict(both):
    counts, theirs = both
    rows = {
        name: row
        for name, row in counts.layers.items()
        if not row.binary and row.kind != "product" and name != "head"
    }
    assert {"stem.stages.0.conv", "blocks.0.fc1.linear", "blocks.1.attention.q.linear"} <= set(rows)
    for name, row in rows.items():
        macs, accumulates = multiplied_and_accumulated(row, STRICT, counts.timesteps)
        assert theirs[name] == (accumulates, macs) == (0, row.macs), name


def test_the_head_multiplies_in_both(both):
    counts, theirs = both
    assert theirs["head"] == (0, counts.layers["head"].macs)


def test_a_spike_that_meets_an_integer_counts_there_for_zeros_too(both):
    """Their accumulates of (q kᵀ) v are the spikes of v times all queries; ours only where the score is not 0."""
    counts, theirs = both
    for block in range(2):
        row = counts.layers[f"blocks.{block}.attention.mix"]
        assert not row.binary
        value_spikes = counts.neurons[f"blocks.{block}.attention.v.neuron"].fired
        assert theirs[f"blocks.{block}.attention.mix"] == (value_spikes * 4, 0)  # of 4 tokens
        assert row.nonzero < value_spikes * 4
