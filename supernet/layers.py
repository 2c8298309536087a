"""Layers that also run any of their narrower prefixes [Chen2021]_.

The width of a call follows from its input and from the output width it asks for; a layer remembers neither.

.. [Chen2021] Chen et al., "AutoFormer: Searching Transformers for Visual Recognition", ICCV 2021.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from supernet.ranks import Share, current_share


class EntangledLinear(nn.Linear):
    """Linear layer that also runs any of its narrower prefixes."""

    def forward(self, x: Tensor, out_features: int | None = None) -> Tensor:
        """Map ``(..., n_in)`` to ``(..., out_features)``, ``n_in <= in_features``."""
        weight, bias = self.sliced(x.shape[-1], out_features)
        return F.linear(x, weight.contiguous(), bias)

    def sliced(self, in_features: int, out_features: int | None) -> tuple[Tensor, Tensor | None]:
        """Return the leading part of weight and bias, as views."""
        bias = None if self.bias is None else self.bias[:out_features]
        return self.weight[:out_features, :in_features], bias


class EntangledConv2d(nn.Conv2d):
    """Convolution without groups or dilation that also runs any of its narrower prefixes."""

    def forward(self, x: Tensor, out_channels: int | None = None) -> Tensor:
        """Map ``(B, c_in, H, W)`` to ``(B, out_channels, H', W')``, ``c_in <= in_channels``."""
        weight, bias = self.sliced(x.shape[1], out_channels)
        return F.conv2d(x, weight.contiguous(), bias, self.stride, self.padding)

    def sliced(self, in_channels: int, out_channels: int | None) -> tuple[Tensor, Tensor | None]:
        """Return the leading part of weight and bias, as views."""
        bias = None if self.bias is None else self.bias[:out_channels]
        return self.weight[:out_channels, :in_channels], bias


class EntangledBatchNorm(_BatchNorm):
    """Batch normalisation over dimension 1 that also runs any of its narrower prefixes.

    Training updates the running statistics of the channels in use. They mix all subnets, so an extracted subnet
    is calibrated before it is scored; evaluation never looks at the batch. Where several processes have a part of the
    batch each, the moments are those of all of it.

    Shape:
        ``(B, C)`` or ``(B, C, H, W)`` to the same, ``C <= num_features``.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  # torch's own signature
        if input.dim() not in (2, 4):
            raise ValueError(f"batch normalisation takes (B, C) or (B, C, H, W), got {tuple(input.shape)}")

    def update_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics towards those of a batch, as a training step does.

        Args:
            mean: Per channel, ``(C,)``.
            variance: Per channel, biased, ``(C,)``.
            count: Values per channel.
        """
        assert self.running_mean is not None
        assert self.running_var is not None
        momentum, n = self._next_momentum(), len(mean)
        unbiased = variance * (count / max(count - 1, 1))
        self.running_mean[:n].lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var[:n].lerp_(unbiased.to(self.running_var.dtype), momentum)

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Replace the running statistics of all channels, ``(C,)`` each; the variance is unbiased."""
        assert self.running_mean is not None
        assert self.running_var is not None
        self.running_mean.copy_(mean)
        self.running_var.copy_(variance)

    def _next_momentum(self) -> float:
        """Count a batch, and return the weight of its statistics."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum  # cumulative average

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` by its batch in training and by the running statistics in evaluation."""
        self._check_input_dim(x)
        n = x.shape[1]
        assert self.running_mean is not None
        assert self.running_var is not None
        share = current_share() if self.training else None
        if share is not None:
            return self._forward_over(share, x)
        return F.batch_norm(
            x,
            self.running_mean[:n],
            self.running_var[:n],
            self.weight[:n],
            self.bias[:n],
            self.training,
            self._next_momentum() if self.training else 0.0,
            self.eps,
        )

    def _forward_over(self, share: Share, x: Tensor) -> Tensor:
        """Normalise a part of a batch by the moments of the whole batch, and count that batch."""
        n, dims = x.shape[1], [0, *range(2, x.dim())]
        shape = [1, n, *[1] * (x.dim() - 2)]
        wide = x if x.dtype == torch.float64 else x.float()
        mean = share.add_up(wide.mean(dims, dtype=torch.float64) * share.weight)
        centred = wide - mean.to(wide.dtype).view(shape)
        variance = share.add_up(centred.square().mean(dims, dtype=torch.float64) * share.weight)
        with torch.no_grad():
            self.update_statistics(mean, variance, share.of_batch(x.numel() // n))
        scale = (self.weight[:n] / (variance + self.eps).sqrt()).to(wide.dtype)
        return (centred * scale.view(shape) + self.bias[:n].view(shape)).to(x.dtype)
