"""A pool on a Ray that somebody else has started: deaths, time-outs, and workers that are missing."""

import contextlib
import json
import os
import sys
import threading
import time
from dataclasses import replace

import pytest
import ray
from fakes import LITTLE, METRICS, write_recipe
from test_pools import scored
from test_table_runs import results, write_run

import nas
from nas import ray_pool
from nas.config import load_recipe
from nas.evaluation import this_process
from nas.ray_pool import RayPool
from nas.scoring import build_job
from nas.table_source import TableSource
from nas.workers import LocalPool, NothingToComeError
from spaces import InputError

FATAL = """
import os
import pathlib
import time

class Fatal:
    metrics = {"own_depth": "min"}

    def __init__(self, folder: str, once: str = "", always: str = "", raising: str = "", hanging: str = "",
                 seconds: float = 0.0):
        self.folder, self.seconds, self.hanging = pathlib.Path(folder), seconds, hanging
        self.once, self.always, self.raising = once, always, raising

    def __call__(self, candidate):
        key = candidate.architecture.key
        calls = len(list(self.folder.glob(key + "-*")))
        first = calls == 0 if self.once == key else not list(self.folder.iterdir())
        (self.folder / f"{key}-{calls}").touch()
        if key == self.always or (self.once in (key, "anything") and first):
            os._exit(1)
        if key == self.raising:
            raise LookupError("no such thing")
        time.sleep(60 if key == self.hanging else self.seconds)
        return {"own_depth": float(candidate.architecture.depth)}
"""


