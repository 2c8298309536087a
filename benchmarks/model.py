"""A whole Spikformer 4-384 against the public architecture with SpikingJelly 2.0 neurons: interleaved, one thread.

Training step, inference of one subnet by the scoring engine, peak memory of a step, and what a new subnet costs to
start. Without a run the weights are random; a run gives those of its trained supernet and real images.

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

from spaces import Architecture, Layer, SearchSpace, Skeleton, load_space
from supernet.calibrate import calibrate
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
    results["training"] = _training(arguments.rounds)
    results["memory"] = _memory()
    supernet, space, calibration, images = _supernet(arguments.run)
    results["weights"] = "random" if arguments.run is None else "trained"
    results["inference"] = _inference(supernet, calibration, images, arguments.rounds)
    results["start"] = _start(supernet, space, images)
    save("model" if arguments.run is None else "model-trained", results)


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
    images, labels = _batch()
    _step(public, images, labels)
    _step(ours, images, labels)
    theirs = dict(public.named_parameters())
    errors = {
        name: ((p.grad - theirs[_public_name(name)].grad).norm() / theirs[_public_name(name)].grad.norm()).item()
        for name, p in ours.named_parameters()
        if not name.endswith("linear.bias")  # zero but for rounding, in front of a normalisation
    }
    seconds = interleaved(
        {
            "public": lambda: _step(public, images, labels),
            "float32": lambda: _step(ours, images, labels),
            "bfloat16": lambda: _step(ours, images, labels, bfloat16=True),
        },
        rounds,
    )
    ratios = {name: seconds["public"] / seconds[name] for name in ("float32", "bfloat16")}
    worst = max(errors.values())
    print(f"training step: public {seconds['public']:.2f} s, ratios {_shown(ratios)}, worst gradient {worst:.1e}")
    return {"seconds": seconds, "ratios": ratios, "worst relative gradient difference": worst}


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
    import nas  # noqa: PLC0415
    from supernet.data import Normalise  # noqa: PLC0415

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
    """Return the seconds from an architecture never seen before to its first scored image, for the n-th one."""
    rng = np.random.default_rng(1)
    engine, shown = Engine(supernet), {}
    calibration, one = [images[:2]], images[:1]
    for number in range(1, 51):
        architecture = space.sample_genes(rng)
        began = time.perf_counter()
        engine.score([architecture], calibration, [one])
        seconds = time.perf_counter() - began
        # Per operation, as subnets differ in size.
        size = sum(row.macs for row in engine.score([architecture], calibration, [one])[0].layers.values())
        shown[number] = seconds / size * 1e9
    groups = {"first": shown[1], "2 to 10": float(np.median([shown[n] for n in range(2, 11)]))}
    groups["41 to 50"] = float(np.median([shown[n] for n in range(41, 51)]))
    print(f"seconds per 1e9 dense operations to start the n-th subnet: {_shown(groups)}")
    return groups


def _shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


if __name__ == "__main__":
    main()
