"""Work on a range of rows, shared out over torch's number of threads; compiled kernels run without the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def split(run: Callable[[int, int], None], rows: int, least: int = 1) -> None:
    """Call ``run(first, stop)`` on ranges that cover ``[0, rows)``, side by side on ``torch.get_num_threads()``.

    With one thread, or one range, the caller runs it itself. The first failure is raised once all ranges are done.

    Args:
        run: Work on the rows from ``first`` to ``stop``; must not depend on what the other ranges do.
        rows: Number of rows, 0 or more.
        least: Fewest rows worth a thread of their own, 1 or more.
    """
    threads = torch.get_num_threads()
    parts = max(1, min(threads, rows // max(1, least)))
    bounds = [rows * part // parts for part in range(parts + 1)]
    if parts == 1:
        run(0, rows)
        return
    others = [_pool(threads).submit(run, bounds[part], bounds[part + 1]) for part in range(1, parts)]
    failure: BaseException | None = None
    try:
        run(0, bounds[1])
    finally:
        for other in others:
            failure = failure or other.exception()
    if failure is not None:
        raise failure


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="spikefront-native")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has the pool, but not its threads
