"""Half the evaluations on a supernet: NSGA-II with the reranker after 100 beside without after 200.

    python benchmarks/rerank_digits.py                       # trains a supernet of digits, then searches
    python benchmarks/rerank_digits.py --run FOLDER          # goes on with that of a run folder

All searches choose among the subnets of one supernet, each of which is scored once. What is interrupted goes on where
it stopped. The plain figures for both after the same evaluations are written as well.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import save, start

import nas
from nas.comparison import Comparison
from nas.statistics import effect_size, rank_test

PLAIN, RERANKED = "nsga2@1", "nsga2@20"

CHECKPOINTS = (50, 100, 150, 200)
"""Evaluations after which hypervolumes are reported."""

FEW, MANY = 100, 200
"""Evaluations with the reranker, and those without it that it is held against."""


def main() -> None:
    """Search, print the hypervolumes, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/rerank-digits"), help="run folder of the supernet")
    parser.add_argument("--seeds", type=int, default=5, help="searches per algorithm")
    parser.add_argument("--jobs", type=int, default=1, help="workers that score, 1 by default")
    parser.add_argument("--data", default=os.environ.get("SPIKEFRONT_DATA"), help="folder of the data")
    options = parser.parse_args()
    start(1)
    began = time.perf_counter()
    comparison = nas.compare(
        "digits",
        [PLAIN, RERANKED],
        options.seeds,
        evaluations=MANY,
        workers=options.jobs,
        out=options.run,
        data_dir=options.data,
    )
    values = measure(comparison)
    for name, row in values["hypervolumes"].items():
        cells = [f"{at}: {each['median']:.4f} (mean {each['mean']:.4f})" for at, each in row.items()]
        print(f"{name:9s} {', '.join(cells)}")
    against = values["few against many"]
    print(f"{RERANKED} after {FEW} less {PLAIN} after {MANY}: {against['median']:+.4f}, p = {against['p']:.2f}")
    facts = {
        "command": shlex.join(["python", "benchmarks/rerank_digits.py", *sys.argv[1:]]),
        "seeds": options.seeds,
        "seconds": round(time.perf_counter() - began, 1),
    }
    save("rerank_digits", {**facts, **values})


def measure(comparison: Comparison) -> dict[str, Any]:
    """Return hypervolumes by algorithm and evaluations, and how few with the reranker compare with many without."""
    curves = comparison.hypervolumes
    rows = {
        name: {
            at: {
                "mean": round(float(curve[:, at - 1].mean()), 5),
                "median": round(float(np.median(curve[:, at - 1])), 5),
                "seeds": curve[:, at - 1].round(5).tolist(),
            }
            for at in CHECKPOINTS
        }
        for name, curve in curves.items()
    }
    few, many = curves[RERANKED][:, FEW - 1], curves[PLAIN][:, MANY - 1]
    against = {
        "median": round(float(np.median(few) - np.median(many)), 5),
        "mean": round(float(few.mean() - many.mean()), 5),
        "p": round(rank_test(few, many), 5),
        "a12": round(effect_size(few, many), 5),
    }
    return {"reference": dict(comparison.reference), "hypervolumes": rows, "few against many": against}


if __name__ == "__main__":
    main()
