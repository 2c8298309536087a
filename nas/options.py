"""Arguments and options that commands take, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.printing import Format
from spaces import InputError

FormatOption = Annotated[Format, typer.Option("-f", "--format", help="How to print the result.")]
RecipeArgument = Annotated[str, typer.Argument(help="Recipe name, or path of a .toml file.")]
RunArgument = Annotated[Path, typer.Argument(help="Run folder.")]
KeyArgument = Annotated[str, typer.Argument(help="Key of an evaluated architecture, or how it begins.")]
SelectArgument = Annotated[
    str, typer.Argument(help="Key of an evaluated architecture, how it begins, reference, or a rule of nas pick.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Run folder; runs/<recipe> by default.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of images and tables; else SPIKEFRONT_DATA, else a download."),
]
ImagesOption = Annotated[str | None, typer.Option("--data", help="Image set; that of the export by default.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed instead of the recipe's.")]
AlgorithmOption = Annotated[str | None, typer.Option(help="Search algorithm instead of the recipe's.")]
EvaluationsOption = Annotated[int | None, typer.Option(help="Evaluations instead of the recipe's.")]
ExpandOption = Annotated[
    int | None, typer.Option(help="Candidates per architecture that is scored, for a reranker to pick from; 1: none.")
]
SecondsOption = Annotated[float | None, typer.Option(help="Seconds after which no generation begins any more.")]
StallOption = Annotated[
    int | None, typer.Option(help="Evaluations without an increase of the hypervolume after which none does.")
]
ConstraintOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Bound such as max_parameters=1e6, beside the recipe's; repeatable."),
]
FitnessOption = Annotated[str | None, typer.Option(help="Metric that ga and qpso climb.")]
WarmStartOption = Annotated[
    str | None, typer.Option(help="Run folder, or .json or .csv file of architectures, to begin with.")
]
PoolOption = Annotated[str | None, typer.Option(help="local or ray, instead of the recipe's.")]
WorkersOption = Annotated[str | None, typer.Option(help="Ray workers instead of the recipe's: a number, or auto.")]
ModeOption = Annotated[str | None, typer.Option(help="async or generational, instead of the recipe's.")]
TrainersOption = Annotated[int, typer.Option("--workers", min=1, help="Processes that train together, by Ray Train.")]
AddressOption = Annotated[str | None, typer.Option(help="Ray cluster to join: auto, or HOST:PORT.")]
TimeoutOption = Annotated[float | None, typer.Option(help="Seconds that the scoring of one architecture may take.")]
StorageOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Database URL, or journal:PATH, in place of a file in the run folder; passwords are never recorded.",
    ),
]
JoinOption = Annotated[
    bool,
    typer.Option("--join", help="Share the work of a process that is at the run, and lead it once that is gone."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result and errors, and no progress.")]
EventsOption = Annotated[
    bool, typer.Option("--json", help="Print events, a line of JSON each, of which the last is the result.")
]
LogOption = Annotated[
    list[str] | None,
    typer.Option(metavar="TOOL:TARGET", help="Also log to tensorboard:FOLDER or mlflow:URI; repeatable."),
]


@contextmanager
def resumable() -> Iterator[None]:
    """Say after a Ctrl-C inside the block how to go on, and exit with 130 as a shell would."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; all that is done is kept: go on with the same command", err=True)
        raise typer.Exit(130) from None


def worker_count(text: str | None) -> int | str | None:
    """Return the number of workers that an option gives; whatever is no number is left for the recipe's rules."""
    return int(text) if text is not None and text.isascii() and text.isdecimal() else text


def given(**values: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in values.items() if value is not None}


def parse_bounds(texts: Sequence[str]) -> dict[str, float]:
    """Return the bounds that options ``NAME=VALUE`` set, by name.

    Raises:
        InputError: If one has no name or no finite number, or two have one name.
    """
    bounds: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            bound = float(value)
        except ValueError:
            bound = math.nan
        if not name or not math.isfinite(bound):
            raise InputError(f"--constraint must be NAME=VALUE, as in max_parameters=1e6, got {text!r}")
        if name in bounds:
            raise InputError(f"--constraint must set each bound once, got {name} twice")
        bounds[name] = bound
    return bounds
