"""The average of weights by its formula, alone and through a training that is interrupted."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from spaces import Architecture, InputError, Layer
from supernet.averaging import WeightAverage, decay_at
from supernet.checkpoint import INDEX, Checkpoint, load_checkpoint
from supernet.settings import TrainSettings
from supernet.spikformer import Spikformer, build_network
from supernet.train import train

NETWORK = Architecture(16, 2, (Layer(1.0, 2, 0.75, 2.0),))
SETTINGS = TrainSettings(epochs=3, batch_size=8, warmup_epochs=0.5, learning_rate=5e-3, mixup=0.0, ema=0.6)


class StoppedError(Exception):
    """What the tests interrupt a training with."""


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in state.items())


@pytest.mark.parametrize(("step", "expected"), [(1, 2 / 11), (2, 3 / 12), (90, 0.9), (1000, 0.9)])
def test_an_average_forgets_faster_at_first(step, expected):
    assert decay_at(step, 0.9) == pytest.approx(expected)


def test_an_average_is_that_of_its_formula():
    layer = torch.nn.BatchNorm1d(2)
    average, by_hand = WeightAverage(layer, 0.5), torch.ones(2)
    for step in range(1, 20):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([step, -2.0 * step]))
            layer.running_mean.fill_(step)
            layer.num_batches_tracked.fill_(step)
        average.update(layer, step)
        decay = min(0.5, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * layer.weight.detach()
        torch.testing.assert_close(average.tensors["weight"], by_hand)
    assert average.tensors["num_batches_tracked"] == 19
    assert 17 < average.tensors["running_mean"][0] < 19
    average.give(layer)
    torch.testing.assert_close(layer.weight.detach(), by_hand)


def test_a_training_ends_with_the_average_over_its_steps(make_space, make_data):
    data, skeleton = make_data(20), make_space().skeleton
    plain, averaged = (build_network(skeleton, NETWORK, 0) for _ in range(2))
    by_hand, steps = WeightAverage(plain, SETTINGS.ema), []

    def follow(_progress):
        steps.append(1)
        by_hand.update(plain, len(steps))

    train(plain, data, replace(SETTINGS, ema=0.0), 5, report=follow)
    train(averaged, data, SETTINGS, 5)
    assert len(steps) == 9
    assert same(averaged.state_dict(), by_hand.tensors)
    assert not same(averaged.state_dict(), plain.state_dict())


def test_an_interrupted_average_goes_on(make_space, make_data, tmp_path):
    data, skeleton = make_data(20), make_space().skeleton
    whole, broken, resumed = (build_network(skeleton, NETWORK, 0) for _ in range(3))
    train(whole, data, SETTINGS, 5)

    def stop(progress):
        if progress.epoch > 1.5:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(broken, data, SETTINGS, 5, checkpoint=tmp_path, report=stop)
    assert any(name.startswith("average.") for name in load_file(tmp_path / "supernet-00001.safetensors"))
    train(resumed, data, SETTINGS, 5, checkpoint=tmp_path)
    assert same(resumed.state_dict(), whole.state_dict())
    loaded = Spikformer(skeleton, NETWORK)
    identity = Checkpoint(5, data.name, SETTINGS, NETWORK, skeleton, None)
    assert load_checkpoint(tmp_path, identity, loaded).complete
    assert same(loaded.state_dict(), whole.state_dict())


@pytest.mark.parametrize("change", [lambda t: t.popitem(), lambda t: t.update({"head.bias": torch.zeros(1)})])
def test_an_average_of_another_network_is_refused(make_space, change):
    average = WeightAverage(build_network(make_space().skeleton, NETWORK, 0), 0.5)
    tensors = dict(average.tensors)
    change(tensors)
    with pytest.raises(ValueError, match="averaged weights are not those of this network"):
        average.load(tensors)


def test_checkpoints_from_before_there_were_averages_and_parts_go_on(make_space, make_data, tmp_path):
    data, skeleton, settings = make_data(20), make_space().skeleton, replace(SETTINGS, ema=0.0)
    network = build_network(skeleton, NETWORK, 0)
    train(network, data, settings, 5, checkpoint=tmp_path)
    index = tmp_path / INDEX
    values = json.loads(index.read_text())
    assert (values["settings"].pop("ema"), values["settings"].pop("parts")) == (0.0, 0)
    index.write_text(json.dumps(values))
    again = build_network(skeleton, NETWORK, 1)
    train(again, data, settings, 5, checkpoint=tmp_path)
    assert same(again.state_dict(), network.state_dict())
    with pytest.raises(InputError, match="its settings differs"):
        train(deepcopy(again), data, SETTINGS, 5, checkpoint=tmp_path)


@pytest.mark.parametrize("ema", [-0.1, 1.0, float("nan")])
def test_a_decay_is_below_one(ema):
    with pytest.raises(InputError, match=r"training.ema must be in \[0, 1\)"):
        TrainSettings(ema=ema)


def test_a_shorter_training_has_the_same_schedule():
    whole = TrainSettings(epochs=300, warmup_epochs=30)
    short = whole.lasting(100)
    assert (short.epochs, short.warmup_epochs) == (100, 10)
    assert short.learning_rate_at(50) == pytest.approx(whole.learning_rate_at(150))
