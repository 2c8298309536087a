"""What a process could not write before it died, where another one may have gone on with the run since.

A search proposes what follows from the results told before. So what was proposed after the two processes parted would
never be proposed again, and has no place in the run; the result of what both have proposed has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from nas.evaluation import Evaluation
from nas.soundness import IDLE, RERANKING
from nas.stopping import SECONDS, STOPPED
from nas.storage import AFTER, FAILURE, TOLD, Store, Write, read_metrics
from spaces import Genotype

_PASSING = frozenset({SECONDS, STOPPED, IDLE, RERANKING})
"""What a study says of itself that changes while it is searched."""


def reconcile(writes: Sequence[tuple[Store, Write]]) -> tuple[list[tuple[Store, Write]], int]:
    """Return the writes that studies lack and can take, and the number of those that they cannot take.

    Args:
        writes: All that a process could not write, in its order. What of it was written nevertheless is passed over.
    """
    studies = {store: _Study(store) for store, _ in writes}
    fitting = [(store, studies[store].fit(write)) for store, write in writes]
    kept = [
        (store, write)
        for store, write in fitting
        if write is not None and not (write.do == "note" and studies[store].parted)
    ]
    notes = sum(write.do == "note" and studies[store].parted for store, write in writes)
    return kept, notes + sum(study.refused for study in studies.values())


class _Study:
    """What a study holds while writes are added to it.

    Args:
        store: Study.

    Attributes:
        parted: Whether another process has written what the process of these writes did not know.
        refused: Writes of trials that it cannot take.
    """

    def __init__(self, store: Store) -> None:
        self.parted, self.refused = False, 0
        self._attributes = dict(store.study.user_attrs)
        self._after: dict[Genotype, int | None] = dict.fromkeys(store.architectures)
        self._after |= dict(store.proposals)
        self._last = max((after for _, after in store.proposals), default=0)
        self._known = dict(store.known)
        self._places = {result.architecture: place for place, result in enumerate(store.told)}

    def fit(self, write: Write) -> Write | None:
        """Return a write as the study can take it, or None if it has it, or cannot."""
        if write.do == "note":
            for name, value in write.notes.items():
                self.parted |= name not in _PASSING and self._attributes.get(name, value) != value
            return write
        architecture = cast(Genotype, write.architecture)
        return self._close(architecture, write) if write.do == "close" else self._open(architecture, write)

    def _open(self, architecture: Genotype, write: Write) -> Write | None:
        after = write.notes.get(AFTER)
        if architecture in self._after:
            self.parted |= write.do == "open" and self._after[architecture] != after
            return None
        if after is not None:
            self.parted |= after < self._last
        if self.parted:
            self.refused += 1
            return None
        self._after[architecture], self._last = after, max(after or 0, self._last)
        if write.do == "take":
            self._known[architecture] = _result(architecture, write)
        return write

    def _close(self, architecture: Genotype, write: Write) -> Write | None:
        if architecture in self._known:
            known, found = self._known[architecture], _result(architecture, write)
            as_known = (known.metrics, known.failure) == (found.metrics, found.failure)
            if not as_known or write.notes.get(TOLD) != self._places.get(architecture):
                self.parted = True
                self.refused += 1
            return None
        if architecture not in self._after:
            self.parted = True
            self.refused += 1
            return None
        notes = {name: value for name, value in write.notes.items() if name != TOLD}
        if self._after[architecture] is not None:  # as if a worker had just handed it in
            notes[TOLD] = self._places[architecture] = len(self._places)
        self.parted |= write.notes.get(TOLD) != notes.get(TOLD)
        self._known[architecture] = _result(architecture, write)
        return replace(write, notes=notes)


def _result(architecture: Genotype, write: Write) -> Evaluation:
    return Evaluation(architecture, read_metrics(write.notes), 0.0, write.notes.get(FAILURE))
