"""What the networks of a space cost before anything is trained."""

from __future__ import annotations

import numpy as np
import pandas as pd

from evaluators import count_parameters, dense_operations, estimate_energy_mj
from spaces import Architecture, SearchSpace


def profile_space(space: SearchSpace, samples: int = 101) -> pd.DataFrame:
    """Return parameters, dense multiply-accumulates and estimated energy of a space's networks.

    Args:
        space: Search space.
        samples: Architectures, drawn uniformly with a fixed seed, that the medians are of.

    Returns:
        Rows ``smallest, median, largest``; columns ``architecture, parameters, macs, energy_mj`` (estimate at the
        prior firing rate).
    """
    rng = np.random.default_rng(0)
    drawn = pd.DataFrame([_cost(space, space.sample(rng)) for _ in range(samples)])
    rows = [
        {"architecture": "smallest", **_cost(space, space.smallest())},
        {"architecture": "median", **drawn.median().to_dict()},
        {"architecture": "largest", **_cost(space, space.largest())},
    ]
    return pd.DataFrame(rows).astype({"parameters": "int64", "macs": "int64"})


def _cost(space: SearchSpace, architecture: Architecture) -> dict[str, float]:
    counts = dense_operations(space.skeleton, architecture)
    return {
        "parameters": count_parameters(space.skeleton, architecture),
        "macs": counts.macs_per_image,
        "energy_mj": estimate_energy_mj(counts),
    }
