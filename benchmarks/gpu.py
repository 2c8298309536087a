"""Neurons and supernet on a GPU: correctness first, then speed against plain torch, SpikingJelly and the memory.

python benchmarks/gpu.py [--minutes 8] [--opponent FOLDER]

Everything is one call. A and B of a comparison are interleaved in one process, and medians are compared. The
SpikingJelly that is installed is measured with the backend it chooses itself (2.0) or with each it has (0.0.0.0.14);
FOLDER holds another one, of ``pip install --no-deps --target FOLDER spikingjelly==0.0.0.0.14``, and takes its place.
``--device cpu --quick`` runs the same lines on tiny tensors without a GPU, to see that they work.

Exit codes: 0, 1 when a result is wrong, 2 when there is no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import PackageNotFoundError, version

import torch
from gpu_bench import Bench, Row, shown
from gpu_network import scoring_errors, scoring_speed, training_errors, training_speed
from gpu_neurons import kernel_errors, lif_speed
from measure import save, start

from supernet.neurons.executors import check_executor

SECTIONS = {
    "neurons, against plain torch": kernel_errors,
    "scoring, against plain torch on the CPU": scoring_errors,
    "training, against plain torch on the CPU": training_errors,
    "speed of scoring": scoring_speed,
    "speed of training": training_speed,
    "speed of LIF": lif_speed,
}

COLUMNS = ("section", "what", "who", "dtype", "T", "ms", "ratio", "share of copy bandwidth", "images/s", "peak GiB")

PACKAGES = ("cupy-cuda13x", "cupy-cuda12x", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "triton", "spikefront")


def main() -> int:
    """Measure, print, write the results, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try the script out")
    parser.add_argument("--quick", action="store_true", help="tiny tensors and few rounds")
    parser.add_argument("--minutes", type=float, default=8.0, help="no measurement starts after so many minutes")
    parser.add_argument("--opponent", help="folder with the SpikingJelly to measure")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "no CUDA device: run this on a machine with a GPU, or try it out with --device cpu --quick",
            file=sys.stderr,
        )
        return 2
    if arguments.opponent:
        sys.path.insert(0, arguments.opponent)
    device = torch.device(arguments.device)
    if device.type == "cpu":
        start(threads=1)
    bench = Bench(device, arguments.quick, time.monotonic() + 60 * arguments.minutes)
    check_executor(bench.executor)  # says what is missing
    facts = describe(device)
    print(" | ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    wrong = 0
    for title, section in SECTIONS.items():
        if bench.late(title):
            continue
        print(f"{title}:", flush=True)
        wrong += section(bench) or 0
    print_table(bench.rows)
    when = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    content = {"quick": bench.quick, "gpu": facts, "notes": bench.notes, "rows": bench.rows}
    save(f"gpu-{device.type}-{when}", content)
    if wrong:
        print(f"{wrong} results are wrong", file=sys.stderr)
    return 1 if wrong else 0


def describe(device: torch.device) -> dict[str, str]:
    """Return the GPU, and the versions of what only it needs."""
    found = {"device": str(device)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        found["gpu"] = f"{properties.name}, {memory}, sm_{properties.major}{properties.minor}"
        found["cuda"] = str(torch.version.cuda)
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def print_table(rows: list[Row]) -> None:
    """Print the timed rows as one table."""
    timed = [row for row in rows if "ms" in row]
    columns = [name for name in COLUMNS if any(name in row for row in timed)]
    lines = [columns, *([shown(row.get(name, "")) for name in columns] for row in timed)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    for line in lines:
        print(" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    sys.exit(main())
