"""Evaluators: from a candidate to numbers."""

from evaluators.base import Candidate, Evaluator, Outcome, ScoringImages, Sense, SharedOutcomes
from evaluators.complexity import count_parameters, dense_operations
from evaluators.energy import AC_PJ, MAC_PJ, PRIOR_FIRING_RATE, energy_mj, estimate_energy_mj
from evaluators.operations import OperationCounts, counting
from evaluators.table import EVALUATORS, build_evaluators, score
from supernet.engine import LayerOperations

__all__ = [
    "AC_PJ",
    "EVALUATORS",
    "MAC_PJ",
    "PRIOR_FIRING_RATE",
    "Candidate",
    "Evaluator",
    "LayerOperations",
    "OperationCounts",
    "Outcome",
    "ScoringImages",
    "Sense",
    "SharedOutcomes",
    "build_evaluators",
    "count_parameters",
    "counting",
    "dense_operations",
    "energy_mj",
    "estimate_energy_mj",
    "score",
]
