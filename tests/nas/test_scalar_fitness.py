"""Algorithms that climb one number, in searches with several objectives: which number it is, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from fakes import OBJECTIVES, evaluation, installed, proposals, some_objectives, three_metrics, toy_metrics
from hypothesis import given
from hypothesis import strategies as st
from pymoo.core.population import Population
from test_cli_refusals import refused
from test_table_runs import results, write_run

import nas
from nas.algorithms import ALGORITHMS, build_algorithm
from nas.constraints import parse_constraints
from nas.fitness import MeanFitness, MetricFitness
from nas.problem import ArchitectureProblem
from nas.report import REPORT
from spaces import InputError, load_space

SCALAR = ["ga", "qpso"]
BOTH = {"up": "max", "down": "min"}


def rows(*pairs):
    return [{"up": up, "down": down} for up, down in pairs]


# The number


def test_the_mean_is_in_units_of_the_first_range_and_less_is_better_by_hand():
    fitness = MeanFitness(BOTH)
    assert fitness(rows((2, 10), (4, 10), (3, 10))).tolist() == [0, -0.5, -0.25]  # down has no range yet
    # up lies 2 apart from now on, down 12 - 10
    assert fitness(rows((8, 12), (2, 11))).tolist() == [-3 / 2 + 1 / 2, 1 / 4]
    assert fitness(rows((2, 110))).tolist() == [25]


def test_a_range_may_come_from_generations_of_one():
    fitness = MeanFitness(BOTH)
    assert [fitness(rows(pair)).tolist() for pair in ((1, 5), (1, 5), (1, 7), (2, 7))] == [[0], [0], [0.5], [0]]


def test_nothing_but_failures_changes_nothing():
    fitness = MeanFitness(BOTH)
    assert fitness([]).tolist() == []
    assert fitness(rows((2, 10), (4, 10))).tolist() == [0, -0.5]
    assert fitness([]).tolist() == []
    assert fitness(rows((4, 10))).tolist() == [-0.5]


numbers = st.integers(-50_000, 50_000).map(lambda number: number / 7)


@given(st.lists(st.lists(st.tuples(numbers, numbers), max_size=4), max_size=5))
def test_what_is_better_in_every_objective_has_the_lower_fitness_whenever_it_was_seen(generations):
    fitness = MeanFitness(BOTH)
    seen = [pair for generation in generations for pair in zip(generation, fitness(rows(*generation)), strict=True)]
    for (up, down), one in seen:
        for (other_up, other_down), other in seen:
            if up >= other_up and down <= other_down:
                assert one <= other + 1e-9 * max(1, abs(other))


def test_a_metric_is_climbed_in_its_own_sense():
    assert MetricFitness("up", "max")(rows((2, 10), (4, 9))).tolist() == [-2, -4]
    assert MetricFitness("down", "min")(rows((2, 10), (4, 9))).tolist() == [10, 9]


# The problem


def test_a_scalar_problem_keeps_failures_and_constraints(space):
    constraints = parse_constraints({"min_accuracy": 0.5}, ["accuracy"])
    problem = ArchitectureProblem(space, OBJECTIVES, constraints)
    scalar = problem.scalar()
    population = Population.new(X=np.zeros((3, problem.n_var), dtype=int))
    told = [{"accuracy": 0.2, "energy_mj": 1.0}, None, {"accuracy": 0.8, "energy_mj": 2.0}]
    filled = scalar.fill(population, told)
    assert filled.get("F").tolist() == [[0], [0], [(-1 + 1) / 2]]
    assert filled.get("feas").tolist() == [False, False, True]
    assert problem.n_obj == 2
    assert scalar.point(told[0]).tolist() == [0.2, 1.0]
    assert scalar.in_reals().fill(population, told).get("F").shape == (3, 1)


def test_searches_on_one_problem_do_not_share_their_units(space):
    problem = ArchitectureProblem(space, OBJECTIVES)
    vectors = np.zeros((2, problem.n_var), dtype=int)
    told = [[{"accuracy": a, "energy_mj": 0.0} for a in pair] for pair in ((0.0, 1.0), (0.0, 0.1))]
    ends = [problem.scalar().fill(Population.new(X=vectors), pair).get("F")[1, 0] for pair in told]
    assert ends == [-0.5, -0.5]


def test_one_objective_is_what_it_was(space):
    problem = ArchitectureProblem(space, {"accuracy": "max"})
    assert problem.scalar() is problem


# Searches


@pytest.mark.parametrize("name", SCALAR)
def test_the_mean_of_two_objectives_is_climbed(name):
    space = load_space("auto-spikformer")

    def found(name, seed):
        generations, _ = proposals(name, space, 200, population=20, seed=seed)
        return [toy_metrics(architecture) for generation in generations for architecture in generation]

    searches, chance = [found(name, seed) for seed in range(3)], found("random", 0)
    spread = {n: np.ptp([row[n] for row in chance]) for n in OBJECTIVES}

    def best(found):
        return max(row["accuracy"] / spread["accuracy"] - row["energy_mj"] / spread["energy_mj"] for row in found)

    assert min(map(best, searches)) > best(chance)


@pytest.mark.parametrize("name", SCALAR)
def test_a_metric_that_is_no_objective_is_climbed(name):
    space = load_space("auto-spikformer")

    def widths(fitness):
        problem = ArchitectureProblem(space, OBJECTIVES, fitness=fitness)
        algorithm, found = build_algorithm(name, problem, 10, 1, 100, expand=1), []
        for _ in range(10):
            asked = algorithm.ask()
            told = [three_metrics(space.decode(x)) for x in asked.get("X")]
            algorithm.tell(infills=algorithm.problem.fill(asked, told))
            found += [row["width"] for row in told]
        return found

    up, down = widths(("width", "max")), widths(("width", "min"))
    assert up[:10] == down[:10]
    assert np.mean(up[10:]) > np.mean(up[:10]) > np.mean(down[10:])


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("name", installed())
def test_every_algorithm_has_objectives_that_it_can_search_for(name, objectives, space):
    if objectives < ALGORITHMS[name].fewest:
        pytest.skip("it needs more objectives")

    def three(architecture):
        return type(evaluation(architecture))(architecture, three_metrics(architecture), 0.0)

    generations, _ = proposals(name, space, 30, answer=three, objectives=some_objectives(objectives))
    assert len({architecture for generation in generations for architecture in generation}) == 30


# Runs


def tabled(folder, *changes, **search):
    recipe = write_run(
        folder,
        ('energy_mj = "min" }', 'energy_mj = "min", quality = "max" }'),
        *changes,
        table=results().assign(quality=lambda table: table["width"].astype(float)),
    )
    return nas.search(recipe, folder / "run", search={"algorithm": "ga", "evaluations": 18, **search})


@pytest.mark.parametrize("name", SCALAR)
def test_front_hypervolume_and_report_stay_over_the_objectives(name, tmp_path, comparable):
    run = tabled(tmp_path, algorithm=name, fitness="quality")
    front = run.front()
    assert list(run.objectives) == ["acc", "energy_mj"]
    assert len(front) > 1
    assert front["acc"].is_monotonic_decreasing
    assert front["energy_mj"].is_monotonic_decreasing
    assert run.hypervolume() > 0
    assert f"{name}, population 6, climbs quality" in (run.folder / REPORT).read_text()
    again = nas.search(run.config, run.folder)
    pd.testing.assert_frame_equal(comparable(again), comparable(run))


def test_the_report_says_that_the_mean_is_climbed(tmp_path):
    run = tabled(tmp_path)
    assert "ga, population 6, climbs the mean of the objectives" in (run.folder / REPORT).read_text()


def test_what_is_climbed_belongs_to_the_run(tmp_path):
    run = tabled(tmp_path)
    with pytest.raises(InputError, match=r"differs in search.fitness \(None there, 'acc' here\)"):
        nas.search(run.config, run.folder, search={"fitness": "acc"})


def test_comparisons_work_with_all_of_them(tmp_path):
    recipe = write_run(tmp_path)
    found = nas.compare(recipe, ["nsga2", "ga", "qpso", "random"], 1, evaluations=12, workers=1)
    assert found.summary["algorithm"].tolist() == ["nsga2", "ga", "qpso", "random"]
    fit = write_run(tmp_path, ("population = 6", 'fitness = "acc"\npopulation = 6'))
    other = nas.compare(fit, ["nsga2", "ga", "random"], 1, evaluations=18, workers=1)
    keys = [{trace.algorithm: trace.keys for trace in each.traces} for each in (found, other)]
    assert keys[0]["nsga2"] == keys[1]["nsga2"][:12], "what ga climbs is nothing to the others"
    assert keys[0]["ga"] != keys[1]["ga"][:12]
    with pytest.raises(InputError, match=r"is for \['ga', 'qpso'\], got 'acc' with \['nsga2', 'random'\]"):
        nas.compare(fit, ["nsga2", "random"], 1, workers=1)


@pytest.mark.parametrize(
    ("search", "text"),
    [
        ('fitness = "acc"', "search.fitness is for ['ga', 'qpso'], got 'acc' with ['nsga2']; take it out"),
        (
            'algorithm = "ga"\nfitness = "top1"',
            "search.fitness must be among the metrics ['acc', 'energy_mj'], got 'top1'",
        ),
        ('algorithm = "ga"\nfitness = 3', "search.fitness should be a valid string, got 3"),
    ],
)
def test_a_fitness_that_means_nothing_is_refused(search, text, command, tmp_path):
    recipe = write_run(tmp_path, ("population = 6", f"{search}\npopulation = 6"))
    assert text in refused(command("search", recipe, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()
