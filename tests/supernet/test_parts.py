"""Batches in a fixed number of parts: the same bits from any number of processes. Threads stand in for processes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from spaces import InputError
from supernet.distil import Distillation
from supernet.parts import Crew, Table
from supernet.ranks import Ranks
from supernet.settings import TrainSettings
from supernet.spikformer import Spikformer, build_supernet
from supernet.train import train

PARTS = 3
SETTINGS = TrainSettings(
    epochs=2, batch_size=16, warmup_epochs=1.0, learning_rate=2e-3, mixup=0.0, sampling="sandwich", parts=PARTS
)
"""Without augmentation and mixup, whose generator is global: threads would draw from one."""


def trained(space, data, settings=SETTINGS, ranks=None, distillation=None, network=None):
    """Return the weights after a training, and the losses of its steps."""
    losses = []
    network = (build_supernet(space, 0) if network is None else network).eval()  # as it may come from scoring
    train(network, data, settings, 3, space, None, lambda step: losses.append(step.loss), ranks, distillation)
    return network.state_dict(), losses


@pytest.fixture
def trained_by(together):
    """Return what each of so many processes trains; networks are drawn before, from the generator of all threads."""

    def trained_by(count, space, *args, **more):
        networks = [build_supernet(space, 0) for _ in range(count)]
        return together(count, lambda ranks: trained(space, *args, **more, ranks=ranks, network=networks[ranks.rank]))

    return trained_by


def assert_same(found, expected):
    (state, losses), (other, others) = found, expected
    assert losses == others
    for name, tensor in other.items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize(("count", "change"), [(3, {}), (2, {"precision": "bfloat16"}), (2, {"batch_size": 15})])
def test_any_number_of_processes_ends_with_the_same_bits(trained_by, make_space, make_data, change, count):
    """Parts of 5 and 6 images, two of which fall to one of two processes; the last batch has fewer than parts."""
    space, data, settings = make_space(), make_data(47), replace(SETTINGS, **change)
    alone = trained(space, data, settings)
    for found in trained_by(count, space, data, settings):
        assert_same(found, alone)
    whole = trained(space, data, replace(settings, parts=0))
    assert alone[1] == pytest.approx(whole[1], abs=1e-3 if settings.precision == "float32" else 2e-2)


def test_other_parts_are_another_training(make_space, make_data):
    """Else it would not have been the parts that were computed."""
    space, data = make_space(), make_data(47)
    three, two = (trained(space, data, replace(SETTINGS, parts=parts)) for parts in (3, 2))
    assert any(not torch.equal(tensor, two[0][name]) for name, tensor in three[0].items())


def test_the_threads_that_are_there_change_nothing(make_space, make_data):
    space, data = make_space(), make_data(18)
    expected, before = trained(space, data), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_same(trained(space, data), expected)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_teacher_teaches_every_part(trained_by, make_space, make_data):
    space, data = make_space(), make_data(18)
    teacher = build_supernet(space, 5).eval()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    alone = trained(space, data, distillation=Distillation(teacher))
    for found in trained_by(2, space, data, distillation=Distillation(teacher)):
        assert_same(found, alone)
    assert alone[1] != trained(space, data)[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_a_part_that_fails_fails_the_training_and_nobody_waits_for_it(make_space, make_data, monkeypatch):
    space, data = make_space(), make_data(18)
    forward, calls = Spikformer.forward, []

    def fail(self, *args):
        calls.append(self)
        if len(calls) == 5:
            raise RuntimeError("no memory")
        return forward(self, *args)

    monkeypatch.setattr(Spikformer, "forward", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        trained(space, data)


def test_a_checkpoint_of_any_number_of_processes_is_gone_on_with_by_any_other(
    together, make_space, make_data, tmp_path
):
    space, data = make_space(), make_data(18)
    expected = trained(space, data)

    class StoppedError(InputError):
        pass

    def stop(step):
        if step.epoch > 1:
            raise StoppedError("enough")

    networks = [build_supernet(space, 0) for _ in range(2)]

    def begin(ranks):
        train(networks[ranks.rank], data, SETTINGS, 3, space, tmp_path / str(ranks.rank), stop, ranks)

    assert [type(error) for error in together(2, begin)] == [StoppedError] * 2
    network = build_supernet(space, 0)
    train(network, data, SETTINGS, 3, space, tmp_path / "0")
    assert all(torch.equal(tensor, expected[0][name]) for name, tensor in network.state_dict().items())


def test_sums_are_taken_in_the_order_of_the_parts():
    """As (1 + 2^-24) + 2^-24 and 1 + (2^-24 + 2^-24) differ in float32."""
    table = Table(None, 3)
    assert list(table.local) == [0, 1, 2]
    assert [list(Table(Ranks(rank, 2), 5).local) for rank in (0, 1)] == [[0, 1], [2, 3, 4]]
    small = 2.0**-24
    table._given = dict(enumerate(torch.tensor([[1.0], [small], [small]])))
    assert table._sum().item() == 1.0
    table._given = dict(enumerate(torch.tensor([[small], [small], [1.0]])))
    assert table._sum().item() == 1.0 + 2 * small


def test_a_gpu_computes_one_part(make_space):
    network = build_supernet(make_space(), 0).to("meta")
    with (
        pytest.raises(InputError, match=r"as many as there are processes on meta.*got 3 parts: train with 3 workers"),
        Crew(network, None, 3, 1).at_work(),
    ):
        pytest.fail("it computes three")
    with Crew(network, Ranks(0, 3), 3, 1).at_work():
        pass


def test_a_training_that_is_done_needs_no_parts(make_space, make_data, tmp_path, monkeypatch):
    """So those of several GPUs are read by one process."""
    space, data = make_space(), make_data(18)
    network = build_supernet(space, 0)
    train(network, data, SETTINGS, 3, space, tmp_path)
    monkeypatch.setattr(Crew, "at_work", lambda _: pytest.fail("nothing is to be computed"))
    again = train(build_supernet(space, 1), data, SETTINGS, 3, space, tmp_path)
    assert not again.training
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_a_ctrl_c_before_all_parts_have_begun_leaves_nobody_waiting(make_space, make_data, monkeypatch):
    space, data = make_space(), make_data(18)
    submit, calls = ThreadPoolExecutor.submit, []

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return submit(self, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(space, data)
