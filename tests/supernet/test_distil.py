"""Distillation: its loss by hand, what a step learns from it, and that it helps."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from spaces import Architecture, InputError, Layer
from supernet.data import Normalise, Split
from supernet.distil import Distillation, soft_loss
from supernet.settings import TrainSettings
from supernet.spikformer import build_network
from supernet.train import train

NETWORK = Architecture(16, 2, (Layer(1.0, 2, 0.75, 2.0),))
ONE_STEP = TrainSettings(epochs=1, batch_size=64, warmup_epochs=0, mixup=0.0, label_smoothing=0.0, clip_norm=0.0)


@pytest.fixture
def networks(make_space, enliven):
    """A network that learns, and its teacher."""
    skeleton = make_space().skeleton
    student, teacher = (enliven(build_network(skeleton, NETWORK, seed)) for seed in (0, 1))
    return student, teacher.eval()


def softmax(values):
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_is_the_divergence_by_hand(temperature):
    logits, answers = [[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], [[2.0, 0.0, -1.0], [0.5, 0.5, 1.0]]
    total = 0.0
    for mine, theirs in zip(logits, answers, strict=True):
        q, p = ([*softmax([value / temperature for value in row])] for row in (mine, theirs))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    found = soft_loss(torch.tensor(logits), torch.tensor(answers), temperature)
    assert found.item() == pytest.approx(temperature**2 * total / 2, rel=1e-5)


def test_whoever_answers_like_its_teacher_has_no_loss():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert soft_loss(logits, logits + 2, 2.0).item() == pytest.approx(0, abs=1e-6)  # a shift is no other answer


def test_a_hot_teacher_pulls_like_the_difference_of_logits():
    """In the limit the gradient is the difference of centred logits over classes, whatever the temperature."""
    generator = torch.Generator().manual_seed(0)
    logits, answers = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    torch.autograd.backward(soft_loss(logits, answers, 1e4))
    centred = [values - values.mean(dim=1, keepdim=True) for values in (logits.detach(), answers)]
    torch.testing.assert_close(logits.grad, (centred[0] - centred[1]) / 3 / 5, rtol=1e-3, atol=1e-6)


def test_a_step_learns_from_labels_and_teacher_by_their_shares(networks, make_data):
    (student, teacher), data = networks, make_data(24)
    before, seen = deepcopy(student).train(), []
    train(student, data, ONE_STEP, 0, report=seen.append, distillation=Distillation(teacher, 0.3, 2.0))
    images = Normalise(*data.moments)(data.train.images)
    logits = before(images)
    hard = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.train.labels))
    loss = 0.7 * hard + 0.3 * soft_loss(logits, teacher(images).detach(), 2.0)
    assert seen[0].loss == pytest.approx(loss.item(), rel=1e-5)
    torch.autograd.backward(loss)
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.grad, before.get_parameter(name).grad, rtol=1e-3, atol=1e-5, msg=name)


def test_a_teacher_is_only_read(networks, make_data):
    (student, teacher), data = networks, make_data(24)
    before = deepcopy(teacher.state_dict())
    train(student, data, ONE_STEP, 0, distillation=Distillation(teacher))
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_believes_its_teacher_rather_than_wrong_labels(networks, make_data):
    (student, teacher), data = networks, make_data(48)
    settings = TrainSettings(epochs=25, batch_size=16, warmup_epochs=1, learning_rate=1e-2, mixup=0.0)
    train(teacher, data, settings, 0)
    wrong = replace(data, train=Split(data.train.images, (data.train.labels + 1) % 3))
    taught, untaught, losses = deepcopy(student), deepcopy(student), []
    train(taught, wrong, settings, 0, report=lambda p: losses.append(p.loss), distillation=Distillation(teacher, 1.0))
    train(untaught, wrong, settings, 0)
    images = Normalise(*data.moments)(data.train.images)
    with torch.no_grad():
        answers, with_, without = (each(images).argmax(dim=1) for each in (teacher, taught, untaught))
    assert (answers == torch.from_numpy(data.train.labels)).float().mean() > 0.9
    assert losses[-1] < losses[2] / 2
    assert (with_ == answers).float().mean() > 0.9 > 0.1 > (without == answers).float().mean()


@pytest.mark.parametrize(
    ("share", "temperature", "message"),
    [
        (1.1, 2.0, "share of distillation must be in"),
        (float("nan"), 2.0, "share of distillation"),
        (0.5, 0.0, "temperature of distillation must be above 0, got 0.0"),
        (0.5, float("inf"), "temperature"),
    ],
)
def test_shares_and_temperatures_out_of_range_are_refused(networks, share, temperature, message):
    with pytest.raises(InputError, match=message):
        Distillation(networks[1], share, temperature)
