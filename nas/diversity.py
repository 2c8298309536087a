"""Diversity of a swarm, and what is done when it is lost.

.. [Ursem2002] Ursem. Diversity-guided evolutionary algorithms. PPSN 2002.
.. [Riget2002] Riget, Vesterstrøm. A diversity-guided particle swarm optimizer - the ARPSO. EVALife report, 2002.
.. [Sun2006] Sun, Xu, Fang. A diversity-guided quantum-behaved particle swarm optimization algorithm. SEAL 2006.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spaces import InputError

Floats = NDArray[np.float64]

NARROWEST = 1e-12
"""Mutations of a swarm that lies at one point are no narrower than this share of the widest."""


def distance_to_average(points: Floats, extent: Floats) -> float:
    """Return the mean distance of points to their average over the diagonal of their box [Ursem2002]_, [Riget2002]_.

    .. code-block:: text

        D = 1 / (n |A|) Σ_i ||x_i - x̄||₂,   |A| = ||extent||₂

    Args:
        points: Positions (genotypes), ``(n, n_var)``.
        extent: Widths of the box, ``(n_var,)``, at least 0.

    Returns:
        A share of the diagonal in [0, 0.5] for points inside the box; 0 without points or without a box.
    """
    diagonal = float(np.linalg.norm(extent))
    if len(points) == 0 or diagonal == 0:
        return 0.0
    centred = points - points.mean(axis=0)
    return float(np.sqrt(np.einsum("ij,ij->i", centred, centred)).mean()) / diagonal


def fitness_diversity(F: Floats, extent: Floats) -> float:
    """Return the mean distance of objectives (phenotypes) to their average, each as a share of its own extent.

    It is `distance_to_average` of the objectives after each is divided by its extent, so that objectives of different
    units weigh alike. Adding to an objective, or multiplying it together with its extent, changes nothing.

    Args:
        F: Objectives, ``(n, n_obj)``, all finite.
        extent: Range of each objective in a reference population, ``(n_obj,)``; objectives with 0 are left out.
    """
    varied = extent > 0
    return distance_to_average(F[:, varied] / extent[varied], np.ones(int(varied.sum())))


@dataclass(frozen=True)
class Thresholds:
    """Diversities below which a control acts, falling with the budget.

    What a swarm may lose late in a run it must not lose early, so the threshold falls from ``first`` at the start of
    the budget to ``last`` at its end, on a line over its logarithm. A control starts to act when the
    distance-to-average-point diversity is below the threshold, and stops when it is ``recovery`` times the threshold.

    Attributes:
        first: Threshold at the start of the budget, a share of the box's diagonal.
        last: Threshold at its end, at most ``first``.
        recovery: Multiple of the threshold at which diversity has recovered, at least 1.
        until: Share of the budget after which no control acts, so that the swarm ends with a refinement.

    Raises:
        InputError: If a value is out of its range.
    """

    first: float = 1e-2
    last: float = 1e-7
    recovery: float = 10.0
    until: float = 0.85

    def __post_init__(self) -> None:
        if not 0 < self.last <= self.first:
            raise InputError(f"thresholds: 0 < last <= first must hold, got last {self.last} and first {self.first}")
        if self.recovery < 1:
            raise InputError(f"thresholds: recovery must be at least 1, got {self.recovery}")
        if not 0 <= self.until <= 1:
            raise InputError(f"thresholds: until must be in [0, 1], got {self.until}")

    def low(self, progress: float) -> float:
        """Return the threshold after a share ``progress`` in [0, 1] of the budget."""
        return float(self.first * (self.last / self.first) ** progress)

    def recovered(self, progress: float) -> float:
        """Return the diversity at which a control stops, after a share ``progress`` in [0, 1] of the budget."""
        return self.recovery * self.low(progress)


@dataclass(frozen=True)
class Explode:
    """Control that lets the swarm fly apart when its diversity is lost, and gather again from where it got to.

    While it acts, the contraction-expansion coefficient is ``alpha``, above the limit of 1.781 beyond which positions
    diverge [Sun2006]_. All particles but the leader forget their personal bests for the positions they are blown to:
    with old personal bests, which all lie at one place, they would fall back to that place without a search.

    Attributes:
        thresholds: Diversities at which it starts and stops.
        alpha: Coefficient while it acts.
        forget: Whether personal bests are forgotten.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    alpha: float = 2.0
    forget: bool = True

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise InputError(f"control: alpha must be above 0, got {self.alpha}")


