"""When a search ends, that a resumed one ends there too, and what limits do in a run folder."""

import numpy as np
import pandas as pd
import pytest
from fakes import OBJECTIVES, FakePool, evaluation, half_failing, narrowed
from test_cli_refusals import refused
from test_table_runs import results, write_run

import nas
from nas.algorithms import build_algorithm
from nas.constraints import parse_constraints
from nas.evaluation import Evaluation
from nas.loop import Quest, run_search
from nas.problem import ArchitectureProblem
from nas.report import REPORT
from nas.stopping import TOLERANCE, Clock, Limits, Stall
from spaces import InputError

REFERENCE = {"accuracy": 0.0, "energy_mj": 1.0}


class Time:
    """A clock that a test moves."""

    def __init__(self):
        self.now, self.kept = 100.0, []

    def clock(self, before=0.0):
        return Clock(before, self.kept.append, lambda: self.now)


def searched(store, space, pool, time, budget=60, seconds=None, stall=None):
    """Search with whatever the store and the kept time hold; return how it ended."""
    problem = ArchitectureProblem(space, OBJECTIVES)
    clock = time.clock(time.kept[-1] if time.kept else 0.0)
    limits = Limits(clock, Stall(problem, REFERENCE), seconds, stall)
    algorithm = build_algorithm("nsga2", problem, 6, 1, expand=1)
    with pool:
        ending = run_search(Quest(problem, pool, store, budget, limits=limits), algorithm)
    return ending


class Memory:
    """A study that outlives the processes of a test."""

    def __init__(self):
        self.trials, self.known = {}, {}

    @property
    def opened(self):
        return len(self.trials)

    @property
    def results(self):
        return [self.known[architecture] for architecture in self.trials if architecture in self.known]

    def open(self, architecture, generation, *, parents=()):
        self.trials.setdefault(architecture, generation)

    def close(self, evaluation):
        self.known.setdefault(evaluation.architecture, evaluation)


class Slow(FakePool):
    """A pool that needs a second for each evaluation."""

    def __init__(self, time, answer=evaluation, **options):
        super().__init__(answer, **options)
        self.time = time

    def collect(self):
        self.time.now += 1.0
        return super().collect()


def asked(store):
    return [result.architecture.key for result in store.results]


# Time


def test_no_generation_begins_after_the_time_is_over(space):
    store = Memory()
    time = Time()
    ending = searched(store, space, Slow(time), time, seconds=13)
    assert (ending.evaluations, ending.reason) == (18, "seconds"), "three generations: 6, 12, 18 s"
    assert time.kept[-1] == 18


def test_a_run_that_its_time_stopped_stays_so_and_a_longer_one_goes_on_like_one_that_was_not(space):
    whole, short = Memory(), Memory()
    searched(whole, space, FakePool(), Time(), budget=36)
    time = Time()
    searched(short, space, Slow(time), time, budget=36, seconds=13)
    time.now += 1000  # until somebody comes back
    pool = Slow(time)
    ending = searched(short, space, pool, time, budget=36, seconds=13)
    assert (ending.evaluations, ending.reason, pool.submitted) == (18, "seconds", [])
    assert len(short.results) == 18
    time.now += 1000
    ending = searched(short, space, Slow(time), time, budget=36, seconds=25)
    assert (ending.evaluations, ending.reason) == (30, "seconds"), "18 s before, and 12 s now"
    ending = searched(short, space, Slow(time), time, budget=36)
    assert (ending.evaluations, ending.reason) == (36, "evaluations")
    assert asked(short) == asked(whole)


def test_the_time_of_a_killed_process_counts_but_for_its_last_evaluation(space):
    store = Memory()
    time = Time()
    with pytest.raises(KeyboardInterrupt):
        searched(store, space, Slow(time, dies_after=9), time, seconds=13)
    assert time.kept[-1] == 9
    time.now += 1000
    ending = searched(store, space, Slow(time), time, seconds=13)
    assert (ending.evaluations, ending.reason) == (18, "seconds"), "9 s, then the other 3 of the generation, then 6"
    assert time.kept[-1] == 18


def test_what_was_proposed_before_a_kill_is_finished_even_if_the_time_is_over(space):
    store = Memory()
    time = Time()
    with pytest.raises(KeyboardInterrupt):
        searched(store, space, Slow(time, dies_after=9), time)
    ending = searched(store, space, Slow(time), time, seconds=2)
    assert (ending.evaluations, ending.reason) == (12, "seconds")
    assert len(store.results) == store.opened == 12


