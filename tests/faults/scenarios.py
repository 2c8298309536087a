"""Each fault, injected into a search: every function returns a row of the table that ``make faults`` prints."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import ray.cluster_utils
from bench import PATIENCE, STUDIES, Bench, judge, kill_at_random, survivors, wait_until
from fault_evaluator import KINDS, fault

import nas


@dataclass
class Row:
    """A line of the table.

    Attributes:
        fault: What was injected.
        mode: How the search goes on.
        where: Who scores.
        runs: Number of searches.
        injected: How often.
        verdicts: What became of the searches.
        seconds: In all.
        notes: What else was seen, in words.
    """

    fault: str
    mode: str
    where: str
    runs: int
    injected: int
    verdicts: list
    seconds: float
    notes: str = ""

    def total(self, name):
        return sum(getattr(verdict, name) for verdict in self.verdicts)

    @property
    def wrong(self):
        """All that is not as it should be, in words."""
        wrong = [line for verdict in self.verdicts for line in verdict.wrong]
        wrong += [f"{self.total('lost')} lost"] * (self.total("lost") > 0)
        wrong += [f"{self.total('repeated')} repeated"] * (self.total("repeated") > 0)
        return wrong + ["nothing was injected"] * (self.injected == 0)


class References:
    """Searches that nothing happens to, in one process, which others are compared with.

    Args:
        folder: Of all of them.
    """

    def __init__(self, folder):
        self._folder, self._known, self._lock = folder, {}, threading.Lock()

    def of(self, bench):
        """Return the bench of the search that another one should equal; None if it is asynchronous."""
        if bench.mode == "async":
            return None
        name = f"{bench.seed}-{bench.evaluations}-{'-'.join(f'{k}{v}' for k, v in bench.shares.items())}"
        with self._lock:
            if name not in self._known:
                alike = {"evaluations": bench.evaluations, "seed": bench.seed, "shares": bench.shares}
                made = Bench(self._folder / name, seconds=0.0, raising=True, **alike)
                assert made.finish() == 0, made.errors
                self._known[name] = made
            return self._known[name]


def seconds_since(began):
    return time.monotonic() - began


def named(bench):
    return "this process" if bench.workers is None else f"{bench.workers} Ray workers"


def driver_kills(folder, references, mode, workers, runs=10, kills=5, seed=0, evaluations=60):
    """Kill the driver at random moments."""
    began, verdicts, benches, injected = time.monotonic(), [], [], 0
    for number in range(runs):
        bench = Bench(folder / f"{mode}-{number}", mode=mode, workers=workers, seed=number, evaluations=evaluations)
        rng = np.random.default_rng([seed, number])
        count, kept = kill_at_random(bench, rng, kills)
        injected += count
        code = bench.finish()
        verdict = judge(bench, kept, references.of(bench))
        verdict.wrong += [f"exit code {code}"] * (code != 0)
        benches.append(bench)
        verdicts.append(verdict)
    for bench, verdict in zip(benches, verdicts, strict=True):
        verdict.wrong += ["processes stayed"] * (not settled(bench))
    return Row("driver killed", mode, named(bench), runs, injected, verdicts, seconds_since(began))


def settled(bench, seconds=90):
    """Wait until no process of a bench is left and return True, or False if one stays; then it is killed.

    Ray's agents try for a minute to tell their dead cluster that it is dead.
    """
    until = time.monotonic() + seconds
    while (left := survivors(bench)) and time.monotonic() < until:
        time.sleep(0.2)
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return not left


def interrupts(folder, references, mode, workers, times=3):
    """Press Ctrl-C."""
    began = time.monotonic()
    bench, kept, codes = Bench(folder / f"interrupt-{mode}", mode=mode, workers=workers, evaluations=60), {}, []
    for _ in range(times):
        with bench.driver() as process:
            before = bench.begun()
            if wait_until(lambda before=before: bench.begun() - before >= 12, process):
                process.send_signal(signal.SIGINT)
            codes.append(process.wait(60))
        kept |= bench.kept()
    code = bench.finish()
    verdict = judge(bench, kept, references.of(bench))
    verdict.wrong += [f"exit codes {codes}, {code}"] * (codes != [130] * times or code != 0)
    return Row("Ctrl-C", mode, named(bench), 1, codes.count(130), [verdict], seconds_since(began))


def worker_kills(folder, references, mode, workers=2, kills=12):
    """Kill workers at random, each at another architecture."""
    began, rng = time.monotonic(), np.random.default_rng(0)
    bench = Bench(folder / f"workers-{mode}", mode=mode, workers=workers, evaluations=60, seconds=0.1)
    injected, victims = 0, set()
    with bench.driver() as process:
        for _ in range(kills):
            before, more = bench.begun(), int(rng.integers(3, 7))
            if not wait_until(lambda before=before, more=more: bench.begun() - before >= more, process):
                break
            last = bench.calls().iloc[-1]
            if last["event"] == "begin" and last["key"] not in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(last["process"], signal.SIGKILL)
                    injected += 1
                    victims.add(last["key"])
        code = process.wait(300)
    verdict = judge(bench, (), references.of(bench))
    verdict.wrong += [f"exit code {code}"] * (code != 0) + ["an evaluation failed"] * (verdict.failed > 0)
    return Row("worker killed", mode, named(bench), 1, injected, [verdict], seconds_since(began))


def bad_architectures(folder, references, mode, kind, share=0.1, workers=2, evaluations=40):
    """Score architectures of which some kill their process, hang, give NaN, raise or find no memory."""
    began = time.monotonic()
    shares = {kind: share} if kind in KINDS else dict.fromkeys(KINDS, share / len(KINDS))
    options = ("--timeout", "1.5") if "hang" in shares else ()
    bench = Bench(
        folder / f"{kind}-{mode}", mode=mode, workers=workers, evaluations=evaluations, shares=shares, options=options
    )
    code = bench.finish()
    verdict = judge(bench, (), references.of(bench))
    frame = pd.concat([nas.Run(bench.run_folder).evaluations(study) for study in STUDIES])
    told = frame["key"].map(lambda key: fault(key, shares) is not None)
    verdict.wrong += ["others failed than those that should"] * bool((told != (frame["state"] == "failed")).any())
    verdict.wrong += ["a reason is missing"] * bool((frame.loc[told, "failure"].fillna("") == "").any())
    verdict.wrong += [f"exit code {code}"] * (code != 0)
    names = {"poison": "architecture kills its worker", "hang": "evaluation hangs", "nan": "evaluation gives NaN"}
    names |= {"exception": "evaluation raises", "memory": "out of memory", "all": f"{share:.0%} of all kinds fail"}
    return Row(names[kind], mode, named(bench), 1, int(told.sum()), [verdict], seconds_since(began))


def nodes(folder, references, mode, evaluations=80, join=True):
    """Search on a cluster of three nodes of which one is removed half-way, and another one joins later."""
    began = time.monotonic()
    cluster = ray.cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    used = set()
    try:
        removed, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        options = ("--address", cluster.address)
        bench = Bench(
            folder / f"nodes-{mode}",
            mode=mode,
            workers="auto",
            evaluations=evaluations,
            seconds=0.15,
            options=options,
        )
        raylet = removed.all_processes["raylet"][0].process.pid
        with bench.driver() as process:
            wait_until(lambda: bench.begun() >= evaluations // 2, process)
            busy = wait_until(lambda: any(parent(worker) == raylet for worker in bench.at_work()), process)
            cluster.remove_node(removed, allow_graceful=False)
            wait_until(lambda: bench.begun() >= evaluations * 3 // 4, process)
            used = set(bench.calls()["process"])
            if join:
                cluster.add_node(num_cpus=2)
            code = process.wait(300)
    finally:
        cluster.shutdown()
    verdict = judge(bench, (), references.of(bench))
    verdict.wrong += [f"exit code {code}"] * (code != 0) + ["an evaluation failed"] * (verdict.failed > 0)
    later = set(bench.calls()["process"]) - used
    verdict.wrong += ["the node that was removed had nothing to do"] * (not busy)
    verdict.wrong += ["a node that joined was not used"] * (join and not later)
    where = "3 nodes, auto workers"
    note = f"{len(used)} workers before, {len(later)} more after a node joined" if join else f"{len(used)} workers"
    return Row("node removed, node joins", mode, where, 1, 1 + join, [verdict], seconds_since(began), note)


def parent(process):
    """Return the parent of a process, or None if there is no such process."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def outage(folder, references, server, mode, seconds=20.0, password="", workers=None, killed=False):
    """Stop the PostgreSQL server of a run for a while; and kill the driver meanwhile."""
    began = time.monotonic()
    name = "store away" + (", driver killed" if killed else "")
    bench = Bench(
        folder / f"outage-{mode}-{killed}", mode=mode, workers=workers, evaluations=60, seconds=0.1,
        options=("--storage", server.url(password)),
    )  # fmt: skip
    with bench.driver() as process:
        wait_until(lambda: bench.begun() >= 20, process)
        server.stop()
        before = bench.begun()
        if killed:
            wait_until(lambda: bench.begun() - before >= 10, process)
            process.kill()
            process.wait()
        else:
            time.sleep(seconds)
        meanwhile = bench.begun() - before
        server.start()
        code = 0 if killed else process.wait(300)
    if killed:
        code = bench.finish()
    with patch.dict(os.environ, SPIKEFRONT_STORAGE_PASSWORD=password):
        verdict = judge(bench, (), references.of(bench))
    verdict.wrong += [f"exit code {code}"] * (code != 0) + ["nothing was scored meanwhile"] * (meanwhile == 0)
    note = f"{meanwhile} evaluations meanwhile"
    return Row(name, mode, named(bench), 1, 1 + killed, [verdict], seconds_since(began), note)


