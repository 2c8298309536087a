"""Neurons to test, and their recurrence written in numpy, one neuron and one timestep at a time."""

import numpy as np
import pytest
import torch
from hypothesis import settings

from spaces import Skeleton
from supernet.neurons import NEURONS, build_neuron

SHAPES = [(1, 1), (4, 3, 5), (3, 2, 7, 2), (2, 1, 3, 2, 2)]
PROPERTY = settings(deadline=None, max_examples=30)

each_neuron = pytest.mark.parametrize("name", NEURONS)
each_reset = pytest.mark.parametrize("soft_reset", [False, True], ids=["hard", "soft"])


def new(name, soft_reset=False, surrogate="sigmoid", w=0.4):
    """Return a neuron whose learned leak, where it has one, has already moved."""
    neuron = build_neuron(Skeleton(8, 1, 2, neuron=name, surrogate=surrogate, soft_reset=soft_reset)).double()
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.fill_(w)
    return neuron


def currents(shape, seed=0, scale=1.5):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference_charge(name, v, x, tau, w):
    if name == "lif":
        return v + (x - v) / tau
    if name == "plif":
        return v + (x - v) * (1 / (1 + (tau - 1) * np.exp(-w)))  # sigmoid(w + logit(1 / tau))
    return v + x


def reference(name, x, v_threshold, tau, soft_reset, w=0.4):
    """Return spikes and charged potentials by the recurrence, one neuron and one timestep at a time."""
    spikes, potentials = np.zeros_like(x), np.zeros_like(x)
    for at in np.ndindex(x.shape[1:]):
        v = 0.0
        for t in range(len(x)):
            u = reference_charge(name, v, x[(t, *at)], tau, w)
            s = 1.0 if u >= v_threshold else 0.0
            v = u - s * v_threshold if soft_reset else (0.0 if s else u)
            spikes[(t, *at)], potentials[(t, *at)] = s, u
    return spikes, potentials
