"""Networks under the names of the public class, against a table of its shapes and a reference of its equations."""

from dataclasses import replace

import pytest
import torch
from public_class import load_public, shape_table

from spaces import Architecture, InputError, Layer
from supernet.calibrate import calibrate
from supernet.convert import run_public, to_public
from supernet.spikformer import Spikformer

UNIFORM = Architecture(16, 4, (Layer(4.0, 2, 1.0, 2.0), Layer(4.0, 2, 1.0, 2.0)))
MIXED = Architecture(24, 3, (Layer(1.0, 4, 0.6, 1.25), Layer(3.5, 2, 1.4, 10.0), Layer(2.0, 6, 0.8, 2.0)))
LIVELY = Architecture(16, 4, (Layer(2.0, 2, 0.6, 1.25), Layer(1.0, 1, 0.5, 1.5)))
LONE = Architecture(8, 1, (Layer(0.625, 1, 0.5, 3.0),))


@pytest.fixture
def make_network(make_space, enliven, make_images):
    def make_network(architecture, size=8, channels=3, **skeleton):
        space = make_space(image_size=size, in_channels=channels, stem_pools=[2, 3], **skeleton)
        network = enliven(Spikformer(space.skeleton, architecture, "reference"))
        return calibrate(network, [make_images(8, channels, size, 4)])

    return make_network


@pytest.mark.parametrize("architecture", [UNIFORM, MIXED, LONE])
def test_names_and_shapes_are_those_of_the_table(make_network, architecture):
    model = to_public(make_network(architecture))
    hidden = max(round(architecture.embed_dim * layer.mlp_ratio) for layer in architecture.layers)
    expected = shape_table(architecture.embed_dim, architecture.depth, hidden, 3, 3)
    assert {name: tuple(tensor.shape) for name, tensor in model.tensors.items()} == expected
    for name, tensor in model.tensors.items():
        assert tensor.dtype == (torch.int64 if name.endswith("num_batches_tracked") else torch.float32)


def test_the_table_is_that_of_the_published_network():
    table = shape_table(384, 4, 1536, 3, 10)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    learned = [torch.Size(shape).numel() for name, shape in table.items() if not name.endswith(statistics)]
    assert (len(table), sum(learned)) == (216, 9_330_874)


@pytest.mark.parametrize("architecture", [UNIFORM, MIXED, LONE])
@pytest.mark.parametrize(("size", "channels"), [(8, 3), (12, 1)])
def test_the_public_network_gives_the_same_logits(make_network, make_images, architecture, size, channels):
    network, images = make_network(architecture, size, channels), make_images(6, channels, size, 5)
    model = to_public(network)
    public = load_public(model.constructor, model.tensors, model.attributes)
    with torch.no_grad():
        single = network(images)
        torch.testing.assert_close(run_public(model, images), single, rtol=0, atol=1e-5)
        torch.testing.assert_close(public(images), single, rtol=0, atol=1e-5)
        double = network.double()(images.double())
        torch.testing.assert_close(public.double()(images.double()), double, rtol=0, atol=1e-12)
    assert single.std() > 1e-3, "it spikes"


def test_every_attribute_matters(make_network, make_images):
    model, images = to_public(make_network(LIVELY)), make_images(6, 3, 8, 5)
    expected = run_public(model, images)
    for path, value in model.attributes.items():
        if path.endswith("num_heads") or path == "T":
            continue
        others = [replace(model, attributes={**model.attributes, path: value * factor}) for factor in (0.25, 4.0)]
        assert not all(torch.equal(run_public(other, images), expected) for other in others), path


def test_hidden_neurons_that_are_added_are_silent(make_network):
    tensors = to_public(make_network(MIXED)).tensors  # hidden widths 24, 84 and 48
    for name in ("linear.weight", "linear.bias", "bn.weight", "bn.bias", "bn.running_mean"):
        assert not tensors[f"block.0.mlp.fc1_{name}"][24:].any()
    assert not tensors["block.0.mlp.fc2_linear.weight"][:, 24:].any()
    assert tensors["block.1.mlp.fc1_linear.weight"].ne(0).all()


@pytest.mark.parametrize("width", [8, 24, 48, 56, 240, 336])
@pytest.mark.parametrize("ratio", [0.625, 1.125, 3.0, 3.5])
def test_the_ratio_gives_the_hidden_width_that_the_public_class_computes(make_space, width, ratio):
    space = make_space(image_size=8, in_channels=3, stem_pools=[2, 3])
    with torch.device("meta"):
        network = Spikformer(space.skeleton, Architecture(width, 1, (Layer(ratio, 1, 1.0, 2.0),)))
    network.to_empty(device="cpu")
    assert int(width * to_public(network).constructor["mlp_ratios"]) == round(width * ratio)


def test_conversion_leaves_the_network_alone(make_network):
    network = make_network(MIXED)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for tensor in to_public(network).tensors.values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("skeleton", "reason"),
    [
        ({"stem_pools": [3]}, r"it pools behind stem stages \[2, 3\], and this network behind \[3\]"),
        ({"image_size": 10}, "it takes images of a multiple of 4 pixels, and this network has 10"),
        ({"neuron": "plif"}, "its neurons are lif with a fixed time constant, and this network's are plif"),
        ({"neuron": "if"}, "this network's are if"),
        ({"soft_reset": True}, "its neurons return to zero, and this network's subtract their threshold"),
    ],
)
def test_what_the_public_class_cannot_compute_is_refused(make_space, skeleton, reason):
    space = make_space(**{"stem_pools": [2, 3], **skeleton})
    network = Spikformer(space.skeleton, space.smallest())
    with pytest.raises(InputError, match=f"the public class cannot compute this network: .*{reason}"):
        to_public(network)
