"""The README of an exported network: what it is, what it scores, what it costs, where it is from, how to use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluators import DEFAULT_MODEL, EnergyModel, energy_model_names, load_energy_model, parse_energy_model
from supernet.pretrained import Pretrained

_ENERGY = "energy_mj"

_USE = {
    "spikefront": """\
```python
import torch

from supernet.spikformer import Spikformer

network = Spikformer.from_pretrained({folder!r}{neuron})
images = torch.zeros(1, {channels}, {size}, {size}, dtype=torch.uint8)  # your images, pixels 0 to 255
logits = network(network.normalise(images))
print(network.classes[logits.argmax(dim=1)[0]])
```

`nas evaluate DIR{option}`, DIR being this folder, scores it again, by default on the images it was exported with.
""",
    "public-spikformer": """\
`model.safetensors` is a state of the class `Spikformer` of github.com/ZK-Zhou/spikformer, `cifar10/model.py`. What
its constructor does not take is in `config.json`, by the path of the attribute:

```python
import json
from pathlib import Path

from model import Spikformer  # theirs
from safetensors.torch import load_file

config = json.loads(Path("config.json").read_text())
network = Spikformer(**config["constructor"])
network.load_state_dict(load_file("model.safetensors"), strict=True)
for path, value in config["attributes"].items():
    owner, _, name = path.rpartition(".")
    setattr(network.get_submodule(owner), name, value)
network.eval()
```

It takes pixels in [0, 1], normalised per channel by `normalisation` of `config.json`. Its neurons remember: reset
them before every batch, by `reset_net` of their library.
""",
    "onnx": """\
`model.onnx` maps `images`, float32 `(batch, {channels}, {size}, {size})`, to `logits`. It is unrolled over its
timesteps, and takes pixels in [0, 1], normalised per channel:

```python
import json
from pathlib import Path

import numpy as np
import onnxruntime

config = json.loads(Path("config.json").read_text())
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
pixels = np.zeros((1, {channels}, {size}, {size}), dtype=np.float32)  # your images, pixels in [0, 1]
mean, std = (np.array(config["normalisation"][name], np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std"))
(logits,) = session.run(None, {{"images": (pixels - mean) / std}})
print(config["classes"][logits.argmax(axis=1)[0]])
```
""",
}
"""How to use a network, by format."""


def write_card(pretrained: Pretrained, target: str, check: str) -> str:
    """Return a model card in Markdown.

    Args:
        pretrained: Network with its facts; what these do not say, the card does not.
        target: Format, a row of ``nas.export.FORMATS``.
        check: How the files agree with the network, in words.
    """
    skeleton, architecture = pretrained.network.skeleton, pretrained.network.architecture
    data = pretrained.facts.get("data", {}).get("name")
    neuron = skeleton.neuron if ":" in skeleton.neuron else ""
    use = _USE[target].format(
        folder="DIR",
        neuron=f", neuron={neuron!r}" if neuron else "",
        option=f" --neuron {neuron}" if neuron else "",
        channels=skeleton.in_channels,
        size=skeleton.image_size,
    )
    layers = [
        [str(index), *(f"{getattr(layer, gene):g}" for gene in ("mlp_ratio", "num_heads", "v_threshold", "tau"))]
        for index, layer in enumerate(architecture.layers)
    ]
    parts = [
        f"# Spikformer {architecture.key}",
        f"A spiking transformer that tells apart {len(pretrained.classes)} classes"
        f"{f' of {_text(data)}' if data else ''}: depth {architecture.depth}, width {architecture.embed_dim}, "
        f"timesteps {architecture.timesteps}. Format: `{target}`.",
        "## Scores",
        *_scores(pretrained.facts.get("scores", {}), pretrained.facts.get("scoring", {})),
        "## Use",
        use.strip(),
        f"Checked when it was written: {check}.",
        "## Architecture",
        f"Images of {skeleton.in_channels} x {skeleton.image_size} x {skeleton.image_size} values; pooling behind "
        f"stem stages {list(skeleton.stem_pools)}; {_text(skeleton.neuron)} neurons with "
        f"{'soft' if skeleton.soft_reset else 'hard'} reset. The stem has threshold and time constant of block 0.",
        _table(["block", "mlp_ratio", "num_heads", "v_threshold", "tau"], layers),
        f"Classes: {', '.join(map(_text, pretrained.classes))}.",
        f"Normalisation: mean {_numbers(pretrained.normalise.mean)}, deviation {_numbers(pretrained.normalise.std)}.",
    ]
    if pretrained.facts.get("provenance"):
        parts += ["## Provenance", _table(["what", "value"], _flat(pretrained.facts["provenance"]))]
    return "\n\n".join(parts) + "\n"


def _scores(scores: Mapping[str, Any], scoring: Mapping[str, Any]) -> list[str]:
    """Return a table of the scores with a column per split, and one of the energies with a row per convention."""
    if not scores:
        return ["It has not been scored."]
    splits = list(scores)
    names = list(dict.fromkeys(name for split in splits for name in scores[split]))
    default = f"{_ENERGY}:{DEFAULT_MODEL}"
    plain = [name for name in names if not name.startswith(f"{_ENERGY}:")]
    rows = [[f"`{_text(name)}`", *(_number(scores[split].get(name)) for split in splits)] for name in plain]
    found = [_table(["", *splits], rows)]
    if default in names:
        found.append("Millijoules per image; each convention counts and prices operations in its own way:")
        models = {model.name: model for model in _models(scoring.get("energy_models", {}))}
        rows = [
            [
                f"`{_text(name.partition(':')[2])}`",
                *(_number(scores[split].get(name)) for split in splits),
                _text(models[model].title) if (model := name.partition(":")[2]) in models else "",
            ]
            for name in names
            if name.startswith(f"{_ENERGY}:")
        ]
        found.append(_table(["model", *splits, "what it counts"], rows))
    return found


def _models(own: Mapping[str, Any]) -> list[EnergyModel]:
    return [
        *(load_energy_model(name) for name in energy_model_names()),
        *(parse_energy_model(name, table, name) for name, table in own.items()),
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _flat(values: Mapping[str, Any]) -> list[list[str]]:
    """Return rows of names and values; tables as lists."""
    rows = []
    for name, value in values.items():
        listed = isinstance(value, Mapping)
        shown = ", ".join(f"{key} {each}" for key, each in value.items() if each is not None) if listed else value
        if shown not in (None, ""):
            rows.append([f"`{_text(name)}`", _text(str(shown))])
    return rows


def _number(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _text(text: str) -> str:
    """Return text that stays text in a cell of a Markdown table."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
