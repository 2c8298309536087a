"""What asynchronous search gains, in virtual time: idle workers, quality, and the cost of the driver.

    python benchmarks/asynchronous.py                 # both
    python benchmarks/asynchronous.py --seeds 5 --flight 200

1. Eight workers whose durations are log-normal (sigma 1) on SpikeNAS: idle share and hypervolume of both modes.
2. Many workers in flight: what the driver spends per evaluation, with a journal as the record, and its memory.
   Optuna's journal, which is what a run would write, is not part of it.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measure import save
from search.problems import spikenas

from nas.algorithms import build_algorithm
from nas.asynchronous import Conversation, run_asynchronous
from nas.comparing import search_seeds
from nas.evaluation import Evaluation, Scores, SplitName
from nas.loop import Quest, run_search
from nas.results import hypervolume
from nas.statistics import rank_test
from spaces import Genotype

MODES = ("async", "generational")


class VirtualPool:
    """Workers in virtual time; each evaluation takes a log-normal time, nothing else takes any.

    Args:
        scorer: Gives the answers.
        count: Workers.
        seed: Seed of the durations.
    """

    def __init__(self, scorer: Scores, count: int, seed: int) -> None:
        self._scorer, self._free, self._count = scorer, count, count
        self._rng = np.random.default_rng(seed)
        self._now = self._busy = 0.0
        self._number = 0
        self._waiting: list[Genotype] = []
        self._running: list[tuple[float, int, Genotype]] = []

    def submit(self, architecture: Genotype, _: SplitName = "validation") -> None:
        """Begin an architecture, or queue it."""
        self._waiting.append(architecture)
        self._begin()

    def _begin(self) -> None:
        while self._free and self._waiting:
            seconds = float(self._rng.lognormal())
            self._free, self._number, self._busy = self._free - 1, self._number + 1, self._busy + seconds
            heapq.heappush(self._running, (self._now + seconds, self._number, self._waiting.pop(0)))

    def collect(self) -> Evaluation:
        """Go on to the end of the next evaluation."""
        self._now, _, architecture = heapq.heappop(self._running)
        self._free += 1
        self._begin()
        return next(self._scorer.score_together([architecture]))

    @property
    def hungry(self) -> bool:
        """Whether a worker has nothing to do."""
        return len(self._waiting) < self._free

    @property
    def idle_share(self) -> float:
        """Share of the workers' time without work."""
        return 1 - self._busy / (self._count * self._now)

    def withdraw(self) -> int:
        """Forget what waits."""
        self._waiting.clear()
        return len(self._running)


class Memory:
    """A record and diary in memory that can also write a journal, one JSON line per event.

    Args:
        journal: File, or None.
    """

    def __init__(self, journal: Path | None = None) -> None:
        self.known: dict[Genotype, Evaluation] = {}
        self.proposals: list[tuple[Genotype, int]] = []
        self.told: list[Evaluation] = []
        self._file = None if journal is None else journal.open("w", encoding="utf-8")

    @property
    def opened(self) -> int:
        """Number of proposals."""
        return len(self.proposals)

    def open(self, architecture: Genotype, generation: int, *, parents: Sequence[str] = (), after: int = 0) -> None:
        """Note a proposal."""
        self.proposals.append((architecture, after))
        notes = {"generation": generation, "parents": list(parents), "after": after}
        self._write({"open": architecture.key, **notes})

    def close(self, evaluation: Evaluation, *, told: int = 0) -> None:
        """Note a result."""
        self.known[evaluation.architecture] = evaluation
        self._write({"close": evaluation.architecture.key, "told": told, **evaluation.metrics})

    def _write(self, event: dict[str, object]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=600)
    parser.add_argument("--expand", type=int, default=1)
    parser.add_argument("--flight", type=int, default=1000, help="workers in the second part")
    parser.add_argument("--many", type=int, default=4000, help="evaluations in the second part")
    parser.add_argument("--data", default=os.environ.get("SPIKEFRONT_DATA"))
    options = parser.parse_args()
    arena = spikenas(Path(options.data))
    scorer = arena.job.open()
    problem, budget = arena.problem, options.evaluations
    shares: dict[str, list[float]] = {mode: [] for mode in MODES}
    idle: dict[str, list[float]] = {mode: [] for mode in MODES}
    for seed in search_seeds(0, options.seeds):
        for mode in MODES:
            algorithm = build_algorithm("nsga2", problem, 20, seed, budget, expand=options.expand)
            pool, memory = VirtualPool(scorer, 8, seed), Memory()
            if mode == "async":
                conversation = Conversation(problem, algorithm, 20, 1, {})
                run_asynchronous(Quest(problem, pool, memory, budget), conversation)
            else:
                run_search(Quest(problem, pool, memory, budget), algorithm)
            points = np.array([problem.point(result.metrics) for result in memory.known.values()])
            shares[mode].append(hypervolume(points, problem.objectives, arena.reference) / arena.whole)
            idle[mode].append(pool.idle_share)
    for mode in MODES:
        print(f"{mode:>12}: share {np.mean(shares[mode]):.4f}, idle {100 * np.mean(idle[mode]):.1f} %")
    p = rank_test(np.array(shares["async"]), np.array(shares["generational"]))
    print(f"rank test of the shares: p = {p:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        algorithm = build_algorithm("nsga2", problem, 20, 0, options.many, expand=1)
        pool, memory = VirtualPool(scorer, options.flight, 0), Memory(Path(folder) / "journal")
        began = time.process_time()
        conversation = Conversation(problem, algorithm, 20, 1, {})
        run_asynchronous(Quest(problem, pool, memory, options.many), conversation)
        each = (time.process_time() - began) / options.many * 1000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.flight} in flight, {options.many} evaluations: {each:.2f} ms of CPU each, peak {peak:.0f} MiB")
    figures = {
        "seeds": options.seeds,
        "evaluations": budget,
        "expand": options.expand,
        "share": {mode: float(np.mean(values)) for mode, values in shares.items()},
        "idle_share": {mode: float(np.mean(values)) for mode, values in idle.items()},
        "p": float(p),
        "in_flight": {"workers": options.flight, "evaluations": options.many, "cpu_ms": each, "peak_mib": peak},
    }
    name = f"asynchronous-expand{options.expand}"
    save(name, figures)


if __name__ == "__main__":
    main()
