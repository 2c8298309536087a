"""A run, as the user looks at it: evaluations, front and networks of a run folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from evaluators import EnergyModel, Sense
from nas.address import Address, parse_address
from nas.backend import Storage, open_run_storage
from nas.constraints import Constraint, parse_constraints
from nas.drivers import Driver, find_leader
from nas.folder import LINK, RUN, STORE, open_energy_models, open_recipe, read_run, recorded_senses
from nas.pick import REFERENCE_KEY, Pick, is_rule, pick
from nas.results import evaluations_frame, front_frame, hypervolume, why_empty
from nas.run_comparison import compare_runs
from nas.soundness import REFERENCE, RERANKING, WARM, check_directions, check_file, sound_attributes, sound_trials
from nas.stopping import STOPPED, Reason, why_stopped
from nas.storage import DURATION, GENERATION, KEY, STUDIES, read_architecture
from spaces import Architecture, Genotype, InputError, SearchSpace, reference_of

if TYPE_CHECKING:
    from evaluators import OperationCounts
    from nas.export import Exported
    from supernet.checkpoint import Checkpoint
    from supernet.data import ImageData
    from supernet.spikformer import Spikformer


class Run:
    """A run folder: its recipe, its supernet, and all it has evaluated.

    Args:
        folder: Folder of a run, made by :func:`nas.search` or :func:`nas.train`.
        storage: Address of its storage with a password, if it needs one that is nowhere else.

    Raises:
        InputError: If it is not the folder of a run.
    """

    def __init__(self, folder: str | Path, storage: str | Address | None = None) -> None:
        self.folder = Path(folder)
        self._given = parse_address(storage, Path.cwd()) if isinstance(storage, str) else storage
        self.config, self.space = open_recipe(self.folder)
        self._models = open_energy_models(self.folder)
        self._seen: dict[str, list[Any]] | None = None

    @property
    def objectives(self) -> dict[str, Sense]:
        """Objectives in order, each with its sense."""
        senses, names = self._senses, self.config.search.objectives
        if lost := [name for name in names if name not in senses]:
            raise InputError(f"{self.folder / RUN} must have a sense for each objective, and has none for {lost}")
        return {name: senses[name] for name in names}

    @property
    def metrics(self) -> list[str]:
        """All recorded metrics in order."""
        return list(self._senses)

    @cached_property
    def _senses(self) -> dict[str, Sense]:
        """Metrics in order, each with its sense: those that the run has recorded, else those of its evaluators."""
        recorded = recorded_senses(self.folder)
        if recorded is not None:
            return recorded
        from evaluators import is_own
        from nas.scoring import metric_senses

        if own := [name for name in self.config.metrics if is_own(name)]:
            raise InputError(
                f"to read a run imports none of its modules, but {self.folder} is from before runs kept metrics, and "
                f"has those of {own}; `nas search` with its recipe and --out {self.folder} adds them"
            )
        return metric_senses(self.config, self._models)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """Bounds on metrics that the search kept to."""
        return parse_constraints(self.config.search.constraints, self.metrics)

    @property
    def test_columns(self) -> list[str]:
        """Columns of the front that are on the test split: one per objective, none if there is no such split."""
        source, table = read_run(self.folder)["source"], self.config.table
        tested = source.get("tested") if source else table is None or table.test
        return [f"test_{name}" for name in self.objectives] if tested else []

    @property
    def energy_models(self) -> list[EnergyModel]:
        """Energy models that metrics are under, those of objectives first; a user's as it was when the run began."""
        if self.config.data is None:
            return []
        from evaluators import UnderModel, build_evaluators, is_own

        names = [name for name in self.config.metrics if not is_own(name)]  # whose modules are not imported to read
        options = {name: values for name, values in self.config.options.items() if name in names}
        built = build_evaluators(names, options, self._models).values()
        models = {name: each.energy_model for each in built if isinstance(each, UnderModel) for name in each.metrics}
        ordered = [models[name] for name in (*self.config.search.objectives, *models) if name in models]
        return list({model.name: model for model in ordered}.values())

    @cached_property
    def data(self) -> ImageData:
        """Image set of the run."""
        from nas.scoring import load_run_data

        values = read_run(self.folder)
        data = load_run_data(self.config, values["data_dir"])
        if values["images"] not in (None, data.fingerprint):
            raise InputError(f"the images of {self.folder} have changed since its search; restore them")
        return data

    def evaluations(self, study: str = "search") -> pd.DataFrame:
        """Return one row per evaluation of a study: ``search``, ``random``, ``reference`` or ``test``.

        Columns: ``number, key``, one per gene, one per metric, ``generation, parents, state, duration`` in seconds,
        ``worker``, ``failure``, ``feasible`` and ``is_pareto``; docs/runs.md says what they mean. Results that a warm
        start took are of generation 0.
        """
        if study not in STUDIES:
            raise InputError(f"a run has the studies {list(STUDIES)}, got {study!r}")
        return evaluations_frame(self._trials(study), self.space, self.metrics, self.objectives, self.constraints)

    @cached_property
    def _storage(self) -> Storage:
        if (self.folder / STORE).exists():
            check_file(self.folder / STORE)
        return open_run_storage(self.folder, self._given)

    def follow(self) -> Storage | None:
        """Return the storage of the run, from now on read as by who looks again and again; None before the search."""
        if not self._stored:
            return None
        self._storage = self._storage.cached()
        return self._storage

    def _trials(self, study: str) -> list[Any]:
        seen = {} if self._seen is None else self._seen
        if study not in seen:
            seen[study] = sound_trials(self._storage, study, self.space, self.metrics) if self._stored else []
        return seen[study]

    @contextmanager
    def reading_once(self) -> Iterator[None]:
        """Read and check each study once inside the block, whatever a search that goes on adds; for one thread."""
        before, self._seen = self._seen, {} if self._seen is None else self._seen
        try:
            yield
        finally:
            self._seen = before

    def attribute(self, name: str) -> Any:
        """Return what the search has noted under a name, or None."""
        return sound_attributes(self._storage, "search", self.objectives).get(name) if self._stored else None

    def leader(self) -> Driver | None:
        """Return which process, on whatever machine, leads a run in a store that others can reach; None without."""
        return find_leader(self._storage) if self._stored else None

    def check(self) -> None:
        """Check all that the store holds, and change nothing.

        Raises:
            InputError: If it is damaged, or has what this run does not write.
        """
        for study in STUDIES if self._stored else ():
            self._trials(study)
            check_directions(self._storage, study, self.objectives)
            sound_attributes(self._storage, study, self.objectives)

    @property
    def _stored(self) -> bool:
        """Whether there is anything in the store, which nobody opens before, lest it disturbs who creates it."""
        if (self.folder / LINK).exists():
            return True
        path = self.folder / STORE
        return "_storage" in self.__dict__ or (path.exists() and check_file(path))

    def front(self) -> pd.DataFrame:
        """Return the Pareto front, best first by the first objective; ``test_`` columns are on the test split."""
        test = self.evaluations("test") if self.test_columns else None
        return front_frame(self.evaluations(), test, self.objectives)

    def compare(self, other: Run) -> pd.DataFrame:
        """Return this run and another one side by side, a row each; see :func:`nas.run_comparison.compare_runs`."""
        return compare_runs(self, other)

    def pick(self, select: str = "knee") -> Pick:
        """Return one architecture, and what taking it gives up next to its neighbours; see :func:`nas.pick.pick`."""
        return pick(self, select)

    def key(self, select: str) -> str:
        """Return the key of what is named as for :meth:`architecture`, or picked by a rule of :meth:`pick`."""
        return self.pick(select).key if is_rule(select) else self.architecture(select).key

    @property
    def reference(self) -> dict[str, float] | None:
        """Recorded reference point of the hypervolume by objective, or None before the search."""
        found: dict[str, float] | None = self.attribute(REFERENCE)
        return found

    @property
    def warm_start(self) -> str | None:
        """What the search began with, in words; None if with nothing, or if it has not begun."""
        found: str | None = self.attribute(WARM)
        return found

    def reranking(self) -> pd.DataFrame:
        """Return how well the reranker of a search that has ended knew what it picked, one row per batch of results.

        Columns: ``scored`` (results that it had learnt from), ``batch`` (picks scored since), ``tau``
        (Kendall's tau of their expected and actual order among those of like cost), and ``aside`` (whether the
        algorithm proposed them by itself). No rows without a reranker.
        """
        return pd.DataFrame(self.attribute(RERANKING) or [], columns=["scored", "batch", "tau", "aside"])

    @property
    def stopped(self) -> Reason | None:
        """Why the search ended: ``evaluations``, ``seconds``, ``stall`` or ``exhausted``; None if it has not."""
        found: Reason | None = self.attribute(STOPPED)
        return found

    def why_stopped(self) -> str | None:
        """Return in a line after how many evaluations and why the search ended, or None if it has not."""
        if self.stopped is None:
            return None
        spent = sum(trial.user_attrs[GENERATION] > 0 for trial in self._trials("search"))
        return f"stopped after {spent} evaluations: {why_stopped(self.stopped, self.config.search)}"

    def search_seconds(self) -> float:
        """Return the seconds from the first submission of the search to its last result, pauses included."""
        trials = self._trials("search")
        started = [trial.datetime_start for trial in trials if trial.datetime_start]
        ended = [trial.datetime_complete for trial in trials if trial.datetime_complete]
        return (max(ended) - min(started)).total_seconds() if ended else 0.0

    def timeline(self) -> pd.DataFrame:
        """Return when each result of the search was asked for and came, in the order of the results.

        Columns: ``key``, ``submitted`` and ``completed`` (local time), and ``duration`` in seconds; without what a
        warm start took.
        """
        rows = [
            {
                "key": trial.user_attrs[KEY],
                "submitted": trial.datetime_start,
                "completed": trial.datetime_complete,
                "duration": trial.user_attrs.get(DURATION, 0.0),
            }
            for trial in self._trials("search")
            if trial.user_attrs[GENERATION] > 0 and trial.datetime_start and trial.datetime_complete
        ]
        frame = pd.DataFrame(rows, columns=["key", "submitted", "completed", "duration"])
        return frame.sort_values("completed", kind="stable").reset_index(drop=True)

    def hypervolume(self, study: str = "search") -> float:
        """Return the hypervolume of a study's feasible evaluations against the recorded reference, 0 without any."""
        frame = self.evaluations(study)
        points = frame.loc[frame["feasible"], list(self.objectives)].to_numpy(dtype=float)
        return hypervolume(points, self.objectives, self.reference) if self.reference else 0.0

    def why_empty(self) -> str | None:
        """Return why the search has no front, and how near it came; None if it has one, or has not begun."""
        return why_empty(self.evaluations(), self.constraints)

    @property
    def by_hand(self) -> Architecture | None:
        """The architecture that its space names to compare with; None without one, and for a table."""
        return reference_of(self.space)

    def architecture(self, key: str) -> Genotype:
        """Return the architecture of a key, of the beginning of a key that no other shares, or the ``reference``.

        Raises:
            InputError: If this run has evaluated no such architecture, or several.
        """
        return self._architectures([key])[0]

    def _architectures(self, keys: Sequence[str]) -> list[Genotype]:
        """Return architectures by keys as of :meth:`architecture`, and read the trials once."""
        evaluated = [read_architecture(trial, self.space) for study in STUDIES for trial in self._trials(study)]
        architectures, by_hand = [], self.by_hand
        if REFERENCE_KEY in keys and by_hand is None:
            raise InputError(f"a space names its reference, but that of {self.folder}, {self.space.name}, names none")
        for name in keys:
            key = by_hand.key if by_hand and name == REFERENCE_KEY else name
            found = {a.key: a for a in evaluated if key and a.key.startswith(key)}
            if len(found) != 1:
                raise InputError(
                    f"a key must name one evaluated architecture, but {name!r} names {len(found)} in {self.folder}; "
                    "`nas front` lists keys"
                )
            architectures.append(found.popitem()[1])
        return architectures

    @property
    def supernet_space(self) -> SearchSpace:
        """Search space of the run's supernet.

        Raises:
            InputError: If the run has no supernet of Spikefront's.
        """
        if self.config.data is None or not isinstance(self.space, SearchSpace):
            raise InputError(f"{self.folder} has searched {self.config.without('supernet and no networks')}")
        return self.space

    def networks(self, keys: Sequence[str]) -> list[Architecture]:
        """Return architectures by keys as of :meth:`architecture`, for the supernet to run."""
        space = self.supernet_space
        return [space.architecture(found.genes) for found in self._architectures(keys)]

    def training(self, supernet: Spikformer | None = None) -> Checkpoint:
        """Return the state of the supernet's training, and load its weights if a supernet is given."""
        from supernet.checkpoint import Checkpoint, load_checkpoint
        from supernet.spikformer import build_supernet

        config, space = self.config, self.supernet_space
        largest, images = space.largest(), config.images.name
        identity = Checkpoint(config.seed, images, config.training, largest, space.skeleton, space)
        return load_checkpoint(self.folder, identity, supernet or build_supernet(space, config.seed))

    def supernet(self) -> Spikformer:
        """Return the trained supernet, in evaluation mode.

        Raises:
            InputError: If it has not been trained to the end.
        """
        from supernet.spikformer import build_supernet

        executor = self.config.executor  # what is loaded lies in this machine's memory, not on a GPU
        supernet = build_supernet(self.supernet_space, self.config.seed, "auto" if executor == "cupy" else executor)
        state = self.training(supernet)
        if not state.complete:
            raise InputError(
                f"the supernet of {self.folder} is trained for {state.epoch} of {state.settings.epochs} epochs; "
                "finish it with `nas train` or `nas search`"
            )
        return supernet.eval()

    def operations(
        self, keys: Sequence[str], images: int | None = None, calibration: int | None = None
    ) -> dict[str, OperationCounts]:
        """Return what evaluated architectures do with validation images, counted anew as in the search, by key.

        Args:
            keys: As of :meth:`architecture`.
            images: Only so many validation images; those of the search by default.
            calibration: Only so many training images for BatchNorm; those of the search by default.

        Raises:
            InputError: If a key, the supernet or the images are not right, or the network cannot be run.
        """
        from nas.recounting import count_operations

        return count_operations(self, keys, images, calibration)

    def load(self, key: str) -> Spikformer:
        """Return an evaluated architecture as a network: inherited weights, BatchNorm calibrated, evaluation mode.

        It takes images normalised by its ``normalise``, ``(B, C, H, W)``, to logits ``(B, classes)``.
        """
        from nas.scoring import Scorer, build_job, threads

        supernet, (architecture,) = self.supernet(), self.networks([key])
        job = build_job(self.config, self.data, supernet, self._models)
        with threads(job.threads):  # as in a search on a CPU, so that it is the same network to the last bit
            subnet = Scorer(job).candidate(architecture).subnet
        subnet.normalise, subnet.classes = job.normalise, self.data.classes
        return subnet

    def export(self, key: str, out: str | Path, target: str = "spikefront") -> Exported:
        """Write an evaluated architecture as a network of its own, scored on the test split; see docs/export.md.

        Args:
            key: As of :meth:`key`.
            out: Folder, which must not exist or be empty; it appears whole or not at all.
            target: Format: ``spikefront``, ``public-spikformer`` or ``onnx``.

        Raises:
            InputError: If the run has no such network, the folder is in use, or the format cannot hold the network.
        """
        from nas.export_run import export_run

        return export_run(self, self.key(key), out, target)


def check_store(folder: Path, storage: Address | None = None) -> None:
    """Check all that the store of a run folder holds, and change nothing; errors are those of :meth:`Run.check`."""
    if (folder / RUN).is_file():
        Run(folder, storage).check()
