"""The command that shows a run in a browser while it goes on."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from nas.options import RunArgument


def dashboard(
    run: RunArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to be reached at; whoever reaches it sees the run, without a password.")
    ] = "127.0.0.1",
) -> None:
    """Show a run, also one that goes on, in optuna-dashboard; the run is never changed."""
    from nas.dashboard import open_server
    from nas.run import Run

    server, address = open_server(Run(run), host, port)
    typer.echo(f"{address} shows {run}; Ctrl-C ends it")
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()


COMMANDS = (dashboard,)
