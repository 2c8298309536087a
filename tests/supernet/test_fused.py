"""Training steps that keep little for the backward pass, against plain layers, in values, gradients and bytes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from evaluators import counting
from spaces import Architecture, Layer, Skeleton
from supernet import fused
from supernet.layers import EntangledBatchNorm
from supernet.native import compiler_problem
from supernet.neurons import NEURONS, build_neuron, integrate
from supernet.neurons.kernels import one_timestep
from supernet.spikformer import Spikformer

if compiler_problem() is not None:
    pytest.skip(compiler_problem(), allow_module_level=True)

LARGE = Architecture(32, 3, (Layer(2.0, 4, 0.55, 1.5), Layer(1.0, 1, 0.8, 2.0)))  # heads of 8 and 32, 16 tokens
MIXED = Architecture(16, 2, (Layer(0.5, 1, 0.8, 3.0), Layer(2.0, 2, 0.55, 2.0)))  # heads of 16 and 8
NARROW = Architecture(8, 1, (Layer(1.0, 2, 0.55, 1.5),))

each_neuron = pytest.mark.parametrize("neuron", NEURONS)
each_reset = pytest.mark.parametrize("soft_reset", [False, True], ids=["hard", "soft"])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype).requires_grad_()


def events(*shape, seed=0, high=2, dtype=torch.float64):
    return torch.randint(0, high + 1, shape, generator=generator(seed)).to(dtype).requires_grad_()


def gradients(y, leaves, seed=7):
    return torch.autograd.grad(y, leaves, torch.randn(y.shape, generator=generator(seed), dtype=y.dtype))


def assert_all_close(found, expected, **tolerance):
    tolerance = tolerance or {"rtol": 1e-9, "atol": 1e-11}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


# --- products


def test_linear_is_that_of_torch_for_slices_of_several_matrices():
    x, wide = events(2, 3, 5, 6, high=9), [normal(11, 9, seed=seed) for seed in (1, 2)]
    slices = [wide[0][:7, :6], wide[1][:4, :6]]
    y, expected = fused.linear(x, slices, x.dtype), torch.cat([F.linear(x, w) for w in slices], dim=-1)
    assert_all_close([y], [expected])
    assert_all_close(gradients(y, [x, *wide]), gradients(expected, [x, *wide]))


@pytest.mark.parametrize("analog", [False, True], ids=["spikes", "analog"])
@pytest.mark.parametrize(("channels", "out"), [(1, 1), (3, 5), (4, 2)])
@pytest.mark.parametrize("size", [(1, 1), (5, 4)])
def test_convolution_is_that_of_torch(analog, channels, out, size):
    x = (normal if analog else events)(2, 3, channels, *size)
    wide = normal(6, 6, 3, 3, seed=1)
    weight = wide[:out, :channels]
    y = fused.convolve(x, weight, (1, 1), x.dtype, analog)
    assert y.is_contiguous()
    expected = F.conv2d(x.flatten(0, 1), weight, padding=1).unflatten(0, (2, 3)).permute(0, 1, 3, 4, 2)
    assert_all_close([y], [expected])
    assert_all_close(gradients(y, [x, wide]), gradients(expected, [x, wide]))


def test_gradients_that_nobody_asks_for_are_not_needed():
    x, weight = events(2, 3, 4, 6).detach(), normal(5, 6)
    assert_all_close(gradients(fused.linear(x, [weight], x.dtype), [weight]), gradients(x @ weight.t(), [weight]))
    images, kernel = normal(1, 2, 3, 4, 4).detach(), normal(5, 3, 3, 3)
    y = fused.convolve(images, kernel, (1, 1), torch.float64, True)
    assert gradients(y, [kernel])[0].shape == kernel.shape


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (7, 5)])
def test_pooling_is_that_of_torch_and_the_first_of_equal_spikes_gets_the_gradient(size):
    x = events(2, 3, 4, *size, high=1)
    y, expected = fused.max_pool(x), F.max_pool2d(x.flatten(0, 1), 3, 2, 1).unflatten(0, (2, 3))
    assert torch.equal(y, expected)
    (wanted,) = gradients(expected, [x])
    assert_all_close(gradients(y, [x]), [wanted])
    laid = x.detach().flatten(0, 1).contiguous(memory_format=torch.channels_last)
    laid = laid.unflatten(0, (2, 3)).requires_grad_()
    assert_all_close(gradients(fused.max_pool(laid), [laid]), [wanted])


# --- normalisation and neuron


def make_neuron(neuron, soft_reset=False):
    made = build_neuron(Skeleton(8, 1, 3, neuron=neuron, soft_reset=soft_reset), "native").double()
    for parameter in made.parameters():
        parameter.data.fill_(0.3)
    return made


def make_norms(count, channels):
    norms = [EntangledBatchNorm(channels).double() for _ in range(count)]
    for seed, norm in enumerate(norms):
        norm.weight.data, norm.bias.data = 1 + normal(channels, seed=seed).data.abs(), normal(channels, seed=9).data
    return norms


@each_neuron
@each_reset
@pytest.mark.parametrize("shared", [False, True], ids=["sequence", "one current"])
@pytest.mark.parametrize("parts", [1, 3])
def test_normalised_spikes_are_those_of_torch(neuron, soft_reset, shared, parts):
    cell, y = make_neuron(neuron, soft_reset), normal(1 if shared else 3, 2, 7, 5 * parts)
    norms, plain = make_norms(parts, 6), make_norms(parts, 6)  # one channel more than is in use
    biases = [normal(5, seed=3) for _ in norms]
    spikes = fused.norm_fire(y, 3, norms, biases, cell.compiled(y, y.dtype), cell.constant_list(0.55, 1.5))
    pairs = zip(plain, y.split(5, dim=-1), biases, strict=True)
    currents = [norm((part + bias).flatten(0, -2)).unflatten(0, part.shape[:-1]) for norm, part, bias in pairs]
    expected = integrate(torch.cat(currents, dim=-1).expand(3, -1, -1, -1), cell.equations, cell.constants(0.55, 1.5))
    assert torch.equal(spikes, expected)
    assert 0.05 < spikes.mean() < 0.95
    leaves = [y, *cell.parameters()]
    found = gradients(spikes, [*leaves, *biases, *(p for n in norms for p in (n.weight, n.bias))])
    wanted = gradients(expected, [*leaves, *biases, *(p for n in plain for p in (n.weight, n.bias))])
    assert_all_close(found, wanted)
    assert all((found[len(leaves) + part] == 0).all() for part in range(parts))
    for norm, other in zip(norms, plain, strict=True):
        assert_all_close([norm.running_mean, norm.running_var], [other.running_mean, other.running_var])
        assert norm.num_batches_tracked == other.num_batches_tracked == 1
        assert (norm.running_mean[5], norm.running_var[5]) == (0, 1)


# --- attention


@each_neuron
@pytest.mark.parametrize("heads", [1, 2, 6])  # 12, 6 and 2 wide, for 5 tokens
def test_attention_is_that_of_torch_in_either_order_of_its_products(neuron, heads):
    cell, qkv = make_neuron(neuron), events(3, 2, 5, 36, high=1)
    spikes = fused.attend(qkv, heads, 0.125, cell.compiled(qkv, qkv.dtype), cell.constant_list(0.3, 1.5))
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(2, 3) for part in qkv.chunk(3, dim=-1))
    current = ((q @ k.mT) @ v * 0.125).transpose(2, 3).flatten(3)
    expected = integrate(current, cell.equations, cell.constants(0.3, 1.5))
    assert torch.equal(spikes, expected)
    assert 0.05 < spikes.mean() < 0.95
    leaves = [qkv, *cell.parameters()]
    assert_all_close(gradients(spikes, leaves), gradients(expected, leaves))


# --- whole networks


@pytest.fixture
def make_pair(make_space, enliven):
    """Make a network that trains by fused steps, and its equal that trains by plain layers."""

    def make_pair(neuron="lif", momentum=0.1, dtype=torch.float64, **skeleton):
        space = make_space(neuron=neuron, **skeleton)
        networks = [enliven(Spikformer(space.skeleton, LARGE, name)) for name in ("native", "reference")]
        for network in networks:
            for module in network.modules():
                if isinstance(module, EntangledBatchNorm):
                    module.momentum = momentum
        return [network.to(dtype).train() for network in networks]

    return make_pair


def step(network, images, architecture):
    logits = network(images, architecture)
    (logits * torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).view_as(logits)).sum().backward()
    return logits.detach()


def for_neuron(architecture, neuron):
    layers = tuple(replace(layer, tau=2.0) if neuron == "if" else layer for layer in architecture.layers)
    return replace(architecture, layers=layers)


def assert_same_training(pair, images, architecture, steps=2, **tolerance):
    for seed in range(steps):
        found, expected = (step(network, images + seed, architecture) for network in pair)
        assert_all_close([found], [expected], **tolerance)
    by_name = [dict(network.named_parameters()) for network in pair]
    for name, parameter in by_name[0].items():
        plain = by_name[1][name]
        assert (parameter.grad is None) == (plain.grad is None), name
        if parameter.grad is not None:
            scale = plain.grad.abs().max().clamp_min(1)  # the plain gradient of a bias is rounding
            assert_all_close([parameter.grad / scale], [plain.grad / scale], **tolerance)
            assert name.endswith("linear.bias") <= bool((parameter.grad == 0).all()), name
    for (name, buffer), (_, other) in zip(pair[0].named_buffers(), pair[1].named_buffers(), strict=True):
        torch.testing.assert_close(buffer, other, rtol=1e-6, atol=1e-6, msg=name)


@each_neuron
@each_reset
@pytest.mark.parametrize("architecture", [LARGE, MIXED, NARROW], ids=["largest", "slice", "narrow slice"])
def test_training_is_that_of_plain_layers(make_pair, make_images, neuron, soft_reset, architecture):
    pair = make_pair(neuron, soft_reset=soft_reset)
    assert_same_training(pair, make_images(3).double(), for_neuron(architecture, neuron))
    assert pair[0].blocks[0].attention.v.linear.weight.grad.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("channels", "size", "pools"),
    [(3, 7, [0, 2]), (1, 5, []), (1, 1, [0, 1, 2, 3]), (3, 8, [0, 1, 2, 3])],
    ids=["odd colour", "without pooling", "one pixel", "one token"],
)
def test_training_on_ragged_images_is_that_of_plain_layers(make_pair, make_images, channels, size, pools):
    pair = make_pair(in_channels=channels, image_size=size, stem_pools=pools)
    assert_same_training(pair, make_images(4, channels, size).double(), MIXED)


@each_neuron
def test_training_in_single_precision_is_that_of_plain_layers(make_pair, make_images, neuron):
    pair = make_pair(neuron, dtype=torch.float32)
    images = make_images(2)
    assert_same_training(pair, images, for_neuron(MIXED, neuron), steps=1, rtol=1e-3, atol=1e-3)


def test_cumulative_statistics_are_the_averages_of_plain_layers(make_pair, make_images):
    pair, images = make_pair(momentum=None), make_images(3).double()
    assert_same_training(pair, images, MIXED, steps=3)
    first = pair[0].stem.stages[0]
    assert first.bn.num_batches_tracked == 3
    means = [F.conv2d(images + seed, first.conv.weight[:2], padding=1).mean((0, 2, 3)) for seed in range(3)]
    torch.testing.assert_close(first.bn.running_mean[:2], torch.stack(means).mean(0).detach())


def test_a_slice_trains_its_own_weights_and_statistics_and_no_others(make_pair, make_images):
    network = make_pair("plif")[0]
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    step(network, make_images(3).double(), replace(MIXED, layers=MIXED.layers[:1]))
    grad = network.blocks[0].attention.q.linear.weight.grad
    assert (grad[:16, :16] != 0).any()
    assert (grad[16:] == 0).all()
    assert (grad[:, 16:] == 0).all()
    assert network.blocks[1].fc1.linear.weight.grad is None
    for name, buffer in network.named_buffers():
        if "running" in name:
            assert torch.equal(buffer[16:], before[name][16:]), name
        assert torch.equal(buffer, before[name]) == name.startswith("blocks.1"), name


def test_frozen_weights_stay_without_gradient(make_pair, make_images):
    pair = make_pair()
    for network in pair:
        network.stem.requires_grad_(False)
        network.blocks[0].attention.requires_grad_(False)
    assert_same_training(pair, make_images(3).double(), LARGE, steps=1)
    assert pair[0].stem.stages[0].conv.weight.grad is None


def test_without_gradients_training_mode_gives_the_same_spikes_and_statistics(make_pair, make_images):
    images, (network, other) = make_images(3).double(), (make_pair()[0], make_pair()[0])
    with torch.no_grad():
        logits = network(images, MIXED)
    assert not logits.requires_grad
    assert torch.equal(logits, other(images, MIXED).detach())
    for buffer, expected in zip(network.buffers(), other.buffers(), strict=True):
        assert torch.equal(buffer, expected)


def test_two_passes_before_one_backward_pass_do_not_disturb_each_other(make_pair, make_images):
    losses = []
    for network in make_pair():
        first, second = network(make_images(3).double(), LARGE), network(make_images(3, seed=1).double(), MIXED)
        (first.square().sum() + second.square().sum()).backward()
        losses.append([parameter.grad for parameter in network.parameters()])
    for found, expected in zip(*losses, strict=True):
        assert_all_close([found], [expected], rtol=1e-8, atol=1e-9)


def test_autocast_trains_in_bfloat16_near_single_precision(make_pair, make_images):
    network, images = make_pair(dtype=torch.float32)[0], make_images(16)
    expected = step(network, images, LARGE)
    head = network.head.weight.grad.clone()
    network.zero_grad()
    dtypes = []
    network.blocks[0].register_forward_hook(lambda _m, _i, out: dtypes.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images, LARGE)
    (logits.float() * torch.linspace(-1, 2, logits.numel()).view_as(logits)).sum().backward()
    assert dtypes == [torch.bfloat16]
    assert F.cosine_similarity(logits.detach().float().flatten(), expected.flatten(), dim=0) > 0.97
    assert F.cosine_similarity(network.head.weight.grad.flatten(), head.flatten(), dim=0) > 0.97
    for name, parameter in network.named_parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any() != name.endswith("linear.bias"), name


# --- what is kept


def kept(network, images):
    """Return the tensors of which the memory is kept between forward and backward pass, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = network(images).square().sum()
    loss.backward()
    return [tensor for tensor, _ in found.values()], sum(size for _, size in found.values())


