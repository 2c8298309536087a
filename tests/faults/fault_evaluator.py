"""An evaluator for fault tests: it takes its time, keeps a log of its calls, and fails as it is told to."""

import hashlib
import math
import os
import signal
import time
from pathlib import Path
from statistics import NormalDist

KINDS = ("poison", "hang", "nan", "exception", "memory")
"""Kills its process, never returns, gives no number, raises, finds no memory."""


def chance(key, salt):
    """Return a number in (0, 1) that depends on an architecture and a word only."""
    digest = hashlib.sha256(f"{salt}:{key}".encode()).digest()
    return (int.from_bytes(digest[:6], "big") + 0.5) / 2**48


def fault(key, shares):
    """Return what goes wrong with an architecture, given the share of each kind; None if nothing does."""
    at = chance(key, "fault")
    for kind in KINDS:
        at -= shares.get(kind, 0.0)
        if at < 0:
            return kind
    return None


class Faulty:
    """Effort of an architecture, with a log line ``begin`` or ``end``, key, Unix time and process at each call.

    Args:
        log: File to append to.
        seconds: Median of the log-normal durations (sigma 1).
        raising: Whether all that would go wrong raises instead, so that one process lives through it.
        poison: Share of the architectures that kill their process; likewise for the others of ``KINDS``.
    """

    metrics = {"effort": "min"}  # noqa: RUF012  # the protocol of evaluators says a plain attribute

    def __init__(
        self, log: str, seconds: float = 0.0, raising: bool = False, poison: float = 0.0, hang: float = 0.0,
        nan: float = 0.0, exception: float = 0.0, memory: float = 0.0,
    ):  # fmt: skip
        self.log, self.seconds, self.raising = Path(log), seconds, raising
        self.shares = dict(zip(KINDS, (poison, hang, nan, exception, memory), strict=True))

    def note(self, event, key):
        line = f"{event} {key} {time.time():.6f} {os.getpid()}\n".encode()
        file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(file, line)
        os.close(file)

    def __call__(self, candidate):
        key = candidate.architecture.key
        self.note("begin", key)
        time.sleep(self.seconds * math.exp(NormalDist().inv_cdf(chance(key, "seconds"))))
        kind = fault(key, self.shares)
        if kind is not None and (self.raising or kind == "exception"):
            raise ArithmeticError("as it was told to")
        if kind == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            time.sleep(3600)
        if kind == "memory":
            raise MemoryError("as it was told to")
        self.note("end", key)
        return {"effort": math.nan if kind == "nan" else chance(key, "effort")}
