"""QPSO that loses its diversity, and QPSO whose moves someone else chooses."""

from itertools import pairwise

import numpy as np
import pytest
from pymoo.core.evaluator import Evaluator
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.optimize import minimize
from swarm_problems import ALWAYS, Circle, Shifted, told

from nas.diversity import Explode, Perturb, Thresholds
from nas.moqpso import MOQPSO
from nas.qpso import QPSO
from spaces import InputError

# Control of diversity


def test_an_explosion_raises_diversity_from_below_the_low_threshold_to_recovery():
    control = Explode(Thresholds(first=0.01, last=0.01, recovery=10.0, until=1.0))
    trace = minimize(Shifted(5), QPSO(10, control=control), ("n_gen", 400), seed=1).algorithm.trace
    acted = [generation.acted for generation in trace]
    assert 5 < sum(acted) < 200
    for before, after in pairwise(trace):
        if after.acted:
            assert before.diversity < (0.1 if before.acted else 0.01)
            assert after.alpha == 2.0
        elif before.acted:
            assert before.diversity >= 0.1
        else:
            assert before.diversity >= 0.01


def test_thresholds_fall_with_the_budget():
    control = Explode(Thresholds(first=0.1, last=1e-5, recovery=1.0, until=1.0))
    trace = minimize(Shifted(5), QPSO(10, control=control), ("n_gen", 100), seed=1).algorithm.trace
    assert any(generation.acted for generation in trace)
    for spent, (before, after) in enumerate(pairwise(trace), start=1):
        assert after.acted == (before.diversity < 0.1 * 1e-4 ** (spent / 100))


def test_an_explosion_forgets_all_personal_bests_but_the_leader_and_no_sound_one_for_an_unsound_one():
    problem = Circle()
    for forget in (True, False):
        algorithm = QPSO(30, control=Explode(ALWAYS, alpha=1.5, forget=forget))
        algorithm.setup(problem, termination=("n_gen", 12), seed=1)
        lost = 0
        for _ in range(10):
            before = algorithm.pop.get("F", "CV") if algorithm.is_initialized else None
            algorithm.tell(infills=Evaluator().eval(problem, algorithm.ask()))
            if before is not None:
                F, CV = algorithm.pop.get("F", "CV")
                assert (before[1] >= CV).all()
                assert F[CV <= 0].min() >= algorithm.opt[0].F
                lost += np.sum((before[0] < F) & (before[1] == CV))
                sound = before[1][:, 0] == 0
                assert not sound.any() or before[0][sound].min() >= algorithm.opt[0].F
        assert (lost > 0) == forget


def test_a_control_leaves_the_end_of_the_budget_to_refinement():
    control = Explode(Thresholds(first=0.5, last=0.5, recovery=1.0, until=0.75))
    trace = minimize(Shifted(5), QPSO(10, control=control), ("n_gen", 100), seed=1).algorithm.trace
    assert [g.acted for g in trace] == [False] + [True] * 74 + [False] * 25


@pytest.mark.parametrize("n_candidates", [1, 3])
def test_perturbing_tries_mutants_of_the_leader_alone_and_lets_all_others_make_their_step(n_candidates):
    problem = Shifted(30)
    drawn = {}
    for name, control in {"plain": None, "perturbed": Perturb(ALWAYS, share=0.2)}.items():

        def keep(problem, positions, random_state, name=name):
            drawn[name] = positions
            return np.arange(20), positions[0]

        algorithm = QPSO(20, control=control, chooser=keep, n_candidates=n_candidates)
        algorithm.setup(problem, termination=("n_gen", 10), seed=1)
        algorithm.tell(infills=Evaluator().eval(problem, algorithm.ask()))
        algorithm.ask()
        F, leader = algorithm.pop.get("F")[:, 0], algorithm.opt[0].X
    tried = np.argsort(F)[:4]
    others = np.setdiff1d(np.arange(20), tried)
    np.testing.assert_array_equal(drawn["plain"][:, others], drawn["perturbed"][:, others])
    changed = (drawn["perturbed"][:, tried] != leader).sum(axis=2)
    assert changed.min() >= 1
    assert changed.max() <= 8  # of 30, each with probability 1/30
    assert len(np.unique(drawn["perturbed"][:, tried].reshape(-1, 30), axis=0)) == 4 * n_candidates


