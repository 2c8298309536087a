"""Whether a store holds what a run can have written, before anything is taken from it or added to it.

Looking changes nothing: a store that is refused stays what it was, byte for byte.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

from evaluators import Sense
from nas.backend import Storage
from nas.results import STATES
from nas.stopping import SECONDS, STOPPED, Reason
from nas.storage import AFTER, DURATION, FAILURE, GENERATION, KEY, PARENTS, TOLD, WORKER, read_attributes, read_trials
from spaces import InputError, Space

REFERENCE = "hypervolume_reference"
"""User attribute of the study ``search``: the fixed reference point of its hypervolume, by objective."""

WARM = "warm_start"
"""User attribute of the study ``search``: what it began with, in words."""

Mode = Literal["async", "generational"]

MODE = "mode"
"""User attribute of the study ``search``: how it searches, also when it goes on with other workers."""

PLANNED = "planned"
"""User attribute of the study ``search``: the evaluations that it began with. Schedules are spread over them also
when it goes on with more, as a search that goes on is the one that it was."""

IDLE = "idle_share"
"""User attribute of the study ``search``: share of the workers' time in which they scored nothing."""

RERANKING = "reranking"
"""User attribute of the study ``search``: how well each batch was ranked by its reranker (:mod:`nas.rerank`)."""

_WAY_OUT = "restore it, or choose another run folder"

_BEGINNING = b"SQLite format 3\0"

_ROWS = (
    "studies",
    "study_directions",
    "trials",
    "trial_params",
    "trial_user_attributes",
    "trial_values",
)
"""Tables of a store that are empty until it has a study."""

_VERSIONS = ("version_info", "alembic_version")
"""Tables that have a row each from the beginning."""

_TABLES = (*_ROWS, "study_user_attributes", "study_system_attributes", *_VERSIONS)

_UNREADABLE = (LookupError, ArithmeticError, AttributeError)
"""What rows that contradict each other raise, beside what :mod:`nas.storage` expects."""


def check_file(path: Path) -> bool:
    """Return whether a store has a study: not if its file has just been created, or its tables are being.

    It has to be a whole SQLite database, with all tables of a store if it has rows in any.

    Raises:
        InputError: If it is not.
    """
    if path.is_file():
        with path.open("rb") as file:
            beginning = file.read(len(_BEGINNING))
        if not beginning:
            return False
        if beginning != _BEGINNING:  # a file of a few bytes would pass for an empty database
            raise InputError(f"{path} must be the store of a run, but: file is not a database; {_WAY_OUT}")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=60)) as database:
            found = [str(row[0]) for row in database.execute("PRAGMA integrity_check(1)")]
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            orphans = database.execute("PRAGMA foreign_key_check").fetchone()
            filled = {name for name in tables.intersection(_TABLES) if _has_rows(database, name)}
    except sqlite3.Error as error:
        raise InputError(f"{path} must be the store of a run, but: {error}; {_WAY_OUT}") from None
    if orphans is not None:
        raise InputError(f"{path} must be the store of a run, but {orphans[0]} has rows of nothing; {_WAY_OUT}")
    if found != ["ok"]:
        raise InputError(f"{path} must be the store of a run, but it is damaged: {found[0]}; {_WAY_OUT}")
    lost = [name for name in _TABLES if name not in (filled if name in _VERSIONS else tables)]
    begun = bool(filled.intersection(_ROWS))
    if lost and begun:
        raise InputError(f"{path} must be the store of a run, but it has lost what was in {lost}; {_WAY_OUT}")
    return begun


def _has_rows(database: sqlite3.Connection, table: str) -> bool:
    return database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None


def sound_trials(storage: Storage, study: str, space: Space, metrics: Collection[str]) -> list[Any]:
    """Return the trials of a study in the order of their numbers, all of which are evaluations of different rows.

    Raises:
        InputError: If one is not.
    """
    where = f"{storage.address} must hold evaluations of a run"
    try:
        trials = read_trials(storage, study)
    except _UNREADABLE as error:
        raise InputError(f"{where}, but study {study!r} cannot be read: {error!r}; {_WAY_OUT}") from None
    seen: dict[str, int] = {}
    for trial in trials:
        fault = _fault(trial, space, metrics) if trial.number == len(seen) else f"has the place {len(seen)}"
        if fault is None and trial.user_attrs[KEY] in seen:
            fault = f"is of the architecture of trial {seen[trial.user_attrs[KEY]]}"
        if fault is not None:
            raise InputError(f"{where}, but trial {trial.number} of study {study!r} {fault}; {_WAY_OUT}")
        seen[trial.user_attrs[KEY]] = trial.number
    if (disorder := _disorder(trials)) is not None:
        raise InputError(f"{where}, but study {study!r} {disorder}; {_WAY_OUT}")
    return trials


