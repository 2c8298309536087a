"""Processes that train together: what they add up is what one process has alone. Threads stand in for processes."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from spaces import Architecture, Layer
from supernet.files import INDEX
from supernet.ranks import Ranks, normalised_over
from supernet.settings import TrainSettings
from supernet.spikformer import Spikformer, build_supernet
from supernet.train import train

NETWORK = Architecture(16, 2, (Layer(1.0, 2, 0.75, 2.0),))
SETTINGS = TrainSettings(epochs=2, batch_size=16, warmup_epochs=1.0, learning_rate=2e-3, mixup=0.0)
"""Without augmentation and mixup, whose generator is global: threads would draw from one."""


@pytest.mark.parametrize("images", [4, 7, 9, 16])
def test_the_parts_of_a_batch_follow_each_other_and_differ_by_one_image_at_most(images):
    shares = [Ranks(rank, 4).share(images) for rank in range(4)]
    assert [share.start for share in shares] == [0, *(share.stop for share in shares[:-1])]
    assert shares[-1].stop == images
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sum(share.weight for share in shares) == pytest.approx(1)
    assert [share.of_batch(6 * size) for share, size in zip(shares, sizes, strict=True)] == [6 * images] * 4


def test_each_process_computes_all_of_a_batch_that_is_too_small_to_be_split():
    shares = [Ranks(rank, 4).share(3) for rank in range(4)]
    assert {(share.start, share.stop, share.weight, share.joint) for share in shares} == {(0, 3, 0.25, False)}


@pytest.mark.parametrize("neuron", ["lif", "plif"])
@pytest.mark.parametrize("executor", ["auto", "reference"])
@pytest.mark.parametrize("count", [2, 3])
def test_gradients_and_statistics_of_parts_are_those_of_the_batch(
    together, make_space, make_images, enliven, executor, neuron, count
):
    """Seven images, in float64, where a spike that flips by rounding is out of the question."""
    skeleton = make_space(neuron=neuron).skeleton
    whole = enliven(Spikformer(skeleton, NETWORK, executor)).double().train()
    models = [deepcopy(whole) for _ in range(count)]
    images, weights = make_images(7).double(), torch.randn(7, 3, generator=torch.Generator().manual_seed(1)).double()
    (whole(images) * weights).mean().backward()

    def step(ranks):
        model, share = models[ranks.rank], ranks.share(7)
        part = slice(share.start, share.stop)
        with normalised_over(share):
            loss = (model(images[part]) * weights[part]).mean()
        (loss * share.weight).backward()
        ranks.add_up_gradients(model.parameters())

    together(count, step)
    for model in models:
        for name, parameter in whole.named_parameters():
            got = model.get_parameter(name).grad
            torch.testing.assert_close(got, parameter.grad, rtol=1e-8, atol=1e-10, msg=name)
        for name, buffer in whole.named_buffers():
            torch.testing.assert_close(model.get_buffer(name), buffer, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("sampling", ["single", "sandwich"])
@pytest.mark.parametrize("change", [{}, {"precision": "bfloat16"}, {"batch_size": 23}])
def test_a_training_by_three_is_that_of_one_but_for_rounding(
    together, make_space, make_data, tmp_path, sampling, change
):
    """With 47 images the last batch of 23 has one image, and is left out; the last batch of 16 is uneven."""
    space, data = make_space(), make_data(47)
    settings = replace(SETTINGS, sampling=sampling, **change)
    alone, said = [], []
    train(build_supernet(space, 0), data, settings, 3, space, report=alone.append)
    models = [build_supernet(space, 0) for _ in range(3)]

    def run(ranks):
        folder, report = tmp_path / str(ranks.rank), said.append if ranks.rank == 0 else None
        return train(models[ranks.rank], data, settings, 3, space, folder, report, ranks)

    together(3, run)
    close = {"loss": 1e-3, "accuracy": 0.05} if settings.precision == "float32" else {"loss": 2e-2}
    for name, tolerance in close.items():
        expected = [getattr(step, name) for step in alone]
        assert [getattr(step, name) for step in said] == pytest.approx(expected, abs=tolerance)
    for name, tensor in models[0].state_dict().items():
        assert torch.equal(tensor, models[1].state_dict()[name]), name
        assert torch.equal(tensor, models[2].state_dict()[name]), name
    assert [(tmp_path / str(rank) / INDEX).exists() for rank in range(3)] == [True, False, False]


def test_a_last_batch_smaller_than_the_processes_counts_once(together, make_space, make_data):
    space, data = make_space(), make_data(18)
    alone, said, models = [], [], [build_supernet(space, 0) for _ in range(3)]
    train(build_supernet(space, 0), data, SETTINGS, 3, space, report=alone.append)

    def run(ranks):
        report = said.append if ranks.rank == 0 else None
        train(models[ranks.rank], data, SETTINGS, 3, space, report=report, ranks=ranks)

    together(3, run)
    assert [step.loss for step in said] == pytest.approx([step.loss for step in alone], abs=1e-4)
    assert [step.accuracy for step in said] == [step.accuracy for step in alone]


def test_processes_that_find_different_checkpoints_refuse_to_train(together, make_space, make_data, tmp_path):
    space, data = make_space(), make_data(18)
    models = [build_supernet(space, 0) for _ in range(2)]
    train(build_supernet(space, 0), data, SETTINGS, 3, space, tmp_path / "0")

    def run(ranks):
        return train(models[ranks.rank], data, SETTINGS, 3, space, tmp_path / str(ranks.rank), ranks=ranks)

    for error in together(2, run):
        assert "must find the same checkpoint" in str(error)
        assert "file system that all machines share" in str(error)
