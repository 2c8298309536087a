"""Counts of whole networks, against hooks of our own and sizes worked out by hand."""

import pytest
import torch
import torch.nn.functional as F

from evaluators import counting, dense_operations
from spaces import Architecture, Layer, Skeleton
from supernet.calibrate import calibrate
from supernet.extract import extract
from supernet.layers import EntangledConv2d, EntangledLinear
from supernet.neurons import NEURONS
from supernet.neurons.lif import IF, LIF, PLIF
from supernet.spikformer import SpikeProduct, Spikformer

CIFAR = Skeleton(image_size=32, in_channels=3, num_classes=10)


def recorded(network, x):
    """Return inputs by module name, and the sum of all outputs of neurons, from hooks of our own."""
    inputs, spikes = {}, []
    handles = []

    def keep(module, args, _):
        inputs[names[module]] = (module, args)

    names = {module: name for name, module in network.named_modules()}
    for module in names:
        if isinstance(module, EntangledConv2d | EntangledLinear | SpikeProduct):
            handles.append(module.register_forward_hook(keep))
        if isinstance(module, LIF | PLIF | IF):
            handles.append(module.register_forward_hook(lambda _, __, output: spikes.append(output.sum().item())))
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    return inputs, sum(spikes)


def accumulates_by_ones(module, args):
    """Return what a layer with all weights 1 and no bias adds up."""
    x = args[0]
    if isinstance(module, EntangledConv2d):
        return F.conv2d(x, torch.ones_like(module.weight), None, module.stride, module.padding).sum().item()
    if isinstance(module, EntangledLinear):
        return x.double().sum().item() * module.out_features
    return (args[0].double() @ args[1].double()).sum().item()


