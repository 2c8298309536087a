"""BatchNorm statistics for one subnet: those of a supernet are a mixture that fits none of its subnets."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from supernet.layers import EntangledBatchNorm
from supernet.spikformer import Spikformer


@torch.no_grad()
def calibrate(subnet: Spikformer, batches: Iterable[Tensor]) -> Spikformer:
    """Recompute a subnet's BatchNorm statistics as the average over batches, and return the subnet.

    Args:
        subnet: A copy of its own (see :func:`supernet.extract.extract`); its statistics are replaced.
        batches: Normalised *training* images, each ``(B, C, H, W)`` with B of 2 or more.

    Raises:
        ValueError: If there are no batches, which would leave the statistics empty.
    """
    norms = [module for module in subnet.modules() if isinstance(module, EntangledBatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    subnet.train()
    seen = 0
    try:
        for images in batches:
            subnet(images)
            seen += 1
    finally:
        subnet.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    if not seen:
        raise ValueError("calibration needs at least one batch of training images, got none")
    return subnet