@pytest.mark.parametrize("neuron", ["lif", "if"])
def test_spikes_are_kept_as_bytes(make_pair, make_images, neuron):
    tensors, _ = kept(make_pair(neuron, dtype=torch.float32)[0], make_images(8))
    for tensor in tensors:
        counts = tensor.is_floating_point() and torch.equal(tensor, tensor.round())
        assert not (counts and tensor.numel() > 64), tuple(tensor.shape)
    assert sum(tensor.dtype == torch.uint8 for tensor in tensors) >= 4 + 1 + 2 * 4


@pytest.mark.parametrize(("neuron", "share"), [("lif", 0.35), ("if", 0.35), ("plif", 0.4)])
def test_far_less_is_kept_than_by_plain_layers(make_pair, make_images, neuron, share):
    fused_bytes, plain_bytes = (
        kept(network, make_images(8))[1] for network in make_pair(neuron, dtype=torch.float32)
    )
    assert fused_bytes < share * plain_bytes


def test_a_current_shared_by_all_timesteps_is_kept_once():
    current = torch.rand(1, 2, 3).expand(5, -1, -1)
    assert one_timestep(current).untyped_storage().nbytes() == 4 * 6


@pytest.mark.skipif(compiler_problem() is not None, reason=str(compiler_problem()))
@pytest.mark.parametrize("density", [0.1, 0.9], ids=["sparse", "dense"])
def test_products_of_sparse_spikes_are_sums_over_events_with_the_same_values_and_gradients(density, monkeypatch):
    """Weights on a binary grid make every sum exact, so both ways agree to the last bit."""
    called = []
    for name in ("spike_linear", "spike_conv"):
        original = getattr(fused.spikes, name)
        monkeypatch.setattr(fused.spikes, name, lambda *a, f=original, n=name: called.append(n) or f(*a))
    found = {}
    for small in (0, 1 << 62):
        monkeypatch.setattr(fused, "SMALL", small)
        generator = torch.Generator().manual_seed(1)
        x = (torch.rand(2, 3, 7, 24, generator=generator) < density).float().requires_grad_()
        pixels = (torch.rand(2, 3, 8, 5, 6, generator=generator) < density).float().requires_grad_()
        weight, kernel = (
            (torch.randint(-32, 33, shape, generator=generator) / 64).requires_grad_()
            for shape in ((40, 24), (16, 8, 3, 3))
        )
        y = fused.linear(x, [weight[:16], weight[16:]], torch.float32)
        z = fused.convolve(pixels.contiguous(), kernel, (1, 1), torch.float32, False)
        (y.square().sum() + z.square().sum()).backward()
        found[small] = (y, z, x.grad, pixels.grad, weight.grad, kernel.grad)
    assert called == (["spike_linear", "spike_conv"] if density < 0.45 else [])
    for events, plain in zip(*found.values(), strict=True):
        assert torch.equal(events, plain)


# --- what the fused steps do not offer


def test_second_derivatives_are_refused_rather_than_wrong(make_pair, make_images):
    network = make_pair()[0]
    weights = [network.blocks[0].fc1.linear.weight, network.head.weight]
    loss = network(make_images(3).double()).square().sum()
    firsts = torch.autograd.grad(loss, weights, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        sum(first.square().sum() for first in firsts).backward()


def test_operations_of_fused_steps_are_refused_rather_than_missed(make_pair, make_images):
    fused, plain = make_pair()
    with pytest.raises(ValueError, match="operations are counted in evaluation mode: call eval"), counting(fused):
        pass
    with torch.no_grad(), counting(plain) as counts:
        plain(make_images(3).double())
    assert counts.accumulates_per_image > 0
