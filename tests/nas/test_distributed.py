"""Training by several processes: the run of one process, and one that outlives its processes."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import ray.util.queue
from fakes import LITTLE, write_recipe
from safetensors.numpy import load_file

import nas
from nas import distributed
from nas.progress import Silent
from nas.ray_cluster import connect
from spaces import InputError
from supernet.settings import TrainSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # Ray warns of its own settings

SHORT = [
    LITTLE,
    ("epochs = 2\nbatch_size = 16", 'epochs = 3\nbatch_size = 47\naugment = ["affine"]\nthreads = 1'),
    ("mixup = 0.0", "mixup = 0.4"),
]
"""Batches that two processes cannot halve, 12 left over, and everything random that there is."""


class Steps(Silent):
    """Keeps the steps, and does something at each."""

    def __init__(self, act=lambda progress: None):
        self.seen, self.act = [], act

    def train(self, progress):
        self.seen.append(progress)
        self.act(progress)


STARTED_ELSEWHERE = """
import ray
from ray._private import ray_constants

ray_constants.ENABLE_RAY_CLUSTER = False
ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


def weights(run):
    (path,) = Path(run.folder).glob("*.safetensors")
    return load_file(path)


def same(run, other):
    mine, theirs = weights(run), weights(other)
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


def losses(run):
    return [record.loss for record in run.training().history]


def worker_processes():
    """Return the training processes of the Ray that this process has started, in ascending order."""

    def status(process):
        fields = (process / "status").read_text().splitlines()
        return {line.split(":")[0]: line.split(":", 1)[1].strip() for line in fields}

    parents, found = {}, []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int(status(process)["PPid"])
            if b"RayTrainWorker" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # gone meanwhile
            continue
    return sorted(pid for pid in found if parents.get(parents[pid]) == os.getpid())


def test_two_processes_train_like_one_whatever_dies(tmp_path):
    """Batches in two parts: the same bits, one process having been killed on the way; and whole ones to 1e-3."""
    recipe = write_recipe(tmp_path, *SHORT)
    parts = {"parts": 2}
    alone = nas.train(recipe, tmp_path / "alone", training=parts)
    whole = nas.train(recipe, tmp_path / "whole")
    killed = []

    def kill(progress):
        if progress.epoch > 1.5 and not killed:
            killed.extend(worker_processes())
            os.kill(killed[-1], signal.SIGKILL)

    hurt = Steps(kill)
    (tmp_path / "survivor" / ".ray-train-of-a-killed-one" / "training").mkdir(parents=True)
    survivor = nas.train(recipe, tmp_path / "survivor", reporter=hurt, workers=2, training=parts)
    assert same(survivor, alone)
    assert losses(survivor) == losses(alone) == pytest.approx(losses(whole), abs=1e-3)
    assert losses(alone) != losses(whole), "no batch was computed in parts"
    assert len(killed) == 2
    epochs = [step.epoch for step in hurt.seen]
    assert sorted(set(epochs)) == pytest.approx(np.arange(1, 16) / 5)
    assert epochs != sorted(epochs), "it went on without a new start"
    assert not ray.is_initialized()
    assert {path.name for path in survivor.folder.iterdir() if path.name != ".lock"} == {
        "run.json",
        "supernet.json",
        "supernet-00003.safetensors",
    }


def killing(numbers, after):
    """Return steps of which some, each once, kill the process of a number: when a training is so many epochs old."""
    waiting = list(zip(after, numbers, strict=True))

    def kill(progress):
        if waiting and progress.epoch > waiting[0][0]:
            os.kill(worker_processes()[waiting.pop(0)[1]], signal.SIGKILL)

    return Steps(kill)


@pytest.mark.slow
def test_a_training_whose_processes_are_killed_ends_with_the_weights_of_one_that_nobody_touched(tmp_path):
    recipe = write_recipe(tmp_path, *SHORT)
    whole = nas.train(recipe, tmp_path / "whole", workers=2)
    hurt = killing([0, 1], [1.5, 2.5])
    survivor = nas.train(recipe, tmp_path / "survivor", reporter=hurt, workers=2)
    assert len(hurt.seen) > 15
    assert same(whole, survivor)
    assert losses(whole) == losses(survivor)


@pytest.mark.slow
def test_a_training_that_fails_too_often_ends_and_can_be_gone_on_with(tmp_path):
    recipe = write_recipe(tmp_path, *SHORT)
    hurt = killing([0] * 4, [1.3] * 4)
    with pytest.raises(InputError, match=r"failed 4 times.*run it again to go on from the last checkpoint"):
        nas.train(recipe, tmp_path / "run", reporter=hurt, workers=2)
    assert len(nas.Run(tmp_path / "run").training().history) == 1
    assert len(losses(nas.train(recipe, tmp_path / "run", workers=2))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [0, 4, 8])
def test_an_epoch_of_digits_by_two_processes_has_the_loss_of_one(tmp_path, epoch):
    """From the weights of one process: a spike that flips by rounding parts any two trainings in the long run."""
    settings = {"epochs": 12, "checkpoint_every": 1}

    class StoppedError(Exception):
        pass

    def stop_after(epochs):
        def stop(progress):
            if progress.epoch > epochs:
                raise StoppedError

        return Steps(stop)

    if epoch:
        with pytest.raises(StoppedError):
            nas.train("digits", tmp_path / "begun", reporter=stop_after(epoch), training=settings)
        shutil.copytree(tmp_path / "begun", tmp_path / "two")
    with pytest.raises(StoppedError):
        nas.train("digits", tmp_path / "begun", reporter=stop_after(epoch + 1), training=settings)
    with pytest.raises(StoppedError):
        nas.train("digits", tmp_path / "two", reporter=stop_after(epoch + 1), workers=2, training=settings)
    one, two = (losses(nas.Run(tmp_path / name))[epoch] for name in ("begun", "two"))
    assert two == pytest.approx(one, abs=1e-4)


