"""Vectors that name architectures, checked and floored in one way for all spaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spaces.errors import InputError

if TYPE_CHECKING:
    from spaces.base import Space


def floored(space: Space, vector: ArrayLike) -> NDArray[np.int64]:
    """Return the indices ``(n_var,)`` that a vector of indices or of reals in ``[0, n)`` has.

    Args:
        space: Space that the vector is of.
        vector: ``(n_var,)`` numbers.

    Raises:
        InputError: If the length is wrong or an entry is outside the range of its column.
    """
    values = np.asarray(vector, dtype=np.float64)
    if values.shape != space.cardinalities.shape:
        raise InputError(
            f"a vector of space {space.name!r} has {len(space.columns)} entries, got shape {values.shape}"
        )
    outside = ~((values >= 0) & (values < space.cardinalities))
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        raise InputError(f"{space.columns[at]} must be in [0, {space.cardinalities[at]}), got {values[at]}")
    return values.astype(np.int64)  # towards 0, so floored
