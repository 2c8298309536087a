"""The supernet on a GPU: scoring and training against plain torch on the CPU, and how fast both are.

Rounding can tip a spike, and in a deep network one spike tips others. So the CPU is also compared with itself in
double precision: a GPU is wrong where it is farther from the CPU than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from gpu_bench import Bench, Row, interleaved, peak
from torch import Tensor

from evaluators import OperationCounts, counting
from spaces import Architecture, SearchSpace, load_space
from supernet.calibrate import calibrate
from supernet.engine import Engine, SubnetResult
from supernet.extract import extract
from supernet.layers import EntangledBatchNorm
from supernet.spikformer import Spikformer, build_supernet

SUBNETS = 16
"""Subnets that are scored together."""

PRECISIONS = {"float32": "exact", "bfloat16": "bf16"}
"""Precision of the engine's products beside the type of plain evaluation."""


def lively(space: SearchSpace, executor: str, architecture: Architecture | None = None) -> Spikformer:
    """Return an untrained network on the CPU in which all layers fire, by default the supernet."""
    if architecture is None:
        network = build_supernet(space, 0, executor)
    else:
        network = extract(build_supernet(space, 0, executor), architecture)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, EntangledBatchNorm):
                module.weight.fill_(3.0)
                module.bias.fill_(0.5)
        network.head.weight.mul_(10)  # logits of about 1
    return network.eval()


