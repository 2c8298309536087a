"""Warm starts: what a search takes from an earlier run or from a list of architectures, before it proposes anything.

Results of a run are taken as they are if they answer what the new run asks (:func:`question`): the same supernet
weights, images and scoring, or the same table, and all metrics. Else the best architectures are scored anew, as
those of a list are. The new run keeps a copy of all it needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.backend import find_run_storage
from nas.config import RunConfig
from nas.evaluation import Evaluation
from nas.folder import RUN, STORE, read_run, without_folder
from nas.listing import SUFFIXES, read_architectures
from nas.problem import ArchitectureProblem
from nas.run import Run
from nas.soundness import check_file, sound_trials
from nas.start import best_first
from nas.storage import read_attributes, read_evaluation
from nas.supernet_source import SUPERNET
from spaces import Genotype, InputError, SearchSpace, Space


@dataclass(frozen=True)
class WarmStart:
    """What a search begins with.

    Attributes:
        path: Run folder or file that it is from.
        listed: Architectures of a list, in its order; none of a run.
        results: Complete results of a run, best first by its own objectives; none of a list.
        question: What they answer; None of a list.
    """

    path: str
    listed: tuple[Genotype, ...] = ()
    results: tuple[Evaluation, ...] = ()
    question: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; ``from_dict`` reads them back."""
        results = [{"genes": dict(r.architecture.genes), "metrics": dict(r.metrics)} for r in self.results]
        values = {
            "listed": [dict(architecture.genes) for architecture in self.listed],
            "results": results,
            "question": self.question,
        }
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        return {"path": self.path, "sha256": digest, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], space: Space, where: str) -> WarmStart:
        """Return what ``to_dict`` wrote.

        Raises:
            InputError: If it is damaged.
        """
        try:
            listed = tuple(space.architecture(genes) for genes in values["listed"])
            results = tuple(Evaluation(space.architecture(r["genes"]), r["metrics"], 0.0) for r in values["results"])
            return cls(values["path"], listed, results, values["question"])
        except (KeyError, TypeError) as error:
            raise InputError(f"the warm start in {where} is damaged ({error!r}); restore the file") from None


def open_warm_start(config: RunConfig, folder: Path, space: Space) -> WarmStart | None:
    """Return what a recipe begins with, or None: the copy that the run folder keeps, else from where it is.

    Raises:
        InputError: If it is neither a run that has evaluated this space nor a list of its architectures.
    """
    path = config.search.warm_start
    if path is None:
        return None
    kept = read_run(folder)["warm_start"] if (folder / RUN).is_file() else None
    if kept is not None and kept.get("path") == path:
        return WarmStart.from_dict(kept, space, str(folder / RUN))
    source = Path(path)
    try:
        is_run, is_file, is_folder = (source / RUN).is_file(), source.is_file(), source.is_dir()
    except (OSError, ValueError) as error:  # too long, or with a character that no path has
        raise InputError(f"search.warm_start must be a path, got {path[:100]!r}: {error}") from None
    if is_run:
        return _of_run(source, space)
    if source.suffix not in SUFFIXES or not is_file:
        fact = f"{path}, which has no {RUN}" if is_folder else path
        fact = fact if is_file or is_folder else f"{path}, which does not exist"
        raise InputError(
            f"search.warm_start must be a run folder or a file of architectures, one of {list(SUFFIXES)}, got {fact}"
        )
    return WarmStart(path, tuple(read_architectures(source, space)))


