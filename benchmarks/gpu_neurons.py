"""Neurons on a GPU: kernels against plain torch, LIF against SpikingJelly and against memory bandwidth."""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
from gpu_bench import Bench, interleaved
from torch import Tensor

from supernet.neurons import LIF, NEURONS, SURROGATES, integrate

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


def kernel_errors(bench: Bench) -> int:
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
            bench.add("neurons", **row, verdict="WRONG" if bad else "ok")
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
        from spikingjelly.activation_based import neuron, surrogate  # noqa: PLC0415  # not required: compared with
    except Exception as error:  # whatever an import runs into
        bench.note(f"SpikingJelly cannot be imported: {error}")
        return {}
    backends: list[str | None] = [None]
    if "backend" in inspect.signature(neuron.LIFNode.__init__).parameters:
        backends = ["torch", "cupy"] if bench.device.type == "cuda" else ["torch"]
    else:
        bench.note("SpikingJelly 0.0.0.0.14 with CuPy is left out: name its folder with --opponent")
        bench.note(f"SpikingJelly's own choice: {their_choice(bench.device)}")
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for backend in backends:
        options = {} if backend is None else {"backend": backend}
        node = neuron.LIFNode(
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
        from spikingjelly._ops import lif  # noqa: PLC0415  # private to version 2.0, absent elsewhere

        return str(lif._selection.diagnostics(device))
    except Exception as error:  # private, and only told
        return f"unknown ({type(error).__name__})"