def pictures(space: SearchSpace, count: int, seed: int = 0) -> Tensor:
    """Return normalised noise as images."""
    skeleton = space.skeleton
    shape = (count, skeleton.in_channels, skeleton.image_size, skeleton.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def float32_products(device: torch.device) -> AbstractContextManager[None]:
    """Return a block in which convolutions do not round float32 to TensorFloat-32, as torch lets them by default."""
    if device.type != "cuda":
        return nullcontext()
    return cast(AbstractContextManager[None], torch.backends.cudnn.flags(enabled=True, allow_tf32=False))


def cases(bench: Bench) -> Iterator[tuple[str, SearchSpace, Architecture]]:
    """Yield labelled architectures that results are compared of."""
    spaces = {name: load_space(name) for name in (("grey28",) if bench.quick else ("grey28", "auto-spikformer"))}
    for name, space in spaces.items():
        yield f"smallest of {name}", space, space.smallest()
        if not bench.quick:
            yield f"largest of {name}", space, space.largest()


# --- scoring


@dataclass(frozen=True)
class Answers:
    """What a network said of some images.

    Attributes:
        logits: ``(images, classes)`` on the CPU.
        counted: Operations that depend on spikes, summed over layers and images.
        shaped: Operations that follow from shapes.
    """

    logits: Tensor
    counted: tuple[float, ...]
    shaped: tuple[int, ...]

    def distance(self, expected: Answers) -> Row:
        """Return shares that agree, and the largest relative difference of a count."""
        close = (self.logits.double() - expected.logits.double()).abs() < 1e-4
        answers = self.logits.argmax(dim=1) == expected.logits.argmax(dim=1)
        pairs = zip(self.counted, expected.counted, strict=True)
        return {
            "logits within 1e-4": float(close.double().mean()),
            "same answers": float(answers.double().mean()),
            "counts off by": max(abs(a - b) / max(b, 1.0) for a, b in pairs),
            "same shapes": self.shaped == expected.shaped,
        }


def answers_of(logits: Tensor, counts: OperationCounts | SubnetResult) -> Answers:
    """Return logits with sums of counts."""

    def total(name: str) -> Any:
        return sum(getattr(layer, name) for layer in counts.layers.values())

    counted = (*map(total, ("accumulates", "nonzero", "events")), counts.spikes)
    shaped = (*map(total, ("macs", "inputs", "outputs", "weights")), counts.images)
    return Answers(logits.cpu(), counted, shaped)


def plain_answers(
    supernet: Spikformer, architecture: Architecture, batches: list[Tensor], dtype: torch.dtype = torch.float32
) -> Answers:
    """Return what a subnet says that is copied, calibrated and counted by itself."""
    device = supernet.head.weight.device
    images = [batch.to(device, dtype) for batch in batches]
    subnet = calibrate(extract(supernet, architecture).to(dtype), images)
    with torch.no_grad(), counting(subnet) as counts:
        logits = torch.cat([subnet(batch) for batch in images])
    return answers_of(logits, counts)


def engine_answers(supernet: Spikformer, architecture: Architecture, batches: list[Tensor]) -> Answers:
    """Return what the engine says of a subnet that it scores beside another."""
    beside = Architecture(architecture.embed_dim, architecture.timesteps, architecture.layers[:1])
    result, _ = Engine(supernet).score([architecture, beside], batches, batches)
    return answers_of(result.logits, result)


def scoring_errors(bench: Bench) -> int:
    """Compare the engine and plain evaluation on the device with the CPU; return how many are wrong."""
    wrong = 0
    for what, space, architecture in cases(bench):
        if bench.late(f"scoring of the {what}"):
            break
        batches = list(pictures(space, 16 if bench.quick else 64).chunk(2))
        expected = plain_answers(lively(space, "reference"), architecture, batches)
        double = plain_answers(lively(space, "reference").double(), architecture, batches, torch.float64)
        limit = double.distance(expected)
        bench.add("scoring errors", what=what, T=architecture.timesteps, who="CPU, double precision", **limit)
        with float32_products(bench.device):
            found = {
                f"engine, {bench.executor} neurons": engine_answers(
                    lively(space, bench.executor).to(bench.device), architecture, batches
                ),
                "engine, plain neurons": engine_answers(
                    lively(space, "reference").to(bench.device), architecture, batches
                ),
                f"plain layers, {bench.executor} neurons": plain_answers(
                    lively(space, bench.executor).to(bench.device), architecture, batches
                ),
            }
        for who, answers in found.items():
            row = answers.distance(expected)
            bad = not (
                row["logits within 1e-4"] >= limit["logits within 1e-4"] - 0.1
                and row["same answers"] >= limit["same answers"] - 0.1
                and row["counts off by"] <= 10 * limit["counts off by"] + 1e-3
                and row["same shapes"]
            )
            wrong += bad
            verdict = "WRONG" if bad else "ok"
            bench.add("scoring errors", what=what, T=architecture.timesteps, who=who, **row, verdict=verdict)
    return wrong


def scoring_speed(bench: Bench) -> None:
    """Time the scoring of subnets together and one by one, both with calibration."""
    name, count = ("grey28", 2) if bench.quick else ("auto-spikformer", SUBNETS)
    space, rng = load_space(name), np.random.default_rng(0)
    drawn: dict[Architecture, None] = {}
    while len(drawn) < count:
        drawn[space.sample(rng)] = None
    subnets = list(drawn)
    calibration = [pictures(space, 4 if bench.quick else 64, seed=1).to(bench.device)]
    images = pictures(space, 8 if bench.quick else 256).to(bench.device)
    supernet = lively(space, "auto").to(bench.device)
    runs: dict[str, Callable[[], object]] = {}
    for dtype, precision in PRECISIONS.items():
        engine = Engine(supernet, precision)
        runs[f"engine {dtype}"] = partial(engine.score, subnets, calibration, [images])
        runs[f"one by one {dtype}"] = partial(score_alone, supernet, subnets, calibration, images, dtype)
    timesteps = sorted({subnet.timesteps for subnet in subnets})
    medians = interleaved(bench, runs, rounds=3, warm_up=1)
    for label, median in medians.items():
        who, dtype = label.rsplit(" ", 1)
        row: Row = {"what": f"{count} subnets of {name}", "who": who, "dtype": dtype, "T": timesteps, "ms": median}
        row |= {"ratio": median / medians.get(f"engine {dtype}", float("nan"))}
        row |= {"images/s": 1e3 * count * len(images) / median}
        bench.add("scoring", **row, **peak(bench, runs[label]))


def score_alone(
    supernet: Spikformer, subnets: list[Architecture], calibration: list[Tensor], images: Tensor, dtype: str
) -> list[Tensor]:
    """Return the answers of subnets that are copied, calibrated and run one by one.

    Products are float32 without further rounding, as the engine's are, or bfloat16 by autocast.
    """
    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=dtype == "bfloat16")
    with float32_products(images.device), torch.no_grad(), autocast:
        return [calibrate(extract(supernet, subnet), calibration)(images).argmax(dim=1) for subnet in subnets]


