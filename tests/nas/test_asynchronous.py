"""Asynchronous search: told as results come, replayed to the same proposals, and idle only when all is proposed."""

import heapq
import json
import sqlite3
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from fakes import OBJECTIVES, toy_metrics
from test_table_runs import write_run

import nas
from nas.algorithms import ALGORITHMS, build_algorithm
from nas.asynchronous import Conversation, run_asynchronous
from nas.evaluation import Evaluation
from nas.interrupt import DrainedPool
from nas.loop import Quest
from nas.problem import ArchitectureProblem
from nas.rerank import Reranker
from spaces import InputError, load_space

STEADY = sorted(name for name, row in ALGORITHMS.items() if name != "age-moea2")


class VirtualPool:
    """Workers in virtual time: each evaluation takes what is drawn for it, and nothing else takes any.

    Args:
        count: Workers.
        seed: Seed of the durations.
        failing: Share of evaluations that fail.
    """

    def __init__(self, count, seed=0, failing=0.0):
        self.rng, self.free, self.failing = np.random.default_rng(seed), count, failing
        self.count, self.now, self.busy, self.number, self.starved = count, 0.0, 0.0, 0, 0
        self.waiting, self.running = [], []

    def submit(self, architecture, split="validation"):
        self.waiting.append(architecture)
        self._begin()

    def _begin(self):
        while self.free and self.waiting:
            seconds = self.rng.lognormal()
            self.free, self.number, self.busy = self.free - 1, self.number + 1, self.busy + seconds
            heapq.heappush(self.running, (self.now + seconds, self.number, self.waiting.pop(0)))

    @property
    def hungry(self):
        return len(self.waiting) < self.free

    @property
    def idle_share(self):
        return 1 - self.busy / (self.count * self.now)

    def collect(self):
        self.starved += self.free > 0
        self.now, _, architecture = heapq.heappop(self.running)
        self.free += 1
        self._begin()
        failure = "unlucky" if self.rng.random() < self.failing else None
        return Evaluation(architecture, {} if failure else toy_metrics(architecture), 1.0, failure)

    def withdraw(self):
        self.waiting.clear()
        return len(self.running)


class Diary:
    """A diary in memory; it dies, if it is to, after so many results."""

    def __init__(self, dies=None):
        self.after, self.order, self.known, self.dies = {}, {}, {}, dies

    @property
    def proposals(self):
        return list(self.after.items())

    @property
    def told(self):
        return [self.known[each] for each in sorted(self.order, key=self.order.get)]

    def open(self, architecture, generation, *, parents, after):
        assert generation == 1 + after // 20
        assert architecture not in self.after, "proposed twice"
        self.after[architecture] = after

    def close(self, evaluation, *, told):
        assert told == len(self.order), "told out of turn"
        self.order[evaluation.architecture] = told
        self.known[evaluation.architecture] = evaluation
        if self.dies is not None and len(self.known) == self.dies:
            self.dies = None
            raise KeyboardInterrupt


def problem():
    return ArchitectureProblem(load_space("digits"), OBJECTIVES)


def searched(name, diary, pool, budget=120, expand=1, together=None):
    faced = problem()
    algorithm = build_algorithm(name, faced, 20, 5, budget, expand=expand)
    size = together or (1 if ALGORITHMS[name].steady else 20)
    conversation = Conversation(algorithm.problem, algorithm, 20, size, {})
    return run_asynchronous(Quest(faced, pool, diary, budget), conversation)


@pytest.mark.parametrize("name", STEADY)
def test_each_algorithm_spends_its_budget_and_tells_each_result_once(name):
    diary, pool = Diary(), VirtualPool(8)
    ending = searched(name, diary, pool)
    assert (ending.evaluations, ending.reason) == (120, "evaluations")
    assert len(diary.after) == len(diary.known) == 120
    assert any(after % 20 for after in diary.after.values()) or name in ("mo-qpso", "qpso", "random")


@pytest.mark.parametrize("name", ["nsga2", "rvea", "mo-qpso", "random", "ga"])
@pytest.mark.parametrize("dies", [3, 20, 37, 119])
def test_a_search_that_died_goes_on_as_what_it_was(name, dies):
    goes_on(name, dies)


@pytest.mark.parametrize("dies", [20, 53])
def test_so_does_one_with_a_reranker(dies):
    """What is being scored when it dies has a part in what is picked."""
    goes_on("nsga2", dies, expand=4)