@pytest.fixture(scope="module")
def job(finished):
    return build_job(finished.config, finished.data, finished.supernet())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray cluster of this process, whose workers can import the module ``fatal``."""
    folder = tmp_path_factory.mktemp("fatal")
    (folder / "fatal.py").write_text(FATAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)  # listen to this machine only
        ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()
        sys.modules.pop("fatal", None)


def fatal_job(job, folder, **options):
    folder.mkdir()
    name = "fatal:Fatal"
    return replace(job, metrics=("accuracy", name), options={name: {"folder": str(folder), **options}})


def calls(folder, architecture):
    return len(list(folder.glob(f"{architecture.key}-*")))


@pytest.fixture(scope="module")
def accident(cluster, job, space, tmp_path_factory):
    """Results of a pool in which workers die and evaluators raise, those of this process, and the calls made."""
    architectures = list(space)[::32]
    once, always, raising = architectures[1], architectures[3], architectures[5]
    folder = tmp_path_factory.mktemp("accident")
    keys = {"once": once.key, "always": always.key, "raising": raising.key, "seconds": 0.2}
    results = scored(RayPool(fatal_job(job, folder / "ray", **keys), 2), architectures)
    local = scored(LocalPool(fatal_job(job, folder / "local")), architectures)
    return {"results": results, "local": local, "folder": folder / "ray", "named": (once, always, raising)}


def test_an_architecture_whose_worker_died_once_is_scored_by_another(accident):
    once = accident["named"][0]
    assert accident["results"][once] == accident["local"][once]
    assert calls(accident["folder"], once) == 2


def test_an_architecture_that_kills_two_workers_has_failed(accident):
    always = accident["named"][1]
    assert accident["results"][always] == ({}, "its worker died 2 times")
    assert calls(accident["folder"], always) == 2


def test_an_exception_in_a_worker_is_a_failure_with_its_reason(accident):
    raising = accident["named"][2]
    assert accident["results"][raising] == ({}, "LookupError: no such thing")
    assert calls(accident["folder"], raising) == 1


def test_other_architectures_do_not_notice(accident):
    others = [architecture for architecture in accident["local"] if architecture not in accident["named"]]
    assert len(others) == 6
    for architecture in others:
        assert accident["results"][architecture] == accident["local"][architecture]
        assert accident["results"][architecture][1] is None
        assert calls(accident["folder"], architecture) == 1


def test_a_pool_leaves_a_cluster_that_it_joined(accident):
    assert ray.is_initialized()


def test_an_architecture_that_is_submitted_twice_is_answered_twice(cluster, job, space):
    with RayPool(job, 1) as pool:
        for _ in range(2):
            pool.submit(space.smallest())
        first, second = pool.collect(), pool.collect()
    assert first.metrics == second.metrics
    assert first.failure is None


def test_both_pools_give_the_values_of_a_split(cluster, tmp_path):
    job = TableSource.open(load_recipe(write_run(tmp_path)), None).job(tmp_path, None, None)
    rows = list(job.space)
    table = results().set_index(["width", "op", "wide"])
    answers, workers = [], []
    for pool in (LocalPool(job), RayPool(job, 1)):
        with pool:
            for row in rows:
                pool.submit(row, "test")
            found = [pool.collect() for _ in rows]
        answers.append({e.architecture: dict(e.metrics) for e in found})
        workers.append({e.worker for e in found})
        assert all(answers[-1][row].get("acc") == table.loc[row.values, "acc_held_out"] for row in rows)
    assert answers[0] == answers[1]
    assert workers[0] == {this_process()}
    assert len(workers[1]) == 1
    assert workers[1] != workers[0]


def test_a_lone_worker_that_died_once_goes_on_and_standard_output_stays_clean(cluster, command, tmp_path):
    """The only actor is still restarting when the architecture is handed in again: that is no second death."""
    (tmp_path / "calls").mkdir()
    options = f'[options."fatal:Fatal"]\nfolder = "{tmp_path / "calls"}"\nonce = "anything"\n\n[data]'
    reference = "baseline = false\nhypervolume_reference = { accuracy = 0.0, energy_mj = 1e-4 }\n[workers]"
    metrics = 'metrics = ["fatal:Fatal", "accuracy", "energy_mj"]'
    recipe = write_recipe(tmp_path, LITTLE, (METRICS, metrics), ("[data]", options), ("[workers]", reference))
    few = ["--evaluations", 4, "--pool", "ray", "--workers", 1]
    code, out, _ = command("search", recipe, "--out", tmp_path / "run", *few, "-f", "json")
    assert code == 0
    run = nas.Run(tmp_path / "run")
    assert run.evaluations()["failure"].isna().all()
    assert [row["key"] for row in json.loads(out)] == run.front()["key"].tolist()
    assert len(list((tmp_path / "calls").iterdir())) == 4 + 1 + len(run.front())


def test_a_module_that_workers_cannot_import_is_named(cluster, job, space, own_module):
    """Workers of a cluster do not see what this process put on its path later."""
    own_module("seen_here_only", "class Own:\n    metrics = {'own': 'min'}\n    def __call__(self, c): return {}\n")
    try:
        (result,) = scored(RayPool(replace(job, metrics=("seen_here_only:Own",)), 1), [space.smallest()]).values()
        reason = result[1]
    except InputError as error:
        reason = str(error)
    assert "seen_here_only" in reason
    assert "cannot be imported" in reason
    assert "\n" not in reason


# Time-outs, and what is withdrawn


def test_what_hangs_is_tried_once_more_and_has_failed_then(cluster, job, space, tmp_path):
    architectures = list(space)[:4]
    hanging = architectures[1]
    stuck = fatal_job(job, tmp_path / "stuck", hanging=hanging.key)
    results = scored(RayPool(stuck, 1, timeout=2.0), architectures)
    assert results.pop(hanging) == ({}, "no result within 2 s, 2 times")
    assert all(failure is None for _, failure in results.values())
    assert calls(tmp_path / "stuck", hanging) <= 3  # with others of its group, and alone


def test_a_pool_feeds_its_workers_knows_their_idle_time_and_forgets_what_is_withdrawn(cluster, job, space, tmp_path):
    with RayPool(fatal_job(job, tmp_path / "slow", seconds=0.2), 1) as pool:
        assert pool.hungry
        assert pool.idle_share is None
        for architecture in list(space)[:6]:
            pool.submit(architecture)
        assert not pool.hungry
        pool.collect()
        assert 0 <= pool.idle_share < 0.9
        left = pool.withdraw()
        assert left < 5
        for _ in range(left):
            pool.collect()
        assert pool.withdraw() == 0
        assert pool.hungry


def test_a_worker_that_died_at_rest_is_nobodys_fault(cluster, job, space, tmp_path):
    architectures = list(space)[:4]
    with RayPool(fatal_job(job, tmp_path / "rest"), 1) as pool:
        pool.submit(architectures[0])
        pool.collect()
        for _ in range(3):
            (worker,) = pool._idle
            ray.kill(worker.actor)
            time.sleep(0.5)
            pool.submit(architectures[1])
            result = pool.collect()
            assert (result.architecture, result.failure) == (architectures[1], None)
        assert not pool._deaths


# Workers that cannot be reached, do not come up, or die when all was withdrawn


class Unreachable:
    """Ray's ``get``, which once finds the worker unavailable that has begun something."""

    def __init__(self, get, act=lambda: None):
        self._get, self._act, self.times, self.begun = get, act, 0, False

    def __call__(self, reference, **options):
        found = self._get(reference, **options)
        if found is None:
            self.begun = True
        elif self.begun and not self.times:
            self.times += 1
            self._act()
            raise ray.exceptions.ActorUnavailableError("the connection broke", None)
        return found


