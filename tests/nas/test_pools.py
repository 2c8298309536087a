"""Pools: Ray actors give the table of this process, survive deaths, and listen to this machine only."""

import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import ray

import nas
from nas.ray_cluster import check_room, gpu_share, room
from nas.ray_pool import RayPool
from nas.scoring import build_job
from nas.sections import WorkersConfig
from nas.workers import LocalPool, NothingToComeError, open_pool
from spaces import InputError

LINUX = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")


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


def nodes(*cores, gpus=()):
    found = [{"CPU": float(count), "memory": 1e9} for count in cores]
    for node, count in zip(found, gpus, strict=False):
        node["GPU"] = float(count)
    return found


@pytest.mark.parametrize(
    ("cores", "gpus", "threads", "device", "most"),
    [
        ((4,), (), 1, "cpu", 3),
        ((5,), (), 2, "cpu", 2),
        ((4,), (), 2, "cpu", 1),
        ((1,), (), 1, "cpu", 1),
        ((3, 3), (), 1, "cpu", 5),
        ((3, 3), (), 2, "cpu", 2),  # six cores, and on each node one is left over
        ((1, 1, 1, 1), (), 2, "cpu", 1),
        ((0, 8), (), 3, "cpu", 2),
        ((8, 8), (1, 2), 1, "cuda", 3),
        ((2, 8), (4, 0), 1, "cuda", 2),
        ((8,), (), 1, "cuda", 1),
    ],
)
def test_a_worker_needs_its_cores_and_gpu_on_one_node(cores, gpus, threads, device, most):
    assert room(nodes(*cores, gpus=gpus), threads, device) == most


def test_workers_that_could_never_start_are_refused():
    check_room(nodes(3, 3), 2, 2)
    with pytest.raises(InputError, match=r"1 workers of 2 thread\(s\) need 2 CPUs each, .* have 1, 1; .* for 0"):
        check_room(nodes(1, 1), 1, 2)
    with pytest.raises(InputError, match=r"room for 2; set workers\.count or workers\.threads lower"):
        check_room(nodes(3, 3), 3, 2)


def test_what_this_process_was_to_score_is_forgotten_once_it_is_withdrawn(job, space):
    architectures = list(space)[::90]
    with LocalPool(job) as pool:
        for architecture in architectures:
            pool.submit(architecture)
        pool.collect()
        assert pool.withdraw() == 0
        assert pool.hungry
        with pytest.raises(NothingToComeError):
            pool.collect()
        pool.submit(architectures[-1])
        assert pool.collect().architecture == architectures[-1]


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

    def start(self, title, total, objectives, volume=None):
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
    """Both ask at 127.0.0.1, as Ray would look for this machine at its other address, where nobody listens."""
    join = "import ray; ray.init(address='{}', logging_level='ERROR'); print('joined')"

    def ask(**environment):
        there = {**environment, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        command = [sys.executable, "-c", join.format(address)]
        return subprocess.run(command, env=there, capture_output=True, text=True, timeout=120, check=False)

    with RayPool(job, 1) as pool:
        pool.submit(next(iter(space)))
        pool.collect()
        address = ray.get_runtime_context().gcs_address
        friend = ask(**os.environ)
        without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        stranger = ask(**without, RAY_AUTH_MODE="disabled")
    assert (friend.returncode, friend.stdout.strip()) == (0, "joined"), friend.stderr
    assert stranger.returncode != 0
    assert "joined" not in stranger.stdout
    assert "Authentication token is missing or incorrect" in stranger.stderr
