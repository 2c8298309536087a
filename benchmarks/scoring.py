"""Scoring a generation of subnets against one-by-one scoring with SpikingJelly 2.0 neurons, recalibration included.

The generation is what NSGA-II proposes after ten generations on the run's supernet. Both sides score each distinct
subnet once, on the same images and with the same threads; the one-by-one side takes turns with the engine.

    pip install --no-deps "spikingjelly>=2.0" && pip install loguru h5py
    python benchmarks/scoring.py RUN [--subnets 64] [--calibration 64] [--validation 128]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from measure import save, start
from public_spikformer import PublicSpikformer
from scipy.stats import kendalltau
from torch import Tensor, nn

import nas
from nas.algorithms import build_algorithm
from nas.problem import ArchitectureProblem
from spaces import Architecture, SearchSpace
from supernet.data import Normalise
from supernet.engine import PRECISIONS, Engine
from supernet.extract import extract
from supernet.spikformer import Spikformer


def main() -> None:
    """Print ratios and agreements, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder with a trained supernet")
    parser.add_argument("--subnets", type=int, default=64, help="distinct subnets of the generation")
    parser.add_argument("--calibration", type=int, default=64, help="calibration images, one batch")
    parser.add_argument("--validation", type=int, default=128, help="scored images")
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides")
    parser.add_argument("--generation", type=Path, help="JSON file of the generation: read if it is there, else made")
    arguments = parser.parse_args()
    start(arguments.threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = nas.Run(arguments.run)
        data, supernet = run.data, run.supernet()
    normalise = Normalise(*data.moments)
    calibration = [x for x, _ in normalise.batches(data.train.head(arguments.calibration), arguments.calibration)]
    images, labels = next(normalise.batches(data.validation.head(arguments.validation), arguments.validation))
    subnets = _generation(arguments.generation, supernet, run.space, calibration, (images, labels), arguments.subnets)
    stems = len({(a.embed_dim, a.timesteps, a.layers[0].v_threshold, a.layers[0].tau) for a in subnets})
    print(f"{len(subnets)} subnets, {stems} stems, {len(images)} images scored, {arguments.calibration} to calibrate")

    engines = {name: Engine(supernet, name) for name in PRECISIONS}
    for engine in engines.values():  # kernels and packed weights are there before the measurement, as in a search
        engine.score(subnets[:1], calibration, [images[:1]])
    seconds: dict[str, list[_Clock]] = {name: [] for name in engines}
    accuracies: dict[str, list[float]] = {}
    theirs: list[float] = []
    one_by_one = _Clock()
    quarter = -(-len(subnets) // 4)
    for turn in range(4):
        for name, engine in engines.items():
            if name != "exact" and turn > 1:
                continue  # fewer turns for what is reported only
            with _Clock() as clock:
                results = engine.score(subnets, calibration, [images])
            seconds[name].append(clock)
            accuracies[name] = [(r.logits.argmax(1) == labels).double().mean().item() for r in results]
        for architecture in subnets[turn * quarter : (turn + 1) * quarter]:
            with one_by_one:
                theirs.append(_score_alone(supernet, architecture, calibration, images, labels))
        print(f"turn {turn + 1} of 4: {one_by_one} one by one, {seconds['exact'][-1]} together", flush=True)
    rows: dict[str, dict[str, float]] = {}
    for name in engines:
        wall, cpu = (statistics.median(getattr(clock, kind) for clock in seconds[name]) for kind in ("wall", "cpu"))
        rows[name] = {
            "wall seconds": wall,
            "cpu seconds": cpu,
            "wall ratio": one_by_one.wall / wall,
            "cpu ratio": one_by_one.cpu / cpu,
            "kendall tau": float(kendalltau(accuracies[name], theirs).statistic),
            "largest accuracy error": max(abs(a - b) for a, b in zip(accuracies[name], theirs, strict=True)),
        }
        print(f"{name}: {', '.join(f'{key} {value:.4g}' for key, value in rows[name].items())}")
    save(
        "scoring",
        {
            "subnets": len(subnets),
            "stems": stems,
            "calibration": arguments.calibration,
            "validation": len(images),
            "threads": arguments.threads,
            "one by one": {"wall seconds": one_by_one.wall, "cpu seconds": one_by_one.cpu},
            **rows,
        },
    )


class _Clock:
    """Adds up wall and CPU time of its blocks; on a machine that others use, CPU time is the steadier of the two."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> _Clock:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]

    def __str__(self) -> str:
        return f"{self.wall:.0f} s ({self.cpu:.0f} s of CPU)"


def _score_alone(
    supernet: Spikformer, architecture: Architecture, calibration: list[Tensor], images: Tensor, labels: Tensor
) -> float:
    """Return the accuracy of one subnet, built from SpikingJelly's neurons, as a user would score it."""
    public = PublicSpikformer(supernet.skeleton, architecture).take_weights(extract(supernet, architecture))
    norms = [module for module in public.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        public.train()
        for batch in calibration:
            public(batch)
        public.eval()
        logits = torch.cat([public(part) for part in images.split(32)])
    return (logits.argmax(1) == labels).double().mean().item()


def _generation(
    path: Path | None,
    supernet: Spikformer,
    space: SearchSpace,
    calibration: list[Tensor],
    scored: tuple[Tensor, Tensor],
    count: int,
) -> list[Architecture]:
    """Return the subnets that NSGA-II proposes after ten generations of as many, on a few images."""
    if path is not None and path.exists():
        return [Architecture.from_dict(values) for values in json.loads(path.read_text())][:count]
    problem = ArchitectureProblem(space, {"accuracy": "max", "energy": "min"})
    algorithm = build_algorithm("nsga2", problem, count, 0)
    engine = Engine(supernet)
    few, images, labels = [batch[:8] for batch in calibration], scored[0][:24], scored[1][:24]
    for generation in range(10):
        population = algorithm.ask()
        architectures = [space.decode(x) for x in population.get("X")]
        results = engine.score(architectures, few, [images])
        metrics = [
            {
                "accuracy": (r.logits.argmax(1) == labels).double().mean().item(),
                "energy": float(np.sum([row.accumulates for row in r.layers.values()])),
            }
            for r in results
        ]
        algorithm.tell(infills=problem.fill(population, metrics))
        print(f"generation {generation + 1}: best accuracy {max(m['accuracy'] for m in metrics):.3f}", flush=True)
    proposed = [space.decode(x) for x in algorithm.ask().get("X")]
    if path is not None:
        path.write_text(json.dumps([architecture.to_dict() for architecture in proposed], indent=1) + "\n")
    return proposed


if __name__ == "__main__":
    main()
