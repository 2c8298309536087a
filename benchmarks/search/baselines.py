"""NSGA-II as others run it: as pymoo comes, and with the operators of DyNAS-T [Cummings2022]_.

Both move in reals between the indices of the choices, round them, and remove duplicates from the current population
only, so that they can propose an architecture again; that counts as an evaluation.

.. [Cummings2022] Cummings et al., "A Hardware-Aware Framework for Accelerating Neural Architecture Search Across
   Modalities", 2022; operators as ``EvolutionaryManager.configure_nsga2`` in ``dynast/search/evolutionary.py`` of
   github.com/IntelLabs/DyNAS-T at revision 1141f158 sets them.
"""

from __future__ import annotations

from functools import partial

from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.algorithm import Algorithm
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling

from nas.contest import Builder
from nas.problem import ArchitectureProblem


def _start(algorithm: Algorithm, problem: ArchitectureProblem, seed: int) -> Algorithm:
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    return algorithm


def pymoo_nsga2(size: int, problem: ArchitectureProblem, _: int, seed: int, __: int) -> Algorithm:
    """Return NSGA-II with pymoo's own settings but for the population: SBX and PM, here with rounding."""
    algorithm = NSGA2(
        pop_size=size,
        sampling=IntegerRandomSampling(),
        crossover=SBX(eta=15, prob=0.9, vtype=float, repair=RoundingRepair()),
        mutation=PM(eta=20, vtype=float, repair=RoundingRepair()),
    )
    return _start(algorithm, problem, seed)


def dynas_t(problem: ArchitectureProblem, _: int, seed: int, __: int) -> Algorithm:
    """Return NSGA-II as DyNAS-T sets it: population 50, PM of 2 % of the individuals."""
    algorithm = NSGA2(
        pop_size=50,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=15.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=0.02, eta=20.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    return _start(algorithm, problem, seed)


BASELINES: dict[str, Builder] = {
    "pymoo-nsga2": partial(pymoo_nsga2, 100),  # pymoo's own population
    "pymoo-nsga2-20": partial(pymoo_nsga2, 20),
    "dynas-t": dynas_t,
}
"""Builders by name."""
