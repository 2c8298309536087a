"""Scores from a supernet of the user's own, or from anything else that scores, by ``package.module:Name``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from evaluators import Candidate, Evaluator, ListedCandidate, Sense, StaticMetrics, build_evaluators
from evaluators import score as score_candidate
from nas.config import RunConfig
from nas.evaluation import Evaluation, SplitName, attempt
from nas.progress import Reporter
from nas.scoring import check_metric_names, check_without_network, metric_senses, objective_senses, threads
from nas.storage import Store
from spaces import Genotype, InputError, ProductSpace, SearchSpace, Space, TableSpace
from spaces.resolve import refusing, resolve
from supernet.device import resolve_device

Answer = Callable[[Any, SplitName], Mapping[str, float]]
"""An architecture and a split, ``validation`` or ``test``, to the values of all metrics."""

KINDS = (ProductSpace, SearchSpace, TableSpace)
"""Spaces that a run folder can keep as data."""


class OwnSupernet(Protocol):
    """What ``source`` of a recipe names returns, called with its options: what scores architectures.

    It is sent to the workers once it is prepared, so it should hold paths or arrays, and no open files. It may also
    have ``tested = True``, which says that it can score on ``test``, a split that the search never sees, and a
    method ``prepare(folder)``, which trains what is not trained and keeps that in the run folder. That is called in
    every process that leads or joins a search, before anything is scored.
    """

    @property
    def space(self) -> Space:
        """Search space: one of ``KINDS``."""
        ...

    @property
    def metrics(self) -> Mapping[str, Sense]:
        """Metrics that are recorded for every candidate, in order, each ``max`` or ``min``."""
        ...

    @property
    def fingerprint(self) -> str:
        """Text that differs wherever scores do: of the weights and images, or of what makes them."""
        ...

    def open(self) -> Answer:
        """Return what scores, in a worker; an exception of it makes the evaluation a failed one."""
        ...


class _Answered:
    """The user's answers as an evaluator."""

    def __init__(self, metrics: Mapping[str, Sense], answer: Answer, split: SplitName) -> None:
        self.metrics, self._answer, self._split = metrics, answer, split

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        return dict(self._answer(candidate.architecture, self._split))


@dataclass(frozen=True)
class OwnJob:
    """All that a worker needs to score by what the user has given.

    Attributes:
        name: What the recipe names.
        own: What that is.
        senses: Its metrics, each with its sense.
        metrics: Further evaluators, which look at ``candidate.architecture`` only.
        options: Evaluator options.
        threads: Threads per worker.
        device: Where to compute.
    """

    name: str
    own: OwnSupernet
    senses: Mapping[str, Sense]
    metrics: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]]
    threads: int
    device: str

    def open(self) -> OwnScorer:
        """Return what scores, in the worker's process."""
        return OwnScorer(self)

    def in_turns(self, architectures: Sequence[Any]) -> Sequence[Any]:
        """Return architectures as they are: nothing is known of what they have in common."""
        return architectures


class OwnScorer:
    """Scores by what the user has given.

    Args:
        job: That, and further evaluators.
    """

    def __init__(self, job: OwnJob) -> None:
        self._job, self._answer = job, job.own.open()
        self._evaluators = build_evaluators(job.metrics, job.options)

    def score_together(self, architectures: Sequence[Any], split: SplitName = "validation") -> Iterator[Evaluation]:
        """Yield the evaluations of architectures in order; whatever goes wrong becomes a failed one."""
        answered = cast(Evaluator, _Answered(self._job.senses, self._answer, split))
        evaluators = {self._job.name: answered, **self._evaluators}
        for architecture in architectures:
            candidate = cast(Candidate, ListedCandidate(architecture))
            with threads(self._job.threads):
                yield attempt(architecture, partial(score_candidate, candidate, evaluators))


