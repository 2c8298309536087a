"""Calibration of BatchNorm: cumulative averages of the given images, and nothing else."""

import pytest
import torch
import torch.nn.functional as F

from spaces import Architecture, Layer
from supernet.calibrate import calibrate
from supernet.extract import extract
from supernet.layers import EntangledBatchNorm

MIXED = Architecture(16, 2, (Layer(0.5, 4, 0.75, 3.0), Layer(2.0, 1, 0.5, 2.0)))


@pytest.fixture
def subnet(make_space, lively_supernet):
    return extract(lively_supernet(make_space()), MIXED)


def norms(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, EntangledBatchNorm)}


def statistics(model):
    return {
        name: (norm.running_mean.clone(), norm.running_var.clone(), norm.num_batches_tracked.item())
        for name, norm in norms(model).items()
    }


def test_the_first_stage_has_the_averages_of_its_batches_computed_by_hand(subnet, make_images):
    batches = [make_images(count, seed=count) * count for count in (4, 2, 3)]
    calibrate(subnet, batches)
    first = subnet.stem.stages[0]
    currents = [F.conv2d(batch, first.conv.weight.detach(), padding=1) for batch in batches]
    means = torch.stack([current.mean((0, 2, 3)) for current in currents])
    variances = torch.stack([current.var((0, 2, 3), correction=1) for current in currents])
    torch.testing.assert_close(first.bn.running_mean, means.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first.bn.running_var, variances.mean(0), rtol=1e-5, atol=1e-6)


def test_one_batch_makes_evaluation_give_what_training_gave(subnet, make_images):
    """With the statistics of exactly these images; biased and unbiased variance differ, hence the double batch."""
    images = make_images(16)
    calibrate(subnet, [images])
    for norm in norms(subnet).values():
        assert norm.num_batches_tracked == 1
    seen = {}
    first = subnet.stem.stages[0]
    first.bn.register_forward_hook(lambda _m, _i, out: seen.update(out=out))
    subnet(images)
    normalised = (seen["out"] - first.bn.bias.view(1, -1, 1, 1)) / first.bn.weight.view(1, -1, 1, 1)
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.var((0, 2, 3)), torch.ones(2), atol=1e-3, rtol=0)


def test_statistics_depend_on_nothing_but_the_images_given(subnet, make_images, make_space, lively_supernet):
    other = extract(lively_supernet(make_space()), MIXED)
    for norm in norms(other).values():  # another past
        norm.running_mean.fill_(7.0)
        norm.running_var.fill_(9.0)
        norm.num_batches_tracked.fill_(41)
    batches = [make_images(4, seed=seed) for seed in range(3)]
    first, second = statistics(calibrate(subnet, batches)), statistics(calibrate(other, batches))
    for name, (mean, var, tracked) in first.items():
        assert torch.equal(second[name][0], mean)
        assert torch.equal(second[name][1], var)
        assert second[name][2] == tracked == 3


def test_other_images_give_other_statistics(subnet, make_images):
    first = statistics(calibrate(subnet, [make_images(4, seed=0)]))
    second = statistics(calibrate(subnet, [3 * make_images(4, seed=1)]))
    assert all(not torch.equal(first[name][0], second[name][0]) for name in first)


def test_calibrating_twice_is_calibrating_once(subnet, make_images):
    batches = [make_images(4, seed=seed) for seed in range(3)]
    first, second = statistics(calibrate(subnet, batches)), statistics(calibrate(subnet, batches))
    assert all(torch.equal(first[name][0], second[name][0]) for name in first)
    assert all(torch.equal(first[name][1], second[name][1]) for name in first)


def test_batches_may_be_a_generator_and_are_read_once(subnet, make_images):
    read = []

    def batches():
        for seed in range(3):
            read.append(seed)
            yield make_images(4, seed=seed)

    calibrate(subnet, batches())
    assert read == [0, 1, 2]
    assert subnet.stem.stages[0].bn.num_batches_tracked == 3


def test_momentum_is_left_as_it_was_and_weights_too(subnet, make_images):
    norms(subnet)["stem.position.bn"].momentum = 0.3
    momenta = {name: norm.momentum for name, norm in norms(subnet).items()}
    weights = {name: parameter.clone() for name, parameter in subnet.named_parameters()}
    calibrate(subnet, [make_images(4)])
    assert {name: norm.momentum for name, norm in norms(subnet).items()} == momenta
    assert momenta["stem.position.bn"] == 0.3
    assert set(momenta.values()) == {0.1, 0.3}
    for name, parameter in subnet.named_parameters():
        assert torch.equal(parameter, weights[name])
        assert parameter.grad is None


def test_the_subnet_itself_comes_back_in_evaluation_mode(subnet, make_images):
    assert calibrate(subnet.train(), [make_images(4)]) is subnet
    assert not any(module.training for module in subnet.modules())


def test_evaluation_after_calibration_never_looks_at_the_batch(subnet, make_images):
    calibrate(subnet, [make_images(4)]).double()
    before = statistics(subnet)
    images = make_images(5, seed=3).double()
    together = subnet(images)
    for index in range(5):
        torch.testing.assert_close(subnet(images[index : index + 1])[0], together[index], rtol=0, atol=1e-9)
    crowd = torch.cat([images[:1], 50 + 10 * make_images(6, seed=4).double()])
    torch.testing.assert_close(subnet(crowd)[0], together[0], rtol=0, atol=1e-9)
    after = statistics(subnet)
    assert all(torch.equal(after[name][0], before[name][0]) for name in before)
    assert all(after[name][2] == before[name][2] for name in before)


def test_calibrating_a_copy_leaves_the_supernet_as_it_is(make_space, lively_supernet, make_images, global_states):
    supernet = lively_supernet(make_space())
    kept, states = {name: t.clone() for name, t in supernet.state_dict().items()}, global_states()
    calibrate(extract(supernet, MIXED), [make_images(4)])
    assert all(torch.equal(supernet.state_dict()[name], tensor) for name, tensor in kept.items())
    assert global_states() == states


def test_calibration_changes_what_a_subnet_answers(subnet, make_images):
    before = subnet(make_images())
    assert not torch.allclose(calibrate(subnet, [make_images(4, seed=1)])(make_images()), before)


def test_calibration_keeps_no_gradient_graph(subnet, make_images):
    outputs = []
    subnet.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    calibrate(subnet, [make_images(4)])
    assert [out.requires_grad for out in outputs] == [False]


def test_calibration_without_images_is_refused(subnet):
    with pytest.raises(ValueError, match="at least one batch of training images, got none"):
        calibrate(subnet, [])
