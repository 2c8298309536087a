"""Evaluators: from a candidate to numbers.

What is imported from here is loaded when it is first used, as most of it needs torch and results do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluators.base import Candidate, Evaluator, Outcome, ScoringImages, SharedOutcomes
    from evaluators.comparison import Comparison, compare, spike_count_bits
    from evaluators.complexity import count_macs, count_parameters, dense_operations
    from evaluators.energy import (
        PRIOR_FIRING_RATE,
        EnergyPart,
        UnderModel,
        energy_mj,
        energy_parts,
        estimate_energy_mj,
    )
    from evaluators.energy_models import (
        DEFAULT_MODEL,
        MODEL_METRICS,
        EnergyModel,
        energy_model_names,
        load_energy_model,
        model_files,
        parse_energy_model,
        read_energy_tables,
    )
    from evaluators.operations import OperationCounts, counting
    from evaluators.senses import Sense
    from evaluators.static import StaticMetrics, UnbuiltCandidate
    from evaluators.table import EVALUATORS, UNDER_MODELS, build_evaluators, is_own, score
    from evaluators.tabular import HasArchitecture, ListedCandidate, Table
    from supernet.engine import LayerOperations, NeuronOperations

__all__ = [
    "DEFAULT_MODEL",
    "EVALUATORS",
    "MODEL_METRICS",
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
    "is_own",
    "load_energy_model",
    "model_files",
    "parse_energy_model",
    "read_energy_tables",
    "score",
    "spike_count_bits",
]

_HOMES = {
    "Candidate": "evaluators.base",
    "Comparison": "evaluators.comparison",
    "DEFAULT_MODEL": "evaluators.energy_models",
    "EVALUATORS": "evaluators.table",
    "EnergyModel": "evaluators.energy_models",
    "EnergyPart": "evaluators.energy",
    "Evaluator": "evaluators.base",
    "HasArchitecture": "evaluators.tabular",
    "LayerOperations": "supernet.engine",
    "ListedCandidate": "evaluators.tabular",
    "MODEL_METRICS": "evaluators.energy_models",
    "NeuronOperations": "supernet.engine",
    "OperationCounts": "evaluators.operations",
    "Outcome": "evaluators.base",
    "PRIOR_FIRING_RATE": "evaluators.energy",
    "ScoringImages": "evaluators.base",
    "Sense": "evaluators.senses",
    "SharedOutcomes": "evaluators.base",
    "StaticMetrics": "evaluators.static",
    "Table": "evaluators.tabular",
    "UNDER_MODELS": "evaluators.table",
    "UnbuiltCandidate": "evaluators.static",
    "UnderModel": "evaluators.energy",
    "build_evaluators": "evaluators.table",
    "compare": "evaluators.comparison",
    "count_macs": "evaluators.complexity",
    "count_parameters": "evaluators.complexity",
    "counting": "evaluators.operations",
    "dense_operations": "evaluators.complexity",
    "energy_mj": "evaluators.energy",
    "energy_model_names": "evaluators.energy_models",
    "energy_parts": "evaluators.energy",
    "estimate_energy_mj": "evaluators.energy",
    "is_own": "evaluators.table",
    "load_energy_model": "evaluators.energy_models",
    "model_files": "evaluators.energy_models",
    "parse_energy_model": "evaluators.energy_models",
    "read_energy_tables": "evaluators.energy_models",
    "score": "evaluators.table",
    "spike_count_bits": "evaluators.comparison",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'evaluators' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
