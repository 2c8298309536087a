"""Fronts for the budget: the algorithms of Spikefront beside random search, pymoo as it comes, and DyNAS-T.

    python benchmarks/search_quality.py --jobs 8                # everything
    python benchmarks/search_quality.py --problems spikenas --algorithms random,nsga2@1,nsga2@20 --seeds 5

Problems are those of ``search/problems.py``, read below ``SPIKEFRONT_DATA``; with ``-corrupted`` behind its name, a
tenth of a problem's evaluations are 5 to 30 points worse than they should be. Each figure is a share: of the
hypervolume of the whole table, or, for ``ofa``, of the box between ideal and reference.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import kept, save
from search.baselines import BASELINES
from search.problems import PROBLEMS, Arena, corrupted

from nas.algorithms import ALGORITHMS as SPIKEFRONT
from nas.algorithms import EXPAND, build_algorithm, parse_algorithm
from nas.comparing import search_seeds
from nas.comparison import Comparison, Level
from nas.contest import Builder, Task, run_tasks
from nas.statistics import effect_size, median_to_reach, quartiles, rank_test

CHECKPOINTS = (150, 300, 600, 1000)
"""Evaluations after which shares are reported."""

BASE = "nsga2@1"
"""What the others are tested against."""

EXPANSIONS = tuple(f"nsga2@{factor}" for factor in (1, 2, 8, 20))

OTHERS = tuple(
    f"{name}@{factor}"
    for name, row in SPIKEFRONT.items()
    if not row.scalar and name not in ("age-moea2", "nsga2", "random")
    for factor in (1, 20)
)

ALGORITHMS = ("random", *EXPANSIONS, *OTHERS, *BASELINES)

CORRUPTED = "-corrupted"

SEEDS = {"spikenas": 20}
"""Searches per algorithm where it is not 10."""

LEVELS = (("random", 1000), (BASE, 600))
"""Algorithms and evaluations whose median share the others are to reach."""


def main() -> None:
    """Measure what the options pick, merge it into the results, and print tables."""
    options = _options()
    folder = Path(options.data)
    for name in options.problems:
        began = time.perf_counter()
        base = name.removesuffix(CORRUPTED)
        arena = PROBLEMS[base](folder)
        default = ("random", BASE, "nsga2@20") if name.endswith(CORRUPTED) else ALGORITHMS
        algorithms = options.algorithms or default
        seeds = options.seeds or SEEDS.get(name, 10)
        comparison = run(arena, name.endswith(CORRUPTED), algorithms, seeds, options)
        rows = measure(comparison)
        print(markdown(name, rows, seeds), flush=True)
        keep(name, rows, comparison, seeds, options, time.perf_counter() - began)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = [*PROBLEMS, *(f"{name}{CORRUPTED}" for name in PROBLEMS)]

    def listed(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--problems", type=listed, default=every, help=f"some of {','.join(every)}; all by default")
    parser.add_argument("--algorithms", type=listed, help=f"names, or {','.join(BASELINES)}")
    parser.add_argument("--seeds", type=int, help="searches per algorithm; 10, or 20 on spikenas, by default")
    parser.add_argument("--seed", type=int, default=0, help="what all seeds follow from, 0 by default")
    parser.add_argument("--evaluations", type=int, default=1000, help="budget of each search, 1000 by default")
    parser.add_argument("--population", type=int, default=20, help="architectures of a generation, 20 by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, one per core by default")
    parser.add_argument("--data", default=os.environ.get("SPIKEFRONT_DATA"), help="folder of the tables")
    parser.add_argument("--results", default="search_quality", help="name of the file of results")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or SPIKEFRONT_DATA must name the folder of the tables")
    if unknown := sorted(set(options.problems) - set(every)):
        parser.error(f"--problems must be among {every}, got {unknown}")
    return options


def builders(names: Sequence[str]) -> dict[str, Builder]:
    """Return baselines and algorithms of Spikefront by name."""
    chosen = {name: parse_algorithm(name, EXPAND) for name in names}
    ours = {name: partial(build_algorithm, each, expand=expand) for name, (each, expand) in chosen.items()}
    return {name: BASELINES.get(name) or build for name, build in ours.items()}


def run(arena: Arena, hurt: bool, algorithms: Sequence[str], seeds: int, options: argparse.Namespace) -> Comparison:
    """Return what algorithms find on a problem, perhaps corrupted anew for each seed."""
    tasks = []
    for index, seed in enumerate(search_seeds(options.seed, seeds)):
        faced = corrupted(arena, seed) if hurt else arena
        tasks += [
            Task(faced.problem, faced.job, name, build, index, seed, options.population, options.evaluations)
            for name, build in builders(algorithms).items()
        ]
    traces = run_tasks(tasks, options.jobs, lambda _: None)
    budget = options.evaluations
    objectives = arena.problem.objectives
    level = Level(algorithms[0], budget)
    return Comparison(tuple(traces), objectives, arena.reference, arena.whole, budget, level, {})


def measure(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return the figures of each algorithm: shares, evaluations to levels, tests, and the cost of searching."""
    curves, budget = comparison.hypervolumes, comparison.evaluations
    points = [at for at in CHECKPOINTS if at <= budget] or [budget]
    levels = {
        f"{name}:{at}": float(np.median(curves[name][:, at - 1]))
        for name, at in LEVELS
        if name in curves and at <= budget
    }
    timing = comparison.timing.set_index(["algorithm", "phase"])
    rows: dict[str, dict[str, Any]] = {}
    for name, curve in curves.items():
        shares = {}
        for at in points:
            low, middle, high = quartiles(curve[:, at - 1])
            shares[at] = {"mean": float(curve[:, at - 1].mean()), "q1": low, "median": middle, "q3": high}
        reached = {}
        for level, value in levels.items():
            typical, found = median_to_reach(curve, value)
            reached[level] = {"median": None if np.isnan(typical) else typical, "seeds": found, "share": value}
        rows[name] = {
            "shares": shares,
            "to_level": reached,
            "distinct": float(np.median([len(set(trace.keys)) for trace in comparison.runs(name)])),
            "cpu_ms": {phase: float(timing.loc[(name, phase), "cpu_ms"]) for phase in ("ask", "tell", "rest")},
            "wall_ms": {phase: float(timing.loc[(name, phase), "wall_ms"]) for phase in ("ask", "tell", "rest")},
        }
        if BASE in curves:
            base = curves[BASE]
            rows[name][f"against {BASE}"] = {
                at: {"p": rank_test(curve[:, at - 1], base[:, at - 1]), "a12": _effect(curve, base, at)}
                for at in points
            }
    return rows