@pytest.mark.parametrize("soft_reset", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("neuron", NEURONS)
def test_whole_network_agrees_with_layers_of_ones_and_spikes_with_own_hooks(
    neuron, soft_reset, make_space, make_supernet
):
    space = make_space(neuron=neuron, soft_reset=soft_reset)
    network = make_supernet(space)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs, spikes = recorded(network, x)
    with torch.no_grad(), counting(network) as counts:
        network(x)
    assert spikes > 100
    assert counts.spikes == spikes
    assert counts.spikes_per_image == spikes / 3
    assert list(counts.layers) == [name for name, module in network.named_modules() if name in inputs]
    analog = {"stem.stages.0.conv", "head"}
    assert {name for name, row in counts.layers.items() if row.analog} == analog
    for name, row in counts.layers.items():
        expected = 0.0 if name in analog else accumulates_by_ones(*inputs[name])
        assert row.accumulates == expected, name
    assert sum(row.accumulates for row in counts.layers.values()) > 1000


def test_block_inputs_are_integers_and_counted_by_value(space, make_supernet):
    network = make_supernet(space)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs, _ = recorded(network, x)
    tokens = inputs["blocks.1.attention.q.linear"][1][0]
    assert tokens.max() >= 2
    assert torch.equal(tokens, tokens.round())
    with torch.no_grad(), counting(network) as counts:
        network(x)
    width = network.architecture.embed_dim
    assert counts.layers["blocks.1.attention.q.linear"].accumulates == tokens.sum() * width
    assert tokens.sum() > (tokens > 0).sum()


def test_a_slice_and_its_copy_do_the_same_operations(space, supernet):
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for architecture in (space.smallest(), next(space.neighbours(space.largest()))):
        subnet = extract(supernet, architecture)
        with torch.no_grad(), counting(supernet) as of_slice:
            supernet(x, architecture)
        with torch.no_grad(), counting(subnet) as of_copy:
            subnet(x)
        assert of_slice.spikes == of_copy.spikes
        for name, row in of_copy.layers.items():
            assert of_slice.layers[name] == row, name
        unused = set(of_slice.layers) - set(of_copy.layers)
        assert all(of_slice.layers[name].macs == 0 for name in unused)


def test_dense_operations_of_the_public_spikformer():
    layers = tuple(Layer(4.0, 12, 1.0, 2.0) for _ in range(4))
    counts = dense_operations(CIFAR, Architecture(384, 1, layers))

    def millions(kind, *, head=False):
        rows = [row for name, row in counts.layers.items() if row.kind == kind and (name == "head") == head]
        return [row.macs / 1e6 for row in rows]

    stem = millions("convolution")
    assert stem == pytest.approx([1.33, 42.47, 169.87, 169.87, 84.93], abs=0.005)
    assert sum(stem) == pytest.approx(468.5, abs=0.05)
    assert sum(millions("linear")) == pytest.approx(453.0, abs=0.05)
    assert sum(millions("product")) == pytest.approx(12.6, abs=0.05)
    assert millions("linear", head=True) == [384 * 10 / 1e6]


@pytest.mark.parametrize("timesteps", [1, 2, 6])
def test_first_convolution_and_head_run_once_however_many_timesteps(timesteps):
    layers = (Layer(4.0, 12, 1.0, 2.0),)
    one = dense_operations(CIFAR, Architecture(384, 1, layers)).layers
    many = dense_operations(CIFAR, Architecture(384, timesteps, layers)).layers
    for name, row in many.items():
        times = 1 if name in ("stem.stages.0.conv", "head") else timesteps
        assert row.macs == times * one[name].macs, name


def test_running_a_network_confirms_its_dense_operations(space, make_supernet):
    network = make_supernet(space)
    with torch.no_grad(), counting(network) as counts:
        network(torch.zeros(5, 1, 8, 8))
    dense = dense_operations(space.skeleton, space.largest())
    assert {n: (r.kind, r.analog, r.macs / 5) for n, r in counts.layers.items()} == {
        n: (r.kind, r.analog, r.macs) for n, r in dense.layers.items()
    }
    for name, row in counts.layers.items():
        of_one, weights = [value / 5 for value in (row.inputs, row.outputs)], dense.layers[name].weights
        assert (*of_one, row.weights) == (dense.layers[name].inputs, dense.layers[name].outputs, weights), name
    assert {name: row.updates / 5 for name, row in counts.neurons.items()} == {
        name: row.updates for name, row in dense.neurons.items()
    }
    assert counts.timesteps == dense.timesteps == 4
    assert counts.macs_per_image == dense.macs_per_image
    assert counts.analog_macs_per_image == dense.analog_macs_per_image
    assert dense.analog_macs_per_image == 8 * 8 * 9 * (32 // 8) + 32 * 3
    assert (dense.spikes, dense.accumulates_per_image) == (0, 0)


def test_calibration_and_more_images_leave_per_image_counts_of_one_image_alone(space, make_supernet):
    network = make_supernet(space)
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    calibrate(network, [torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(4))])
    with torch.no_grad(), counting(network) as once:
        network(x)
    with torch.no_grad(), counting(network) as thrice:
        network(x.expand(3, -1, -1, -1).contiguous())
    assert thrice.accumulates_per_image == once.accumulates_per_image > 0
    assert thrice.spikes_per_image == once.spikes_per_image > 0


# The network is left as it was


def hooks(network):
    return [
        (name, list(module._forward_hooks.values()), list(module._forward_pre_hooks.values()))
        for name, module in network.named_modules()
        if module._forward_hooks or module._forward_pre_hooks
    ]


def test_hooks_are_gone_after_counting(supernet):
    with counting(supernet):
        assert hooks(supernet)
    assert hooks(supernet) == []


def test_hooks_are_gone_after_a_forward_that_raised(supernet):
    with pytest.raises(RuntimeError), counting(supernet):
        supernet(torch.zeros(1, 2, 8, 8))
    assert hooks(supernet) == []


def test_hooks_of_others_stay(supernet):
    def own_hook(*_):
        return None

    supernet.head.register_forward_hook(own_hook)
    with counting(supernet):
        pass
    assert hooks(supernet) == [("head", [own_hook], [])]


def test_counts_stand_still_after_the_block(supernet):
    x = torch.ones(2, 1, 8, 8)
    with torch.no_grad(), counting(supernet) as counts:
        supernet(x)
    before = repr(counts)
    with torch.no_grad():
        supernet(x)
    assert repr(counts) == before


def test_counting_changes_neither_output_nor_weights(supernet):
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    state = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    with torch.no_grad():
        plain = supernet(x)
        with counting(supernet):
            counted = supernet(x)
    assert torch.equal(plain, counted)
    assert all(torch.equal(state[name], tensor) for name, tensor in supernet.state_dict().items())


def test_counts_of_two_networks_counted_together_keep_apart(space, make_supernet):
    one, other = make_supernet(space, 0), make_supernet(space, 1)
    x = torch.ones(2, 1, 8, 8)
    with torch.no_grad(), counting(one) as first, counting(other) as second:
        one(x)
    assert first.images == 2
    assert second.images == 0
    assert isinstance(one, Spikformer)
    assert all(row.macs == 0 for row in second.layers.values())
