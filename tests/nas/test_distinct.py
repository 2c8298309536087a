"""Algorithms of the user's own: found by name, checked before a training, and held to proposing nothing twice."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from fakes import OBJECTIVES, FakePool, evaluation, half_failing, proposals, three_metrics, toy_metrics
from pymoo.algorithms.moo.moead import MOEAD
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population
from pymoo.util.ref_dirs import get_reference_directions
from test_algorithms import SMALL, flat
from test_asynchronous import Diary, VirtualPool, searched

import nas
from nas.algorithms import build_algorithm, check_algorithm, check_fitness
from nas.constraints import parse_constraints
from nas.contest import MemoryRecord
from nas.evaluation import Evaluation
from nas.loop import Quest, run_search
from nas.modes import settle_mode
from nas.plan import Row
from nas.problem import ArchitectureProblem
from nas.sections import SearchConfig, WorkersConfig
from nas.storage import Notes
from spaces import InputError, SearchSpace, load_space


class Obstinate(Algorithm):
    """Proposes the smallest architecture in each generation, and besides it what chance gives it, with repeats."""

    def __init__(self, plan):
        super().__init__()
        self.count, self.heard = plan.population, []

    def _initialize_infill(self):
        return self._infill()

    def _infill(self):
        X = self.random_state.uniform(0, self.problem.space.cardinalities, (self.count, self.problem.n_var))
        X[0] = 0
        X[1] = X[-1]
        return Population.new(X=X)

    def _initialize_advance(self, infills, **_):
        self._advance(infills)

    def _advance(self, infills, **_):
        self.heard.append([(tuple(each.X), each.F.tolist(), each.FEAS[0]) for each in infills])


class Stuck(Obstinate):
    """Proposes the smallest architecture, and nothing else."""

    def _infill(self):
        return Population.new(X=np.zeros((self.count, self.problem.n_var)))


class Done(Stuck):
    """Proposes one architecture, once."""

    def _infill(self):
        return None if self.is_initialized else super()._infill()


class Outside(Stuck):
    """Proposes what is no vector of the space."""

    def _infill(self):
        return Population.new(X=np.full((self.count, self.problem.n_var), self.wrong))


def outside(wrong):
    def build(plan):
        algorithm = Outside(plan)
        algorithm.wrong = wrong
        return algorithm

    return build


def of_pymoo(plan):
    """Return NSGA-II as pymoo has it: real operators, bounds of indices, no regard to architectures."""
    return NSGA2(pop_size=plan.population)


class Particles(Obstinate):
    """Proposes the same individuals again and again, which it moves."""

    def _infill(self):
        X = super()._infill().get("X")
        if self.pop is None or len(self.pop) == 0:
            return Population.new(X=X)
        for individual, position in zip(self.pop, X, strict=True):
            individual.X = position
        return self.pop


STEADY = Row(Obstinate, asynchronous=True, steady=True)
REALS = Row(of_pymoo, reals=True)
SCALAR = Row(Obstinate, scalar=True)
SEVERAL = Row(Obstinate, fewest=3)
NOTHING = 3


def returns_nothing(plan):
    return None


def breaks(plan):
    return plan.nonsense


def stumbles(plan):
    return {}["much"]


def unconstrained(plan):
    return MOEAD(get_reference_directions("uniform", 2, n_partitions=plan.population - 1))


def set_up(plan):
    algorithm = Obstinate(plan)
    algorithm.setup(plan.problem)
    return algorithm


@pytest.mark.parametrize("answer", [evaluation, half_failing], ids=["sound", "half failing"])
@pytest.mark.parametrize("name", ["Obstinate", "Stuck", "of_pymoo", "REALS", "SCALAR"])
def test_nothing_is_proposed_twice_and_all_of_a_space_is_found(name, answer, space):
    generations, _ = proposals(f"test_distinct:{name}", space, 1000, answer=answer)
    assert Counter(flat(generations)).most_common(1)[0][1] == 1
    assert set(flat(generations)) == set(space)


@pytest.mark.parametrize("name", ["Obstinate", "of_pymoo", "REALS"])
def test_same_seed_proposes_the_same_and_another_seed_something_else(name, space):
    first, again, other = (proposals(f"test_distinct:{name}", space, 80, seed=seed)[0] for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", ["Obstinate", "Particles"])
def test_repeats_are_told_what_was_found_in_the_order_in_which_they_were_proposed(name, space):
    generations, distinct = proposals(f"test_distinct:{name}", space, 60, population=6)
    heard = distinct._algorithm.heard
    assert {len(generation) for generation in heard} == {6}
    assert any(len(generation) < 6 for generation in generations)
    for generation in heard:
        for X, F, _ in generation:
            metrics = toy_metrics(space.decode(X))
            assert [-metrics["accuracy"], metrics["energy_mj"]] == F
        assert generation[0][0] == (0,) * len(space.columns)
        assert generation[1] == generation[-1]


def test_where_an_algorithm_is_stuck_its_individuals_are_moved(space):
    generations, distinct = proposals("test_distinct:Stuck", space, 16, population=6)
    assert [len(generation) for generation in generations] == [1, 6, 6, 6]
    moved = [X for X, *_ in distinct._algorithm.heard[-1]]
    assert [space.decode(X) for X in moved] == generations[-1]


def test_an_algorithm_that_proposes_nothing_more_ends_the_search(space):
    generations, _ = proposals("test_distinct:Done", space, 16)
    assert [len(generation) for generation in generations] == [1]


def test_what_static_constraints_forbid_is_told_as_a_violation_and_not_proposed(space):
    class Static:
        names = ("width",)

        def __call__(self, architecture):
            return {"width": three_metrics(architecture)["width"]}

    constraints = parse_constraints({"min_width": 9.0}, ["accuracy", "energy_mj", "width"])
    problem = ArchitectureProblem(space, OBJECTIVES, constraints, Static())
    algorithm = build_algorithm("test_distinct:Obstinate", problem, 6, 0, expand=1)
    for _ in range(4):
        asked = algorithm.ask()
        assert all(space.decode(x).embed_dim == 16 for x in asked.get("X"))
        results = [toy_metrics(space.decode(x)) | {"width": 16.0} for x in asked.get("X")]
        algorithm.tell(infills=problem.fill(asked, results))
    heard = algorithm._algorithm.heard
    assert len(heard) >= 4
    for X, _, feasible in chain(*heard):
        assert feasible == (space.decode(X).embed_dim == 16)


@pytest.mark.parametrize("together", [1, 20])
@pytest.mark.parametrize("dies", [3, 20, 37, 119])
def test_an_asynchronous_search_that_died_goes_on_as_what_it_was(dies, together):
    diary = Diary(dies)
    with pytest.raises(KeyboardInterrupt):
        searched("test_distinct:STEADY", diary, VirtualPool(8), together=together)
    before = dict(diary.after)
    ending = searched("test_distinct:STEADY", diary, VirtualPool(8, seed=1), together=together)
    assert (ending.evaluations, len(diary.known)) == (120, 120)
    assert list(diary.after.items())[: len(before)] == list(before.items())


def test_a_generational_search_that_died_goes_on_as_what_it_was(space):
    def run(record, pool):
        problem = ArchitectureProblem(space, OBJECTIVES)
        run_search(Quest(problem, pool, record, 40), build_algorithm("test_distinct:REALS", problem, 8, 3, expand=1))
        return list(record.known)

    record = MemoryRecord()
    with pytest.raises(KeyboardInterrupt):
        run(record, FakePool(dies_after=21))
    assert set(run(record, FakePool())) == set(run(MemoryRecord(), FakePool()))
    assert len(record.known) == 40


def test_results_that_a_search_begins_with_are_told_and_not_proposed(space):
    begun = [Evaluation(a, toy_metrics(a), 0.0) for a in list(space)[:150]]
    problem = ArchitectureProblem(space, OBJECTIVES)
    algorithm = build_algorithm("test_distinct:Obstinate", problem, 6, 0, start=begun, expand=1)
    known, proposed = {each.architecture for each in begun}, set()
    for _ in range(8):
        asked = algorithm.ask()
        proposed |= {space.decode(x) for x in asked.get("X")}
        algorithm.tell(infills=problem.fill(asked, [toy_metrics(space.decode(x)) for x in asked.get("X")]))
    assert not proposed & known
    first = [-begun[0].metrics["accuracy"], begun[0].metrics["energy_mj"]]
    assert all(generation[0][1] == first for generation in algorithm._algorithm.heard)


# What is refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:X", "search.algorithm 'no_such_module:X' cannot be imported"),
        ("test_distinct:Missing", "search.algorithm 'test_distinct:Missing' cannot be imported"),
        (
            "test_distinct:NOTHING",
            r"is called with a nas.plan.Plan, .* but 'test_distinct:NOTHING' cannot .* 3 is not",
        ),
        ("test_distinct:outside", "must return a pymoo Algorithm, got <function"),
        ("test_distinct:returns_nothing", "'test_distinct:returns_nothing' must return a pymoo Algorithm, got None"),
        ("test_distinct:breaks", "'test_distinct:breaks' cannot be built: AttributeError: 'Plan' object has no attr"),
        (
            "test_distinct:stumbles",
            r"stumbles' cannot be built: KeyError: 'much' \(test_distinct.py, line",
        ),
        ("test_distinct:unconstrained", "cannot be set up for this problem: AssertionError: .*moead.py, line"),
        ("test_distinct:set_up", "leave setup"),
        ("test_distinct:SEVERAL", "test_distinct:SEVERAL searches for 3 or more objectives, got 2"),
        ("pymoo.algorithms.moo.nsga2:NSGA2", r"is a class of pymoo, .* that returns NSGA2\(...\), and name that"),
    ],
)
def test_what_is_no_algorithm_is_refused_before_the_training(name, message, recipe, tmp_path, listener):
    with pytest.raises(InputError, match=message):
        nas.search(recipe, tmp_path / "run", reporter=listener, search={"algorithm": name})
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_compared_is_refused_before_the_training(recipe, tmp_path, listener):
    with pytest.raises(InputError, match="'test_distinct:stumbles' cannot be built"):
        nas.compare(recipe, ["nsga2", "test_distinct:stumbles"], seeds=1, out=tmp_path / "run", reporter=listener)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"expand": 20}, "search.expand must be 1 with test_distinct:Obstinate, got 20"),
        ({"mode": "async"}, r"search.mode must be generational with test_distinct:Obstinate.*asynchronous=True"),
        ({"fitness": "spikes"}, r"search.fitness is for \['ga', 'qpso'\], got 'spikes' with"),
    ],
)
def test_options_that_make_no_sense_are_refused(keys, message, recipe, tmp_path):
    with pytest.raises(InputError, match=message):
        nas.search(recipe, tmp_path / "run", search={"algorithm": "test_distinct:Obstinate", **keys})


@pytest.mark.parametrize(
    ("name", "mode"),
    [("test_distinct:Obstinate", "generational"), ("test_distinct:STEADY", "async"), ("nsga2", "async")],
)
def test_several_workers_search_asynchronously_if_the_algorithm_can(name, mode):
    class Empty:
        study, opened = Notes({}, lambda _: None), 0

    assert settle_mode(SearchConfig(algorithm=name), WorkersConfig(pool="ray", count=2), Empty()) == mode
    assert settle_mode(SearchConfig(algorithm=name, mode="async"), WorkersConfig(), Empty()) == mode


def test_an_algorithm_that_climbs_takes_a_fitness():
    check_fitness("spikes", ["nsga2", "test_distinct:SCALAR"])
    assert check_algorithm("test_distinct:SCALAR", 1).scalar


@pytest.mark.parametrize("wrong", [np.nan, -0.5, 2.0, "x"])
def test_what_is_outside_of_the_space_is_refused(wrong, monkeypatch, space):
    monkeypatch.setitem(globals(), "WRONG", outside(wrong))
    with pytest.raises(InputError, match="test_distinct:WRONG must propose numbers from 0 to below the number of"):
        proposals("test_distinct:WRONG", space, 4)


# Comparisons


def test_an_algorithm_of_ones_own_is_compared_by_its_name(tmp_path):
    from test_table_runs import write_run

    found = nas.compare(
        write_run(tmp_path), ["nsga2", "test_distinct:REALS"], seeds=2, level="test_distinct:REALS:24", workers=1
    )
    assert found.summary["algorithm"].tolist() == ["nsga2", "test_distinct:REALS"]
    assert (found.summary["distinct"] == 24).all()
    with pytest.raises(InputError, match=r"search.expand must be 1 with test_distinct:REALS, got 20"):
        nas.compare(tmp_path / "known.toml", ["test_distinct:REALS@20"], seeds=1)


def test_small_spaces_are_exhausted_also_in_reals():
    small = SearchSpace.from_dict(SMALL)
    generations, _ = proposals("test_distinct:REALS", small, 100)
    assert set(flat(generations)) == set(small)
    assert load_space("digits").size > small.size
