"""Pools: Ray actors give the table of this process, survive deaths, and listen to this machine only."""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import ray
from fakes import LITTLE, METRICS, write_recipe
from test_table_runs import results, write_run

import nas
from nas.config import load_recipe
from nas.ray_pool import RayPool, gpu_share
from nas.scoring import build_job
from nas.sections import WorkersConfig
from nas.table_source import TableSource
from nas.workers import LocalPool, open_pool
from spaces import InputError

LINUX = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")

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


def scored(pool, architectures):
    with pool:
        for architecture in architectures:
            pool.submit(architecture)
        results = [pool.collect() for _ in architectures]
    assert {result.architecture for result in results} == set(architectures)
    return {result.architecture: (dict(result.metrics), result.failure) for result in results}


@pytest.fixture(scope="module")
def job(finished):
    return build_job(finished.config, finished.data, finished.supernet())


# This process


def test_local_results_come_in_the_order_of_submission(job, space):
    architectures = list(space)[::90]
    with LocalPool(job) as pool:
        for architecture in architectures:
            pool.submit(architecture)
        assert [pool.collect().architecture for _ in architectures] == architectures


def test_a_recipe_chooses_its_pool(job):
    assert isinstance(open_pool(WorkersConfig(pool="local"), job), LocalPool)
    assert isinstance(open_pool(WorkersConfig(pool="ray"), job), RayPool)


@pytest.mark.parametrize(("workers", "gpus"), [(1, 1), (2, 1), (3, 1), (3, 2), (7, 3), (2, 4), (5, 5)])
def test_all_workers_find_room_on_the_gpus(workers, gpus):
    share = gpu_share(workers, gpus)
    assert 0 < share <= 1
    assert int(1 / share + 1e-9) * gpus >= workers
    assert gpu_share(workers, 0) == 0


def test_a_ray_pool_that_is_never_used_starts_nothing(job):
    with RayPool(job, 2):
        pass
    assert not ray.is_initialized()


# Ray, started by the pool itself


def descendants():
    """Return the process ids of this process and of all that it started, directly or not."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def address(text):
    """Return the address of a line of /proc/net/tcp or tcp6, as people write it."""
    words = [struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))


def listeners():
    """Return ``(process, address, port)`` of each TCP port on which this process or a child of it listens."""
    sockets = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            host, port = fields[1].split(":")
            if fields[3] == "0A":
                sockets[f"socket:[{fields[9]}]"] = (address(host), int(port, 16))
    found = set()
    for pid in descendants():
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found |= {(name, *sockets[link]) for link in links if link in sockets}
    return found


def is_loopback(host):
    return host in ("::1", "::ffff:127.0.0.1") or host.startswith("127.")


class Watcher:
    """A reporter that looks, while the search goes on, at who listens where, and at the processes that are new."""

    def __init__(self):
        self.seen, self.processes = set(), set()
        self.older = descendants() if Path("/proc/net/tcp").exists() else set()

    def say(self, line):
        pass

    def train(self, progress):
        raise AssertionError("the supernet was trained already")

    def start(self, title, total, objectives):
        pass

    def evaluated(self, evaluation):
        if Path("/proc/net/tcp").exists():
            self.seen |= listeners()
            self.processes |= descendants() - self.older


@pytest.fixture(scope="module")
def by_ray(finished, recipe, tmp_path_factory):
    """A search by two Ray actors over the supernet of the finished run, and what was seen meanwhile."""
    folder = Path(shutil.copytree(finished.folder, tmp_path_factory.mktemp("runs") / "ray"))
    for name in ("study.db", "front.csv", "report.html"):
        (folder / name).unlink()
    watcher = Watcher()
    before = listeners() if Path("/proc/net/tcp").exists() else set()
    assert not ray.is_initialized()
    run = nas.search(
        recipe, folder, reporter=watcher, workers={"pool": "ray", "count": 2}, search={"mode": "generational"}
    )
    return run, watcher, before


@pytest.mark.parametrize("study", ["search", "random", "reference", "test"])
def test_two_ray_actors_give_the_table_of_this_process(study, by_ray, finished, comparable):
    pd.testing.assert_frame_equal(comparable(by_ray[0], study), comparable(finished, study))


def test_a_pool_stops_the_ray_that_it_started(by_ray):
    assert not ray.is_initialized()
    for _ in range(100):
        left = [pid for pid in by_ray[1].processes - {os.getpid()} if Path(f"/proc/{pid}/stat").exists()]
        states = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] for pid in left]
        if set(states) <= {"Z"}:
            break
        time.sleep(0.1)
    assert set(states) <= {"Z"}


@LINUX
def test_ray_listens_on_this_machine_only(by_ray):
    _, watcher, before = by_ray
    seen = watcher.seen - before
    assert {"raylet", "gcs_server"} <= {name for name, _, _ in seen}
    assert sorted(listener for listener in seen if not is_loopback(listener[1])) == []


@pytest.mark.slow
def test_a_stranger_without_the_token_cannot_join_the_ray_that_a_pool_starts(job, space):
    join = "import ray; ray.init(address='{}', logging_level='ERROR'); print('joined')"
    with RayPool(job, 1) as pool:
        pool.submit(next(iter(space)))
        pool.collect()
        address = ray.get_runtime_context().gcs_address
        stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        stranger["RAY_AUTH_MODE"] = "disabled"
        command = [sys.executable, "-c", join.format(address)]
        result = subprocess.run(command, env=stranger, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode != 0
    assert "joined" not in result.stdout
    assert "token" in result.stderr.lower()


# Ray, started by somebody else


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
    answers = []
    for pool in (LocalPool(job), RayPool(job, 1)):
        with pool:
            for row in rows:
                pool.submit(row, "test")
            found = [pool.collect() for _ in rows]
        answers.append({e.architecture: dict(e.metrics) for e in found})
        assert all(answers[-1][row].get("acc") == table.loc[row.values, "acc_held_out"] for row in rows)
    assert answers[0] == answers[1]


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
