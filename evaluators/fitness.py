"""F_AEB: accuracy and energy balanced in one number.

Auto-Spikformer [Che2023]_ searches by a fitness of this name whose formula is not public. This is our reading,
after the accuracy-spikes fitness of AutoSNN [Na2022]_.

.. [Che2023] Che et al., "Auto-Spikformer: Spikformer Architecture Search", arXiv 2306.00807.
.. [Na2022] Na et al., "AutoSNN: Towards Energy-Efficient Spiking Neural Networks", ICML 2022.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from evaluators.accuracy import Accuracy
from evaluators.base import Candidate
from evaluators.complexity import dense_operations
from evaluators.energy import Energy, estimate_energy_mj
from evaluators.senses import Sense
from spaces import Architecture, InputError, Skeleton

FORMS = ("product", "sum")


@dataclass(frozen=True, kw_only=True)
class AccuracyEnergyBalance:
    """F_AEB of a candidate, more is better.

    .. code-block:: text

        product:  accuracy * (energy / reference) ** -exponent
        sum:      accuracy - exponent * energy / reference

    Args:
        exponent: Weight of the energy, lambda, 0 or more.
        form: ``product`` or ``sum``.
        reference_mj: Energy in millijoules that leaves the accuracy as it is (product). Without one, the
            estimate for the widest, deepest, longest architecture of the supernet, before training.
    """

    metrics: ClassVar[Mapping[str, Sense]] = {"f_aeb": "max"}

    exponent: float = 0.08
    form: str = "product"
    reference_mj: float | None = None

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise InputError(f"f_aeb form must be one of {list(FORMS)}, got {self.form!r}")
        if not _is_number(self.exponent) or not 0 <= self.exponent < math.inf:
            raise InputError(f"f_aeb exponent must be 0 or more, got {self.exponent!r}")
        reference = self.reference_mj
        if reference is not None and not (_is_number(reference) and 0 < reference < math.inf):
            raise InputError(f"f_aeb reference_mj must be above 0, got {self.reference_mj!r}")

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return ``f_aeb``."""
        accuracy = Accuracy()(candidate)["accuracy"]
        energy = Energy()(candidate)["energy_mj"]
        reference = self.reference_mj or _prior_mj(candidate.skeleton, candidate.largest)
        return {"f_aeb": balance(accuracy, energy / reference, self.exponent, self.form)}


@cache
def _prior_mj(skeleton: Skeleton, architecture: Architecture) -> float:
    """Return the estimated energy of a network before training, which all candidates of a search share."""
    return estimate_energy_mj(dense_operations(skeleton, architecture))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def balance(accuracy: float, relative_energy: float, exponent: float, form: str) -> float:
    """Return F_AEB of an accuracy in [0, 1] and an energy over its reference, above 0."""
    if form == "product":
        return float(accuracy * relative_energy**-exponent)
    return accuracy - exponent * relative_energy
