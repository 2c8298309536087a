"""Evaluators by name, and the score of an architecture under several of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from evaluators.accuracy import Accuracy
from evaluators.base import Candidate, Evaluator
from evaluators.comparison import QnnRatio
from evaluators.complexity import Macs, Parameters
from evaluators.energy import Energy, Spikes
from evaluators.energy_models import EnergyModel
from evaluators.fitness import AccuracyEnergyBalance
from spaces import InputError
from spaces.resolve import resolve

EVALUATORS: dict[str, Callable[..., Evaluator]] = {
    "accuracy": Accuracy,
    "energy_mj": Energy,
    "f_aeb": AccuracyEnergyBalance,
    "macs": Macs,
    "parameters": Parameters,
    "qnn_ratio": QnnRatio,
    "spikes": Spikes,
}
"""Builders by name; each takes the options of its recipe table as keywords."""

UNDER_MODELS: dict[str, Callable[..., Evaluator]] = {"energy_mj": Energy, "qnn_ratio": QnnRatio}
"""Rows that also exist as ``name:MODEL``, one for each of ``energy_models.MODEL_METRICS``."""


def is_own(name: str) -> bool:
    """Return whether an evaluator is of a user's own module, which building it imports."""
    return ":" in name and name.partition(":")[0] not in UNDER_MODELS


def build_evaluators(
    names: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    models: Mapping[str, EnergyModel] | None = None,
) -> dict[str, Evaluator]:
    """Return evaluators by name, in order.

    Args:
        names: Rows of ``EVALUATORS``, ``energy_mj:MODEL`` or ``qnn_ratio:MODEL``, or ``package.module:Name`` of
            the user's own.
        options: Keyword arguments by evaluator name.
        models: Users' energy models by name, in place of their files, which are not looked at.

    Raises:
        InputError: If a name or an option is unknown, or if two evaluators claim one metric.
    """
    for name in options:
        if name not in names:
            raise InputError(f"options belong to evaluators in use {list(names)}, got options for {name!r}")
    built: dict[str, Evaluator] = {}
    owners: dict[str, str] = {}
    for name in names:
        built[name] = _build(name, dict(options.get(name, {})), models or {})
        for metric in built[name].metrics:
            if metric in owners:
                raise InputError(f"a metric has one evaluator, but {owners[metric]} and {name} both give {metric}")
            owners[metric] = name
    return built


def _build(name: str, options: dict[str, Any], models: Mapping[str, EnergyModel]) -> Evaluator:
    metric, colon, model = name.partition(":")
    if metric in UNDER_MODELS and bool(colon) == bool(model):
        path = Path(model)
        own = models.get(path.stem) if path.suffix == ".toml" else None
        builder: Callable[..., Evaluator] = partial(UNDER_MODELS[metric], own or model or None)
    else:
        builder = resolve(EVALUATORS, name, "evaluator")
    try:
        known = list(signature(builder).parameters)
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise InputError(f"{name} has the options {known}, got {unknown}")
        evaluator = builder(**options)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"evaluator {name!r} cannot be built: {error}") from None
    metrics = getattr(evaluator, "metrics", None)
    named = (
        isinstance(metrics, Mapping)
        and metrics
        and all(isinstance(metric, str) and sense in ("max", "min") for metric, sense in metrics.items())
    )
    if not named or not callable(evaluator):
        raise InputError(
            f"an evaluator can be called and has metrics such as {{'accuracy': 'max'}}, but {name!r} has metrics "
            f"{metrics!r}"
        )
    return evaluator


def score(candidate: Candidate, evaluators: Mapping[str, Evaluator]) -> dict[str, float]:
    """Return all metrics of a candidate.

    Raises:
        ArithmeticError: If a metric is missing, unexpected or not finite; such a candidate has failed.
    """
    metrics: dict[str, float] = {}
    for name, evaluator in evaluators.items():
        values = evaluator(candidate)
        if set(values) != set(evaluator.metrics):
            raise ArithmeticError(f"{name} must give {sorted(evaluator.metrics)}, got {sorted(values)}")
        for metric, value in values.items():
            if not math.isfinite(value):
                raise ArithmeticError(f"{metric} must be finite, got {value}")
            metrics[metric] = float(value)
    return metrics