def _disorder(trials: Sequence[Any]) -> str | None:
    """Return what is wrong with the orders that an asynchronous search has kept, or None."""
    ended = [trial for trial in trials if STATES[trial.state] != "running" and TOLD in trial.user_attrs]
    for place, trial in enumerate(sorted(ended, key=lambda trial: trial.user_attrs[TOLD])):
        if (found := trial.user_attrs[TOLD]) != place:
            return f"has no result {place} and has result {found}, or has it twice"
        if AFTER not in trial.user_attrs:
            return f"has told the result of trial {trial.number}, which it has not proposed"
    before = 0
    for trial in trials:
        after = trial.user_attrs.get(AFTER, before)
        if not before <= after <= len(ended):
            return (
                f"has trial {trial.number} after {after} results, which must be {before} or more, as of the trial "
                f"before, and no more than the {len(ended)} told"
            )
        before = after
    return None


def _fault(trial: Any, space: Space, metrics: Collection[str]) -> str | None:
    """Return what is wrong with a trial, or None."""
    attributes = trial.user_attrs
    try:
        architecture = space.architecture(trial.params)
    except InputError as error:
        return f"is of no architecture: {error}"
    if architecture not in space:
        return f"is of an architecture that is not in the space {space.name!r}: {trial.params}"
    rules: Mapping[str, tuple[Any, Callable[[Any], bool]]] = {
        KEY: (None, lambda value: bool(value == architecture.key)),
        GENERATION: (None, lambda value: type(value) is int and value >= 0),
        DURATION: (0.0, lambda value: _is_finite(value) and value >= 0),
        FAILURE: ("", lambda value: isinstance(value, str)),
        WORKER: ("", lambda value: isinstance(value, str)),
        PARENTS: ([], _are_texts),
        AFTER: (0, lambda value: type(value) is int and value >= 0),
        TOLD: (0, lambda value: type(value) is int and value >= 0),
    }
    for name, (default, holds) in rules.items():
        if not holds(attributes.get(name, default)):
            return f"has the {name} {attributes.get(name)!r}"
    odd = [name for name in metrics if not _is_finite(attributes.get(name))]
    if STATES[trial.state] == "complete" and odd:
        return f"is complete and has no finite {odd[0]}, got {attributes.get(odd[0])!r}"
    return None


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def check_directions(storage: Storage, study: str, objectives: Mapping[str, Sense]) -> None:
    """Check that a study has the objectives of its run, if there is one.

    Raises:
        InputError: If it has not.
    """
    expected = [f"{sense.upper()}IMIZE" for sense in objectives.values()]
    try:
        number = storage.backend.get_study_id_from_name(storage.prefix + study)
    except KeyError:  # there is none yet
        return
    try:
        found = [direction.name for direction in storage.backend.get_study_directions(number)]
    except _UNREADABLE as error:
        found = [repr(error)]
    if found != expected:
        raise InputError(
            f"{storage.address} must have a study {study!r} with the directions {expected}, got {found}; {_WAY_OUT}"
        )


def sound_attributes(storage: Storage, study: str, objectives: Collection[str]) -> Mapping[str, Any]:
    """Return what a study says of itself.

    Raises:
        InputError: If it is nothing that a run says.
    """
    found = read_attributes(storage, study)
    rules: Sequence[tuple[str, str, Any]] = (
        (STOPPED, f"one of {get_args(Reason)} or None", lambda value: value is None or value in get_args(Reason)),
        (SECONDS, "0 or more", lambda value: _is_finite(value) and value >= 0),
        (REFERENCE, f"a number for each of {list(objectives)}", lambda value: _is_point(value, objectives)),
        (WARM, "a text", lambda value: isinstance(value, str)),
        (MODE, f"one of {list(get_args(Mode))}", lambda value: value in get_args(Mode)),
        (PLANNED, "a whole number, 1 or more", lambda value: type(value) is int and value >= 1),
        (IDLE, "from 0 to 1", lambda value: _is_finite(value) and 0 <= value <= 1),
    )
    for name, rule, holds in rules:
        if name in found and not holds(found[name]):
            raise InputError(
                f"{storage.address} must have a study {study!r} whose {name} is {rule}, got "
                f"{found[name]!r}; {_WAY_OUT}"
            )
    return found


def _is_point(value: Any, objectives: Collection[str]) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) == set(objectives)
        and all(_is_finite(number) for number in value.values())
    )
