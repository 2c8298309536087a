"""The command ``nas``."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from nas import cli_dashboard, cli_networks, cli_results
from nas.options import (
    AddressOption,
    AlgorithmOption,
    ConstraintOption,
    DataOption,
    EvaluationsOption,
    EventsOption,
    ExpandOption,
    FitnessOption,
    FormatOption,
    JoinOption,
    JsonOption,
    KeyArgument,
    LogOption,
    ModeOption,
    OutOption,
    PoolOption,
    QuietOption,
    RecipeArgument,
    RunArgument,
    SecondsOption,
    SeedOption,
    StallOption,
    StorageOption,
    TimeoutOption,
    TrainersOption,
    WarmStartOption,
    WorkersOption,
    given,
    parse_bounds,
    resumable,
    worker_count,
)
from nas.printing import Format, fitting, print_frame, print_front, say_dropped
from spaces import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spikefront {version('spikefront')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Search spiking-transformer architectures for the best trade-offs between accuracy and energy."""


@app.command()
def profile(
    space: Annotated[str | None, typer.Argument(help="Space name, .toml file or module:Name.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels instead of the space's own.")] = None,
    channels: Annotated[int | None, typer.Option(help="Channels instead of the space's own.")] = None,
    classes: Annotated[int | None, typer.Option(help="Classes instead of the space's own.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Random architectures that the medians are of.")] = 101,
    time: Annotated[bool, typer.Option("--time", help="Measure where the time goes, by kind of layer.")] = False,
    run: Annotated[Path | None, typer.Option(help="Time a run's trained supernet on its images.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="What to time: largest (the default), median, smallest, or a key of the run.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images of a call, 32 by default.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads to time on, 1 by default.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds that the median is taken of, 5 by default.")] = None,
    executor: Annotated[
        str | None, typer.Option(help="auto, native or reference; auto, or that of the run, by default.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Scoring in exact, bf16 or int8; exact, or that of the run, by default.")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show how large a space is, and what its networks cost, before anything is trained; or where the time goes."""
    chosen = given(architecture=architecture, batch=batch, threads=threads, rounds=rounds, executor=executor)
    chosen |= given(precision=precision)
    if (space is None) == (run is None):
        raise InputError("nas profile takes a space, or a run folder by --run, and not both")
    changed = given(**{"image-size": image_size}, channels=channels, classes=classes)
    if not time and (chosen or run is not None):
        raise InputError(f"{', '.join(f'--{name}' for name in [*chosen, *given(run=run)])} must go with --time")
    if run is not None and changed:
        raise InputError(f"a run has its own images, got {', '.join(f'--{name}' for name in changed)}")
    loaded: Any = None if space is None else _load_space(space, changed)
    if not time:
        _print_costs(loaded, samples, output)
        return
    from nas.profile import time_run, time_space
    from nas.run import Run
    from supernet.device import keep_large_blocks

    keep_large_blocks()  # as in a run
    timed = time_space(loaded, chosen, samples) if run is None else time_run(Run(run), chosen, samples)
    _print_times(*timed, output)


def _load_space(name: str, changed: dict[str, int]) -> Any:
    from spaces import load_space

    space = load_space(name)
    skeleton = space.skeleton
    return space.with_input(
        changed.get("image-size", skeleton.image_size),
        changed.get("channels", skeleton.in_channels),
        changed.get("classes", skeleton.num_classes),
    )


def _print_costs(space: Any, samples: int, output: Format) -> None:
    from nas.profile import profile_space

    frame = profile_space(space, samples)
    if output is Format.TABLE:
        typer.echo(f"{space.name}: {space.size:,} architectures ({space.size:.3g})")
        for name, gene in space.genes.items():
            typer.echo(f"  {name:<12} {', '.join(f'{value:g}' for value in gene.choices)}")
    print_frame(frame, output)
    if output is Format.TABLE:
        typer.echo(f"median: each column by itself, over {samples} random architectures")
        typer.echo("energy_mj: estimate at 0.2 spikes per neuron and timestep; 4.6 pJ a MAC, 0.9 pJ an accumulate")


def _print_times(frame: pd.DataFrame, facts: list[str], output: Format) -> None:
    if output is not Format.TABLE:
        print_frame(frame, output)
        return
    typer.echo(facts[0])
    shown = frame.copy()
    for name in frame.columns[1:]:
        shown[name] = (100 * frame[name]).round(1) if name.endswith("_share") else frame[name].round(2)
    shown.columns = pd.Index([name.replace("_share", " %").replace("_ms", " ms") for name in frame.columns])
    print_frame(shown, output)
    typer.echo("\n".join(facts[1:]))


@app.command()
def train(
    recipe: RecipeArgument,
    out: OutOption = None,
    data_dir: DataOption = None,
    seed: SeedOption = None,
    workers: TrainersOption = 1,
    address: AddressOption = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Go on from the folder's checkpoint, if there is one."),
    ] = True,
    quiet: QuietOption = False,
    events: EventsOption = False,
    log: LogOption = None,
) -> None:
    """Train the supernet of a recipe, or finish its training."""
    from nas import pipeline
    from nas.config import load_recipe
    from nas.events import emit
    from nas.reporting import reporting
    from supernet.files import INDEX

    name = load_recipe(recipe).name
    folder = out or pipeline.RUNS / name
    if not resume and (folder / INDEX).exists():
        raise InputError(f"{folder} already has a checkpoint, and it is never overwritten; choose another --out")
    with resumable(), reporting(quiet, events, log, name) as reporter, redirect_stdout(sys.stderr):  # as of search
        run = pipeline.train(recipe, out, data_dir, reporter, workers, address, run=given(seed=seed))
    state = run.training()
    record = state.history[-1]
    if events:
        emit("result", {"run": str(run.folder), "epochs": state.epoch, **vars(record), "seconds": state.seconds})
        return
    typer.echo(
        f"{run.folder}: {state.epoch} epochs in {state.seconds:.0f} s, loss {record.loss:.4f}, training accuracy "
        f"{record.accuracy:.4f}"
    )


@app.command()
def search(
    recipe: RecipeArgument,
    out: OutOption = None,
    data_dir: DataOption = None,
    seed: SeedOption = None,
    algorithm: AlgorithmOption = None,
    evaluations: EvaluationsOption = None,
    seconds: SecondsOption = None,
    stall: StallOption = None,
    expand: ExpandOption = None,
    constraint: ConstraintOption = None,
    fitness: FitnessOption = None,
    warm_start: WarmStartOption = None,
    mode: ModeOption = None,
    pool: PoolOption = None,
    workers: WorkersOption = None,
    address: AddressOption = None,
    timeout: TimeoutOption = None,
    storage: StorageOption = None,
    join: JoinOption = False,
    quiet: QuietOption = False,
    events: EventsOption = False,
    log: LogOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Run a recipe to its report, or finish a run that was interrupted."""
    from nas import pipeline
    from nas.config import load_recipe
    from nas.events import emit_result
    from nas.report import REPORT
    from nas.reporting import reporting

    if events and output is not Format.TABLE:
        raise InputError(
            f"--json prints events, of which the last has the front, got --format {output.value} with it"
        )
    config = load_recipe(recipe)
    bounds = None if constraint is None else {**config.search.constraints, **parse_bounds(constraint)}
    changed = given(algorithm=algorithm, evaluations=evaluations, expand=expand, seconds=seconds, stall=stall)
    changed |= given(constraints=bounds, fitness=fitness, warm_start=warm_start, mode=mode)
    scoring = given(pool=pool, count=worker_count(workers), address=address, timeout=timeout)
    with (
        resumable(),
        reporting(quiet, events, log, config.name) as reporter,
        redirect_stdout(sys.stderr),
    ):  # Ray speaks on standard output, which is for the result
        top = given(seed=seed, storage=storage)
        run = pipeline.search(config, out, data_dir, reporter, join, run=top, search=changed, workers=scoring)
    if events:
        emit_result(run)
        return
    print_front(run, output)
    if output is Format.TABLE:
        line = f"hypervolume {run.hypervolume():.4f}"
        if run.config.search.baseline:
            line += f", random search {run.hypervolume('random'):.4f}"
        typer.echo(f"{run.why_stopped()}\n{line}\nreport: {run.folder / REPORT}")


@app.command()
def status(
    run: RunArgument,
    json_: JsonOption = False,
) -> None:
    """Say how far a run is, live or dead: evaluations, rate, idle workers, failures, hypervolume, time left."""
    from nas.status import describe
    from nas.status import status as look

    found = look(run)
    typer.echo(json.dumps(found.to_dict(), indent=1) if json_ else describe(found))


@app.command()
def report(run: RunArgument) -> None:
    """Write the report of a run anew."""
    from nas.report import write_report
    from nas.run import Run

    typer.echo(write_report(Run(run)))


@app.command()
def compare(
    recipe: RecipeArgument,
    algorithms: Annotated[
        str, typer.Option(help="Names with commas between; the first is the baseline.")
    ] = "nsga2,random",
    seeds: Annotated[int, typer.Option(help="Searches per algorithm.")] = 10,
    evaluations: Annotated[int | None, typer.Option(help="Evaluations instead of the recipe's.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes on a table, one per core by default; else workers of the recipe.")
    ] = None,
    out: OutOption = None,
    level: Annotated[
        str | None, typer.Option(help="ALGORITHM:EVALUATIONS to reach; all of the first algorithm by default.")
    ] = None,
    data_dir: DataOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Compare algorithms on one problem with several seeds: hypervolume, evaluations to a level, tests, a picture."""
    from nas.compare_report import write_comparison
    from nas.comparing import compare as run_comparison
    from nas.config import load_recipe
    from nas.pipeline import RUNS
    from nas.progress import Bars

    config = load_recipe(recipe)
    names = [name.strip() for name in algorithms.split(",")]
    folder = out if out is not None else RUNS / config.name
    with resumable(), Bars() as bars, redirect_stdout(sys.stderr):  # as of search
        found = run_comparison(
            config,
            names,
            seeds,
            evaluations=evaluations,
            workers=workers,
            out=folder,
            level=level,
            data_dir=data_dir,
            reporter=bars,
        )
        page = write_comparison(found, folder)
    print_frame(found.summary, output, missing="\N{EN DASH}")
    if output is Format.TABLE:
        against = f"{found.level.algorithm} after {found.level.evaluations} evaluations"
        typer.echo(f"level {found.level_value:.4f}, the median of {against}\ncomparison: {page}")


@app.command()
def energy(
    run: RunArgument,
    key: KeyArgument,
    model: Annotated[
        list[str] | None, typer.Option(help="Energy model by name or .toml file; may be repeated. All by default.")
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="One row per model instead of one per layer.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a picture to this file.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show where the energy of an architecture goes, by layer and kind, under each energy model."""
    from nas.energy import layers_frame, load_models, models_frame, write_picture
    from nas.run import Run

    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        raise InputError(f"--html must be a file in a folder that exists, got {html}")
    opened = Run(run)
    models = load_models(model, opened.energy_models)
    ((full_key, counts),) = opened.operations([key]).items()
    table, layers, compared = output is Format.TABLE, layers_frame(counts, models), models_frame(counts, models)
    if table:
        _print_energy(full_key, counts.images, layers, compared, summary)
    else:
        print_frame(compared if summary else layers, output)
    if html is not None:
        write_picture(html, full_key, counts, models)
        typer.echo(f"picture: {html}", err=not table)


def _print_energy(key: str, images: int, layers: pd.DataFrame, compared: pd.DataFrame, summary: bool) -> None:
    """Print what fits the screen; the other formats have all columns."""
    typer.echo(f"{key}: millijoules per image by model, over {images} validation images")
    first = ["model", "energy_mj", "quantised_mj", "qnn_ratio", "break_even_rate", "dense_mj", "rate", "bits"]
    kinds = [name for name in compared.columns if name not in first]
    shown, dropped = fitting(compared, [*first, *kinds])
    if set(kinds) & set(dropped):  # a part of the kinds would pass for all of them
        shown, dropped = fitting(compared[[name for name in compared.columns if name in first]], first)
        dropped = [*kinds, *dropped]
    print_frame(shown, Format.TABLE, missing="\N{EN DASH}")
    say_dropped(dropped, "see all with --summary -f csv")
    if summary:
        return
    energies = [name for name in layers.columns if name.startswith("energy_mj:")]
    layers[energies] = (layers[energies] * 1000).map(lambda value: float(f"{value:.3g}"))
    counts, names = ["macs", "accumulates", "rate"], [name.removeprefix("energy_mj:") for name in energies]
    layers = layers[["layer", "kind", *counts, *energies]]
    layers.columns = pd.Index(["layer", "kind", *counts, *names])
    shown, dropped = fitting(layers, ["layer", names[0], "kind", *counts, *names[1:]])
    typer.echo(f"{key}: microjoules per image by layer")
    print_frame(shown, Format.TABLE)
    say_dropped(dropped, "choose by --model, or see all with -f csv")


for _command in (*cli_networks.COMMANDS, *cli_results.COMMANDS, *cli_dashboard.COMMANDS):
    app.command()(_command)


def main() -> None:
    """Run the command; wrong input is one line on standard error and exit code 2."""
    # Read when torch is loaded. Threads that spin while they wait starve whatever shares their cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.path.append(str(Path.cwd()))  # where package.module:Name of a recipe may lie
    try:
        app()
    except InputError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
