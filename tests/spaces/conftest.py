"""A space small enough to enumerate, and the plain values it is made from."""

from copy import deepcopy

import pytest

from spaces import SearchSpace

TINY = {
    "name": "tiny",
    "skeleton": {"image_size": 8, "in_channels": 1, "num_classes": 3, "stem_pools": [3]},
    "genes": {
        "embed_dim": [8, 16],
        "timesteps": [1, 2],
        "depth": [1, 2],
        "mlp_ratio": [1.0, 2.0],
        "num_heads": [1, 2],
        "v_threshold": [1.0],
        "tau": [2.0],
    },
}


@pytest.fixture
def tiny_values():
    """The tiny space as a user would write it: 2 · 2 · (4 + 16) = 80 architectures."""
    return deepcopy(TINY)


@pytest.fixture
def tiny(tiny_values):
    return SearchSpace.from_dict(tiny_values)
