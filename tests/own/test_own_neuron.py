"""A neuron that is defined outside the package, here, fires in every network of a search."""

import nas
from spaces import SearchSpace, load_space
from supernet.neurons import Equations, SpikingNeuron, sigmoid_step


def charge(x, state, const):
    return const.decay * state.v + x


def reset(u, s, x, state, const):
    return (u - s * const.v_threshold,)


class Decaying(SpikingNeuron):
    """Neurons whose potential decays by a factor, and that add their input as it is."""

    def __init__(self, surrogate=sigmoid_step, soft=False, executor="auto"):
        super().__init__(Equations(charge, reset, surrogate, constants=("v_threshold", "decay")), executor)

    def constants(self, v_threshold, tau):
        return {"v_threshold": v_threshold, "decay": 1 - 1 / tau}


def space() -> SearchSpace:
    values = load_space("digits").to_dict()
    values["skeleton"]["neuron"] = "test_own_neuron:Decaying"
    values["genes"] |= {"embed_dim": [16], "timesteps": [2], "depth": [1]}
    return SearchSpace.from_dict(values)


RECIPE = """
name = "own-neuron"
space = "test_own_neuron:space"
data = { name = "digits", train_images = 200 }
training = { epochs = 1, warmup_epochs = 0.1 }
scoring = { calibration_images = 32, validation_images = 32 }
search = { evaluations = 4, population = 2, expand = 1, baseline = false }
workers = { pool = "local" }
"""


def test_a_neuron_of_a_module_fires_in_every_network(tmp_path):
    (tmp_path / "own.toml").write_text(RECIPE)
    run = nas.search(tmp_path / "own.toml", tmp_path / "run")
    frame = run.evaluations()
    assert (frame["state"] == "complete").all(), frame["failure"].tolist()
    assert (frame["spikes"] > 0).all()
    subnet = run.load(run.front().iloc[0].key)
    neurons = [module for module in subnet.modules() if isinstance(module, SpikingNeuron)]
    assert {type(neuron) for neuron in neurons} == {Decaying}
    assert len(neurons) == 5 + 7 * subnet.architecture.depth
