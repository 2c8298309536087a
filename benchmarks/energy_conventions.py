"""The same Spikformer under every energy model, beside the dense and the quantised network of its shape.

Randomly initialised, BatchNorm calibrated on the images that are counted; the figures are those of docs/energy.md.

    python benchmarks/energy_conventions.py [--depth 4] [--width 384] [--timesteps 4] [--images 8] [--reuse 8]
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from measure import save, start

from evaluators import OperationCounts, compare, energy_model_names, load_energy_model
from spaces import Architecture, Layer, Skeleton
from supernet.engine import Engine
from supernet.spikformer import Spikformer


def main() -> None:
    """Print the table, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--images", type=int, default=8, help="random images of 32x32 pixels")
    parser.add_argument("--reuse", type=float, default=8, help="dense_reuse of the last line")
    arguments = parser.parse_args()
    start(1)
    counts = count(arguments.depth, arguments.width, arguments.timesteps, arguments.images)
    models = [load_energy_model(name) for name in energy_model_names()]
    memory = load_energy_model("memory")
    assert memory.memory is not None
    reused = replace(memory.memory, dense_reuse=arguments.reuse)
    models.append(replace(memory, name=f"memory, reuse {arguments.reuse:g}", memory=reused))
    print(
        f"dense {counts.macs_per_image / 1e6:.1f} M multiply-accumulates; accumulates by value "
        f"{counts.accumulates_per_image / 1e6:.1f} M, of non-zero inputs {counts.nonzero_per_image / 1e6:.1f} M; "
        f"firing rate {counts.rate:.4f}"
    )
    print(f"{'model':<16}{'mJ':>9}{'dense':>9}{'quantised':>11}{'ratio':>8}{'break-even rate':>17}")
    rows = {}
    for model in models:
        result = compare(counts, model)
        rate = result.break_even_rate
        rows[model.name] = {
            "mj": result.spiking_mj,
            "dense": result.dense_mj,
            "quantised": result.quantised_mj,
            "break-even rate": rate,
        }
        print(
            f"{model.name:<16}{result.spiking_mj:>9.3f}{result.dense_mj:>9.3f}{result.quantised_mj:>11.3f}"
            f"{result.qnn_ratio:>8.3f}{'undefined' if rate is None else f'{rate:.4f}':>17}"
        )
    shape = f"{arguments.depth}-{arguments.width}-T{arguments.timesteps}"
    save(f"energy_conventions-{shape}", {**vars(arguments), "rate": counts.rate, "models": rows})


def count(depth: int, width: int, timesteps: int, images: int) -> OperationCounts:
    """Return the counts of a random network on random images."""
    torch.manual_seed(0)
    layers = tuple(Layer(4.0, 12, 1.0, 2.0) for _ in range(depth))
    architecture = Architecture(width, timesteps, layers)
    network = Spikformer(Skeleton(32, 3, 10), architecture).eval()
    batch = torch.randn(images, 3, 32, 32)
    (result,) = Engine(network).score([architecture], [batch], [batch])
    return OperationCounts(result.layers, result.neurons, result.images)


if __name__ == "__main__":
    main()
