"""How near do swarms come to known fronts? MOQPSO, with and without control, pymoo's NSGA-II and its two swarms.

Hypervolume at reference (1.1, 1.1) as a share of that of the true front, after equal evaluations with equal
populations, on the ZDT problems in ten variables.

    python benchmarks/zdt.py [--runs 11] [--evaluations 4000] [--population 20] [--seed 100]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Callable

import moocore
import numpy as np
from measure import save
from pymoo.algorithms.moo.cmopso import CMOPSO
from pymoo.algorithms.moo.mopso_cd import MOPSO_CD
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.config import Config
from pymoo.core.algorithm import Algorithm
from pymoo.optimize import minimize
from pymoo.problems import get_problem

from nas.moqpso import MOQPSO

Config.warnings["not_compiled"] = False

ALGORITHMS: dict[str, Callable[[int], Algorithm]] = {
    "mo-qpso": MOQPSO,
    "mo-qpso explode": lambda population: MOQPSO(population, control="explode"),
    "mo-qpso without": lambda population: MOQPSO(population, control=None),
    "nsga2": NSGA2,
    "cmopso": CMOPSO,
    "mopso-cd": MOPSO_CD,
}
PROBLEMS = ("zdt1", "zdt2", "zdt3", "zdt4", "zdt6")
REFERENCE = np.array([1.1, 1.1])


def share(name: str, algorithm: Algorithm, evaluations: int, seed: int) -> float:
    """Return the hypervolume of one run over that of the true front."""
    problem = get_problem(name, n_var=10)
    F = minimize(problem, algorithm, ("n_eval", evaluations), seed=seed).F
    front = problem.pareto_front(5000)
    return float(moocore.hypervolume(F, ref=REFERENCE) / moocore.hypervolume(front, ref=REFERENCE))


def main() -> None:
    """Run everything, print the table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--evaluations", type=int, default=4_000)
    parser.add_argument("--population", type=int, default=20)
    parser.add_argument("--seed", type=int, default=100, help="of the first run; the others count on")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.runs)
    lines = ["| | " + " | ".join(PROBLEMS) + " |", "|---|" + "---|" * len(PROBLEMS)]
    shares: dict[str, dict[str, list[float]]] = {}
    for name, build in ALGORITHMS.items():
        shares[name] = {
            problem: [round(share(problem, build(arguments.population), arguments.evaluations, s), 4) for s in seeds]
            for problem in PROBLEMS
        }
        lines.append(f"| {name} | " + " | ".join(f"{np.median(v):.3f}" for v in shares[name].values()) + " |")
        print(lines[-1], flush=True)
    settings = vars(arguments)
    versions = {"command": "python " + " ".join(sys.argv), "pymoo": importlib.metadata.version("pymoo")}
    save("zdt", {**versions, **settings, "shares": shares, "table": lines})


if __name__ == "__main__":
    main()
