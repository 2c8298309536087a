"""Validation curves of the Fashion-MNIST recipe with float32 and with bfloat16 products: does bfloat16 cost accuracy?

After each epoch five fixed subnets are calibrated and scored on validation images; the curve is their mean accuracy.

    python benchmarks/precision_curve.py --data-dir DIR [--epochs 16] [--train-images 54000] [--seed 0]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from measure import save, start

from nas.config import load_recipe
from nas.scoring import load_run_data
from spaces import SearchSpace, load_space
from supernet.data import ImageData, Normalise
from supernet.engine import Engine
from supernet.settings import PRECISIONS, TrainSettings
from supernet.spikformer import build_supernet
from supernet.train import TrainProgress, train


def main() -> None:
    """Print the curves and the largest loss of accuracy, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="folder of the images")
    parser.add_argument("--epochs", type=int, default=16, help="epochs of each training")
    parser.add_argument("--train-images", type=int, help="training images, all by default")
    parser.add_argument("--seed", type=int, default=0, help="seed of both trainings")
    arguments = parser.parse_args()
    start(1)
    config = load_recipe("fashion-mnist").changed(data={"train_images": arguments.train_images})
    data = load_run_data(config, arguments.data_dir)
    space = load_space(config.space).with_input(*data.input_shape)
    curves = {
        precision: _curve(
            data, replace(config.training, epochs=arguments.epochs, precision=precision), space, arguments.seed
        )
        for precision in PRECISIONS
    }
    lost = [a - b for a, b in zip(*curves.values(), strict=True)]
    print(f"bfloat16 loses {100 * lost[-1]:+.2f} points at the end, {100 * max(lost):+.2f} at its worst epoch")
    save(
        "precision-curve",
        {
            "epochs": arguments.epochs,
            "train images": len(data.train),
            "seed": arguments.seed,
            "mean validation accuracy by epoch": curves,
            "lost by bfloat16 by epoch": lost,
        },
    )


def _curve(data: ImageData, settings: TrainSettings, space: SearchSpace, seed: int) -> list[float]:
    model = build_supernet(space, seed)
    normalise = Normalise(*data.moments)
    rng = np.random.default_rng(seed)
    subnets = [space.largest(), *(space.sample_genes(rng) for _ in range(4))]
    calibration = [x for x, _ in normalise.batches(data.train.head(512), 256)]
    validation = data.validation.head(3000)
    curve: list[float] = []

    def report(progress: TrainProgress) -> None:
        if progress.epoch < len(curve) + 1 - 1e-6:
            return
        scored = (x for x, _ in normalise.batches(validation, 256))
        results = Engine(model).score(subnets, calibration, scored)
        curve.append(float(np.mean([np.mean(r.logits.argmax(1).numpy() == validation.labels) for r in results])))
        print(f"{settings.precision} epoch {len(curve)}: validation accuracy {curve[-1]:.4f}", flush=True)

    train(model, data, settings, seed, space, report=report)
    return curve


if __name__ == "__main__":
    main()