@pytest.mark.parametrize(
    ("fate", "blame"), [("alive", False), ("dead", True), ("dead with its node", False), ("unknown", True)]
)
def test_whoever_cannot_be_reached_is_to_blame_only_if_it_died_and_its_node_lives(
    fate, blame, cluster, job, space, tmp_path, monkeypatch
):
    get, hand_in, blamed = ray.get, RayPool._hand_in_again, []

    def note(pool, task, blame, *rest):
        blamed.append(blame)
        hand_in(pool, task, blame, *rest)

    with RayPool(fatal_job(job, tmp_path / "calls"), 1) as pool:

        def die():
            (task,) = pool._running.values()
            if fate == "unknown":
                monkeypatch.setattr(ray_pool, "DOUBT", -1.0)
                return
            ray.kill(task.worker.actor)
            if fate == "dead with its node":
                monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": task.worker.node, "Alive": False}])
            with contextlib.suppress(ray.exceptions.ActorDiedError):  # Ray takes a moment to know
                while True:
                    get(task.worker.actor.__ray_ready__.remote())
                    time.sleep(0.1)

        unreachable = Unreachable(get, die if fate != "alive" else lambda: None)
        monkeypatch.setattr(ray, "get", unreachable)
        monkeypatch.setattr(RayPool, "_hand_in_again", note)
        pool.submit(space.smallest())
        result = pool.collect()
        assert (result.architecture, result.failure, unreachable.times) == (space.smallest(), None, 1)
        assert blamed == [blame]
        assert not pool._doubtful
    assert calls(tmp_path / "calls", space.smallest()) == 2


def test_a_worker_that_does_not_come_up_is_replaced_and_waiting_for_it_is_said_once(
    cluster, job, space, tmp_path, monkeypatch
):
    """Others have all cores; when they let go of them, the worker that is asked for then comes up."""

    class Idler:
        def rest(self):
            return True

    monkeypatch.setattr(ray_pool, "WAIT", 0.5)
    monkeypatch.setattr(ray_pool, "STARTUP", 3.0)
    monkeypatch.setattr(ray_pool, "TICK", 0.1)
    others, said = ray.remote(num_cpus=3)(Idler).remote(), []
    ray.get(others.rest.remote())
    threading.Timer(4.0, lambda: ray.kill(others)).start()
    with RayPool(fatal_job(job, tmp_path / "calls"), 1, say=said.append) as pool:
        pool.submit(space.smallest())
        assert pool.collect().failure is None
    waiting, again = said[:2]
    assert waiting.startswith("waiting for a Ray worker, which needs 1 CPUs on one node; 0 of the cluster are free")
    assert again == "1 Ray workers did not come up within 3 seconds, and are started again"
    assert not any(line.startswith("waiting") for line in said[1:])


def test_what_a_dying_worker_leaves_is_not_begun_again_once_all_was_withdrawn(cluster, job, space, tmp_path):
    slow = space.smallest()
    with RayPool(fatal_job(job, tmp_path / "calls", hanging=slow.key), 1) as pool:
        pool.submit(slow)

        def end():
            while not calls(tmp_path / "calls", slow):
                time.sleep(0.05)
            assert pool.withdraw() == 1
            (task,) = pool._running.values()
            ray.kill(task.worker.actor)

        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises(NothingToComeError):
            pool.collect()
        thread.join()
        assert pool.withdraw() == 0
        pool.submit(space.largest())
        assert pool.collect().architecture == space.largest()
    assert calls(tmp_path / "calls", slow) == 1