def full_disk(folder, references, mode, workers=None):
    """Fill the disk of a run half-way, and make room once it has stopped; None where none can be mounted."""
    began, disk = time.monotonic(), folder / f"disk-of-{mode}"
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        return None
    bench = Bench(folder / f"disk-{mode}", mode=mode, workers=workers, evaluations=60, seconds=0.05)
    recipe = bench.folder / "recipe.toml"
    recipe.write_text("storage_patience = 5\n" + recipe.read_text())
    bench.run_folder = disk / "run"
    try:
        with bench.driver() as process:
            wait_until(lambda: bench.begun() >= 20, process)
            with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            codes = [process.wait(120)]
        kept = bench.kept()
        codes.append(bench.finish())
        (disk / "ballast").unlink()
        codes.append(bench.finish())
        verdict = judge(bench, kept, references.of(bench))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    verdict.wrong += [f"exit codes {codes}"] * (codes != [2, 2, 0])
    return Row("disk full", mode, named(bench), 1, 1, [verdict], seconds_since(began), "stops, refuses, goes on")


def second_driver(folder, references, mode, workers=None):
    """Start the same search twice."""
    began = time.monotonic()
    bench = Bench(folder / f"second-{mode}", mode=mode, workers=workers, evaluations=40, seconds=0.1)
    with bench.driver() as process:
        wait_until(lambda: bench.begun() >= 5, process)
        second = bench.finish()
        code = process.wait(120)
    verdict = judge(bench, (), references.of(bench))
    holder = f"process {process.pid}" in bench.errors.replace("\n", " ")
    verdict.wrong += [f"exit codes {code}, {second}"] * ((code, second) != (0, 2))
    verdict.wrong += ["the refusal does not say who holds the run"] * (not holder)
    return Row("second driver", mode, named(bench), 1, 1, [verdict], seconds_since(began), "refused, says by whom")


