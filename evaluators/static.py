"""Metrics that follow from an architecture alone: known before it has weights, for every proposal of a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evaluators.base import Evaluator
from evaluators.table import score
from spaces import Architecture, Genotype, InputError, Skeleton

_FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What an evaluator raises that looks for more than there is, or for which an architecture is no good."""


@dataclass(frozen=True)
class UnbuiltCandidate:
    """An architecture without weights, as static evaluators see it.

    Attributes:
        architecture: What to judge.
        skeleton: Input, classes and neuron of the network.
        largest: Largest architecture of the supernet.
    """

    architecture: Architecture
    skeleton: Skeleton
    largest: Architecture


@dataclass(frozen=True)
class StaticMetrics:
    """The static ones of some evaluators, as a function of an architecture.

    Attributes:
        evaluators: Evaluators by name, static or not.
        candidate: Returns an architecture as static evaluators see it.
    """

    evaluators: Mapping[str, Evaluator]
    candidate: Callable[[Any], Any]

    @cached_property
    def _static(self) -> dict[str, Evaluator]:
        return {name: each for name, each in self.evaluators.items() if getattr(each, "static", False) is True}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics in order."""
        return tuple(metric for evaluator in self._static.values() for metric in evaluator.metrics)

    def __call__(self, architecture: Genotype) -> dict[str, float]:
        """Return the metrics of an architecture.

        Raises:
            InputError: If an evaluator that calls itself static cannot give them.
        """
        try:
            return score(self.candidate(architecture), self._static)
        except InputError:
            raise
        except _FAULTS as error:
            raise InputError(
                f"evaluators with static = True give finite values from candidate.architecture, skeleton and largest "
                f"alone, but one of {list(self._static)} fails for {dict(architecture.genes)}: "
                f"{type(error).__name__}: {error}; mend it, or take its static away"
            ) from error