def test_replaying_takes_no_time(space):
    store = Memory()
    time = Time()
    searched(store, space, Slow(time), time, budget=12)

    clock = time.clock(12.0)
    time.now += 500
    assert clock.seconds == 12
    clock.start()
    time.now += 5
    clock.start()
    assert clock.seconds == 17
    ending = searched(store, space, Slow(time), time, budget=12, seconds=13)
    assert ending.reason == "evaluations"
    assert time.kept[-1] == 12


def test_time_is_recorded_at_the_end_of_a_generation_however_short(space):
    store = Memory()
    time = Time()

    def quick(architecture):
        time.now += 0.1
        return evaluation(architecture)

    searched(store, space, FakePool(quick), time, budget=18)
    assert time.kept == pytest.approx([0.6, 1.2, 1.8])


# Stalling


def volumes(*values, failing=()):
    """Return a stall that has heard of evaluations with these accuracies."""

    class Space:
        columns, cardinalities = ("a",), np.array([2])

    constraints = parse_constraints({"max_energy_mj": 0.5}, ["energy_mj"])
    stall = Stall(ArchitectureProblem(Space(), OBJECTIVES, constraints), REFERENCE)
    counts = []
    for value in values:
        metrics = {"accuracy": abs(value), "energy_mj": 0.5 if value >= 0 else 0.6}
        stall.hear([Evaluation("a", metrics, 0.0) if value else Evaluation("a", {}, 0.0, "no")])
        counts.append(stall.evaluations)
    return counts


def test_evaluations_since_the_last_increase_by_hand():
    assert volumes(0.1, 0.1, 0.05, 0.2, 0.15) == [0, 1, 2, 0, 1]
    assert volumes(0, 0, 0.1, 0, 0.2) == [1, 2, 0, 1, 0], "failures count and add nothing"
    assert volumes(0.1, -0.9, -0.9, 0.2) == [0, 1, 2, 0], "so do those that break constraints"


def test_small_steps_are_none_until_they_add_up():
    step = TOLERANCE * 0.4
    assert volumes(*(0.5 * (1 + i * step) for i in range(6))) == [0, 1, 2, 0, 1, 2]


def test_a_search_stops_when_it_finds_nothing_better(space):
    store = Memory()
    found = Evaluation(None, {"accuracy": 0.5, "energy_mj": 0.5}, 0.0)

    def flat(architecture):
        return Evaluation(architecture, found.metrics, 0.0)

    ending = searched(store, space, FakePool(flat), Time(), stall=12)
    assert (ending.evaluations, ending.reason) == (18, "stall"), "12 of 13 add nothing; generations are of 6"


@pytest.mark.parametrize("answer", [evaluation, half_failing])
def test_a_stalled_search_stops_at_the_same_evaluation_when_killed_and_goes_on_when_told(answer, space):
    whole, killed, never = Memory(), Memory(), Memory()
    ending = searched(whole, space, FakePool(answer), Time(), budget=200, stall=15)
    assert ending.reason == "stall"
    assert 15 < ending.evaluations < 200
    for lives in (1, 8, 5):
        with pytest.raises(KeyboardInterrupt):
            searched(killed, space, FakePool(answer, dies_after=lives), Time(), budget=200, stall=15)
    again = searched(killed, space, FakePool(answer), Time(), budget=200, stall=15)
    assert (again, asked(killed)) == (ending, asked(whole))
    longer = searched(killed, space, FakePool(answer), Time(), budget=200, stall=30)
    searched(never, space, FakePool(answer), Time(), budget=200, stall=30)
    assert longer.evaluations > ending.evaluations
    assert asked(killed) == asked(never)


def test_a_space_that_is_exhausted_says_so(space):
    store = Memory()
    small = narrowed(space, tau=[2.0], v_threshold=[1.0], timesteps=[1], depth=[1])
    ending = searched(store, small, FakePool(), Time())
    assert (ending.evaluations, ending.reason) == (4, "exhausted")


# Runs


