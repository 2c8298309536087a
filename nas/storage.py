"""The store of a run: Optuna studies, written as results arrive, and all the state there is.

One trial per evaluation: opened when it is submitted, closed when its result arrives. Genes are its parameters,
metrics its user attributes, a failure is a failed trial with its reason. The study ``search`` holds the search,
``random`` its baseline, ``reference`` the largest architecture, and ``test`` the front on the test split; where runs
share a store, the names begin with the id of the run. Optuna keeps numbers and JSON, in a database and in a journal
file; nothing is ever unpickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from evaluators import Sense
from nas.backend import Storage
from nas.evaluation import Evaluation
from spaces import Genotype, Space

STUDIES = ("reference", "search", "random", "test")
"""Studies of a run: the largest architecture, the search, its baseline, and the front on the test split."""

GENERATION, KEY, FAILURE, DURATION = "generation", "key", "failure", "duration"
"""User attributes of a trial beside its metrics; ``duration`` is in seconds."""

PARENTS, WORKER = "parents", "worker"
"""User attributes of a trial: keys of what its architecture was made from, and which process scored it. Those of
before there were any have none."""

AFTER, TOLD = "after", "told"
"""User attributes of a trial of an asynchronous search: how many results were told when it was proposed, and which of
those told its own is."""

_BOOKKEEPING = frozenset({GENERATION, KEY, FAILURE, DURATION, PARENTS, WORKER, AFTER, TOLD})
_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}


Action = Literal["open", "take", "close", "note"]


@dataclass(frozen=True)
class Write:
    """What is to be written to a study.

    Attributes:
        study: Its name within the run.
        do: ``open`` or ``close`` a trial, ``take`` a result from elsewhere, or ``note`` attributes of the study.
        notes: User attributes of the trial, or of the study.
        architecture: Of the trial.
    """

    study: str
    do: Action
    notes: Mapping[str, Any]
    architecture: Genotype | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        genes = None if self.architecture is None else dict(self.architecture.genes)
        return {"study": self.study, "do": self.do, "notes": dict(self.notes), "genes": genes}


class Notes:
    """User attributes of a study: read from memory, and written through.

    Args:
        user_attrs: What there is.
        write: Writes more.
    """

    def __init__(self, user_attrs: dict[str, Any], write: Callable[[dict[str, Any]], None]) -> None:
        self.user_attrs, self._write = user_attrs, write

    def set_user_attr(self, name: str, value: Any) -> None:
        """Set one."""
        self.user_attrs[name] = value
        self._write({name: value})


class Store:
    """One study of a run, by architecture; what it knows is known at once, also where writing it takes its time.

    Args:
        storage: Storage of the run.
        name: Study name.
        space: Search space, whose genes are the parameters of the trials.
        objectives: Objectives in order, each with its sense.
        later: Takes what is to be written, and calls :meth:`apply` with it; that is done at once without it.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        space: Space,
        objectives: Mapping[str, Sense],
        later: Callable[[Store, Write], None] | None = None,
    ) -> None:
        self.name = name
        self._storage, self._space, self._objectives = storage.backend, space, tuple(objectives)
        self._later = later
        with storage.sound():
            study = optuna.create_study(
                storage=storage.backend,
                study_name=storage.prefix + name,
                directions=[_DIRECTIONS[sense] for sense in objectives.values()],
                load_if_exists=True,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(objectives))
            self._study_id = storage.backend.get_study_id_from_name(storage.prefix + name)
            self._trials: dict[Genotype, int | None] = {}
            self._closed: set[Genotype] = set()
            self.known: dict[Genotype, Evaluation] = {}
            self._after: dict[Genotype, int] = {}
            self._told: dict[Genotype, int] = {}
            for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
                architecture = read_architecture(trial, space)
                self._trials[architecture] = trial._trial_id
                if AFTER in trial.user_attrs:
                    self._after[architecture] = int(trial.user_attrs[AFTER])
                if trial.state.is_finished():
                    self._closed.add(architecture)
                    self.known[architecture] = read_evaluation(trial, space)
                    if TOLD in trial.user_attrs:
                        self._told[architecture] = int(trial.user_attrs[TOLD])
            attributes = self._storage.get_study_user_attrs(self._study_id)
        self.study = Notes(dict(attributes), lambda notes: self._do(Write(name, "note", notes)))

    @property
    def opened(self) -> int:
        """Number of architectures that have a trial."""
        return len(self._trials)

    @property
    def architectures(self) -> list[Genotype]:
        """Architectures that have a trial, in the order of submission."""
        return list(self._trials)

    @property
    def results(self) -> list[Evaluation]:
        """Results so far in the order of submission."""
        return [self.known[architecture] for architecture in self._trials if architecture in self.known]

    @property
    def proposals(self) -> list[tuple[Genotype, int]]:
        """Architectures that an asynchronous search proposed, in order, with the results told before each ask."""
        return [
            (architecture, self._after[architecture]) for architecture in self._trials if architecture in self._after
        ]

    @property
    def told(self) -> list[Evaluation]:
        """Results in the order in which an asynchronous search told them."""
        return [self.known[architecture] for architecture in sorted(self._told, key=self._told.__getitem__)]

    def open(
        self, architecture: Genotype, generation: int, *, parents: Sequence[str] = (), after: int | None = None
    ) -> None:
        """Open a trial, unless the architecture has one: left open by a crash, or closed.

        Args:
            architecture: What is proposed.
            generation: Of which generation it is.
            parents: Keys of what it was made from.
            after: Results that were told before it was asked for, in an asynchronous search.
        """
        if architecture in self._trials:
            return
        notes: dict[str, Any] = {GENERATION: generation}
        if parents:
            notes[PARENTS] = list(parents)
        if after is not None:
            notes[AFTER] = after
        self._remember(write := Write(self.name, "open", notes, architecture))
        self._do(write)

    def take(self, evaluation: Evaluation, generation: int) -> None:
        """Record a complete result that was found elsewhere, unless its architecture has a trial."""
        if evaluation.architecture in self._trials:
            return
        notes = {GENERATION: generation, **evaluation.metrics, DURATION: evaluation.seconds}
        self._remember(write := Write(self.name, "take", notes, evaluation.architecture))
        self._do(write)

    def close(self, evaluation: Evaluation, *, told: int | None = None) -> None:
        """Record the result of an open trial; a closed one stays as it is.

        Args:
            evaluation: Result.
            told: Its place among all results that an asynchronous search told, from 0.
        """
        if evaluation.architecture in self.known:
            return
        notes: dict[str, Any] = {**evaluation.metrics, DURATION: evaluation.seconds}
        if evaluation.worker is not None:
            notes[WORKER] = evaluation.worker
        if told is not None:
            notes[TOLD] = told
        if evaluation.failure is not None:
            notes[FAILURE] = evaluation.failure
        self._remember(write := Write(self.name, "close", notes, evaluation.architecture))
        self._do(write)

    def parse(self, values: Mapping[str, Any]) -> Write:
        """Return the write to this study that plain values are of.

        Raises:
            KeyError, TypeError, ValueError: If they are of none.
        """
        architecture = None if values["genes"] is None else self._space.architecture(values["genes"])
        notes = dict(values["notes"])
        if values["do"] not in get_args(Action) or (architecture is None) != (values["do"] == "note"):
            raise ValueError(f"no write has {values['do']!r}")
        needed = set() if values["do"] in ("note", "close") else {GENERATION}
        if values["do"] in ("take", "close"):
            needed |= {DURATION} if FAILURE in notes else {DURATION, *self._objectives}
        if missing := sorted(needed - set(notes)):
            raise ValueError(f"{missing} are missing")
        return Write(self.name, values["do"], notes, architecture)

    def redo(self, write: Write) -> None:
        """Write what an earlier process could not; once more does no harm."""
        if write.do == "note":
            self.study.user_attrs.update(write.notes)
        elif write.do != "close" or write.architecture not in self.known:
            self._remember(write)
        self.apply(write)

    def _remember(self, write: Write) -> None:
        """Know what is written, or will be."""
        architecture, notes = cast(Genotype, write.architecture), write.notes
        if write.do != "close":
            self._trials.setdefault(architecture, None)
        if write.do == "open":
            if AFTER in notes:
                self._after[architecture] = notes[AFTER]
            return
        if TOLD in notes:
            self._told[architecture] = notes[TOLD]
        failure, worker = notes.get(FAILURE), notes.get(WORKER)
        self.known[architecture] = Evaluation(architecture, read_metrics(notes), notes[DURATION], failure, worker)

    def _do(self, write: Write) -> None:
        if self._later is None:
            self.apply(write)
        else:
            self._later(self, write)

    def apply(self, write: Write) -> None:
        """Write what is remembered, unless it is written."""
        if write.do == "note":
            for name, value in write.notes.items():
                self._storage.set_study_user_attr(self._study_id, name, value)
        elif write.do == "close":
            self._close(cast(Genotype, write.architecture), write.notes)
        else:
            self._create(cast(Genotype, write.architecture), write)

    def _create(self, architecture: Genotype, write: Write) -> None:
        """Write a trial of an architecture at once."""
        if self._trials[architecture] is not None:
            return
        genes, complete = architecture.genes, write.do == "take"
        trial = create_trial(
            params=dict(genes),
            distributions={name: self._distribution(name) for name in genes},
            user_attrs={KEY: architecture.key, **write.notes},
            state=TrialState.COMPLETE if complete else TrialState.RUNNING,
            values=[write.notes[name] for name in self._objectives] if complete else None,
        )
        self._trials[architecture] = self._storage.create_new_trial(self._study_id, template_trial=trial)
        if complete:
            self._closed.add(architecture)

    def _distribution(self, column: str) -> BaseDistribution:
        return CategoricalDistribution(self._space.choices(column))

    def _close(self, architecture: Genotype, notes: Mapping[str, Any]) -> None:
        """Write a result into the trial of an architecture."""
        if architecture in self._closed:
            return
        trial_id = cast(int, self._trials[architecture])
        try:
            for name, value in notes.items():
                self._storage.set_trial_user_attr(trial_id, name, value)
            if FAILURE in notes:
                self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
            else:
                values = [notes[name] for name in self._objectives]
                self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, values)
        except UpdateFinishedTrialError:
            pass  # it was written just before the store went away
        self._closed.add(architecture)

    def look(self) -> None:
        """Learn what of the remembered has been written, though a store that went away may not have said so."""
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            architecture = read_architecture(trial, self._space)
            self._trials[architecture] = trial._trial_id
            if trial.state.is_finished():
                self._closed.add(architecture)


