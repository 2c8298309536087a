"""The exponential moving average of a network's weights, which often scores better than the weights themselves.

.. [Polyak1992] Polyak, Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM Journal on Control and
   Optimization 30(4), 1992.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

RAMP = 10
"""Steps over which an average forgets the first weights faster: its memory is never longer than the training."""


def decay_at(step: int, decay: float) -> float:
    """Return what the average keeps of itself at a step: ``min(decay, (1 + step) / (RAMP + step))``.

    Args:
        step: Number of the step, from 1.
        decay: Decay that it approaches, in [0, 1).
    """
    return min(decay, (1 + step) / (RAMP + step))


class WeightAverage:
    """Average of all a network's floating-point tensors over the steps of its training [Polyak1992]_.

    .. code-block:: text

        a[0] = w[0],   a[t] = d[t] a[t-1] + (1 - d[t]) w[t],   d[t] = decay_at(t, decay)

    Statistics of BatchNorm are averaged like weights; integers are those of the last step.

    Args:
        network: Network before its first step.
        decay: In (0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self.tensors: dict[str, Tensor] = {name: t.detach().clone() for name, t in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights of a network after a step, the first one being 1."""
        fresh = 1 - decay_at(step, self._decay)
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, fresh)
            else:
                self.tensors[name].copy_(tensor)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from an average that was kept.

        Raises:
            ValueError: If it is not that of such a network.
        """
        found = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        if found != {name: (tensor.shape, tensor.dtype) for name, tensor in self.tensors.items()}:
            raise ValueError("its averaged weights are not those of this network")
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)

    def give(self, network: nn.Module) -> None:
        """Replace the weights of a network by their average."""
        network.load_state_dict(self.tensors)
