"""The Ray cluster that workers are on: joining or starting it, and how many of them it has room for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants

from spaces import InputError

Resources = Mapping[str, float]
"""What a node has, by Ray's names: ``CPU``, ``GPU`` and others."""


def living_nodes() -> list[Resources]:
    """Return what each node of the cluster has that is not known to be dead."""
    return [row["Resources"] for row in ray.nodes() if row["Alive"]]


def most_workers(nodes: Sequence[Resources], threads: int) -> int:
    """Return how many workers of so many threads fit on nodes, none of them on two."""
    return sum(int(node.get("CPU", 0)) // threads for node in nodes)


def first_line(error: BaseException) -> str:
    """Return the first line that an error has to say, or at least of what kind it is."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_room(nodes: Sequence[Resources], count: int, threads: int) -> None:
    """Raise InputError unless so many workers of so many threads fit on nodes."""
    most = most_workers(nodes, threads)
    if count > most:
        cores = ", ".join(f"{node.get('CPU', 0):g}" for node in nodes)
        raise InputError(
            f"{count} workers of {threads} thread(s) need {threads} CPUs each, on one node of the Ray cluster, whose "
            f"nodes have {cores}; that is room for {most}; set workers.count or workers.threads lower"
        )


def room(nodes: Sequence[Resources], threads: int, device: str) -> int:
    """Return how many workers nodes have room for, at least 1, a core being left for Ray's other tasks.

    Args:
        nodes: What each has.
        threads: Cores of a worker.
        device: Where they compute; those on ``cuda`` have a GPU each, unless there is none.
    """
    cores = [int(node.get("CPU", 0)) for node in nodes]
    left = any(count % threads for count in cores)
    workers = most_workers(nodes, threads) - (not left)
    if device == "cuda":
        gpus = [int(node.get("GPU", 0)) for node in nodes]
        workers = min(workers, sum(min(count // threads, gpu) for count, gpu in zip(cores, gpus, strict=True)))
    return max(workers, 1)


def gpu_share(workers: int, gpus: float) -> float:
    """Return the part of a GPU that each worker asks for, such that all of them can start.

    Args:
        workers: Number of workers.
        gpus: GPUs of the cluster.
    """
    if gpus < 1:
        return 0.0
    per_gpu = math.ceil(workers / gpus)
    return math.floor(1e4 / per_gpu) / 1e4  # Ray counts in ten-thousandths


def connect(address: str | None, cores: int) -> None:
    """Join a Ray cluster, or without an address start one that listens on 127.0.0.1 only and asks for its token.

    Args:
        address: As ``ray.init`` takes it.
        cores: Cores that are asked of a cluster of our own, which has one more, for Ray's other tasks.

    Raises:
        InputError: If there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        with loopback_only():
            ray.init(address="local", num_cpus=cores + 1, include_dashboard=False, **options)
        return
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"workers.address must be that of a running Ray cluster, got {address!r}: {first_line(error)}"
        ) from None


@contextmanager
def loopback_only() -> Iterator[None]:
    """Let a Ray that is started inside the block listen on 127.0.0.1 only.

    Ray replaces a loopback node address by the machine's own one, and has no public switch against that; this is
    the switch that it uses itself on systems where it runs on a single machine.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
