"""A whole Spikformer 4-384 against the public architecture with SpikingJelly 2.0 neurons: interleaved, one thread.

Training step, its peak memory, inference of one subnet by the scoring engine, and what a new subnet costs to start.
With a run, only inference and start, on its trained supernet and its images: random weights are chaotic.

    pip install --no-deps "spikingjelly>=2.0" && pip install loguru h5py
    python benchmarks/model.py [--run RUN] [--rounds 5]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measure import interleaved, save, start
from public_spikformer import PublicSpikformer
from torch import Tensor, nn

import nas
from spaces import Architecture, Layer, SearchSpace, Skeleton, load_space
from supernet.calibrate import calibrate
from supernet.data import Normalise
from supernet.engine import PRECISIONS, Engine
from supernet.extract import extract
from supernet.spikformer import Spikformer, build_supernet

PUBLIC = Architecture(384, 4, tuple(Layer(4.0, 12, 1.0, 2.0) for _ in range(4)))
SKELETON = Skeleton(image_size=32, in_channels=3, num_classes=10)
BATCH = 16


def main() -> None:
    """Print ratios, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="run folder with a trained supernet")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides")
    parser.add_argument("--memory-of", choices=["public", "spikefront"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    start(arguments.threads)
    torch.manual_seed(0)
    if arguments.memory_of:
        print(_peak_memory(arguments.memory_of))
        return
    results: dict[str, object] = {"batch": BATCH, "threads": arguments.threads, "rounds": arguments.rounds}
    if arguments.run is None:
        results["training"] = _training(arguments.rounds)
        results["memory"] = _memory()
    supernet, space, calibration, images = _supernet(arguments.run)
    results["weights"] = "random" if arguments.run is None else "trained"
    results["inference"] = _inference(supernet, calibration, images, arguments.rounds)
    results["start"] = _start(supernet, space, images)
    save("model" if arguments.run is None else f"model-{arguments.run.resolve().name}", results)


def _step(network: nn.Module, images: Tensor, labels: Tensor, bfloat16: bool = False) -> None:
    network.train()
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = network(images).float()
    F.cross_entropy(logits, labels).backward()


def _batch() -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))


def _training(rounds: int) -> dict[str, object]:
    ours = Spikformer(SKELETON, PUBLIC)
    public = PublicSpikformer(SKELETON, PUBLIC).take_weights(ours)
    gradients = [_gradient_difference(ours, public, *(part[:4] for part in _batch())) for _ in range(8)]
    same = [error for error, tipped in gradients if not tipped]
    images, labels = _batch()
    seconds = interleaved(
        {
            "public": lambda: _step(public, images, labels),
            "float32": lambda: _step(ours, images, labels),
            "bfloat16": lambda: _step(ours, images, labels, bfloat16=True),
        },
        rounds,
    )
    ratios = {name: seconds["public"] / seconds[name] for name in ("float32", "bfloat16")}
    print(f"training step: public {seconds['public']:.2f} s, ratios {_shown(ratios)}")
    print(
        f"gradients: {len(same)} of {len(gradients)} batches of 4 without a tipped spike, worst of them "
        f"{max(same, default=0):.1e}"
    )
    return {
        "seconds": seconds,
        "ratios": ratios,
        "batches without a tipped spike": len(same),
        "worst gradient difference of these": max(same, default=None),
        "gradient differences of all batches": [error for error, _ in gradients],
    }


def _gradient_difference(ours: nn.Module, public: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, bool]:
    """Return the worst relative difference of a parameter's gradient, and whether rounding has tipped a spike.

    Random weights are chaotic: one spike whose potential all but equals its threshold changes everything behind it.
    """
    counts = []
    for network in (public, ours):
        fired: list[float] = []
        handle = network.head.register_forward_pre_hook(
            lambda _m, x, fired=fired: fired.append(x[0].detach().clone())
        )
        _step(network, images, labels)
        handle.remove()
        counts.append(fired[0])
    theirs = dict(public.named_parameters())
    errors = [
        ((p.grad - theirs[_public_name(name)].grad).norm() / theirs[_public_name(name)].grad.norm()).item()
        for name, p in ours.named_parameters()
        if not name.endswith("linear.bias")  # zero but for rounding, in front of a normalisation
    ]
    return max(errors), not torch.allclose(counts[0], counts[1], rtol=0, atol=1e-5)


def _public_name(name: str) -> str:
    for ours, theirs in {"stem.stages.": "stages.", "stem.position.": "position.", ".attention.": "."}.items():
        name = name.replace(ours, theirs)
    return name


