"""Extraction: a copy that computes the slice, and shares nothing with the supernet."""

import numpy as np
import pytest
import torch

from spaces import Architecture, InputError, Layer, Skeleton, load_space
from supernet import products
from supernet.extract import extract
from supernet.neurons import NEURONS
from supernet.spikformer import Spikformer, build_supernet

MIXED = Architecture(16, 2, (Layer(0.5, 4, 0.75, 3.0), Layer(2.0, 1, 0.5, 2.0)))


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("soft_reset", [False, True], ids=["hard", "soft"])
def test_a_subnet_equals_its_slice_bit_for_bit(make_space, lively_supernet, make_images, neuron, soft_reset):
    space = make_space(neuron=neuron, soft_reset=soft_reset)
    supernet, rng = lively_supernet(space).eval(), np.random.default_rng(1)
    for architecture in [space.smallest(), space.largest(), *(space.sample_genes(rng) for _ in range(12))]:
        slice_, copy = supernet(make_images(), architecture), extract(supernet, architecture)(make_images())
        assert torch.equal(copy, slice_), architecture
        assert slice_.std() > 0


@pytest.mark.parametrize(("name", "draws"), [("digits", 6), ("grey28", 4), ("auto-spikformer", 1)])
def test_a_subnet_of_a_named_space_equals_its_slice_bit_for_bit(lively_supernet, make_images, name, draws):
    space = load_space(name)
    supernet, rng = lively_supernet(space).eval(), np.random.default_rng(2)
    images = make_images(1, space.skeleton.in_channels, space.skeleton.image_size)
    for architecture in [space.smallest(), *(space.sample_genes(rng) for _ in range(draws))]:
        with torch.no_grad():
            assert torch.equal(extract(supernet, architecture)(images), supernet(images, architecture))


@pytest.mark.parametrize("onednn", [False, True], ids=["default library", "oneDNN"])
def test_a_subnet_equals_its_slice_in_training_too(make_space, lively_supernet, make_images, monkeypatch, onednn):
    """Whichever library multiplies: that of this processor, or the one of another."""
    if onednn and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "prefers_onednn", lambda: onednn)
    supernet = lively_supernet(make_space()).train()
    subnet = extract(supernet, MIXED).train()
    assert torch.equal(subnet(make_images(4)), supernet(make_images(4), MIXED))
    own, sliced = subnet.state_dict(), supernet.state_dict()
    for name, tensor in own.items():  # the statistics moved alike
        assert torch.equal(tensor, sliced[name][tuple(slice(size) for size in tensor.shape)]), name


def test_every_tensor_of_a_subnet_is_the_leading_part_of_the_supernet_s(make_space, lively_supernet):
    supernet = lively_supernet(make_space(neuron="plif"))
    subnet, source = extract(supernet, MIXED), supernet.state_dict()
    assert subnet.architecture == MIXED
    assert subnet.skeleton == supernet.skeleton
    assert subnet.blocks[0].fc1.linear.weight.shape == (8, 16)
    assert subnet.blocks[1].fc1.linear.weight.shape == (32, 16)
    assert len(subnet.blocks) == 2
    for name, tensor in subnet.state_dict().items():
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, source[name][tuple(slice(size) for size in tensor.shape)])


@pytest.mark.parametrize("whole", [False, True], ids=["slice", "largest"])
def test_changing_a_subnet_leaves_the_supernet_as_it_is(make_space, lively_supernet, make_images, whole):
    space = make_space(neuron="plif")
    supernet = lively_supernet(space).eval()
    kept, logits = snapshot(supernet), supernet(make_images())
    subnet = extract(supernet, space.largest() if whole else MIXED)
    optimizer = torch.optim.SGD(subnet.parameters(), lr=1.0)
    subnet.train()(make_images(4)).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        for tensor in subnet.state_dict().values():
            tensor.zero_()
    assert same(supernet.state_dict(), kept)
    assert all(parameter.grad is None for parameter in supernet.parameters())
    assert torch.equal(supernet(make_images()), logits)


def test_changing_the_supernet_leaves_a_subnet_as_it_is(make_space, lively_supernet):
    supernet = lively_supernet(make_space(neuron="plif"))
    subnet = extract(supernet, MIXED)
    kept = snapshot(subnet)
    with torch.no_grad():
        for tensor in supernet.state_dict().values():
            tensor.zero_()
    assert same(subnet.state_dict(), kept)


@pytest.mark.parametrize("training", [True, False])
def test_a_subnet_comes_in_evaluation_mode_and_the_supernet_keeps_its_mode(make_space, lively_supernet, training):
    supernet = lively_supernet(make_space()).train(training)
    subnet = extract(supernet, MIXED)
    assert not any(module.training for module in subnet.modules())
    assert all(module.training == training for module in supernet.modules())


def test_a_subnet_can_be_trained(make_space, lively_supernet):
    subnet = extract(lively_supernet(make_space(neuron="plif")), MIXED)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in subnet.parameters())


def test_extraction_leaves_the_global_generators_alone(make_space, global_states):
    supernet, states = build_supernet(make_space(), 0), global_states()
    extract(supernet, MIXED)
    assert global_states() == states


def test_a_subnet_of_a_subnet_is_the_subnet_of_the_supernet(make_space, lively_supernet):
    supernet = lively_supernet(make_space())
    middle = Architecture(32, 2, (Layer(1.0, 4, 0.5, 2.0), Layer(2.0, 2, 0.5, 2.0)))
    small = Architecture(16, 1, (Layer(0.5, 2, 0.75, 1.5),))
    assert same(extract(extract(supernet, middle), small).state_dict(), extract(supernet, small).state_dict())


def test_a_subnet_keeps_the_number_format_of_the_supernet(make_space, lively_supernet):
    subnet = extract(lively_supernet(make_space()).double(), MIXED)
    assert {p.dtype for p in subnet.parameters()} == {torch.float64}


def test_an_architecture_that_does_not_fit_cannot_be_extracted(make_space):
    supernet = build_supernet(make_space(), 0)
    with pytest.raises(InputError, match="an architecture must fit into the network that runs it: embed_dim <= 32"):
        extract(supernet, Architecture(64, 1, MIXED.layers))
    with pytest.raises(InputError, match="depth <= 3"):
        extract(supernet, Architecture(16, 1, MIXED.layers * 2))


def test_a_network_whose_sums_of_spikes_could_exceed_a_byte_is_refused():
    layer = Layer(1.0, 1, 1.0, 2.0)
    with torch.device("meta"):
        Spikformer(Skeleton(8, 1, 2), Architecture(8, 1, (layer,) * 126))
        with pytest.raises(InputError, match="depth must be 126 or less, as sums of spikes are bytes, got 127"):
            Spikformer(Skeleton(8, 1, 2), Architecture(8, 1, (layer,) * 127))
