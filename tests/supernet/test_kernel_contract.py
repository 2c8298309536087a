"""The contract of executors: each computes the spikes of plain torch bit for bit, and its gradients but for rounding.

Executors are compiled C on the CPU, CUDA kernels on a GPU, and the text of those CUDA kernels on the host, one thread
after another, so that it is tested where there is no GPU.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import cuda_on_host
import pytest
import torch
import torch.nn.functional as F
from neurons_of_my_own import AdaptiveLIF, Wordy

from supernet.neurons import NEURONS, SURROGATES, Equations, cuda, executors, fire, integrate, native, sigmoid_step
from supernet.neurons.kernels import Affine, arithmetic_type

ROWS = NEURONS | {"own": AdaptiveLIF, "wordy": Wordy}
SHAPES = [(1, 1), (4, 1), (1, 7, 5), (4, 3, 5), (2, 1, 64), (8, 2, 33, 4), (5, 1023), (40, 3, 11), (33, 70)]
"""With one element, one timestep, odd sizes, sizes that fill vectors exactly, and more timesteps than any bucket."""

FULL = [torch.float32, torch.float64]
TYPES = [*FULL, torch.bfloat16, torch.float16]
CLOSE = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-11},
    torch.float32: {"rtol": 1e-5, "atol": 1e-6},
    torch.bfloat16: {"rtol": 8e-3, "atol": 1e-6},  # one unit in the last place
    torch.float16: {"rtol": 1e-3, "atol": 1e-6},
}


@dataclass(frozen=True)
class Executor:
    """Attributes: its name, the device of its tensors, and a function that returns kernels."""

    name: str
    device: str
    kernels: Callable

    def fire(self, x, neuron, v_threshold=0.7, tau=3.0):
        if self.name != "host":
            return fire(x, neuron.equations, neuron.constants(v_threshold, tau), self.name)
        k = neuron.constant_list(v_threshold, tau)
        learned = [value for value in k if isinstance(value, torch.Tensor)]
        return executors._Fire.apply(x, self.kernels(neuron.equations, x.dtype), k, *learned)


AVAILABLE = {
    "native": (native, "cpu"),
    "host": (cuda_on_host, "cpu"),
    "cupy": (cuda, "cuda"),
}


@pytest.fixture(params=AVAILABLE)
def executor(request):
    module, device = AVAILABLE[request.param]
    if module.problem() is not None:
        pytest.skip(f"{request.param}: {module.problem()}")
    return Executor(request.param, device, module.kernels)


@pytest.fixture
def gpu():
    if cuda.problem() is not None:
        pytest.skip(f"cupy: {cuda.problem()}")
    return Executor("cupy", "cuda", cuda.kernels)


VARIANTS = [("sigmoid", False), ("atan", True)]
"""Surrogates, and whether the reset is soft."""

each_neuron = pytest.mark.parametrize("name", ROWS)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_type = pytest.mark.parametrize("dtype", TYPES, ids=str)
each_full_type = pytest.mark.parametrize("dtype", FULL, ids=str)


def new(name, executor, dtype, surrogate="sigmoid", soft=False):
    """Return a neuron whose learned constants have moved, in the type that potentials are computed in."""
    neuron = ROWS[name](SURROGATES[surrogate], soft).to(executor.device, arithmetic_type(dtype))
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.fill_(0.4)
    return neuron


def random(shape, executor, dtype=torch.float64, seed=0, scale=2.0):
    drawn = scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(executor.device, dtype)


def reference(x, neuron, v_threshold=0.7, tau=3.0):
    return integrate(x, neuron.equations, neuron.constants(v_threshold, tau))


def backward(run, x, g, neuron):
    """Return spikes, the gradient by x and those by what the neuron learns."""
    x = x.detach().requires_grad_()
    spikes = run(x, neuron)
    found = torch.autograd.grad(spikes, [x, *neuron.parameters()], g)
    return spikes.detach(), found[0], list(found[1:])


def constants_of(neuron, v_threshold=0.7, tau=3.0):
    constants = neuron.constant_list(v_threshold, tau)
    return [value.item() if isinstance(value, torch.Tensor) else value for value in constants]


# --- spikes and gradients


@each_neuron
@each_shape
@each_type
def test_spikes_are_those_of_plain_torch_bit_for_bit(executor, name, shape, dtype):
    for surrogate, soft in VARIANTS:
        neuron, x = new(name, executor, dtype, surrogate, soft), random(shape, executor, dtype)
        spikes = executor.fire(x, neuron)
        assert spikes.dtype == dtype
        assert torch.equal(spikes, reference(x, neuron))


@each_neuron
@each_shape
@each_full_type
def test_gradients_are_those_of_plain_torch(executor, name, shape, dtype):
    for surrogate, soft in VARIANTS:
        neuron = new(name, executor, dtype, surrogate, soft)
        x, g = random(shape, executor, dtype), random(shape, executor, dtype, seed=1)
        _, gx, learned = backward(executor.fire, x, g, neuron)
        _, expected, by_constant = backward(reference, x, g, neuron)
        torch.testing.assert_close(gx, expected, **CLOSE[dtype])
        for value, wanted in zip(learned, by_constant, strict=True):
            scale = {"rtol": CLOSE[dtype]["rtol"], "atol": CLOSE[dtype]["atol"] * x.numel() ** 0.5}
            torch.testing.assert_close(value, wanted, **scale)


@each_neuron
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_gradients_by_short_floats_are_rounded_once(executor, name, dtype):
    neuron, x = new(name, executor, dtype), random((6, 3, 17), executor, dtype)
    g = random((6, 3, 17), executor, dtype, seed=1)
    _, gx, _ = backward(executor.fire, x, g, neuron)
    _, expected, _ = backward(reference, x, g, neuron)
    torch.testing.assert_close(gx, expected, **CLOSE[dtype])


def test_equality_with_the_threshold_fires(executor):
    """Halves make potentials exact, so that many of them are the threshold itself."""
    neuron = new("if", executor, torch.float32)
    x = random((6, 500), executor, torch.float32).mul(2).round().div(2)
    spikes = executor.fire(x, neuron, v_threshold=1.0)
    assert torch.equal(spikes, reference(x, neuron, v_threshold=1.0))
    assert not torch.equal(spikes, executor.fire(x - 1e-6, neuron, v_threshold=1.0))


def test_infinities_and_nans_stay_with_their_neuron(executor):
    neuron, x = new("lif", executor, torch.float32), random((4, 3, 50), executor, torch.float32)
    x[1, 1, 7], x[0, 2, 9], x[2, 0, 3] = float("nan"), float("inf"), -float("inf")
    assert torch.equal(executor.fire(x, neuron), reference(x, neuron))


def test_the_smallest_currents_are_not_flushed_to_zero(executor):
    neuron = new("if", executor, torch.float32)
    x = torch.full((2, 40), 2.0**-149, device=executor.device)
    assert executor.fire(x, neuron, v_threshold=2.0**-149).all()


def test_a_threshold_that_is_not_positive_counts_no_neuron_beyond_the_end(executor):
    neuron, x = new("if", executor, torch.bfloat16), random((3, 1, 7), executor, torch.bfloat16).abs()
    kernels = executor.kernels(neuron.equations, x.dtype)
    assert int(kernels.forward(x, 3, [-1.0], None, True, False, None).count) == 21


# --- memory


@each_type
@pytest.mark.parametrize("name", ["lif", "own"])
def test_channels_last_images_stay_channels_last(executor, name, dtype):
    neuron = new(name, executor, dtype)
    images = random((4 * 2, 6, 5, 3), executor, dtype).to(memory_format=torch.channels_last)
    x, g = images.view(4, 2, 6, 5, 3), random((4, 2, 6, 5, 3), executor, dtype, seed=1)
    spikes, gx, _ = backward(executor.fire, x, g, neuron)
    expected, expected_gx, _ = backward(reference, x, g, neuron)
    assert torch.equal(spikes, expected)
    assert spikes.stride() == x.stride()
    torch.testing.assert_close(gx, expected_gx, **CLOSE[dtype])


@each_type
@each_neuron
@pytest.mark.parametrize("timesteps", [1, 4, 40])
def test_one_timestep_may_be_shared_by_all(executor, name, dtype, timesteps):
    neuron, x = new(name, executor, dtype), random((1, 3, 13), executor, dtype)
    g = random((timesteps, 3, 13), executor, dtype, seed=1)
    shared = x.detach().requires_grad_()
    spikes = executor.fire(shared.expand(timesteps, 3, 13), neuron)
    assert torch.equal(spikes, reference(x.repeat(timesteps, 1, 1), neuron))
    (gx,) = torch.autograd.grad(spikes, shared, g)
    apart = x.repeat(timesteps, 1, 1).to(arithmetic_type(dtype)).requires_grad_()
    (expected,) = torch.autograd.grad(reference(apart, neuron), apart, g.to(apart.dtype))
    close = CLOSE[dtype] | {"atol": CLOSE[dtype]["atol"] * timesteps}
    torch.testing.assert_close(gx, expected.sum(dim=0, keepdim=True).to(dtype), **close)


@each_full_type
@pytest.mark.parametrize("layout", ["expanded", "transposed", "strided", "permuted steps"])
def test_gradients_may_arrive_in_any_layout(executor, dtype, layout):
    neuron, x = new("lif", executor, dtype), random((4, 6, 10), executor, dtype)
    g = {
        "expanded": random((1, 1, 1), executor, dtype, seed=1).expand(4, 6, 10),
        "transposed": random((4, 10, 6), executor, dtype, seed=1).transpose(1, 2),
        "strided": random((4, 6, 20), executor, dtype, seed=1)[..., ::2],
        "permuted steps": random((6, 4, 10), executor, dtype, seed=1).transpose(0, 1),
    }[layout]
    _, gx, _ = backward(executor.fire, x, g, neuron)
    _, expected, _ = backward(reference, x, g, neuron)
    torch.testing.assert_close(gx, expected, **CLOSE[dtype])


@each_type
def test_currents_may_start_anywhere_in_memory(executor, dtype):
    """Pairs of short floats are then not aligned."""
    neuron, whole = new("lif", executor, dtype), random((4 * 30 + 1,), executor, dtype)
    x = whole[1:].view(4, 30)
    assert torch.equal(executor.fire(x, neuron), reference(x, neuron))
    g = whole.flip(0)[1:].view(4, 30)
    _, gx, _ = backward(executor.fire, x, g, neuron)
    _, expected, _ = backward(reference, x, g, neuron)
    torch.testing.assert_close(gx, expected, **CLOSE[dtype])


@each_type
def test_an_empty_batch_gives_no_spikes(executor, dtype):
    neuron = new("plif", executor, dtype)
    x = random((4, 0, 7), executor, dtype).requires_grad_()
    spikes = executor.fire(x, neuron) if executor.name != "host" else reference(x, neuron)
    assert spikes.shape == (4, 0, 7)
    spikes.sum().backward()
    assert x.grad.shape == x.shape
    kernels, k = executor.kernels(neuron.equations, dtype), constants_of(neuron)
    fired = kernels.forward(x.detach(), 4, k, None, True, True, None)
    assert (fired.spikes.shape, fired.bytes.shape, int(fired.count)) == (x.shape, x.shape, 0)


def test_autocast_changes_nothing(executor):
    neuron, x = new("plif", executor, torch.float32), random((4, 3, 9), executor, torch.float32)
    g = random((4, 3, 9), executor, torch.float32, seed=1)
    plain = backward(executor.fire, x, g, neuron)
    with torch.autocast(executor.device, dtype=torch.bfloat16):
        cast = backward(executor.fire, x, g, neuron)
    assert plain[0].dtype == cast[0].dtype == torch.float32
    assert torch.equal(plain[0], cast[0])
    assert torch.equal(plain[1], cast[1])
    torch.testing.assert_close(plain[2], cast[2])


@each_type
def test_the_input_is_left_as_it_is(executor, dtype):
    neuron, x = new("own", executor, dtype), random((5, 3, 9), executor, dtype)
    kept, g = x.clone(), random((5, 3, 9), executor, dtype, seed=1)
    backward(executor.fire, x, g, neuron)
    assert torch.equal(x, kept)
    assert torch.equal(g, random((5, 3, 9), executor, dtype, seed=1))


# --- bytes, sums and counts


@each_type
@pytest.mark.parametrize("shape", [(4, 3, 5), (1, 2, 64), (9, 70, 3)], ids=str)
@pytest.mark.parametrize("with_affine", [False, True])
def test_spikes_come_as_floats_or_bytes_with_an_addend_and_their_count(executor, dtype, shape, with_affine):
    neuron, x = new("lif", executor, dtype), random(shape, executor, dtype)
    kernels, k, t = executor.kernels(neuron.equations, dtype), constants_of(neuron), shape[0]
    affine = norm_of(shape[-1], executor, dtype) if with_affine else None
    spikes = reference(affected(x, affine), neuron).to(dtype)
    addend = random(shape, executor, seed=3, scale=3.0).abs().to(torch.uint8)

    plain = kernels.forward(x, t, k, affine, True, False, None)
    assert torch.equal(plain.spikes, spikes)
    assert plain.bytes is None
    as_bytes = kernels.forward(x, t, k, affine, False, True, None)
    assert as_bytes.spikes is None
    assert as_bytes.bytes.dtype == torch.uint8
    assert torch.equal(as_bytes.bytes, spikes.to(torch.uint8))
    both = kernels.forward(x, t, k, affine, True, True, addend)
    assert torch.equal(both.bytes, spikes.to(torch.uint8) + addend)
    assert torch.equal(both.spikes, both.bytes.to(dtype))
    nothing = kernels.forward(x, t, k, affine, False, False, None)
    assert nothing.spikes is nothing.bytes is None
    assert {int(fired.count) for fired in (plain, as_bytes, both, nothing)} == {int(spikes.sum(dtype=torch.float64))}


# --- with a batch normalisation in front


def norm_of(channels, executor, dtype, seed=5):
    real = arithmetic_type(dtype)
    scale, shift, centre = (random((channels,), executor, real, seed + n, 0.5) for n in range(3))
    return Affine(scale + 1, shift, centre)


def affected(x, affine):
    """Return what enters the charge, in the type of the arithmetic."""
    wide = x.to(arithmetic_type(x.dtype))
    return wide if affine is None else wide * affine.scale + affine.shift


NORM_SHAPES = [(1, 1, 1), (4, 6, 5), (1, 300, 7), (4, 65, 64), (2, 33, 130), (40, 5, 3), (4, 1, 9)]
each_norm_shape = pytest.mark.parametrize("shape", NORM_SHAPES, ids=str)


@each_type
@each_norm_shape
@pytest.mark.parametrize("name", ["plif", "own"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_scaled_and_shifted_current_gives_spikes_gradients_and_their_sums(executor, name, dtype, shape, shared):
    neuron, real = new(name, executor, dtype), arithmetic_type(dtype)
    t, channels = shape[0], shape[-1]
    x = random((1, *shape[1:]) if shared else shape, executor, dtype)
    affine, g = norm_of(channels, executor, dtype), random(shape, executor, dtype, seed=1)
    kernels, k = executor.kernels(neuron.equations, dtype), constants_of(neuron)
    fired = kernels.forward(x, t, k, affine, True, False, None)
    found = kernels.backward(x, t, k, affine, g, True)

    currents = affected(x, affine).requires_grad_()
    spikes = reference(currents.expand(shape), neuron)
    assert torch.equal(fired.spikes, spikes.to(dtype))
    (gx,) = torch.autograd.grad(spikes, currents, g.to(real))
    close = {"rtol": CLOSE[real]["rtol"], "atol": CLOSE[real]["atol"] * t}
    assert found.x.dtype == real
    torch.testing.assert_close(found.x, gx, **close)
    total = found.x.double().sum(dim=(0, 1))
    away = x.double() - affine.centre.double()
    product = (found.x.double() * away).sum(dim=(0, 1))
    rows = x.shape[0] * x.shape[1]
    sums = {"rtol": CLOSE[real]["rtol"], "atol": CLOSE[real]["atol"] * rows**0.5}
    assert found.sums.dtype == found.constants.dtype == torch.float64
    torch.testing.assert_close(found.sums, torch.stack([total, product]), **sums)
    assert found.constants.shape == (len(k),)
    assert kernels.backward(x, t, k, affine, g, False).constants is None


@each_type
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (300, 7), (4096, 64), (131, 130), (5000, 1)], ids=str)
def test_moments_are_accurate_far_from_zero(executor, dtype, shape):
    x = (random(shape, executor, scale=0.5) + 40).to(dtype)
    mean, variance = executor.kernels(new("lif", executor, dtype).equations, dtype).moments(x)
    assert mean.dtype == variance.dtype == torch.float64
    expected, wanted = x.double().mean(dim=0), x.double().var(dim=0, correction=0)
    close = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-6, "atol": 1e-9}
    torch.testing.assert_close(mean, expected, **close)
    torch.testing.assert_close(variance, wanted, **close)


@each_full_type
@pytest.mark.parametrize("shape", [(4, 6, 5), (1, 301, 7), (3, 65, 64)], ids=str)
@pytest.mark.parametrize("name", ["lif", "plif", "own"])
@pytest.mark.parametrize("shared", [False, True])
def test_the_pieces_make_a_batch_normalisation_that_trains(executor, name, dtype, shape, shared):
    """Against torch's BatchNorm and the reference neuron, in value and in every gradient."""
    neuron, eps, t, c = new(name, executor, dtype), 1e-5, shape[0], shape[-1]
    x = random((1, *shape[1:]) if shared else shape, executor, dtype).requires_grad_()
    gamma = (random((c,), executor, dtype, 7, 0.3) + 1).requires_grad_()
    beta = random((c,), executor, dtype, 8, 0.3).requires_grad_()
    g = random(shape, executor, dtype, seed=1)
    normalised = F.batch_norm(x.flatten(0, 1), None, None, gamma, beta, training=True, eps=eps).view_as(x)
    spikes = reference(normalised.expand(shape), neuron)
    inputs = [x, gamma, beta, *neuron.parameters()]
    expected = torch.autograd.grad(spikes, inputs, g)

    kernels, k = executor.kernels(neuron.equations, dtype), constants_of(neuron)
    flat = x.detach().flatten(0, 1)
    mean, variance = kernels.moments(flat)
    deviation = (variance + eps).sqrt()
    scale = gamma.detach().double() / deviation
    affine = Affine(*(v.to(dtype) for v in (scale, beta.detach().double() - mean * scale, mean)))
    fired = kernels.forward(x.detach(), t, k, affine, True, False, None)
    assert (fired.spikes != spikes).double().mean() < (1e-3 if dtype == torch.float32 else 1e-12)
    found = kernels.backward(x.detach(), t, k, affine, g, True)
    total, product = found.sums
    vectors = tuple(v.to(dtype) for v in (mean, scale, total / len(flat), product / len(flat) / deviation**2))
    gx = kernels.norm_backward(found.x.flatten(0, 1), flat, vectors).view_as(x)
    close = {"rtol": 2e-4, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 1e-8, "atol": 1e-10}
    torch.testing.assert_close(gx, expected[0], **close)
    torch.testing.assert_close(product / deviation, expected[1].double(), **close)
    torch.testing.assert_close(total, expected[2].double(), **close)


