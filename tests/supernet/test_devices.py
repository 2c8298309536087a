"""Whatever scores or trains a supernet stays on its device, shown without a GPU.

Fake tensors know their shape, type and device but hold no numbers, and an operation on two devices fails, as it does
on a GPU. ``lazy`` stands in for ``cuda``: a second device that every build of torch knows.
"""

import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from evaluators import Candidate, ScoringImages, SharedOutcomes, counting
from supernet import fused
from supernet.calibrate import calibrate
from supernet.data import Normalise, Split
from supernet.engine import PRECISIONS, Engine, operators, scoring
from supernet.engine.operators import TorchOperators
from supernet.engine.weights import products_of
from supernet.extract import extract
from supernet.neurons import NEURONS, cuda, executors, lif
from supernet.neurons.cuda import CudaKernels
from supernet.spikformer import Spikformer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it imports may be deprecated
    fake = pytest.importorskip("torch._subclasses.fake_tensor", reason="this torch has no fake tensors")

DEVICE = torch.device("lazy", 0)
IMAGES = 5
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Numbers(TorchFunctionMode):
    """Reads 1 where a number is read out of a tensor."""

    reads = (torch.Tensor.__int__, torch.Tensor.__float__, torch.Tensor.__bool__, torch.Tensor.item)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function not in self.reads:
            return function(*args, **(kwargs or {}))
        if function == torch.Tensor.item:
            return 1.0 if args[0].is_floating_point() else 1
        return {torch.Tensor.__float__: 1.0, torch.Tensor.__bool__: True}.get(function, 1)


@pytest.fixture
def fakes(monkeypatch):
    """Only fake tensors exist, and a neuron there has no kernels of its own."""
    # Autocast does not know the device.
    monkeypatch.setattr(fused, "product_type", lambda x: x.dtype)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    with fake.FakeTensorMode(allow_non_fake_inputs=True), Numbers():
        yield


@pytest.fixture
def launched(fakes, monkeypatch):
    """Names of the CUDA kernels that were launched; all that is handed to one must lie on the device."""
    names = []

    def address(tensor):
        assert tensor is None or tensor.device == DEVICE
        return 0

    def choose(equations, device, dtype, executor):
        assert device == DEVICE
        return CudaKernels(equations, dtype, lambda kernel, *_: names.append(kernel))

    monkeypatch.setattr(cuda, "_address", address)
    monkeypatch.setattr(CudaKernels, "_aligned", lambda *_: 1)
    for module in (operators, scoring, executors, lif):
        monkeypatch.setattr(module, "choose_kernels", choose)
    return names


@pytest.fixture
def make_supernet(make_space):
    def make_supernet(neuron="lif"):
        space = make_space(neuron=neuron)
        with torch.device("meta"):
            supernet = Spikformer(space.skeleton, space.largest())
        state = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)
            for name, tensor in supernet.state_dict().items()
        }
        supernet.load_state_dict(state, assign=True)
        return space, supernet.eval()

    return make_supernet


def on_device(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device=DEVICE)


def scoring_images():
    """Return pixels and labels where they are read: on the CPU."""
    split = Split(np.zeros((IMAGES, 1, 8, 8), dtype=np.uint8), np.zeros(IMAGES, dtype=np.int64))
    return ScoringImages(split, split, Normalise((0.5,), (0.25,)), batch_size=3)


each_neuron = pytest.mark.parametrize("neuron", NEURONS)


def test_two_devices_in_one_operation_fail_here(fakes):
    with pytest.raises(RuntimeError, match="two devices"):
        on_device(2) + torch.zeros(2)


# --- the engine


@pytest.mark.parametrize("precision", PRECISIONS)
def test_plain_operators_stay_on_the_device(fakes, make_supernet, precision):
    _, supernet = make_supernet()
    do, products = TorchOperators(precision), products_of(supernet, precision)
    linear, conv = products["blocks.0.fc1"], products["stem.stages.1"]
    tokens, image = on_device(2, 3, 4, 16, dtype=torch.uint8), on_device(2, 3, 8, 8, 4, dtype=torch.uint8)
    k = linear.neuron.constant_list(0.75, 2.0)
    y = do.product(tokens, 7, linear, 8)
    affine = scoring._Averages()("fc1", linear, y)
    current, _ = do.attend(tokens, tokens, tokens, 2, count=True)
    found = [
        *do.arrivals(tokens),
        y,
        do.product(image, 7, conv, 8),
        do.fire(y, 2, affine, linear, k, None),
        do.fire(y, 2, affine, linear, k, on_device(2, 3, 4, 8, dtype=torch.uint8)),
        do.pool(image),
        current,
        do.fire_attention(current, linear.neuron, k),
        do.token_mean(tokens),
    ]
    assert {tensor.device for tensor in found} == {DEVICE}


