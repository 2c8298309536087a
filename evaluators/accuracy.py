"""Share of correct answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from evaluators.base import Candidate
from evaluators.senses import Sense


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of the inherited weights on the scored images, in [0, 1]."""

    metrics: ClassVar[Mapping[str, Sense]] = {"accuracy": "max"}

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return ``accuracy``."""
        return {"accuracy": candidate.outcome.correct / candidate.outcome.images}