@each_type
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (300, 7), (64, 64), (65, 130)], ids=str)
def test_the_way_back_through_a_normalisation_is_its_formula(executor, dtype, shape):
    real = arithmetic_type(dtype)
    g, x = random(shape, executor, real), random(shape, executor, dtype, seed=1)
    mean, gain, offset, slope = vectors = tuple(random((shape[1],), executor, real, 2 + n) for n in range(4))
    gx = executor.kernels(new("lif", executor, dtype).equations, dtype).norm_backward(g, x, vectors)
    expected = gain * (g - offset - (x.to(real) - mean) * slope)
    assert gx.dtype == dtype
    torch.testing.assert_close(gx, expected.to(dtype), **CLOSE[dtype])


# --- side by side


@each_full_type
@pytest.mark.parametrize("name", ["plif", "own"])
def test_threads_change_no_bit(name, dtype):
    """Blocks whose sums are added up are as large whoever computes them."""
    executor = Executor("native", "cpu", native.kernels)
    neuron, shape = new(name, executor, dtype), (3, 701, 37)
    kernels, k = executor.kernels(neuron.equations, dtype), constants_of(neuron)
    x, g = random(shape, executor, dtype), random(shape, executor, dtype, seed=1)
    affine, rows = norm_of(37, executor, dtype), random((2103, 37), executor, dtype)
    vectors = tuple(random((37,), executor, dtype, n) for n in range(4))

    def everything():
        plain, scaled = (kernels.backward(x, 3, k, norm, g, True) for norm in (None, affine))
        fired = [kernels.forward(x, 3, k, norm, True, True, None) for norm in (None, affine)]
        normed = kernels.norm_backward(rows, rows, vectors)
        counts = torch.tensor([int(one.count) for one in fired])
        whole = [plain.x, plain.constants, scaled.x, scaled.sums, scaled.constants, *kernels.moments(rows), normed]
        return [counts, *(one.spikes for one in fired), *(one.bytes for one in fired), *whole]

    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(everything())
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_the_same_call_gives_the_same_bits(executor):
    neuron, shape = new("plif", executor, torch.float32), (4, 3000, 48)
    kernels, k = executor.kernels(neuron.equations, torch.float32), constants_of(neuron)
    x, g = random(shape, executor, torch.float32), random(shape, executor, torch.float32, seed=1)
    affine = norm_of(48, executor, torch.float32)
    first, second = (kernels.backward(x, 4, k, affine, g, True) for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.sums, second.sums)
    assert torch.equal(first.constants, second.constants)


