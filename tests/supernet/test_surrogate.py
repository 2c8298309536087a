"""Surrogate gradients against the formulas of their docstrings, written in numpy."""

import numpy as np
import pytest
import torch

from supernet.neurons import SURROGATES

POINTS = torch.tensor([-50.0, -3.0, -0.5, -1e-6, -0.0, 0.0, 1e-6, 0.25, 1.0, 7.0, 50.0], dtype=torch.float64)


def sigmoid_derivative(x, alpha=4.0):
    p = 1 / (1 + np.exp(-alpha * x))
    return alpha * p * (1 - p)


def atan_derivative(x, alpha=2.0):
    return alpha / 2 / (1 + (np.pi / 2 * alpha * x) ** 2)


DERIVATIVES = {"sigmoid": sigmoid_derivative, "atan": atan_derivative}


def test_every_surrogate_has_a_reference_here():
    assert DERIVATIVES.keys() == SURROGATES.keys()


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_surrogate_steps_at_zero_from_zero_to_one(name, dtype):
    spikes = SURROGATES[name](POINTS.to(dtype))
    assert spikes.dtype == dtype
    assert spikes.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("name", SURROGATES)
def test_a_surrogate_s_derivative_is_the_formula_times_the_incoming_gradient(name):
    x = POINTS.clone().requires_grad_()
    incoming = torch.linspace(-2, 3, len(x), dtype=torch.float64)
    SURROGATES[name](x).backward(incoming)
    np.testing.assert_allclose(x.grad.numpy(), incoming.numpy() * DERIVATIVES[name](POINTS.numpy()), rtol=1e-12)


@pytest.mark.parametrize("name", SURROGATES)
def test_a_surrogate_s_derivative_is_that_of_a_smooth_step_from_zero_to_one(name):
    """The area under the derivative is 1, so spikes carry as much gradient as a smooth step would."""
    x = torch.linspace(-400, 400, 800_001, dtype=torch.float64, requires_grad=True)
    SURROGATES[name](x).sum().backward()
    area = torch.trapezoid(x.grad, x.detach()).item()
    assert area == pytest.approx(1.0, abs=2e-3)
    assert x.grad.argmax() == 400_000
