"""Scoring of groups: what is computed once gives what each architecture gets by itself, also when some fail."""

from dataclasses import replace

import pytest

from nas.scoring import Scorer, build_job
from nas.workers import LocalPool
from spaces import Architecture, Layer
from supernet.calibrate import calibrate
from supernet.engine import Engine
from supernet.neurons import SpikingNeuron

TOO_WIDE = Architecture(32, 1, (Layer(1.0, 1, 1.0, 2.0),))


@pytest.fixture(scope="module")
def job(finished):
    return build_job(finished.config, finished.data, finished.supernet())


@pytest.fixture(scope="module")
def architectures(space):
    return list(space)[::48]


@pytest.fixture
def calls(monkeypatch):
    """Sizes of the groups that engines have scored."""
    calls, score = [], Engine.score

    def noted(self, architectures, calibration, scored):
        calls.append(len(architectures))
        return score(self, architectures, calibration, scored)

    monkeypatch.setattr(Engine, "score", noted)
    return calls


def values(results):
    return [(result.architecture, dict(result.metrics), result.failure) for result in results]


def one_by_one(job, architectures, split="validation"):
    scorer = Scorer(job)
    return values(scorer.score(architecture, split) for architecture in architectures)


# --- together and alone


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("precision", ["exact", "bf16", "int8"])
def test_a_group_gets_what_each_gets_by_itself(job, architectures, calls, split, precision):
    rounded = replace(job, precision=precision)
    alone = one_by_one(rounded, architectures, split)
    assert calls == [1] * len(architectures)
    calls.clear()
    assert values(Scorer(rounded).score_together(architectures, split)) == alone
    assert calls == [len(architectures)]
    backwards = values(Scorer(rounded).score_together(architectures[::-1], split))
    assert backwards[::-1] == alone
    assert all(failure is None for *_, failure in alone)
    assert len({str(metrics) for _, metrics, _ in alone}) == len(alone)


@pytest.mark.parametrize("memory", [0, 100_000])
def test_a_group_gets_the_same_with_whatever_memory(job, architectures, memory):
    small = replace(job, memory=memory)
    assert values(Scorer(small).score_together(architectures)) == one_by_one(job, architectures)


def test_an_architecture_may_stand_twice_in_a_group(job, architectures, calls):
    first, other = architectures[:2]
    results = values(Scorer(job).score_together([first, other, first]))
    assert results == one_by_one(job, [first, other, first])
    assert calls[0] == 3


def test_groups_leave_nothing_behind_in_their_scorer(job, architectures):
    scorer = Scorer(job)
    once = values(scorer.score_together(architectures[:3]))
    list(scorer.score_together(architectures[2:], "test"))
    list(scorer.score_together([TOO_WIDE, *architectures[:1]]))
    assert values(scorer.score_together(architectures[:3])) == once
    assert list(scorer.score_together([])) == []


def test_metrics_that_need_no_images_run_no_network(job, architectures, calls):
    results = list(Scorer(replace(job, metrics=("parameters",))).score_together(architectures))
    assert calls == []
    assert all(result.metrics["parameters"] > 0 for result in results)


def test_the_common_work_counts_for_each_with_its_part(job, architectures, monkeypatch):
    """By a clock that goes on by 1 whenever it is read, and by 90 meanwhile."""
    ticks, score = iter(range(1000)), Engine.score

    def slow(self, *arguments):
        for _ in range(90):
            next(ticks)
        return score(self, *arguments)

    monkeypatch.setattr(Engine, "score", slow)
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    seconds = [result.seconds for result in Scorer(job).score_together(architectures[:3])]
    assert all(30 < part < 35 for part in seconds), seconds
    assert 90 < sum(seconds) < next(ticks)


# --- failures


@pytest.mark.parametrize("at", [0, 2, 4])
def test_an_architecture_that_does_not_fit_spoils_no_other(job, architectures, at):
    group = architectures[:4]
    expected = one_by_one(job, group)
    results = values(Scorer(job).score_together([*group[:at], TOO_WIDE, *group[at:]]))
    architecture, metrics, failure = results.pop(at)
    assert (architecture, metrics) == (TOO_WIDE, {})
    assert failure.startswith("InputError: an architecture must fit into the network that runs it")
    assert results == expected


