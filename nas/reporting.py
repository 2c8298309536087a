"""Who hears of a run that a command starts: bars, nobody or a program, and tools that log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from nas.events import Events
from nas.logs import logging_to, parse_log
from nas.progress import Bars, Reporter, Several, Silent
from spaces import InputError


@contextmanager
def reporting(quiet: bool, events: bool, logs: Sequence[str] | None, name: str) -> Iterator[Reporter]:
    """Return who hears of what happens in the block.

    Args:
        quiet: Nobody, unless they log.
        events: Whoever reads standard output, a line of JSON per event; also of what the block ended with.
        logs: Tools that log, ``TOOL:TARGET`` each.
        name: Of the run.

    Raises:
        InputError: If it is to be quiet and to write events, or a tool is none, not installed, or does not open.
    """
    if quiet and events:
        raise InputError("a command is --quiet or writes events with --json, and not both")
    for text in logs or ():
        parse_log(text)
    with ExitStack() as stack:
        first: Reporter = Events() if events else Silent() if quiet else stack.enter_context(Bars())
        opened = [stack.enter_context(logging_to(text, name, first.say)) for text in logs or ()]
        try:
            yield Several([first, *opened]) if opened else first
        except InputError as error:
            if isinstance(first, Events):
                first.write("error", {"text": " ".join(str(error).split())})
            raise
        except KeyboardInterrupt:
            if isinstance(first, Events):
                first.write("stopped", {})
            raise
