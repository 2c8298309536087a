"""A small space, networks that really spike, and image sets that cost nothing."""

import numpy as np
import pytest
import torch

from evaluators import ScoringImages
from spaces import SearchSpace
from supernet.data import Normalise, Split
from supernet.layers import EntangledBatchNorm, EntangledConv2d, EntangledLinear
from supernet.spikformer import build_supernet

torch.set_num_threads(1)

SPACE = {
    "name": "toy",
    "skeleton": {"image_size": 8, "in_channels": 1, "num_classes": 3, "stem_pools": [2, 3]},
    "genes": {
        "embed_dim": [16, 32],
        "timesteps": [1, 2, 4],
        "depth": [1, 2],
        "mlp_ratio": [1.0, 2.0],
        "num_heads": [1, 2, 4],
        "v_threshold": [0.5, 1.0],
        "tau": [1.5, 2.0],
    },
}


@pytest.fixture
def make_space():
    def make_space(**skeleton):
        genes = SPACE["genes"] | ({"tau": [2.0]} if skeleton.get("neuron") == "if" else {})
        return SearchSpace.from_dict({**SPACE, "skeleton": SPACE["skeleton"] | skeleton, "genes": genes})

    return make_space


@pytest.fixture
def space(make_space):
    return make_space()


@pytest.fixture
def make_supernet():
    def make_supernet(space, seed=0):
        """Return a supernet in which every neuron spikes at some rate."""
        supernet = build_supernet(space, seed).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in supernet.modules():
                if isinstance(module, EntangledBatchNorm):
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.bias.uniform_(0.0, 1.0, generator=generator)
                elif isinstance(module, EntangledConv2d | EntangledLinear):
                    module.weight.normal_(0.0, module.weight[0].numel() ** -0.5, generator=generator)
        return supernet

    return make_supernet


@pytest.fixture
def supernet(space, make_supernet):
    return make_supernet(space)


@pytest.fixture
def make_split():
    def make_split(count=24, seed=0, size=8, channels=1, classes=3):
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (count, channels, size, size)).astype(np.uint8)
        return Split(images, rng.integers(0, classes, count).astype(np.int64))

    return make_split


@pytest.fixture
def make_images(make_split):
    def make_images(calibration=None, scored=None, batch_size=16, normalise=None):
        return ScoringImages(
            make_split(16, seed=1) if calibration is None else calibration,
            make_split(24, seed=2) if scored is None else scored,
            Normalise((0.5,), (0.3,)) if normalise is None else normalise,
            batch_size,
        )

    return make_images


@pytest.fixture
def images(make_images):
    return make_images()
