"""What the networks of a space cost before anything is trained, and where the time of a training or a run goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from evaluators import count_parameters, dense_operations, estimate_energy_mj
from nas.run import Run
from nas.timing import TimingSettings, time_layers
from spaces import Architecture, InputError, SearchSpace
from supernet.data import Normalise
from supernet.neurons import check_executor
from supernet.spikformer import build_supernet


def profile_space(space: SearchSpace, samples: int = 101) -> pd.DataFrame:
    """Return parameters, dense multiply-accumulates and estimated energy of a space's networks.

    Args:
        space: Search space.
        samples: Architectures, drawn uniformly with a fixed seed, that the medians are of.

    Returns:
        Rows ``smallest, median, largest``; columns ``architecture, parameters, macs, energy_mj`` (estimate at the
        prior firing rate).
    """
    rng = np.random.default_rng(0)
    drawn = pd.DataFrame([_cost(space, space.sample(rng)) for _ in range(samples)])
    rows = [
        {"architecture": "smallest", **_cost(space, space.smallest())},
        {"architecture": "median", **drawn.median().to_dict()},
        {"architecture": "largest", **_cost(space, space.largest())},
    ]
    return pd.DataFrame(rows).astype({"parameters": "int64", "macs": "int64"})


def choose_architecture(space: SearchSpace, name: str, samples: int = 101) -> Architecture:
    """Return the ``smallest`` or ``largest`` architecture of a space, or the ``median`` one.

    Args:
        space: Search space.
        name: Which one.
        samples: Architectures, drawn as for :func:`profile_space`, of which the median by dense multiply-accumulates
            is taken.

    Raises:
        InputError: If the name is another.
    """
    if name == "smallest":
        return space.smallest()
    if name == "largest":
        return space.largest()
    if name != "median":
        raise InputError(f"architecture must be 'smallest', 'median' or 'largest', got {name!r}")
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(samples)]
    drawn.sort(key=lambda architecture: dense_operations(space.skeleton, architecture).macs_per_image)
    return drawn[(samples - 1) // 2]


def time_space(space: SearchSpace, options: Mapping[str, Any], samples: int = 101) -> tuple[pd.DataFrame, list[str]]:
    """Return where the time goes in a network of a space with random weights, and what to know about it.

    Args:
        space: Search space.
        options: Values of :class:`nas.timing.TimingSettings`, ``executor``, and ``architecture``, a name as of
            :func:`choose_architecture`; all may be missing.
        samples: As of :func:`choose_architecture`.

    Returns:
        Table of :func:`nas.timing.time_layers`; lines on network, weights and measurement.

    Raises:
        InputError: If an option breaks a rule.
    """
    settings, executor, name = _split({"executor": "auto"} | dict(options))
    architecture = choose_architecture(space, name, samples)
    frame = time_layers(build_supernet(space, 0, executor), architecture, settings)
    weights = "random weights, noise as images, BatchNorm calibrated on it: a trained network fires at other rates"
    return frame, _facts(f"{space.name}, {name}", architecture, weights, settings, executor, frame)


def time_run(run: Run, options: Mapping[str, Any], samples: int = 101) -> tuple[pd.DataFrame, list[str]]:
    """Return where the time goes in a run's trained supernet on its images, and what to know about it.

    Arguments and errors are those of :func:`time_space`; the architecture may also be a key of the run. Missing
    options are those of the run's recipe, but for the threads.
    """
    config = run.config
    default = {"executor": config.executor, "precision": config.scoring.precision}
    settings, executor, name = _split(default | dict(options), autocast=config.training.precision == "bfloat16")
    named = name in ("smallest", "median", "largest")
    architecture = choose_architecture(run.supernet_space, name, samples) if named else run.networks([name])[0]
    supernet = build_supernet(run.supernet_space, config.seed, executor)
    supernet.load_state_dict(run.supernet().state_dict())
    normalise = Normalise(*run.data.moments)
    images = [normalise(split.head(settings.batch).images) for split in (run.data.train, run.data.validation)]
    frame = time_layers(supernet, architecture, settings, *images)
    weights = f"trained weights, {len(images[0])} training and {len(images[1])} validation images"
    return frame, _facts(f"{run.folder}, {name}", architecture, weights, settings, executor, frame)


def _split(options: dict[str, Any], autocast: bool = False) -> tuple[TimingSettings, str, str]:
    """Return checked settings, executor, and name of the architecture."""
    executor, name = options.pop("executor"), options.pop("architecture", "largest")
    settings = TimingSettings(**options, autocast=autocast)
    check_executor(executor)
    return settings, executor, name


def _facts(
    title: str, run: Architecture, weights: str, settings: TimingSettings, executor: str, frame: pd.DataFrame
) -> list[str]:
    lines = [
        f"{title}: embed_dim {run.embed_dim}, timesteps {run.timesteps}, depth {run.depth}",
        f"{weights}; training in {'bfloat16' if settings.autocast else 'float32'}",
        f"batch {settings.batch}, {settings.threads} thread(s), executor {executor}, median of {settings.rounds} "
        "round(s); optimiser and data loading are left out",
    ]
    density = frame.attrs.get("density")
    if density is None:
        return [*lines, "runs with this executor score by evaluation, one subnet at a time"]
    met = f"calibration and scoring by the engine, {settings.precision}, which met {density:.3f} events"
    return [*lines, f"{met} per synapse and timestep"]


def _cost(space: SearchSpace, architecture: Architecture) -> dict[str, float]:
    counts = dense_operations(space.skeleton, architecture)
    return {
        "parameters": count_parameters(space.skeleton, architecture),
        "macs": counts.macs_per_image,
        "energy_mj": estimate_energy_mj(counts),
    }