@each_neuron
def test_scoring_stays_on_the_device(fakes, make_supernet, neuron):
    space, supernet = make_supernet(neuron)
    engine, images = Engine(supernet), on_device(IMAGES, 1, 8, 8)
    results = engine.score([space.largest(), space.smallest()], [images, images], [images])
    assert {result.logits.device for result in results} == {DEVICE}
    found = engine.statistics(space.smallest(), [images])
    assert {vector.device for row in found.values() for vector in (row.mean, row.variance)} == {DEVICE}
    assert engine.prepare(space.smallest(), [images])(images).device == DEVICE


@each_neuron
def test_scoring_hands_kernels_what_lies_on_the_device(launched, make_supernet, neuron):
    space, supernet = make_supernet(neuron)
    images = on_device(IMAGES, 1, 8, 8)
    (result,) = Engine(supernet).score([space.largest()], [images], [images])
    assert result.logits.device == DEVICE
    assert set(launched) == {"channel_sums", "neuron_forward"}


# --- evaluators


def test_plain_scoring_counts_on_the_device(fakes, make_supernet):
    space, supernet = make_supernet()
    images = on_device(IMAGES, 1, 8, 8)
    subnet = calibrate(extract(supernet, space.smallest()), [images])
    assert {tensor.device for tensor in subnet.state_dict().values()} == {DEVICE}
    with counting(subnet) as counts:
        assert subnet(images).device == DEVICE
    assert counts.accumulates_per_image > 0
    assert counts.images == IMAGES


@pytest.mark.parametrize("shared", [False, True])
def test_candidates_take_images_and_labels_to_the_device(fakes, make_supernet, shared):
    space, supernet = make_supernet()
    architecture, images = space.smallest(), scoring_images()
    outcomes = SharedOutcomes(Engine(supernet), [architecture], images) if shared else None
    candidate = Candidate(architecture, supernet, images, outcomes)
    assert {tensor.device for tensor in candidate.subnet.state_dict().values()} == {DEVICE}
    assert candidate.outcome.images == IMAGES


# --- training


def loss_of(network, images):
    return F.cross_entropy(network(images), torch.zeros(len(images), dtype=torch.int64, device=images.device))


@each_neuron
def test_fused_training_stays_on_the_device(launched, make_supernet, neuron):
    _, network = make_supernet(neuron)
    loss = loss_of(network.train(), on_device(IMAGES, 1, 8, 8))
    loss.backward()
    assert {tensor.device for tensor in network.state_dict().values()} == {DEVICE}
    assert {weight.grad.device for weight in network.parameters()} == {DEVICE}
    assert set(launched) == {"channel_sums", "neuron_forward", "neuron_backward", "norm_backward"}


# --- a GPU


@needs_gpu
@pytest.mark.parametrize("executor", ["reference", "auto"])
def test_a_gpu_answers_as_the_cpu_does(make_space, enliven, make_images, executor):
    if executor == "auto" and cuda.problem() is not None:
        pytest.skip(f"cupy: {cuda.problem()}")
    space, batches = make_space(), [make_images(16, seed=seed) for seed in (1, 2)]
    found = {}
    for device in ("cpu", "cuda"):
        supernet = enliven(Spikformer(space.skeleton, space.largest(), executor)).eval().to(device)
        subnet = calibrate(extract(supernet, space.largest()), [x.to(device) for x in batches])
        with counting(subnet) as counts, torch.no_grad():
            plain = torch.cat([subnet(x.to(device)) for x in batches])
        (result,) = Engine(supernet).score([space.largest()], batches, batches)
        assert result.logits.device.type == device
        found |= {(device, "plain"): (plain.cpu(), counts.accumulates_per_image)}
        accumulates = sum(layer.accumulates for layer in result.layers.values())
        found |= {(device, "engine"): (result.logits.cpu(), accumulates / result.images)}
    expected, counted = found["cpu", "plain"]
    for logits, accumulates in found.values():  # a spike that rounding tips may change a few images
        assert ((logits - expected).abs().amax(dim=1) < 1e-4).float().mean() >= 0.9
        assert (logits.argmax(dim=1) == expected.argmax(dim=1)).float().mean() >= 0.9
        assert accumulates == pytest.approx(counted, rel=1e-2)


@needs_gpu
def test_a_gpu_trains_as_the_cpu_does(make_space, enliven, make_images):
    space, images = make_space(), make_images(16)
    found = []
    for device in ("cpu", "cuda"):
        network = enliven(Spikformer(space.skeleton, space.largest())).train().to(device)
        loss = loss_of(network, images.to(device))
        loss.backward()
        found.append((loss.item(), torch.cat([weight.grad.flatten().cpu() for weight in network.parameters()])))
    (loss, gradient), (other_loss, other) = found
    assert other_loss == pytest.approx(loss, rel=1e-2)
    assert F.cosine_similarity(gradient, other, dim=0) > 0.99
