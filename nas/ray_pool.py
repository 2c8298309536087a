"""A pool of Ray actors that outlives its workers, its nodes, and what it scores."""

from __future__ import annotations

import math
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import ray
from ray._private import ray_constants

from nas.evaluation import Evaluation, Job, SplitName
from nas.ray_actor import Actor
from spaces import Genotype, InputError

_DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OwnerDiedError,
)
"""What Ray raises for a worker that is gone, or for what it had when it went."""

MAX_DEATHS = 2
"""An architecture that has killed this many workers, or has made as many of them hang, has failed."""

MAX_STILLBORN = 3
"""Workers in a row that die before they are ready, from which on it is no accident."""

GROUPS_PER_WORKER = 2
"""Groups that the queue is dealt out in: fewer share more work, more of them keep all workers busy to the end."""

TICK = 0.5
"""Seconds between two looks at the clock and at the cluster."""

LOOK = 2.0
"""Seconds between two looks at the size of the cluster."""


@dataclass(eq=False)
class _Worker:
    """An actor, when it was ready, and for how long it has worked since, in seconds."""

    actor: Any
    node: str = ""
    ready: float = 0.0
    busy: float = 0.0


@dataclass(eq=False)
class _Task:
    """A group that a worker scores: what has no result yet, when the last one came, and how far it is.

    Attributes:
        begun: Whether the worker has said that it begins: one that had died before is no fault of the group.
        first: Whether there is no result yet, so that what the group has in common is being computed.
    """

    worker: _Worker
    group: deque[Genotype]
    split: SplitName
    since: float
    begun: bool = False
    first: bool = True
    began: float = field(default_factory=time.monotonic)


