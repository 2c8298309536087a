"""``nas dashboard``: optuna-dashboard on a run, live or dead, which it shows and never changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from nas.run import Run
from nas.shown_storage import ONLY_SHOWN, ShownStorage
from spaces import InputError

_LOOPBACK = ("127.0.0.1", "localhost")


class _Server(ThreadingMixIn, WSGIServer):
    """A server with a thread for each request, none of which keeps it from ending."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    """A handler that does not tell of each request."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def guarded(application: Application, host: str) -> Application:
    """Return an application that only shows, and on this machine's own address only to those who asked for it.

    Whatever would change something is answered with 403. So is, on a loopback address, a request by another name: a
    page from elsewhere could otherwise have its own name point here.

    Args:
        application: What answers the rest.
        host: Address that it is reached at.
    """
    names = {*_LOOPBACK, host}

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        name = str(environ.get("HTTP_HOST", "")).rsplit(":", 1)[0] if host in _LOOPBACK else host
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") and name in names:
            return application(environ, start)
        start("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": ONLY_SHOWN}).encode()]

    return answer


def open_server(run: Run, host: str, port: int) -> tuple[WSGIServer, str]:
    """Return a server of the dashboard of a run, which `serve_forever` starts, and where a browser finds the search.

    Args:
        run: Run.
        host: Address of this machine.
        port: Port; 0 for any that is free.

    Raises:
        InputError: If the search has not begun, optuna-dashboard is missing, or the address cannot be had.
    """
    try:
        from optuna_dashboard import wsgi  # noqa: PLC0415  # an extra, which may be missing
    except ImportError:
        raise InputError(
            "the dashboard needs optuna-dashboard, which is not installed; pip install 'spikefront[dashboard]'"
        ) from None
    storage = ShownStorage(run)
    search = storage.get_study_id_from_name("search")
    application = guarded(wsgi(storage), host)
    try:
        server = make_server(host or "-", port, application, server_class=_Server, handler_class=_Handler)
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(
            f"the dashboard must have an address of this machine and a free port, got {host!r} and {port}: "
            f"{getattr(error, 'strerror', None) or error}; choose others by --host and --port"
        ) from None
    return server, f"http://{host}:{server.server_port}/dashboard/studies/{search}"
