"""The Spikformer against a second one written from the paper, its genes, slices and parameters."""

from dataclasses import replace
from itertools import pairwise
from math import prod

import pytest
import torch
import torch.nn.functional as F

from spaces import LAYER_GENES, Architecture, InputError, Layer, Skeleton, load_space
from supernet.layers import EntangledBatchNorm
from supernet.neurons import NEURONS
from supernet.spikformer import Spikformer, build_supernet

LARGE = Architecture(32, 3, (Layer(2.0, 4, 0.5, 1.5), Layer(2.0, 4, 0.5, 1.5), Layer(2.0, 4, 0.5, 1.5)))
MIXED = Architecture(16, 2, (Layer(0.5, 4, 0.75, 3.0), Layer(2.0, 1, 0.5, 2.0)))

# --- a second Spikformer V1, one timestep, head and image at a time


class ByHand:
    """Spikformer V1 from a state dict, with nothing but convolutions and matrix products of torch."""

    def __init__(self, state, skeleton, architecture, training=False):
        self.state, self.skeleton, self.architecture, self.training = state, skeleton, architecture, training

    def neuron(self, name, currents, v_threshold, tau):
        v, spikes = torch.zeros_like(currents[0]), []
        for x in currents:
            if self.skeleton.neuron == "lif":
                u = v + (x - v) / tau
            elif self.skeleton.neuron == "plif":
                leak = 1 / (1 + (tau - 1) * torch.exp(-self.state[f"{name}.neuron.w"]))
                u = v + (x - v) * leak
            else:
                u = v + x
            s = torch.where(u >= v_threshold, 1.0, 0.0).to(u.dtype)
            v = u - s * v_threshold if self.skeleton.soft_reset else torch.where(s > 0, 0.0, u)
            spikes.append(s)
        return spikes

    def norm(self, name, currents, channel_axis):
        """Normalise a list of T tensors by running statistics, or by those over all timesteps in training."""
        state, n = self.state, currents[0].shape[channel_axis]
        together = torch.stack(currents).movedim(channel_axis + 1, -1)
        mean, var = state[f"{name}.bn.running_mean"][:n], state[f"{name}.bn.running_var"][:n]
        if self.training:
            flat = together.reshape(-1, n)
            mean, var = flat.mean(0), flat.var(0, correction=0)
        scaled = (together - mean) / (var + 1e-5).sqrt()
        scaled = scaled * state[f"{name}.bn.weight"][:n] + state[f"{name}.bn.bias"][:n]
        return list(scaled.movedim(-1, channel_axis + 1))

    def convolve(self, name, xs, width, layer):
        weight = self.state[f"{name}.conv.weight"][:width, : xs[0].shape[1]]
        currents = [F.conv2d(x, weight, padding=1) for x in xs]
        return self.neuron(name, self.norm(name, currents, 1), layer.v_threshold, layer.tau)

    def project(self, name, xs, width, layer):
        weight = self.state[f"{name}.linear.weight"][:width, : xs[0].shape[-1]]
        bias = self.state[f"{name}.linear.bias"][:width]
        currents = [x @ weight.T + bias for x in xs]
        return self.neuron(name, self.norm(name, currents, 2), layer.v_threshold, layer.tau)

    def attend(self, name, xs, layer):
        width = self.architecture.embed_dim
        q, k, v = (self.project(f"{name}.{part}", xs, width, layer) for part in "qkv")
        size, mixed = width // layer.num_heads, []
        for t in range(len(xs)):
            heads = []
            for head in range(layer.num_heads):
                at = slice(head * size, (head + 1) * size)
                scores = torch.einsum("bnd,bmd->bnm", q[t][..., at], k[t][..., at])
                heads.append(torch.einsum("bnm,bmd->bnd", scores, v[t][..., at]) * 0.125)
            mixed.append(torch.cat(heads, dim=-1))
        spikes = self.neuron(name, mixed, 0.5 * layer.v_threshold, layer.tau)
        return self.project(f"{name}.proj", spikes, width, layer)

    def tokens(self, images):
        run = self.architecture
        first, x = run.layers[0], [images] * run.timesteps
        for stage, width in enumerate((run.embed_dim // 8, run.embed_dim // 4, run.embed_dim // 2, run.embed_dim)):
            x = self.convolve(f"stem.stages.{stage}", x, width, first)
            if stage in self.skeleton.stem_pools:
                x = [F.max_pool2d(one, kernel_size=3, stride=2, padding=1) for one in x]
        place = self.convolve("stem.position", x, run.embed_dim, first)
        x = [a + b for a, b in zip(x, place, strict=True)]
        return [one.flatten(2).transpose(1, 2) for one in x]  # (B, N, D) each

    def logits(self, images):
        x = self.tokens(images)
        for index, layer in enumerate(self.architecture.layers):
            block, width = f"blocks.{index}", self.architecture.embed_dim
            x = [a + b for a, b in zip(x, self.attend(f"{block}.attention", x, layer), strict=True)]
            hidden = self.project(f"{block}.fc1", x, round(width * layer.mlp_ratio), layer)
            x = [a + b for a, b in zip(x, self.project(f"{block}.fc2", hidden, width, layer), strict=True)]
        features = torch.stack([one.mean(dim=1) for one in x]).mean(dim=0)
        return features @ self.state["head.weight"][:, : features.shape[-1]].T + self.state["head.bias"]


@pytest.fixture
def lively(make_space, lively_supernet):
    """A supernet in double precision, so that rounding cannot tip a spike, and its space."""

    def lively(neuron="lif", **skeleton):
        space = make_space(neuron=neuron, **skeleton)
        return lively_supernet(space).double().eval(), space

    return lively


def for_neuron(architecture, neuron):
    layers = architecture.layers
    return (
        replace(architecture, layers=tuple(replace(layer, tau=2.0) for layer in layers))
        if neuron == "if"
        else architecture
    )


def test_the_test_networks_spike_everywhere_and_nowhere_always(lively, make_images):
    """Else the comparisons below would compare silence."""
    supernet, _ = lively()
    rates = {}
    for name, module in supernet.named_modules():
        if name.endswith("neuron"):
            module.register_forward_hook(lambda _m, _i, out, name=name: rates.update({name: out.mean().item()}))
    for architecture in (LARGE, MIXED):
        rates.clear()
        supernet(make_images(3).double(), architecture)
        assert len(rates) == 5 + 7 * architecture.depth
        assert all(0.02 < rate < 0.95 for rate in rates.values()), rates


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("soft_reset", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("architecture", [LARGE, MIXED], ids=["largest", "slice"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_logits_are_those_of_the_spikformer_of_the_paper(
    lively, make_images, neuron, soft_reset, architecture, training
):
    supernet, space = lively(neuron, soft_reset=soft_reset)
    architecture = for_neuron(architecture, neuron)
    state = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    expected = ByHand(state, space.skeleton, architecture, training).logits(make_images(3).double())
    logits = supernet.train(training)(make_images(3).double(), architecture)
    torch.testing.assert_close(logits.detach(), expected, rtol=1e-9, atol=1e-9)
    assert expected.std() > 0.01


@pytest.mark.parametrize("pools", [(), (0,), (1, 3), (2, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_stem_is_that_of_the_paper_whatever_its_poolings(lively, make_images, pools, channels):
    supernet, space = lively(stem_pools=list(pools), in_channels=channels, image_size=9)
    images = make_images(2, channels, 9).double()
    expected = torch.stack(ByHand(supernet.state_dict(), space.skeleton, MIXED).tokens(images))
    tokens = supernet.stem(images, MIXED.timesteps, MIXED.embed_dim, MIXED.layers[0])
    assert torch.equal(tokens, expected)
    assert tokens.shape == (2, 2, space.skeleton.grid_size**2, 16)
    assert set(tokens.unique().tolist()) == {0.0, 1.0, 2.0}


# --- genes


def changes():
    """Every gene of LARGE, and the architecture with that gene changed."""
    yield "embed_dim", replace(LARGE, embed_dim=16)
    yield "timesteps", replace(LARGE, timesteps=2)
    yield "depth", replace(LARGE, layers=LARGE.layers[:2])
    other = {"mlp_ratio": 1.0, "num_heads": 2, "v_threshold": 0.75, "tau": 3.0}
    assert tuple(other) == LAYER_GENES
    for index in range(LARGE.depth):
        for gene, value in other.items():
            layers = list(LARGE.layers)
            layers[index] = replace(layers[index], **{gene: value})
            yield f"{gene}_{index}", replace(LARGE, layers=tuple(layers))


CHANGES = dict(changes())


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("gene", CHANGES)
def test_each_gene_changes_the_output(lively, make_images, neuron, gene):
    supernet, _ = lively(neuron)
    images = make_images(4).double()
    before, after = supernet(images, LARGE), supernet(images, CHANGES[gene])
    if neuron == "if" and gene.startswith("tau"):
        assert torch.equal(before, after)
    else:
        assert (before - after).abs().max() > 1e-3


@pytest.mark.parametrize("gene", CHANGES)
def test_the_stem_feels_the_first_layer_s_neuron_and_no_other_layer_gene(lively, make_images, gene):
    supernet, _ = lively()
    images, changed = make_images(4).double(), CHANGES[gene]
    before, after = (supernet.stem(images, run.timesteps, run.embed_dim, run.layers[0]) for run in (LARGE, changed))
    felt = gene in {"embed_dim", "timesteps", "v_threshold_0", "tau_0"}
    assert torch.equal(before, after) != felt


def test_every_neuron_runs_with_its_block_s_genes_and_attention_with_half_the_threshold(lively, make_images):
    supernet, _ = lively()
    calls = {}
    for name, module in supernet.named_modules():
        if name.endswith("neuron"):
            module.register_forward_pre_hook(lambda _m, args, name=name: calls.update({name: args[1:]}))
    supernet(make_images(2).double(), MIXED)
    expected = {f"stem.stages.{stage}.neuron": (0.75, 3.0) for stage in range(4)} | {
        "stem.position.neuron": (0.75, 3.0)
    }
    for index, (threshold, tau) in enumerate([(0.75, 3.0), (0.5, 2.0)]):
        parts = ("attention.q", "attention.k", "attention.v", "attention.proj", "fc1", "fc2")
        expected |= {f"blocks.{index}.{part}.neuron": (threshold, tau) for part in parts}
        expected[f"blocks.{index}.attention.neuron"] = (threshold / 2, tau)
    assert calls == expected


@pytest.mark.parametrize("width", [16, 32])
def test_the_stem_is_sliced_at_an_eighth_a_quarter_a_half_and_the_whole_width(lively, make_images, width):
    supernet, _ = lively()
    widths = []
    for stage in (*supernet.stem.stages, supernet.stem.position):
        stage.register_forward_hook(lambda _m, _i, out: widths.append(out.shape[2]))
    supernet(make_images(2).double(), replace(LARGE, embed_dim=width))
    assert widths == [width // 8, width // 4, width // 2, width, width]


def test_a_slice_reads_nothing_outside_its_leading_weights(lively, make_images):
    """NaN everywhere outside: one number too many would show in the logits."""
    supernet, space = lively("plif")
    images = make_images(3).double()
    before = supernet(images, MIXED)
    shapes = Spikformer(space.skeleton, MIXED).state_dict()
    with torch.no_grad():
        for name, tensor in supernet.state_dict().items():
            if name not in shapes:
                tensor.fill_(torch.nan if tensor.is_floating_point() else 0)
                continue
            corner = tuple(slice(size) for size in shapes[name].shape)
            inside = tensor[corner].clone()
            tensor.fill_(torch.nan) if tensor.is_floating_point() else None
            tensor[corner] = inside
    assert torch.equal(supernet(images, MIXED), before)
    assert supernet(images, LARGE).isnan().any()


# --- independence


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("architecture", [LARGE, MIXED], ids=["largest", "slice"])
def test_the_result_for_an_image_does_not_depend_on_its_neighbours(lively, make_images, neuron, architecture):
    supernet, _ = lively(neuron)
    architecture = for_neuron(architecture, neuron)
    images = make_images(5).double()
    together = supernet(images, architecture)
    for index in range(5):
        torch.testing.assert_close(
            supernet(images[index : index + 1], architecture)[0], together[index], rtol=0, atol=1e-9
        )
    torch.testing.assert_close(supernet(images.flip(0), architecture), together.flip(0), rtol=0, atol=1e-9)
    neighbours = torch.cat([images[:1], 100 * make_images(3, seed=5).double()])
    torch.testing.assert_close(supernet(neighbours, architecture)[0], together[0], rtol=0, atol=1e-9)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_evaluation_changes_nothing_in_the_network_and_no_global_state(lively, make_images, global_states):
    supernet, _ = lively("plif")
    before, states = {name: t.clone() for name, t in supernet.state_dict().items()}, global_states()
    first = supernet(make_images(3).double(), MIXED)
    supernet(make_images(3, seed=1).double(), LARGE)
    assert torch.equal(supernet(make_images(3).double(), MIXED), first)
    assert all(torch.equal(supernet.state_dict()[name], tensor) for name, tensor in before.items())
    assert global_states() == states


def test_without_an_architecture_a_network_runs_its_own(lively, make_images):
    supernet, space = lively()
    assert supernet.architecture == space.largest() == LARGE
    assert torch.equal(supernet(make_images(2).double()), supernet(make_images(2).double(), LARGE))


# --- parameters


def test_spikformer_4_384_has_exactly_9_324_730_parameters():
    layer = Layer(4.0, 12, 1.0, 2.0)
    with torch.device("meta"):
        model = Spikformer(Skeleton(32, 3, 10), Architecture(384, 4, (layer,) * 4))
    assert sum(p.numel() for p in model.parameters()) == 9_324_730
    # 9,330,874 of the public model, less four blocks of two unused norms with weight and bias
    assert 9_324_730 + 4 * 2 * 2 * 384 == 9_330_874


@pytest.mark.parametrize(
    ("name", "width", "depth"), [("digits", 48, 2), ("grey28", 96, 3), ("auto-spikformer", 384, 4)]
)
def test_a_supernet_has_the_parameters_of_its_largest_architecture(name, width, depth):
    space = load_space(name)
    with torch.device("meta"):
        supernet = Spikformer(space.skeleton, space.largest())
    w, c, ratio = width, space.skeleton.in_channels, space.genes["mlp_ratio"].choices[-1]
    channels = [c, w // 8, w // 4, w // 2, w, w]
    stem = sum(9 * a * b + 2 * b for a, b in pairwise(channels))
    hidden = int(w * ratio)
    block = 4 * (w * w + w + 2 * w) + (w * hidden + 3 * hidden) + (hidden * w + 3 * w)
    assert sum(p.numel() for p in supernet.parameters()) == stem + depth * block + 10 * (w + 1)


def test_each_plif_neuron_owns_one_parameter_and_the_others_none(make_space):
    plif, lif = (build_supernet(make_space(neuron=neuron), 0) for neuron in ("plif", "lif"))
    extra = set(plif.state_dict()) - set(lif.state_dict())
    assert len(extra) == 5 + 7 * 3
    assert all(plif.state_dict()[name].shape == () and name.endswith("neuron.w") for name in extra)


def test_every_parameter_of_the_largest_architecture_receives_gradient(lively, make_images):
    supernet, _ = lively("plif")
    supernet.train()(make_images(4).double()).square().sum().backward()
    silent = [name for name, p in supernet.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # a bias in front of batch normalisation is cancelled by it
    assert all(p.grad is not None and p.grad.isfinite().all() for p in supernet.parameters())
    assert {name for name in silent if not name.endswith("linear.bias")} == set()


# --- what fits


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(40, 1, (replace(LARGE.layers[0], mlp_ratio=1.0),)),
        replace(LARGE, layers=LARGE.layers + LARGE.layers[:1]),
        replace(LARGE, layers=(LARGE.layers[0], replace(LARGE.layers[1], mlp_ratio=2.25), LARGE.layers[2])),
    ],
    ids=["wider", "deeper", "wider-hidden"],
)
def test_an_architecture_that_is_too_large_is_refused(lively, make_images, architecture):
    supernet, _ = lively()
    message = r"embed_dim <= 32, depth <= 3, hidden widths <= \[64, 64, 64\]; got .*'embed_dim'"
    with pytest.raises(InputError, match=message):
        supernet.check_fit(architecture)
    with pytest.raises(InputError, match=message):
        supernet(make_images(2).double(), architecture)


@pytest.mark.parametrize("architecture", [LARGE, MIXED, replace(MIXED, timesteps=9)], ids=["own", "slice", "long"])
def test_an_architecture_that_is_no_larger_fits_for_any_number_of_timesteps(lively, make_images, architecture):
    supernet, _ = lively()
    supernet.check_fit(architecture)
    assert supernet(make_images(2).double(), architecture).shape == (2, 3)


def test_a_narrow_architecture_may_have_a_larger_mlp_ratio_if_its_hidden_width_fits(lively, make_images):
    supernet, _ = lively()
    layer = Layer(4.0, 4, 0.5, 1.5)
    assert supernet(make_images(2).double(), Architecture(16, 1, (layer,))).isfinite().all()


# --- building


def test_a_supernet_follows_from_its_seed_and_leaves_the_global_generators_alone(make_space, global_states):
    space, states = make_space(), global_states()
    first = build_supernet(space, 5).state_dict()
    assert global_states() == states
    torch.manual_seed(99)
    again, other = build_supernet(space, 5).state_dict(), build_supernet(space, 6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_building_a_supernet_leaves_the_generators_of_cuda_devices_alone(make_space):
    torch.cuda.manual_seed(1)
    before = torch.cuda.get_rng_state()
    build_supernet(make_space(), 5)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_a_fresh_network_has_small_weights_no_biases_and_neutral_statistics(make_space):
    supernet = build_supernet(make_space({"embed_dim": [64]}), 0)
    for module in supernet.modules():
        if isinstance(module, torch.nn.Linear):
            assert 0.015 < module.weight.std() < 0.025
            assert (module.bias == 0).all()
        elif isinstance(module, EntangledBatchNorm):
            assert (module.running_mean == 0).all()
            assert (module.running_var == 1).all()


def test_the_smallest_architectures_run_on_a_single_pixel(make_space, make_images):
    space = make_space({"embed_dim": [8], "num_heads": [1]}, image_size=1, stem_pools=[0, 1, 2, 3])
    model = Spikformer(space.skeleton, space.smallest()).eval()
    assert model(make_images(1, size=1)).shape == (1, prod((3,)))
