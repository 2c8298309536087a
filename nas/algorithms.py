"""Search algorithms by name: pymoo algorithms over architectures that never propose one twice.

.. [Das1998] Das and Dennis, "Normal-Boundary Intersection", SIAM Journal on Optimization, 1998.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
from pymoo.algorithms.moo.nsga3 import NSGA3, HyperplaneNormalization
from pymoo.algorithms.moo.rvea import RVEA, APDSurvival, calc_gamma, calc_V
from pymoo.algorithms.moo.sms import SMSEMOA, LeastHypervolumeContributionSurvival, cv_and_dom_tournament
from pymoo.algorithms.moo.spea2 import SPEA2, SPEA2Survival, spea_binary_tournament
from pymoo.algorithms.moo.unsga3 import UNSGA3
from pymoo.algorithms.soo.nonconvex.ga import GA, FitnessSurvival, comp_by_cv_and_fitness
from pymoo.config import Config
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.selection.rnd import RandomSelection
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.termination.max_gen import MaximumGenerationTermination
from pymoo.util.ref_dirs import get_reference_directions

from nas.distinct import Distinct
from nas.drawing import draw_unseen
from nas.evaluation import Evaluation
from nas.expanding import ExpandedMating, RerankedPositions
from nas.mating import NotSeen, UnseenMating, UnseenPositions, UnseenSampling
from nas.moqpso import MOQPSO
from nas.plan import Plan, Row, build_own, own_row
from nas.problem import ArchitectureProblem
from nas.qpso import QPSO
from nas.quantum import Motion
from nas.rerank import Reranker
from nas.sections import MOST_EXPANDED
from nas.start import best_first, told
from nas.tournament import by_feasibility, by_niche
from spaces import Genotype, InputError
from spaces.resolve import refusing

Config.warnings["not_compiled"] = False

EXPAND = 20
"""Candidates per architecture that a reranker picks from, if nothing else is asked for."""

STEPS = 8
"""Positions that are drawn for each particle of a swarm; it takes the first unseen one."""


class RandomSearch(Algorithm):  # type: ignore[misc]  # pymoo has no types, so a base of it is Any
    """Uniform sampling of distinct architectures: the baseline that every search has to beat.

    Args:
        pop_size: Architectures per ask.
        seen: Architectures that are not drawn.
    """

    def __init__(self, pop_size: int, seen: Iterable[Genotype] = ()) -> None:
        super().__init__()
        self.pop_size = pop_size
        self.seen = set(seen)

    def _initialize_infill(self) -> Population | None:
        return self._infill()

    def _infill(self) -> Population | None:
        assert self.problem is not None
        space = self.problem.space
        drawn = draw_unseen(self.problem, self.pop_size, self.seen, self.random_state)
        self.seen.update(drawn)
        return Population.new(X=np.array([space.encode(a) for a in drawn])) if drawn else None

    def _advance(self, infills: Population, **_: Any) -> None:
        self.pop = infills


def _genetic(plan: Plan, selection: Any) -> dict[str, Any]:
    """Return what all genetic algorithms have in common; fresh operators, as pymoo shares its default ones."""
    history = NotSeen(plan.problem)
    history.seen.update(plan.seen)
    crossover = UniformCrossover(prob=0.9)
    if plan.reranker is None:
        mating = UnseenMating(selection, crossover, eliminate_duplicates=history)
    else:
        mating = ExpandedMating(selection, crossover, history, plan.reranker)
    return {
        "pop_size": plan.population,
        "n_offsprings": plan.population,
        "sampling": UnseenSampling(history.seen, plan.first),
        "eliminate_duplicates": False,  # sampling and mating see to it
        "mating": mating,
        "output": None,
    }


def reference_directions(n_obj: int, most: int) -> NDArray[np.float64]:
    """Return evenly spread weights [Das1998]_, as many as fit into ``most`` but no fewer than two, ``(n, n_obj)``."""
    fitting = 1
    for partitions in count(1):
        if math.comb(partitions + n_obj - 1, n_obj - 1) > most:
            break
        fitting = partitions
    directions: NDArray[np.float64] = get_reference_directions("das-dennis", n_obj, n_partitions=fitting)
    return directions[: max(most, 2)]


def _nsga2(plan: Plan) -> Algorithm:
    return NSGA2(**_genetic(plan, TournamentSelection(func_comp=binary_tournament)))


def _nsga3(plan: Plan) -> Algorithm:
    directions = reference_directions(plan.problem.n_obj, plan.population)
    return NSGA3(directions, **_genetic(plan, TournamentSelection(func_comp=by_feasibility)))


def _unsga3(plan: Plan) -> Algorithm:
    directions = reference_directions(plan.problem.n_obj, plan.population)
    return UNSGA3(directions, **_genetic(plan, TournamentSelection(func_comp=by_niche)))


def _sms_emoa(plan: Plan) -> Algorithm:
    survival = LeastHypervolumeContributionSurvival()
    return SMSEMOA(survival=survival, **_genetic(plan, TournamentSelection(func_comp=cv_and_dom_tournament)))


def _spea2(plan: Plan) -> Algorithm:
    survival = SPEA2Survival(normalize=True)
    survival.norm = _SomeExtent(plan.problem.n_obj)
    return SPEA2(survival=survival, **_genetic(plan, TournamentSelection(func_comp=spea_binary_tournament)))


class _AnglesOnAnyFront(APDSurvival):  # type: ignore[misc]  # pymoo has no types, so a base of it is Any
    """Survival of RVEA that also adapts to a front on which all members are equal in an objective."""

    def adapt(self) -> None:
        if self.nadir is not None:
            extent = self.nadir - self.ideal
            self.V = calc_V(calc_V(self.ref_dirs) * np.where(extent > 0, extent, 1.0))
            self.gamma = calc_gamma(self.V)

    def _do(self, *args: Any, **kwargs: Any) -> Population:
        # A cosine that rounding took above 1 has no angle; argmin takes it for the smallest, which it is.
        with np.errstate(invalid="ignore"):
            return super()._do(*args, **kwargs)


class _SomeExtent(HyperplaneNormalization):  # type: ignore[misc]  # pymoo has no types, so a base of it is Any
    """Bounds of the objectives that are never 0 apart, also where all individuals are equal in one."""

    nadir_point: NDArray[np.float64]

    def update(self, F: NDArray[np.float64], nds: NDArray[np.int64] | None = None) -> None:
        super().update(F, nds)
        self.nadir_point = np.where(self.nadir_point > self.ideal_point, self.nadir_point, self.ideal_point + 1)


def _rvea(plan: Plan) -> Algorithm:
    directions = reference_directions(plan.problem.n_obj, plan.population)
    return RVEA(
        directions,
        survival=_AnglesOnAnyFront(directions),
        termination=MaximumGenerationTermination(plan.generations),
        **_genetic(plan, RandomSelection()),
    )


def _age_moea2(plan: Plan) -> Algorithm:
    if find_spec("numba") is None:
        raise InputError("age-moea2 needs numba, which is not installed; pip install 'spikefront[age]'")
    from pymoo.algorithms.moo.age2 import AGEMOEA2  # noqa: PLC0415  # importing it fails without numba, an extra

    return AGEMOEA2(**_genetic(plan, TournamentSelection(func_comp=binary_tournament)))


def _ga(plan: Plan) -> Algorithm:
    selection = TournamentSelection(func_comp=comp_by_cv_and_fitness)
    algorithm = GA(survival=FitnessSurvival(), **_genetic(plan, selection))
    algorithm.termination = None
    return algorithm


def _swarm(plan: Plan, boundary: str) -> dict[str, Any]:
    """Return what both swarms have in common."""
    reranker = plan.reranker
    positions = UnseenPositions(plan.seen) if reranker is None else RerankedPositions(reranker, plan.seen)
    return {
        "pop_size": plan.population,
        "sampling": UnseenSampling(positions.seen, plan.first),
        "motion": Motion(generations=plan.generations, boundary=boundary),
        "chooser": positions,
        "n_candidates": STEPS if reranker is None else reranker.expand,
        "control": "perturb",
        "output": None,
    }


def _qpso(plan: Plan) -> Algorithm:
    return QPSO(mean_best="weighted", **_swarm(plan, "reflect"))


def _mo_qpso(plan: Plan) -> Algorithm:
    return MOQPSO(**_swarm(plan, "clip"))


_multi = partial(Row, fewest=2, asynchronous=True, steady=True)
_any = partial(_multi, fewest=1)

ALGORITHMS: dict[str, Row] = {
    "age-moea2": _multi(_age_moea2, steady=False),
    "ga": _any(_ga, scalar=True),
    "mo-qpso": _multi(_mo_qpso, reals=True, steady=False),
    "nsga2": _any(_nsga2),
    "nsga3": _multi(_nsga3),
    "qpso": _any(_qpso, scalar=True, reals=True, steady=False),
    "random": _any(lambda plan: RandomSearch(plan.population, plan.seen)),
    "rvea": _multi(_rvea, steady=False),
    "sms-emoa": _multi(_sms_emoa),
    "spea2": _multi(_spea2),
    "unsga3": _multi(_unsga3),
}
"""Algorithms by name."""


def find_algorithm(name: str) -> Row:
    """Return a row of the table, or that of the user's own algorithm by ``package.module:Name``.

    Raises:
        InputError: If there is no such algorithm.
    """
    return ALGORITHMS[name] if name in ALGORITHMS else own_row(name, ALGORITHMS)


def check_algorithm(name: str, objectives: int, expand: int = 1) -> Row:
    """Return the row of an algorithm that can search for so many objectives, with so many candidates for each.

    Raises:
        InputError: If there is no such algorithm, or if it cannot.
    """
    row = find_algorithm(name)
    if objectives < row.fewest:
        fitting = sorted(other for other, candidate in ALGORITHMS.items() if candidate.fewest <= objectives)
        raise InputError(
            f"{name} searches for {row.fewest} or more objectives, got {objectives}; change search.objectives, or "
            f"search.algorithm to one of {fitting}"
        )
    if expand > 1 and name not in ALGORITHMS:
        raise InputError(
            f"algorithms of one's own have no reranker, so that search.expand must be 1 with {name}, got {expand}"
        )
    return row


def check_fitness(fitness: str | None, algorithms: Iterable[str]) -> None:
    """Check that a metric to climb, if there is one, is for one of some algorithms.

    Raises:
        InputError: If there is such a metric, and none of them climbs it.
    """
    climbing = sorted(name for name, row in ALGORITHMS.items() if row.scalar)
    names = list(algorithms)
    if fitness is not None and not any(find_algorithm(name).scalar for name in names):
        raise InputError(
            f"search.fitness is for {climbing}, got {fitness!r} with {names}; take it out of the recipe, or "
            "change the algorithm to one of those"
        )


def parse_algorithm(text: str, expand: int) -> tuple[str, int]:
    """Return name and expansion of an algorithm that is called ``NAME`` or ``NAME@EXPAND``.

    Args:
        text: The call.
        expand: Expansion where it has none; the user's own algorithms then have 1.

    Raises:
        InputError: If the expansion is not a whole number from 1.
    """
    name, at, factor = text.partition("@")
    if at and not (factor.isdecimal() and 1 <= int(factor) <= MOST_EXPANDED):
        raise InputError(
            f"an algorithm is NAME or NAME@EXPAND with EXPAND from 1 to {MOST_EXPANDED}, as in nsga2@20, got {text!r}"
        )
    return name, int(factor) if at else 1 if ":" in name else expand


def build_algorithm(
    name: str,
    problem: ArchitectureProblem,
    population: int,
    seed: int,
    evaluations: int = 300,
    start: Sequence[Evaluation] = (),
    expand: int = EXPAND,
) -> Algorithm:
    """Return an algorithm ready for ``ask``, with fresh operators and a seed of its own.

    What it is told is filled by its own ``problem``, which may be another view of the given one.

    Args:
        name: A row of ``ALGORITHMS``, or ``package.module:Name`` of the user's own.
        problem: Space and objectives.
        population: Architectures of a generation; with a reranker later ones than the first can have fewer.
        seed: Seed of all that is drawn.
        evaluations: Budget, which ``rvea`` and the swarms spread their schedule over; they go on beyond it.
        start: Results that it begins with: the best are in its first population, and none is proposed again.
        expand: Candidates per architecture that a reranker picks from (:mod:`nas.rerank`); without one if it is 1.
            Random search has none, nor have the user's own. The reranker is the attribute ``reranker``, or None.

    Raises:
        InputError: If there is no such algorithm, if it cannot be built, or if it cannot search for this.
    """
    row = check_algorithm(name, problem.n_obj, expand)
    if row.scalar:
        problem = problem.scalar()
    first, seen = best_first(problem, start, population), {result.architecture for result in start}
    reranker = Reranker(problem, expand, whole=not row.steady) if expand > 1 and name != "random" else None
    if reranker is not None and start:
        reranker.learn(told(problem, start))
    own, plan = name not in ALGORITHMS, Plan(problem, population, evaluations, first, seen, reranker)
    algorithm = build_own(name, row, plan) if own else row.build(plan)
    algorithm.reranker = reranker
    if algorithm.termination is None:
        algorithm.termination = NoTermination()
    with refusing(f"algorithm {name!r} cannot be set up for this problem") if own else nullcontext():
        algorithm.setup(problem.in_reals() if row.reals else problem, seed=seed)
    return Distinct(name, algorithm, seed, told(problem, start) if start else ()) if own else algorithm
