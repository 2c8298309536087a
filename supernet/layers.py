"""Layers that also run any of their narrower prefixes [Chen2021]_.

The width of a call follows from its input and from the output width it asks for; a layer remembers neither.

.. [Chen2021] Chen et al., "AutoFormer: Searching Transformers for Visual Recognition", ICCV 2021.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class EntangledLinear(nn.Linear):
    """Linear layer that also runs any of its narrower prefixes."""

    def forward(self, x: Tensor, out_features: int | None = None) -> Tensor:
        """Map ``(..., n_in)`` to ``(..., out_features)``, ``n_in <= in_features``."""
        weight = self.weight[:out_features, : x.shape[-1]].contiguous()
        return F.linear(x, weight, None if self.bias is None else self.bias[:out_features])


class EntangledConv2d(nn.Conv2d):
    """Convolution without groups or dilation that also runs any of its narrower prefixes."""

    def forward(self, x: Tensor, out_channels: int | None = None) -> Tensor:
        """Map ``(B, c_in, H, W)`` to ``(B, out_channels, H', W')``, ``c_in <= in_channels``."""
        weight = self.weight[:out_channels, : x.shape[1]].contiguous()
        bias = None if self.bias is None else self.bias[:out_channels]
        return F.conv2d(x, weight, bias, self.stride, self.padding)


class EntangledBatchNorm(_BatchNorm):
    """Batch normalisation over dimension 1 that also runs any of its narrower prefixes.

    Training updates the running statistics of the channels in use. They mix all subnets, so an extracted subnet
    is calibrated before it is scored; evaluation never looks at the batch.

    Shape:
        ``(B, C)`` or ``(B, C, H, W)`` to the same, ``C <= num_features``.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  # torch's own signature
        if input.dim() not in (2, 4):
            raise ValueError(f"batch normalisation takes (B, C) or (B, C, H, W), got {tuple(input.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` by its batch in training and by the running statistics in evaluation."""
        self._check_input_dim(x)
        n = x.shape[1]
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = self.momentum
        if self.training:
            self.num_batches_tracked.add_(1)
            if momentum is None:  # cumulative average
                momentum = 1 / int(self.num_batches_tracked)
        return F.batch_norm(
            x,
            self.running_mean[:n],
            self.running_var[:n],
            self.weight[:n],
            self.bias[:n],
            self.training,
            momentum or 0.0,
            self.eps,
        )
