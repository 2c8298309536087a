"""What counting operations adds to a scoring pass: the same pass with and without it, interleaved, medians.

Both paths are measured: the fast engine, which scores a search, and hooks on the layers of one network. Images are
random, and so are weights; BatchNorm is calibrated, so that neurons fire as in use.

python benchmarks/counting.py [--space grey28] [--images 256] [--rounds 15]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from measure import machine, save, start
from torch import Tensor

from evaluators import counting
from spaces import load_space
from supernet.calibrate import calibrate
from supernet.engine import Engine
from supernet.engine.stages import Runner
from supernet.spikformer import build_supernet


class Uncounted(Runner):
    """Runs stages and counts nothing."""

    def run(self, stage: Any, x: Tensor, norm: Any, events: Any) -> Tensor:
        """Return what a stage makes of its input."""
        del events
        return super().run(stage, x, norm, None)


def paired(plain: Callable[[], Any], counted: Callable[[], Any], rounds: int) -> tuple[float, float, float]:
    """Return the median seconds of both, and the median of the ratios of neighbouring runs."""
    seconds: list[tuple[float, float]] = []
    for number in range(-1, rounds):
        times = {}
        for call in (plain, counted) if number % 2 else (counted, plain):
            began = time.perf_counter()
            call()
            times[call] = time.perf_counter() - began
        if number >= 0:
            seconds.append((times[plain], times[counted]))
    a, b = (statistics.median(column) for column in zip(*seconds, strict=True))
    return a, b, statistics.median(with_it / without for without, with_it in seconds)


def main() -> None:
    """Print the median times and their ratio, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="grey28", help="space whose largest network is run")
    parser.add_argument("--images", type=int, default=256, help="images per pass")
    parser.add_argument("--calibration", type=int, default=32, help="images that an engine calibrates with each time")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds")
    arguments = parser.parse_args()
    start(1)
    torch.manual_seed(0)
    space = load_space(arguments.space)
    network, largest = build_supernet(space, 0).eval(), space.largest()
    size = space.skeleton.image_size
    images = torch.randn(arguments.images, space.skeleton.in_channels, size, size)
    few = [images[: arguments.calibration]]
    calibrate(network, [images])

    engine, without = Engine(network), Engine(network)
    without._runner.__class__ = Uncounted
    results: dict[str, Any] = {}
    for name, plain, counted in (
        ("engine", lambda: without.score([largest], few, [images]), lambda: engine.score([largest], few, [images])),
        ("hooks", lambda: _plain(network, images), lambda: _counted(network, images)),
    ):
        a, b, ratio = paired(plain, counted, arguments.rounds)
        results[name] = {"plain": a, "counted": b, "ratio": ratio}
        print(f"{name}: plain {a * 1e3:.1f} ms, counted {b * 1e3:.1f} ms, median of the ratios {ratio:.3f}")
    (result,) = engine.score([largest], few, [images])
    print(f"{arguments.space}, largest network, {arguments.images} images, {arguments.rounds} rounds, one thread")
    print(f"spikes per image: {result.spikes / result.images:,.0f}; machine: {machine()['processor']}")
    save(f"counting-{arguments.space}", {**vars(arguments), **results})


@torch.no_grad()
def _plain(network: Any, images: Tensor) -> None:
    network(images)


@torch.no_grad()
def _counted(network: Any, images: Tensor) -> None:
    with counting(network):
        network(images)


if __name__ == "__main__":
    main()
