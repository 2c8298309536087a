"""Fuzzed checkpoints: refused with a reason, or loaded as they were saved; never changed."""

import hashlib
import json
import shutil
import struct

import pytest
import torch
from handed import SPACE, digests, folder, fuzz, portions, tried
from hypothesis import strategies as st
from mutations import DEEP, LONE, damaged, mutated

from spaces import SearchSpace
from supernet.checkpoint import Checkpoint, EpochRecord, load_checkpoint, save_checkpoint, weights_digest
from supernet.files import INDEX
from supernet.settings import TrainSettings
from supernet.spikformer import build_supernet

SPACE_ = SearchSpace.from_dict(SPACE)
SETTINGS = TrainSettings(epochs=2, warmup_epochs=0.2, batch_size=16)
IDENTITY = Checkpoint(9, "digits", SETTINGS, SPACE_.largest(), SPACE_.skeleton, SPACE_)


def new_pair():
    """Return a network and its optimiser."""
    model = build_supernet(SPACE_, 9, "reference")
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of a checkpoint after one of two epochs; tests only read it."""
    place = tmp_path_factory.mktemp("checkpoint")
    model, optimizer = new_pair()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    save_checkpoint(place, IDENTITY.after(EpochRecord(2.0, 0.25, 1.5)), model, optimizer)
    return place


def load_or_refuse(place):
    """Check that a checkpoint is loaded or refused, and stays what it was."""
    before = digests(place)
    model, optimizer = new_pair()
    state, why = tried(load_checkpoint, place, IDENTITY, model, optimizer)
    if why is not None:
        assert str(place) in why
    else:
        assert not (place / INDEX).is_file() or weights_digest(place)
        assert state.identity == IDENTITY.identity
        assert state.epoch == len(state.history)
        assert all(isinstance(record.loss, float) for record in state.history)
        assert isinstance(state.seconds, float | int)
        assert [p.shape for p in model.parameters()] == [p.shape for p in new_pair()[0].parameters()]
        assert [p.dtype for p in model.parameters()] == [torch.float32] * len(list(model.parameters()))
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()  # what was loaded can go on
    assert digests(place) == before


def weights_of(place):
    (path,) = place.glob("supernet-*.safetensors")
    return path


@portions(15, 250)
def test_an_index_of_changed_structure_is_loaded_or_refused(examples, saved):
    def check(values):
        with folder() as place:
            shutil.copytree(saved, place, dirs_exist_ok=True)
            (place / INDEX).write_text(json.dumps(values))
            load_or_refuse(place)

    fuzz(check, examples, values=mutated(json.loads((saved / INDEX).read_bytes()), [LONE]))


@portions(15, 250)
def test_a_checkpoint_of_changed_bytes_is_loaded_or_refused(examples, saved):
    def check(case):
        name, content = case
        with folder() as place:
            shutil.copytree(saved, place, dirs_exist_ok=True)
            if content is None:
                (place / name).unlink()
            else:
                (place / name).write_bytes(content)
            load_or_refuse(place)

    names = st.sampled_from([INDEX, weights_of(saved).name])
    whole = {path.name: path.read_bytes() for path in saved.iterdir()}
    deep = st.sampled_from([b"[" * DEEP, b'{"format":' * DEEP])
    contents = names.flatmap(
        lambda name: st.tuples(st.just(name), st.one_of(damaged(whole[name]), damaged(whole[name]), deep, st.none()))
    )
    fuzz(check, examples, case=contents)


def signed(place, blob):
    """Put other weights into a checkpoint, with a digest that agrees."""
    weights_of(place).write_bytes(blob)
    values = json.loads((place / INDEX).read_bytes())
    (place / INDEX).write_text(json.dumps({**values, "sha256": hashlib.sha256(blob).hexdigest()}))


@portions(15, 200)
def test_a_header_of_changed_structure_is_loaded_or_refused(examples, saved):
    blob = weights_of(saved).read_bytes()
    (length,) = struct.unpack("<Q", blob[:8])
    header, tensors = json.loads(blob[8 : 8 + length]), blob[8 + length :]

    def check(values):
        with folder() as place:
            shutil.copytree(saved, place, dirs_exist_ok=True)
            text = json.dumps(values).encode()
            signed(place, struct.pack("<Q", len(text)) + text + tensors)
            load_or_refuse(place)

    types = ["F16", "BF16", "F64", "I64", "I32", "U8", "BOOL", "F8_E4M3", "C64"]
    fuzz(check, examples, values=mutated(header, [LONE, *types]))


@portions(10, 150)
def test_signed_weights_of_changed_bytes_are_loaded_or_refused(examples, saved):
    blob = weights_of(saved).read_bytes()

    def check(content):
        with folder() as place:
            shutil.copytree(saved, place, dirs_exist_ok=True)
            signed(place, content)
            load_or_refuse(place)

    fuzz(check, examples, content=st.one_of(damaged(blob), damaged(blob[:2000])))


@portions(10, 150)
def test_signed_tensors_that_are_swapped_or_of_other_kinds_are_loaded_or_refused(examples, saved):
    from safetensors.torch import load, save

    whole = load(weights_of(saved).read_bytes())
    names = st.sampled_from(sorted(whole))
    kinds = {
        "swap": lambda tensors, a, b: tensors.update({a: tensors[b].clone(), b: tensors[a].clone()}),
        "drop": lambda tensors, a, b: tensors.pop(a),
        "rename": lambda tensors, a, b: tensors.update({a + "x": tensors.pop(a)}),
        "half": lambda tensors, a, b: tensors.update({a: tensors[a].half()}),
        "whole": lambda tensors, a, b: tensors.update({a: tensors[a].long()}),
        "flat": lambda tensors, a, b: tensors.update({a: tensors[a].reshape(-1).clone()}),
        "empty": lambda tensors, a, b: tensors.update({a: torch.zeros(0)}),
        "nan": lambda tensors, a, b: tensors.update({a: torch.full_like(tensors[a], float("nan"))}),
        "more": lambda tensors, a, b: tensors.update({"optimizer.999.step": torch.zeros(())}),
    }

    def check(kind, a, b):
        tensors = dict(whole)
        kinds[kind](tensors, a, b)
        with folder() as place:
            shutil.copytree(saved, place, dirs_exist_ok=True)
            signed(place, save(tensors))
            load_or_refuse(place)

    fuzz(check, examples, kind=st.sampled_from(sorted(kinds)), a=names, b=names)
