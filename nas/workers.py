"""Two pools with the same two methods, ``submit`` and ``collect``: this process, and Ray actors."""

from __future__ import annotations

import math
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, takewhile
from typing import Any, Protocol, Self

import ray
from ray._private import ray_constants

from nas.evaluation import Evaluation, Job, Scores, SplitName
from spaces import Genotype, InputError

_DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
)
"""What Ray raises for a worker that is gone."""

MAX_DEATHS = 2
"""An architecture that has killed this many workers has failed."""

LOCAL_GROUP = 16
"""Most architectures that this process scores together: what an interruption can cost."""

GROUPS_PER_WORKER = 2
"""Groups that the queue is dealt out in: fewer share more work, more of them keep all workers busy to the end."""


class Pool(Protocol):
    """Workers that score architectures; used as a context manager."""

    def submit(self, architecture: Genotype, split: SplitName = "validation") -> None:
        """Hand in an architecture to be scored on a split; returns at once."""
        ...

    def collect(self) -> Evaluation:
        """Wait for the next result, of whichever submitted architecture is ready first."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class LocalPool:
    """Scores in this process, in the order of submission; what waits is scored together.

    Args:
        job: Supernet, images and evaluators, or a table.
    """

    def __init__(self, job: Job) -> None:
        self._scorer = job.open()
        self._queue: deque[tuple[Genotype, SplitName]] = deque()
        self._results: Iterator[Evaluation] = iter(())

    def submit(self, architecture: Genotype, split: SplitName = "validation") -> None:
        """Queue an architecture."""
        self._queue.append((architecture, split))

    def collect(self) -> Evaluation:
        """Return the result of the architecture that was submitted first."""
        evaluation = next(self._results, None)
        if evaluation is None:
            split = self._queue[0][1]
            together = list(takewhile(lambda entry: entry[1] == split, islice(self._queue, LOCAL_GROUP)))
            for _ in together:
                self._queue.popleft()
            self._results = self._scorer.score_together([architecture for architecture, _ in together], split)
            evaluation = next(self._results)
        return evaluation

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._queue.clear()
        self._results = iter(())


class RayPool:
    """Scores in Ray actors, each of which opens the job once.

    Nothing is started before the first ``submit``. What waits when a result is asked for is dealt out in groups that
    share as many stages as possible; a worker scores a group together and hands over each result as it has it. The
    pool joins the Ray cluster that this process is connected
    to, or else starts one that listens on 127.0.0.1 only and asks for its token. A dead actor is replaced;
    what it was scoring is scored again, and has failed if it kills :data:`MAX_DEATHS` workers.

    Args:
        job: Supernet, images and evaluators, or a table.
        count: Number of actors.
    """

    def __init__(self, job: Job, count: int) -> None:
        self._job, self._count = job, count
        self._job_reference: Any = None
        self._owns_cluster = False
        self._idle: deque[Any] = deque()
        self._queue: deque[tuple[Genotype, SplitName]] = deque()
        self._running: dict[Any, tuple[Any, deque[Genotype], SplitName]] = {}
        self._failed: deque[Evaluation] = deque()
        self._deaths: Counter[Genotype] = Counter()

    def submit(self, architecture: Genotype, split: SplitName = "validation") -> None:
        """Queue an architecture; it is dealt out when the next result is asked for."""
        if self._job_reference is None:
            self._start()
        self._queue.append((architecture, split))

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
        options: dict[str, Any] = {"num_cpus": self._job.threads, "max_restarts": 0}
        if self._job.device == "cuda":
            options["num_gpus"] = gpu_share(self._count, ray.cluster_resources().get("GPU", 0))
        return ray.remote(**options)(_Actor).remote()

    def _dispatch(self) -> None:
        """Deal out the queue to the idle actors, in groups that are cheaper to score together."""
        while self._queue and self._idle:
            actor, split = self._idle.popleft(), self._queue[0][1]
            waiting = [architecture for architecture, other in self._queue if other == split]
            alone = next((architecture for architecture in waiting if self._deaths[architecture]), None)
            size = math.ceil(len(waiting) / (GROUPS_PER_WORKER * self._count))
            group = self._job.in_turns(waiting)[:size] if alone is None else [alone]
            for architecture in group:
                self._queue.remove((architecture, split))
            # One result at a time, so that none is lost with its worker once the next one is begun.
            call = actor.score.options(num_returns="streaming", _generator_backpressure_num_objects=1)
            self._running[call.remote([self._job_reference], group, split)] = (actor, deque(group), split)

    def collect(self) -> Evaluation:
        """Wait for the next result.

        Raises:
            InputError: If a worker cannot load the job, for instance since it cannot import an evaluator.
        """
        while not self._failed:
            self._dispatch()
            done, _ = ray.wait(list(self._running), num_returns=1)
            actor, group, split = self._running[done[0]]
            try:
                evaluation: Evaluation = ray.get(next(done[0]))
            except StopIteration:
                del self._running[done[0]]
                self._idle.append(actor)
            except ray.exceptions.RayTaskError as error:
                raise InputError(f"a Ray worker cannot load its job: {error.cause}") from None
            except _DEATHS:
                del self._running[done[0]]
                self._bury(group, split)
            else:
                group.remove(evaluation.architecture)
                return evaluation
        return self._failed.popleft()

    def _bury(self, group: Sequence[Genotype], split: SplitName) -> None:
        """Replace a dead actor, and hand in again, one by one, what it has not scored."""
        self._idle.append(self._new_actor())
        for architecture in group:
            self._deaths[architecture] += 1
            if self._deaths[architecture] < MAX_DEATHS:
                self._queue.append((architecture, split))
            else:
                self._failed.append(Evaluation(architecture, {}, 0.0, f"its worker died {MAX_DEATHS} times"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for actor in [*self._idle, *(actor for actor, _, _ in self._running.values())]:
            ray.kill(actor)
        if self._owns_cluster:
            ray.shutdown()


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
        self._scorer: Scores | None = None

    def score(self, job: list[Any], architectures: list[Genotype], split: SplitName) -> Iterator[Evaluation]:
        """Yield the evaluations of architectures.

        Args:
            job: Reference of the scoring job, in a list so that Ray does not fetch it for every call.
            architectures: What to score together.
            split: Images to score on.
        """
        if self._scorer is None:
            opened: Job = ray.get(job[0])
            self._scorer = opened.open()
        yield from self._scorer.score_together(architectures, split)


def open_pool(kind: str, job: Job, count: int) -> Pool:
    """Return the pool of a recipe: ``local``, or ``ray`` with ``count`` actors."""
    return LocalPool(job) if kind == "local" else RayPool(job, count)