def test_the_reason_is_kept_shown_and_the_baseline_has_as_many(command, tmp_path):
    recipe, folder = write_run(tmp_path, table=results().assign(acc=0.5)), tmp_path / "run"
    code, out, _ = command("search", recipe, "--out", folder, "--stall", 8, "--evaluations", 30)
    run = nas.Run(folder)
    assert code == 0
    assert run.stopped == "stall"
    spent = len(run.evaluations())
    assert 8 < spent < 30
    assert len(run.evaluations("random")) == spent
    line = f"stopped after {spent} evaluations: no increase of the hypervolume in 8 evaluations"
    assert run.why_stopped() == line
    assert line in out.splitlines()
    assert line in (folder / REPORT).read_text()
    code, out, _ = command("search", recipe, "--out", folder, "--stall", 8, "--evaluations", 30)
    assert line in out.splitlines()
    assert len(nas.Run(folder).evaluations()) == spent
    code, out, _ = command("search", recipe, "--out", folder, "--stall", 500, "--evaluations", 30)
    assert "stopped after 30 evaluations: all that search.evaluations allows" in out.splitlines()
    run = nas.Run(folder)
    assert (run.stopped, len(run.evaluations("random"))) == ("evaluations", 30)


def test_a_run_stops_by_its_time(command, tmp_path, comparable):
    recipe, folder = write_run(tmp_path), tmp_path / "run"
    code, out, _ = command("search", recipe, "--out", folder, "--seconds", 1e-9)
    run = nas.Run(folder)
    assert (code, run.stopped, len(run.evaluations()), len(run.evaluations("random"))) == (0, "seconds", 6, 6)
    assert "stopped after 6 evaluations: 1e-09 seconds were over" in out.splitlines()
    before = comparable(run)
    command("search", recipe, "--out", folder, "--seconds", 1e-9)
    pd.testing.assert_frame_equal(comparable(nas.Run(folder)), before)
    command("search", recipe, "--out", folder, "--seconds", 600)
    never = nas.search(recipe, tmp_path / "never")
    pd.testing.assert_frame_equal(comparable(nas.Run(folder)), comparable(never))


def test_a_run_that_goes_on_has_not_stopped(tmp_path, listener):
    class Interrupting(type(listener)):
        def evaluated(self, evaluation):
            super().evaluated(evaluation)
            if len(self.heard["search"]) == 10:
                raise KeyboardInterrupt

    recipe, folder = write_run(tmp_path), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        nas.search(recipe, folder, reporter=Interrupting())
    assert nas.Run(folder).stopped is None
    assert nas.Run(folder).why_stopped() is None
    assert nas.search(recipe, folder).stopped == "evaluations"
    with pytest.raises(KeyboardInterrupt):
        nas.search(recipe, folder, reporter=Interrupting(), search={"evaluations": 30})
    assert nas.Run(folder).stopped is None, "it goes on"


def test_limits_grow_in_a_folder_and_never_shrink(tmp_path):
    recipe = write_run(tmp_path, ("evaluations = 24", "evaluations = 24\nbaseline = false"))
    folder = tmp_path / "run"
    nas.search(recipe, folder, search={"seconds": 60.0, "stall": 9})
    for name, least in (("seconds", 60.0), ("stall", 9), ("evaluations", 24)):
        with pytest.raises(InputError, match=rf"search\.{name} can grow in a run folder, not shrink: {least} in"):
            nas.search(recipe, folder, search={"seconds": 60.0, "stall": 9, name: 5})
    nas.search(recipe, folder, search={"seconds": 70.0})
    with pytest.raises(InputError, match=r"search\.stall can grow .*, not shrink: no limit in .*, got 9"):
        nas.search(recipe, folder, search={"seconds": 70.0, "stall": 9})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--seconds", "0"], "search.seconds should be greater than 0, got 0"),
        (["--seconds", "nan"], "must be texts, finite numbers"),
        (["--stall", "0"], "search.stall should be greater than or equal to 1, got 0"),
    ],
)
def test_limits_of_nothing_are_refused(options, text, command, tmp_path):
    assert text in refused(command("search", write_run(tmp_path), "--out", tmp_path / "run", *options))
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_only_trained_can_be_searched_in_any_way(trained):
    config = nas.Run(trained).config
    run = nas.search(config, trained, search={"algorithm": "spea2", "evaluations": 6, "population": 3, "stall": 90})
    assert (len(run.evaluations()), run.config.search.algorithm) == (6, "spea2")
    with pytest.raises(InputError, match=r"differs in search\.algorithm"):
        nas.search(config, trained)
