"""What counting operations adds to a scoring pass: the same pass with and without it, interleaved, medians.

python benchmarks/counting.py [--space grey28] [--images 256] [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time

import torch

from evaluators import counting
from spaces import load_space
from supernet.spikformer import build_supernet


def main() -> None:
    """Print the median times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="grey28", help="space whose largest network is run")
    parser.add_argument("--images", type=int, default=256, help="images per pass")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = load_space(arguments.space)
    network = build_supernet(space, 0)
    size = space.skeleton.image_size
    images = torch.randn(arguments.images, space.skeleton.in_channels, size, size)
    with torch.no_grad():
        network.train()(images)  # statistics of these images, so that neurons fire as in use
        network.eval()
        plain, counted = [], []
        for _ in range(arguments.rounds):
            began = time.perf_counter()
            network(images)
            plain.append(time.perf_counter() - began)
            began = time.perf_counter()
            with counting(network) as counts:
                network(images)
            counted.append(time.perf_counter() - began)
    a, b = statistics.median(plain), statistics.median(counted)
    print(f"machine: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"{arguments.space}, largest network, {arguments.images} images, {arguments.rounds} rounds, one thread")
    print(f"spikes per image: {counts.spikes_per_image:,.0f}")
    print(f"plain {a * 1e3:.1f} ms, counted {b * 1e3:.1f} ms, ratio {b / a:.3f}")


if __name__ == "__main__":
    main()
