"""What the contract tests of executors share: neurons, shapes, types, and the executors themselves."""

from collections.abc import Callable
from dataclasses import dataclass

import cuda_on_host
import pytest
import torch
from neurons_of_my_own import AdaptiveLIF, Wordy

from supernet.neurons import NEURONS, SURROGATES, cuda, executors, fire, integrate, native
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


def norm_of(channels, executor, dtype, seed=5):
    real = arithmetic_type(dtype)
    scale, shift, centre = (random((channels,), executor, real, seed + n, 0.5) for n in range(3))
    return Affine(scale + 1, shift, centre)
