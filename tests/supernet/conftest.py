"""Tiny spaces, networks that really spike, and a learnable image set."""

import random

import numpy as np
import pytest
import torch
from kernel_contract import AVAILABLE, Executor

from spaces import SearchSpace
from supernet.data import ImageData, Split
from supernet.layers import EntangledBatchNorm, EntangledConv2d, EntangledLinear
from supernet.neurons import cuda
from supernet.spikformer import build_supernet

torch.set_num_threads(1)

SKELETON = {"image_size": 8, "in_channels": 1, "num_classes": 3, "stem_pools": [3]}
GENES = {
    "embed_dim": [16, 32],
    "timesteps": [1, 2, 3],
    "depth": [1, 2, 3],
    "mlp_ratio": [0.5, 1.0, 2.0],
    "num_heads": [1, 2, 4],
    "v_threshold": [0.5, 0.75],
    "tau": [1.5, 2.0, 3.0],
}


@pytest.fixture(autouse=True)
def same_start(monkeypatch):
    """Networks built without a seed are the same in every run, and tests see no data but their own.

    Tests on real files read ``SPIKEFRONT_DATA`` when they are collected.
    """
    torch.manual_seed(0)
    monkeypatch.delenv("SPIKEFRONT_DATA", raising=False)


@pytest.fixture
def make_space():
    def make_space(genes=None, **skeleton):
        genes = GENES | (genes or {})
        if skeleton.get("neuron") == "if":
            genes |= {"tau": [2.0]}
        return SearchSpace.from_dict({"name": "toy", "skeleton": SKELETON | skeleton, "genes": genes})

    return make_space


@pytest.fixture
def enliven():
    def enliven(model, seed=0):
        """Give a network weights and BatchNorm statistics under which every neuron spikes at some rate."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, EntangledBatchNorm):
                    module.weight.uniform_(2.0, 4.0, generator=generator)
                    module.bias.uniform_(-1.0, 2.0, generator=generator)
                    module.running_mean.normal_(0.0, 0.2, generator=generator)
                    module.running_var.uniform_(0.1, 0.4, generator=generator)
                elif isinstance(module, EntangledConv2d | EntangledLinear):
                    module.weight.normal_(0.0, module.weight[0].numel() ** -0.5, generator=generator)
                    if module.bias is not None:
                        module.bias.normal_(0.0, 0.2, generator=generator)
                elif hasattr(module, "w"):
                    module.w.normal_(0.0, 0.5, generator=generator)
        return model

    return enliven


@pytest.fixture
def lively_supernet(enliven):
    def lively_supernet(space, seed=0):
        return enliven(build_supernet(space, seed), seed)

    return lively_supernet


@pytest.fixture
def make_images():
    def make_images(count=3, channels=1, size=8, seed=0):
        return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))

    return make_images


@pytest.fixture
def make_data():
    def make_data(count=48, channels=1, size=8, num_classes=3, seed=0):
        """Noisy pictures of one bright stripe per class; reading validation or test as images fails."""
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % num_classes
        pictures = rng.integers(0, 120, (count, channels, size, size))
        for picture, label in zip(pictures, labels, strict=True):
            picture[:, 2 * label : 2 * label + 2] += 130
        poison = Split(np.empty((0,), dtype=np.uint8), np.empty((0,), dtype=np.int64))
        train = Split(pictures.astype(np.uint8), labels.astype(np.int64))
        return ImageData("stripes", train, poison, poison, tuple("abcdefgh"[:num_classes]))

    return make_data


@pytest.fixture
def global_states():
    def global_states():
        """Return the state of every global random generator, as comparable values."""
        return (
            torch.get_rng_state().numpy().tobytes(),
            repr(np.random.get_state()),  # noqa: NPY002
            random.getstate(),
        )

    return global_states


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