def test_callers_in_several_threads_do_not_disturb_each_other(executor):
    neuron = new("lif", executor, torch.float32)
    inputs = [random((4, 500), executor, torch.float32, seed=seed) for seed in range(6)]
    found = [None] * 6

    def work(n):
        found[n] = executor.fire(inputs[n], neuron)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, reference(x, neuron)) for a, x in zip(found, inputs, strict=True))


def by_nothing(x, state, const):
    return state.v + x


def forget(u, s, x, state, const):
    return (u * 0 + s * 0,)


def test_a_neuron_needs_no_learned_constant_and_may_forget_everything(executor):
    equations = Equations(by_nothing, forget, sigmoid_step)
    x, g = random((5, 33), executor), random((5, 33), executor, seed=1)
    kernels = executor.kernels(equations, x.dtype)
    assert torch.equal(kernels.forward(x, 5, [0.7], None, True, False, None).spikes, (x >= 0.7).double())
    slope = sigmoid_step.derivative(x - 0.7)
    torch.testing.assert_close(kernels.backward(x, 5, [0.7], None, g, False).x, g * slope, **CLOSE[x.dtype])


# --- on a GPU


def test_kernels_run_on_torchs_current_stream(gpu):
    """On any other stream they would read currents that the sleep still holds back."""
    neuron, target = new("lif", gpu, torch.float32), random((4, 1 << 16), gpu, torch.float32)
    expected = reference(target, neuron)
    gpu.fire(target, neuron)  # builds the kernel
    stream, x = torch.cuda.Stream(), torch.zeros_like(target)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        x.copy_(target)
        spikes = gpu.fire(x, neuron)
    stream.synchronize()
    assert torch.equal(spikes, expected)


