"""The contract of executors: each computes the spikes of plain torch bit for bit, and its gradients but for rounding.

Executors are compiled C on the CPU, CUDA kernels on a GPU, and the text of those CUDA kernels on the host, one thread
after another, so that it is tested where there is no GPU.
"""

import pytest
import torch
from kernel_contract import (
    CLOSE,
    VARIANTS,
    backward,
    constants_of,
    each_full_type,
    each_neuron,
    each_shape,
    each_type,
    new,
    random,
    reference,
)

from supernet.neurons.kernels import arithmetic_type

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