def test_a_reranker_knows_what_is_being_scored_from_its_first_pick_on(monkeypatch):
    """Nothing twice, and as much as workers are at or are about to begin."""
    counts, pick = [], Reranker.pick

    def noting(reranker, *given):
        architectures = {reranker._problem.space.decode(each.X) for each in reranker.asked}
        assert len(architectures) == len(reranker.asked)
        counts.append(len(architectures))
        return pick(reranker, *given)

    monkeypatch.setattr(Reranker, "pick", noting)
    searched("nsga2", Diary(), VirtualPool(50), expand=4)
    assert counts[0] == 49  # one is free
    assert 40 <= min(counts) <= max(counts) < 50


def goes_on(name, dies, expand=1):
    diary = Diary(dies)
    with pytest.raises(KeyboardInterrupt):
        searched(name, diary, VirtualPool(8), expand=expand)
    before, order = dict(diary.after), dict(diary.order)
    assert len(order) == dies
    pool = VirtualPool(8, seed=1)  # others are fast now
    searched(name, diary, pool, expand=expand)
    assert list(diary.after.items())[: len(before)] == list(before.items())
    assert {each: diary.order[each] for each in order} == order
    assert len(diary.known) == 120
    assert pool.number == 120 - dies  # what was being scored is scored again, and nothing else


def test_a_replay_of_the_whole_search_asks_for_the_same(monkeypatch):
    diary = Diary()
    searched("nsga2", diary, VirtualPool(8), expand=4)
    again = Diary()
    again.after, again.order, again.known = dict(diary.after), dict(diary.order), dict(diary.known)
    ending = searched("nsga2", again, VirtualPool(8), budget=140, expand=4)
    assert ending.evaluations == 140
    assert list(again.after.items())[:120] == list(diary.after.items())


def test_another_algorithm_does_not_go_on_with_it():
    diary = Diary()
    searched("nsga2", diary, VirtualPool(4), budget=60)
    with pytest.raises(InputError, match="must go on with what its algorithm proposed"):
        searched("sms-emoa", diary, VirtualPool(4), budget=80)


@pytest.mark.parametrize("workers", [8, 100])
def test_a_free_worker_never_waits_for_a_slow_one(workers):
    """Idle are workers at the end only, when all that the budget allows is proposed."""
    pool = VirtualPool(workers)
    searched("nsga2", Diary(), pool, budget=600)
    assert pool.starved < workers
    assert workers == 100 or pool.idle_share < 0.05


def test_failures_are_told_and_do_not_end_it():
    diary = Diary()
    ending = searched("nsga2", diary, VirtualPool(8, failing=0.3), expand=4)
    assert ending.evaluations == 120
    assert 20 < sum(each.failure is not None for each in diary.known.values()) < 60


def test_a_small_space_is_exhausted(space):
    faced, diary = ArchitectureProblem(space, OBJECTIVES), Diary()
    algorithm = build_algorithm("nsga2", faced, 20, 5, 1000, expand=1)
    conversation = Conversation(faced, algorithm, 20, 1, {})
    ending = run_asynchronous(Quest(faced, VirtualPool(8), diary, 1000), conversation)
    assert (ending.evaluations, ending.reason) == (space.size, "exhausted")
    assert len(diary.known) == space.size


def test_what_is_known_is_told_without_a_worker():
    known = {a: Evaluation(a, toy_metrics(a), 9.0) for a in load_space("digits") if a.embed_dim == 16}
    faced, diary, pool = problem(), Diary(), VirtualPool(8)
    algorithm = build_algorithm("nsga2", faced, 20, 5, 60, expand=1)
    run_asynchronous(Quest(faced, pool, diary, 60, known), Conversation(faced, algorithm, 20, 1, {}))
    assert len(diary.known) == 60
    answered = [each for each in diary.known.values() if each.architecture in known]
    assert answered
    assert all(each.seconds == 0 for each in answered)
    assert pool.number == 60 - len(answered)


@pytest.mark.parametrize("name", ["nsga2", "mo-qpso", "random"])
def test_what_it_begins_with_is_told_once_also_where_workers_are_more_than_a_population(name, monkeypatch):
    faced, diary = problem(), Diary()
    begun = {a: Evaluation(a, toy_metrics(a), 9.0) for a in list(islice(load_space("digits"), 10))}
    algorithm = build_algorithm(name, faced, 20, 5, 120, tuple(begun.values()), expand=1)
    told, tell = [], algorithm.tell

    def note(infills):
        told.append([faced.space.decode(x) for x in infills.get("X")])
        tell(infills=infills)

    monkeypatch.setattr(algorithm, "tell", note)
    run_asynchronous(Quest(faced, VirtualPool(70), diary, 120), Conversation(faced, algorithm, 20, 1, begun))
    counts = Counter(architecture for together in told for architecture in together)
    assert set(counts.values()) == {1}
    assert set(counts) == ({*diary.known, *begun} if name != "random" else set(diary.known))
    assert len(told[0]) == 20
    assert not begun.keys() & diary.known.keys()


