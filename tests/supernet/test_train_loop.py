"""The training loop: against one written by hand, deterministic, resumable, and able to learn."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from spaces import Architecture, InputError, Layer
from supernet.checkpoint import Checkpoint, load_checkpoint
from supernet.data import Normalise
from supernet.sampling import SAMPLING
from supernet.settings import TrainSettings
from supernet.spikformer import Spikformer, build_supernet
from supernet.train import train

QUICK = TrainSettings(epochs=4, batch_size=16, warmup_epochs=1.0, learning_rate=5e-3)
NETWORK = Architecture(16, 2, (Layer(1.0, 2, 0.75, 2.0),))
SMALL_GENES = {
    "embed_dim": [8, 16],
    "timesteps": [1, 2],
    "depth": [1, 2],
    "mlp_ratio": [1.0, 2.0],
    "num_heads": [1, 2],
}


class StoppedError(Exception):
    """What the tests interrupt a training with."""


def same(model, other):
    state = other.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def softmax_cross_entropy(logits, targets):
    return -(targets * (logits - logits.logsumexp(dim=1, keepdim=True))).sum(dim=1).mean()


def smoothed(labels, classes, smoothing):
    one_hot = torch.zeros(len(labels), classes)
    one_hot[torch.arange(len(labels)), torch.as_tensor(labels)] = 1
    return (1 - smoothing) * one_hot + smoothing / classes


# --- against a loop by hand


@pytest.mark.parametrize("clip_norm", [0.0, 0.05])
def test_training_equals_a_loop_written_by_hand(make_space, make_data, enliven, clip_norm):
    """Whole-set batches make the order irrelevant; AdamW [Loshchilov2019] is written out."""
    data, space = make_data(24), make_space()
    network = enliven(Spikformer(space.skeleton, NETWORK))
    by_hand = deepcopy(network).train()
    settings = TrainSettings(
        epochs=5,
        batch_size=64,
        learning_rate=2e-3,
        min_learning_rate=1e-4,
        warmup_epochs=2.0,
        weight_decay=0.5,
        label_smoothing=0.2,
        mixup=0.0,
        clip_norm=clip_norm,
    )
    losses = []
    train(network, data, settings, seed=3, report=lambda progress: losses.append(progress.loss))

    images = Normalise(*data.moments)(data.train.images)
    targets = smoothed(data.train.labels, 3, 0.2)
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in by_hand.named_parameters()}
    cosine = [1e-4 + 1.9e-3 * (1 + np.cos(np.pi * k / 3)) / 2 for k in range(3)]
    expected = []
    for step, rate in enumerate([0.0, 1e-3, *cosine], start=1):
        by_hand.zero_grad()
        loss = softmax_cross_entropy(by_hand(images), targets)
        loss.backward()
        expected.append(loss.item())
        norm = torch.cat([p.grad.flatten() for p in by_hand.parameters()]).norm()
        scale = min(1.0, clip_norm / (norm.item() + 1e-6)) if clip_norm else 1.0
        with torch.no_grad():
            for name, p in by_hand.named_parameters():
                first, second = moments[name]
                first.mul_(0.9).add_(p.grad * scale, alpha=0.1)
                second.mul_(0.999).add_((p.grad * scale) ** 2, alpha=0.001)
                decayed = name.endswith(("conv.weight", "linear.weight", "head.weight"))
                p.mul_(1 - rate * (0.5 if decayed else 0.0))
                p.sub_(rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8))
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    for name, parameter in network.named_parameters():
        # a bias in front of batch normalisation has no gradient but rounding, which AdamW blows up
        if not (name.endswith("linear.bias") and name.startswith("blocks")):
            torch.testing.assert_close(parameter, by_hand.get_parameter(name), rtol=1e-3, atol=1e-4, msg=name)


def test_the_first_architecture_of_a_step_teaches_the_others(make_space, make_data, enliven, monkeypatch):
    space, data = make_space(), make_data(24)
    supernet = enliven(build_supernet(space, 0))
    before = deepcopy(supernet).train()
    monkeypatch.setitem(SAMPLING, "pair", lambda space, _rng: [space.largest(), space.smallest()])
    settings = TrainSettings(
        epochs=1, batch_size=64, warmup_epochs=0, mixup=0.0, label_smoothing=0.2, clip_norm=0.0, sampling="pair"
    )
    seen = []
    train(supernet, data, settings, 0, space, report=seen.append)

    images = Normalise(*data.moments)(data.train.images)
    teacher, student = before(images, space.largest()), before(images, space.smallest())
    taught = softmax_cross_entropy(student, teacher.detach().softmax(dim=1))
    loss = (softmax_cross_entropy(teacher, smoothed(data.train.labels, 3, 0.2)) + taught) / 2
    assert seen[0].loss == pytest.approx(loss.item(), rel=1e-5)
    assert seen[0].accuracy == (teacher.argmax(1) == torch.from_numpy(data.train.labels)).float().mean()
    loss.backward()  # the gradient of the step's last update is still there
    for name, parameter in supernet.named_parameters():
        torch.testing.assert_close(parameter.grad, before.get_parameter(name).grad, rtol=1e-3, atol=1e-5, msg=name)


def test_the_first_step_of_a_warm_up_moves_no_weight(make_space, make_data):
    network = Spikformer(make_space().skeleton, NETWORK)
    initial, after = deepcopy(network), []
    settings = replace(QUICK, epochs=2)
    train(network, make_data(), settings, 0, report=lambda _: after.append(deepcopy(network)))
    moved = [
        any(not torch.equal(p, initial.get_parameter(name)) for name, p in step.named_parameters()) for step in after
    ]
    assert moved == [False, True, True, True, True, True]


def test_mixup_and_augmentation_reach_the_network(make_space, make_data):
    states = []
    for change in ({}, {"mixup": 0.0}, {"augment": ("flip",)}, {"label_smoothing": 0.0}):
        network = build_supernet(make_space(), 0)
        train(network, make_data(), replace(QUICK, epochs=2, **change), 0)
        states.append(network)
    assert not any(same(a, b) for i, a in enumerate(states) for b in states[:i])


# --- what a training looks at, and what it says


def test_a_training_looks_at_every_training_image_once_an_epoch_and_at_no_other(make_space, make_data, monkeypatch):
    data, passes = make_data(50), []
    network = Spikformer(make_space().skeleton, NETWORK)
    network.register_forward_pre_hook(lambda _m, args: passes.append(args[0].clone()))
    train(network, data, replace(QUICK, epochs=2, mixup=0.0), 0)
    assert [len(batch) for batch in passes] == [16, 16, 16, 2] * 2
    everything = Normalise(*data.moments)(data.train.images)
    for epoch in (passes[:4], passes[4:]):
        seen = sorted(image.numpy().tobytes() for batch in epoch for image in batch)
        assert seen == sorted(image.numpy().tobytes() for image in everything)
    assert not torch.equal(passes[0], passes[4])  # another order


def test_a_single_left_over_image_is_left_out(make_space, make_data):
    sizes = []
    network = Spikformer(make_space().skeleton, NETWORK)
    network.register_forward_pre_hook(lambda _m, args: sizes.append(len(args[0])))
    train(network, make_data(33), replace(QUICK, epochs=2), 0)
    assert sizes == [16, 16, 16, 16]


def test_progress_says_where_a_training_stands(make_space, make_data, tmp_path):
    seen = []
    network = Spikformer(make_space().skeleton, NETWORK)
    settings = replace(QUICK, epochs=2, checkpoint_every=2)
    train(network, make_data(), settings, 0, checkpoint=tmp_path, report=seen.append)
    assert [progress.epoch for progress in seen] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    assert {progress.epochs for progress in seen} == {2}
    assert all(progress.images_per_second > 0 and 0 <= progress.accuracy <= 1 for progress in seen)
    identity = Checkpoint(0, "stripes", settings, NETWORK, network.skeleton, None)
    state = load_checkpoint(tmp_path, identity, network)
    assert state.epoch == 2
    assert [record.loss for record in state.history] == [seen[2].loss, seen[5].loss]
    assert [record.accuracy for record in state.history] == [seen[2].accuracy, seen[5].accuracy]
    assert all(record.seconds > 0 for record in state.history)
    assert state.seconds == pytest.approx(sum(record.seconds for record in state.history))


def test_a_trained_network_comes_back_itself_in_evaluation_mode(make_space, make_data):
    network = Spikformer(make_space().skeleton, NETWORK)
    assert train(network, make_data(), replace(QUICK, epochs=2), 0) is network
    assert not any(module.training for module in network.modules())


# --- learning


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_of_its_own_learns(make_space, make_data, precision):
    network, losses, accuracies = Spikformer(make_space().skeleton, NETWORK), [], []
    settings = replace(QUICK, epochs=20, learning_rate=1e-2, mixup=0.0, precision=precision)

    def report(progress):
        losses.append(progress.loss)
        accuracies.append(progress.accuracy)

    train(network, make_data(), settings, 0, report=report)
    assert losses[-1] < 0.7 * losses[0]
    assert accuracies[-1] > 0.9
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    data = make_data(seed=5)
    answers = network(Normalise(*data.moments)(data.train.images)).argmax(dim=1)
    assert (answers == torch.from_numpy(data.train.labels)).float().mean() > 0.8


@pytest.mark.parametrize("sampling", SAMPLING)
def test_a_supernet_learns(make_space, make_data, sampling):
    space = make_space(SMALL_GENES)
    supernet, losses = build_supernet(space, 0), []
    settings = replace(QUICK, epochs=16, mixup=0.0, sampling=sampling)
    train(supernet, make_data(), settings, 0, space, report=lambda progress: losses.append(progress.loss))
    per_epoch = losses[2::3]
    assert np.mean(per_epoch[-3:]) < 0.8 * np.mean(per_epoch[:2])


def test_bfloat16_gives_other_weights_than_float32_all_finite(make_space, make_data):
    networks = []
    for precision in ("float32", "bfloat16"):
        network = build_supernet(make_space(), 0)
        networks.append(train(network, make_data(), replace(QUICK, epochs=2, precision=precision), 0))
    assert not same(*networks)
    assert all(tensor.isfinite().all() for network in networks for tensor in network.state_dict().values())


def test_a_space_trains_narrow_and_wide_shallow_and_deep(make_space, make_data):
    """Single-path training reaches every part of the supernet within a few epochs."""
    space = make_space(SMALL_GENES)
    supernet = build_supernet(space, 0)
    initial = deepcopy(supernet)
    train(supernet, make_data(), QUICK, 0, space)
    for name, parameter in supernet.named_parameters():
        if name.endswith("weight"):
            assert not torch.equal(parameter, initial.get_parameter(name)), name


# --- determinism and resuming


@pytest.mark.parametrize("sampling", SAMPLING)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(make_space, make_data, sampling):
    space = make_space(SMALL_GENES)
    settings = replace(QUICK, epochs=2, sampling=sampling, augment=("affine", "crop", "flip", "erasing"))
    first, second, other = (train(build_supernet(space, 0), make_data(), settings, seed, space) for seed in (1, 1, 2))
    assert same(first, second)
    assert not same(first, other)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("sampling", SAMPLING)
def test_a_resumed_training_reaches_exactly_the_weights_of_an_uninterrupted_one(
    make_space, make_data, tmp_path, sampling, precision
):
    """Interrupted in the middle of epoch 3 of 4, with mixup and every augmentation, and resumed in a new network."""
    space, data = make_space(SMALL_GENES, in_channels=3, neuron="plif"), make_data(channels=3)
    augment = ("affine", "crop", "flip", "erasing", "randaugment")
    settings = replace(QUICK, sampling=sampling, precision=precision, mixup=0.5, augment=augment)
    whole = train(build_supernet(space, 7), data, settings, 7, space, tmp_path / "whole")

    def interrupt(progress):
        if progress.epoch > 2.5:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(build_supernet(space, 7), data, settings, 7, space, tmp_path / "part", interrupt)
    epochs = []
    resumed = train(
        build_supernet(space, 7), data, settings, 7, space, tmp_path / "part", lambda p: epochs.append(p.epoch)
    )
    assert min(epochs) == pytest.approx(2 + 1 / 3)
    assert len(epochs) == 6
    assert same(whole, resumed)

    def never(_):
        raise AssertionError("a complete training must not run again")

    again = train(build_supernet(space, 1), data, settings, 7, space, tmp_path / "part", never)
    assert same(whole, again)


@pytest.mark.parametrize("interrupted_at", [0.1, 1.0, 2.0, 3.9])
def test_a_network_of_its_own_resumes_from_wherever_it_was_interrupted(
    make_space, make_data, tmp_path, interrupted_at
):
    skeleton, data = make_space().skeleton, make_data()
    settings = replace(QUICK, checkpoint_every=2)

    def new():
        torch.manual_seed(0)
        return Spikformer(skeleton, NETWORK)

    def interrupt(progress):
        if progress.epoch >= interrupted_at:
            raise StoppedError

    network = new()
    with pytest.raises(StoppedError):
        train(network, data, settings, 7, None, tmp_path, interrupt)
    if not list(tmp_path.iterdir()):
        network = new()  # nothing was saved: the training starts anew
    assert same(train(network, data, settings, 7, None, tmp_path), train(new(), data, settings, 7))


def test_checkpoints_are_written_every_so_many_epochs_and_at_the_end(make_space, make_data, tmp_path):
    written = []
    settings = replace(QUICK, epochs=5, checkpoint_every=2)

    def report(progress):
        written.append([path.name for path in tmp_path.glob("*.safetensors")])

    train(Spikformer(make_space().skeleton, NETWORK), make_data(), settings, 0, None, tmp_path, report)
    two, four = ["supernet-00002.safetensors"], ["supernet-00004.safetensors"]
    assert written[0::3] == [[], [], two, two, four]
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["supernet-00005.safetensors"]


def test_without_a_checkpoint_folder_nothing_is_written(make_space, make_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(Spikformer(make_space().skeleton, NETWORK), make_data(), replace(QUICK, epochs=2), 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("interrupted", [False, True])
def test_training_leaves_the_global_generators_alone(make_space, make_data, global_states, interrupted):
    space, data = make_space(SMALL_GENES, in_channels=3), make_data(channels=3)
    settings = replace(QUICK, epochs=2, augment=("affine", "crop", "flip", "erasing", "randaugment"))
    supernet, states = build_supernet(space, 0), global_states()

    def report(_):
        if interrupted:
            raise StoppedError

    try:
        train(supernet, data, settings, 0, space, report=report)
    except StoppedError:
        assert interrupted
    assert global_states() == states


def test_the_global_generators_do_not_reach_a_training(make_space, make_data):
    space, data = make_space(SMALL_GENES, in_channels=3), make_data(channels=3)
    settings = replace(QUICK, epochs=2, augment=("affine", "crop", "flip", "erasing", "randaugment"))
    networks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # the global generator is what is watched
        networks.append(train(build_supernet(space, 0), data, settings, 0, space))
    assert same(*networks)


# --- what is refused


def test_an_unknown_augmentation_stops_a_training_before_it_starts(make_space, make_data):
    network = Spikformer(make_space().skeleton, NETWORK)
    with pytest.raises(InputError, match=r"augment must list some of .*, got 'rotate'"):
        train(network, make_data(), replace(QUICK, augment=("rotate",)), 0)


def test_a_space_too_large_for_the_network_is_refused(make_space, make_data):
    network = Spikformer(make_space().skeleton, NETWORK)
    with pytest.raises(InputError, match="an architecture must fit into the network that runs it"):
        train(network, make_data(), replace(QUICK, sampling="sandwich"), 0, make_space())