def _effect(curve: Any, base: Any, at: int) -> float:
    return effect_size(curve[:, at - 1], base[:, at - 1])


def markdown(problem: str, rows: Mapping[str, Mapping[str, Any]], seeds: int) -> str:
    """Return the figures of a problem as a Markdown table."""
    first = next(iter(rows.values()))
    points, levels = list(first["shares"]), list(first["to_level"])
    heads = [
        "algorithm",
        *(f"share at {at}" for at in points),
        *(f"to {name} ({first['to_level'][name]['share']:.4f})" for name in levels),
        "distinct",
        "ask + tell, CPU ms",
    ]
    lines = [
        f"\n{problem}, {seeds} seeds: mean share (quartiles); median evaluations to a level (seeds that reach it)\n"
    ]
    lines += [f"| {' | '.join(heads)} |", f"|{'|'.join(['---', *['---:'] * (len(heads) - 1)])}|"]
    for name, row in rows.items():
        cells = [name]
        for at in points:
            share = row["shares"][at]
            cells.append(f"{share['mean']:.4f} ({share['q1']:.4f}-{share['q3']:.4f})")
        for level in levels:
            reached = row["to_level"][level]
            median = "never" if reached["median"] is None else f"{reached['median']:g}"
            cells.append(f"{median} ({reached['seeds']})")
        cells += [f"{row['distinct']:g}", f"{row['cpu_ms']['ask'] + row['cpu_ms']['tell']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def keep(
    problem: str,
    rows: Mapping[str, Any],
    comparison: Comparison,
    seeds: int,
    options: argparse.Namespace,
    seconds: float,
) -> None:
    """Merge the figures of a problem into the file of results."""
    problems = kept(options.results).get("problems", {})
    entry = {
        "command": shlex.join(["python", "benchmarks/search_quality.py", *sys.argv[1:]]),
        "seeds": seeds,
        "evaluations": options.evaluations,
        "population": options.population,
        "reference": dict(comparison.reference),
        "seconds": round(seconds, 1),
        "algorithms": {**problems.get(problem, {}).get("algorithms", {}), **_rounded(rows)},
    }
    save(options.results, {"problems": {**problems, problem: entry}})


def _rounded(values: Any) -> Any:
    """Return figures with five digits behind the point, by texts as JSON has them."""
    if isinstance(values, Mapping):
        return {str(name): _rounded(value) for name, value in values.items()}
    return round(float(values), 5) if isinstance(values, float) else values


if __name__ == "__main__":
    main()
