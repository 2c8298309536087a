"""Training by several processes, on one machine or many, which Ray Train starts, watches and starts again.

A process that dies takes the others down with it; all begin again at the last checkpoint of the run folder, and since
an epoch depends on the seed and its number alone, the training ends where it would have ended anyway.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import ray
import ray.util.queue
import torch
from numpy.typing import NDArray
from torch import distributed

from nas.extras import TRAINING
from nas.ray_cluster import connect, most_workers
from spaces import Architecture, InputError, SearchSpace, Skeleton
from supernet.data import ImageData
from supernet.device import keep_large_blocks
from supernet.distil import Distillation
from supernet.ranks import Ranks
from supernet.settings import TrainSettings
from supernet.spikformer import Spikformer
from supernet.train import TrainProgress
from supernet.train import train as train_network

MAX_FAILURES = 3
"""Times that a training is begun again; the next failure ends it."""

RENDEZVOUS = timedelta(seconds=120)
"""How long processes wait for each other at the start."""

TICK = 0.2
"""Seconds between two looks at whether the training has ended."""


_STORAGE = ".ray-train-"
"""What the names of Ray Train's own folders in a run folder begin with."""


@dataclass(frozen=True)
class SentNetwork:
    """A network as plain values, which can be sent to another process.

    Attributes:
        skeleton: Input, classes and neuron.
        architecture: Widths and depth.
        executor: Who computes neurons.
        state: Arrays of its state by name; only read.
    """

    skeleton: Skeleton
    architecture: Architecture
    executor: str
    state: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, network: Spikformer) -> SentNetwork:
        """Return a network's values."""
        state = {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
        return cls(network.skeleton, network.architecture, network.executor, state)

    def build(self, device: torch.device) -> Spikformer:
        """Return the network on a device, with tensors of its own."""
        with torch.device("meta"):
            network = Spikformer(self.skeleton, self.architecture, self.executor)
        # Ray hands out read-only arrays at any address; these are torch's own, aligned as those of one process.
        state = {name: torch.from_numpy(np.array(array)).clone() for name, array in self.state.items()}
        network.load_state_dict(state, assign=True)
        return network.to(device)


@dataclass(frozen=True)
class TrainJob:
    """What each process needs to train.

    Attributes:
        network: Network with its first weights.
        data: Images, of which the training split is used.
        settings: Optimisation.
        seed: Seed of order, augmentation and architectures.
        device: ``auto``, ``cpu`` or ``cuda``, where each process has a GPU of its own.
        folder: Folder of the checkpoints, which all machines must see.
        space: Space whose supernet the network is, or None for a single architecture.
        teacher: Network that teaches it, if one does.
        teaching: Share and temperature of its answers, as of :class:`supernet.distil.Distillation`.
    """

    network: SentNetwork
    data: ImageData
    settings: TrainSettings
    seed: int
    device: str
    folder: Path
    space: SearchSpace | None = None
    teacher: SentNetwork | None = None
    teaching: tuple[float, float] = (0.5, 2.0)


def train_together(
    job: TrainJob,
    workers: int,
    report: Callable[[TrainProgress], None],
    *,
    address: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
) -> None:
    """Train a network by several processes; the folder of the job keeps it.

    Args:
        job: What to train.
        workers: Number of processes, 2 or more.
        report: Hears of the steps.
        address: Ray cluster to join; without one the cluster that this process is connected to, or else one of its
            own, which listens on 127.0.0.1 only and asks for its token.
        runtime_env: What the processes need, as Ray takes it.

    Raises:
        InputError: If Ray Train is not installed, the cluster is too small, or the training fails too often.
    """
    check_workers(job, workers)
    threads, joined = _threads(job, workers, address), ray.is_initialized()
    if not joined:
        connect(address, workers * threads)
    try:
        _fit(job, _settle_device(job, workers), workers, threads, report, dict(runtime_env or {}))
    finally:
        if not joined:
            ray.shutdown()


def check_workers(job: TrainJob, workers: int) -> None:
    """Check what can be checked before Ray starts.

    Raises:
        InputError: If Ray Train is not installed, or a batch has too few images.
    """
    missing = [name for name in TRAINING if find_spec(name) is None]
    if missing:
        raise InputError(
            f"training by {workers} workers needs Ray Train, which misses {', '.join(missing)}: "
            "pip install 'spikefront[train]'; or train with 1 worker"
        )
    if job.settings.batch_size < workers:
        raise InputError(
            f"training.batch_size must be workers or more, for each has a part of every batch; got "
            f"{job.settings.batch_size} images and {workers} workers"
        )
    if 0 < job.settings.parts < workers:
        raise InputError(
            f"training.parts must be workers or more, for each has a part of every batch at least; got "
            f"{job.settings.parts} parts and {workers} workers"
        )


def _threads(job: TrainJob, workers: int, address: str | None) -> int:
    """Return the cores of a process: its parts' or the settings', or on this machine an equal share of all."""
    if job.settings.parts:
        return -(-job.settings.parts // workers) * (job.settings.threads or 1)
    local = address is None and not ray.is_initialized()
    return job.settings.threads or (max((os.cpu_count() or 1) // workers, 1) if local else 1)


def _settle_device(job: TrainJob, workers: int) -> str:
    """Return where to train, ``cpu`` or ``cuda``, after a look at the cluster."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    if job.device == "cuda" and gpus < workers:
        raise InputError(
            f"training on GPUs by {workers} workers needs a GPU for each, but the Ray cluster has {gpus}; use fewer "
            "workers, or set device to 'cpu'"
        )
    return "cuda" if job.device != "cpu" and job.network.executor != "native" and gpus >= workers else "cpu"


def _fit(
    job: TrainJob,
    device: str,
    workers: int,
    threads: int,
    report: Callable[[TrainProgress], None],
    runtime_env: dict[str, Any],
) -> None:
    """Run Ray Train, whose own files lie in the run folder as long as it runs."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # recipes and sys.path may be relative to this folder
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    import ray.train  # noqa: PLC0415  # an extra, and it reads the environment that is set above
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer  # noqa: PLC0415  # an extra, as ray.train is

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if workers > (most := most_workers(nodes, threads)):
        cores = ", ".join(f"{node.get('CPU', 0):g}" for node in nodes)
        raise InputError(
            f"{workers} workers of {threads} thread(s) need as many CPUs of one node each, but the nodes of the Ray "
            f"cluster have {cores}, which is room for {most}; use other workers, or set training.threads or "
            "training.parts lower"
        )
    needs = {"CPU": threads} | ({"GPU": 1} if device == "cuda" else {})
    for stale in job.folder.glob(f"{_STORAGE}*"):  # of a process that was killed; one at a time holds the folder
        shutil.rmtree(stale, ignore_errors=True)
    storage = job.folder / f"{_STORAGE}{uuid4().hex}"
    news = ray.util.queue.Queue(actor_options={"num_cpus": 0})
    trainer = DataParallelTrainer(
        _work,
        train_loop_config={"job": [ray.put(job)], "device": device, "news": news},  # a list keeps it a reference
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=device == "cuda", resources_per_worker=needs
        ),
        run_config=ray.train.RunConfig(
            name="training",
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            worker_runtime_env=runtime_env,
        ),
    )
    executor = ThreadPoolExecutor(1)  # not in this thread, whose handler of Ctrl-C Ray Train would replace
    try:
        training = executor.submit(trainer.fit)
        while not training.done():
            _hear(news, report)
        _hear(news, report)
        training.result()
    except ray.train.TrainingFailedError as error:
        raise InputError(
            f"the training failed {MAX_FAILURES + 1} times, at last with: {_last_line(error)}; run it again to go on "
            "from the last checkpoint"
        ) from None
    finally:
        news.shutdown(force=True)  # whoever still trains ends with its next step
        executor.shutdown(wait=False)
        shutil.rmtree(storage, ignore_errors=True)


def _last_line(error: BaseException) -> str:
    """Return the last line that an error has to say, or at least of what kind it is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _hear(news: Any, report: Callable[[TrainProgress], None]) -> None:
    """Report the steps that were made meanwhile, after a wait for the first of them.

    Raises:
        InputError: If it is what a process has to say.
    """
    with suppress(ray.util.queue.Empty):
        while True:
            item = news.get(timeout=TICK)
            if isinstance(item, InputError):
                raise item
            report(item)


def _work(config: dict[str, Any]) -> None:
    """Train as one of several processes.

    Args:
        config: Reference of the job, device, and the queue that hears of the steps.
    """
    job: TrainJob = ray.get(config["job"][0])
    device, news = torch.device(config["device"]), config["news"]

    def report(progress: TrainProgress) -> None:
        news.put(progress)

    keep_large_blocks()
    try:
        with _process_group(device) as ranks:
            teacher = None if job.teacher is None else job.teacher.build(device).eval()
            train_network(
                job.network.build(device),
                job.data,
                job.settings,
                job.seed,
                job.space,
                job.folder,
                report if ranks.rank == 0 else None,
                ranks,
                None if teacher is None else Distillation(teacher, *job.teaching),
            )
    except InputError as error:  # the user's mistake, which no repetition mends
        news.put(error)
        raise


@contextmanager
def _process_group(device: torch.device) -> Iterator[Ranks]:
    """Join the processes of a training as torch's default group: NCCL on GPUs, else Gloo.

    They meet at the address by which Ray knows the machine of rank 0, 127.0.0.1 in a cluster of our own, and listen
    nowhere else.
    """
    from ray.train import get_context  # noqa: PLC0415  # an extra; only workers run this, which have it
    from ray.train.collective import broadcast_from_rank_zero  # noqa: PLC0415  # part of the same extra

    ranks = Ranks(get_context().get_world_rank(), get_context().get_world_size())
    host = ray.util.get_node_ip_address()
    if host.startswith("127."):
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.create_server((host, 0), family=family) if ranks.rank == 0 else None
    host, port = broadcast_from_rank_zero((host, door.getsockname()[1] if door is not None else 0))
    store = distributed.TCPStore(  # type: ignore[attr-defined]  # documented; torch re-exports it without saying so
        host,
        port,
        ranks.count,
        is_master=door is not None,
        timeout=RENDEZVOUS,
        wait_for_workers=False,
        master_listen_fd=None if door is None else door.detach(),
    )
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.count)
    try:
        yield ranks
    finally:
        distributed.destroy_process_group()
