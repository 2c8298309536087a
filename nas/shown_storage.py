"""A run's storage as a dashboard gets it: read only, with what a reader needs to know added on the way.

The store of a run has one writer, its driver. So nothing here writes: notes on the run and on the members of its
front, and how far trials violate constraints, are made when they are read, in the form that optuna-dashboard has.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Container, Mapping, Sequence
from copy import copy
from typing import Any, NoReturn

import pandas as pd
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from nas.constraints import total_violation
from nas.run import Run
from nas.status import describe, status_of
from nas.storage import KEY, STUDIES
from spaces import InputError

ONLY_SHOWN = "this dashboard shows the run, and changes nothing of it"

_CONSTRAINTS = "constraints"
"""System attribute of a trial: values above 0 are violations."""

_NOTE_PART = 2045
"""Characters of a note that one attribute has at most."""

_FRESH = 5.0
"""Seconds for which a note is not written anew."""

_MEMBERS = 40
"""Members of a front in a note."""


class ShownStorage(BaseStorage):
    """The studies of one run as a dashboard may have them: under their short names, with notes, and read only.

    Args:
        run: Run, whose search has begun.
    """

    def __init__(self, run: Run) -> None:
        storage = run.follow()
        if storage is None:
            raise InputError(
                f"a dashboard shows what has been evaluated, but the search of {run.folder} has not begun; begin it "
                "with `nas search`"
            )
        self._run, self._notes = run, _Notes(run)
        self._inner, self._prefix = storage.backend, storage.prefix

    # Reading

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return the studies of the run, without those of other runs in the same store."""
        return [self._shown(study) for study in self._inner.get_all_studies() if self._owns(study.study_name)]

    def _owns(self, name: str) -> bool:
        return name.startswith(self._prefix) and name[len(self._prefix) :] in STUDIES

    def _shown(self, study: FrozenStudy) -> FrozenStudy:
        shown = copy(study)
        shown.study_name = study.study_name.removeprefix(self._prefix)
        shown.system_attrs = self._attributes(study._study_id, shown.study_name, study.system_attrs)
        return shown

    def _attributes(self, study_id: int, name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the system attributes of a study with notes on it and on its members of the front."""
        found = dict(attributes)
        if name == "search":
            text, members = self._notes.read()
            found |= split_note(text)
            for trial in self._inner.get_all_trials(study_id, deepcopy=False) if members else ():
                if (key := trial.user_attrs.get(KEY)) in members:
                    found |= split_note(members[key], trial._trial_id)
        return found

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the number of a study by its short name."""
        return self._inner.get_study_id_from_name(self._prefix + study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the short name of a study."""
        return self._inner.get_study_name_from_id(study_id).removeprefix(self._prefix)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the directions of a study."""
        return self._inner.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return what the run says of a study."""
        return self._inner.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return metric names and note of a study."""
        name = self.get_study_name_from_id(study_id)
        return self._attributes(study_id, name, self._inner.get_study_system_attrs(study_id))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial."""
        return self._judged([self._inner.get_trial(trial_id)])[0]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials of a study, with how far they violate the constraints of the run."""
        return self._judged(self._inner.get_all_trials(study_id, deepcopy, states))

    def _judged(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Return trials, those that have ended with their violation if the run has constraints."""
        if not self._run.constraints:
            return list(trials)
        return [self._with_violation(trial) for trial in trials]

    def _with_violation(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.state != TrialState.COMPLETE:
            return trial
        shown = copy(trial)
        violation = total_violation(trial.user_attrs, self._run.constraints)
        shown.system_attrs = {**trial.system_attrs, _CONSTRAINTS: [violation]}
        return shown

    # Writing

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise PermissionError(ONLY_SHOWN)

    create_new_study = delete_study = set_study_user_attr = set_study_system_attr = _refuse
    create_new_trial = set_trial_param = set_trial_state_values = set_trial_intermediate_value = _refuse
    set_trial_user_attr = set_trial_system_attr = _refuse


class _Notes:
    """What is said of a run and of the members of its front, written anew when it is older than some seconds.

    Args:
        run: Run.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._lock = run, threading.Lock()
        self._text, self._members, self._written = "", dict[str, str](), -math.inf

    def read(self) -> tuple[str, dict[str, str]]:
        """Return the note of the search, and notes of trials by the keys of their architectures."""
        with self._lock:
            if time.monotonic() - self._written >= _FRESH:
                try:
                    self._text, self._members = describe_run(self._run)
                except InputError as error:  # the store is away, or was damaged meanwhile
                    self._text, self._members = f"The run cannot be read: {error}", {}
                self._written = time.monotonic()
            return self._text, self._members


def describe_run(run: Run) -> tuple[str, dict[str, str]]:
    """Return in Markdown how far a run is and what its front is, and what its members are, by their keys."""
    with run.reading_once():
        found, front, reason = status_of(run), run.front(), run.why_empty()
    lines = [f"## {run.config.name}", "", *(f"    {line}" for line in describe(found).splitlines()), ""]
    columns = ["key", *run.objectives, *run.test_columns]
    if front.empty:
        lines.append(f"There is no front: {reason}." if reason else "There is no front yet.")
    else:
        shown = front.head(_MEMBERS)
        cells = [[_cell(value) for value in row] for row in shown[columns].itertuples(index=False, name=None)]
        rest = f", the first {_MEMBERS}" if len(front) > _MEMBERS else ""
        lines += [f"**Front**: {len(front)} architectures{rest}", ""]
        lines += [f"| {' | '.join(row)} |" for row in ([*columns], ["---"] * len(columns), *cells)]
    if run.constraints:
        bounds = ", ".join(map(str, run.constraints))
        lines += [
            "",
            f"Constraints: {bounds}. The best trials of the dashboard do not keep to them; this front does.",
        ]
    members = {row["key"]: f"On the front. Architecture `{row['key']}`." for row in front.to_dict(orient="records")}
    return "\n".join(lines) + "\n", members


def _cell(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else "" if pd.isna(value) else f"{value:.5g}"


def split_note(text: str, trial: int | None = None) -> dict[str, Any]:
    """Return a note as the system attributes of its study in which the dashboard looks for it.

    Args:
        text: Markdown.
        trial: Id of the trial that it is of; the study by default.
    """
    place = "dashboard:" if trial is None else f"dashboard:{trial}:"
    parts = [text[start : start + _NOTE_PART] for start in range(0, len(text), _NOTE_PART)]
    return {f"{place}note_ver": 1, **{f"{place}note_str:{number}": part for number, part in enumerate(parts)}}
