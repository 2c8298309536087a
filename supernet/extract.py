"""Cut a stand-alone subnet out of a supernet."""

from __future__ import annotations

import torch

from spaces import Architecture
from supernet.spikformer import Spikformer


def extract(supernet: Spikformer, architecture: Architecture) -> Spikformer:
    """Return an independent copy of one subnet, in evaluation mode, with inherited weights.

    Every parameter and buffer of the copy is the leading part of the supernet's tensor of the same name, so its
    output equals the supernet's slice bit for bit. Its BatchNorm statistics still are the supernet's: see
    :func:`supernet.calibrate.calibrate`.

    Raises:
        InputError: If the architecture does not fit into the supernet.
    """
    supernet.check_fit(architecture)
    with torch.device("meta"):  # no time is spent on initial weights that are replaced at once
        subnet = Spikformer(supernet.skeleton, architecture, supernet.executor)
    source = supernet.state_dict()
    sliced = {
        name: source[name][tuple(slice(size) for size in tensor.shape)].clone()
        for name, tensor in subnet.state_dict().items()
    }
    subnet.load_state_dict(sliced, assign=True)
    return subnet.eval()
