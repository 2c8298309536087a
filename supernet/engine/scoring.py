"""Scoring of many subnets at once, as a trie of their stages.

Subnets with the same stem, and then the same first blocks, have the same spikes and the same BatchNorm statistics up
to there, so each distinct prefix is calibrated and run once. What a subnet's result is does not depend on which
others are scored with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces import Architecture
from supernet.engine.counts import Events, LayerOperations, NeuronOperations
from supernet.engine.operators import choose_operators, exact_products
from supernet.engine.stages import Runner, Stage, stages_of
from supernet.engine.weights import GROUP, Products, interleave, products_of
from supernet.neurons.executors import choose_kernels
from supernet.neurons.kernels import Affine, Kernels
from supernet.spikformer import Spikformer

Prefix = tuple[Stage, ...]

MEMORY = 2 << 30
"""Bytes of calibration activations that may wait for the subnets which share them, by default."""

_PASS_ELEMENTS = 1 << 24
"""Currents of the widest layer in one pass over scored images: few enough to stay in the caches."""


@dataclass(frozen=True)
class SubnetResult:
    """What one subnet did with the scored images.

    Attributes:
        logits: ``(images, classes)``.
        layers: Operations by the layer's name, summed over the images.
        neurons: Updates and spikes by the neuron layer's name, summed over the images.
        images: Images seen.
    """

    logits: Tensor
    layers: dict[str, LayerOperations]
    neurons: dict[str, NeuronOperations]
    images: int

    @property
    def spikes(self) -> int:
        """Spikes fired, summed over the images."""
        return sum(row.fired for row in self.neurons.values())


@dataclass(frozen=True)
class Statistics:
    """BatchNorm statistics of one product, averaged over calibration batches, without the layers' biases.

    They are those that a network keeps, rounded to its float32: what is scored is what can be taken away.

    Attributes:
        mean: Per output, ``(C,)`` in float64.
        variance: Per output, unbiased.
    """

    mean: Tensor
    variance: Tensor


class Engine:
    """Scores subnets of one supernet, which is only read; nothing survives a call but prepared weights.

    Args:
        supernet: Trained supernet.
        precision: ``exact``, ``bf16`` or ``int8``.
        executor: Who computes products, pooling and attention, a row of ``supernet.neurons.EXECUTORS``; neurons are
            computed as the supernet's own executor says.
        memory: Bytes of calibration activations that may wait for the subnets which share them.
        images_per_pass: Images that go through a network at once, whose density decides how it is multiplied; as many
            as fit the caches by default.

    Raises:
        InputError: If a word is unknown, or an executor that was asked for by name cannot work here.
    """

    def __init__(
        self,
        supernet: Spikformer,
        precision: str = "exact",
        executor: str = "auto",
        memory: int = MEMORY,
        images_per_pass: int | None = None,
    ) -> None:
        self._supernet, self._memory = supernet, memory
        self._products = products_of(supernet, precision)
        self._device = supernet.head.weight.device
        self._operators = choose_operators(self._device, executor, precision)
        blocks: Iterable[Any] = supernet.blocks  # torch types the members of a list of modules as any module
        neurons = [block.attention.neuron for block in blocks]
        self._runner = Runner(self._products, self._operators, supernet.stem.pools, neurons)
        self.images_per_pass = images_per_pass or self._fitting()
        """Images that go through a network at once; with another number, sums can differ in their last bits."""

    @torch.no_grad()
    def score(
        self, architectures: Sequence[Architecture], calibration: Iterable[Tensor], scored: Iterable[Tensor]
    ) -> list[SubnetResult]:
        """Return the results of subnets, in order, with BatchNorm statistics of their own.

        Args:
            architectures: Subnets; equal ones are scored once.
            calibration: Normalised training images in batches ``(B, C, H, W)``, B of 2 or more.
            scored: Normalised images in batches.

        Raises:
            InputError: If an architecture does not fit into the supernet.
            ValueError: If there are no calibration batches.
        """
        with exact_products(self._device):
            return self._score_all(architectures, calibration, scored)

    def _score_all(
        self, architectures: Sequence[Architecture], calibration: Iterable[Tensor], scored: Iterable[Tensor]
    ) -> list[SubnetResult]:
        for architecture in architectures:
            self._supernet.check_fit(architecture)
        distinct = list(dict.fromkeys(architectures))
        prefixes = [stages_of(architecture) for architecture in distinct]
        batches = self._batches(calibration)
        statistics: dict[Prefix, _Calibrated] = {}
        self._calibrate(prefixes, 0, batches, statistics, self._memory)
        results = dict(zip(distinct, self._run(prefixes, statistics, scored), strict=True))
        return [results[architecture] for architecture in architectures]

    @torch.no_grad()
    def score_itself(self, scored: Iterable[Tensor]) -> SubnetResult:
        """Return the result of the network itself, with the BatchNorm statistics that it has.

        Args:
            scored: Normalised images in batches.
        """
        prefix = stages_of(self._supernet.architecture)
        own = _Calibrated({name: self._own_statistics(products) for name, products in self._products.items()})
        statistics = {prefix[: level + 1]: own for level in range(len(prefix))}
        with exact_products(self._device):
            (result,) = self._run([prefix], statistics, scored)
        return result

    def _own_statistics(self, products: Products) -> Statistics:
        norms: list[Any] = [self._supernet.get_submodule(f"{n.rpartition('.')[0]}.bn") for n in products.names]
        mean = interleave([norm.running_mean for norm in norms])
        variance = interleave([norm.running_var for norm in norms])
        return Statistics(mean.double() - _bias(products, len(mean)), variance.double())

    def _run(
        self, prefixes: list[Prefix], statistics: dict[Prefix, _Calibrated], scored: Iterable[Tensor]
    ) -> list[SubnetResult]:
        """Return the results of prefixes that are whole networks."""
        logits: dict[Prefix, list[Tensor]] = {prefix: [] for prefix in prefixes}
        events: dict[Prefix, Events] = {}
        images = 0
        for batch in scored:
            images += len(batch)
            for part in torch.split(batch.to(self._device), self.images_per_pass):
                self._score(prefixes, 0, part, statistics, logits, events)
        return [self._result(prefix, logits[prefix], events, images) for prefix in prefixes]

    def _batches(self, calibration: Iterable[Tensor]) -> list[Tensor]:
        batches = [batch.to(self._device) for batch in calibration]
        if not batches:
            raise ValueError("calibration needs at least one batch of training images, got none")
        return batches

    def _calibrate(
        self,
        prefixes: list[Prefix],
        level: int,
        batches: list[Tensor],
        statistics: dict[Prefix, _Calibrated],
        memory: int,
    ) -> None:
        """Fill in the statistics of all prefixes that go on from the same ``level`` stages; empties ``batches``."""
        groups = _by_stage(prefixes, level)
        mine = sum(batch.numel() for batch in batches)
        # Whoever shares these activations makes them wait; without memory for one more level each subnet goes alone.
        rest = memory - (mine if len(groups) > 1 else 0)
        if rest < 0:
            groups = [[prefix] for group in groups for prefix in group]
        for number, group in enumerate(groups, start=1):
            stage, averages = group[0][level], _Averages()
            after = [self._runner.run(stage, batch, averages, None) for batch in batches]
            if number == len(groups):
                batches.clear()  # nobody needs them any more, while deeper stages need the memory
            statistics[group[0][: level + 1]] = averages.result()
            further = [prefix for prefix in group if len(prefix) > level + 1]
            if further:
                self._calibrate(further, level + 1, after, statistics, max(rest, 0))

    def _score(
        self,
        prefixes: list[Prefix],
        level: int,
        x: Tensor,
        statistics: dict[Prefix, _Calibrated],
        logits: dict[Prefix, list[Tensor]],
        events: dict[Prefix, Events] | None,
    ) -> None:
        """Run all prefixes that go on from ``x``, the output of the same ``level`` stages; count into ``events``."""
        for group in _by_stage(prefixes, level):
            prefix = group[0][: level + 1]
            norm = statistics[prefix]
            counts = None if events is None else events.setdefault(prefix, Events())
            after = self._runner.run(prefix[-1], x, norm, counts)
            further = [other for other in group if len(other) > level + 1]
            if len(further) < len(group):
                logits[prefix].append(self._head(after))
            if further:
                self._score(further, level + 1, after, statistics, logits, events)

    def _head(self, x: Tensor) -> Tensor:
        head = self._supernet.head
        return F.linear(self._operators.token_mean(x), head.weight[:, : x.shape[-1]], head.bias)

    def _result(
        self, prefix: Prefix, logits: list[Tensor], events: dict[Prefix, Events], images: int
    ) -> SubnetResult:
        head = self._supernet.head
        total = Events()
        for level in range(len(prefix)):
            part = events.get(prefix[: level + 1], Events())
            total.layers |= {name: replace(row) for name, row in part.layers.items()}
            total.neurons |= {name: replace(row) for name, row in part.neurons.items()}
        width, classes = prefix[0].width, head.out_features
        row = LayerOperations("linear", analog=True, macs=images * width * classes)
        row.inputs, row.outputs, row.weights = images * width, images * classes, width * classes
        total.add("head", row)
        return SubnetResult(
            torch.cat(logits) if logits else torch.empty(0, classes), total.layers, total.neurons, images
        )

    def prepare(self, architecture: Architecture, calibration: Iterable[Tensor]) -> Callable[[Tensor], Tensor]:
        """Return a calibrated subnet as a function from normalised images ``(B, C, H, W)`` to logits.

        Args:
            architecture: Subnet.
            calibration: As of :meth:`score`.
        """
        prefix = stages_of(architecture)
        statistics = self._statistics(architecture, calibration)

        @torch.no_grad()
        def run(images: Tensor) -> Tensor:
            logits: dict[Prefix, list[Tensor]] = {prefix: []}
            with exact_products(self._device):
                for part in torch.split(images.to(self._device), self.images_per_pass):
                    self._score([prefix], 0, part, statistics, logits, None)
            return torch.cat(logits[prefix])

        return run

    @torch.no_grad()
    def _statistics(self, architecture: Architecture, calibration: Iterable[Tensor]) -> dict[Prefix, _Calibrated]:
        self._supernet.check_fit(architecture)
        found: dict[Prefix, _Calibrated] = {}
        with exact_products(self._device):
            self._calibrate([stages_of(architecture)], 0, self._batches(calibration), found, self._memory)
        return found

    def statistics(self, architecture: Architecture, calibration: Iterable[Tensor]) -> dict[str, Statistics]:
        """Return a subnet's BatchNorm statistics by the name of the layer in front, biases included.

        Args:
            architecture: Subnet.
            calibration: As of :meth:`score`.
        """
        prefix = stages_of(architecture)
        found = self._statistics(architecture, calibration)
        merged: dict[str, Statistics] = {}
        for level in range(len(prefix)):
            for name, row in found[prefix[: level + 1]].rows.items():
                merged |= _by_layer(self._products[name], row)
        return merged

    def _fitting(self) -> int:
        """Return how many images at once fit the caches."""
        skeleton, largest = self._supernet.skeleton, self._supernet.architecture
        per_image, size = 0, skeleton.image_size
        for index in range(4):
            per_image = max(per_image, size * size * largest.embed_dim * 2**index // 8)
            size = (size + 1) // 2 if index in self._supernet.stem.pools else size
        hidden = max(products.weight.shape[0] for products in self._products.values() if products.kernel == 1)
        return max(1, _PASS_ELEMENTS // (largest.timesteps * max(per_image, size * size * hidden)))


def _by_stage(prefixes: list[Prefix], level: int) -> list[list[Prefix]]:
    """Return prefixes grouped by their stage at a level, in the order of their first."""
    groups: dict[Stage, list[Prefix]] = {}
    for prefix in prefixes:
        groups.setdefault(prefix[level], []).append(prefix)
    return list(groups.values())


def _bias(products: Products, width: int) -> Tensor | float:
    """Return what the layers of a product add to its first outputs, in float64."""
    return 0.0 if products.bias is None else products.bias[:width].double()


def _by_layer(products: Products, row: Statistics) -> dict[str, Statistics]:
    """Return the statistics of each layer of a product."""
    mean = row.mean + _bias(products, len(row.mean))
    if products.parts == 1:
        return {products.names[0]: Statistics(mean, row.variance)}
    apart = [vector.view(-1, products.parts, GROUP).transpose(0, 1).flatten(1) for vector in (mean, row.variance)]
    return {name: Statistics(m, v) for name, m, v in zip(products.names, *apart, strict=True)}


def _affine(products: Products, mean: Tensor, variance: Tensor) -> Affine:
    n = len(mean)
    scale = products.gamma[:n].double() / (variance + products.eps).sqrt()
    shift = products.beta[:n].double() - mean * scale
    return Affine(scale.float(), shift.float(), mean.float())


class _Averages:
    """Normalises by a batch's own statistics, and averages them over batches."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._batches: Counter[str] = Counter()
        self._products: dict[str, Products] = {}

    def __call__(self, name: str, products: Products, y: Tensor) -> Affine:
        kernels: Kernels | None = choose_kernels(
            products.neuron.equations, y.device, y.dtype, products.neuron.executor
        )
        flat = y.flatten(0, -2)
        if kernels is not None:
            mean, variance = kernels.moments(flat)
        else:
            variance, mean = torch.var_mean(flat.double(), dim=0, correction=0)
        unbiased = variance * (len(flat) / max(len(flat) - 1, 1))
        before = self._sums.get(name, (torch.zeros_like(mean), torch.zeros_like(mean)))
        self._sums[name] = (before[0] + mean, before[1] + unbiased)
        self._batches[name] += 1
        self._products[name] = products
        return _affine(products, mean, variance)

    def result(self) -> _Calibrated:
        """Return the normalisation by the averages of all batches."""
        rows: dict[str, Statistics] = {}
        for name, (mean, variance) in self._sums.items():
            count, bias = self._batches[name], _bias(self._products[name], len(mean))
            kept, spread = (mean / count + bias).float().double(), (variance / count).float().double()
            rows[name] = Statistics(kept - bias, spread)
        return _Calibrated(rows)


class _Calibrated:
    """Normalises by statistics of calibration, which every pass over scored images shares.

    Args:
        rows: Statistics by product.
    """

    def __init__(self, rows: dict[str, Statistics]) -> None:
        self.rows = rows
        self._affines: dict[str, Affine] = {}

    def __call__(self, name: str, products: Products, y: Tensor) -> Affine:
        del y
        if name not in self._affines:
            self._affines[name] = _affine(products, self.rows[name].mean, self.rows[name].variance)
        return self._affines[name]


def in_turns(architectures: Iterable[Architecture]) -> Iterator[Architecture]:
    """Yield architectures so that those with equal stages follow each other."""
    return iter(sorted(architectures, key=lambda architecture: [repr(stage) for stage in stages_of(architecture)]))
