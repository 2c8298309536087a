"""Layers that run their own prefixes, against torch's plain functions on sliced weights."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from supernet.layers import EntangledBatchNorm, EntangledConv2d, EntangledLinear


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("n_in", "n_out"), [(6, 5), (6, 2), (3, 5), (1, 1)])
def test_a_linear_prefix_is_the_leading_corner_of_the_weight(bias, n_in, n_out):
    layer = EntangledLinear(6, 5, bias=bias)
    x = noise(4, 2, n_in)
    corner = nn.Linear(n_in, n_out, bias=bias)
    with torch.no_grad():
        corner.weight.copy_(layer.weight[:n_out, :n_in])
        if bias:
            corner.bias.copy_(layer.bias[:n_out])
    assert torch.equal(layer(x, n_out), corner(x))


def test_a_linear_layer_runs_whole_by_default():
    layer, x = EntangledLinear(6, 5), noise(4, 6)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


def test_only_the_slice_in_use_receives_gradient():
    layer = EntangledLinear(6, 5)
    layer(noise(4, 3), 2).square().sum().backward()
    assert (layer.weight.grad[:2, :3] != 0).all()
    layer.weight.grad[:2, :3] = 0
    assert (layer.weight.grad == 0).all()
    assert (layer.bias.grad[2:] == 0).all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("n_in", "n_out"), [(4, 6), (4, 3), (2, 6), (1, 1)])
def test_a_convolution_prefix_is_the_leading_corner_of_the_weight(bias, n_in, n_out):
    layer = EntangledConv2d(4, 6, 3, padding=1, stride=2, bias=bias)
    x = noise(2, n_in, 5, 7)
    corner = nn.Conv2d(n_in, n_out, 3, padding=1, stride=2, bias=bias)
    with torch.no_grad():
        corner.weight.copy_(layer.weight[:n_out, :n_in])
        if bias:
            corner.bias.copy_(layer.bias[:n_out])
    assert torch.equal(layer(x, n_out), corner(x))


def lively_norm(channels=6):
    norm = EntangledBatchNorm(channels)
    with torch.no_grad():
        norm.weight.copy_(noise(channels, seed=1))
        norm.bias.copy_(noise(channels, seed=2))
        norm.running_mean.copy_(noise(channels, seed=3))
        norm.running_var.copy_(noise(channels, seed=4).square() + 0.1)
    return norm


@pytest.mark.parametrize("shape", [(5, 6), (5, 4), (3, 6, 2, 4), (3, 1, 2, 4)])
def test_evaluation_normalises_by_the_running_statistics_of_the_channels_in_use(shape):
    norm, x = lively_norm().eval(), 3 + noise(*shape)
    kept = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    n = shape[1]
    view = (1, n) + (1,) * (len(shape) - 2)
    mean, var, weight, bias = (
        tensor.detach()[:n].view(view) for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    torch.testing.assert_close(norm(x), (x - mean) / torch.sqrt(var + 1e-5) * weight + bias)
    assert all(torch.equal(norm.state_dict()[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("shape", [(5, 6), (5, 4), (3, 6, 2, 4), (3, 2, 2, 4)])
def test_training_normalises_by_the_batch_and_moves_only_the_statistics_in_use(shape):
    norm, x = lively_norm().train(), 3 + noise(*shape)
    old_mean, old_var = norm.running_mean.clone(), norm.running_var.clone()
    n = shape[1]
    axes = (0, *range(2, len(shape)))
    mean, biased, unbiased = x.mean(axes), x.var(axes, correction=0), x.var(axes, correction=1)
    view = (1, n) + (1,) * (len(shape) - 2)
    expected = (x - mean.view(view)) / torch.sqrt(biased + 1e-5).view(view)
    expected = expected * norm.weight[:n].view(view) + norm.bias[:n].view(view)
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(norm.running_mean[:n], 0.9 * old_mean[:n] + 0.1 * mean)
    torch.testing.assert_close(norm.running_var[:n], 0.9 * old_var[:n] + 0.1 * unbiased)
    assert torch.equal(norm.running_mean[n:], old_mean[n:])
    assert torch.equal(norm.running_var[n:], old_var[n:])
    assert norm.num_batches_tracked == 1


def test_without_momentum_training_averages_over_all_batches():
    norm = EntangledBatchNorm(3, momentum=None)
    batches = [noise(4 + i, 3, seed=i) * (i + 1) for i in range(4)]
    for batch in batches:
        norm(batch)
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0))


def test_without_momentum_evaluation_still_uses_the_running_statistics():
    norm = EntangledBatchNorm(3, momentum=None)
    norm(5 + noise(8, 3))
    norm.eval()
    kept = norm.running_mean.clone()
    assert not np.allclose(norm(noise(4, 3)).mean(0).detach(), 0, atol=0.5)
    assert torch.equal(norm.running_mean, kept)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (2, 3, 4, 5, 6)])
def test_batch_normalisation_of_other_dimensions_is_refused(shape):
    with pytest.raises(ValueError, match=r"takes \(B, C\) or \(B, C, H, W\), got"):
        EntangledBatchNorm(3)(torch.zeros(shape))
