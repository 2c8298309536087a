"""The two ways to search, and which one a run takes."""

from __future__ import annotations

from pymoo.core.algorithm import Algorithm

from nas.algorithms import find_algorithm
from nas.asynchronous import Conversation, run_asynchronous
from nas.loop import Quest, run_search
from nas.sections import SearchConfig, WorkersConfig
from nas.soundness import MODE, Mode
from nas.stopping import Ending
from nas.storage import Store
from spaces import InputError


def check_mode(search: SearchConfig) -> None:
    """Check that an algorithm can search as it is asked to.

    Raises:
        InputError: If it is to search asynchronously, and cannot.
    """
    if search.mode == "async" and not find_algorithm(search.algorithm).asynchronous:
        raise InputError(
            f"search.mode must be generational with {search.algorithm}, which does not say that it can be asked "
            "before it was told all; give it as nas.plan.Row(..., asynchronous=True) if it can"
        )


def settle_mode(search: SearchConfig, workers: WorkersConfig, store: Store) -> Mode:
    """Return how a run searches: as it has begun to, else as it is asked to, and record it.

    Runs from before there was a choice are generational.

    Args:
        search: Algorithm and mode of the recipe; ``auto`` is async if there is more than one worker, and if the
            algorithm can be.
        workers: Who scores.
        store: Study of the search.
    """
    recorded = store.study.user_attrs.get(MODE)
    if recorded in ("async", "generational"):
        return "async" if recorded == "async" else "generational"
    mode: Mode = "generational"
    several = workers.pool == "ray" and workers.count != 1
    if not store.opened and (search.mode == "async" or (search.mode == "auto" and several)):
        mode = "async" if find_algorithm(search.algorithm).asynchronous else "generational"
    store.study.set_user_attr(MODE, mode)
    return mode


def run_in(mode: Mode, name: str, quest: Quest[Store], algorithm: Algorithm, population: int) -> Ending:
    """Search in a mode, and return how it ended.

    Args:
        mode: Asynchronous or by generations.
        name: What the algorithm is called.
        quest: What to search.
        algorithm: Set up and not yet asked.
        population: Architectures of a generation.
    """
    if mode == "generational":
        return run_search(quest, algorithm)
    together = 1 if find_algorithm(name).steady else population
    begun = {result.architecture: result for result in quest.start.results}
    return run_asynchronous(quest, Conversation(quest.problem, algorithm, population, together, begun))
