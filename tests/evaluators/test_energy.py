"""Energy and spikes of candidates, and the estimate before there are any."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import (
    EVALUATORS,
    PRIOR_FIRING_RATE,
    Candidate,
    LayerOperations,
    NeuronOperations,
    OperationCounts,
    build_evaluators,
    counting,
    dense_operations,
    energy_mj,
    energy_model_names,
    energy_parts,
    estimate_energy_mj,
    load_energy_model,
    parse_energy_model,
    score,
)
from spaces import Architecture, InputError, Layer, Skeleton
from supernet.calibrate import calibrate
from supernet.engine import Engine
from supernet.layers import EntangledBatchNorm, EntangledLinear
from supernet.neurons.lif import IF, LIF
from supernet.spikformer import Spikformer


class Alone(torch.nn.Module):
    """One layer where a Spikformer would run all of its own."""

    def __init__(self, layer):
        super().__init__()
        stage, position = torch.nn.Module(), torch.nn.Module()
        stage.conv, position.neuron = torch.nn.Module(), LIF()
        self.stem = torch.nn.Module()
        self.stem.stages, self.stem.position = torch.nn.ModuleList([stage]), position
        self.head = torch.nn.Module()
        self.layer = layer
        self.eval()

    def forward(self, x):
        return self.layer(x)


SOP45 = load_energy_model("sop45")
MODELS = [load_energy_model(name) for name in energy_model_names()]
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def test_the_default_constants_are_those_of_45_nm():
    assert (SOP45.operations.mac, SOP45.operations.accumulate, PRIOR_FIRING_RATE) == (4.6, 0.9, 0.2)


def counts_of(images=2):
    """Counts by hand: an analog, a binary, an integer and a product layer, and two layers of neurons."""
    layers = {
        "first": LayerOperations("convolution", True, 1000, inputs=30, outputs=100, weights=90),
        "binary": LayerOperations("convolution", False, 8000, 640.0, 640.0, 400, 40, 200, 180),
        "integers": LayerOperations("linear", False, 6000, 900.0, 600.0, 300, 30, 100, 300),
        "scores": LayerOperations("product", False, 4000, 70.0, 70.0, 200, 20, 80),
        "mix": LayerOperations("product", False, 4000, 90.0, 50.0, 200, 25, 100),
        "head": LayerOperations("linear", True, 500, inputs=50, outputs=10, weights=250),
    }
    neurons = {"one.neuron": NeuronOperations(200, (10, 20)), "two.neuron": NeuronOperations(400, (0, 5))}
    return OperationCounts(layers, neurons, images)


BY_HAND = {  # multiply-accumulates and accumulates of both images
    "sop45": (1500, 640 + 900 + 70 + 90),
    "nonzero": (1500, 640 + 600 + 70 + 50),
    "strict": (1500 + 6000, 640 + 70 + 50),
    "published": (2 * 1000 + 500, 40 * 8000 / 400 + 70 + 50),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_each_convention_by_hand(name):
    macs, accumulates = BY_HAND[name]
    expected = (4.6 * macs + 0.9 * accumulates) * 1e-9 / 2
    assert energy_mj(counts_of(), load_energy_model(name)) == pytest.approx(expected, rel=1e-12)


def test_neurons_and_spikes_cost_what_the_model_says():
    values = {"operations": {"mac": 0, "accumulate": 0, "neuron": 3.0, "spike": 7.0}}
    model = parse_energy_model("own", {"title": "t", "source": "s", "checked": "measured", **values}, "own")
    assert energy_mj(counts_of(), model) == pytest.approx((3.0 * 600 + 7.0 * 35) * 1e-9 / 2)


MEMORY = {
    "title": "t",
    "source": "s",
    "checked": "measured",
    "operations": {"mac": 0, "accumulate": 0},
    "memory": {
        "on_chip_bytes": 410.0,  # half of the 820 weights of one byte
        "off_chip_pj_per_byte": 100.0,
        "weights": {"bytes": 1, "pj_per_byte": 2.0},
        "spikes": {"bytes": 0.5, "pj_per_byte": 4.0},
        "membrane": {"bytes": 4, "pj_per_byte": 3.0},
        "activations": {"bytes": 2, "pj_per_byte": 5.0},
    },
}


def test_memory_traffic_by_hand():
    spent = {}
    for part in energy_parts(counts_of(), parse_energy_model("own", MEMORY, "own")):
        spent[part.part] = spent.get(part.part, 0) + part.mj * 2 / 1e-9
    assert spent == {
        "weights": pytest.approx(2.0 * (1500 + 640 + 900)),  # products have none
        "weights off chip": pytest.approx(0.5 * 100 * 820 * 2),  # once per image
        "events": pytest.approx(2.0 * (40 + 30 + 20 + 25 + 35)),  # read where they arrive, written where fired
        "membrane": pytest.approx(2 * 12.0 * 600),  # read and written
        "activations": pytest.approx(10.0 * (30 + 100 + 50 + 10)),
    }


@each_model
def test_parts_add_up_to_the_energy_and_name_known_layers(model):
    counts = counts_of()
    parts = energy_parts(counts, model)
    assert sum(part.mj for part in parts) == energy_mj(counts, model) > 0
    assert {part.layer for part in parts} <= {*counts.layers, *counts.neurons}
    assert {part.kind for part in parts} <= {"convolution", "linear", "product", "neuron"}
    assert all(part.mj > 0 for part in parts)


@each_model
def test_energy_is_per_image(model):
    few = energy_mj(counts_of(images=2), model)
    off_chip = [part.mj for part in energy_parts(counts_of(), model) if part.part == "weights off chip"]
    assert not off_chip
    assert energy_mj(counts_of(images=8), model) == pytest.approx(few / 4)


def test_estimate_by_hand():
    rows = {
        "first": LayerOperations("convolution", analog=True, macs=4_000_000),
        "second": LayerOperations("linear", analog=False, macs=20_000_000),
    }
    estimate = estimate_energy_mj(OperationCounts(rows, images=2))
    assert estimate == pytest.approx((4.6 * 2_000_000 + 0.9 * 0.2 * 10_000_000) * 1e-9)


def test_estimate_of_the_public_spikformer_by_hand():
    layers = tuple(Layer(4.0, 12, 1.0, 2.0) for _ in range(4))
    counts = dense_operations(Skeleton(32, 3, 10), Architecture(384, 4, layers))
    per_timestep = 42.47e6 + 169.87e6 * 2 + 84.93e6 + 453.0e6 + 12.58e6
    assert estimate_energy_mj(counts) == pytest.approx(
        (4.6 * 1.331e6 + 0.9 * 0.2 * 4 * per_timestep) * 1e-9, rel=1e-3
    )


def test_energy_of_a_candidate_is_that_of_its_counted_operations(space, supernet, images):
    candidate = Candidate(space.largest(), supernet, images)
    with torch.no_grad(), counting(candidate.subnet) as counts:
        for x, _ in images.normalise.batches(images.scored, 7):
            candidate.subnet(x)
    macs = 8 * 8 * 9 * (32 // 8) + 32 * 3
    accumulates = sum(row.accumulates for row in counts.layers.values()) / 24
    assert accumulates > 1000
    assert EVALUATORS["energy_mj"]()(candidate) == {
        "energy_mj": pytest.approx((4.6 * macs + 0.9 * accumulates) * 1e-9, rel=1e-12)
    }


def test_spikes_of_a_candidate_are_per_image(space, supernet, images):
    candidate = Candidate(space.largest(), supernet, images)
    total = []
    handles = [
        module.register_forward_hook(lambda _, __, output: total.append(output.sum().item()))
        for module in candidate.subnet.modules()
        if isinstance(module, LIF)
    ]
    with torch.no_grad():
        candidate.subnet(images.normalise(images.scored.images))
    for handle in handles:
        handle.remove()
    assert EVALUATORS["spikes"]()(candidate) == {"spikes": pytest.approx(sum(total) / 24, rel=1e-12)}


def counted(network, x, architecture=None):
    with torch.no_grad(), counting(network) as counts:
        network(x, architecture)
    return counts


def test_a_network_whose_neurons_never_fire_pays_for_analog_layers_only(space, supernet):
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, EntangledBatchNorm):
                module.weight.zero_()
                module.bias.zero_()
    counts = counted(supernet, torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert (counts.spikes, counts.accumulates_per_image) == (0, 0)
    assert counts.analog_macs_per_image == 8 * 8 * 9 * (32 // 8) + 32 * 3


def test_an_empty_image_costs_less_than_a_picture(space, supernet):
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, EntangledBatchNorm):
                module.bias.zero_()
    picture = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert counted(supernet, torch.zeros(1, 1, 8, 8)).accumulates_per_image == 0
    assert counted(supernet, picture).accumulates_per_image > 0


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), timesteps=st.integers(1, 5))
def test_a_longer_simulation_adds_to_the_energy_of_a_shorter_one(seed, timesteps):
    torch.manual_seed(seed)
    layer = Layer(1.0, 2, 0.5, 2.0)
    network = Spikformer(Skeleton(8, 1, 3, stem_pools=(2, 3)), Architecture(16, 1, (layer,))).eval()
    calibrate(network, [torch.randn(16, 1, 8, 8)])
    x = torch.randn(2, 1, 8, 8)
    short = counted(network, x, Architecture(16, timesteps, (layer,)))
    long = counted(network, x, Architecture(16, timesteps + 1, (layer,)))
    assert long.spikes >= short.spikes > 0
    assert long.accumulates_per_image >= short.accumulates_per_image > 0
    assert long.analog_macs_per_image == short.analog_macs_per_image
    for name, row in long.layers.items():  # the first timesteps are the same, so no layer can save anything
        assert row.accumulates >= short.layers[name].accumulates, name


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), timesteps=st.integers(1, 3))
def test_a_current_that_repeats_without_leak_or_memory_costs_in_proportion_to_its_timesteps(seed, timesteps):
    """Neurons at threshold far below any positive current fire or stay silent at every timestep alike."""
    torch.manual_seed(seed)
    layer = Layer(1.0, 2, 1e-6, 2.0)
    skeleton = Skeleton(8, 1, 3, stem_pools=(2, 3), neuron="if")
    network = Spikformer(skeleton, Architecture(16, 1, (layer,))).eval()
    for neuron in network.modules():
        if isinstance(neuron, IF):
            neuron.forward = lambda x, v_threshold, tau: (x > v_threshold).to(x.dtype)
    calibrate(network, [torch.randn(16, 1, 8, 8)])
    x = torch.randn(2, 1, 8, 8)
    one = counted(network, x, Architecture(16, 1, (layer,)))
    many = counted(network, x, Architecture(16, timesteps, (layer,)))
    assert many.spikes == timesteps * one.spikes > 0
    assert many.accumulates_per_image == timesteps * one.accumulates_per_image


def test_conventions_on_a_random_public_spikformer_are_as_far_apart_as_known():
    """Randomly initialised 4-384 at T = 4: 0.564 mJ by non-zero inputs, 0.638 by value, 5.165 strict, elsewhere."""
    torch.manual_seed(0)
    layers = tuple(Layer(4.0, 12, 1.0, 2.0) for _ in range(4))
    architecture = Architecture(384, 4, layers)
    network, batch = Spikformer(Skeleton(32, 3, 10), architecture).eval(), torch.randn(2, 3, 32, 32)
    (result,) = Engine(network).score([architecture], [batch], [batch])
    counts = OperationCounts(result.layers, result.neurons, result.images)
    assert counts.macs_per_image / 1e6 == pytest.approx(1.33 + 4 * (467.1 + 453.0 + 12.6), rel=1e-3)
    energy = {model.name: energy_mj(counts, model) for model in MODELS}
    assert energy["published"] < energy["nonzero"] < energy["sop45"] < energy["strict"]
    assert energy["published"] == pytest.approx(0.25, rel=0.25)
    assert energy["nonzero"] == pytest.approx(0.564, rel=0.2)
    assert energy["sop45"] == pytest.approx(0.638, rel=0.2)
    assert energy["strict"] == pytest.approx(5.165, rel=0.05)


# What changes the energy, and which way


def calibrated(seed, architecture, skeleton=None):
    torch.manual_seed(seed)
    network = Spikformer(skeleton or Skeleton(8, 1, 3, stem_pools=(2, 3)), architecture).eval()
    return calibrate(network, [torch.randn(16, 1, 8, 8)])


@each_model
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 10_000))
def test_removing_spikes_saves_energy(model, seed):
    """Neurons of one layer after the other forget half of their spikes; what the later ones do is left as it was."""
    torch.manual_seed(seed)
    linear, x = EntangledLinear(12, 7), torch.randint(0, 3, (3, 2, 5, 12)).float()
    few = x * (torch.rand(x.shape) < 0.5)
    rows = []
    for values in (x, few):
        holder = Alone(linear)
        with torch.no_grad(), counting(holder) as counts:
            holder(values)
        counts.neurons["neuron"] = NeuronOperations(x.numel(), tuple(int(v) for v in values.flatten(1).sum(1)))
        rows.append(energy_mj(counts, model))
    if model.name == "published":  # skips linear layers
        assert rows[1] == rows[0]
    elif model.counting.integers == "mac":  # the layer stays dense as long as one 2 is left
        assert rows[1] <= rows[0]
    else:
        assert rows[1] < rows[0]


@each_model
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 10_000), timesteps=st.integers(1, 4))
def test_cutting_timesteps_saves_energy(model, seed, timesteps):
    layer = Layer(1.0, 2, 0.5, 2.0)
    network = calibrated(seed, Architecture(16, 1, (layer,)))
    x = torch.randn(2, 1, 8, 8)
    short, long = (counted(network, x, Architecture(16, t, (layer,))) for t in (timesteps, timesteps + 1))
    assert 0 < energy_mj(short, model) < energy_mj(long, model)


@each_model
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 10_000), hidden=st.sampled_from([1.0, 2.0, 3.0]))
def test_narrowing_a_layer_saves_energy(model, seed, hidden):
    """The outputs of the last hidden layer are cut; all that comes before stays as it is."""
    wide, narrow = (Architecture(16, 2, (Layer(ratio, 2, 0.5, 2.0),)) for ratio in (hidden + 1, hidden))
    network = calibrated(seed, wide)
    x = torch.randn(2, 1, 8, 8)
    counts = [counted(network, x, architecture) for architecture in (narrow, wide)]
    energies = []
    for each in counts:
        kept = [name for name in each.layers if "fc2" not in name and name != "head"]
        each.layers = {name: each.layers[name] for name in kept}
        each.neurons = {name: row for name, row in each.neurons.items() if "fc2" not in name}
        energies.append(energy_mj(each, model))
    assert energies[0] == energies[1] if model.name == "published" else energies[0] < energies[1]


# As a metric


def test_energies_under_several_models_stand_side_by_side(space, supernet, images):
    names = ["energy_mj", "energy_mj:strict", "energy_mj:memory", "qnn_ratio", "qnn_ratio:memory"]
    evaluators = build_evaluators(names, {})
    assert [metric for evaluator in evaluators.values() for metric in evaluator.metrics] == names
    candidate = Candidate(space.largest(), supernet, images)
    values = score(candidate, evaluators)
    assert values["energy_mj"] == energy_mj(candidate.outcome.operations, SOP45)
    assert values["energy_mj:memory"] == energy_mj(candidate.outcome.operations, load_energy_model("memory"))
    assert values["energy_mj"] < values["energy_mj:strict"] < values["energy_mj:memory"]


def test_a_model_of_the_user_is_a_metric_by_the_name_of_its_file(tmp_path, space, supernet, images):
    path = tmp_path / "board.toml"
    path.write_text(
        'title = "t"\nsource = "s"\nchecked = "measured"\n[operations]\nmac = 9.2\naccumulate = 1.8\n',
        encoding="utf-8",
    )
    evaluators = build_evaluators(["energy_mj", f"energy_mj:{path}"], {})
    values = score(Candidate(space.smallest(), supernet, images), evaluators)
    assert values["energy_mj:board"] == pytest.approx(2 * values["energy_mj"])


@pytest.mark.parametrize("name", ["energy_mj:speed", "qnn_ratio:speed", "energy_mj:none.toml"])
def test_a_metric_under_an_unknown_model_is_refused(name):
    with pytest.raises(
        InputError, match=r"an energy model is one of \['sop45', .*'speed'|no energy model at none.toml"
    ):
        build_evaluators([name], {})