def test_a_group_that_is_too_much_at_once_is_scored_one_by_one(job, architectures, monkeypatch):
    expected, score, sizes = one_by_one(job, architectures), Engine.score, []

    def tight(self, group, calibration, scored):
        sizes.append(len(group))
        if len(group) > 1:
            raise MemoryError("too many")
        return score(self, group, calibration, scored)

    monkeypatch.setattr(Engine, "score", tight)
    assert values(Scorer(job).score_together(architectures)) == expected
    assert sizes == [len(architectures)] + [1] * len(architectures)


def test_what_fails_alone_too_is_a_failure_and_the_others_go_on(job, architectures, monkeypatch):
    expected, score, bad = one_by_one(job, architectures[:3]), Engine.score, architectures[1]

    def broken(self, group, calibration, scored):
        if bad in group:
            raise RuntimeError("not that one")
        return score(self, group, calibration, scored)

    monkeypatch.setattr(Engine, "score", broken)
    results = values(Scorer(job).score_together(architectures[:3]))
    assert results == [expected[0], (bad, {}, "RuntimeError: not that one"), expected[2]]


RAISING = """
class Raises:
    metrics = {"own": "min"}

    def __init__(self, width: int):
        self.width = width

    def __call__(self, candidate):
        if candidate.architecture.embed_dim == self.width:
            raise LookupError("no such thing")
        return {"own": float(candidate.outcome.images)}
"""


def test_an_evaluator_that_raises_does_not_break_up_its_group(job, space, own_module, calls):
    own_module("raises_at", RAISING)
    name = "raises_at:Raises"
    own = replace(job, metrics=("accuracy", name), options={name: {"width": 8}})
    group = [space.smallest(), space.largest()]
    narrow, wide = Scorer(own).score_together(group)
    assert (narrow.metrics, narrow.failure) == ({}, "LookupError: no such thing")
    assert wide.metrics["own"] == 60
    assert calls == [2]


# --- the pool of this process


def test_results_come_in_the_order_of_submission_with_mixed_splits(job, architectures, calls):
    a, b, c, d = architectures[:4]
    entries = [(a, "validation"), (b, "validation"), (c, "test"), (a, "test"), (d, "validation"), (a, "validation")]
    expected = [one_by_one(job, [architecture], split)[0] for architecture, split in entries]
    calls.clear()
    with LocalPool(job) as pool:
        for entry in entries:
            pool.submit(*entry)
        assert values(pool.collect() for _ in entries) == expected
    assert calls == [2, 2, 2]
    assert expected[0] != expected[3]


def test_what_is_submitted_while_results_are_collected_comes_after_them(job, architectures):
    a, b, c, d = architectures[:4]
    with LocalPool(job) as pool:
        pool.submit(a)
        pool.submit(b)
        first = pool.collect()
        pool.submit(c, "test")
        pool.submit(d)
        rest = [pool.collect() for _ in range(3)]
    assert [result.architecture for result in (first, *rest)] == [a, b, c, d]
    assert values(rest)[1:2] == one_by_one(job, [c], "test")


def test_a_pool_goes_on_after_a_group_with_a_failure(job, architectures):
    a, b = architectures[:2]
    with LocalPool(job) as pool:
        for architecture in (a, TOO_WIDE, b):
            pool.submit(architecture)
        results = values(pool.collect() for _ in range(3))
    assert [results[0], results[2]] == one_by_one(job, [a, b])
    assert results[1][1] == {}


# --- executors


def test_reference_finds_the_accuracies_of_the_finished_front(finished, job, calls):
    front = finished.front()
    architectures = [finished.architecture(key) for key in front["key"]]
    plain = list(Scorer(replace(job, executor="reference")).score_together(architectures))
    assert calls == []
    fast = list(Scorer(job).score_together(architectures))
    assert calls == [len(architectures)]
    for one, other, accuracy in zip(plain, fast, front["accuracy"], strict=True):
        assert one.failure is None
        assert one.metrics["accuracy"] == other.metrics["accuracy"] == accuracy
        assert one.metrics["parameters"] == other.metrics["parameters"]
        assert one.metrics["spikes"] == pytest.approx(other.metrics["spikes"], rel=1e-3)
        assert one.metrics["energy_mj"] == pytest.approx(other.metrics["energy_mj"], rel=1e-3)


def test_reference_computes_each_subnet_in_plain_torch(job, architectures, monkeypatch):
    executors = []

    def noting(subnet, batches):
        executors.extend(module.executor for module in subnet.modules() if isinstance(module, SpikingNeuron))
        return calibrate(subnet, batches)

    monkeypatch.setattr("evaluators.base.calibrate", noting)
    Scorer(replace(job, executor="reference")).score(architectures[0])
    assert set(executors) == {"reference"}
