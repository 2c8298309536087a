"""Commands on single networks: those that leave their run, and those that are trained by themselves."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from nas.options import FormatOption, RunArgument, resumable
from nas.printing import Format, print_frame

FolderArgument = Annotated[Path, typer.Argument(help="Folder of an exported network.")]
NeuronOption = Annotated[
    str | None,
    typer.Option(metavar="MODULE:NAME", help="Neuron of its own that the network has, whose module is then run."),
]


def export(
    run: RunArgument,
    key: Annotated[str, typer.Argument(help="Key of an evaluated architecture, or how it begins.")],
    out: Annotated[Path, typer.Argument(help="Folder to write, new or empty.")],
    format_: Annotated[str, typer.Option("--format", help="spikefront, public-spikformer or onnx.")] = "spikefront",
) -> None:
    """Write an architecture of a run as a network of its own: weights, configuration, model card."""
    from nas.run import Run

    written = Run(run).export(key, out, format_)
    typer.echo(f"{written.folder}: {format_}; {written.check}")


def evaluate(
    out: FolderArgument,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Folder of images; else SPIKEFRONT_DATA, else a download.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Image set; that of the export by default.")] = None,
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    neuron: NeuronOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Score an exported network: accuracy, and energy under each convention."""
    from nas.rescoring import evaluate as rescore

    score = rescore(out, data, data_dir, split, neuron)
    if score.same_images is False:
        typer.echo(f"these {split} images of {score.data} are not those that the network was exported with", err=True)
    if output is not Format.TABLE:
        print_frame(score.frame(), output)
        return
    typer.echo(f"{out}: accuracy {score.accuracy:.4f} on {score.images} {split} images of {score.data}")
    print_frame(score.energies(), output)
    metrics = score.metrics()
    typer.echo(f"{metrics['spikes']:,.1f} spikes per image, {score.parameters:,} parameters, {score.macs:,} MACs")


def fidelity(
    run: RunArgument,
    subnets: Annotated[int, typer.Option(help="Architectures, spread over the front and the space.")] = 24,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each; those of the recipe by default.")] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each architecture.")] = 1,
    repeated: Annotated[
        int | None,
        typer.Option(help="Architectures trained twice, for the noise ceiling; a third by default."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that train, each another architecture.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train architectures by themselves, and say how well inherited accuracy orders them; goes on if interrupted."""
    from nas.fidelity_page import PAGE, describe
    from nas.inheritance import fidelity as measure
    from nas.progress import Bars

    with resumable(), Bars() as bars, redirect_stdout(sys.stderr):
        found = measure(run, subnets, epochs, seeds, repeated, workers, bars)
    if json_:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    for name, text in describe(found).items():
        typer.echo(f"{name}: {text}")
    typer.echo(f"picture: {run / PAGE}")


COMMANDS = (export, evaluate, fidelity)
