"""What the GPU benchmarks share: results as they come, and times by the clock of the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Row = dict[str, Any]


@dataclass
class Bench:
    """What all measurements share."""

    device: torch.device
    quick: bool
    deadline: float
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def executor(self) -> str:
        """The compiled executor of the device."""
        return "cupy" if self.device.type == "cuda" else "native"

    def add(self, section: str, **row: Any) -> None:
        """Keep and print a result."""
        self.rows.append({"section": section, **row})
        print("  " + "  ".join(f"{name} {shown(value)}" for name, value in row.items()), flush=True)

    def note(self, text: str) -> None:
        """Keep and print what a reader should know."""
        self.notes.append(text)
        print(f"  {text}", flush=True)

    def late(self, what: str) -> bool:
        """Return whether time is up, and say what is left out for it."""
        if time.monotonic() > self.deadline:
            self.note(f"left out for lack of time: {what}")
            return True
        return False


def shown(value: Any) -> str:
    """Return a value as text, numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def interleaved(
    bench: Bench, runs: dict[str, Callable[[], object]], rounds: int, warm_up: int = 3
) -> dict[str, float]:
    """Return the median milliseconds of each run, one of each in turn; a run that fails is noted and left out."""
    working = {}
    for name, run in runs.items():
        try:
            for _ in range(1 if bench.quick else warm_up):  # compiles, fills caches
                run()
            synchronise(bench.device)
        except Exception as error:  # another library's failure is a result, too
            bench.note(f"{name} failed: {type(error).__name__}: {str(error).splitlines()[:1]}")
            continue
        working[name] = run
    times: dict[str, list[float]] = {name: [] for name in working}
    for _ in range(2 if bench.quick else rounds):
        for name, run in working.items():
            times[name].append(timed(run, bench.device))
    return {name: statistics.median(values) for name, values in times.items()}


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Return the milliseconds that a run takes, on a GPU by its own clock."""
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - began)
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        start.record()
        run()
        stop.record()
        stop.synchronize()
    return float(start.elapsed_time(stop))


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(bench: Bench, run: Callable[[], object]) -> Row:
    """Return the most memory that a run needs beyond what is held before it, in GiB."""
    if bench.device.type != "cuda":
        return {}
    torch.cuda.synchronize(bench.device)
    torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.cuda.memory_allocated(bench.device)
    run()
    torch.cuda.synchronize(bench.device)
    return {"peak GiB": (torch.cuda.max_memory_allocated(bench.device) - before) / 2**30}
