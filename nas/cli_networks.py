"""Commands on single networks: those that leave their run, and those that are trained by themselves."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from nas.options import (
    AddressOption,
    DataOption,
    EventsOption,
    FormatOption,
    ImagesOption,
    QuietOption,
    RunArgument,
    SelectArgument,
    TrainersOption,
    given,
    resumable,
)
from nas.printing import Format, print_frame

FolderArgument = Annotated[Path, typer.Argument(help="Folder of an exported network.")]
OutArgument = Annotated[Path, typer.Argument(help="Folder to write, new or empty.")]
FormatOfExport = Annotated[str, typer.Option("--format", help="spikefront, public-spikformer or onnx.")]
NeuronOption = Annotated[
    str | None,
    typer.Option(metavar="MODULE:NAME", help="Neuron of its own that the network has, whose module is then run."),
]


def export(
    run: RunArgument,
    key: SelectArgument,
    out: OutArgument,
    format_: FormatOfExport = "spikefront",
) -> None:
    """Write an architecture of a run as a network of its own: weights, configuration, model card."""
    from nas.run import Run

    written = Run(run).export(key, out, format_)
    typer.echo(f"{written.folder}: {format_}; {written.check}")


def convert(
    folder: FolderArgument,
    out: OutArgument,
    format_: FormatOfExport = "onnx",
    data: ImagesOption = None,
    data_dir: DataOption = None,
    neuron: NeuronOption = None,
) -> None:
    """Write an exported network, retrained perhaps, in another format."""
    from nas.converting import convert as rewrite

    written = rewrite(folder, out, format_, data, data_dir, neuron)
    typer.echo(f"{written.folder}: {format_}; {written.check}")


def evaluate(
    out: FolderArgument,
    data_dir: DataOption = None,
    data: ImagesOption = None,
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
    quiet: QuietOption = False,
    events: EventsOption = False,
) -> None:
    """Train architectures by themselves, and say how well inherited accuracy orders them; goes on if interrupted."""
    from nas.events import emit
    from nas.fidelity_page import PAGE, describe
    from nas.inheritance import fidelity as measure
    from nas.reporting import reporting

    with resumable(), reporting(quiet, events, None, run.name) as reporter, redirect_stdout(sys.stderr):
        found = measure(run, subnets, epochs, seeds, repeated, workers, reporter)
    if events:
        emit("result", {"run": str(run), **found.to_dict()})
        return
    for name, text in describe(found).items():
        typer.echo(f"{name}: {text}")
    typer.echo(f"picture: {run / PAGE}")


def retrain(
    out: FolderArgument,
    to: Annotated[Path | None, typer.Option(help="Folder of the new exports; OUT-retrained by default.")] = None,
    from_: Annotated[str, typer.Option("--from", help="Weights to start from: scratch or inherited.")] = "scratch",
    distil: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run whose supernet's largest network teaches.")
    ] = None,
    share: Annotated[float, typer.Option(help="What the teacher counts beside the labels, in [0, 1].")] = 0.5,
    temperature: Annotated[float, typer.Option(help="What softens the answers of both.")] = 2.0,
    epochs: Annotated[int | None, typer.Option(help="Epochs; those of the recipe by default.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the average of the weights, as 0.999.")] = None,
    mixup: Annotated[float | None, typer.Option(help="Concentration of mixup instead of the recipe's.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16, instead of the recipe's.")] = None,
    seeds: Annotated[int, typer.Option(help="Trainings, each with a seed of its own.")] = 1,
    workers: TrainersOption = 1,
    address: AddressOption = None,
    data: ImagesOption = None,
    data_dir: DataOption = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of the training; that of the network's supernet by default.")
    ] = None,
    neuron: NeuronOption = None,
    quiet: QuietOption = False,
    events: EventsOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Train the architecture of an exported network by itself, and export it again; goes on if interrupted."""
    from evaluators import DEFAULT_MODEL
    from nas.events import emit
    from nas.reporting import reporting
    from nas.retraining import retrain as train_again

    with resumable(), reporting(quiet, events, None, out.name) as reporter, redirect_stdout(sys.stderr):
        found = train_again(
            out,
            to,
            from_,
            distil=distil,
            share=share,
            temperature=temperature,
            epochs=epochs,
            seeds=seeds,
            workers=workers,
            address=address,
            data=data,
            data_dir=data_dir,
            recipe=recipe,
            neuron=neuron,
            reporter=reporter,
            **given(ema=ema, mixup=mixup, precision=precision),
        )
    frame, summary = found.frame(), found.summary()
    if events:
        emit("result", {"run": str(found.folder), "networks": frame.to_dict(orient="records"), **summary})
        return
    if output is not Format.TABLE:
        print_frame(frame, output)
        return
    print_frame(frame[["seed", "accuracy", "validation_accuracy", f"energy_mj:{DEFAULT_MODEL}", "network"]], output)
    typer.echo(
        f"test accuracy {summary['mean']:.4f}, deviation {summary['std']:.4f}, from {summary['lowest']:.4f} to "
        f"{summary['highest']:.4f} over {len(frame)} seed(s)"
    )


COMMANDS = (export, evaluate, convert, fidelity, retrain)
