"""Neurons by name: those of the table, and a user's own by package.module:Name."""

import sys

import pytest
import torch
from neuron_reference import each_neuron, each_reset

from spaces import InputError, Skeleton
from supernet.extract import extract
from supernet.neurons import NEURONS, SURROGATES, SpikingNeuron, build_neuron, lif
from supernet.spikformer import build_supernet

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
        (
            "nothing.here:Own",
            "'nothing.here:Own' cannot be imported: ModuleNotFoundError: No module named 'nothing'",
        ),
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
