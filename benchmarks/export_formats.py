"""How well networks agree with themselves in other formats: the images on which a logit differs, and by how much.

Of each space the smallest, the largest and random networks, cut out of a random supernet, their normalisations fitted
to noise with gains under which all neurons spike: such networks are chaotic, so this is the worst there is. Of a run
the networks of its front, on its test images. The last columns are the network beside itself in double precision.

python benchmarks/export_formats.py [--networks 22] [--images 16] [--run runs/digits] [digits grey28 auto-spikformer]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import save, start
from torch import Tensor

from nas.agreement import compare_logits, in_double_precision
from nas.onnx_graph import onnx_bytes, run_onnx
from nas.run import Run
from spaces import InputError, load_space
from supernet.calibrate import calibrate
from supernet.convert import run_public, to_public
from supernet.extract import extract
from supernet.layers import EntangledBatchNorm
from supernet.spikformer import Spikformer, build_supernet

COPIES: dict[str, tuple[float, Callable[[Spikformer, Tensor], Tensor]]] = {
    "public-spikformer": (1e-5, lambda network, images: run_public(to_public(network), images)),
    "onnx": (1e-4, lambda network, images: run_onnx(onnx_bytes(network, {}), images)),
    "double precision": (1e-4, in_double_precision),
}
"""Tolerance of a logit, and who computes."""


def random_networks(name: str, count: int) -> Iterator[Spikformer]:
    """Yield networks of a space."""
    space, rng, generator = load_space(name), np.random.default_rng(0), torch.Generator().manual_seed(1)
    supernet = build_supernet(space, 0).eval()
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, EntangledBatchNorm):
                module.weight.uniform_(1.0, 3.0, generator=generator)
                module.bias.uniform_(-0.5, 2.0, generator=generator)
    for architecture in [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(count - 2))]:
        yield calibrate(extract(supernet, architecture), [noise(supernet, 8, 2)])


def noise(network: Spikformer, count: int, seed: int) -> Tensor:
    """Return random images."""
    shape = (count, network.skeleton.in_channels, network.skeleton.image_size, network.skeleton.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def measure(pairs: Iterator[tuple[Spikformer, Tensor]]) -> dict[str, Any]:
    """Return what differs, over all networks and images."""
    rows: dict[str, Any] = {}
    for network, images in pairs:
        with torch.no_grad():
            ours = network(images)
        for name, (tolerance, compute) in COPIES.items():
            try:
                with torch.no_grad():
                    found, _ = compare_logits(ours, compute(network, images), tolerance)
            except InputError:
                continue
            row = rows.setdefault(name, {"networks": 0, "images": 0, "differing": 0, "answers": 0, "largest": 0.0})
            for column in ("images", "differing", "answers"):
                row[column] += getattr(found, column)
            row["networks"] += 1
            row["largest"] = max(row["largest"], found.largest)
    return rows


def of_run(folder: Path) -> Iterator[tuple[Spikformer, Tensor]]:
    """Yield the networks of a front, with the test images."""
    run = Run(folder)
    for key in run.front()["key"]:
        network = run.load(key)
        assert network.normalise is not None
        yield network, network.normalise(run.data.test.images)


def main() -> None:
    """Print the counts, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spaces", nargs="*", help="spaces whose random networks are compared")
    parser.add_argument("--run", type=Path, action="append", default=[], help="run whose front is compared")
    parser.add_argument("--networks", type=int, default=22, help="networks of each space")
    parser.add_argument("--images", type=int, default=16, help="images for each")
    arguments = parser.parse_args()
    start(1)
    results: dict[str, Any] = {}
    for name in arguments.spaces:
        networks = random_networks(name, arguments.networks)
        results[name] = measure((network, noise(network, arguments.images, 3)) for network in networks)
    for folder in arguments.run:
        results[f"front of {folder.name}"] = measure(of_run(folder))
    for name, rows in results.items():
        for copy, row in rows.items():
            print(
                f"{name}: {copy}: {row['differing']} of {row['images']} images differ, {row['answers']} answers, "
                f"at most by {row['largest']:.3g} ({row['networks']} networks)"
            )
    save("export_formats", results)


if __name__ == "__main__":
    main()
