"""Search spaces of spiking transformers, as plain values."""

from spaces.architecture import LAYER_GENES, NETWORK_GENES, Architecture, Layer, hidden_width
from spaces.base import Choice, Genotype, Space
from spaces.catalog import load_space, space_names
from spaces.errors import InputError
from spaces.genes import Gene
from spaces.skeleton import Skeleton
from spaces.space import SearchSpace

__all__ = [
    "LAYER_GENES",
    "NETWORK_GENES",
    "Architecture",
    "Choice",
    "Gene",
    "Genotype",
    "InputError",
    "Layer",
    "SearchSpace",
    "Skeleton",
    "Space",
    "hidden_width",
    "load_space",
    "space_names",
]