def _of_run(folder: Path, space: Space) -> WarmStart:
    """Return the results of a run."""
    run = Run(folder)
    if _choices(run.space) != _choices(space):
        raise InputError(
            f"search.warm_start must be a run in the same space, but {folder} has searched {run.space.name!r} with "
            f"other choices or rows than {space.name!r}; list architectures that are in both in a file"
        )
    sound: dict[Genotype, Evaluation] = {}
    weights = None
    storage = find_run_storage(folder)
    if storage is not None:
        if storage.prefix == "":
            check_file(folder / STORE)
        studies = [sound_trials(storage, study, run.space, run.metrics) for study in ("search", "random")]
        trials = [trial for study in studies for trial in study]
        results = [read_evaluation(trial, space) for trial in trials if trial.state.is_finished()]
        sound = {r.architecture: replace(r, seconds=0.0) for r in results if r.failure is None}
        weights = read_attributes(storage, "search").get(SUPERNET)
    if not sound:
        raise InputError(
            f"search.warm_start must be a run with results, but {folder} has no complete evaluation; search it first"
        )
    problem = ArchitectureProblem(space, run.objectives, run.constraints)
    ranked = [sound[architecture] for architecture in best_first(problem, list(sound.values()), len(sound))]
    return WarmStart(str(folder), (), tuple(ranked), question(run.config, read_run(folder), weights))


def _choices(space: Space) -> Any:
    """Return what makes the architectures of two spaces the same ones."""
    values = space.to_dict()
    return values["genes"] if isinstance(space, SearchSpace) else {**values, "name": None}


def question(config: RunConfig, record: Mapping[str, Any], weights: str | None) -> dict[str, Any]:
    """Return what the scores of a run depend on, by names for people, as plain values.

    Which processor computes them, and on how many threads, is no part of it: that changes the last digits at most.

    Args:
        config: Recipe.
        record: What ``run.json`` holds.
        weights: Digest of the supernet's weights; None with a table.
    """
    models, scoring = record["energy_models"] or {}, config.scoring.model_dump(mode="json", exclude={"cache_mb"})
    metrics: dict[str, Any] = {} if config.table is None else dict(config.table.metrics)
    if config.source is not None:
        metrics = dict(record["metrics"] or {})
    for metric in config.metrics:
        name = without_folder(metric)
        metrics[name] = [config.options.get(metric, {}), models.get(Path(name.partition(":")[2]).stem)]
    values = {"table": record["table"], "metrics": metrics}
    if config.source is not None:
        values |= {"source": [config.source, config.options.get(config.source, {}), record["source"]]}
    elif config.table is None:
        values |= {"supernet": weights, "images": record["images"], "scoring": scoring}
    return dict(json.loads(json.dumps(values)))


def unanswered(asked: Mapping[str, Any], answered: Mapping[str, Any]) -> list[str]:
    """Return in what two questions differ, nothing if the results of the second answer the first."""
    names = [name for name in {**asked, **answered} if name != "metrics" and asked.get(name) != answered.get(name)]
    metrics = {name for name, how in asked["metrics"].items() if answered["metrics"].get(name) != how}
    return names + sorted(metrics)


def admitted(warm: WarmStart, problem: ArchitectureProblem) -> WarmStart:
    """Return a warm start without what static constraints forbid.

    Raises:
        InputError: If nothing is left.
    """
    listed = tuple(architecture for architecture in warm.listed if problem.admits(architecture))
    results = tuple(result for result in warm.results if problem.admits(result.architecture))
    if not listed and not results:
        rules = " and ".join(map(str, problem.static_constraints))
        raise InputError(
            f"search.warm_start must have an architecture that keeps {rules}, but none of {warm.path} does; loosen a "
            "bound, or take it out"
        )
    return WarmStart(warm.path, listed, results, warm.question)


def takes(warm: WarmStart, asked: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether results are taken as they are, and what the search begins with, in words."""
    if warm.question is None:
        return False, f"architectures of {warm.path}, scored first"
    differences = unanswered(asked, warm.question)
    if differences:
        names = ", ".join(differences)
        return False, f"best architectures of {warm.path}, scored anew, as the runs differ in {names}"
    return True, f"results of {warm.path}, taken as they are"


def proposed(warm: WarmStart, population: int, budget: int) -> list[Genotype]:
    """Return the architectures that are scored first: all of a list, or of a run as many as a population has."""
    best = [result.architecture for result in warm.results[:population]]
    return [*warm.listed, *best][:budget]