class RayPool:
    """Scores in Ray actors, each of which opens the job once.

    Nothing is started before the first ``submit``. What waits when a result is asked for is dealt out in groups that
    share as many stages as possible; a worker scores a group together and hands over each result as it has it.

    - A dead actor is replaced, and what it was scoring is scored again, one by one; what kills :data:`MAX_DEATHS`
      workers has failed. Who dies with its node is not to blame.
    - What takes longer than the time-out loses its worker, is scored once more, and has failed then.
    - Without a number of actors there are as many as the cluster has room for, more when nodes join, and fewer when
      they leave.

    Args:
        job: Supernet, images and evaluators, or a table.
        count: Number of actors, or None for as many as there is room for.
        address: Cluster to join, as ``ray.init`` takes it; without one the cluster that this process is connected to,
            or else one of its own, which listens on 127.0.0.1 only and asks for its token.
        timeout: Seconds that the scoring of one architecture may take.
        runtime_env: What the actors need, as Ray takes it.
    """

    def __init__(
        self,
        job: Job,
        count: int | None,
        *,
        address: str | None = None,
        timeout: float | None = None,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        self._job, self._count, self._address, self._timeout = job, count, address, timeout
        self._runtime_env = dict(runtime_env or {})
        self._job_reference: Any = None
        self._connected = False
        self._wanted, self._looked, self._stillborn = 0, -math.inf, 0
        self._starting: dict[Any, _Worker] = {}
        self._idle: deque[_Worker] = deque()
        self._running: dict[Any, _Task] = {}
        self._queue: deque[tuple[Genotype, SplitName]] = deque()
        self._results: deque[Evaluation] = deque()
        self._deaths: Counter[Genotype] = Counter()
        self._suspects: set[Genotype] = set()
        self._busy = self._alive = 0.0

    def submit(self, architecture: Genotype, split: SplitName = "validation") -> None:
        """Queue an architecture; it is dealt out when the next result is asked for."""
        if self._job_reference is None:
            self._start()
        self._queue.append((architecture, split))

    @property
    def hungry(self) -> bool:
        """Whether there are more free workers than architectures that wait."""
        free = len(self._idle) + len(self._starting)
        return len(self._queue) < (free if self._job_reference is not None else 1)

    @property
    def idle_share(self) -> float | None:
        """Share of the time of all workers, since each was ready, in which it scored nothing."""
        now, tasks = time.monotonic(), list(self._running.values())
        workers = [*self._idle, *(task.worker for task in tasks)]
        alive = self._alive + sum(now - worker.ready for worker in workers)
        busy = self._busy + sum(worker.busy for worker in workers) + sum(now - task.began for task in tasks)
        return max(1 - busy / alive, 0.0) if alive > 0 else None

    def withdraw(self) -> int:
        """Forget what waits, and return how many results are still to come."""
        self._queue.clear()
        return len(self._results) + sum(len(task.group) for task in self._running.values())

    def _start(self) -> None:
        """Connect to Ray, or start it, and start the actors."""
        if not ray.is_initialized():
            cores = (self._count or max((os.cpu_count() or 1) // self._job.threads, 1)) * self._job.threads
            connect(self._address, cores)
            self._connected = True
        resources = ray.cluster_resources()
        needed, available = (self._count or 1) * self._job.threads, resources.get("CPU", 0)
        if needed > available:
            raise InputError(
                f"{self._count or 1} workers of {self._job.threads} thread(s) need {needed} CPUs of the Ray cluster, "
                f"which has {available:g}; set workers.count lower"
            )
        self._job_reference = ray.put(self._job)  # each node fetches it once
        self._staff()

    def _room(self) -> int:
        """Return how many actors the cluster has room for, a core being left for Ray's other tasks."""
        resources = ray.cluster_resources()
        room = max(int(resources.get("CPU", 0) - 1) // self._job.threads, 1)
        return min(room, max(int(resources.get("GPU", 0)), 1)) if self._job.device == "cuda" else room

    def _staff(self) -> None:
        """Start as many actors as there are to be; too many are let go when they have nothing to do."""
        now = time.monotonic()
        if now >= self._looked + LOOK:
            self._wanted, self._looked = self._count or self._room(), now
        have = len(self._starting) + len(self._idle) + len(self._running)
        for _ in range(have, self._wanted):
            options: dict[str, Any] = {"num_cpus": self._job.threads, "max_restarts": 0, "max_task_retries": 0}
            share = 1.0
            if self._job.device == "cuda":
                share = gpu_share(self._wanted, ray.cluster_resources().get("GPU", 0))
                options["num_gpus"] = share
            if self._runtime_env:
                options["runtime_env"] = self._runtime_env
            # Ray's own restarts fail the calls that arrive meanwhile: a fresh actor makes them wait.
            worker = _Worker(ray.remote(**options)(Actor).remote(share))
            self._starting[worker.actor.ready.remote([self._job_reference])] = worker
        for reference in list(self._starting)[: max(have - self._wanted, 0)]:
            ray.kill(self._starting.pop(reference).actor)
            have -= 1
        while self._idle and have > self._wanted:
            self._dismiss(self._idle.pop())
            have -= 1

    def _dismiss(self, worker: _Worker, since: float | None = None) -> None:
        """Let a worker go that is idle, dead, or to be stopped at what it has done since some moment."""
        now = time.monotonic()
        self._alive += now - worker.ready
        self._busy += worker.busy + (0.0 if since is None else now - since)
        ray.kill(worker.actor)

    def _dispatch(self) -> None:
        """Deal out the queue to the idle actors, in groups that are cheaper to score together."""
        while self._queue and self._idle:
            worker, split = self._idle.popleft(), self._queue[0][1]
            waiting = [architecture for architecture, other in self._queue if other == split]
            alone = next((architecture for architecture in waiting if architecture in self._suspects), None)
            size = math.ceil(len(waiting) / (GROUPS_PER_WORKER * max(self._wanted, 1)))
            group = self._job.in_turns(waiting)[:size] if alone is None else [alone]
            for architecture in group:
                self._queue.remove((architecture, split))
            # One result at a time, so that none is lost with its worker once the next one is begun.
            call = worker.actor.score.options(num_returns="streaming", _generator_backpressure_num_objects=1)
            self._running[call.remote(group, split)] = _Task(worker, deque(group), split, time.monotonic())

    def collect(self) -> Evaluation:
        """Wait for the next result.

        Raises:
            InputError: If a worker cannot load the job, for instance since it cannot import an evaluator.
        """
        while not self._results:
            self._staff()
            self._dispatch()
            references = [*self._starting, *self._running]
            if not references:
                time.sleep(TICK)
                continue
            done, _ = ray.wait(references, num_returns=1, timeout=TICK)
            for reference in done:
                if reference in self._starting:
                    self._welcome(reference)
                else:
                    self._receive(reference)
            self._stop_late()
        return self._results.popleft()

    def _welcome(self, reference: Any) -> None:
        """Take a worker that is ready, or find out why it is not."""
        worker = self._starting.pop(reference)
        try:
            worker.node = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise InputError(f"a Ray worker cannot load its job: {error.cause}") from None
        except ray.exceptions.RuntimeEnvSetupError as error:
            raise InputError(f"workers.runtime_env must be one that Ray can set up, but: {error}") from None
        except _DEATHS as error:
            if not _by_node(error, worker.node):
                self._stillborn += 1
            if self._stillborn >= MAX_STILLBORN:
                raise InputError(
                    f"{MAX_STILLBORN} Ray workers in a row died before they were ready; the last one: "
                    f"{str(error).splitlines()[0]}; give them more memory, or set workers.count lower"
                ) from None
            return
        self._stillborn, worker.ready = 0, time.monotonic()
        self._idle.append(worker)

    def _receive(self, reference: Any) -> None:
        """Take the next result of a group, or what became of its worker."""
        task = self._running[reference]
        try:
            evaluation: Evaluation | None = ray.get(next(reference))
        except ray.exceptions.RayTaskError as error:
            raise InputError(f"a Ray worker cannot load its job: {error.cause}") from None
        except _DEATHS as error:
            del self._running[reference]
            self._dismiss(task.worker, task.began)
            blamed = task.begun and not _by_node(error, task.worker.node)
            self._hand_in_again(task, blamed, f"its worker died {MAX_DEATHS} times")
            return
        task.since = time.monotonic()
        if evaluation is None:
            task.begun = True
            return
        task.first = False
        task.group.remove(evaluation.architecture)
        self._suspects.discard(evaluation.architecture)
        del self._deaths[evaluation.architecture]
        self._results.append(evaluation)
        if not task.group:  # its call ends now, with nothing more to say
            del self._running[reference]
            task.worker.busy += task.since - task.began
            self._idle.append(task.worker)

    def _stop_late(self) -> None:
        """Stop workers whose next result takes too long; before the first of a group, all of it is prepared."""
        if self._timeout is None:
            return
        now, limits = time.monotonic(), {}
        for reference, task in self._running.items():
            limits[reference] = self._timeout * (len(task.group) if task.first else 1)
        late = [reference for reference, task in self._running.items() if now - task.since > limits[reference]]
        # What is ready is late only since this process did not fetch it.
        ready, _ = ray.wait(late, num_returns=len(late), timeout=0) if late else ([], [])
        for reference in late:
            if reference not in ready:
                task = self._running.pop(reference)
                self._dismiss(task.worker, task.began)
                reason = f"no result within {self._timeout:g} s, {MAX_DEATHS} times"
                self._hand_in_again(task, True, reason, counts=len(task.group) == 1 or not task.first)

    def _hand_in_again(self, task: _Task, blamed: bool, reason: str, counts: bool = True) -> None:
        """Queue what a stopped worker has not scored; what was to blame too often has failed.

        To blame is what came next; the others of its group are scored alone, which shows whether they were.
        """
        if blamed:
            self._suspects.update(task.group)
            self._deaths[task.group[0]] += counts
        for architecture in task.group:
            if self._deaths[architecture] < MAX_DEATHS:
                self._queue.append((architecture, task.split))
            else:
                self._results.append(Evaluation(architecture, {}, 0.0, reason))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        workers = [*self._starting.values(), *self._idle, *(task.worker for task in self._running.values())]
        if ray.is_initialized():
            for worker in workers:
                ray.kill(worker.actor)
        if self._connected:
            ray.shutdown()


def _by_node(error: Exception, node: str) -> bool:
    """Return whether a worker died since its node did, which is no fault of what it scored."""
    if isinstance(error, ray.exceptions.NodeDiedError) or "its node has died" in str(error):
        return True
    return any(row["NodeID"] == node and not row["Alive"] for row in ray.nodes())


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
            f"workers.address must be that of a running Ray cluster, got {address!r}: {str(error).splitlines()[0]}"
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
