"""Two pools with the same two methods, ``submit`` and ``collect``: this process, and Ray actors."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self

import ray
from ray._private import ray_constants

from nas.scoring import Evaluation, Scorer, ScoringJob, SplitName
from spaces import Architecture, InputError

_DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
)
"""What Ray raises for a worker that is gone."""

MAX_DEATHS = 2
"""An architecture that has killed this many workers has failed."""


class Pool(Protocol):
    """Workers that score architectures; used as a context manager."""

    def submit(self, architecture: Architecture, split: SplitName = "validation") -> None:
        """Hand in an architecture to be scored on a split; returns at once."""
        ...

    def collect(self) -> Evaluation:
        """Wait for the next result, of whichever submitted architecture is ready first."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class LocalPool:
    """Scores in this process, one architecture at a time, in the order of submission.

    Args:
        job: Supernet, images and evaluators.
    """

    def __init__(self, job: ScoringJob) -> None:
        self._scorer = Scorer(job)
        self._queue: deque[tuple[Architecture, SplitName]] = deque()

    def submit(self, architecture: Architecture, split: SplitName = "validation") -> None:
        """Queue an architecture."""
        self._queue.append((architecture, split))

    def collect(self) -> Evaluation:
        """Score the first architecture of the queue."""
        return self._scorer.score(*self._queue.popleft())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._queue.clear()


class RayPool:
    """Scores in Ray actors, each of which loads the supernet once.

    Nothing is started before the first ``submit``. The pool joins the Ray cluster that this process is connected
    to, or else starts one that listens on 127.0.0.1 only and asks for its token. A dead actor is replaced;
    what it was scoring is scored again, and has failed if it kills :data:`MAX_DEATHS` workers.

    Args:
        job: Supernet, images and evaluators.
        count: Number of actors.
    """

    def __init__(self, job: ScoringJob, count: int) -> None:
        self._job, self._count = job, count
        self._job_reference: Any = None
        self._owns_cluster = False
        self._idle: deque[Any] = deque()
        self._queue: deque[tuple[Architecture, SplitName]] = deque()
        self._running: dict[Any, tuple[Any, Architecture, SplitName]] = {}
        self._deaths: Counter[Architecture] = Counter()

    def submit(self, architecture: Architecture, split: SplitName = "validation") -> None:
        """Queue an architecture, and give it to an actor as soon as one is idle."""
        if self._job_reference is None:
            self._start()
        self._queue.append((architecture, split))
        self._dispatch()

    def _start(self) -> None:
        """Start the actors, and Ray itself unless this process is connected to a cluster."""
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            with _loopback_only():
                ray.init(
                    address="local",
                    num_cpus=self._count * self._job.threads + 1,  # one core is left for Ray's other tasks
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                )
            self._owns_cluster = True
        needed, available = self._count * self._job.threads, ray.cluster_resources().get("CPU", 0)
        if needed > available:
            raise InputError(
                f"{self._count} workers of {self._job.threads} thread(s) need {needed} CPUs of the Ray cluster, "
                f"which has {available:g}; set workers.count lower"
            )
        self._job_reference = ray.put(self._job)
        self._idle.extend(self._new_actor() for _ in range(self._count))

    def _new_actor(self) -> Any:
        # Ray's own restarts fail the calls that arrive meanwhile: a fresh actor makes them wait.
        return ray.remote(num_cpus=self._job.threads, max_restarts=0)(_Actor).remote()

    def _dispatch(self) -> None:
        while self._queue and self._idle:
            actor, (architecture, split) = self._idle.popleft(), self._queue.popleft()
            reference = actor.score.remote([self._job_reference], architecture, split)
            self._running[reference] = (actor, architecture, split)

    def collect(self) -> Evaluation:
        """Wait for the next result.

        Raises:
            InputError: If a worker cannot load the job, for instance since it cannot import an evaluator.
        """
        while True:
            done, _ = ray.wait(list(self._running), num_returns=1)
            actor, architecture, split = self._running.pop(done[0])
            try:
                evaluation: Evaluation = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise InputError(f"a Ray worker cannot load its job: {error.cause}") from None
            except _DEATHS:
                actor = self._new_actor()
                self._deaths[architecture] += 1
                if self._deaths[architecture] < MAX_DEATHS:
                    self._idle.append(actor)
                    self._queue.appendleft((architecture, split))
                    self._dispatch()
                    continue
                evaluation = Evaluation(architecture, {}, 0.0, f"its worker died {MAX_DEATHS} times")
            self._idle.append(actor)
            self._dispatch()
            return evaluation

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for actor in [*self._idle, *(actor for actor, _, _ in self._running.values())]:
            ray.kill(actor)
        if self._owns_cluster:
            ray.shutdown()


@contextmanager
def _loopback_only() -> Iterator[None]:
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


class _Actor:
    """A scorer that fetches its job at its first call."""

    def __init__(self) -> None:
        self._scorer: Scorer | None = None

    def score(self, job: list[Any], architecture: Architecture, split: SplitName) -> Evaluation:
        """Return the evaluation of an architecture.

        Args:
            job: Reference of the scoring job, in a list so that Ray does not fetch it for every call.
            architecture: What to score.
            split: Images to score on.
        """
        if self._scorer is None:
            self._scorer = Scorer(ray.get(job[0]))
        return self._scorer.score(architecture, split)


def open_pool(kind: str, job: ScoringJob, count: int) -> Pool:
    """Return the pool of a recipe: ``local``, or ``ray`` with ``count`` actors."""
    return LocalPool(job) if kind == "local" else RayPool(job, count)
