"""Candidates: calibrated on training images only, computed lazily and once, and without traces."""

import numpy as np
import pytest
import torch

from evaluators import EVALUATORS, Candidate, score
from spaces import Architecture, Layer, Skeleton
from supernet.calibrate import calibrate
from supernet.data import Normalise, Split
from supernet.extract import extract
from supernet.layers import EntangledBatchNorm
from supernet.spikformer import Spikformer

ALL = {name: builder() for name, builder in EVALUATORS.items()}


class Counting(Normalise):
    """A normalisation that knows which splits were walked through."""

    def __init__(self):
        super().__init__((0.5,), (0.3,))
        object.__setattr__(self, "walked", [])

    def batches(self, split, batch_size):
        self.walked.append(len(split))
        return super().batches(split, batch_size)


def statistics(network):
    return [
        tensor.clone()
        for module in network.modules()
        if isinstance(module, EntangledBatchNorm)
        for tensor in (module.running_mean, module.running_var)
    ]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_subnet_is_the_extracted_copy_calibrated_on_the_calibration_images(space, supernet, images):
    architecture = space.smallest()
    subnet = Candidate(architecture, supernet, images).subnet
    batches = [x for x, _ in images.normalise.batches(images.calibration, images.batch_size)]
    by_hand = calibrate(extract(supernet, architecture), batches)
    assert subnet.architecture == architecture
    assert not any(module.training for module in subnet.modules())
    assert same(subnet.state_dict().values(), by_hand.state_dict().values())


def test_calibration_batches_are_alike_so_that_each_image_weighs_the_same(space, supernet, make_images, make_split):
    split = make_split(18, seed=3)
    subnet = Candidate(space.largest(), supernet, make_images(calibration=split, batch_size=16)).subnet
    halves = list(make_images().normalise.batches(split, 9))
    by_hand = calibrate(extract(supernet, space.largest()), [x for x, _ in halves])
    assert same(statistics(subnet), statistics(by_hand))


def test_scored_images_change_no_statistics(space, supernet, make_images, make_split):
    one, other = (
        Candidate(space.largest(), supernet, make_images(scored=make_split(24, seed=seed))) for seed in (5, 6)
    )
    before = statistics(one.subnet)
    assert one.outcome.operations.spikes != other.outcome.operations.spikes
    assert same(statistics(one.subnet), before)
    assert same(statistics(one.subnet), statistics(other.subnet))


def test_calibration_images_decide_the_statistics(space, supernet, make_images, make_split):
    one, other = (
        Candidate(space.largest(), supernet, make_images(calibration=make_split(16, seed=seed))) for seed in (5, 6)
    )
    assert not same(statistics(one.subnet), statistics(other.subnet))


def test_labels_of_calibration_images_do_not_matter(space, supernet, images, make_images):
    mislabelled = Split(images.calibration.images, np.zeros_like(images.calibration.labels))
    candidates = [Candidate(space.largest(), supernet, i) for i in (images, make_images(calibration=mislabelled))]
    assert score(candidates[0], ALL) == score(candidates[1], ALL)


def test_scoring_twice_gives_the_same_and_leaves_the_supernet_alone(space, supernet, images):
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    architectures = [space.largest(), space.smallest(), *list(space.neighbours(space.smallest()))[:3]]
    first = [score(Candidate(a, supernet, images), ALL) for a in architectures]
    second = [score(Candidate(a, supernet, images), ALL) for a in reversed(architectures)]
    assert first == second[::-1]
    assert len({metrics["energy_mj"] for metrics in first}) > 2
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet.state_dict().items())
    assert not supernet.training


def test_scoring_does_not_touch_the_global_generators(space, supernet, images):
    before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002  # the global one is what is watched
    score(Candidate(space.largest(), supernet, images), ALL)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == before[1]  # noqa: NPY002  # the global generator is what is watched


def test_nothing_is_computed_before_it_is_asked_for_and_nothing_twice(space, supernet, make_images):
    normalise = Counting()
    candidate = Candidate(space.largest(), supernet, make_images(normalise=normalise))
    assert candidate.architecture == candidate.largest == space.largest()
    assert candidate.skeleton == space.skeleton
    assert normalise.walked == []
    assert candidate.subnet is candidate.subnet
    assert normalise.walked == [16]
    assert candidate.outcome is candidate.outcome
    score(candidate, ALL)
    assert normalise.walked == [16, 24]


def test_answers_and_operations_do_not_depend_on_the_batches_of_the_scored_images(space, supernet, make_images):
    """With calibration images in one batch each time, statistics are the same."""
    outcomes = [
        Candidate(space.largest(), supernet, make_images(batch_size=batch_size)).outcome
        for batch_size in (16, 23, 64)
    ]
    assert {outcome.images for outcome in outcomes} == {24}
    assert len({outcome.correct for outcome in outcomes}) == 1
    spikes = [outcome.operations.spikes for outcome in outcomes]
    assert spikes == pytest.approx([spikes[0]] * 3, rel=1e-3)


def test_an_image_is_scored_alike_whatever_its_neighbours(space, supernet, images, make_images):
    """A worker that answers by batch statistics, or shares membranes within a batch, fails here."""
    split = images.scored
    alone = [
        Candidate(
            space.largest(), supernet, make_images(scored=Split(split.images[i : i + 1], split.labels[i : i + 1]))
        ).outcome.correct
        for i in range(8)
    ]
    together = Candidate(space.largest(), supernet, make_images(scored=split.head(8))).outcome.correct
    assert sum(alone) == together


def test_the_order_of_scored_images_does_not_matter(space, supernet, images, make_images):
    turned = Split(images.scored.images[::-1].copy(), images.scored.labels[::-1].copy())
    outcomes = [Candidate(space.largest(), supernet, i).outcome for i in (images, make_images(scored=turned))]
    assert outcomes[0].correct == outcomes[1].correct
    assert outcomes[0].operations.spikes == outcomes[1].operations.spikes


def test_a_last_calibration_batch_of_one_image_is_no_failure(make_images, make_split):
    """One token, one timestep and one image would leave BatchNorm a single value per channel."""
    skeleton = Skeleton(4, 1, 3, stem_pools=(2, 3))
    architecture = Architecture(16, 1, (Layer(1.0, 1, 1.0, 2.0),))
    supernet = Spikformer(skeleton, architecture).eval()
    images = make_images(make_split(5, size=4), make_split(6, seed=1, size=4), batch_size=4)
    assert skeleton.grid_size == 1
    assert 0 <= score(Candidate(architecture, supernet, images), ALL)["accuracy"] <= 1
