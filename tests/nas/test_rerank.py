"""Expand and rerank in a search: what algorithms propose with a reranker, and whether it is worth it."""

import math

import numpy as np
import pytest
from fakes import (
    OBJECTIVES,
    drawn,
    evaluation,
    half_failing,
    installed,
    narrowed,
    problem_of,
    proposals,
    some_objectives,
    three_metrics,
    toy_metrics,
)

from nas.algorithms import build_algorithm, find_algorithm, parse_algorithm
from nas.constraints import parse_constraints
from nas.evaluation import Evaluation
from nas.results import hypervolume
from spaces import InputError, TableSpace, load_space
from spaces.rows import Column

RERANKED = [name for name in installed() if name != "random"]


@pytest.mark.parametrize("name", RERANKED)
@pytest.mark.parametrize("answer", [evaluation, half_failing], ids=["sound", "half failing"])
def test_nothing_is_proposed_twice_and_a_seed_decides_all(name, answer, space):
    """In a space of 288, so that the last batches are what is left."""
    generations, algorithm = proposals(name, space, 60, seed=4, answer=answer, expand=3)
    architectures = [each for generation in generations for each in generation]
    assert len(architectures) == len(set(architectures)) >= 60
    assert algorithm.reranker.trace
    again, _ = proposals(name, space, 60, seed=4, answer=answer, expand=3)
    assert generations == again


@pytest.mark.parametrize("name", RERANKED)
def test_three_objectives_constraints_failures_and_a_small_space(name, space):
    """The last population is larger than what is left of the space: it ends with the last architecture."""
    space = narrowed(space, tau=[2.0])

    def some_failing(architecture):
        failure = "RuntimeError: low key" if int(architecture.key, 16) % 10 < 3 else None
        metrics = {} if failure else three_metrics(architecture)
        return Evaluation(architecture, metrics, 0.1, failure)

    energies = [toy_metrics(each)["energy_mj"] for each in space]
    constraints = parse_constraints({"max_energy_mj": float(np.median(energies))}, ["energy_mj"])
    generations, _ = proposals(name, space, 1000, 30, 1, some_failing, some_objectives(3), constraints, expand=2)
    assert sum(map(len, generations)) == space.size
    assert {each for generation in generations for each in generation} == set(space)


@pytest.mark.parametrize("name", RERANKED)
def test_reranking_goes_on_where_nothing_works(name, space):
    """All fail: there is nothing to learn from, and the algorithm goes on by itself."""

    def failing(architecture):
        return Evaluation(architecture, {}, 0.1, "RuntimeError: always")

    generations, algorithm = proposals(name, space, 40, answer=failing, expand=3)
    architectures = [each for generation in generations for each in generation]
    assert len(architectures) == len(set(architectures)) >= 40
    assert algorithm.reranker.trace == []
    assert min(map(len, generations)) == max(map(len, generations))


@pytest.mark.parametrize("population", [2, 3])
@pytest.mark.parametrize("name", ["nsga2", "mo-qpso"])
def test_batches_can_be_tiny(name, population, space):
    generations, algorithm = proposals(name, space, 40, population=population, expand=5)
    assert max(map(len, generations)) == population
    assert (
        min(map(len, generations)) == math.ceil(population / 2) or name == "mo-qpso"
    )  # a particle may find nothing and stay
    assert algorithm.reranker.trace


