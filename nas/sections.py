"""The tables of a recipe, key by key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PlainValidator, model_validator

from spaces import InputError
from supernet.settings import MOST_THREADS

Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of a recipe: unknown keys are refused, and nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    """Images: which set, and how many training images of it (all by default)."""

    name: str
    train_images: Annotated[int, Field(ge=20)] | None = None


class TableConfig(Section):
    """A table of known results instead of a supernet.

    Attributes:
        file: ``.npz``, ``.csv``, ``.csv.gz`` or ``.parquet`` file, relative to the recipe or to the data folder.
        genes: Columns that make an architecture; the name of a matrix stands for all its columns.
        unordered: Those whose numbers have no meaningful order.
        metrics: Columns of results, each with its sense.
        test: Columns of the results on the test split, by the name of the metric.
    """

    file: Annotated[str, Field(min_length=1)]
    genes: Annotated[tuple[str, ...], Field(min_length=1)]
    unordered: tuple[str, ...] = ()
    metrics: Annotated[dict[str, Literal["max", "min"]], Field(min_length=1)]
    test: dict[str, str] = {}

    @model_validator(mode="after")
    def _tested_metrics_are_metrics(self) -> TableConfig:
        unknown = sorted(set(self.test) - set(self.metrics))
        if unknown:
            raise InputError(f"table.test must be among table.metrics {list(self.metrics)}, got {unknown}")
        return self


LIMITS = ("evaluations", "seconds", "stall")
"""Keys of ``search`` that end it, and that can grow in a run folder."""


class ScoringConfig(Section):
    """How candidates are scored.

    Attributes:
        calibration_images: Training images for the BatchNorm statistics of each subnet.
        validation_images: Images of the validation score, all by default.
        batch_size: Images per calibration batch.
        precision: ``exact`` products in float32, or ``bf16`` or ``int8`` ones, which can change ranks.
        cache_mb: Memory of a worker, in MiB, for activations that wait for the subnets which share them; the
            activations of the stage at work come on top.
    """

    calibration_images: Annotated[int, Field(ge=2)] = 1024
    validation_images: Positive | None = None
    batch_size: Annotated[int, Field(ge=2)] = 256
    precision: Literal["exact", "bf16", "int8"] = "exact"
    cache_mb: Annotated[int, Field(ge=0)] = 2048


MOST_EXPANDED = 1000
"""Candidates per architecture that can be asked for; each is proposed and ranked one by one."""


class SearchConfig(Section):
    """What is searched for, how, and for how long.

    Attributes:
        objectives: Metrics that the front is over, in order.
        algorithm: A row of ``nas.algorithms.ALGORITHMS``, or ``package.module:Name`` of the user's own.
        mode: ``async`` gives every free worker the next proposal at once, ``generational`` waits for the whole
            generation, and finds the same with any workers; ``auto`` is async with more than one worker.
        population: Architectures of a generation; with a reranker later ones than the first can have fewer.
        expand: Candidates per architecture of a generation, of which a reranker picks; 1 for no reranker, and
            with an algorithm of the user's own.
        evaluations: Budget.
        seconds: Wall time after which no generation begins any more.
        stall: Evaluations without an increase of the hypervolume after which none does.
        baseline: Whether random search is run with as many evaluations.
        hypervolume_reference: Worst value of each objective that counts; the source of the scores knows one.
        constraints: Bounds by ``max_`` or ``min_`` and the name of a recorded metric.
        warm_start: Run folder, or ``.json`` or ``.csv`` file of architectures, to begin with, relative to the recipe.
        fitness: Recorded metric that ``ga`` and ``qpso`` climb; without it the mean of the objectives.
    """

    objectives: Annotated[tuple[str, ...], Field(min_length=1)] = ("accuracy", "energy_mj")
    algorithm: str = "nsga2"
    mode: Literal["auto", "async", "generational"] = "auto"
    population: Annotated[int, Field(ge=2)] = 20
    expand: Annotated[int, Field(ge=1, le=MOST_EXPANDED)] = 20
    evaluations: Positive = 300
    seconds: Annotated[FiniteFloat, Field(gt=0)] | None = None
    stall: Positive | None = None
    baseline: bool = True
    hypervolume_reference: dict[str, FiniteFloat] = {}
    constraints: dict[str, FiniteFloat] = {}
    fitness: str | None = None
    warm_start: Annotated[str, Field(min_length=1)] | None = None


def _worker_count(value: Any) -> Any:
    """Return a number of workers, or ``auto``."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise InputError(f"workers.count should be greater than or equal to 1, or 'auto', got {value!r}")


class WorkersConfig(Section):
    """Who scores: this process, or Ray actors.

    Attributes:
        pool: ``local``, this process, or ``ray``.
        count: Ray actors, or ``auto`` for as many as the cluster has room for at the time.
        threads: Cores of each.
        address: Ray cluster to join, as ``auto`` or ``host:port``; without one a run starts its own here.
        timeout: Seconds that the scoring of one architecture may take; then it is tried once more, and has failed.
        runtime_env: What Ray is to bring to the actors' machines, as it takes it.
    """

    pool: Literal["local", "ray"] = "ray"
    count: Annotated[int | Literal["auto"], PlainValidator(_worker_count, json_schema_input_type=int | str)] = 2
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] = 1
    address: Annotated[str, Field(min_length=1)] | None = None
    timeout: Annotated[FiniteFloat, Field(gt=0)] | None = None
    runtime_env: dict[str, Any] = {}

    @model_validator(mode="after")
    def _this_process_stops_nothing(self) -> WorkersConfig:
        if self.pool == "local" and (self.timeout or self.address):
            key = "timeout" if self.timeout else "address"
            raise InputError(f"workers.{key} is for Ray workers, got it with pool 'local'; set workers.pool to 'ray'")
        return self
