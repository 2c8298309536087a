"""Objectives with their signs flipped once, and failures as violated constraints."""

import numpy as np
import pytest
from fakes import OBJECTIVES, fails, half_failing, installed, proposals
from pymoo.core.population import Population

from nas.evaluation import Evaluation
from nas.problem import ArchitectureProblem
from spaces import load_space


def filled(problem, metrics):
    vectors = [problem.space.encode(problem.space.smallest())] * len(metrics)
    return problem.fill(Population.new(X=np.array(vectors)), metrics)


def test_variables_are_the_space_columns_and_their_indices(space):
    problem = ArchitectureProblem(space, OBJECTIVES)
    assert problem.n_var == len(space.columns) == 11
    assert problem.xl.tolist() == [0] * 11
    assert problem.xu.tolist() == (space.cardinalities - 1).tolist()
    assert (problem.n_obj, problem.n_ieq_constr, problem.n_eq_constr) == (2, 1, 0)


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        ({"accuracy": "max", "energy_mj": "min"}, [-0.75, 0.25]),
        ({"energy_mj": "min", "accuracy": "max"}, [0.25, -0.75]),
        ({"accuracy": "min", "energy_mj": "max"}, [0.75, -0.25]),
        ({"energy_mj": "min"}, [0.25]),
        ({"accuracy": "max"}, [-0.75]),
    ],
    ids=str,
)
def test_signs_are_flipped_where_more_is_better_in_the_order_of_the_objectives(objectives, expected, space):
    problem = ArchitectureProblem(space, objectives)
    population = filled(problem, [{"accuracy": 0.75, "energy_mj": 0.25, "spikes": 7.0}])
    assert population.get("F").tolist() == [expected]
    assert population.get("G").tolist() == [[-1.0]]
    assert population.get("feas").tolist() == [True]


def test_point_keeps_the_natural_sense(space):
    problem = ArchitectureProblem(space, OBJECTIVES)
    assert problem.point({"energy_mj": 0.25, "accuracy": 0.75}).tolist() == [0.75, 0.25]


def test_the_reference_is_turned_into_what_is_minimised_and_means_nothing_to_one_number(space):
    problem = ArchitectureProblem(space, OBJECTIVES, reference={"energy_mj": 2.0, "accuracy": 0.5})
    assert problem.minimised_reference().tolist() == [-0.5, 2.0]
    assert problem.in_reals().minimised_reference().tolist() == [-0.5, 2.0]
    assert problem.scalar().minimised_reference() is None
    assert ArchitectureProblem(space, OBJECTIVES).minimised_reference() is None


def test_failures_are_violated_constraints_and_finite(space):
    problem = ArchitectureProblem(space, OBJECTIVES)
    population = filled(problem, [{"accuracy": 0.1, "energy_mj": 9.0}, None, {"accuracy": 0.2, "energy_mj": 8.0}])
    assert population.get("feas").tolist() == [True, False, True]
    assert population.get("CV").ravel().tolist() == [0.0, 1.0, 0.0]
    assert np.isfinite(population.get("F")).all()


@pytest.mark.parametrize("name", [name for name in installed() if name != "rvea"])  # whose optimum is all it keeps
@pytest.mark.parametrize("seed", range(3))
def test_with_half_of_the_space_failing_the_final_front_has_only_sound_points(name, seed):
    space = load_space("digits")
    generations, algorithm = proposals(name, space, 200, population=20, seed=seed, answer=half_failing)
    proposed = [architecture for generation in generations for architecture in generation]
    assert 50 < sum(map(fails, proposed)) < 150
    front = [space.decode(x) for x in algorithm.opt.get("X")]
    assert front
    assert not any(map(fails, front))
    assert algorithm.opt.get("feas").all()
    assert np.isfinite(algorithm.opt.get("F")).all()


def test_nsga2_keeps_sound_individuals_before_any_failed_one():
    space = load_space("digits")
    _, algorithm = proposals("nsga2", space, 200, population=20, answer=half_failing)
    assert not any(fails(space.decode(x)) for x in algorithm.pop.get("X"))
    assert len(algorithm.pop) == 20


def test_a_space_where_everything_fails_is_still_searched():
    space = load_space("digits")
    generations, _ = proposals("nsga2", space, 60, answer=lambda a: Evaluation(a, {}, 0.0, "no"))
    assert len({architecture for generation in generations for architecture in generation}) == 60
