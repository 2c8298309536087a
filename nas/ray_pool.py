"""A pool of Ray actors that outlives its workers, its nodes, and what it scores."""

from __future__ import annotations

import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import ray

from nas.evaluation import Evaluation, Job, SplitName
from nas.ray_actor import Actor
from nas.ray_cluster import check_room, connect, first_line, gpu_share, living_nodes, room
from nas.workers import NothingToComeError
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

DOUBT = 90.0
"""Seconds in which Ray has to find out whether a worker that cannot be reached is dead, or its node; it takes up to a
minute to notice that a node is."""

WAIT, STARTUP = 30.0, 600.0
"""Seconds without any worker after which that is said, and after which one that does not come up is replaced."""


@dataclass(eq=False)
class _Worker:
    """An actor, when it was asked for, when it was ready, and for how long it has worked since, in seconds."""

    actor: Any
    asked: float = field(default_factory=time.monotonic)
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
      workers has failed. Who dies with its node is not to blame, nor is who cannot be reached until it is known why.
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
        say: Tells what a pool waits for.
    """

    def __init__(
        self,
        job: Job,
        count: int | None,
        *,
        address: str | None = None,
        timeout: float | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._job, self._count, self._address, self._timeout, self._say = job, count, address, timeout, say
        self._runtime_env = dict(runtime_env or {})
        self._job_reference: Any = None
        self._connected = False
        self._wanted, self._looked, self._stillborn = 0, -math.inf, 0
        self._starting: dict[Any, _Worker] = {}
        self._idle: deque[_Worker] = deque()
        self._running: dict[Any, _Task] = {}
        self._doubtful: dict[Any, _Task] = {}
        self._withdrawn, self._waits = False, False
        self._queue: deque[tuple[Genotype, SplitName]] = deque()
        self._results: deque[Evaluation] = deque()
        self._deaths: Counter[Genotype] = Counter()
        self._suspects: set[Genotype] = set()
        self._busy = self._alive = 0.0

    def submit(self, architecture: Genotype, split: SplitName = "validation") -> None:
        """Queue an architecture; it is dealt out when the next result is asked for."""
        if self._job_reference is None:
            self._start()
        if self._withdrawn:
            self._queue.clear()
            self._withdrawn = False
        self._queue.append((architecture, split))

    @property
    def hungry(self) -> bool:
        """Whether there are more free workers than architectures that wait."""
        free = len(self._idle) + len(self._starting)
        waiting = 0 if self._withdrawn else len(self._queue)
        return waiting < (free if self._job_reference is not None else 1)

    @property
    def idle_share(self) -> float | None:
        """Share of the time of all workers, since each was ready, in which it scored nothing."""
        now, tasks = time.monotonic(), list(self._running.values())
        workers = [*self._idle, *(task.worker for task in tasks)]
        alive = self._alive + sum(now - worker.ready for worker in workers)
        busy = self._busy + sum(worker.busy for worker in workers) + sum(now - task.began for task in tasks)
        return max(1 - busy / alive, 0.0) if alive > 0 else None

    def withdraw(self) -> int:
        """Forget what waits, also what a dying worker leaves, and return how many results are still to come.

        A handler of signals can call it.
        """
        self._withdrawn = True
        return len(self._results) + sum(len(task.group) for task in self._running.values())

    def _start(self) -> None:
        """Connect to Ray, or start it, and start the actors."""
        if not ray.is_initialized():
            cores = (self._count or max((os.cpu_count() or 1) // self._job.threads, 1)) * self._job.threads
            connect(self._address, cores)
            self._connected = True
        check_room(living_nodes(), self._count or 1, self._job.threads)
        self._job_reference = ray.put(self._job)  # each node fetches it once
        self._staff()

    def _staff(self) -> None:
        """Start as many actors as there are to be; too many are let go when they have nothing to do."""
        now = time.monotonic()
        if now >= self._looked + LOOK:
            wanted = self._count or room(living_nodes(), self._job.threads, self._job.device)
            self._wanted, self._looked = wanted, now
        have = len(self._starting) + len(self._idle) + len(self._running) + len(self._doubtful)
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
            NothingToComeError: If all was withdrawn, and no worker is at anything.
        """
        while not self._results:
            if self._withdrawn and not self._running:
                raise NothingToComeError
            if not self._withdrawn:
                self._staff()
                self._dispatch()
            references = [*self._starting, *self._running, *self._doubtful]
            if not references:
                time.sleep(TICK)
                continue
            done, _ = ray.wait(references, num_returns=1, timeout=TICK)
            for reference in done:
                if reference in self._starting:
                    self._welcome(reference)
                elif reference in self._doubtful:
                    self._judge(reference)
                else:
                    self._receive(reference)
            self._stop_late()
            self._await_workers()
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
        except ray.exceptions.ActorUnavailableError:  # whatever became of it, another one is started
            ray.kill(worker.actor)
            return
        except _DEATHS as error:
            if not _by_node(error, worker.node):
                self._stillborn += 1
            if self._stillborn >= MAX_STILLBORN:
                raise InputError(
                    f"{MAX_STILLBORN} Ray workers in a row died before they were ready; the last one: "
                    f"{first_line(error)}; give them more memory, or set workers.count lower"
                ) from None
            return
        self._stillborn, self._waits, worker.ready = 0, False, time.monotonic()
        self._idle.append(worker)

    def _receive(self, reference: Any) -> None:
        """Take the next result of a group, or what became of its worker."""
        task = self._running[reference]
        try:
            evaluation: Evaluation | None = ray.get(next(reference))
        except ray.exceptions.RayTaskError as error:
            raise InputError(f"a Ray worker cannot load its job: {error.cause}") from None
        except ray.exceptions.ActorUnavailableError:
            del self._running[reference]
            task.since = time.monotonic()
            self._doubtful[task.worker.actor.__ray_ready__.remote()] = task
            return
        except _DEATHS as error:
            del self._running[reference]
            self._bury(task, error)
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

    def _bury(self, task: _Task, error: Exception | None) -> None:
        """Hand in again what a worker was at that died, or is taken for dead without an error."""
        self._dismiss(task.worker, task.began)
        blamed = task.begun and not _by_node(error, task.worker.node)
        self._hand_in_again(task, blamed, f"its worker died {MAX_DEATHS} times")

    def _judge(self, reference: Any) -> None:
        """Find out what became of a worker that could not be reached."""
        task = self._doubtful.pop(reference)
        try:
            ray.get(reference)
        except ray.exceptions.ActorUnavailableError:
            time.sleep(TICK)
            self._doubtful[task.worker.actor.__ray_ready__.remote()] = task
        except _DEATHS as error:
            self._bury(task, error)
        else:  # it lives, but what it would have said is lost
            self._dismiss(task.worker, task.began)
            self._hand_in_again(task, False, "")

    def _await_workers(self) -> None:
        """Say that there is no worker, and replace those that do not come up or cannot be reached for too long."""
        now = time.monotonic()
        for reference, task in list(self._doubtful.items()):
            if now - task.since > DOUBT:
                self._bury(self._doubtful.pop(reference), None)
        late = [reference for reference, worker in self._starting.items() if now - worker.asked > STARTUP]
        for reference in late:
            ray.kill(self._starting.pop(reference).actor)
        if late:
            self._say(f"{len(late)} Ray workers did not come up within {STARTUP:g} seconds, and are started again")
        nobody = self._starting and not self._idle and not self._running
        if nobody and not self._waits and now - min(each.asked for each in self._starting.values()) > WAIT:
            self._waits = True
            free, needed = ray.available_resources().get("CPU", 0), self._job.threads
            self._say(
                f"waiting for a Ray worker, which needs {needed} CPUs on one node; {free:g} of the cluster are free, "
                "on all nodes together"
            )

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
        tasks = [*self._running.values(), *self._doubtful.values()]
        workers = [*self._starting.values(), *self._idle, *(task.worker for task in tasks)]
        if ray.is_initialized():
            for worker in workers:
                ray.kill(worker.actor)
        if self._connected:
            ray.shutdown()


def _by_node(error: Exception | None, node: str) -> bool:
    """Return whether a worker died since its node did, which is no fault of what it scored."""
    if isinstance(error, ray.exceptions.NodeDiedError) or "its node has died" in str(error):
        return True
    return any(row["NodeID"] == node and not row["Alive"] for row in ray.nodes())