def joined(folder, references, mode, workers=None, dies=None):
    """Start the same search twice, the second time with ``--join``; the one that leads, or the other one, may die."""
    began = time.monotonic()
    bench = Bench(folder / f"joined-{mode}-{dies}", mode=mode, workers=workers, evaluations=60, seconds=0.1)
    with bench.driver() as leader:
        wait_until(lambda: bench.begun() >= 3, leader)
        with bench.driver("--join") as other:
            wait_until(lambda: bench.calls()["process"].nunique() >= 2, other)
            before = bench.begun()
            if dies is not None:
                wait_until(lambda: bench.begun() - before >= 10)
                (leader if dies == "leader" else other).kill()
            codes = [leader.wait(PATIENCE), other.wait(PATIENCE)]
    expected = {None: [0, 0], "leader": [-signal.SIGKILL, 0], "other": [0, -signal.SIGKILL]}[dies]
    verdict = judge(bench, (), references.of(bench))
    calls = bench.calls()
    shares = calls[calls["event"] == "begin"].groupby("process").size().sort_values()
    verdict.wrong += [f"exit codes {codes}"] * (codes != expected)
    verdict.wrong += ["the work was not shared"] * int(dies is None and shares.iloc[0] < shares.sum() / 5)
    names = {None: "second driver with --join", "leader": "its leader killed", "other": "it is killed"}
    note = f"{' and '.join(map(str, shares))} evaluations"
    return Row(names[dies], mode, named(bench), 1, 1, [verdict], seconds_since(began), note)
