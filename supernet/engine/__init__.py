"""Fast scoring: many subnets of one supernet, sharing what they have in common."""

from supernet.engine.operators import PRECISIONS
from supernet.engine.scoring import Engine, SubnetResult, in_turns
from supernet.engine.stages import LayerOperations

__all__ = ["PRECISIONS", "Engine", "LayerOperations", "SubnetResult", "in_turns"]
