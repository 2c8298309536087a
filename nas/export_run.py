"""From an evaluated architecture of a run to a network that can be taken away."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators import DEFAULT_MODEL
from nas.export import CHECKED_IMAGES, Exported, check_target, write_export
from nas.folder import read_run
from nas.rescoring import ScoringFacts, export_facts, score_network
from nas.scoring import threads
from nas.storage import STUDIES
from supernet.checkpoint import weights_digest
from supernet.engine import Engine
from supernet.pretrained import Pretrained
from supernet.spikformer import Spikformer

if TYPE_CHECKING:
    from nas.run import Run


def export_run(run: Run, key: str, out: str | Path, target: str = "spikefront") -> Exported:
    """Write an evaluated architecture of a run as a network that others can use, scored on the test split.

    Args:
        run: Run whose supernet is trained.
        key: Key of the architecture, or how it begins.
        out: Folder, which must not exist or be empty.
        target: Format, a row of ``nas.export.FORMATS``.

    Raises:
        InputError: If the run has no such network, the folder is in use, or the format cannot hold the network.
    """
    check_target(Path(out), target, run.supernet_space.skeleton)
    network = run.load(key)
    facts = scoring_facts(run)
    data, images = run.data, run.data.validation.head(CHECKED_IMAGES).images
    assert network.normalise is not None, "run.load gives it"
    pretrained = Pretrained(network, network.normalise, network.classes)
    with threads(facts.threads):
        test = score_network(pretrained, data.name, "test", data.test, facts)
        scores: dict[str, Any] = {"test": {"images": test.images, **test.metrics()}}
        found = _recorded(run, network.architecture.key)
        if found:
            scores["validation"] = {
                "images": len(data.validation.head(run.config.scoring.validation_images)),
                **found,
            }
        told = export_facts(data, facts, scores, _provenance(run, network))
        return write_export(out, replace(pretrained, facts=told), network.normalise(images), target)


def scoring_facts(run: Run) -> ScoringFacts:
    """Return how the networks of a run are scored."""
    config, models = run.config, read_run(run.folder)["energy_models"] or {}
    passes = Engine(run.supernet(), executor="auto").images_per_pass
    return ScoringFacts(config.scoring.batch_size, passes, config.workers.threads, models)


def _recorded(run: Run, key: str) -> dict[str, float]:
    """Return the metrics that the run has recorded of an architecture on the validation split, if it has."""
    for study in STUDIES[:-1]:
        frame = run.evaluations(study)
        rows = frame[(frame["key"] == key) & (frame["state"] == "complete")]
        if len(rows):
            return {_full_name(name): float(rows.iloc[0][name]) for name in run.metrics}
    return {}


def _full_name(metric: str) -> str:
    """Return a metric's name with that of the energy model it is under, also if it is the default one."""
    return f"{metric}:{DEFAULT_MODEL}" if metric == "energy_mj" else metric


def _provenance(run: Run, network: Spikformer) -> dict[str, Any]:
    values = read_run(run.folder)
    calibrated = len(run.data.train.head(run.config.scoring.calibration_images))
    return {
        "key": network.architecture.key,
        "run": run.folder.resolve().name,
        "run_id": values["id"],
        "recipe": run.config.name,
        "space": run.supernet_space.name,
        "seed": run.config.seed,
        "weights": "inherited from the run's supernet",
        "training": asdict(run.config.training),
        "train_images": len(run.data.train),
        "supernet_sha256": weights_digest(run.folder),
        "supernet_epochs": run.config.training.epochs,
        "calibration_images": calibrated,
        "images_sha256": values["images"],
        "run_started": values["facts"]["started"],
        "run_versions": values["facts"]["versions"],
    }
