"""Small networks that learn the order of architectures, not their values.

The loss is that of EAR [Chuang2023]_: for two items of which i is the better, ``max(0, s_i - s_j + m (r_j - r_i))``
of their scores s, the lower the better, and their ranks r. Ranks are those within a group of items that are to be
compared, here all of one cost band. A single bad measurement moves a rank by at most the size of its group.

.. [Chuang2023] Chuang, Fang, Li, Yih, Glass, "Expand, Rerank, and Retrieve", Findings of ACL 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

FOLDS = 4
"""Networks, each of which learns from all but one part of the items."""

HIDDEN, EPOCHS, RATE, DECAY = 32, 120, 0.02, 1e-3
MARGIN = 1.0
"""Difference of scores that is asked of the best and the worst item of a group."""

MOST = 48
"""Items of a group in one step, drawn anew each step."""


class RankNets:
    """Four networks with one hidden layer; each item is left out by one of them, which tells how good they are.

    Args:
        width: Entries of a vector.
    """

    def __init__(self, width: int) -> None:
        self._width = width

    def fit(self, X: Floats, ranked: Floats, groups: Sequence[Rows], rng: np.random.Generator) -> None:
        """Learn the order of items.

        Args:
            X: Vectors, ``(n, width)``.
            ranked: What they are ordered by, the lower the better, ``(n,)``; equal ones are not compared.
            groups: Items to compare with each other.
            rng: Source of all that is drawn.
        """
        self._fold = rng.permutation(len(X)) % FOLDS
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        shapes = [(self._width, HIDDEN), (1, HIDDEN), (HIDDEN, 1)]
        scales = [(2 / max((X**2).sum(axis=1).mean(), 1e-9)) ** 0.5, 0.0, HIDDEN**-0.5]
        layers = [
            torch.randn(FOLDS, *shape, generator=generator).mul_(scale).requires_grad_()
            for shape, scale in zip(shapes, scales, strict=True)
        ]
        x = torch.from_numpy(X).float()
        seen = torch.from_numpy(self._fold[None] != np.arange(FOLDS)[:, None])
        optimiser = torch.optim.AdamW(layers, lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=EPOCHS)
        for rows, margins in _draws(ranked, groups, rng):
            optimiser.zero_grad()
            scores = _forward(layers, x[rows.flatten()].expand(FOLDS, -1, -1)).reshape(FOLDS, *rows.shape)
            loss = _loss(scores, seen[:, rows], margins)
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
        self._layers = [layer.detach() for layer in layers]
        scores = _forward(self._layers, x.expand(FOLDS, -1, -1)).double()
        self._deviation = scores.std(dim=1, keepdim=True).clamp_min(1e-9)

    def predict(self, Z: Floats) -> Floats:
        """Return the mean scores of vectors ``(m, width)``, the lower the better, ``(m,)``."""
        return np.asarray(self._scores(Z).mean(axis=0))

    def left_out(self, X: Floats) -> Floats:
        """Return the scores of the items, each by the network that did not learn from it, ``(n,)``."""
        return np.asarray(self._scores(X)[self._fold, np.arange(len(X))])

    def _scores(self, Z: Floats) -> Floats:
        with torch.no_grad():
            scores = _forward(self._layers, torch.from_numpy(Z).float().expand(FOLDS, -1, -1)).double()
        return np.asarray(scores / self._deviation)


def _forward(layers: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return the scores of ``(folds, n, width)`` items, ``(folds, n)``."""
    first, bias, last = layers
    return (torch.relu(x @ first + bias) @ last)[..., 0]


def _draws(
    ranked: Floats, groups: Sequence[Rows], rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield for each step items of each group ``(groups, size)`` and margins ``(groups, size, size)``, 0 for no pair.

    The margin at ``[g, i, j]`` is what the i-th item of a group has to be ahead of the j-th.
    """
    size = min(MOST, max(len(group) for group in groups))
    for _ in range(EPOCHS):
        rows = np.stack([rng.permutation(np.resize(rng.permutation(group), size)) for group in groups])
        ranks = np.argsort(np.argsort(ranked[rows], axis=1, kind="stable"), axis=1)
        ahead = ranked[rows][:, :, None] < ranked[rows][:, None, :]
        margins = np.where(ahead, ranks[:, None, :] - ranks[:, :, None], 0) * (MARGIN / size)
        yield torch.from_numpy(rows), torch.from_numpy(margins).float()


def _loss(scores: torch.Tensor, seen: torch.Tensor, margins: torch.Tensor) -> torch.Tensor:
    """Return the mean loss over the pairs of which a network sees both.

    Args:
        scores: ``(folds, groups, size)``.
        seen: Which items a network learns from, ``(folds, groups, size)``.
        margins: As :func:`_draws` gives them.
    """
    counts = (margins > 0) & seen[:, :, :, None] & seen[:, :, None, :]
    hinge = torch.relu(scores[:, :, :, None] - scores[:, :, None, :] + margins)
    return (hinge * counts).sum() / counts.sum().clamp_min(1)
