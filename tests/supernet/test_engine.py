"""Scoring of many subnets at once, against copying, calibrating and counting each of them by itself.

Weights and pixels lie on a binary grid, so that products are exact; the plain path computes in double precision, on
the first seeded network of which no neuron comes so close to its threshold that rounding could tip a spike.
"""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from evaluators import counting
from spaces import Architecture, InputError, Layer
from supernet.calibrate import calibrate
from supernet.engine import Engine, in_turns, scoring
from supernet.engine.operators import NativeOperators
from supernet.engine.stages import Runner, stages_of
from supernet.engine.weights import apart, interleave, products_of
from supernet.extract import extract
from supernet.layers import EntangledBatchNorm, EntangledConv2d, EntangledLinear
from supernet.native import compiler_problem
from supernet.neurons import NEURONS, SpikingNeuron
from supernet.spikformer import Spikformer

GRID = 64
MARGIN = 2e-6  # several roundings of a potential in single precision
LARGE = Architecture(32, 3, (Layer(2.0, 4, 0.55, 1.5), Layer(2.0, 4, 0.55, 1.5), Layer(1.0, 2, 0.8, 2.0)))
MIXED = Architecture(16, 2, (Layer(0.5, 4, 0.8, 3.0), Layer(2.0, 1, 0.55, 2.0)))
SHORT = Architecture(32, 3, (Layer(2.0, 4, 0.55, 1.5),))
COUSIN = Architecture(32, 3, (Layer(2.0, 4, 0.55, 1.5), Layer(1.0, 1, 0.55, 1.5)))
FAMILY = (LARGE, MIXED, SHORT, COUSIN)

needs_compiler = pytest.mark.skipif(compiler_problem() is not None, reason="needs a C compiler")
each_executor = pytest.mark.parametrize("executor", ["reference", pytest.param("native", marks=needs_compiler)])


def on_grid(x):
    return (x * GRID).round() / GRID


@pytest.fixture
def make_supernet(make_space, enliven):
    def make_supernet(neuron="lif", executor="auto", seed=0, genes=None, **skeleton):
        space = make_space(genes, neuron=neuron, **{"image_size": 4, **skeleton})
        supernet = enliven(Spikformer(space.skeleton, space.largest(), executor), seed).eval()
        with torch.no_grad():
            for module in supernet.modules():
                if isinstance(module, EntangledConv2d | EntangledLinear):
                    module.weight.copy_(on_grid(module.weight))
        return supernet

    return make_supernet


@pytest.fixture
def make_batches(make_images):
    def make_batches(*counts, seed=0, channels=1, size=4):
        return [on_grid(make_images(n, channels, size, seed + i)) for i, n in enumerate(counts)]

    return make_batches


@pytest.fixture
def ran(monkeypatch):
    """Stages that runners have run, with whether it was for calibration."""
    ran, run = [], Runner.run

    def noted(self, stage, x, norm, events):
        ran.append((stage, isinstance(norm, scoring._Averages)))
        return run(self, stage, x, norm, events)

    monkeypatch.setattr(Runner, "run", noted)
    return ran


def one_by_one(supernet, architecture, calibration, scored):
    """Return subnet, logits and counts of the plain path, and how close a potential came to its threshold."""
    subnet, closest = extract(supernet, architecture).double(), []

    def noting(step):
        def fire(excess):
            closest.append(excess.abs().min().item())
            return step(excess)

        return fire

    for module in subnet.modules():
        if isinstance(module, SpikingNeuron):
            module.executor = "reference"
            module.equations = replace(module.equations, surrogate=noting(module.equations.surrogate))
    calibrate(subnet, [batch.double() for batch in calibration])
    with torch.no_grad(), counting(subnet) as counts:
        logits = torch.cat([subnet(batch.double()) for batch in scored])
    return subnet, logits, counts, min(closest)


def assert_same_bits(results, expected):
    assert len(results) == len(expected)
    for result, other in zip(results, expected, strict=True):
        assert torch.equal(result.logits, other.logits)
        assert (result.layers, result.neurons, result.images) == (other.layers, other.neurons, other.images)


