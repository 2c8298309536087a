"""Neurons and supernet on a GPU: correctness first, then speed against SpikingJelly and against memory bandwidth.

python benchmarks/gpu.py [--minutes 8] [--opponent FOLDER] [--results FOLDER]

Everything is one call. A and B of a comparison are interleaved in one process, and medians are compared. The
SpikingJelly that is installed is measured with the backend it chooses itself (2.0) or with each it has (0.0.0.0.14);
FOLDER holds another one, of ``pip install --no-deps --target FOLDER spikingjelly==0.0.0.0.14``, and takes its place.
``--device cpu --quick`` runs the same lines on tiny tensors without a GPU, to see that they work.

Exit codes: 0, 1 when a kernel is wrong, 2 when there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import logging
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spaces import load_space
from supernet.extract import extract
from supernet.neurons import LIF, NEURONS, SURROGATES, integrate
from supernet.neurons.executors import check_executor
from supernet.spikformer import Spikformer

RESULTS = Path(__file__).parent / "results"
TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
CLOSE = {"float64": 1e-9, "float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}
"""Largest relative difference of gradients, by norms; short floats are rounded to 3 or 2 digits at the end."""

CASES = [
    *(("sigmoid", False, timesteps) for timesteps in (1, 4, 7, 16, 32, 40)),
    *(("atan", True, timesteps) for timesteps in (1, 4, 7, 16, 32, 40)),
    *(("sigmoid", True, 4), ("atan", False, 4)),
]
"""Surrogate, soft reset and timesteps of what is compared with plain torch: every kernel that is built."""

TIMESTEPS = (4, 16, 32)
MOVED = {"forward": 2, "forward + backward": 5}
"""Reads and writes of a whole sequence that cannot be avoided: x, spikes; and x, their gradient, that of x."""

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


def main() -> int:
    """Measure, print, write the results, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try the script out")
    parser.add_argument("--quick", action="store_true", help="tiny tensors and few rounds")
    parser.add_argument("--minutes", type=float, default=8.0, help="no measurement starts after so many minutes")
    parser.add_argument("--opponent", help="folder with the SpikingJelly to measure")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
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
    bench = Bench(device, arguments.quick, time.monotonic() + 60 * arguments.minutes)
    check_executor(bench.executor)  # says what is missing
    machine = describe(device)
    print(" | ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    wrong = 0
    for title, section in {
        "correctness": correctness,
        "LIF": lif_speed,
        "supernet": supernet_speed,
        "scoring": scoring_speed,
    }.items():
        if bench.late(title):
            continue
        print(f"{title}:", flush=True)
        wrong += section(bench) or 0
    print_table(bench.rows)
    path = write(bench, machine, arguments.results)
    print(f"written to {path}")
    if wrong:
        print(f"{wrong} kernels are wrong", file=sys.stderr)
    return 1 if wrong else 0


def describe(device: torch.device) -> dict[str, str]:
    """Return the machine and the versions of what is measured."""
    found = {"host": f"{platform.system()} {platform.machine()}", "python": platform.python_version()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = (
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, sm_{properties.major}{properties.minor}"
        )
        found["cuda"] = str(torch.version.cuda)
    names = [
        "torch",
        "cupy-cuda13x",
        "cupy-cuda12x",
        "nvidia-cuda-nvrtc",
        "nvidia-cuda-nvrtc-cu12",
        "triton",
        "spikefront",
    ]
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write(bench: Bench, machine: dict[str, str], folder: Path) -> Path:
    """Write all rows with the machine; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    when = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = folder / f"gpu-{bench.device.type}-{when}.json"
    content = {"when": when, "quick": bench.quick, "machine": machine, "notes": bench.notes, "rows": bench.rows}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def print_table(rows: list[Row]) -> None:
    """Print the timed rows as one table."""
    timed = [row for row in rows if "ms" in row]
    columns = [
        "section",
        "what",
        "who",
        "dtype",
        "T",
        "ms",
        "ratio",
        "share of copy bandwidth",
        "images/s",
        "peak GiB",
    ]
    columns = [name for name in columns if any(name in row for row in timed)]
    lines = [columns, *([shown(row.get(name, "")) for name in columns] for row in timed)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    for line in lines:
        print(" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))


# --- timing


def interleaved(bench: Bench, runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each run, one of each in turn; a run that fails is noted and left out."""
    working = {}
    for name, run in runs.items():
        try:
            for _ in range(1 if bench.quick else 3):  # compiles, fills caches
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


# --- correctness


def correctness(bench: Bench) -> int:
    """Compare spikes and gradients of every neuron with plain torch; return how many are wrong."""
    wrong = 0
    for name, make in NEURONS.items():
        for dtype_name, dtype in TYPES.items():
            if bench.device.type == "cpu" and dtype == torch.float16:
                continue  # goes through float32 there
            spikes_differ, worst = 0, 0.0
            for surrogate, soft, timesteps in CASES:
                neuron = make(SURROGATES[surrogate], soft, bench.executor).to(bench.device)
                neuron = neuron.double() if dtype == torch.float64 else neuron
                differ, error = compare(neuron, timesteps, dtype, bench)
                spikes_differ, worst = spikes_differ + differ, max(worst, error)
            bad = spikes_differ > 0 or not worst <= CLOSE[dtype_name]
            wrong += bad
            row = {"neuron": name, "dtype": dtype_name, "spikes that differ": spikes_differ, "gradients": worst}
            bench.add("correctness", **row, verdict="WRONG" if bad else "ok")
    return wrong


def compare(neuron: Any, timesteps: int, dtype: torch.dtype, bench: Bench) -> tuple[int, float]:
    """Return how many spikes differ from plain torch, and the worst relative difference of a gradient."""
    generator = torch.Generator().manual_seed(timesteps)
    shape = (timesteps, 3, 5, 67 if bench.quick else 6701)
    x, g = ((2 * torch.randn(shape, generator=generator)).to(bench.device, dtype) for _ in range(2))
    constants = neuron.constants(0.7, 3.0)
    found = []
    for run in (lambda x: neuron(x, 0.7, 3.0), lambda x: integrate(x, neuron.equations, constants)):
        leaf = x.detach().requires_grad_()
        spikes = run(leaf)
        inputs = [leaf, *neuron.parameters()]
        found.append((spikes, torch.autograd.grad(spikes, inputs, g, retain_graph=True)))
    (a, by_a), (b, by_b) = found
    gx, expected = by_a[0].double(), by_b[0].double()
    errors = [(gx - expected).norm() / expected.norm().clamp(min=1e-30)]
    for p, q in zip(by_a[1:], by_b[1:], strict=True):  # sums of terms of both signs, as exact as so many of them are
        errors.append((p - q).abs().double() / q.abs().double().clamp(min=x.numel() ** 0.5))
    return int((a != b).sum()), max(float(error) for error in errors)


# --- LIF against SpikingJelly and against the memory


def lif_speed(bench: Bench) -> None:
    """Time the forward and backward pass of LIF neurons and of its opponents."""
    rivals = opponents(bench)
    copy = copy_bandwidth(bench)
    elements = 1 << 14 if bench.quick else 25_165_824  # (4, 256, 384, 8, 8)
    for dtype_name in ("float32", "float16", "bfloat16"):
        for timesteps in TIMESTEPS:
            if bench.late(f"LIF {dtype_name} T {timesteps}"):
                return
            shape = (timesteps, elements // timesteps // 64, 64)
            x = (1.5 * torch.randn(shape, device=bench.device)).to(TYPES[dtype_name])
            g = torch.randn_like(x)
            neurons = {"spikefront": LIF(executor=bench.executor), "plain torch": LIF(executor="reference")}
            calls: dict[str, Callable[[Tensor], Tensor]] = dict(neurons.items())
            calls |= rivals
            for what, moved in MOVED.items():
                runs = {name: pass_of(call, x, g, what) for name, call in calls.items()}
                medians = interleaved(bench, runs, rounds=15)
                for name, median in medians.items():
                    rate = moved * x.numel() * x.element_size() / median * 1e-6  # GB/s
                    row = {"what": what, "who": name, "dtype": dtype_name, "T": timesteps, "ms": median}
                    ratio = median / medians.get("spikefront", float("nan"))
                    bench.add("LIF", **row, ratio=ratio, **{"GB/s": rate, "share of copy bandwidth": rate / copy})
            del x, g


def pass_of(call: Callable[[Tensor], Tensor], x: Tensor, g: Tensor, what: str) -> Callable[[], object]:
    """Return a run of one pass."""
    if what == "forward":

        def forward() -> object:
            with torch.no_grad():
                return call(x)

        return forward

    leaf = x.detach().requires_grad_()
    return lambda: torch.autograd.grad(call(leaf), leaf, g)


def copy_bandwidth(bench: Bench) -> float:
    """Return the GB/s of copying a large tensor, bytes read and written."""
    a = torch.empty(1 << 14 if bench.quick else 1 << 28, dtype=torch.float32, device=bench.device)
    b = torch.empty_like(a)
    a.zero_()
    median = interleaved(bench, {"copy": lambda: b.copy_(a)}, rounds=15)["copy"]
    rate = 2 * a.numel() * 4 / median * 1e-6
    bench.add("bandwidth", what="copy of 1 GiB" if not bench.quick else "copy", ms=median, **{"GB/s": rate})
    return rate


def opponents(bench: Bench) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return calls of SpikingJelly's LIF, by version and backend; a missing one is noted."""
    if importlib.util.find_spec("spikingjelly") is None:
        bench.note("SpikingJelly is not installed: pip install spikingjelly")
        return {}
    logging.getLogger("spikingjelly").setLevel(logging.WARNING)
    try:
        from spikingjelly.activation_based import neuron as theirs  # noqa: PLC0415  # only this comparison needs it
        from spikingjelly.activation_based import surrogate  # noqa: PLC0415
    except Exception as error:  # whatever an import runs into
        bench.note(f"SpikingJelly cannot be imported: {error}")
        return {}
    backends: list[str | None] = [None]
    if "backend" in inspect.signature(theirs.LIFNode.__init__).parameters:
        backends = ["torch", "cupy"] if bench.device.type == "cuda" else ["torch"]
    else:
        bench.note("SpikingJelly 0.0.0.0.14 with CuPy is left out: name its folder with --opponent")
        bench.note(f"SpikingJelly's own choice: {their_choice(bench.device)}")
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for backend in backends:
        options = {} if backend is None else {"backend": backend}
        node = theirs.LIFNode(
            tau=2.0,
            v_threshold=1.0,
            surrogate_function=surrogate.Sigmoid(alpha=4.0),
            detach_reset=True,
            step_mode="m",
            **options,
        ).to(bench.device)
        found[f"SpikingJelly {backend or 'auto'}"] = from_rest(node)
    return found


def from_rest(node: Any) -> Callable[[Tensor], Tensor]:
    """Return a call of a module with a state, starting each time without one."""

    def call(x: Tensor) -> Tensor:
        node.reset()
        spikes: Tensor = node(x)
        return spikes

    return call


def their_choice(device: torch.device) -> str:
    """Return what SpikingJelly 2.0 says it runs."""
    try:
        from spikingjelly._ops import lif  # noqa: PLC0415

        return str(lif._selection.diagnostics(device))
    except Exception as error:  # private, and only told
        return f"unknown ({type(error).__name__})"


# --- the supernet


def supernet_speed(bench: Bench) -> None:
    """Time training steps of the supernet with compiled neurons and layers, and with plain torch."""
    space = load_space("grey28" if bench.quick else "auto-spikformer")
    skeleton, batch = space.skeleton, 2 if bench.quick else 64
    largest = space.smallest() if bench.quick else space.largest()
    shape = (batch, skeleton.in_channels, skeleton.image_size, skeleton.image_size)
    images = torch.randn(shape, device=bench.device)
    labels = torch.randint(skeleton.num_classes, (batch,), device=bench.device)
    for precision in ("float32", "bfloat16"):
        if bench.late(f"training in {precision}"):
            return
        runs = {}
        for who, executor in {"spikefront": "auto", "plain torch": "reference"}.items():
            torch.manual_seed(0)
            network = Spikformer(skeleton, largest, executor).to(bench.device).train()
            runs[who] = step_of(network, images, labels, precision)
        medians = interleaved(bench, runs, rounds=10)
        for who, median in medians.items():
            row = {
                "what": "training step",
                "who": who,
                "dtype": precision,
                "T": space.largest().timesteps,
                "ms": median,
            }
            row |= {"ratio": median / medians.get("spikefront", float("nan")), "images/s": 1e3 * batch / median}
            bench.add("supernet", **row, **peak(bench, runs[who]))


def step_of(network: Spikformer, images: Tensor, labels: Tensor, precision: str) -> Callable[[], object]:
    """Return a training step of the largest architecture."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    kind = images.device.type

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(images).float()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()

    return step


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


def scoring_speed(bench: Bench) -> None:
    """Time the plain evaluation of the smallest, the largest and some drawn subnets, extracted from a supernet."""
    space = load_space("grey28" if bench.quick else "auto-spikformer")
    skeleton, batch = space.skeleton, 4 if bench.quick else 256
    shape = (batch, skeleton.in_channels, skeleton.image_size, skeleton.image_size)
    images = torch.randn(shape, device=bench.device)
    torch.manual_seed(0)
    supernet = Spikformer(skeleton, space.largest()).to(bench.device)
    with torch.no_grad():
        supernet.train()(images)  # statistics under which neurons fire
    rng = np.random.default_rng(0)
    drawn = {"smallest": space.smallest()}
    if not bench.quick:
        drawn |= {"largest": space.largest()} | {f"drawn {n}": space.sample(rng) for n in range(4)}
    for name, architecture in drawn.items():
        for precision in ("float32", "bfloat16"):
            if bench.late(f"scoring {name} in {precision}"):
                return
            subnet = extract(supernet, architecture)
            run = scoring_of(subnet, images, precision)
            for _, median in interleaved(bench, {name: run}, rounds=10).items():
                row = {
                    "what": f"scoring, {name}",
                    "who": "spikefront",
                    "dtype": precision,
                    "T": architecture.timesteps,
                }
                bench.add("scoring", **row, ms=median, **{"images/s": 1e3 * batch / median}, **peak(bench, run))


def scoring_of(subnet: Spikformer, images: Tensor, precision: str) -> Callable[[], object]:
    """Return a pass over the images in evaluation mode."""

    def score() -> object:
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return subnet(images).argmax(dim=1)

    return score


if __name__ == "__main__":
    sys.exit(main())
