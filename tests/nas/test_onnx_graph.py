"""Networks as ONNX graphs, computed by onnxruntime, against the networks."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from nas.onnx_graph import onnx_bytes, run_onnx
from spaces import Architecture, InputError, Layer, SearchSpace
from supernet.layers import EntangledBatchNorm
from supernet.spikformer import Spikformer

onnx = pytest.importorskip("onnx")

GENES = {
    "embed_dim": [16],
    "timesteps": [1],
    "depth": [1],
    "mlp_ratio": [1.0],
    "num_heads": [1],
    "v_threshold": [1.0],
    "tau": [2.0],
}
MIXED = Architecture(24, 3, (Layer(1.0, 4, 0.6, 1.25), Layer(3.5, 2, 1.4, 10.0)))
BRIEF = Architecture(8, 1, (Layer(0.625, 1, 0.5, 3.0),))
OWN_NEURON = """
import torch
from torch import nn
from supernet.neurons import Equations, SpikingNeuron, sigmoid_step
from supernet.neurons.expressions import exp, sigmoid, tanh


def charge(x, state, const):
    return state.v * sigmoid(const.keep) + tanh(x) / const.tau - exp(-state.last) / 8.0


def reset(u, s, x, state, const):
    return u - s * const.v_threshold, x * 0.5 + s


def threshold(state, const):
    return const.v_threshold + state.last * 0.125


class Odd(SpikingNeuron):
    def __init__(self, surrogate=sigmoid_step, soft=True, executor="auto"):
        constants = ("v_threshold", "tau", "keep")
        super().__init__(Equations(charge, reset, surrogate, threshold, ("v", "last"), constants), executor)
        self.keep = nn.Parameter(torch.tensor(0.75))

    def constants(self, v_threshold, tau):
        return {"v_threshold": v_threshold / 2, "tau": tau, "keep": self.keep}
"""


@pytest.fixture
def images():
    return torch.randn(5, 3, 10, 10, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def make_network():
    def make_network(architecture=MIXED, size=10, channels=3, pools=(1, 3), **skeleton):
        """Return a network of which every neuron spikes at some rate."""
        values = {
            "image_size": size,
            "in_channels": channels,
            "num_classes": 4,
            "stem_pools": list(pools),
            **skeleton,
        }
        space = SearchSpace.from_dict({"name": "toy", "skeleton": values, "genes": GENES})
        generator = torch.Generator().manual_seed(7)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            network = Spikformer(space.skeleton, architecture, "reference").eval()
        with torch.no_grad():
            for name, tensor in network.named_parameters():
                if name.endswith((".w", ".keep")):  # a neuron's own
                    tensor.add_(0.25)
                elif tensor.dim() > 1:
                    tensor.normal_(0.0, 2 * tensor[0].numel() ** -0.5, generator=generator)
            for module in network.modules():
                if isinstance(module, EntangledBatchNorm):
                    module.weight.uniform_(1.0, 3.0, generator=generator)
                    module.bias.uniform_(0.0, 2.0, generator=generator)
                    module.running_mean.normal_(0.0, 0.2, generator=generator)
                    module.running_var.uniform_(0.2, 0.6, generator=generator)
            network.head.bias.normal_(generator=generator)
        return network

    return make_network


def assert_same(network, images):
    with torch.no_grad():
        expected = network(images)
    torch.testing.assert_close(run_onnx(onnx_bytes(network, {}), images), expected, rtol=0, atol=1e-4)
    assert (expected - network.head.bias).std() > 1e-2, "it spikes"


@pytest.mark.parametrize("architecture", [MIXED, BRIEF])
@pytest.mark.parametrize("neuron", ["lif", "plif", "if"])
@pytest.mark.parametrize("soft", [False, True])
def test_the_graph_computes_the_network(make_network, images, architecture, neuron, soft):
    assert_same(make_network(architecture, neuron=neuron, soft_reset=soft), images)


@pytest.mark.parametrize("pools", [(), (0,), (2, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize(("size", "channels"), [(7, 1), (8, 2)])
def test_every_stem_is_in_the_graph(make_network, pools, size, channels):
    images = torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1))
    assert_same(make_network(size=size, channels=channels, pools=pools), images)


def test_a_neuron_of_the_users_own_becomes_a_graph_like_any_other(make_network, images, own_module):
    own_module("odd_neurons", OWN_NEURON)
    assert_same(make_network(neuron="odd_neurons:Odd"), images)


def test_the_number_of_images_is_open(make_network, images):
    content = onnx_bytes(make_network(), {})
    together = run_onnx(content, images)
    apart = torch.cat([run_onnx(content, image[None]) for image in images])
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-5)


def test_the_file_says_what_it_is(make_network):
    network = make_network()
    model = onnx.load_from_string(onnx_bytes(network, {"classes": '["a"]'}))
    assert {prop.key: prop.value for prop in model.metadata_props} == {"classes": '["a"]'}
    (given,), (got,) = model.graph.input, model.graph.output
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (given, got)]
    assert (given.name, got.name, shapes) == ("images", "logits", [["batch", 3, 10, 10], ["batch", 4]])
    assert {opset.version for opset in model.opset_import} == {18}


def test_the_graph_is_unrolled_and_holds_each_weight_once(make_network):
    network = make_network()
    model = onnx.load_from_string(onnx_bytes(network, {}))
    operators = [node.op_type for node in model.graph.node]
    neurons = 5 + 7 * network.architecture.depth
    assert operators.count("GreaterOrEqual") == neurons * network.architecture.timesteps
    assert operators.count("Conv") == 5
    assert not {"Loop", "Scan", "If"} & set(operators)
    stored = sum(np.prod(constant.dims) for constant in model.graph.initializer if constant.data_type == 1)
    assert stored < 1.2 * sum(parameter.numel() for parameter in network.parameters())


def test_equal_networks_give_equal_files(make_network):
    assert onnx_bytes(make_network(), {}) == onnx_bytes(make_network(), {})


def test_a_file_beyond_the_format_is_refused(make_network, monkeypatch):
    monkeypatch.setattr("nas.onnx_graph._LARGEST", 1000)
    with pytest.raises(InputError, match="an ONNX file holds 1000 bytes of weights at most, but the network has"):
        onnx_bytes(make_network(), {})


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(make_network, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        InputError, match=rf"needs onnx and onnxruntime: .*{missing}.*pip install 'spikefront\[onnx\]'"
    ):
        onnx_bytes(make_network(), {})


def test_neither_package_is_loaded_before_it_is_needed():
    code = "import sys, nas.export, nas.run, nas.cli; print({'onnx', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
