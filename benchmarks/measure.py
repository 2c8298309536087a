"""What the benchmarks share: fair start, interleaved rounds, and results with the machine they were measured on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from supernet.device import keep_large_blocks

RESULTS = Path(__file__).parent / "results"


def start(threads: int) -> None:
    """Set the allocator and the number of threads, alike for everything that is compared."""
    keep_large_blocks()
    torch.set_num_threads(threads)


def interleaved(calls: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, float]:
    """Return the median seconds of calls that take turns, so that a busy machine hurts all of them alike.

    On one thread these are seconds of CPU, which do not count the turns of other processes.
    """
    for _ in range(warm_up):
        for call in calls.values():
            call()
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = clock()
            call()
            times[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def machine() -> dict[str, Any]:
    """Return processor, cores and versions."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("spikingjelly", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "none"
    load = [round(value, 2) for value in os.getloadavg()]
    return {
        "processor": model,
        "features": [flag for flag in wanted if flag in flags],
        "cores": os.cpu_count(),
        "load": load,
        "versions": versions,
        "date": datetime.now(UTC).date().isoformat(),
    }


def kept(name: str) -> dict[str, Any]:
    """Return what an earlier run has written to a file of results, or nothing."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def save(name: str, values: Mapping[str, Any]) -> None:
    """Write results with their machine to ``benchmarks/results/<name>.json``, and say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **values}, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")