def _memory() -> dict[str, float]:
    """Return the peak memory that a training step adds, in MiB, each in a process of its own."""
    peaks = {}
    for who in ("public", "spikefront"):
        command = [sys.executable, __file__, "--memory-of", who]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks[who] = float(shown.splitlines()[-1])
    ratio = peaks["spikefront"] / peaks["public"]
    print(
        f"peak memory of a step: public {peaks['public']:.0f} MiB, {peaks['spikefront']:.0f} MiB, ratio {ratio:.2f}"
    )
    return {**peaks, "ratio": ratio}


def _peak_memory(who: str) -> float:
    """Return by how much a step raises the peak resident memory of this process, in MiB."""
    network = Spikformer(SKELETON, PUBLIC) if who == "spikefront" else PublicSpikformer(SKELETON, PUBLIC)
    images, labels = _batch()
    small = images[:2], labels[:2]
    _step(network, *small)  # libraries, kernels and gradients are there before the measurement
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    _step(network, images, labels)
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _supernet(run: Path | None) -> tuple[Spikformer, SearchSpace, list[Tensor], Tensor]:
    """Return a supernet, its space, calibration batches, and images."""
    if run is None:
        space = load_space("auto-spikformer")
        supernet = build_supernet(space, 0)
        calibration = [torch.randn(64, 3, 32, 32) for _ in range(2)]
        return supernet.eval(), space, calibration, torch.randn(128, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = nas.Run(run)
        data, supernet = loaded.data, loaded.supernet()
    normalise = Normalise(*data.moments)
    calibration = [x for x, _ in normalise.batches(data.train.head(128), 64)]
    return supernet, loaded.space, calibration, next(normalise.batches(data.validation.head(256), 256))[0]


def _inference(supernet: Spikformer, calibration: list[Tensor], images: Tensor, rounds: int) -> dict[str, object]:
    """Compare one calibrated subnet: seconds of 16 images, and answers and logits on all images."""
    fits = supernet.architecture.embed_dim == PUBLIC.embed_dim
    architecture = PUBLIC if fits else supernet.architecture
    if not fits:
        print(f"the run is of another width: its largest network, embed_dim {architecture.embed_dim}, is compared")
    subnet = calibrate(extract(supernet, architecture), calibration)
    public = PublicSpikformer(subnet.skeleton, architecture).take_weights(subnet).eval()
    runs = {name: Engine(supernet, name).prepare(architecture, calibration) for name in PRECISIONS}
    few = images[:BATCH]
    with torch.no_grad():
        seconds = interleaved(
            {"public": lambda: public(few), **{name: lambda run=run: run(few) for name, run in runs.items()}}, rounds
        )
        expected = torch.cat([public(part) for part in images.split(32)])
        again = torch.cat([public(part) for part in images.split(1)])
    results: dict[str, object] = {"architecture": architecture.to_dict(), "seconds": seconds}
    for name, run in {**runs, "public, one image at a time": None}.items():
        logits = again if run is None else run(images)
        row = {
            "top-1 agreement": (logits.argmax(1) == expected.argmax(1)).double().mean().item(),
            "logits within 1e-4": ((logits - expected).abs().amax(1) <= 1e-4).double().mean().item(),
            "largest difference": (logits - expected).abs().max().item(),
        }
        if run is not None:
            row["ratio"] = seconds["public"] / seconds[name]
        print(f"inference, {name}: {_shown(row)}")
        results[name] = row
    return results


def _start(supernet: Spikformer, space: SearchSpace, images: Tensor) -> dict[str, float]:
    """Return what it costs a subnet to be new: CPU seconds of its first scoring less those of its second one."""
    rng = np.random.default_rng(1)
    engine, cost = Engine(supernet), {}
    calibration, one = [images[:2]], images[:1]
    for number in range(1, 51):
        architecture = space.sample_genes(rng)
        seconds = []
        for _ in range(2):
            began = time.process_time()
            engine.score([architecture], calibration, [one])
            seconds.append(time.process_time() - began)
        cost[number] = seconds[0] - seconds[1]
    groups = {"first": cost[1], "2nd": cost[2], "50th": cost[50]}
    groups["median of 2 to 11"] = float(np.median([cost[n] for n in range(2, 12)]))
    groups["median of 41 to 50"] = float(np.median([cost[n] for n in range(41, 51)]))
    print(f"CPU seconds that the n-th subnet costs for being new: {_shown(groups)}")
    return groups


def _shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


if __name__ == "__main__":
    main()
