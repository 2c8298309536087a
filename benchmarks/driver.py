"""What the driver of an asynchronous search spends per evaluation with many workers, by store, and its memory.

    python benchmarks/driver.py                       # 1,000 in flight: no store, journal, SQLite file
    python benchmarks/driver.py --evaluations 20000 --stores journal

Workers are in virtual time (log-normal durations) and answer from a formula, so that all CPU time is the driver's:
proposals of NSGA-II without a reranker, decoding, bookkeeping, and the store with all that a run writes to it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from asynchronous import Memory, VirtualPool
from measure import kept, save

from nas.address import parse_address
from nas.algorithms import build_algorithm
from nas.asynchronous import Conversation, Diary, run_asynchronous
from nas.backend import open_storage
from nas.evaluation import Evaluation, SplitName
from nas.loop import Quest
from nas.problem import ArchitectureProblem
from nas.storage import Store
from spaces import Architecture, load_space

OBJECTIVES = {"accuracy": "max", "energy_mj": "min"}
STORES = ("none", "journal", "sqlite")


class Formula:
    """Scores by a formula in which size buys accuracy and costs energy."""

    def score_together(
        self, architectures: Sequence[Architecture], _: SplitName = "validation"
    ) -> Iterator[Evaluation]:
        """Yield the evaluations of architectures."""
        for architecture in architectures:
            layers = architecture.layers
            spoilt = np.mean([abs(layer.v_threshold - 1.2) + abs(layer.tau - 2.0) / 2 for layer in layers])
            size = architecture.embed_dim * architecture.timesteps * sum(1 + layer.mlp_ratio for layer in layers)
            metrics = {"accuracy": size / (size + 2000) * float(np.exp(-spoilt)), "energy_mj": size * 1e-5}
            yield Evaluation(architecture, metrics, 1.0)


def resident_mib() -> float:
    """Return the memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measured(store: str, evaluations: int, flight: int, folder: Path) -> dict[str, Any]:
    """Return CPU milliseconds per evaluation, and memory after each tenth of them."""
    problem = ArchitectureProblem(load_space("digits"), OBJECTIVES)
    diary: Diary = Memory()
    if store != "none":
        text = {"journal": f"journal:{folder / 'log'}", "sqlite": f"sqlite:///{folder / 'study.db'}"}[store]
        diary = Store(open_storage(folder, parse_address(text, folder)), "search", problem.space, OBJECTIVES)
    algorithm = build_algorithm("nsga2", problem, 20, 0, evaluations, expand=1)
    conversation = Conversation(algorithm.problem, algorithm, 20, 1, {})
    memory: list[float] = []
    seen = 0

    def look(_: Evaluation) -> None:
        nonlocal seen
        seen += 1
        if seen % (evaluations // 10) == 0:
            memory.append(round(resident_mib(), 1))

    began = time.process_time()
    quest = Quest(problem, VirtualPool(Formula(), flight, 0), diary, evaluations, on_evaluation=look)
    run_asynchronous(quest, conversation)
    milliseconds = (time.process_time() - began) / evaluations * 1000
    return {"cpu_ms": round(milliseconds, 3), "memory_mib": memory}


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=4000)
    parser.add_argument("--flight", type=int, default=1000, help="workers")
    parser.add_argument("--stores", default=",".join(STORES))
    options = parser.parse_args()
    figures = {}
    for store in options.stores.split(","):
        with tempfile.TemporaryDirectory() as folder:
            figures[store] = found = measured(store, options.evaluations, options.flight, Path(folder))
        print(f"{store:>8}: {found['cpu_ms']:.2f} ms of CPU each, MiB {found['memory_mib']}", flush=True)
    name = f"driver-{options.evaluations}"
    before = kept(name)
    earlier = before.get("stores", {}) if before.get("in_flight") == options.flight else {}
    values = {"evaluations": options.evaluations, "in_flight": options.flight, "stores": {**earlier, **figures}}
    save(name, values)


if __name__ == "__main__":
    main()
