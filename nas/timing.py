"""Where the time of a training step and of a scoring pass goes, by kind of layer, measured on the CPU.

A clock runs through real calls and belongs to one kind of layer at every moment, so the kinds add up to the total.
It is moved by hooks and wrappers on copies of the network, which are gone when the call returns.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.scoring import threads
from spaces import Architecture, InputError
from supernet.calibrate import calibrate
from supernet.engine import PRECISIONS, Engine
from supernet.extract import extract
from supernet.layers import EntangledBatchNorm
from supernet.neurons import SpikingNeuron, check_executor
from supernet.spikformer import LinearNeuron, Spikformer
from supernet.stems import ConvNeuron

FIRST, STEM, LINEAR, ATTENTION = "first convolution", "stem convolutions", "linear layers", "attention products"
NEURON, POOLING, HEAD, REST = "normalisation and neurons", "pooling", "head", "rest"
KINDS = (FIRST, STEM, LINEAR, ATTENTION, NEURON, POOLING, HEAD, REST)
"""Rows in order. Linear are q, k, v, the projection and the MLP; head is the mean over tokens, the head and the loss;
rest is residual sums, copies, counting, and what autograd does between layers."""

PHASES = ("forward", "backward", "evaluation", "calibration", "scoring")
"""A training step without its optimiser; a calibrated subnet run layer by layer; the engine's two passes."""


@dataclass(frozen=True, kw_only=True)
class TimingSettings:
    """How to measure.

    Attributes:
        batch: Images of every call, 2 or more.
        threads: Threads to compute on.
        rounds: Measured rounds, behind one that is not; each phase's median one is reported.
        precision: Products of the engine, a row of ``supernet.engine.PRECISIONS``.
        autocast: Whether training computes its products in bfloat16.
    """

    batch: int = 32
    threads: int = 1
    rounds: int = 5
    precision: str = "exact"
    autocast: bool = False

    def __post_init__(self) -> None:
        for name, least in {"batch": 2, "threads": 1, "rounds": 1}.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} must be {least} or more, got {getattr(self, name)}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision must be one of {list(PRECISIONS)}, got {self.precision!r}")


def time_layers(
    supernet: Spikformer,
    architecture: Architecture,
    settings: TimingSettings,
    training: Tensor | None = None,
    scored: Tensor | None = None,
) -> pd.DataFrame:
    """Return the milliseconds of a training step and of scoring one batch, by kind of layer.

    Args:
        supernet: Trained or not; left as it is. With its executor ``reference``, runs use no engine, so the phases
            ``calibration`` and ``scoring`` are left out.
        architecture: Subnet that is trained and scored.
        settings: How to measure.
        training: Normalised images to train and to calibrate on, the first ``batch`` of them; noise by default.
        scored: The same to score on.

    Returns:
        Rows ``KINDS`` and their ``total``; columns ``kind``, and for each of ``PHASES`` ``<phase>_ms`` and
        ``<phase>_share``, a fraction of the phase. ``attrs["density"]``, if there is an engine, is how many events a
        synapse of the spiking convolutions and linear layers meets per timestep, by value.

    Raises:
        InputError: If the architecture does not fit, or the executor cannot compute on the CPU.
    """
    supernet.check_fit(architecture)
    check_executor(supernet.executor)
    if supernet.executor == "cupy":
        raise InputError("layers are timed on the CPU, got executor 'cupy'; choose auto, native or reference")
    first, second = _images(supernet, settings.batch, training, scored)
    clock = _Clock()
    with threads(settings.threads):
        step = _Training(supernet, architecture, settings, clock, first)
        plain = _Evaluation(supernet, architecture, clock, first)
        engine = None if supernet.executor == "reference" else _Scoring(supernet, architecture, settings, clock)
        measured: list[dict[str, dict[str, float]]] = []
        for _ in range(settings.rounds + 1):
            clock.seconds = {}
            step.run()
            plain.run(second)
            if engine is not None:
                engine.run(first, second)
            measured.append(clock.seconds)
    frame = _table(measured[1:])
    if engine is not None:
        frame.attrs["density"] = engine.density
    return frame


def _images(supernet: Spikformer, batch: int, *given: Tensor | None) -> list[Tensor]:
    skeleton, noise = supernet.skeleton, torch.Generator().manual_seed(0)
    shape = (batch, skeleton.in_channels, skeleton.image_size, skeleton.image_size)
    return [torch.randn(shape, generator=noise) if images is None else images[:batch] for images in given]


