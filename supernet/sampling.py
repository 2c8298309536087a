"""Which architectures a training step runs.

.. [Yu2019] Yu, Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spaces import Architecture, SearchSpace


def single(space: SearchSpace, rng: np.random.Generator) -> list[Architecture]:
    """Return one architecture, each gene uniform: the single-path training of Auto-Spikformer."""
    return [space.sample_genes(rng)]


def sandwich(space: SearchSpace, rng: np.random.Generator) -> list[Architecture]:
    """Return the largest, the smallest and two random architectures; the first teaches the others [Yu2019]_."""
    return [space.largest(), space.smallest(), space.sample_genes(rng), space.sample_genes(rng)]


SAMPLING: dict[str, Callable[[SearchSpace, np.random.Generator], list[Architecture]]] = {
    "single": single,
    "sandwich": sandwich,
}
