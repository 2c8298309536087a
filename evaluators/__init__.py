"""Evaluators: from a candidate to numbers."""

from evaluators.base import Candidate, Evaluator, Outcome, ScoringImages, Sense
from evaluators.complexity import count_parameters, dense_operations
from evaluators.energy import AC_PJ, MAC_PJ, PRIOR_FIRING_RATE, energy_mj, estimate_energy_mj
from evaluators.operations import LayerOperations, OperationCounts, counting
from evaluators.table import EVALUATORS, build_evaluators, score

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
    "build_evaluators",
    "count_parameters",
    "counting",
    "dense_operations",
    "energy_mj",
    "estimate_energy_mj",
    "score",
]
