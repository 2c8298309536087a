"""What a Ray worker does: it opens the job once, and scores what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ray

from nas.evaluation import Evaluation, Job, Scores, SplitName, this_process
from spaces import Genotype
from supernet.device import cap_gpu_memory


class Actor:
    """A scorer that fetches its job before its first call.

    Args:
        share: Part of a GPU that it may fill.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._scorer: Scores | None = None

    def ready(self, job: list[Any]) -> str:
        """Open the job, and return the node that this is.

        Args:
            job: Reference of the scoring job, in a list so that Ray does not fetch it for the call.
        """
        opened: Job = ray.get(job[0])
        if opened.device == "cuda" and 0 < self._share < 1:
            cap_gpu_memory(self._share)
        self._scorer = opened.open()
        return str(ray.get_runtime_context().get_node_id())

    def score(self, architectures: list[Genotype], split: SplitName) -> Iterator[Evaluation | None]:
        """Yield None when it begins, and then the evaluations of architectures that are scored together."""
        assert self._scorer is not None
        yield None
        me = this_process()
        for evaluation in self._scorer.score_together(architectures, split):
            yield replace(evaluation, worker=me)