def test_a_mutant_becomes_the_leader_only_if_it_is_better():
    algorithm = told(QPSO(6, control=Perturb(ALWAYS, share=1.0)), Shifted(4), 60, termination=("n_gen", 60))
    assert all(generation.acted for generation in algorithm.trace[1:])
    assert algorithm.opt[0].F < 1e-2
    for _ in range(5):
        before = algorithm.pop.get("F")
        algorithm.tell(infills=Evaluator().eval(algorithm.problem, algorithm.ask()))
        assert (algorithm.pop.get("F") <= before).all()


# Choosers


class Recorder:
    """Chooser that keeps what it is given, and lets every second particle move to its last candidate."""

    def __init__(self):
        self.shapes, self.problems, self.chosen = [], [], []

    def __call__(self, problem, positions, random_state):
        self.shapes.append(positions.shape)
        self.problems.append(problem)
        assert ((positions >= problem.xl) & (positions <= problem.xu)).all()
        assert isinstance(random_state, np.random.Generator)
        particles = np.arange(1, positions.shape[1], 2)
        self.chosen.append(positions[-1, particles])
        return particles, positions[-1, particles]


@pytest.mark.parametrize("algorithm", [QPSO, MOQPSO])
def test_a_chooser_sees_all_candidates_and_decides_who_moves_where(algorithm):
    problem = Shifted(3)
    chooser = Recorder()
    swarm = algorithm(6, chooser=chooser, n_candidates=5)
    swarm.setup(problem, termination=NoTermination(), seed=1)
    swarm.tell(infills=Evaluator().eval(problem, swarm.ask()))
    before = swarm.swarm.now.x.copy()
    infills = swarm.ask()
    assert chooser.shapes == [(5, 6, 3)]
    assert chooser.problems == [problem]
    np.testing.assert_array_equal(infills.get("X"), chooser.chosen[0])
    swarm.tell(infills=Evaluator().eval(problem, infills))
    np.testing.assert_array_equal(swarm.swarm.now.x[1::2], chooser.chosen[0])
    np.testing.assert_array_equal(swarm.swarm.now.x[::2], before[::2])
    assert len(swarm.pop) == 6


@pytest.mark.parametrize("algorithm", [QPSO, MOQPSO])
def test_a_chooser_that_finds_nothing_ends_the_search(algorithm):
    calls = []

    def thrice(problem, positions, random_state):
        calls.append(1)
        n = 0 if len(calls) > 3 else positions.shape[1]
        return np.arange(n), positions[0, :n]

    result = minimize(Shifted(3), algorithm(4, chooser=thrice), ("n_eval", 10_000), seed=1)
    assert len(calls) == 4
    assert result.algorithm.evaluator.n_eval == 16
    assert result.F is not None


@pytest.mark.parametrize("algorithm", [QPSO, MOQPSO])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pop_size": 0}, "pop_size must be at least 1, got 0"),
        ({"control": "melt"}, "got 'melt'"),
        ({"n_candidates": 0}, "n_candidates must be at least 1, got 0"),
        ({"n_candidates": 3}, "n_candidates = 3 needs a chooser, got None"),
    ],
)
def test_arguments_out_of_range_are_refused(algorithm, options, says):
    with pytest.raises(InputError, match=says):
        algorithm(**options)


def test_other_mean_bests_boxes_and_numbers_of_objectives_are_refused():
    with pytest.raises(InputError, match=r"one of \['plain', 'weighted'\], got 'median'"):
        QPSO(mean_best="median")
    with pytest.raises(InputError, match="archive_size must be at least 1, got 0"):
        MOQPSO(archive_size=0)
    with pytest.raises(InputError, match="without xl and xu"):
        QPSO().setup(Problem(n_var=2, n_obj=1))
    with pytest.raises(InputError, match="finite"):
        QPSO().setup(Problem(n_var=2, n_obj=1, xl=0.0, xu=np.inf))
    with pytest.raises(InputError, match="got 2; MOQPSO takes several"):
        QPSO().setup(Problem(n_var=2, n_obj=2, xl=0.0, xu=1.0))
