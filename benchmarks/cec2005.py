"""Does control of diversity help? QPSO with and without it, and pymoo's PSO, on the CEC 2005 functions.

Every algorithm has the same population, evaluations and first populations; errors below 1e-8 count as 0, as is
custom. Ranks are those of the median errors on each function, averaged over functions. Friedman's test and Wilcoxon's
signed-rank tests, corrected after Holm, take functions as the blocks; on each function Mann-Whitney's test, corrected
after Holm over functions, compares the runs of a pair.

    python benchmarks/cec2005.py [--runs 25] [--evaluations 40000] [--functions 1-12] [--jobs 1] [--seed 0]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from typing import Any

import numpy as np
from cec2005_functions import NAMES, CecProblem, Floats, build_function, load_data
from measure import save
from numpy.typing import NDArray
from pymoo.algorithms.soo.nonconvex.pso import PSO
from pymoo.config import Config
from pymoo.core.algorithm import Algorithm
from pymoo.optimize import minimize
from scipy.stats import friedmanchisquare, rankdata, wilcoxon

from nas.qpso import QPSO
from nas.statistics import holm, rank_test

Config.warnings["not_compiled"] = False

N_VAR, POPULATION, SOLVED = 30, 40, 1e-8

ALGORITHMS: dict[str, Callable[[Floats], Algorithm]] = {
    "qpso": lambda start: QPSO(sampling=start),
    "qpso explode": lambda start: QPSO(sampling=start, control="explode"),
    "qpso perturb": lambda start: QPSO(sampling=start, control="perturb"),
    "weighted": lambda start: QPSO(sampling=start, mean_best="weighted"),
    "weighted explode": lambda start: QPSO(sampling=start, mean_best="weighted", control="explode"),
    "weighted perturb": lambda start: QPSO(sampling=start, mean_best="weighted", control="perturb"),
    "pso": lambda start: PSO(pop_size=len(start), sampling=start),
}
"""Algorithms by name, each built around the first population."""

Task = tuple[str, int, int, int]
"""Algorithm, function, seed, evaluations."""


def solve(task: Task) -> float:
    """Return the error of one run, not below 0."""
    name, number, seed, evaluations = task
    function = build_function(number, N_VAR, load_data(), np.random.default_rng([seed, 4]))
    lower, upper = function.start
    start = lower + np.random.default_rng([seed, 0]).random((POPULATION, N_VAR)) * (upper - lower)
    result = minimize(CecProblem(function), ALGORITHMS[name](start), ("n_eval", evaluations), seed=seed)
    return max(float(result.F.item()), 0.0)


def run_all(tasks: Sequence[Task], jobs: int) -> Iterator[float]:
    """Yield the errors of all runs in their order."""
    if jobs == 1:
        yield from map(solve, tasks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(solve, tasks, chunksize=4)


def signed_rank(a: Floats, b: Floats) -> float:
    """Return the p-value of Wilcoxon's signed-rank test; 1 where nothing differs."""
    return 1.0 if np.array_equal(a, b) else float(wilcoxon(a, b, zero_method="zsplit").pvalue)


def wins(errors: Mapping[str, Floats], a: str, b: str) -> dict[str, int]:
    """Return on how many functions one algorithm is better than, worse than or like another over its runs."""
    rows = list(zip(errors[a], errors[b], strict=True))
    p = holm([rank_test(x, y) for x, y in rows])
    sides = [
        0 if value >= 0.05 else np.sign(np.median(y) - np.median(x)) for value, (x, y) in zip(p, rows, strict=True)
    ]
    return {"better": sides.count(1), "worse": sides.count(-1), "alike": sides.count(0)}


def compare(errors: Mapping[str, Floats]) -> dict[str, Any]:
    """Return mean ranks and tests.

    Args:
        errors: Errors ``(functions, runs)`` by algorithm.
    """
    names = list(errors)
    solved = {name: np.where(values < SOLVED, 0.0, values) for name, values in errors.items()}
    medians = np.array([np.median(solved[name], axis=1) for name in names])  # (algorithms, functions)
    means = np.array([solved[name].mean(axis=1) for name in names])
    ranks = rankdata(medians, axis=0)
    pairs = list(combinations(range(len(names)), 2))
    p = holm([signed_rank(ranks[i], ranks[j]) for i, j in pairs])
    friedman = friedmanchisquare(*medians)
    return {
        "mean rank of medians": by_name(names, ranks.mean(axis=1)),
        "mean rank of means": by_name(names, rankdata(means, axis=0).mean(axis=1)),
        "mean rank of runs": by_name(names, mean_run_ranks(solved)),
        "friedman": {"statistic": float(friedman.statistic), "p": float(friedman.pvalue)},
        "pairs": {
            f"{names[i]} / {names[j]}": {"wilcoxon p, Holm": float(value), **wins(solved, names[i], names[j])}
            for value, (i, j) in zip(p, pairs, strict=True)
        },
    }


