"""Evaluators: from a candidate to numbers."""

from evaluators.base import Candidate, Evaluator, Outcome, ScoringImages, Sense, SharedOutcomes
from evaluators.comparison import Comparison, compare, spike_count_bits
from evaluators.complexity import count_macs, count_parameters, dense_operations
from evaluators.energy import PRIOR_FIRING_RATE, EnergyPart, UnderModel, energy_mj, energy_parts, estimate_energy_mj
from evaluators.energy_models import (
    DEFAULT_MODEL,
    EnergyModel,
    energy_model_names,
    load_energy_model,
    parse_energy_model,
    read_energy_tables,
)
from evaluators.operations import OperationCounts, counting
from evaluators.static import StaticMetrics, UnbuiltCandidate
from evaluators.table import EVALUATORS, UNDER_MODELS, build_evaluators, model_files, score
from evaluators.tabular import HasArchitecture, ListedCandidate, Table
from supernet.engine import LayerOperations, NeuronOperations

__all__ = [
    "DEFAULT_MODEL",
    "EVALUATORS",
    "PRIOR_FIRING_RATE",
    "UNDER_MODELS",
    "Candidate",
    "Comparison",
    "EnergyModel",
    "EnergyPart",
    "Evaluator",
    "HasArchitecture",
    "LayerOperations",
    "ListedCandidate",
    "NeuronOperations",
    "OperationCounts",
    "Outcome",
    "ScoringImages",
    "Sense",
    "SharedOutcomes",
    "StaticMetrics",
    "Table",
    "UnbuiltCandidate",
    "UnderModel",
    "build_evaluators",
    "compare",
    "count_macs",
    "count_parameters",
    "counting",
    "dense_operations",
    "energy_mj",
    "energy_model_names",
    "energy_parts",
    "estimate_energy_mj",
    "load_energy_model",
    "model_files",
    "parse_energy_model",
    "read_energy_tables",
    "score",
    "spike_count_bits",
]
