"""What a run was made with, as the table at the end of its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from nas.algorithms import ALGORITHMS
from nas.figures import evaluated
from nas.folder import read_run
from nas.page import facts_html
from nas.run import Run


def infeasible(frame: pd.DataFrame) -> int:
    """Return how many complete evaluations violate constraints."""
    return int(((frame["state"] == "complete") & ~frame["feasible"]).sum())


def facts_table(run: Run, search: pd.DataFrame, random: pd.DataFrame) -> str:
    """Return names and values of all that a run was made with, in HTML."""
    values = read_run(run.folder)
    facts = values["facts"]
    scoring = f"{search['duration'].sum():.1f} s of work for {evaluated(search)} evaluations"
    if len(random):
        scoring += f", {random['duration'].sum():.1f} s for the baseline's {len(random)}"
    rows = {
        "seed": run.config.seed,
        "space": f"{run.space.name}, {run.space.size:,} architectures",
        **_source_facts(run, values),
        **_scoring_facts(run),
        "algorithm": _algorithm_facts(run),
        **({"warm start": run.warm_start} if run.warm_start else {}),
        **({"constraints": _constraint_facts(run, search, random)} if run.constraints else {}),
        **({"end": stopped} if (stopped := run.why_stopped()) else {}),
        "workers": f"{run.config.workers.pool}, {run.config.workers.count}",
        "hypervolume reference": ", ".join(f"{n} {v:.5g}" for n, v in (run.reference or {}).items()),
        "scoring": scoring,
        "search": f"{run.search_seconds():.1f} s from the first submission to the last result",
        "started": facts["started"],
        "git revision": facts["revision"] or "none",
        "versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        "machine": f"{facts['platform']}, Python {facts['python']}, {facts['cores']} cores",
    }
    return facts_html(rows)


def _algorithm_facts(run: Run) -> str:
    search = run.config.search
    text = f"{search.algorithm}, population {search.population}"
    row = ALGORITHMS.get(search.algorithm)
    if row is None or not row.scalar or (len(search.objectives) == 1 and search.fitness is None):
        return text
    return f"{text}, climbs {search.fitness or 'the mean of the objectives'}"


def _constraint_facts(run: Run, search: pd.DataFrame, random: pd.DataFrame) -> str:
    text = f"{', '.join(map(str, run.constraints))}; violated by {infeasible(search)} of {len(search)} evaluations"
    return text + (f", by {infeasible(random)} of the baseline's {len(random)}" if len(random) else "")


def _source_facts(run: Run, values: dict[str, Any]) -> dict[str, str]:
    """Return where the scores of a run come from."""
    if run.config.source is not None:
        return {"source": f"{run.config.source}, fingerprint {(values['source'] or {}).get('fingerprint')}"}
    if run.config.table is not None:
        return {"table": f"{Path(run.config.table.file).name}, SHA-256 {values['table']}"}
    training = run.training()
    return {
        "data": run.config.images.name,
        **({"fingerprint of the images": values["images"]} if values["images"] else {}),
        "training": f"{training.epoch} epochs, {training.seconds:.1f} s",
    }


def _scoring_facts(run: Run) -> dict[str, str]:
    """Return how candidates were calibrated and scored; nothing without a supernet."""
    if run.config.data is None:
        return {}
    scoring = run.config.scoring
    images = scoring.validation_images
    return {
        "calibration": f"BatchNorm of each subnet on {scoring.calibration_images} training images, in batches of "
        f"{scoring.batch_size}",
        "validation": f"{'all' if images is None else f'the first {images}'} validation images, products in "
        f"{scoring.precision} precision",
    }
