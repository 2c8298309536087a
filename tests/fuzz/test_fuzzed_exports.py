"""Fuzzed exports: refused with a reason, or networks that answer; never changed, and nothing in them is run."""

import hashlib
import json
import shutil

import pytest
import torch
from handed import SPACE, digests, folder, fuzz, portions, tried
from hypothesis import strategies as st
from mutations import LONE, damaged, mutated

import nas
from spaces import SearchSpace
from supernet.data import Normalise
from supernet.pretrained import CONFIG, WEIGHTS, Pretrained, read_pretrained
from supernet.spikformer import build_supernet

SPACE_ = SearchSpace.from_dict(SPACE)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of an export; tests only read it."""
    place = tmp_path_factory.mktemp("export")
    network, skeleton = build_supernet(SPACE_, 9, "reference").eval(), SPACE_.skeleton
    classes = tuple(map(str, range(skeleton.num_classes)))
    normalise = Normalise((0.5,) * skeleton.in_channels, (0.25,) * skeleton.in_channels)
    scoring = {"batch_size": 64, "images_per_pass": 4, "threads": 1, "energy_models": {}}
    pretrained = Pretrained(network, normalise, classes, {"data": {"name": "digits"}, "scoring": scoring})
    for name, content in pretrained.files().items():
        (place / name).write_bytes(content)
    return place


def load_or_refuse(place):
    """Check that an export is loaded or refused, and stays what it was."""
    before = digests(place)
    found, why = tried(read_pretrained, place, "reference")
    if why is not None:
        assert str(place) in why
    elif found.network.architecture.timesteps <= 16 and found.network.skeleton.image_size <= 64:
        skeleton = found.network.skeleton
        shape = (2, skeleton.in_channels, skeleton.image_size, skeleton.image_size)
        images = torch.zeros(shape, dtype=torch.uint8)
        with torch.no_grad():
            assert found.network(found.normalise(images)).shape == (2, len(found.classes))
    assert digests(place) == before


@portions(30, 500)
def test_a_configuration_of_changed_structure_is_loaded_or_refused(examples, saved):
    def check(values):
        with folder() as place:
            shutil.copytree(saved, place, dirs_exist_ok=True)
            (place / CONFIG).write_text(json.dumps(values))
            load_or_refuse(place)

    fuzz(check, examples, values=mutated(json.loads((saved / CONFIG).read_bytes()), [LONE]))


@portions(30, 500)
def test_an_export_of_changed_bytes_is_loaded_or_refused(examples, saved):
    def check(name, data):
        with folder() as place:
            shutil.copytree(saved, place, dirs_exist_ok=True)
            (place / name).write_bytes(data.draw(damaged((place / name).read_bytes())))
            load_or_refuse(place)

    fuzz(check, examples, name=st.sampled_from([CONFIG, WEIGHTS]), data=st.data())


@portions(30, 500)
def test_weights_of_changed_bytes_whose_digest_was_changed_along_are_loaded_or_refused(examples, saved):
    config = json.loads((saved / CONFIG).read_bytes())

    def check(blob):
        with folder() as place:
            digest = hashlib.sha256(blob).hexdigest()
            (place / CONFIG).write_text(json.dumps({**config, "weights_sha256": digest}))
            (place / WEIGHTS).write_bytes(blob)
            load_or_refuse(place)

    fuzz(check, examples, blob=damaged((saved / WEIGHTS).read_bytes()))


@portions(15, 200)
def test_facts_of_changed_structure_are_scored_or_refused(examples, saved):
    config = json.loads((saved / CONFIG).read_bytes())

    def check(scoring, data):
        with folder() as place:
            shutil.copytree(saved, place, dirs_exist_ok=True)
            (place / CONFIG).write_text(json.dumps({**config, "scoring": scoring, "data": data}))
            found, why = tried(nas.evaluate, place)
            assert why is not None or 0 <= found.accuracy <= 1

    fuzz(check, examples, scoring=mutated(config["scoring"], [LONE]), data=mutated({"name": "digits"}, ["mnist"]))
