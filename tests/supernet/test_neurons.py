"""The contract of every neuron, and each neuron against its recurrence and its gradient written in numpy."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from spaces import InputError, Skeleton
from supernet.extract import extract
from supernet.neurons import NEURONS, SURROGATES, SpikingNeuron, build_neuron, lif
from supernet.spikformer import build_supernet

SHAPES = [(1, 1), (4, 3, 5), (3, 2, 7, 2), (2, 1, 3, 2, 2)]
PROPERTY = settings(deadline=None, max_examples=30)

each_neuron = pytest.mark.parametrize("name", NEURONS)
each_reset = pytest.mark.parametrize("soft_reset", [False, True], ids=["hard", "soft"])


def new(name, soft_reset=False, surrogate="sigmoid", w=0.4):
    """Return a neuron whose learned leak, where it has one, has already moved."""
    neuron = build_neuron(Skeleton(8, 1, 2, neuron=name, surrogate=surrogate, soft_reset=soft_reset)).double()
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.fill_(w)
    return neuron


def currents(shape, seed=0, scale=1.5):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference_charge(name, v, x, tau, w):
    if name == "lif":
        return v + (x - v) / tau
    if name == "plif":
        return v + (x - v) * (1 / (1 + (tau - 1) * np.exp(-w)))  # sigmoid(w + logit(1 / tau))
    return v + x


def reference(name, x, v_threshold, tau, soft_reset, w=0.4):
    """Return spikes and charged potentials by the recurrence, one neuron and one timestep at a time."""
    spikes, potentials = np.zeros_like(x), np.zeros_like(x)
    for at in np.ndindex(x.shape[1:]):
        v = 0.0
        for t in range(len(x)):
            u = reference_charge(name, v, x[(t, *at)], tau, w)
            s = 1.0 if u >= v_threshold else 0.0
            v = u - s * v_threshold if soft_reset else (0.0 if s else u)
            spikes[(t, *at)], potentials[(t, *at)] = s, u
    return spikes, potentials


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


# --- the table


@each_neuron
@pytest.mark.parametrize("surrogate", SURROGATES)
@each_reset
def test_a_neuron_is_built_as_its_skeleton_says(name, surrogate, soft_reset):
    neuron = build_neuron(Skeleton(8, 1, 2, neuron=name, surrogate=surrogate, soft_reset=soft_reset))
    assert isinstance(neuron, NEURONS[name])
    assert neuron.equations.surrogate is SURROGATES[surrogate]
    assert neuron.equations.reset is (lif.soft_reset if soft_reset else lif.hard_reset)


def test_an_unknown_neuron_is_refused_with_the_known_ones_named():
    rule = r"neuron must be one of \['if', 'lif', 'plif'\] or package\.module:Name, got 'izhikevich'"
    with pytest.raises(InputError, match=rule):
        build_neuron(Skeleton(8, 1, 2, neuron="izhikevich"))


def test_an_unknown_surrogate_is_refused_with_the_known_ones_named():
    with pytest.raises(InputError, match=r"surrogate must be one of \['atan', 'sigmoid'\], got 'box'"):
        build_neuron(Skeleton(8, 1, 2, surrogate="box"))


# --- a neuron of the user's own, by package.module:Name

OWN = """
from supernet.neurons import Equations, SpikingNeuron, sigmoid_step

def charge(x, state, const):
    return state.v + x

def reset(u, s, x, state, const):
    return (u * (1 - s),)

def branching(x, state, const):
    return x if x > 0 else state.v

def absolute(x, state, const):
    return abs(x)

class Own(SpikingNeuron):
    def __init__(self, surrogate, soft, executor):
        super().__init__(Equations(charge, reset, surrogate), executor)
        self.given = (surrogate, soft, executor)

class Branching(SpikingNeuron):
    def __init__(self, surrogate, soft, executor):
        super().__init__(Equations(branching, reset, surrogate), executor)

class Absolute(SpikingNeuron):
    def __init__(self, surrogate, soft, executor):
        super().__init__(Equations(absolute, reset, surrogate), executor)

class TwoStates(SpikingNeuron):
    def __init__(self, surrogate, soft, executor):
        super().__init__(Equations(charge, reset, surrogate, states=("v", "a")), executor)