@pytest.mark.parametrize("name", RERANKED)
def test_generations_are_small_while_little_is_known(name):
    """But not those of algorithms that count generations, or that do not live with fewer, nor without a reranker."""
    space, population = load_space("digits"), 12
    generations, algorithm = proposals(name, space, 220, population=population, expand=2)
    sizes = list(map(len, generations))
    if find_algorithm(name).steady:
        known = np.cumsum(sizes)[:-1]
        assert not any(batch.aside for batch in algorithm.reranker.trace)
        assert sizes[0] == population
        assert sizes[1:] == np.clip(known // 16, population // 2, population).tolist()
        assert {6, 7, 12} <= set(sizes)
    else:
        assert max(sizes) == population
        assert np.mean(sizes) > 0.9 * population  # a particle may find nothing and stay
    plain, _ = proposals(name, space, 40, population=population, expand=1)
    assert max(map(len, plain)) == population


def test_random_search_has_no_reranker(space):
    one, algorithm = proposals("random", space, 40, expand=20)
    other, _ = proposals("random", space, 40, expand=1)
    assert one == other
    assert algorithm.reranker is None
    assert proposals("nsga2", space, 10, expand=1)[1].reranker is None


def reached(seed, expand):
    """Return the hypervolume of all that NSGA-II found on the toy objectives."""
    space = load_space("auto-spikformer")
    generations, _ = proposals("nsga2", space, 100, population=20, seed=seed, expand=expand)
    points = np.array([list(toy_metrics(each).values()) for generation in generations for each in generation])
    return hypervolume(points, OBJECTIVES, {"accuracy": 0.0, "energy_mj": toy_metrics(space.largest())["energy_mj"]})


def test_reranking_finds_a_better_front_in_as_many_evaluations():
    with_it, without = (np.array([reached(seed, expand) for seed in range(3)]) for expand in (20, 1))
    assert with_it.mean() > 1.07 * without.mean()


def test_rows_of_a_table_are_candidates_themselves():
    """Of 20,000 combinations a table lists 400, so mating alone would hardly ever name a row."""
    columns = [Column(f"g{i}", tuple(range(5)), True) for i in range(6)]
    rows = np.unique(np.random.default_rng(0).integers(5, size=(400, 6)), axis=0)
    space = TableSpace("some", columns, rows)

    def answer(row):
        genes = list(row.genes.values())
        metrics = {"accuracy": float(sum(genes)), "energy_mj": float(genes[0] ** 2 + genes[1])}
        return Evaluation(row, metrics, 0.0)

    generations, algorithm = proposals("nsga2", space, 60, population=10, answer=answer, expand=4)
    found = [each for generation in generations for each in generation]
    assert len(set(found)) == 60
    sizes = []
    pick = algorithm.reranker.pick
    algorithm.reranker.pick = lambda candidates, *rest: sizes.append(len(candidates)) or pick(candidates, *rest)
    algorithm.ask()
    assert sizes[0] > 300


@pytest.mark.parametrize("text", ["nsga2@0", "nsga2@", "nsga2@x", "nsga2@-3", "nsga2@1001", "nsga2@1.5"])
def test_an_expansion_is_a_whole_number(text):
    with pytest.raises(InputError, match="NAME or NAME@EXPAND with EXPAND from 1 to 1000"):
        parse_algorithm(text, 20)


def test_an_algorithm_is_called_by_name_and_expansion():
    assert parse_algorithm("nsga2", 7) == ("nsga2", 7)
    assert parse_algorithm("mo-qpso@3", 7) == ("mo-qpso", 3)


def test_reranking_begins_with_what_a_warm_start_takes(space):
    known = [evaluation(each) for each in drawn(space, 60)]
    algorithm = build_algorithm("nsga2", problem_of(space), 10, 0, 100, known, expand=4)
    algorithm.tell(infills=algorithm.problem.fill(algorithm.ask(), [known[0].metrics] * 10))
    algorithm.ask()
    assert len(algorithm.reranker._results) >= 60


@pytest.mark.parametrize("name", ["qpso", "mo-qpso"])
def test_every_particle_of_a_reranked_swarm_goes_on_as_long_as_something_is_left(name, space):
    problem = problem_of(space)
    algorithm = build_algorithm(name, problem, 20, 3, 280, expand=8)
    for _ in range(space.size // 20):
        asked = algorithm.ask()
        assert len(asked) == 20
        metrics = [toy_metrics(space.decode(x)) for x in asked.get("X")]
        algorithm.tell(infills=algorithm.problem.fill(asked, metrics))
    assert len(algorithm.ask()) == space.size % 20