def read_trials(storage: Storage, name: str) -> list[FrozenTrial]:
    """Return the trials of a study in the order of their numbers; none if there is no such study."""
    with storage.sound():
        try:
            study_id = storage.backend.get_study_id_from_name(storage.prefix + name)
        except KeyError:
            return []
        return storage.backend.get_all_trials(study_id, deepcopy=False)


def read_attributes(storage: Storage, name: str) -> dict[str, Any]:
    """Return the user attributes of a study; none if there is no such study."""
    with storage.sound():
        try:
            return storage.backend.get_study_user_attrs(storage.backend.get_study_id_from_name(storage.prefix + name))
        except KeyError:
            return {}


def read_architecture(trial: FrozenTrial, space: Space) -> Genotype:
    """Return the architecture that a trial's parameters name."""
    return space.architecture(trial.params)


def read_metrics(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics among the user attributes of a trial."""
    return {name: value for name, value in notes.items() if name not in _BOOKKEEPING}


def read_evaluation(trial: FrozenTrial, space: Space) -> Evaluation:
    """Return the result that a finished trial holds."""
    attributes = trial.user_attrs
    complete = trial.state == TrialState.COMPLETE
    return Evaluation(
        read_architecture(trial, space),
        read_metrics(attributes) if complete else {},
        cast(float, attributes.get(DURATION, 0.0)),
        None if complete else str(attributes.get(FAILURE, "no reason recorded")),
        attributes.get(WORKER),
    )