class Unnamed(SpikingNeuron):
    def __init__(self, surrogate, soft, executor):
        super().__init__(Equations(lambda x, state, const: x * const.gain, reset, surrogate), executor)

class Listed(SpikingNeuron):
    def __init__(self, surrogate, soft, executor):
        super().__init__(Equations(charge, reset, surrogate, states=["v"]), executor)

class Overridden(Own):
    def forward(self, x, v_threshold=1.0, tau=2.0):
        return (x > v_threshold).to(x.dtype)

class Incomplete(SpikingNeuron):
    def __init__(self, surrogate, soft, executor):
        super().__init__(Equations(charge, reset, surrogate, constants=("v_threshold", "leak")), executor)

class Unfinished(SpikingNeuron):
    def __init__(self, surrogate, soft, executor):
        super(SpikingNeuron, self).__init__()

class NoArguments(SpikingNeuron):
    def __init__(self):
        super().__init__(Equations(charge, reset, sigmoid_step))

class Choosy(SpikingNeuron):
    def __init__(self, surrogate, soft, executor):
        raise ValueError("soft resets only")

class NoNeuron:
    def __init__(self, surrogate, soft, executor):
        pass

number = 3
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "neurons_of_a_user.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "neurons_of_a_user"
    sys.modules.pop("neurons_of_a_user", None)


def test_a_neuron_of_the_users_own_is_built_with_surrogate_reset_and_executor(own_module):
    skeleton = Skeleton(8, 1, 2, neuron=f"{own_module}:Own", surrogate="atan", soft_reset=True)
    neuron = build_neuron(skeleton, "reference")
    assert type(neuron).__name__ == "Own"
    assert neuron.given == (SURROGATES["atan"], True, "reference")


def test_a_network_of_neurons_of_the_users_own_trains_and_is_cut_out(own_module, make_space):
    space = make_space(neuron=f"{own_module}:Own")
    supernet = build_supernet(space, 0)
    supernet.train()(torch.randn(4, 1, 8, 8), space.smallest()).sum().backward()
    subnet = extract(supernet, space.smallest())
    assert {type(module).__name__ for module in subnet.modules() if isinstance(module, SpikingNeuron)} == {"Own"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nothing.here:Own", "neuron 'nothing.here:Own' cannot be imported: No module named 'nothing'"),
        ("neurons_of_a_user:Missing", "cannot be imported: .* has no attribute 'Missing'"),
        ("neurons_of_a_user:NoArguments", r"built as Name\(surrogate, soft, executor\), but .* takes 1 positional"),
        ("neurons_of_a_user:Choosy", "built as .*: soft resets only"),
        ("neurons_of_a_user:number", "built as .*: 'int' object is not callable"),
        ("neurons_of_a_user:NoNeuron", "a neuron is a supernet.neurons.SpikingNeuron, but .*:NoNeuron' gives"),
        (
            "neurons_of_a_user:Branching",
            "neuron .*Branching' cannot be compiled: .* 'branching' .* '>' ",
        ),
        ("neurons_of_a_user:Absolute", "equations of neuron .*Absolute' cannot be compiled: the equation 'absolute'"),
        ("neurons_of_a_user:TwoStates", r"cannot be compiled: reset must return a tuple of the states \['v', 'a'\]"),
        ("neurons_of_a_user:Unnamed", "equations of neuron .*Unnamed' cannot be compiled: .*gain"),
        ("neurons_of_a_user:Listed", "equations of neuron .*Listed' cannot be compiled: unhashable"),
        ("neurons_of_a_user:Overridden", "a neuron is its equations, but .*Overridden' has a forward of its own"),
        (
            "neurons_of_a_user:Incomplete",
            r"must give every constant .*, but .*Incomplete' lacks \['leak'\]",
        ),
        ("neurons_of_a_user:Unfinished", "equations of neuron .*Unfinished' cannot be compiled: .*'equations'"),
    ],
    ids=lambda value: value.rpartition(":")[2] if ":" in value else "",
)
def test_what_is_no_neuron_is_refused_with_the_reason(name, text, own_module):
    with pytest.raises(InputError, match=text) as error:
        build_neuron(Skeleton(8, 1, 2, neuron=name))
    assert "Traceback" not in str(error.value)
