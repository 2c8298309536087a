"""The contract of every neuron, and each neuron against its recurrence and its gradient written in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from neuron_reference import PROPERTY, SHAPES, currents, each_neuron, each_reset, new, reference

from supernet.neurons import SURROGATES

# --- the contract


@each_neuron
@each_reset
@pytest.mark.parametrize("shape", SHAPES)
def test_spikes_are_zero_or_one_in_the_shape_of_the_current(name, soft_reset, shape):
    spikes = new(name, soft_reset)(currents(shape, scale=3.0), 0.7, 2.0)
    assert spikes.shape == shape
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}


@each_neuron
@each_reset
@pytest.mark.parametrize("shift", [-10.0, 10.0])
@pytest.mark.parametrize("t", [1, 2, 4])
def test_future_input_cannot_change_past_spikes(name, soft_reset, t, shift):
    neuron, current = new(name, soft_reset), currents((5, 3, 16))
    changed = current.clone()
    changed[t:] += shift
    before, after = neuron(current, 0.7, 2.0), neuron(changed, 0.7, 2.0)
    assert torch.equal(after[:t], before[:t])
    assert not torch.equal(after[t:], before[t:])


@each_neuron
@each_reset
def test_past_input_does_change_future_spikes(name, soft_reset):
    neuron, current = new(name, soft_reset), currents((5, 3, 64))
    changed = current.clone()
    changed[0] += 0.5
    assert not torch.equal(neuron(changed, 0.7, 2.0)[1:], neuron(current, 0.7, 2.0)[1:])


@each_neuron
@each_reset
def test_no_state_survives_a_call(name, soft_reset):
    neuron, current = new(name, soft_reset), currents((4, 3, 16))
    before = {key: value.clone() for key, value in neuron.state_dict().items()}
    first = neuron(current, 0.7, 2.0)
    neuron(100 + currents((4, 3, 16), seed=1), 0.7, 2.0)
    neuron(currents((2, 5, 3), seed=2), 1.3, 5.0)
    assert torch.equal(neuron(current, 0.7, 2.0), first)
    assert not list(neuron.buffers())
    assert neuron.state_dict().keys() == before.keys()
    assert all(torch.equal(neuron.state_dict()[key], value) for key, value in before.items())


@each_neuron
@each_reset
@pytest.mark.parametrize("training", [True, False])
def test_the_result_for_an_image_does_not_depend_on_its_neighbours(name, soft_reset, training):
    neuron, current = new(name, soft_reset).train(training), currents((4, 3, 5, 2))
    together = neuron(current, 0.7, 2.0)
    for image in range(3):
        assert torch.equal(neuron(current[:, image : image + 1], 0.7, 2.0), together[:, image : image + 1])
    assert torch.equal(neuron(current.flip(1), 0.7, 2.0), together.flip(1))


@each_neuron
@each_reset
def test_the_input_is_left_as_it_is(name, soft_reset):
    current = currents((4, 3, 5))
    kept = current.clone()
    new(name, soft_reset)(current, 0.7, 2.0)
    assert torch.equal(current, kept)


@each_neuron
@each_reset
def test_a_repeated_current_may_be_a_view_of_one_timestep(name, soft_reset):
    """The stem hands over an expanded image current, whose timesteps share memory."""
    neuron, step = new(name, soft_reset), currents((1, 3, 16))
    assert torch.equal(neuron(step.expand(4, 3, 16), 0.7, 2.0), neuron(step.repeat(4, 1, 1), 0.7, 2.0))


@each_neuron
@each_reset
def test_a_neuron_at_its_threshold_fires(name, soft_reset):
    tau, threshold = (2.0, 0.5)
    gain = {"lif": 1 / tau, "plif": 1 / tau, "if": 1.0}[name]
    current = torch.tensor([threshold / gain], dtype=torch.float64).view(1, 1)
    neuron = new(name, soft_reset, w=0.0)
    assert neuron(current, threshold, tau).item() == 1
    assert neuron(current - 1e-9, threshold, tau).item() == 0


@each_neuron
@each_reset
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_give_spikes_of_their_own_type_from_potentials_in_float32(name, soft_reset, dtype):
    neuron = new(name, soft_reset).float()
    current = currents((6, 3, 64)).to(dtype)
    spikes = neuron(current, 0.7, 3.0)
    assert spikes.dtype == dtype
    assert torch.equal(spikes.float(), neuron(current.float(), 0.7, 3.0))
    assert 0 < spikes.float().mean() < 1


@each_neuron
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spikes_have_the_type_of_the_current(name, dtype):
    neuron = new(name).to(dtype)
    assert neuron(currents((2, 3)).to(dtype), 0.7, 2.0).dtype == dtype


@each_neuron
def test_a_lower_threshold_never_silences_a_first_timestep_and_fires_more(name):
    neuron, current = new(name), currents((1, 2, 200))
    low, high = neuron(current, 0.3, 2.0), neuron(current, 0.9, 2.0)
    assert (low >= high).all()
    assert low.sum() > high.sum()


@pytest.mark.parametrize("name", ["lif", "plif"])
def test_tau_matters_to_leaky_neurons(name):
    neuron, current = new(name), currents((4, 2, 50))
    assert not torch.equal(neuron(current, 0.7, 1.25), neuron(current, 0.7, 10.0))


def test_tau_does_not_matter_to_neurons_without_leak():
    neuron, current = new("if"), currents((4, 2, 50))
    assert torch.equal(neuron(current, 0.7, 1.25), neuron(current, 0.7, 10.0))


@each_neuron
def test_neurons_start_out_as_the_defaults_say(name):
    neuron, current = new(name), currents((4, 2, 50))
    assert torch.equal(neuron(current), neuron(current, 1.0, 2.0))


# --- spikes against the recurrence


def test_hard_reset_by_hand():
    """tau 2: u = 0.75, 1.125 -> fires, 0.75, 1.375 -> fires, 0, 0.5 with threshold 1."""
    current = torch.tensor([1.5, 1.5, 1.5, 2.0, 0.0, 1.0]).view(6, 1)
    assert new("lif").float()(current, 1.0, 2.0).flatten().tolist() == [0, 1, 0, 1, 0, 0]


def test_soft_reset_by_hand():
    """tau 2: u = 1.5 -> fires, 0.5 + 0.75 = 1.0 -> fires at equality, 0, ..., with threshold 1."""
    current = torch.tensor([3.0, 1.5, 1.0, 1.5, 1.0]).view(5, 1)
    # v: 0 -> u 1.5, v 0.5 -> u 1.0, v 0 -> u 0.5 -> u 1.0, v 0 -> u 0.5
    assert new("lif", soft_reset=True).float()(current, 1.0, 2.0).flatten().tolist() == [1, 1, 0, 1, 0]


def test_without_leak_currents_add_up():
    current = torch.tensor([0.5, 0.25, 0.25, 0.5, 1.75]).view(5, 1)
    assert new("if").float()(current, 1.0).flatten().tolist() == [0, 0, 1, 0, 1]
    # hard: the last u is 0.5 + 1.75; soft leaves 1.25, so one more current of 0 fires again
    more = torch.cat([current, torch.zeros(1, 1)])
    assert new("if").float()(more, 1.0).flatten().tolist()[-1] == 0
    assert new("if", soft_reset=True).float()(more, 1.0).flatten().tolist()[-1] == 1


@each_neuron
@each_reset
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("v_threshold", "tau"), [(1.0, 2.0), (0.6, 1.25), (1.4, 10.0)])
def test_spikes_follow_the_recurrence(name, soft_reset, shape, v_threshold, tau):
    x = currents(shape, scale=4.0)
    expected, _ = reference(name, x.numpy(), v_threshold, tau, soft_reset)
    np.testing.assert_array_equal(new(name, soft_reset)(x, v_threshold, tau).detach().numpy(), expected)


@pytest.mark.parametrize("name", ["lif", "if"])
@each_reset
@PROPERTY
@given(
    x=arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=4, max_side=4),
        elements=st.integers(-16, 16).map(lambda n: n / 8),
    ),
    v_threshold=st.sampled_from([0.5, 0.75, 1.0]),
    tau=st.sampled_from([2.0, 4.0]),
)
def test_spikes_follow_the_recurrence_exactly_where_arithmetic_is_exact(name, soft_reset, x, v_threshold, tau):
    """Eighths and powers of two make potentials exact, so that equality with the threshold really occurs."""
    expected, _ = reference(name, x, v_threshold, tau, soft_reset)
    np.testing.assert_array_equal(
        new(name, soft_reset).float()(torch.from_numpy(x), v_threshold, tau).numpy(), expected
    )


# --- gradients against a backward pass by hand


@each_neuron
@each_reset
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("v_threshold", "tau"), [(1.0, 2.0), (0.6, 1.25), (1.4, 10.0)])
def test_gradients_match_backpropagation_through_time_by_hand(name, soft_reset, surrogate, shape, v_threshold, tau):
    neuron, w = new(name, soft_reset, surrogate), 0.4
    x = currents(shape, scale=4.0).requires_grad_()
    incoming = currents(shape, seed=9)
    neuron(x, v_threshold, tau).backward(incoming)

    current, g = x.detach().numpy(), incoming.numpy()
    s, u = reference(name, current, v_threshold, tau, soft_reset)
    over = u - v_threshold
    if surrogate == "sigmoid":
        p = 1 / (1 + np.exp(-4 * over))
        slope = 4 * p * (1 - p)
    else:
        slope = 1 / (1 + (np.pi * over) ** 2)
    leak = {"lif": 1 / tau, "plif": 1 / (1 + (tau - 1) * np.exp(-w)), "if": 1.0}[name]
    keep = 1.0 if name == "if" else 1 - leak  # du[t] / dv[t-1]
    grad_x, grad_leak, grad_v = np.zeros_like(current), 0.0, np.zeros(shape[1:])
    for t in reversed(range(shape[0])):
        grad_u = g[t] * slope[t] + grad_v * (1.0 if soft_reset else 1 - s[t])  # the reset carries no gradient
        grad_x[t] = grad_u * leak
        before = np.zeros(shape[1:]) if t == 0 else u[t - 1] - s[t - 1] * v_threshold
        if t > 0 and not soft_reset:
            before = u[t - 1] * (1 - s[t - 1])
        grad_leak += (grad_u * (current[t] - before)).sum()
        grad_v = grad_u * keep
    np.testing.assert_allclose(x.grad.numpy(), grad_x, rtol=1e-9, atol=1e-12)
    if name == "plif":
        assert neuron.w.grad.item() == pytest.approx(grad_leak * leak * (1 - leak), rel=1e-9)


def test_the_learned_leak_starts_at_tau():
    x = currents((5, 3, 50))
    assert torch.equal(new("plif", w=0.0)(x, 0.7, 3.0), new("lif")(x, 0.7, 3.0))


@each_neuron
def test_gradients_reach_every_timestep_and_stay_finite_for_huge_currents(name):
    x = (1e6 * currents((4, 2, 8))).requires_grad_()
    new(name)(x, 1.0, 2.0).sum().backward()
    assert torch.isfinite(x.grad).all()
    y = (0.1 * currents((4, 2, 8))).requires_grad_()
    new(name)(y, 1.0, 2.0)[-1].sum().backward()
    assert (y.grad != 0).all()