def test_ctrl_c_keeps_what_is_being_scored_and_does_not_end_the_search_as_finished():
    diary, pool = Diary(), DrainedPool(VirtualPool(8))

    def stop_at_30(_):
        if len(diary.known) == 30:
            pool.end()

    faced = problem()
    algorithm = build_algorithm("nsga2", faced, 20, 5, 120, expand=1)
    quest = Quest(faced, pool, diary, 120, on_evaluation=stop_at_30)
    with pytest.raises(KeyboardInterrupt):
        run_asynchronous(quest, Conversation(faced, algorithm, 20, 1, {}))
    assert 30 < len(diary.known) <= 38  # those that were being scored
    searched("nsga2", diary, VirtualPool(8))
    assert len(diary.known) == 120


class NeverHungry(VirtualPool):
    """Has lost its worker with its last result, and does not know yet that it will get another one."""

    hungry = False


def test_a_search_goes_on_when_nothing_is_to_come_from_any_worker():
    diary = Diary()
    assert searched("nsga2", diary, NeverHungry(1), budget=50).evaluations == 50


class Lazy:
    """Limits that are reached after some results, unless a later one takes it back."""

    def __init__(self, reached, again):
        self.results, self._reached, self._again = 0, reached, again
        self.clock = self.stall = self

    def hear(self, results):
        self.results += len(results)

    def start(self):
        pass

    beat = record = start

    def reached(self):
        return "stall" if self._reached <= self.results < self._again else None


def test_a_limit_that_a_late_result_takes_back_ends_nothing():
    """Else the same command again would replay to a search that is not at its limit, and go on."""
    for again, spent in ((10**9, range(40, 70)), (43, [120])):
        faced, diary = problem(), Diary()
        algorithm = build_algorithm("nsga2", faced, 20, 5, 120, expand=1)
        conversation = Conversation(faced, algorithm, 20, 1, {})
        limits = Lazy(40, again)
        ending = run_asynchronous(Quest(faced, VirtualPool(8), diary, 120, limits=limits), conversation)
        assert ending.evaluations in spent
        assert ending.reason == ("stall" if again > 100 else "evaluations")
        assert len(diary.known) == ending.evaluations


def test_what_died_between_its_proposal_and_its_answer_is_answered_and_not_scored():
    known = {a: Evaluation(a, toy_metrics(a), 9.0) for a in load_space("digits") if a.embed_dim == 16}
    diary = Diary()
    searched("nsga2", diary, VirtualPool(8), budget=60)
    answered = next(each for each in reversed(diary.known) if each in known)
    place = diary.order.pop(answered)
    del diary.known[answered]
    for each in [each for each, told in diary.order.items() if told > place]:  # what came after is lost with it
        del diary.order[each], diary.known[each]
    lost = 60 - len(diary.known)
    faced, pool = problem(), VirtualPool(8)
    algorithm = build_algorithm("nsga2", faced, 20, 5, 60, expand=1)
    conversation = Conversation(faced, algorithm, 20, 1, {})
    kept = dict(list(diary.after.items()))
    diary.after = {each: after for each, after in kept.items() if after <= place}
    run_asynchronous(Quest(faced, pool, diary, 60, known), conversation)
    assert diary.known[answered].seconds == 0
    assert pool.number < lost


def test_a_run_from_before_there_were_modes_goes_on_by_generations_whatever_its_recipe_says_now(tmp_path):
    run = nas.search(write_run(tmp_path), tmp_path / "run", search={"evaluations": 12, "mode": "generational"})
    values = json.loads((run.folder / "run.json").read_text())
    del values["recipe"]["search"]["mode"]
    (run.folder / "run.json").write_text(json.dumps(values))
    with sqlite3.connect(run.folder / "study.db") as connection:
        connection.execute("DELETE FROM study_user_attributes WHERE key = 'mode'")
    again = nas.search(write_run(tmp_path), run.folder, search={"evaluations": 18, "mode": "async"})
    assert again.attribute("mode") == "generational"
    assert len(again.evaluations()) == 18
