"""Search spaces of spiking transformers, as plain values."""

from spaces.architecture import LAYER_GENES, NETWORK_GENES, Architecture, Layer, hidden_width
from spaces.base import Choice, Genotype, Space
from spaces.catalog import load_space, space_names
from spaces.errors import InputError
from spaces.genes import Gene
from spaces.product import ProductSpace
from spaces.rows import Column, Row, gene_columns
from spaces.skeleton import Skeleton
from spaces.space import SearchSpace, reference_of
from spaces.table import TableSpace

__all__ = [
    "LAYER_GENES",
    "NETWORK_GENES",
    "Architecture",
    "Choice",
    "Column",
    "Gene",
    "Genotype",
    "InputError",
    "Layer",
    "ProductSpace",
    "Row",
    "SearchSpace",
    "Skeleton",
    "Space",
    "TableSpace",
    "gene_columns",
    "hidden_width",
    "load_space",
    "reference_of",
    "space_names",
]
