"""Kernels with a batch normalisation in front, their bytes, sums and counts, on every executor."""

import pytest
import torch
import torch.nn.functional as F
from kernel_contract import CLOSE, constants_of, each_full_type, each_type, new, norm_of, random, reference

from supernet.neurons.kernels import Affine, arithmetic_type

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
