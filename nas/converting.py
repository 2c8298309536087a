"""An exported network in another format, as after a retraining."""

from __future__ import annotations

from pathlib import Path

from nas.export import CHECKED_IMAGES, Exported, check_target, write_export
from nas.rescoring import images_of
from supernet.pretrained import CONFIG, read_pretrained


def convert(
    source: str | Path,
    out: str | Path,
    target: str = "onnx",
    data: str | None = None,
    data_dir: str | Path | None = None,
    neuron: str | None = None,
) -> Exported:
    """Write an exported network once more in another format, with its scores and its provenance.

    Args:
        source: Folder that ``nas export`` or ``nas retrain`` wrote in Spikefront's own format.
        out: Folder, which must not exist or be empty; it appears whole or not at all.
        target: Format, a row of ``nas.export.FORMATS``.
        data: Image set that the copy is compared on; that of the export by default.
        data_dir: Folder of images; else ``SPIKEFRONT_DATA``, else a download.
        neuron: As of :meth:`supernet.spikformer.Spikformer.from_pretrained`.

    Raises:
        InputError: If the export is damaged, its images do not fit it, the folder is in use, or the format cannot
            hold the network.
    """
    pretrained = read_pretrained(source, neuron=neuron)
    check_target(Path(out), target, pretrained.network.skeleton)
    images = images_of(pretrained, str(Path(source) / CONFIG), data, data_dir)
    return write_export(out, pretrained, pretrained.normalise(images.validation.head(CHECKED_IMAGES).images), target)