@dataclass(frozen=True)
class OwnSource:
    """A checked recipe of a supernet of the user's own.

    Attributes:
        config: Recipe.
        own: What scores.
        space: Search space.
        metrics: All recorded metrics in order, each with its sense.
        objectives: Objectives in order, each with its sense.
    """

    config: RunConfig
    own: OwnSupernet
    space: Space
    metrics: Mapping[str, Sense]
    objectives: Mapping[str, Sense]

    @classmethod
    def open(cls, config: RunConfig) -> OwnSource:
        """Build what a recipe names, and check it; errors are those of ``open_source``."""
        name = str(config.source)
        check_without_network(config.metrics, f"source {name!r}")
        own = _build(name, config.options.get(name, {}))
        try:
            given: Any = own.space
            space: Space = type(given).from_dict(given.to_dict())  # as a run folder reads it
            if isinstance(space, SearchSpace):
                space = space.with_reference(given.reference)
        except InputError as error:
            raise InputError(f"the space of source {name!r}: {error}") from None
        listed, config = dict(own.metrics), _without_options(config)
        metrics, objectives = metric_senses(config, listed=listed), objective_senses(config, listed=listed)
        check_metric_names(config, space, listed=listed)
        if not config.search.hypervolume_reference:
            raise InputError(
                f"search.hypervolume_reference must be given with source {name!r}: the worst value that counts of "
                f"each objective, of {list(objectives)}"
            )
        resolve_device(config.device)
        return cls(config, own, space, metrics, objectives)

    @property
    def static(self) -> StaticMetrics:
        """Metrics of the further evaluators that are marked static."""
        return StaticMetrics(build_evaluators(self.config.metrics, self.config.options), ListedCandidate)

    @property
    def tested(self) -> bool:
        """Whether there is a test split."""
        return bool(getattr(self.own, "tested", False))

    @property
    def record(self) -> dict[str, Any]:
        """What the run folder keeps: what scores depend on, and whether there is a test split."""
        return {"source": {"fingerprint": self.own.fingerprint, "tested": self.tested}}

    def job(self, folder: Path, _results: Store, reporter: Reporter) -> OwnJob:
        """Prepare what is to score, and return what workers need."""
        reporter.say(f"preparing {self.config.source}")
        return self.trained_job(folder)

    def trained_job(self, folder: Path) -> OwnJob:
        """Return what workers need, prepared in this process too."""
        prepare = getattr(self.own, "prepare", None)
        if prepare is not None:
            prepare(folder)
        config = self.config
        return OwnJob(
            name=str(config.source),
            own=self.own,
            senses=dict(self.own.metrics),
            metrics=config.metrics,
            options=config.options,
            threads=config.workers.threads,
            device=resolve_device(config.device).type,
        )

    def reference_point(self, _score: Callable[[Genotype], Evaluation], _reporter: Reporter) -> dict[str, float]:
        """Return the reference of the recipe, which has one."""
        return dict(self.config.search.hypervolume_reference)


def _without_options(config: RunConfig) -> RunConfig:
    """Return a recipe whose options are those of evaluators."""
    options = {name: values for name, values in config.options.items() if name != config.source}
    return config.model_copy(update={"options": options})


def _build(name: str, options: Mapping[str, Any]) -> OwnSupernet:
    """Return what a name stands for, called with its options.

    Raises:
        InputError: If it cannot be imported or built, or lacks what a source has.
    """
    build: Any = resolve({}, name, "source")
    rule = "a source is called with its options and gives what has space, metrics, fingerprint and open()"
    if not callable(build):
        raise InputError(f"{rule}, but {name!r} is {build!r}")
    with refusing(f"source {name!r} cannot be built"):
        own = build(**options)
        lacking = [part for part in ("space", "metrics", "fingerprint", "open") if not hasattr(own, part)]
    if lacking:
        raise InputError(f"{rule}, but that of {name!r} lacks {', '.join(lacking)}")
    if type(own.space) not in KINDS:
        raise InputError(
            f"the space of a source must be one of {[kind.__name__ for kind in KINDS]} of spaces, which a run folder "
            f"can keep as data, but that of {name!r} is {own.space!r}"
        )
    senses = own.metrics.values() if isinstance(own.metrics, Mapping) and own.metrics else [None]
    if not all(sense in ("max", "min") for sense in senses) or not all(isinstance(m, str) for m in own.metrics):
        raise InputError(
            f"the metrics of a source are such as {{'accuracy': 'max'}}, but those of {name!r} are {own.metrics!r}"
        )
    if not isinstance(own.fingerprint, str) or not own.fingerprint:
        raise InputError(f"the fingerprint of a source must be a text, but that of {name!r} is {own.fingerprint!r}")
    if not callable(own.open) or not callable(getattr(own, "prepare", own.open)):
        raise InputError(f"{rule}, but open or prepare of {name!r} cannot be called")
    found: OwnSupernet = own
    return found
