"""Search algorithms: nothing proposed twice, seeds decide, and better than chance where there is structure."""

import random
from collections import Counter

import numpy as np
import pytest
from fakes import (
    OBJECTIVES,
    evaluation,
    half_failing,
    installed,
    proposals,
    some_objectives,
    three_metrics,
    toy_metrics,
)
from pymoo.core.population import Population
from scipy.stats import chisquare

from nas.algorithms import build_algorithm, reference_directions
from nas.constraints import parse_constraints
from nas.drawing import draw_unseen
from nas.evaluation import Evaluation
from nas.mating import GeneMutation
from nas.problem import ArchitectureProblem
from nas.results import hypervolume
from spaces import InputError, SearchSpace, TableSpace, gene_columns, load_space

SMALL = {
    "name": "small",
    "skeleton": {"image_size": 8, "in_channels": 1, "num_classes": 10, "stem_pools": [3]},
    "genes": {
        "embed_dim": [8],
        "timesteps": [1, 2],
        "depth": [1, 2],
        "mlp_ratio": [1.0, 2.0],
        "num_heads": [1],
        "v_threshold": [1.0],
        "tau": [2.0],
    },
}
"""2 · (2 + 4) = 12 architectures."""


@pytest.fixture
def small():
    return SearchSpace.from_dict(SMALL)


def flat(generations):
    return [architecture for generation in generations for architecture in generation]


@pytest.mark.parametrize("answer", [evaluation, half_failing], ids=["sound", "half failing"])
@pytest.mark.parametrize("name", installed())
def test_no_architecture_is_proposed_twice_in_the_whole_history(name, answer, space):
    generations, _ = proposals(name, space, 280, population=10, answer=answer)
    assert len(generations) >= 28
    assert all(len(generation) == 10 for generation in generations)
    assert Counter(flat(generations)).most_common(1)[0][1] == 1


@pytest.mark.parametrize("population", [2, 7, 10, 12, 40])
@pytest.mark.parametrize("name", installed())
def test_a_space_is_exhausted_to_the_last_architecture_and_then_the_search_ends(name, population, small):
    generations, _ = proposals(name, small, 1000, population=population)
    assert len(flat(generations)) == small.size == 12
    assert set(flat(generations)) == set(small)


@pytest.mark.parametrize("name", installed())
def test_first_generation_is_as_large_as_asked_and_within_the_space(name, space):
    generations, _ = proposals(name, space, 1, population=16)
    assert len(generations) == 1
    assert len(set(generations[0])) == 16
    assert all(architecture in space for architecture in generations[0])


@pytest.mark.parametrize("name", installed())
def test_same_seed_proposes_the_same_and_another_seed_something_else(name, space):
    np.random.seed(1)  # noqa: NPY002  # the global generator is what is watched
    first, _ = proposals(name, space, 80, seed=5)
    np.random.seed(2)  # noqa: NPY002  # the global generator is what is watched
    random.seed(3)
    again, _ = proposals(name, space, 80, seed=5)
    other, _ = proposals(name, space, 80, seed=6)
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", installed())
def test_searching_leaves_the_global_generators_alone(name, space):
    before = repr(np.random.get_state()), random.getstate()  # noqa: NPY002  # the global generator is what is watched
    proposals(name, space, 40)
    assert (repr(np.random.get_state()), random.getstate()) == before  # noqa: NPY002  # the global generator is what is watched


@pytest.mark.parametrize("name", installed())
def test_two_searches_in_one_process_do_not_disturb_each_other(name, space):
    alone, _ = proposals(name, space, 60, seed=1)
    problem = ArchitectureProblem(space, OBJECTIVES)
    interleaved = [build_algorithm(name, problem, 10, seed, 60, expand=1) for seed in (1, 2)]
    generations = []
    for _ in range(6):
        for algorithm in interleaved:
            asked = algorithm.ask()
            architectures = [space.decode(x) for x in asked.get("X")]
            algorithm.tell(infills=algorithm.problem.fill(asked, [toy_metrics(a) for a in architectures]))
            if algorithm is interleaved[0]:
                generations.append(architectures)
    assert generations == alone