@dataclass(frozen=True)
class Perturb:
    """Control that tries mutants of the leader while diversity is low, and keeps them only if they are better.

    While it acts, the best tenth of the swarm, the leader's own particle first, moves to mutants of the leader
    instead of making its step: each entry changes with probability ``1 / n_var``, one at least, by
    ``scale width d^u N(0, 1)``, u ~ U(0, 1) for each mutant, d the diversity of the swarm. Mutants so probe all
    distances from that of the swarm to that of the box, where the swarm's own steps have become too short. Where
    [Sun2006]_ moves the leader itself, a mutant counts here only if it improves on a personal best.

    Attributes:
        thresholds: Diversities at which it starts and stops.
        scale: Standard deviation of the widest mutation as a share of the box's width.
        share: Share of the swarm that tries mutants; one particle at least does.
    """

    thresholds: Thresholds = field(default_factory=lambda: Thresholds(0.1, 1e-3, recovery=1.0, until=1.0))
    scale: float = 0.3
    share: float = 0.1

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise InputError(f"control: scale must be above 0, got {self.scale}")
        if not 0 < self.share <= 1:
            raise InputError(f"control: share must be above 0 and at most 1, got {self.share}")


Control = Explode | Perturb

CONTROLS: dict[str, Control] = {"explode": Explode(), "perturb": Perturb()}
"""Controls of diversity by name, with their default thresholds."""


def resolve_control(control: str | Control | None, named: Mapping[str, Control] = CONTROLS) -> Control | None:
    """Return a control given by its name, or as it is.

    Raises:
        InputError: If there is no such control.
    """
    if isinstance(control, str):
        if control not in named:
            raise InputError(f"control must be one of {sorted(named)} or None, got {control!r}")
        return named[control]
    return control


def acts(control: Control | None, acting: bool, diversity: float, progress: float) -> bool:
    """Return whether a control acts next: from below the threshold until diversity has recovered.

    Args:
        control: The control, if there is one.
        acting: Whether it acted last.
        diversity: Distance-to-average-point diversity of the swarm.
        progress: Share of the budget that is spent, in [0, 1].
    """
    if control is None or progress >= control.thresholds.until:
        return False
    thresholds = control.thresholds
    return diversity < (thresholds.recovered(progress) if acting else thresholds.low(progress))


def mutants(
    leaders: Floats, extent: Floats, scale: float, diversity: float, random_state: np.random.Generator
) -> Floats:
    """Return a mutant of each leader ``(..., n_var)``, changed in few entries, from near to far.

    Args:
        leaders: What is mutated.
        extent: Widths of the box, ``(n_var,)``. Variables that are fixed (width 0) stay.
        scale: Standard deviation of the widest mutation as a share of the width.
        diversity: Diversity of the swarm: the factor of the narrowest mutation.
        random_state: Source of all that is drawn.
    """
    n_var = leaders.shape[-1]
    one_at_least = random_state.integers(n_var, size=(*leaders.shape[:-1], 1)) == np.arange(n_var)
    changed = (random_state.random(leaders.shape) < 1 / n_var) | one_at_least
    reach = scale * max(diversity, NARROWEST) ** random_state.random((*leaders.shape[:-1], 1))
    mutated: Floats = leaders + np.where(changed, reach * extent * random_state.standard_normal(leaders.shape), 0.0)
    return mutated