@pytest.mark.slow
def test_digits_in_two_parts_is_trained_alike_by_one_process_and_by_two(tmp_path):
    """All of its augmentation and its schedule, over more epochs than any rounding would leave alike."""
    settings = {"epochs": 12, "parts": 2}
    one = nas.train("digits", tmp_path / "one", training=settings)
    two = nas.train("digits", tmp_path / "two", workers=2, training=settings)
    assert losses(one) == losses(two)
    assert same(one, two)


@pytest.mark.slow
def test_processes_train_on_the_cluster_that_the_address_names(tmp_path, monkeypatch):
    monkeypatch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)  # listen to this machine only
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    recipe = write_recipe(tmp_path, *SHORT)
    command = [sys.executable, "-c", STARTED_ELSEWHERE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as elsewhere:
        try:
            address = elsewhere.stdout.readline().strip()
            run = nas.train(recipe, tmp_path / "run", workers=2, address=address)
        finally:
            elsewhere.communicate("end")
    assert losses(run) == pytest.approx(losses(nas.train(recipe, tmp_path / "alone")), abs=1e-3)


class Failing:
    """A training that fails and has nothing to say."""

    def __init__(self, *_, **__):
        pass

    def fit(self):
        from ray.train import TrainingFailedError

        raise TrainingFailedError(self.said)


@pytest.mark.parametrize(
    ("said", "last"), [("", "TrainingFailedError"), ("\n", "TrainingFailedError"), ("a\n b \n", "b")]
)
def test_a_training_that_fails_without_a_word_is_an_error_of_one_line(said, last, tmp_path, monkeypatch):
    class Queue:
        def __init__(self, **_):
            pass

        def get(self, timeout):
            raise ray.util.queue.Empty

        def shutdown(self, force):
            pass

    monkeypatch.setattr(Failing, "said", said, raising=False)
    monkeypatch.setattr("ray.train.v2.api.data_parallel_trainer.DataParallelTrainer", Failing)
    monkeypatch.setattr("ray.util.queue.Queue", Queue)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 4.0}}])
    monkeypatch.setattr(ray, "put", lambda job: None)
    job = SimpleNamespace(folder=tmp_path)
    with pytest.raises(InputError, match=rf"failed 4 times, at last with: {last}; run it again to go on"):
        distributed._fit(job, "cpu", 2, 1, lambda _: None, {})


def test_a_cluster_that_cannot_be_joined_and_says_nothing_is_named(monkeypatch):
    def refuse(**_):
        raise ConnectionError

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(InputError, match=r"must be that of a running Ray cluster, got 'ray:1': ConnectionError$"):
        connect("ray:1", 2)


def test_a_finished_training_starts_no_process(trained, recipe, monkeypatch):
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    before = weights(nas.Run(trained))
    again = nas.train(recipe, trained, workers=2)
    assert all(np.array_equal(before[name], tensor) for name, tensor in weights(again).items())


# Refusals


def test_ray_train_that_is_not_installed_is_an_error(recipe, tmp_path, monkeypatch, command):
    found = importlib.util.find_spec
    monkeypatch.setattr("nas.distributed.find_spec", lambda name: None if name == "pyarrow" else found(name))
    code, _, err = command("train", recipe, "--workers", 2, "--out", tmp_path / "run")
    assert code == 2
    assert "training by 2 workers needs Ray Train, which misses pyarrow: pip install 'spikefront[train]'" in err


def test_a_batch_has_an_image_for_each_process(recipe, tmp_path):
    with pytest.raises(InputError, match=r"batch_size must be workers or more.*got 16 images and 17 workers"):
        nas.train(recipe, tmp_path / "run", workers=17)


def test_a_process_has_a_part_at_least(recipe, tmp_path):
    with pytest.raises(InputError, match=r"parts must be workers or more.*got 2 parts and 3 workers"):
        nas.train(recipe, tmp_path / "run", workers=3, training={"parts": 2})


def test_a_process_has_the_cores_of_one_node(tmp_path, monkeypatch):
    nodes = [(4.0, True), (6.0, True), (64.0, False)]
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": alive, "Resources": {"CPU": cpu}} for cpu, alive in nodes])
    job = SimpleNamespace(folder=tmp_path)
    with pytest.raises(
        InputError, match=r"2 workers of 5 thread.* have 4, 6, which is room for 1; use other workers"
    ):
        distributed._fit(job, "cpu", 2, 5, lambda _: None, {})


@pytest.mark.parametrize(("parts", "threads", "cores"), [(4, 1, 2), (5, 0, 3), (2, 3, 3), (0, 3, 3)])
def test_a_process_takes_the_cores_of_its_parts(parts, threads, cores):
    job = SimpleNamespace(settings=TrainSettings(parts=parts, threads=threads))
    assert distributed._threads(job, 2, None) == cores


@pytest.mark.parametrize("workers", [0, -1, 1.5, "two", {"count": 2}])
def test_workers_are_a_number(recipe, tmp_path, workers):
    with pytest.raises(InputError, match="workers must be the number of processes that train, 1 or more"):
        nas.train(recipe, tmp_path / "run", workers=workers)
    assert not (tmp_path / "run").exists()


def test_one_process_joins_no_cluster(recipe, tmp_path, command):
    code, _, err = command("train", recipe, "--address", "auto", "--out", tmp_path / "run")
    assert code == 2
    assert "one process trains on this machine, and joins no cluster, got 'auto'; add workers" in err