def test_results_steer_nsga2_and_not_random_search(space):
    def reversed_toy(architecture):
        metrics = toy_metrics(architecture)
        return type(evaluation(architecture))(architecture, {k: -v for k, v in metrics.items()}, 0.0)

    for name, steered in (("nsga2", True), ("random", False)):
        one, _ = proposals(name, space, 60)
        other, _ = proposals(name, space, 60, answer=reversed_toy)
        assert one[0] == other[0]
        assert (one != other) == steered, name


def test_an_unknown_algorithm_is_refused_with_the_known_ones(space):
    problem = ArchitectureProblem(space, OBJECTIVES)
    with pytest.raises(
        InputError, match=r"search.algorithm must be one of \[.*'nsga2', .*\] or package.module:Name, got 'moead'"
    ):
        build_algorithm("moead", problem, 10, 0)


def reached(name, seed, budget=200):
    """Return the hypervolume of all that an algorithm found on the toy objectives."""
    space = load_space("auto-spikformer")
    generations, _ = proposals(name, space, budget, population=20, seed=seed)
    points = np.array([list(toy_metrics(a).values()) for a in flat(generations)][:budget])
    reference = {"accuracy": 0.0, "energy_mj": toy_metrics(space.largest())["energy_mj"]}
    return hypervolume(points, OBJECTIVES, reference)


def test_nsga2_beats_random_search_at_equal_budget_on_toy_objectives():
    seeds = range(5)
    nsga2 = [reached("nsga2", seed) for seed in seeds]
    chance = [reached("random", seed) for seed in seeds]
    assert min(nsga2) > max(chance)
    assert np.mean(nsga2) > 1.05 * np.mean(chance)


# draw_unseen


def test_draws_are_different_unseen_and_as_many_as_asked(space):
    everything = list(space)
    rng = np.random.default_rng(0)
    seen = {everything[i] for i in rng.choice(len(everything), 200, replace=False)}
    drawn = draw_unseen(ArchitectureProblem(space, OBJECTIVES), 50, seen, rng)
    assert len(drawn) == len(set(drawn)) == 50
    assert not seen & set(drawn)


@pytest.mark.parametrize("left", [0, 1, 5, 12])
@pytest.mark.parametrize("count", [1, 5, 12, 20])
def test_draws_are_complete_when_little_is_left(left, count, small):
    seen = set(list(small)[left:])
    drawn = draw_unseen(ArchitectureProblem(small, OBJECTIVES), count, seen, np.random.default_rng(0))
    assert len(drawn) == min(left, count)
    assert set(drawn) <= set(small) - seen


def test_the_last_architectures_of_a_larger_space_are_found(monkeypatch):
    monkeypatch.setattr("nas.drawing.LISTED", 100)  # without constraints it is listed whatever its size
    genes = {"depth": [2], "mlp_ratio": [1.0, 2.0, 3.0], "num_heads": [1, 2, 4], "tau": [1.5, 2.0, 3.0]}
    genes = SMALL["genes"] | genes | {"timesteps": [1], "v_threshold": [0.8, 1.0, 1.2]}
    space = SearchSpace.from_dict({**SMALL, "genes": genes})
    everything = list(space)
    left = set(everything[7::3000])
    assert (len(everything), len(left)) == (6561, 3)
    drawn = draw_unseen(ArchitectureProblem(space, OBJECTIVES), 10, set(everything) - left, np.random.default_rng(0))
    assert set(drawn) == left


@pytest.mark.parametrize("step", [1, 2, 6])
def test_draws_are_uniform_over_what_is_unseen(step, small):
    rng = np.random.default_rng(1)
    unseen = list(small)[::step]
    seen = set(small) - set(unseen)
    first = Counter(draw_unseen(ArchitectureProblem(small, OBJECTIVES), 1, seen, rng)[0] for _ in range(3000))
    assert set(first) == set(unseen)
    assert chisquare(list(first.values())).pvalue > 1e-4