def mean_run_ranks(errors: Mapping[str, Floats]) -> Floats:
    """Return the mean rank of all runs of each algorithm among all runs on a function, as a place from 1."""
    stacked = np.array(list(errors.values()))  # (algorithms, functions, runs)
    flat = stacked.transpose(1, 0, 2).reshape(stacked.shape[1], -1)
    ranks = rankdata(flat, axis=1).reshape(stacked.shape[1], stacked.shape[0], -1)
    mean: Floats = (ranks.mean(axis=(0, 2)) - 0.5) / stacked.shape[2] + 0.5
    return mean


def by_name(names: Sequence[str], values: NDArray[Any]) -> dict[str, float]:
    """Return rounded values by name."""
    return {name: round(float(value), 3) for name, value in zip(names, values, strict=True)}


def table(functions: Sequence[int], errors: Mapping[str, Floats], comparison: Mapping[str, Any]) -> str:
    """Return the median errors and mean ranks as a Markdown table."""
    lines = ["| | " + " | ".join(errors) + " |", "|---|" + "---|" * len(errors)]
    for row, number in enumerate(functions):
        medians = [float(np.median(np.where(v[row] < SOLVED, 0.0, v[row]))) for v in errors.values()]
        best = min(medians)
        cells = [f"**{m:.3g}**" if m == best else f"{m:.3g}" for m in medians]
        lines.append(f"| F{number} {NAMES[number - 1]} | " + " | ".join(cells) + " |")
    for key in ("mean rank of medians", "mean rank of means", "mean rank of runs"):
        lines.append(f"| {key} | " + " | ".join(f"{value:.2f}" for value in comparison[key].values()) + " |")
    return "\n".join(lines)


def numbers(text: str) -> list[int]:
    """Return the functions that ``1-3,7`` stands for."""
    ends = [part.partition("-") for part in text.split(",")]
    return [number for first, _, last in ends for number in range(int(first), int(last or first) + 1)]


def main() -> None:
    """Run everything, print the table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--evaluations", type=int, default=40_000)
    parser.add_argument("--functions", type=numbers, default=numbers("1-12"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the others count on")
    arguments = parser.parse_args()
    began, errors = (
        time.perf_counter(),
        {name: np.empty((len(arguments.functions), arguments.runs)) for name in ALGORITHMS},
    )
    places = [(n, f, r) for f in range(len(arguments.functions)) for r in range(arguments.runs) for n in ALGORITHMS]
    tasks = [(n, arguments.functions[f], arguments.seed + r, arguments.evaluations) for n, f, r in places]
    for (name, row, run), error in zip(places, run_all(tasks, arguments.jobs), strict=True):
        errors[name][row, run] = error
        if run == arguments.runs - 1 and name == list(ALGORITHMS)[-1]:
            print(f"F{arguments.functions[row]} after {time.perf_counter() - began:.0f} s", flush=True)
    comparison = compare(errors)
    shown = table(arguments.functions, errors, comparison)
    print(shown)
    save(
        "cec2005",
        {
            "command": "python " + " ".join(sys.argv),
            "pymoo": importlib.metadata.version("pymoo"),
            "seconds": round(time.perf_counter() - began),
            "dimensions": N_VAR,
            "population": POPULATION,
            "evaluations": arguments.evaluations,
            "seeds": [arguments.seed, arguments.seed + arguments.runs - 1],
            "functions": arguments.functions,
            "comparison": comparison,
            "median": {name: np.median(v, axis=1).tolist() for name, v in errors.items()},
            "mean": {name: v.mean(axis=1).tolist() for name, v in errors.items()},
            "deviation": {name: v.std(axis=1, ddof=1).tolist() for name, v in errors.items()},
            "errors": {name: [[float(f"{e:.6g}") for e in row] for row in v] for name, v in errors.items()},
            "table": shown.splitlines(),
        },
    )


if __name__ == "__main__":
    main()
