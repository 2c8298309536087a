"""Spikefront: multi-objective evolutionary search of spiking-transformer architectures.

``nas.search`` runs a recipe, ``nas.train`` trains its supernet, ``nas.compare`` compares algorithms,
``nas.Run`` opens a run folder, ``nas.fidelity`` trains some of its architectures by themselves, ``nas.evaluate``
scores a network that a run has exported, ``nas.retrain`` trains it to weights of its own, and ``nas.convert`` writes
it in another format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.comparing import compare
    from nas.config import RunConfig, load_recipe
    from nas.converting import convert
    from nas.inheritance import fidelity
    from nas.pipeline import search, train
    from nas.rescoring import evaluate
    from nas.retraining import retrain
    from nas.run import Run

__all__ = [
    "Run",
    "RunConfig",
    "compare",
    "convert",
    "evaluate",
    "fidelity",
    "load_recipe",
    "retrain",
    "search",
    "train",
]

_HOMES = {
    "Run": "nas.run",
    "RunConfig": "nas.config",
    "compare": "nas.comparing",
    "convert": "nas.converting",
    "evaluate": "nas.rescoring",
    "fidelity": "nas.inheritance",
    "load_recipe": "nas.config",
    "retrain": "nas.retraining",
    "search": "nas.pipeline",
    "train": "nas.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import nas`` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