def test_listed_leftovers_are_drawn_uniformly(monkeypatch):
    """When rejection finds nothing, the choice among the listed rest must still be fair."""
    monkeypatch.setattr("nas.drawing.DRAWS", 0)
    space = SearchSpace.from_dict(SMALL)
    rng = np.random.default_rng(2)
    first = Counter(draw_unseen(ArchitectureProblem(space, OBJECTIVES), 1, set(), rng)[0] for _ in range(3000))
    assert len(first) == 12
    assert chisquare(list(first.values())).pvalue > 1e-4


def test_draws_follow_their_generator(space):
    drawn = [
        draw_unseen(ArchitectureProblem(space, OBJECTIVES), 20, set(), np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


# GeneMutation


def mutated(space, individuals=4000, seed=0, ordered=None):
    problem = ArchitectureProblem(space, OBJECTIVES)
    if ordered is not None:
        problem.space = Reordered(space, ordered)
    rng = np.random.default_rng(seed)
    parents = np.array([space.encode(space.sample(rng)) for _ in range(individuals)])
    population = Population.new(X=parents.copy())
    children = GeneMutation().do(problem, population, random_state=rng).get("X")
    return parents, children.astype(np.int64)


class Reordered:
    """What a mutation reads of a space, with other genes in order."""

    def __init__(self, space, ordered):
        self.cardinalities, self.ordered = space.cardinalities, np.full(len(space.columns), ordered)


@pytest.mark.parametrize("ordered", [True, False])
def test_mutation_changes_one_gene_of_n_and_stays_in_range(ordered):
    space = load_space("auto-spikformer")
    parents, children = mutated(space, ordered=ordered)
    n_var = len(space.columns)
    share = (parents != children).mean(axis=0)
    expected = 1 / n_var
    deviation = np.sqrt(expected * (1 - expected) / len(parents))
    assert (np.abs(share - expected) < 5 * deviation).all()
    assert ((children >= 0) & (children < space.cardinalities)).all()


def test_an_unordered_gene_takes_each_other_choice_with_the_same_probability():
    space = load_space("auto-spikformer")
    parents, children = mutated(space, individuals=8000, seed=1, ordered=False)
    for column in (0, 1, 3, 5):
        changed = parents[:, column] != children[:, column]
        choices = int(space.cardinalities[column])
        shift = (children[changed, column] - parents[changed, column]) % choices
        counts = np.bincount(shift, minlength=choices)
        assert counts[0] == 0
        if choices > 2:
            assert chisquare(counts[1:]).pvalue > 1e-4, space.columns[column]


def test_an_ordered_gene_steps_to_either_neighbour_and_from_an_end_to_the_only_one():
    space = load_space("auto-spikformer")
    parents, children = mutated(space, individuals=8000, seed=2)
    step = children - parents
    assert set(np.unique(step)) == {-1, 0, 1}
    first, last = parents == 0, parents == space.cardinalities - 1
    assert set(step[first]) == {0, 1}
    assert set(step[last]) == {0, -1}
    inside = step[~first & ~last]
    assert chisquare([(inside == -1).sum(), (inside == 1).sum()]).pvalue > 1e-4


@pytest.mark.parametrize("ordered", [True, False])
def test_mutation_leaves_fixed_genes_and_the_parents_alone(ordered, small):
    parents, children = mutated(small, individuals=500, ordered=ordered)
    fixed = small.cardinalities == 1
    assert (parents[:, fixed] == children[:, fixed]).all()
    assert (parents[:, ~fixed] != children[:, ~fixed]).any()


def test_mutation_depends_on_its_generator_only(space):
    one, again, other = (mutated(space, 50, seed)[1] for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()


# The table


def third_failing(architecture):
    failed = int(architecture.key, 16) % 10 < 3
    metrics = {} if failed else three_metrics(architecture)
    return type(evaluation(architecture))(
        architecture, metrics, 0.0, "RuntimeError: three in ten" if failed else None
    )


@pytest.mark.parametrize("population", [2, 3, 7, 40])
@pytest.mark.parametrize("name", installed())
def test_three_objectives_and_failures_repeat_from_their_seed(name, population, space):
    found = [proposals(name, space, 120, population, 3, third_failing, some_objectives(3))[0] for _ in range(2)]
    assert found[0] == found[1]
    assert len(set(flat(found[0]))) == len(flat(found[0])) >= 120


@pytest.fixture(scope="module")
def rows():
    """A table of 4 x 3 x 2 rows but for the last four, some of which fail or violate a constraint."""
    a, b, c = (part.ravel()[:20] for part in np.meshgrid([1, 2, 4, 8], ["x", "y", "z"], [False, True]))
    columns, indices = gene_columns({"a": a, "b": b, "c": c}, ["b"])
    return TableSpace("rows", columns, indices)


def row_metrics(row):
    a, b, c = row.values
    failed = int(row.key, 16) % 3 == 0
    metrics = {"accuracy": a / 8 - (b == "y") / 4, "energy_mj": a * (1.0 + c), "width": float("xyz".index(b))}
    return Evaluation(row, {} if failed else metrics, 0.0, "RuntimeError: one in three" if failed else None)


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("population", [5, 50])
@pytest.mark.parametrize("name", installed())
def test_a_table_with_failures_and_a_constraint_is_searched_to_its_end_and_again(name, population, objectives, rows):
    results = [row_metrics(row) for row in rows]
    bounds = parse_constraints({"max_energy_mj": 8}, ["energy_mj"])
    assert 4 <= sum(result.failure is not None for result in results) <= 8
    assert any(result.failure is None and result.metrics["energy_mj"] > 8 for result in results)
    senses = some_objectives(objectives)
    found = [proposals(name, rows, 100, population, 3, row_metrics, senses, bounds)[0] for _ in range(2)]
    assert found[0] == found[1]
    assert len(flat(found[0])) == rows.size == 20
    assert set(flat(found[0])) == set(rows)


@pytest.mark.parametrize("name", installed())
def test_a_search_in_which_everything_fails_goes_on_to_the_end_of_the_space(name, small):
    def failing(architecture):
        return type(evaluation(architecture))(architecture, {}, 0.0, "RuntimeError: always")

    generations, _ = proposals(name, small, 100, 5, answer=failing)
    assert set(flat(generations)) == set(small)


@pytest.mark.parametrize(("name", "count"), [("nsga3", 1), ("mo-qpso", 1)])
def test_objectives_that_an_algorithm_cannot_have_are_refused_with_those_that_can(name, count, space):
    metrics = dict(list({**OBJECTIVES, "width": "min"}.items())[:count])
    with pytest.raises(InputError, match=rf"{name} searches for .*, got {count}; .*'nsga2'"):
        build_algorithm(name, ArchitectureProblem(space, metrics), 10, 0)


@pytest.mark.parametrize("name", [name for name in installed() if name != "random"])
def test_every_algorithm_beats_random_search_on_the_toy_accuracy(name):
    space = load_space("auto-spikformer")

    def best(name, seed):
        generations, _ = proposals(name, space, 300, population=20, seed=seed)
        values = [toy_metrics(a) for a in flat(generations)]
        return max(value["accuracy"] / (0.1 + value["energy_mj"]) ** 0.1 for value in values)

    assert np.mean([best(name, seed) for seed in range(3)]) > np.mean([best("random", seed) for seed in range(3)])


@pytest.mark.parametrize(("n_obj", "most", "count"), [(2, 20, 20), (3, 20, 15), (3, 2, 2), (2, 2, 2), (4, 50, 35)])
def test_reference_directions_are_weights_and_as_many_as_fit(n_obj, most, count):
    directions = reference_directions(n_obj, most)
    assert directions.shape == (count, n_obj)
    assert np.allclose(directions.sum(axis=1), 1)
    assert (directions >= 0).all()


def test_a_missing_numba_is_named_with_its_extra(monkeypatch, space):
    monkeypatch.setattr("nas.algorithms.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"age-moea2 needs numba.*spikefront\[age\]"):
        build_algorithm("age-moea2", ArchitectureProblem(space, OBJECTIVES), 10, 0)
