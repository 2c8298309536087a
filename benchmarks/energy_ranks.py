"""Does the choice of an energy model change which architectures win? Kendall's tau between models, and the fronts.

Architectures are those that the run evaluated, the front first, filled up with random ones of its space. Each is
scored once on the validation images with the run's supernet; its energy under every model follows from the same
counts.

    python benchmarks/energy_ranks.py RUN [--architectures 200] [--calibration 256] [--validation 288]
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from measure import save, start
from scipy.stats import kendalltau

import nas
from evaluators import Sense, compare, energy_mj, energy_model_names, load_energy_model
from nas.results import non_dominated
from nas.scoring import Scorer, build_job
from spaces import Architecture


def main() -> None:
    """Print the table of taus and the fronts, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder with a trained supernet")
    parser.add_argument("--architectures", type=int, default=200)
    parser.add_argument("--calibration", type=int, default=256, help="training images for BatchNorm")
    parser.add_argument("--validation", type=int, default=288, help="scored images")
    arguments = parser.parse_args()
    start(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = nas.Run(arguments.run)
        job = build_job(run.config, run.data, run.supernet())
    splits = {"validation": job.splits["validation"].head(arguments.validation)}
    job = replace(job, calibration=job.calibration.head(arguments.calibration), splits=splits)
    architectures = chosen(run, arguments.architectures)
    outcomes = Scorer(job).outcomes(architectures)
    accuracy = np.array([outcome.correct / outcome.images for outcome in outcomes])
    models = [load_energy_model(name) for name in energy_model_names()]
    energies = {m.name: np.array([energy_mj(o.operations, m) for o in outcomes]) for m in models}
    names = list(energies)
    taus = {f"{a} {b}": float(kendalltau(energies[a], energies[b]).statistic) for a, b in combinations(names, 2)}
    senses: dict[str, Sense] = {"accuracy": "max", "energy": "min"}
    fronts = {
        name: set(np.flatnonzero(non_dominated(np.column_stack([accuracy, values]), senses)))
        for name, values in energies.items()
    }
    print(f"{len(architectures)} architectures, {len(job.splits['validation'])} images; Kendall's tau")
    print(" " * 14 + "".join(f"{name:>14}" for name in names))
    for a in names:
        row = [1.0 if a == b else taus.get(f"{a} {b}", taus.get(f"{b} {a}", 1.0)) for b in names]
        print(f"{a:<14}" + "".join(f"{tau:>14.3f}" for tau in row))
    default, summary = fronts[names[0]], {}
    for model in models:
        ratios = [compare(o.operations, model).qnn_ratio for o in outcomes]
        front = fronts[model.name]
        summary[model.name] = {
            "front": len(front),
            f"shared with {names[0]}": len(front & default),
            "median qnn_ratio": float(np.median(ratios)),
            "cheaper than quantised": float(np.mean(np.array(ratios) < 1)),
        }
        print(
            f"{model.name}: front of {len(front)}, {len(front & default)} of them on the front of {names[0]} "
            f"({len(default)}); {np.mean(np.array(ratios) < 1):.0%} cheaper than the quantised network, "
            f"median ratio {np.median(ratios):.3f}"
        )
    counts = {"architectures": len(architectures), "images": arguments.validation}
    save("energy_ranks", {**counts, "kendall tau": taus, "models": summary})


def chosen(run: nas.Run, count: int) -> list[Architecture]:
    """Return distinct architectures: the run's evaluations, its front first, then random ones of its space."""
    frame = run.evaluations()
    frame = frame[frame["state"] == "complete"].sort_values("is_pareto", ascending=False, kind="stable")
    found = [run.architecture(key) for key in frame["key"].head(count)]
    rng = np.random.default_rng(0)
    while len(found) < count:
        drawn = run.space.sample(rng)
        if drawn not in found:
            found.append(drawn)
    return found


if __name__ == "__main__":
    main()
