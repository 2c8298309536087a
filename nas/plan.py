"""What a search algorithm is built for, and what is known of it: the contract of those that are the user's own.

An algorithm of one's own is named by ``package.module:Name``: a function or class that takes a :class:`Plan` and
returns a pymoo ``Algorithm``, not yet set up; or a :class:`Row` of one, which also says what it can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from inspect import isclass, signature
from typing import Any, cast

from pymoo.core.algorithm import Algorithm

from nas.problem import ArchitectureProblem
from nas.rerank import Reranker
from spaces import Genotype, InputError
from spaces.resolve import refusing, resolve


@dataclass(frozen=True)
class Plan:
    """What an algorithm is built for.

    Attributes:
        problem: Space and objectives.
        population: Architectures of a generation; with a reranker later ones than the first can have fewer.
        evaluations: Budget, which algorithms with a schedule spread it over.
        first: Architectures with results that the first population has; the rest of it is drawn.
        seen: All architectures with results, which are not proposed.
        reranker: Picks what is proposed, if there is one.
    """

    problem: ArchitectureProblem
    population: int
    evaluations: int
    first: Sequence[Genotype] = ()
    seen: Collection[Genotype] = ()
    reranker: Reranker | None = None

    @property
    def generations(self) -> int:
        """Generations that the budget makes if all have the whole population."""
        return math.ceil(self.evaluations / self.population)


@dataclass(frozen=True)
class Row:
    """An algorithm, and what it can; the defaults are what any algorithm can.

    Attributes:
        build: Returns it, not yet set up.
        fewest: Objectives that it needs.
        scalar: Whether it climbs one number, which is made of the objectives (:meth:`ArchitectureProblem.scalar`).
        reals: Whether it moves in reals, ``[0, n)`` per gene, and not in indices.
        asynchronous: Whether it can be asked for more before it was told all that it asked for.
        steady: Whether it can then be told results one by one; else so many at a time as a population has.
    """

    build: Callable[[Plan], Algorithm]
    fewest: int = 1
    scalar: bool = False
    reals: bool = False
    asynchronous: bool = False
    steady: bool = False


def own_row(name: str, known: Collection[str]) -> Row:
    """Return the row of an algorithm of the user's own.

    Args:
        name: ``package.module:Name``.
        known: Names that are no user's, for the error.

    Raises:
        InputError: If there is no such object, or if it cannot be called with a plan.
    """
    found: Any = resolve(cast(dict[str, Any], dict.fromkeys(known)), name, "search.algorithm")
    row = found if isinstance(found, Row) else Row(found)
    rule = "an algorithm of one's own is called with a nas.plan.Plan, and returns a pymoo Algorithm"
    if isclass(row.build) and row.build.__module__.partition(".")[0] == "pymoo":
        raise InputError(
            f"{rule}, but {name!r} is a class of pymoo, which takes other arguments; write a function of the plan "
            f"that returns {row.build.__name__}(...), and name that"
        )
    try:
        signature(row.build).bind(None)
    except (TypeError, ValueError) as error:
        raise InputError(f"{rule}, but {name!r} cannot be called so: {error}") from None
    return row


def build_own(name: str, row: Row, plan: Plan) -> Algorithm:
    """Return an algorithm of the user's own, not yet set up.

    Raises:
        InputError: If it cannot be built, or is none.
    """
    with refusing(f"algorithm {name!r} cannot be built"):
        algorithm = row.build(plan)
    if not isinstance(algorithm, Algorithm):
        raise InputError(f"algorithm {name!r} must return a pymoo Algorithm, got {algorithm!r}")
    if algorithm.problem is not None:
        raise InputError(f"algorithm {name!r} must return one that is not set up; leave setup() to the search")
    return algorithm
