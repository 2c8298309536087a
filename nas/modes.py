"""The two ways to search, and which one a run takes."""

from __future__ import annotations

from typing import Literal

from pymoo.core.algorithm import Algorithm

from nas.algorithms import ALGORITHMS
from nas.asynchronous import Conversation, run_asynchronous
from nas.loop import Quest, run_search
from nas.sections import WorkersConfig
from nas.soundness import MODE, Mode
from nas.stopping import Ending
from nas.storage import Store


def settle_mode(asked: Literal["auto", "async", "generational"], workers: WorkersConfig, store: Store) -> Mode:
    """Return how a run searches: as it has begun to, else as it is asked to, and record it.

    Runs from before there was a choice are generational.

    Args:
        asked: ``search.mode`` of the recipe.
        workers: Who scores; ``auto`` is async if there is more than one.
        store: Study of the search.
    """
    recorded = store.study.user_attrs.get(MODE)
    if recorded in ("async", "generational"):
        return "async" if recorded == "async" else "generational"
    mode: Mode = "generational"
    if not store.opened and (asked == "async" or (asked == "auto" and workers.pool == "ray" and workers.count != 1)):
        mode = "async"
    store.study.set_user_attr(MODE, mode)
    return mode


def run_in(mode: Mode, name: str, quest: Quest[Store], algorithm: Algorithm, population: int) -> Ending:
    """Search in a mode, and return how it ended.

    Args:
        mode: Asynchronous or by generations.
        name: Row of ``ALGORITHMS`` that the algorithm is of.
        quest: What to search.
        algorithm: Set up and not yet asked.
        population: Architectures of a generation.
    """
    if mode == "generational":
        return run_search(quest, algorithm)
    together = 1 if ALGORITHMS[name].steady else population
    begun = {result.architecture: result for result in quest.start.results}
    return run_asynchronous(quest, Conversation(quest.problem, algorithm, population, together, begun))