def assert_as_one_by_one(make, architectures, executor, calibration, scored):
    """Compare the engine with the plain path, on the first network of ``make(seed)`` that rounding cannot tip."""
    for seed in range(20):
        supernet = make(seed)
        plain = [one_by_one(supernet, architecture, calibration, scored) for architecture in architectures]
        if min(closest for *_, closest in plain) > MARGIN:
            break
    else:
        raise AssertionError("no network keeps clear of its thresholds")
    engine = Engine(supernet, executor=executor)
    results = engine.score(architectures, calibration, scored)
    for architecture, result, (subnet, logits, counts, _) in zip(architectures, results, plain, strict=True):
        found = engine.statistics(architecture, calibration)
        modules = dict(subnet.named_modules())
        norms = {name for name, module in modules.items() if isinstance(module, EntangledBatchNorm)}
        assert {f"{name.rpartition('.')[0]}.bn" for name in found} == norms
        for name, row in found.items():
            norm = modules[f"{name.rpartition('.')[0]}.bn"]
            torch.testing.assert_close(row.mean, norm.running_mean, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(row.variance, norm.running_var, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(result.logits.double(), logits, rtol=1e-5, atol=1e-5)
        assert torch.equal(result.logits.argmax(dim=1), logits.argmax(dim=1))
        assert result.layers == counts.layers
        assert (result.neurons, result.images) == (counts.neurons, counts.images)


# --- against each subnet by itself


@pytest.mark.parametrize("neuron", NEURONS)
def test_the_test_networks_spike_everywhere_and_nowhere_always(make_supernet, make_batches, neuron):
    """Else the comparisons below would compare silence."""
    subnet, _, _, _ = one_by_one(make_supernet(neuron), LARGE, make_batches(3, 2), make_batches(2))
    rates = []
    for module in subnet.modules():
        if isinstance(module, SpikingNeuron):
            module.register_forward_hook(lambda _m, _i, out: rates.append(out.mean().item()))
    logits = subnet(make_batches(2, seed=9)[0].double())
    assert len(rates) == 5 + 7 * 3
    assert all(0.01 < rate < 0.99 for rate in rates), rates
    assert logits.std() > 0.01


@each_executor
@pytest.mark.parametrize("soft_reset", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("neuron", NEURONS)
def test_the_engine_does_what_each_subnet_does_by_itself(make_supernet, make_batches, neuron, soft_reset, executor):
    def make(seed):
        return make_supernet(neuron, executor, seed, soft_reset=soft_reset)

    assert_as_one_by_one(make, FAMILY, executor, make_batches(3, 2), make_batches(2, 1, seed=9))


@each_executor
@pytest.mark.parametrize(
    ("channels", "size", "pools"),
    [(3, 4, [1, 3]), (3, 7, [0, 2]), (1, 5, []), (1, 5, [0, 1, 2, 3])],
    ids=["colour", "odd colour", "odd, without pooling", "one token"],
)
def test_ragged_sizes_and_narrow_widths_are_those_of_each_subnet(
    make_supernet, make_batches, channels, size, pools, executor
):
    genes = {"embed_dim": [8, 24, 40], "mlp_ratio": [0.5, 0.625]}
    layer = Layer(0.625, 2, 0.55, 1.5)  # hidden widths of 5, 15 and 25
    family = [Architecture(width, 2, (layer, Layer(0.5, 1, 0.55, 2.0))) for width in (8, 24, 40)]

    def make(seed):
        return make_supernet("lif", executor, seed, genes, in_channels=channels, image_size=size, stem_pools=pools)

    calibration = make_batches(3, 2, channels=channels, size=size)
    assert_as_one_by_one(make, family, executor, calibration, make_batches(1, seed=9, channels=channels, size=size))


def test_silent_layers_and_saturated_ones_are_those_of_each_subnet(make_supernet, make_batches):
    """No event at all, and so many that products are dense."""

    def make(seed):
        supernet = make_supernet(seed=seed)
        with torch.no_grad():
            supernet.stem.stages[1].bn.bias.fill_(50.0)
            supernet.blocks[0].attention.v.bn.bias.fill_(-50.0)
            supernet.blocks[0].fc1.bn.bias.fill_(50.0)
        return supernet

    assert_as_one_by_one(make, FAMILY, "auto", make_batches(3), make_batches(2, seed=9))


# --- what is shared


def test_what_else_is_scored_changes_no_bit(make_supernet, make_batches):
    supernet, calibration, scored = make_supernet(), make_batches(6, 5), make_batches(4, 3, seed=9)
    engine = Engine(supernet)
    alone = [engine.score([architecture], calibration, scored)[0] for architecture in FAMILY]
    assert_same_bits(engine.score(FAMILY, calibration, scored), alone)
    assert_same_bits(engine.score(FAMILY[::-1], calibration, scored), alone[::-1])
    assert_same_bits(engine.score(FAMILY[1:3], calibration, scored), alone[1:3])
    assert_same_bits(Engine(supernet).score(FAMILY, iter(calibration), iter(scored)), alone)


@pytest.mark.parametrize("memory", [0, 1, 5_000, 50_000])
def test_memory_changes_no_bit(make_supernet, make_batches, memory):
    supernet, calibration, scored = make_supernet(), make_batches(6, 5), make_batches(4, seed=9)
    expected = Engine(supernet).score(FAMILY, calibration, scored)
    assert_same_bits(Engine(supernet, memory=memory).score(FAMILY, calibration, scored), expected)


@needs_compiler
def test_the_number_of_threads_changes_no_bit(make_supernet, make_batches):
    supernet, calibration, scored = make_supernet(), make_batches(16, 15), make_batches(12, seed=9)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(Engine(supernet).score(FAMILY, calibration, scored))
    finally:
        torch.set_num_threads(before)
    assert_same_bits(results[1] + results[2], 2 * results[0])


def test_an_equal_prefix_is_run_once_per_batch(make_supernet, make_batches, ran):
    Engine(make_supernet()).score((LARGE, SHORT, COUSIN, LARGE), make_batches(6, 5), make_batches(4, seed=9))
    distinct = {stages_of(a)[: level + 1] for a in FAMILY if a != MIXED for level in range(len(stages_of(a)))}
    assert len(distinct) == 1 + 2 + 4 + 2  # stem, first block, the rest of LARGE and of COUSIN
    assert sum(calibrating for _, calibrating in ran) == 2 * len(distinct)
    assert sum(not calibrating for _, calibrating in ran) == len(distinct)


def test_without_memory_a_subnet_goes_alone_from_where_it_parts(make_supernet, make_batches, ran):
    Engine(make_supernet(), memory=0).score((LARGE, COUSIN), make_batches(6), make_batches(4, seed=9))
    together = len(stages_of(LARGE)) + len(stages_of(COUSIN)) - 3
    assert [calibrating for _, calibrating in ran] == [True] * together + [False] * together
    ran.clear()
    Engine(make_supernet(), memory=0).score((LARGE, COUSIN, MIXED), make_batches(6), make_batches(4, seed=9))
    alone, shared = sum(len(stages_of(a)) for a in (LARGE, COUSIN, MIXED)), together + len(stages_of(MIXED))
    assert [calibrating for _, calibrating in ran] == [True] * alone + [False] * shared


def test_equal_architectures_have_equal_results_and_none_have_none(make_supernet, make_batches):
    engine, calibration, scored = Engine(make_supernet()), make_batches(6), make_batches(4, seed=9)
    first, _, again = engine.score((MIXED, SHORT, MIXED), calibration, scored)
    assert_same_bits([again], [first])
    assert engine.score((), calibration, scored) == []


# --- batches


@each_executor
def test_scored_images_do_not_depend_on_their_batches(make_supernet, make_batches, executor):
    supernet, calibration, (images,) = make_supernet(executor=executor), make_batches(6), make_batches(7, seed=9)
    engine = Engine(supernet, executor=executor)
    together = engine.score(FAMILY, calibration, [images])
    parts = [engine.score(FAMILY, calibration, torch.split(images, size)) for size in (1, 3, 6)]
    one_by_one = Engine(supernet, executor=executor, images_per_pass=1)
    assert (engine.images_per_pass > 7, one_by_one.images_per_pass) == (True, 1)
    parts.append(one_by_one.score(FAMILY, calibration, [images]))
    for results in parts:
        for result, expected in zip(results, together, strict=True):
            torch.testing.assert_close(result.logits, expected.logits, rtol=1e-6, atol=1e-6)
            assert (result.layers, result.neurons, result.images) == (expected.layers, expected.neurons, 7)


def test_statistics_are_the_average_of_those_of_each_batch(make_supernet, make_batches):
    engine, batches = Engine(make_supernet()), make_batches(6, 4, 5)
    each = [engine.statistics(MIXED, [batch]) for batch in batches]
    for name, row in engine.statistics(MIXED, batches).items():
        for part in ("mean", "variance"):
            expected = torch.stack([getattr(one[name], part) for one in each]).mean(dim=0)
            torch.testing.assert_close(getattr(row, part), expected, rtol=1e-6, atol=1e-6)  # kept in float32


def test_no_scored_images_give_no_logits(make_supernet, make_batches):
    (result,) = Engine(make_supernet()).score([MIXED], make_batches(6), [])
    assert (result.logits.shape, result.images, result.spikes) == ((0, 3), 0, 0)


# --- refusals, and what stays as it was


def test_calibration_without_images_is_refused(make_supernet, make_batches):
    with pytest.raises(ValueError, match="at least one batch of training images, got none"):
        Engine(make_supernet()).score([MIXED], [], make_batches(4))


def test_statistics_of_no_images_are_refused(make_supernet):
    with pytest.raises(ValueError, match="at least one batch of training images, got none"):
        Engine(make_supernet()).statistics(MIXED, [])


def test_an_architecture_that_does_not_fit_is_refused_before_anything_is_run(make_supernet, make_batches, ran):
    deep = Architecture(32, 3, LARGE.layers * 2)
    with pytest.raises(InputError, match="an architecture must fit into the network that runs it"):
        Engine(make_supernet()).score([MIXED, deep], make_batches(4), make_batches(4))
    assert ran == []


@pytest.mark.parametrize("precision", ["exact", "bf16", "int8"])
def test_scoring_leaves_the_supernet_and_the_global_generators_alone(
    make_supernet, make_batches, global_states, precision
):
    supernet = make_supernet("plif").train()
    kept, states = {name: t.clone() for name, t in supernet.state_dict().items()}, global_states()
    engine = Engine(supernet, precision)
    first = engine.score(FAMILY, make_batches(6), make_batches(4, seed=9))
    assert_same_bits(engine.score(FAMILY, make_batches(6), make_batches(4, seed=9)), first)
    assert all(torch.equal(supernet.state_dict()[name], tensor) for name, tensor in kept.items())
    assert all(module.training for module in supernet.modules())
    assert all(parameter.grad is None for parameter in supernet.parameters())
    assert global_states() == states
    assert not first[0].logits.requires_grad


# --- precision


def int8_by_hand(weight):
    steps = weight.abs().flatten(1).amax(dim=1).view(-1, *[1] * (weight.dim() - 1)) / 127
    return torch.round(weight / steps).clamp(-127, 127) * steps


@each_executor
@pytest.mark.parametrize(("precision", "by_hand"), [("bf16", lambda w: w.bfloat16().float()), ("int8", int8_by_hand)])
def test_rounded_products_are_exact_products_of_rounded_weights(
    make_supernet, make_batches, monkeypatch, precision, by_hand, executor
):
    """A dense bfloat16 product also rounds its currents where the processor is fast at that: not here."""
    for module in ("supernet.products", "supernet.engine.operators"):
        monkeypatch.setattr(f"{module}.fast_bfloat16", lambda: False)
    supernet, plain = make_supernet(executor=executor), make_supernet(executor=executor)
    rounded = [m for m in supernet.modules() if isinstance(m, EntangledConv2d | EntangledLinear)][1:-1]
    with torch.no_grad():
        for layer in rounded:  # on a grid of 1/512, which bf16 has too few bits for; the step of int8 becomes 1/16
            layer.weight.copy_((layer.weight * 1024 / layer.weight.std()).round() / 512).clamp_(-7, 7)
            layer.weight.flatten(1)[:, 0] = 127 / 16
    plain.load_state_dict(supernet.state_dict())
    with torch.no_grad():
        for name, layer in plain.named_modules():
            if isinstance(layer, EntangledConv2d | EntangledLinear) and name not in ("stem.stages.0.conv", "head"):
                layer.weight.copy_(by_hand(layer.weight))
    calibration, scored = make_batches(6, 5), make_batches(4, seed=9)
    exact = Engine(supernet, "exact", executor).score(FAMILY, calibration, scored)
    results = Engine(supernet, precision, executor).score(FAMILY, calibration, scored)
    expected = Engine(plain, "exact", executor).score(FAMILY, calibration, scored)
    for result, other, unrounded in zip(results, expected, exact, strict=True):
        torch.testing.assert_close(result.logits, other.logits, rtol=1e-5, atol=1e-5)
        assert (result.layers, result.neurons) == (other.layers, other.neurons)
        assert not torch.allclose(result.logits, unrounded.logits, rtol=1e-5, atol=1e-5)


@needs_compiler
def test_sparse_and_dense_products_agree(make_supernet, make_batches, monkeypatch):
    supernet, calibration, scored = make_supernet(), make_batches(6), make_batches(4, seed=9)
    results = []
    for density in (-1.0, 300.0):
        monkeypatch.setattr(NativeOperators, "_break_even", lambda _, density=density: density)
        results.append(Engine(supernet, executor="native").score(FAMILY, calibration, scored))
    assert_same_bits(*results)


# --- how weights and spikes lie in memory


@pytest.mark.parametrize("width", [8, 24, 40])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_taking_turns_is_undone_for_every_narrower_width(parts, width):
    rows = [torch.randint(0, 256, (40, 5), generator=torch.Generator().manual_seed(p)) for p in range(parts)]
    together = interleave(rows)[: parts * width]  # a prefix holds the prefixes of all
    split = apart(together.t().contiguous().to(torch.uint8), parts)
    for part, expected in zip(split, rows, strict=True):
        assert torch.equal(part, expected[:width].t().to(torch.uint8))


@pytest.mark.parametrize("neuron", NEURONS)
def test_each_layer_belongs_to_one_product(make_supernet, neuron):
    supernet = make_supernet(neuron)
    found = products_of(supernet, "exact")
    layers = {n for n, m in supernet.named_modules() if isinstance(m, EntangledConv2d | EntangledLinear)} - {"head"}
    assert sorted(name for row in found.values() for name in row.names) == sorted(layers)
    assert ("blocks.0.attention.qkv" in found) == (neuron != "plif")  # neurons that learn differ from one another


# --- order


def test_in_turns_puts_equal_prefixes_side_by_side(make_space):
    space = make_space({"v_threshold": [0.55, 0.8]})
    architectures = [*islice(space.neighbours(LARGE), 200), *FAMILY]
    ordered = list(in_turns(architectures))
    assert sorted(a.key for a in ordered) == sorted(a.key for a in architectures)
    for level in range(1, 8):
        prefixes = [stages_of(a)[:level] for a in ordered if len(stages_of(a)) >= level]
        runs = [p for i, p in enumerate(prefixes) if i == 0 or prefixes[i - 1] != p]
        assert len(runs) == len(set(prefixes)), f"level {level}"