# --- training


@dataclass(frozen=True)
class Step:
    """Loss of a training step, and its gradients side by side, float64 on the CPU."""

    loss: float
    gradient: Tensor

    def distance(self, expected: Step) -> Row:
        """Return relative differences."""
        off = (self.gradient - expected.gradient).norm() / expected.gradient.norm()
        return {"loss off by": abs(self.loss - expected.loss) / abs(expected.loss), "gradients off by": float(off)}


def loss_of(network: Spikformer, images: Tensor) -> Tensor:
    """Return the loss where labels take turns."""
    labels = torch.arange(len(images), device=images.device) % network.skeleton.num_classes
    return F.cross_entropy(network(images), labels)


def first_step(network: Spikformer, images: Tensor) -> Step:
    """Return loss and gradients of a training step."""
    weight = network.head.weight
    loss = loss_of(network.train(), images.to(weight.device, weight.dtype))
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return Step(loss.item(), torch.cat([gradient.double().flatten().cpu() for gradient in gradients]))


def compared_step(
    space: SearchSpace,
    architecture: Architecture,
    images: Tensor,
    executor: str,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
) -> Step:
    """Return the first training step of the same network by an executor, on a device, in a type."""
    return first_step(lively(space, executor, architecture).to(device, dtype), images)


def training_errors(bench: Bench) -> int:
    """Compare fused training on the device with plain layers there and on the CPU; return how many are wrong."""
    wrong = 0
    for what, space, architecture in cases(bench):
        if bench.late(f"training of the {what}"):
            break
        images = pictures(space, 16)

        step = partial(compared_step, space, architecture, images)
        plain = step("reference", "cpu")
        limit = step("reference", "cpu", torch.float64).distance(plain)
        bench.add("training errors", what=what, T=architecture.timesteps, who="CPU, double precision", **limit)
        with float32_products(bench.device):
            fused, reference = step(bench.executor, bench.device), step("reference", bench.device)
        pairs = {
            "fused against the CPU": fused.distance(plain),
            "plain layers against the CPU": reference.distance(plain),
            "fused against plain layers": fused.distance(reference),
        }
        for who, row in pairs.items():
            bad = any(not row[name] <= 10 * limit[name] + 1e-4 for name in limit)
            wrong += bad
            verdict = "WRONG" if bad else "ok"
            bench.add("training errors", what=what, T=architecture.timesteps, who=who, **row, verdict=verdict)
    return wrong


def training_speed(bench: Bench) -> None:
    """Time training steps with compiled neurons and fused layers, and with plain ones."""
    name, size, batch = ("grey28", "smallest", 2) if bench.quick else ("auto-spikformer", "largest", 64)
    space = load_space(name)
    architecture = space.smallest() if bench.quick else space.largest()
    images = pictures(space, batch).to(bench.device)
    for dtype in ("float32", "bfloat16"):
        if bench.late(f"training in {dtype}"):
            return
        runs = {
            who: step_of(lively(space, executor, architecture).to(bench.device).train(), images, dtype)
            for who, executor in {"spikefront": "auto", "plain torch": "reference"}.items()
        }
        medians = interleaved(bench, runs, rounds=10)
        for who, median in medians.items():
            row: Row = {"what": f"training step, {size} of {name}", "who": who, "dtype": dtype}
            row |= {"T": architecture.timesteps, "ms": median}
            row |= {"ratio": median / medians.get("spikefront", float("nan")), "images/s": 1e3 * batch / median}
            bench.add("training", **row, **peak(bench, runs[who]))


def step_of(network: Spikformer, images: Tensor, dtype: str) -> Callable[[], object]:
    """Return a training step."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    kind = images.device.type

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = loss_of(network, images)
        loss.backward()
        optimizer.step()

    return step
