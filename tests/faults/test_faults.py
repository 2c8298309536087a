"""Searches that faults are injected into end as they should: the quick part of ``make faults``."""

import pytest
import scenarios
from bench import Bench, judge
from fault_evaluator import KINDS, chance, fault
from postgres import PASSWORD

import nas


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    return scenarios.References(tmp_path_factory.mktemp("references"))


def sound(row):
    assert row.wrong == []
    return row


def test_the_faults_that_befall_an_architecture_are_as_frequent_as_they_should_be():
    keys = [f"{number:x}" for number in range(4000)]
    kinds = [fault(key, {"poison": 0.1, "nan": 0.2}) for key in keys]
    assert kinds.count("poison") == pytest.approx(400, abs=80)
    assert kinds.count("nan") == pytest.approx(800, abs=110)
    assert set(kinds) == {"poison", "nan", None} < {*KINDS, None}
    assert chance("a", "x") != chance("a", "y")


def test_the_judge_sees_what_is_lost_repeated_and_wrong(references, tmp_path):
    bench = Bench(tmp_path / "one", evaluations=20, seconds=0.0)
    assert bench.finish() == 0
    kept, good = bench.kept(), judge(bench, bench.kept(), references.of(bench))
    assert (good.evaluations, good.lost, good.repeated, good.again, good.wrong) == (40, 0, 0, 0, [])
    key = bench.calls()["key"].iloc[0]
    for late in (0.0, 4e9):
        with bench.log.open("a") as log:
            log.write(f"begin {key} {late} 1\n")
    bad = judge(bench, kept | {("search", "gone"): 1.0, ("search", key): -1.0}, references.of(bench))
    assert (bad.lost, bad.repeated, bad.again) == (2, 1, 1)
    other = Bench(tmp_path / "two", evaluations=20, seconds=0.0, seed=1)
    assert any("differs" in line for line in judge(bench, (), other_run(other)).wrong)


def other_run(bench):
    assert bench.finish() == 0
    return bench


def test_a_driver_that_is_killed_again_and_again_loses_and_repeats_nothing(references, tmp_path):
    row = scenarios.driver_kills(tmp_path, references, "generational", None, runs=1, kills=2, evaluations=30)
    assert sound(row).injected >= 1


def test_a_cluster_of_three_nodes_that_loses_one_gives_the_table_of_one_process(references, tmp_path):
    row = scenarios.nodes(tmp_path, references, "generational", evaluations=40, join=False)
    assert "workers" in sound(row).notes


@pytest.mark.slow
def test_bad_architectures_fail_and_nothing_else_does(references, tmp_path):
    shares = {"evaluations": 20, "share": 0.4}
    row = sound(scenarios.bad_architectures(tmp_path, references, "async", "all", **shares))
    assert row.total("failed") >= 5
    reasons = set(nas.Run(tmp_path / "all-async" / "run").evaluations()["failure"].dropna().str.split(":").str[0])
    assert len(reasons) >= 3


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "workers"), [("generational", 2), ("async", None), ("async", 2)])
def test_a_driver_can_be_killed_at_any_moment(mode, workers, references, tmp_path):
    sound(scenarios.driver_kills(tmp_path, references, mode, workers, runs=2))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["generational", "async"])
class TestEachFault:
    """Each in both modes, as in the table."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_bad_architectures(self, kind, mode, references, tmp_path):
        sound(scenarios.bad_architectures(tmp_path, references, mode, kind))

    def test_ctrl_c(self, mode, references, tmp_path):
        sound(scenarios.interrupts(tmp_path, references, mode, 2))

    def test_killed_workers(self, mode, references, tmp_path):
        sound(scenarios.worker_kills(tmp_path, references, mode))

    def test_nodes_that_leave_and_join(self, mode, references, tmp_path):
        sound(scenarios.nodes(tmp_path, references, mode))

    def test_a_full_disk(self, mode, references, tmp_path):
        row = scenarios.full_disk(tmp_path, references, mode)
        if row is None:
            pytest.skip("a small disk can be mounted by root only")
        sound(row)

    def test_a_second_driver(self, mode, references, tmp_path):
        sound(scenarios.second_driver(tmp_path, references, mode))

    @pytest.mark.parametrize("killed", [False, True])
    def test_a_store_that_is_away(self, killed, mode, references, tmp_path, postgres):
        sound(scenarios.outage(tmp_path, references, postgres, mode, password=PASSWORD, killed=killed))
