"""What a search begins with: the best of what is known, in the first population of every algorithm."""

import numpy as np
import pytest
from fakes import OBJECTIVES, FakePool, evaluation, installed, narrowed, some_objectives
from fakes import three_metrics as metrics_of

from nas.algorithms import build_algorithm
from nas.constraints import parse_constraints
from nas.contest import MemoryRecord
from nas.evaluation import Evaluation
from nas.loop import Quest, run_search
from nas.problem import ArchitectureProblem
from nas.start import Start, best_first


def test_the_best_are_feasible_and_spread_and_never_failed_by_hand(space):
    found = list(space)[:7]
    points = [(0.5, 1.0), (0.9, 5.0), (0.7, 3.0), (0.71, 3.1), (0.4, 2.0), (0.1, 0.1), (0.0, 9.0)]
    rows = [
        Evaluation(a, dict(zip(OBJECTIVES, point, strict=True)), 0.0) for a, point in zip(found, points, strict=True)
    ]
    rows.insert(2, Evaluation(space.largest(), {}, 0.0, "no"))
    problem = ArchitectureProblem(space, OBJECTIVES, parse_constraints({"min_accuracy": 0.3}, OBJECTIVES))
    # a front from 0 to 1 whose ends come first, 4 behind it, then what is infeasible, 5 less so than 6
    order = [found.index(architecture) for architecture in best_first(problem, rows, 9)]
    assert order[:2] == [0, 1]
    assert set(order[2:4]) == {2, 3}
    assert order[4:] == [4, 5, 6]
    assert best_first(problem, rows, 3) == [found[i] for i in order[:3]]
    assert best_first(problem, rows[2:3], 3) == best_first(problem, [], 3) == []


# Every algorithm


def begun(space, count, answer):
    return [answer(architecture) for architecture in list(space)[:: max(1, space.size // count)][:count]]


def third_failing(architecture):
    if int(architecture.key, 16) % 10 < 3:
        return Evaluation(architecture, {}, 0.0, "RuntimeError: three in ten")
    return Evaluation(architecture, metrics_of(architecture), 0.0)


def searched(name, space, taken, population, objectives=2, budget=40, constraints=None):
    """Return what an algorithm proposes that begins with results, the number of each generation, and the end."""
    senses = some_objectives(objectives)
    problem = ArchitectureProblem(space, senses, parse_constraints(constraints or {}, senses))
    record, generations = MemoryRecord(), []
    for result in taken:
        record.known[result.architecture] = result
    opened = record.open

    def opening(architecture, generation, **noted):
        generations.append(generation)
        opened(architecture, generation, **noted)

    record.open = opening
    algorithm = build_algorithm(name, problem, population, 3, budget, taken, expand=1)
    ask, asked = algorithm.ask, []

    def asking():
        population = ask()
        asked.append([] if population is None else [space.decode(x) for x in population.get("X")])
        return population

    algorithm.ask = asking
    pool = FakePool(third_failing)
    ending = run_search(Quest(problem, pool, record, budget, start=Start(tuple(taken), 0)), algorithm)
    assert len(pool.submitted) == len(set(record.proposed)) == len(record.proposed) == ending.evaluations
    every = [architecture for generation in asked for architecture in generation]
    later = every if name == "random" else every[len(asked[0]) :]
    assert len(set(every)) == len(every), "nothing is asked for twice"
    assert not {result.architecture for result in taken} & set(later), "only the first population has what was taken"
    return record.proposed, generations, ending


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("name", installed())
def test_nothing_that_was_taken_is_proposed_and_a_search_repeats(name, objectives, space):
    taken = begun(space, 30, third_failing)
    found = [searched(name, space, taken, 8, objectives, constraints={"max_energy_mj": 1e-3})[:2] for _ in range(2)]
    assert found[0] == found[1]
    assert len(found[0][0]) == 40
    assert not {result.architecture for result in taken} & set(found[0][0])
    assert found[0][1] == sorted(found[0][1])
    assert set(found[0][1]) == set(range(1, 1 + len(set(found[0][1]))))


@pytest.mark.parametrize(("taken", "population"), [(0.25, 50), (0.5, 3), (1.0, 7)])
@pytest.mark.parametrize("name", installed())
def test_a_space_of_which_some_was_taken_is_exhausted(name, taken, population, space):
    small = narrowed(space, tau=[2.0], v_threshold=[1.0], timesteps=[1])
    known = begun(small, round(taken * small.size), third_failing)
    proposed, _, ending = searched(name, small, known, population, budget=100)
    assert set(proposed) == set(small) - {result.architecture for result in known}
    assert ending.reason == "exhausted"


@pytest.mark.parametrize("name", installed())
def test_a_start_of_nothing_but_failures_is_known_and_no_more(name, space):
    small = narrowed(space, tau=[2.0], v_threshold=[1.0], timesteps=[1])
    known = [Evaluation(architecture, {}, 0.0, "no") for architecture in small]
    assert searched(name, small, known, 5)[0] == []
    assert len(searched(name, small, known[1:], 5)[0]) == 1


@pytest.mark.parametrize("name", [name for name in installed() if name != "random"])
def test_the_best_that_were_taken_are_the_first_population(name, space):
    taken = begun(space, 20, evaluation)
    problem = ArchitectureProblem(space, OBJECTIVES)
    own = problem.scalar() if name in ("ga", "qpso") else problem
    best = set(best_first(own, taken, 8))
    algorithm = build_algorithm(name, problem, 8, 3, 40, taken, expand=1)
    assert {space.decode(x) for x in algorithm.ask().get("X")} == best
    fewer = build_algorithm(name, problem, 30, 3, 40, taken, expand=1)
    first = [space.decode(x) for x in fewer.ask().get("X")]
    assert len(set(first)) == 30
    assert set(first) > {result.architecture for result in taken}


def test_a_good_start_makes_the_first_offspring_better(space):
    """What was taken is what parents are chosen from."""
    ranked = sorted(space, key=lambda architecture: -metrics_of(architecture)["accuracy"])

    def accuracy(parents):
        problem = ArchitectureProblem(space, {"accuracy": "max"})
        taken = [evaluation(architecture) for architecture in parents]
        algorithm = build_algorithm("ga", problem, 10, 1, 40, taken, expand=1)
        asked = algorithm.ask()
        told = [metrics_of(space.decode(x)) for x in asked.get("X")]
        algorithm.tell(infills=algorithm.problem.fill(asked, told))
        return np.mean([metrics_of(space.decode(x))["accuracy"] for x in algorithm.ask().get("X")])

    assert accuracy(ranked[10:20]) > 1.5 * accuracy(ranked[-10:])
