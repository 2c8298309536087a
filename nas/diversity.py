"""Diversity of a swarm, and what is done when it is lost.

.. [Ursem2002] Ursem. Diversity-guided evolutionary algorithms. PPSN 2002.
.. [Riget2002] Riget, Vesterstrøm. A diversity-guided particle swarm optimizer - the ARPSO. EVALife report, 2002.
.. [Sun2006] Sun, Xu, Fang. A diversity-guided quantum-behaved particle swarm optimization algorithm. SEAL 2006.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces import InputError

Floats = NDArray[np.float64]


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


def _check_thresholds(control: Explode | Perturb) -> None:
    if not 0 <= control.d_low <= control.d_recovered:
        raise InputError(
            f"control: 0 <= d_low <= d_recovered must hold, got {control.d_low} and {control.d_recovered}"
        )
    if not 0 <= control.until <= 1:
        raise InputError(f"control: until must be in [0, 1], got {control.until}")


@dataclass(frozen=True)
class Explode:
    """Control that lets the swarm fly apart when its diversity is lost, and gather again once it has recovered.

    While it acts, the contraction-expansion coefficient is ``alpha``, above the limit of 1.781 beyond which positions
    diverge.

    Attributes:
        d_low: Distance-to-average-point diversity below which it starts to act.
        d_recovered: Diversity at which it stops.
        alpha: Coefficient while it acts.
        until: Share of the budget after which it acts no more, so that the swarm ends with a refinement.
    """

    d_low: float = 1e-3
    d_recovered: float = 1e-2
    alpha: float = 2.0
    until: float = 0.8

    def __post_init__(self) -> None:
        _check_thresholds(self)
        if self.alpha <= 0:
            raise InputError(f"control: alpha must be above 0, got {self.alpha}")


@dataclass(frozen=True)
class Perturb:
    """Control that shifts the leader by noise when diversity is lost, until it has recovered [Sun2006]_.

    While it acts, particles are drawn around a mutant of the leader, ``leader + strength |A| N(0, 1)`` in each
    variable, |A| the diagonal of the box. The leader itself stays what it is: a personal best.

    Attributes:
        d_low: Distance-to-average-point diversity below which it starts to act.
        d_recovered: Diversity at which it stops.
        strength: Standard deviation of the noise as a share of the diagonal.
        until: Share of the budget after which it acts no more, so that the swarm ends with a refinement.
    """

    d_low: float = 1e-3
    d_recovered: float = 1e-2
    strength: float = 1e-3
    until: float = 0.8

    def __post_init__(self) -> None:
        _check_thresholds(self)
        if self.strength <= 0:
            raise InputError(f"control: strength must be above 0, got {self.strength}")


Control = Explode | Perturb

CONTROLS: dict[str, Control] = {"explode": Explode(), "perturb": Perturb()}
"""Controls of diversity by name, with their default thresholds."""


def resolve_control(control: str | Control | None) -> Control | None:
    """Return a control given by its name, or as it is.

    Raises:
        InputError: If there is no such control.
    """
    if isinstance(control, str):
        if control not in CONTROLS:
            raise InputError(f"control must be one of {sorted(CONTROLS)} or None, got {control!r}")
        return CONTROLS[control]
    return control


def acts(control: Control | None, acting: bool, diversity: float, progress: float) -> bool:
    """Return whether a control acts next: from below ``d_low`` until ``d_recovered`` is reached.

    Args:
        control: The control, if there is one.
        acting: Whether it acted last.
        diversity: Distance-to-average-point diversity of the swarm.
        progress: Share of the budget that is spent, in [0, 1].
    """
    if control is None or progress >= control.until:
        return False
    return diversity < (control.d_recovered if acting else control.d_low)


def mutate_leader(leader: Floats, extent: Floats, strength: float, random_state: np.random.Generator) -> Floats:
    """Return leaders ``(..., n_var)`` shifted by ``strength |A| N(0, 1)`` in each variable, |A| the box's diagonal.

    Variables that are fixed (extent 0) stay.
    """
    noise = random_state.standard_normal(leader.shape) * (strength * np.linalg.norm(extent))
    shifted: Floats = leader + np.where(extent > 0, noise, 0.0)
    return shifted
