"""Commands on what a run has found, and on what this machine has."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nas.options import DataOption, FormatOption, JsonOption, RunArgument
from nas.printing import Format, fitting, print_frame, print_front, say_dropped
from spaces import InputError


class FileFormat(StrEnum):
    """How results are printed or written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


def front(run: RunArgument, output: FormatOption = Format.TABLE) -> None:
    """Print the Pareto front of a run, which may still be going on."""
    from nas.run import Run

    print_front(Run(run), output)


def results(
    run: RunArgument,
    study: Annotated[str, typer.Option(help="search, random, reference or test.")] = "search",
    front: Annotated[bool, typer.Option("--front", help="Only the front, also on the test split.")] = False,
    against: Annotated[Path | None, typer.Option(help="Another run folder, to compare with instead.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File to write instead; .csv, .json or .parquet.")
    ] = None,
    output: Annotated[
        FileFormat | None, typer.Option("-f", "--format", help="table by default; of a file its suffix.")
    ] = None,
) -> None:
    """Print all evaluations of a run, or write them to a file: genes, metrics, parents, workers, failures."""
    from nas.run import Run
    from nas.tabling import write_table

    if front and study != "search":
        raise InputError(f"the front is of the study search, got --front with --study {study}")
    if against is not None and (front or study != "search"):
        raise InputError("--against compares whole runs, got it with --front or --study")
    if out is None and output is FileFormat.PARQUET:
        raise InputError("Parquet is for files, got no --out")
    if out is not None and output is FileFormat.TABLE:
        raise InputError("tables are for the screen; write csv, json or parquet, or leave --out out")
    opened = Run(run)
    if against is not None:
        frame = opened.compare(Run(against))
    else:
        frame = opened.front() if front else opened.evaluations(study)
    if out is not None:
        write_table(frame, out, None if output is None else output.value)
        typer.echo(f"{out}: {len(frame)} rows")
        return
    wanted = Format((output or FileFormat.TABLE).value)
    if wanted is not Format.TABLE or against is not None:
        print_frame(frame, wanted, missing="\N{EN DASH}")
        return
    first = ["key", *opened.objectives, "generation", "state", "parents", "worker", "failure", "duration"]
    shown, dropped = fitting(frame, [*first, *(name for name in frame.columns if name not in first)])
    print_frame(shown, wanted, missing="\N{EN DASH}")
    say_dropped(dropped, "see all with -f csv")


def pick(
    run: RunArgument,
    select: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="knee; weights:0.7,0.3 or asf:0.7,0.3; bounds and a goal, as in 'accuracy>=0.9,min:energy_mj'; "
            "or a key.",
        ),
    ] = "knee",
    output: FormatOption = Format.TABLE,
) -> None:
    """Pick one architecture of a run, and show what that gives up next to its neighbours on the front."""
    from nas.run import Run

    picked = Run(run).pick(select)
    if output is Format.JSON:
        typer.echo(json.dumps(picked.to_dict(), indent=1))
        return
    print_frame(picked.frame(), output, missing="\N{EN DASH}")
    if output is Format.TABLE:
        typer.echo("\n".join(picked.describe()))


def doctor(
    data_dir: DataOption = None,
    json_: JsonOption = False,
) -> None:
    """Say what this machine has, what each missing piece costs, and how to get it; changes and downloads nothing."""
    from nas.doctor import describe, examine

    findings = examine(data_dir)
    typer.echo(json.dumps([vars(finding) for finding in findings], indent=1) if json_ else describe(findings))


COMMANDS = (front, results, pick, doctor)
