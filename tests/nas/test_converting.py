"""An export in another format: the same network, with all that is known of it, and the original as it was."""

import json
import shutil

import numpy as np
import pytest
import torch

import nas
from nas.export import CARD, ONNX
from nas.onnx_graph import run_onnx
from spaces import InputError
from supernet.data import load_data
from supernet.pretrained import CONFIG, FACTS, read_pretrained

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converting") / "original"
    finished.export(finished.front().iloc[0].key, folder)
    return folder


@pytest.mark.parametrize("target", ["onnx", "spikefront"])
def test_it_is_the_same_network_with_the_same_facts(target, exported, command, snapshot, tmp_path):
    before, out = snapshot(exported), tmp_path / "other"
    code, printed, err = command("convert", exported, out, "--format", target)
    assert code == 0, err
    assert printed.startswith(f"{out}: {target}; ")
    assert snapshot(exported) == before
    ours, theirs = (json.loads((folder / CONFIG).read_text()) for folder in (exported, out))
    assert {name: theirs[name] for name in FACTS} == {name: ours[name] for name in FACTS}
    assert target in (out / CARD).read_text().lower() or target == "spikefront"


def test_the_onnx_file_of_trained_weights_answers_as_they_do(exported, tmp_path):
    nas.retrain(exported, tmp_path / "again", epochs=1)
    (trained,), out = (tmp_path / "again").glob("seed-*"), tmp_path / "onnx"
    written = nas.convert(trained, out)
    assert written.folder == out
    pretrained, test = read_pretrained(trained), load_data("digits").test.head(100)
    images = pretrained.normalise(test.images)
    with torch.no_grad():
        expected = pretrained.network(images).argmax(dim=1).numpy()
    found = run_onnx((out / ONNX).read_bytes(), images).argmax(dim=1).numpy()
    assert np.mean(found == expected) > 0.97
    assert not np.array_equal(expected, read_pretrained(exported).network(images).argmax(dim=1).numpy())


def test_what_cannot_be_done_is_refused_before_anything_is_read(exported, command, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("x")
    assert command("convert", exported, taken)[0] == 2
    assert (taken / "mine").read_text() == "x"
    with pytest.raises(InputError, match="the public class cannot compute this network: it pools behind"):
        nas.convert(exported, tmp_path / "new", "public-spikformer")
    with pytest.raises(InputError, match="format must be one of"):
        nas.convert(exported, tmp_path / "new", "torchscript")
    for name, message in (("cifar", "data must be one of"), (None, "does not say which images it is for, got None")):
        with pytest.raises(InputError, match=message):
            nas.convert(nameless(exported, tmp_path), tmp_path / "new", data=name)
    assert not (tmp_path / "new").exists()


def nameless(exported, tmp_path):
    """Return a copy of an export that does not say which images it is for."""
    copy = tmp_path / "nameless"
    shutil.copytree(exported, copy, dirs_exist_ok=True)
    values = json.loads((copy / CONFIG).read_text())
    del values["data"]["name"]
    (copy / CONFIG).write_text(json.dumps(values))
    return copy
