"""Fast scoring: many subnets of one supernet, sharing what they have in common."""

from supernet.engine.counts import LayerOperations, NeuronOperations
from supernet.engine.operators import PRECISIONS
from supernet.engine.scoring import Engine, SubnetResult, in_turns

__all__ = ["PRECISIONS", "Engine", "LayerOperations", "NeuronOperations", "SubnetResult", "in_turns"]