def _table(measured: Sequence[dict[str, dict[str, float]]]) -> pd.DataFrame:
    """Return each phase's round of median length, so that its rows add up."""
    frame = pd.DataFrame({"kind": [*KINDS, "total"]})
    for phase in (phase for phase in PHASES if phase in measured[0]):
        rows = sorted((seconds[phase] for seconds in measured), key=lambda row: sum(row.values()))
        row = rows[(len(rows) - 1) // 2]
        total = sum(row.values())
        values = [*(row.get(kind, 0.0) for kind in KINDS), total]
        frame[f"{phase}_ms"] = [1000 * value for value in values]
        frame[f"{phase}_share"] = [value / total for value in values]
    return frame


class _Clock:
    """Seconds by phase and kind. Calls nest: an inner kind's time is not the outer one's."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}
        self._row: dict[str, float] = {}
        self._kinds: list[str] = []
        self._since = 0.0

    def begin(self, phase: str, kind: str) -> None:
        """End the running phase, if there is one, and begin another."""
        self.end()
        self._row = self.seconds.setdefault(phase, defaultdict(float))
        self._kinds = [kind]
        self.skip()

    def end(self) -> None:
        """End the phase; nothing is measured until the next one begins."""
        self._charge()
        self._kinds = []

    def enter(self, kind: str) -> None:
        """Give the time from now on to a kind, until ``leave``."""
        self._charge()
        self._kinds.append(kind)

    def leave(self) -> None:
        """Give the time from now on to the kind before."""
        self._charge()
        self._kinds.pop()

    def switch(self, kind: str) -> None:
        """Give the time from now on to a kind instead of the present one."""
        self._charge()
        self._kinds[-1] = kind

    def skip(self) -> None:
        """Measure from now on: what was done since the last change is nobody's time."""
        self._since = time.perf_counter()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._kinds:
            self._row[self._kinds[-1]] += now - self._since
        self._since = now

    def timed(self, kind: str, function: Any) -> Callable[..., Any]:
        """Return a function whose time is a kind's."""

        def call(*arguments: Any) -> Any:
            self.enter(kind)
            result = function(*arguments)
            self.leave()
            return result

        return call

    def beginning(self, kind: str | Callable[..., str], function: Any) -> Callable[..., Any]:
        """Return a function with whose call the time of a kind begins, which may follow from the arguments."""

        def call(*arguments: Any) -> Any:
            self.switch(kind if isinstance(kind, str) else kind(*arguments))
            return function(*arguments)

        return call

    def ending(self, function: Any) -> Callable[..., Any]:
        """Return a function behind whose call the rest begins."""

        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            self.switch(REST)
            return result

        return call


class _Graph:
    """Kinds of the nodes of an autograd graph."""

    def __init__(self) -> None:
        self._kinds: dict[Any, str] = {}

    def add(self, kind: str, output: Tensor, inputs: Sequence[Any] = ()) -> None:
        """Give a kind to all nodes between inputs and output that have none yet."""
        names = {"_ConvolveBackward": kind, "_LinearBackward": LINEAR}
        names |= {"_NormFireBackward": NEURON, "_MaxPoolBackward": POOLING}
        seen = {None, *(x.grad_fn for x in inputs if isinstance(x, Tensor))}
        waiting: list[tuple[Any, str]] = [(output.grad_fn, kind)]
        while waiting:
            node, outer = waiting.pop()
            if node in seen or "AccumulateGrad" in node.name():
                continue
            seen.add(node)
            passed = kind
            if node not in self._kinds:
                passed = self._kinds[node] = names.get(node.name(), outer)
            waiting += [(after, passed) for after, _ in node.next_functions]

    def follow(self, clock: _Clock) -> None:
        """Let the clock follow the backward pass of what was added, and forget it."""
        for node, kind in self._kinds.items():
            node.register_prehook(lambda _, kind=kind: clock.enter(kind))
            node.register_hook(lambda *_: clock.leave())
        self._kinds = {}


class _Training:
    """Steps of training without the optimiser, on a copy of the supernet."""

    def __init__(
        self, supernet: Spikformer, run: Architecture, settings: TimingSettings, clock: _Clock, images: Tensor
    ) -> None:
        self._network, self._run, self._clock, self._images = deepcopy(supernet).train(), run, clock, images
        self._autocast = settings.autocast
        self._graph = _Graph()
        self._labels = torch.arange(len(images)) % supernet.skeleton.num_classes
        _follow_layers(self._network, clock, self._graph)
        _follow_fused(self._network, clock)

    def run(self) -> None:
        """Measure ``forward`` and ``backward``."""
        self._network.zero_grad(set_to_none=True)
        self._clock.begin("forward", HEAD)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            logits = self._network(self._images, self._run).float()
        loss = F.cross_entropy(logits, self._labels)
        self._clock.end()
        self._graph.add(HEAD, loss)
        self._graph.follow(self._clock)
        self._clock.begin("backward", REST)
        torch.autograd.backward(loss)
        self._clock.end()


class _Evaluation:
    """Calls of an extracted and calibrated subnet."""

    def __init__(self, supernet: Spikformer, run: Architecture, clock: _Clock, training: Tensor) -> None:
        self._subnet, self._clock = calibrate(extract(supernet, run), [training]), clock
        _follow_layers(self._subnet, clock)

    @torch.no_grad()
    def run(self, scored: Tensor) -> None:
        """Measure ``evaluation``."""
        self._clock.begin("evaluation", HEAD)
        self._subnet(scored)
        self._clock.end()


class _Scoring:
    """Calls of an engine of its own, on a copy of the supernet."""

    def __init__(self, supernet: Spikformer, run: Architecture, settings: TimingSettings, clock: _Clock) -> None:
        copy = deepcopy(supernet).eval()
        self._run, self._clock = run, clock
        self._engine = Engine(copy, settings.precision, supernet.executor)
        self.density = 0.0
        _follow_engine(self._engine, copy, clock)

    def run(self, training: Tensor, scored: Tensor) -> None:
        """Measure ``calibration`` and ``scoring``."""

        def pass_of(phase: str, images: Tensor) -> Iterator[Tensor]:  # the engine asks when it begins a pass
            self._clock.begin(phase, REST)
            yield images

        (result,) = self._engine.score([self._run], pass_of("calibration", training), pass_of("scoring", scored))
        self._clock.end()
        spiking = [layer for layer in result.layers.values() if not layer.analog and layer.kind != "product"]
        self.density = sum(layer.accumulates for layer in spiking) / sum(layer.macs for layer in spiking)


def _follow_layers(network: Spikformer, clock: _Clock, graph: _Graph | None = None) -> None:
    """Let the clock follow the layers that a network calls.

    Args:
        network: A copy of one's own; it keeps the hooks.
        clock: What to move; a call begins with the time of the head.
        graph: Told of every layer that was called, in training.
    """

    def follow(module: nn.Module, kind: str, then: str | None = None) -> None:
        def leave(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            clock.leave()
            if then is not None:
                clock.switch(then)
            if graph is not None:
                graph.add(kind, output, inputs)
                clock.skip()

        module.register_forward_pre_hook(lambda *_: clock.enter(kind))
        module.register_forward_hook(leave)

    stem = network.stem
    for index, stage in enumerate(stem.stages):
        follow(stage, STEM if index else FIRST, POOLING if index in stem.pools else REST)
    for module in network.modules():
        if isinstance(module, EntangledBatchNorm | SpikingNeuron):
            follow(module, NEURON)
    follow(stem.position, STEM, REST)
    follow(stem, REST)
    for block in network.blocks:
        attention: Any = block.attention
        for part in (attention.q, attention.k, attention.v, attention.proj):
            follow(part, LINEAR, ATTENTION)
        for product in (attention.scores, attention.mix):
            follow(product, ATTENTION, ATTENTION)
        follow(attention, ATTENTION)
        hidden: Any = (block.fc1, block.fc2)
        for part in hidden:
            follow(part, LINEAR)
        follow(block, REST)


def _follow_fused(network: Spikformer, clock: _Clock) -> None:
    """Let the clock follow the fused steps of training, which call no layers.

    A step asks for compiled neurons before its products, and for their constants before it normalises and fires.
    """

    def asked(neuron: SpikingNeuron, kind: str, follow: bool) -> Callable[..., Any]:
        compiled = neuron.compiled

        def call(*arguments: Any) -> Any:
            kernels = compiled(*arguments)
            if kernels is not None:
                clock.switch(kind)
            if kernels is None or not follow:
                return kernels
            steps = {name: clock.timed(NEURON, getattr(kernels, name)) for name in ("forward", "backward")}
            return SimpleNamespace(**steps)

        return call

    for module in network.modules():
        if isinstance(module, ConvNeuron | LinearNeuron):
            neuron: Any = module.neuron  # of a copy, whose methods may be replaced
            neuron.constant_list = clock.beginning(NEURON, neuron.constant_list)
        if isinstance(module, LinearNeuron):
            neuron.compiled = asked(neuron, LINEAR, follow=False)
    for block in network.blocks:
        attention: Any = block.attention
        attention.neuron.compiled = asked(attention.neuron, ATTENTION, follow=True)


def _follow_engine(engine: Engine, supernet: Spikformer, clock: _Clock) -> None:
    """Let the clock follow an engine and the neurons of its supernet, copies of one's own."""
    runner: Any = engine._runner
    operators: Any = engine._operators
    run = runner.run

    # A stem begins with its first convolution, a layer with its events being counted.
    runner.run = lambda stage, *more: clock.timed(FIRST if stage.kind == "stem" else REST, run)(stage, *more)
    for name in ("arrivals", "sums"):
        setattr(
            operators, name, clock.beginning(lambda x: STEM if x.dim() == 5 else LINEAR, getattr(operators, name))
        )
    for neuron in supernet.modules():
        if isinstance(neuron, SpikingNeuron):  # asked for its constants before it normalises and fires
            vars(neuron)["constant_list"] = clock.beginning(NEURON, neuron.constant_list)
    operators.fire, operators.fire_attention = map(clock.ending, (operators.fire, operators.fire_attention))
    operators.attend, operators.pool = clock.timed(ATTENTION, operators.attend), clock.timed(POOLING, operators.pool)
    vars(engine)["_head"] = clock.timed(HEAD, engine._head)