def test_a_count_does_not_wait_for_the_gpu(gpu):
    neuron, x = new("lif", gpu, torch.float32), random((4, 100), gpu, torch.float32)
    fired = gpu.kernels(neuron.equations, x.dtype).forward(x, 4, constants_of(neuron), None, True, False, None)
    assert fired.count.is_cuda
    assert int(fired.count) == int(fired.spikes.sum())


@each_full_type
def test_a_gpu_takes_more_neurons_than_threads(gpu, dtype):
    neuron, shape = new("plif", gpu, dtype), (4, 3001, 131)
    x, g = random(shape, gpu, dtype), random(shape, gpu, dtype, seed=1)
    spikes, gx, _ = backward(gpu.fire, x, g, neuron)
    expected, expected_gx, _ = backward(reference, x, g, neuron)
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(gx, expected_gx, **CLOSE[dtype])


def test_tensors_are_computed_on_their_own_device(gpu):
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device is visible, this takes two")
    second = Executor("cupy", "cuda:1", cuda.kernels)
    for executor in (gpu, second, gpu):
        neuron, x = new("lif", executor, torch.float32), random((4, 999), executor, torch.float32)
        spikes = executor.fire(x, neuron)
        assert spikes.device == x.device
        assert torch.equal(spikes, reference(x, neuron))


def test_two_actors_share_a_gpu(gpu, monkeypatch):
    import ray

    def fires_as_the_reference(seed):
        import torch

        from supernet.neurons import LIF

        x = torch.randn(4, 1000, generator=torch.Generator().manual_seed(seed)).cuda()
        return torch.equal(LIF(executor="cupy")(x), LIF(executor="reference")(x))

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        half = ray.remote(num_cpus=1, num_gpus=0.5)(fires_as_the_reference)
        assert ray.get([half.remote(seed) for seed in range(2)]) == [True, True]
    finally:
        ray.shutdown()
