"""Every named space's smallest, largest and 20 random networks leave in every format that can hold them, unchanged.

The supernets are random, their normalisations fitted to noise, with gains under which all their neurons spike.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nas.agreement import compare_logits, in_double_precision
from nas.export import CONFIG, ONNX, WEIGHTS, write_export
from nas.onnx_graph import run_onnx
from spaces import InputError, load_space, space_names
from supernet.calibrate import calibrate
from supernet.data import Normalise
from supernet.extract import extract
from supernet.layers import EntangledBatchNorm
from supernet.pretrained import Pretrained
from supernet.spikformer import Spikformer, build_supernet

sys.path.append(str(Path(__file__).parents[1] / "supernet"))  # where the public class is written down
from public_class import load_public, shape_table

pytest.importorskip("onnx")

RANDOM, IMAGES = 20, 8
NAMES = [*range(RANDOM), "smallest", "largest"]
SPACES = [pytest.param(name, marks=pytest.mark.slow) if name == "auto-spikformer" else name for name in space_names()]

each_space = pytest.mark.parametrize("space", SPACES, indirect=True, scope="module")
each_network = pytest.mark.parametrize("which", NAMES, scope="module")


@pytest.fixture(scope="module")
def space(request):
    return load_space(request.param)


@pytest.fixture(scope="module")
def supernet(space):
    supernet = build_supernet(space, 0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, EntangledBatchNorm):
                module.weight.uniform_(1.0, 3.0, generator=generator)
                module.bias.uniform_(-0.5, 2.0, generator=generator)
    return supernet


def noise(skeleton, count, seed):
    shape = (count, skeleton.in_channels, skeleton.image_size, skeleton.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def pretrained(space, supernet, which):
    rng = np.random.default_rng([11, NAMES.index(which)])
    architecture = getattr(space, which)() if isinstance(which, str) else space.sample(rng)
    network = calibrate(extract(supernet, architecture), [noise(space.skeleton, IMAGES, 2)])
    channels, classes = space.skeleton.in_channels, space.skeleton.num_classes
    return Pretrained(network, Normalise((0.5,) * channels, (0.25,) * channels), tuple(map(str, range(classes))))


@pytest.fixture(scope="module")
def images(space):
    return noise(space.skeleton, IMAGES, 3)


@pytest.fixture(scope="module")
def logits(pretrained, images):
    with torch.no_grad():
        logits = pretrained.network(images)
    assert logits.std(dim=0).max() > 1e-4, "it spikes, and not on all images alike"
    return logits


@each_space
@each_network
def test_it_loads_back_to_identical_logits(pretrained, images, logits, tmp_path):
    write_export(tmp_path / "out", pretrained, images)
    with torch.no_grad():
        assert torch.equal(Spikformer.from_pretrained(tmp_path / "out")(images), logits)


@each_space
@each_network
def test_the_public_class_computes_it_where_it_can(space, pretrained, images, logits, tmp_path):
    if space.skeleton.stem_pools != (2, 3):
        with pytest.raises(InputError, match="the public class cannot compute this network: it pools behind stem"):
            write_export(tmp_path / "out", pretrained, images, "public-spikformer")
        return
    write_export(tmp_path / "out", pretrained, images, "public-spikformer")
    config, tensors = json.loads((tmp_path / "out" / CONFIG).read_text()), load_file(tmp_path / "out" / WEIGHTS)
    architecture = pretrained.network.architecture
    hidden = max(block.fc1.linear.out_features for block in pretrained.network.blocks)
    expected = shape_table(architecture.embed_dim, architecture.depth, hidden, 3, 10)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected
    public = load_public(config["constructor"], tensors, config["attributes"])
    with torch.no_grad():  # in double precision, in which no spike tips
        found, expected = public.double()(images.double()), in_double_precision(pretrained.network, images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@each_space
@each_network
def test_onnxruntime_computes_it(space, pretrained, images, logits, tmp_path):
    write_export(tmp_path / "out", pretrained, images, "onnx")
    found, _ = compare_logits(logits, run_onnx((tmp_path / "out" / ONNX).read_bytes(), images), 1e-4)
    if space.name != "auto-spikformer":  # of whose millions of neurons some are always at their threshold
        assert found.differing <= 1
