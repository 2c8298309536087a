"""The store of a run: Optuna studies in one SQLite file, written as results arrive, and all the state there is.

One trial per evaluation: opened when it is submitted, closed when its result arrives. Genes are its parameters,
metrics its user attributes, a failure is a failed trial with its reason. The study ``search`` holds the search,
``random`` its baseline, ``reference`` the largest architecture, and ``test`` the front on the test split.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from evaluators import Sense
from nas.evaluation import Evaluation
from nas.folder import STORE
from spaces import Genotype, InputError, Space

STUDIES = ("reference", "search", "random", "test")
"""Studies of a run: the largest architecture, the search, its baseline, and the front on the test split."""

GENERATION, KEY, FAILURE, DURATION = "generation", "key", "failure", "duration"
"""User attributes of a trial beside its metrics; ``duration`` is in seconds."""

AFTER, TOLD = "after", "told"
"""User attributes of a trial of an asynchronous search: how many results were told when it was proposed, and which of
those told its own is."""

_BOOKKEEPING = frozenset({GENERATION, KEY, FAILURE, DURATION, AFTER, TOLD})
_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}


def open_storage(folder: Path) -> RDBStorage:
    """Return the storage of a run folder, creating its file if need be.

    Raises:
        InputError: If the file cannot be opened or is not a store.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder.resolve() / STORE
    with _sound(f"sqlite:///{path}"):
        return RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})


_DAMAGES = (
    SQLAlchemyError,
    StorageInternalError,
    RuntimeError,
    AssertionError,
    OSError,
    KeyError,
    ValueError,
    TypeError,
)


@contextmanager
def _sound(url: str) -> Iterator[None]:
    """Turn what a damaged or unreachable store raises into an InputError."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGES as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        reason = (str(getattr(cause, "orig", None) or cause) or type(cause).__name__).splitlines()[0]
        path = url.removeprefix("sqlite:///")
        raise InputError(f"{path} must be the store of a run, but: {reason}; choose another run folder") from None


class Store:
    """One study of a run, by architecture.

    Args:
        storage: Storage of the run.
        name: Study name.
        space: Search space, whose genes are the parameters of the trials.
        objectives: Objectives in order, each with its sense.
    """

    def __init__(self, storage: RDBStorage, name: str, space: Space, objectives: Mapping[str, Sense]) -> None:
        self._storage, self._space, self._objectives = storage, space, tuple(objectives)
        with _sound(storage.url):
            self.study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=[_DIRECTIONS[sense] for sense in objectives.values()],
                load_if_exists=True,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.set_metric_names(list(objectives))
            self._study_id = storage.get_study_id_from_name(name)
            self._trials: dict[Genotype, int] = {}
            self.known: dict[Genotype, Evaluation] = {}
            self._after: dict[Genotype, int] = {}
            self._told: dict[Genotype, int] = {}
            for trial in self.study.get_trials(deepcopy=False):
                architecture = read_architecture(trial, space)
                self._trials[architecture] = trial._trial_id
                if AFTER in trial.user_attrs:
                    self._after[architecture] = int(trial.user_attrs[AFTER])
                if trial.state.is_finished():
                    self.known[architecture] = read_evaluation(trial, space)
                    if TOLD in trial.user_attrs:
                        self._told[architecture] = int(trial.user_attrs[TOLD])

    @property
    def opened(self) -> int:
        """Number of architectures that have a trial."""
        return len(self._trials)

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

    def open(self, architecture: Genotype, generation: int, *, after: int | None = None) -> None:
        """Open a trial, unless the architecture has one: left open by a crash, or closed.

        Args:
            architecture: What is proposed.
            generation: Of which generation it is.
            after: Results that were told before it was asked for, in an asynchronous search.
        """
        if architecture in self._trials:
            return
        notes = {GENERATION: generation} if after is None else {GENERATION: generation, AFTER: after}
        if after is not None:
            self._after[architecture] = after
        self._add(architecture, notes, state=TrialState.RUNNING)

    def _distribution(self, column: str) -> BaseDistribution:
        return CategoricalDistribution(self._space.choices(column))

    def take(self, evaluation: Evaluation, generation: int) -> None:
        """Record a complete result that was found elsewhere, unless its architecture has a trial."""
        architecture = evaluation.architecture
        if architecture in self._trials:
            return
        self._add(
            architecture,
            state=TrialState.COMPLETE,
            values=[evaluation.metrics[name] for name in self._objectives],
            user_attrs={GENERATION: generation, **evaluation.metrics, DURATION: evaluation.seconds},
        )
        self.known[architecture] = evaluation

    def _add(self, architecture: Genotype, user_attrs: dict[str, Any], **options: Any) -> None:
        """Write a trial of an architecture at once."""
        genes = architecture.genes
        trial = create_trial(
            params=dict(genes),
            distributions={name: self._distribution(name) for name in genes},
            user_attrs={KEY: architecture.key, **user_attrs},
            **options,
        )
        self._trials[architecture] = self._storage.create_new_trial(self._study_id, template_trial=trial)

    def close(self, evaluation: Evaluation, *, told: int | None = None) -> None:
        """Record the result of an open trial; a closed one stays as it is.

        Args:
            evaluation: Result.
            told: Its place among all results that an asynchronous search told, from 0.
        """
        if evaluation.architecture in self.known:
            return
        trial_id = self._trials[evaluation.architecture]
        notes: dict[str, Any] = {**evaluation.metrics, DURATION: evaluation.seconds}
        if told is not None:
            notes[TOLD] = self._told[evaluation.architecture] = told
        for name, value in notes.items():
            self._storage.set_trial_user_attr(trial_id, name, value)
        if evaluation.failure is None:
            values = [evaluation.metrics[name] for name in self._objectives]
            self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, values)
        else:
            self._storage.set_trial_user_attr(trial_id, FAILURE, evaluation.failure)
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        self.known[evaluation.architecture] = evaluation


def read_trials(storage: RDBStorage, name: str) -> list[FrozenTrial]:
    """Return the trials of a study in the order of their numbers; none if there is no such study."""
    with _sound(storage.url):
        try:
            study_id = storage.get_study_id_from_name(name)
        except KeyError:
            return []
        return storage.get_all_trials(study_id, deepcopy=False)


def read_attributes(storage: RDBStorage, name: str) -> dict[str, Any]:
    """Return the user attributes of a study; none if there is no such study."""
    with _sound(storage.url):
        try:
            return storage.get_study_user_attrs(storage.get_study_id_from_name(name))
        except KeyError:
            return {}


def read_architecture(trial: FrozenTrial, space: Space) -> Genotype:
    """Return the architecture that a trial's parameters name."""
    return space.architecture(trial.params)


def read_evaluation(trial: FrozenTrial, space: Space) -> Evaluation:
    """Return the result that a finished trial holds."""
    attributes = trial.user_attrs
    complete = trial.state == TrialState.COMPLETE
    metrics = {name: value for name, value in attributes.items() if name not in _BOOKKEEPING}
    return Evaluation(
        read_architecture(trial, space),
        metrics if complete else {},
        cast(float, attributes.get(DURATION, 0.0)),
        None if complete else str(attributes.get(FAILURE, "no reason recorded")),
    )
