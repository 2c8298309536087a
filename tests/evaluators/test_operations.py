"""Counts of operations, against loops over every spike and synapse and against all-ones layers."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from evaluators import counting
from supernet.layers import EntangledConv2d, EntangledLinear
from supernet.neurons.lif import LIF
from supernet.spikformer import SpikeProduct


class Holder(nn.Module):
    """Runs one layer where a Spikformer would run all of its own; names mean nothing."""

    def __init__(self, layer):
        super().__init__()
        stage, position = nn.Module(), nn.Module()
        stage.conv, position.neuron = EntangledConv2d(1, 1, 1), LIF()
        self.stem = nn.Module()
        self.stem.stages, self.stem.position = nn.ModuleList([stage]), position
        self.head = EntangledLinear(1, 1)
        self.anything = layer
        self.eval()

    def forward(self, *inputs, **options):
        return self.anything(*inputs, **options)


def count(layer, *inputs, **options):
    holder = Holder(layer)
    with torch.no_grad(), counting(holder) as counts:
        holder(*inputs, **options)
    return counts.layers["anything"]


def integers(*shape, seed=0, high=3):
    return torch.randint(0, high + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def synapses_of_convolution(x, out_channels, kernel, stride, padding):
    """Follow each arriving integer along each of its synapses, and count; also count all synapses."""
    height, width = x.shape[2:]
    rows = (height + 2 * padding[0] - kernel[0]) // stride[0] + 1
    columns = (width + 2 * padding[1] - kernel[1]) // stride[1] + 1
    arrived = 0
    for image, channel, y, x_ in product(*map(range, x.shape)):
        value = int(x[image, channel, y, x_])
        for row, column in product(range(rows), range(columns)):
            k_y, k_x = y - (row * stride[0] - padding[0]), x_ - (column * stride[1] - padding[1])
            if 0 <= k_y < kernel[0] and 0 <= k_x < kernel[1]:
                arrived += value * out_channels
    dense = x.shape[0] * rows * columns * out_channels * x.shape[1] * kernel[0] * kernel[1]
    return arrived, dense


def brute_force(x, out_channels, kernel, stride, padding):
    """Return accumulates of non-zero inputs, values that arrive and those above 0, one by one."""
    spikes = (x > 0).float()
    reached, _ = synapses_of_convolution(spikes, out_channels, kernel, stride, padding)
    events = sum(int(x[index]) > 0 for index in product(*map(range, x.shape)))
    return reached, x.numel(), events


CONVOLUTIONS = {
    "as in the stem": ((3, 3), (1, 1), (1, 1), (5, 7)),
    "even kernel": ((2, 4), (1, 1), (0, 1), (5, 6)),
    "stride 2 on odd sizes": ((3, 3), (2, 2), (1, 1), (5, 7)),
    "stride beyond the kernel": ((1, 2), (3, 3), (0, 0), (7, 5)),
    "wide padding": ((3, 2), (2, 1), (2, 1), (4, 3)),
    "single pixel": ((3, 3), (1, 1), (1, 1), (1, 1)),
}


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution_counts_each_value_at_each_of_its_synapses(kernel, stride, padding, size):
    conv = EntangledConv2d(2, 3, kernel, stride=stride, padding=padding)
    x = integers(2, 2, *size)
    row = count(conv, x)
    assert (row.accumulates, row.macs) == synapses_of_convolution(x, 3, kernel, stride, padding)
    assert (row.kind, row.analog) == ("convolution", False)
    assert (row.nonzero, row.inputs, row.events) == brute_force(x, 3, kernel, stride, padding)
    assert (row.weights, row.outputs) == (conv.weight.numel(), conv(x).numel())


SIZES = st.tuples(st.integers(1, 5), st.integers(1, 5))
SHORT = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None, max_examples=30)
@given(
    size=SIZES,
    kernel=SHORT,
    stride=SHORT,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    channels=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    seed=st.integers(0, 99),
)
def test_any_convolution_counts_every_spike_at_every_synapse(size, kernel, stride, padding, channels, seed):
    assume(all(n + 2 * p >= k for n, p, k in zip(size, padding, kernel, strict=True)))
    conv = EntangledConv2d(*channels, kernel, stride=stride, padding=padding)
    x = integers(2, channels[0], *size, seed=seed)
    row = count(conv, x)
    assert (row.accumulates, row.macs) == synapses_of_convolution(x, channels[1], kernel, stride, padding)
    assert (row.nonzero, row.inputs, row.events) == brute_force(x, channels[1], kernel, stride, padding)


@settings(deadline=None, max_examples=30)
@given(
    tokens=st.integers(1, 5),
    width=st.integers(1, 5),
    heads=st.integers(1, 3),
    seed=st.integers(0, 999),
    t=st.integers(1, 2),
)
def test_attention_counts_every_pair_of_spikes_that_meet(tokens, width, heads, seed, t):
    """q kᵀ and then its product with v, by loops over images, heads, queries, keys and channels."""
    q, k, v = (integers(t, 2, heads, tokens, width, seed=seed + part, high=1) for part in range(3))
    scores = torch.zeros(t, 2, heads, tokens, tokens)
    met = mixed = mixed_nonzero = 0
    for *head, i, j in product(range(t), range(2), range(heads), range(tokens), range(tokens)):
        for channel in range(width):
            if q[*head, i, channel] and k[*head, j, channel]:
                scores[*head, i, j] += 1
                met += 1
    for *head, i, j, channel in product(range(t), range(2), range(heads), range(tokens), range(tokens), range(width)):
        if v[*head, j, channel]:
            mixed += int(scores[*head, i, j])
            mixed_nonzero += int(scores[*head, i, j] > 0)
    first = count(SpikeProduct(), q, k.transpose(-2, -1))
    second = count(SpikeProduct(), scores, v)
    assert (first.accumulates, first.nonzero, first.binary) == (met, met, True)
    assert (second.accumulates, second.nonzero) == (mixed, mixed_nonzero)
    assert (first.inputs, first.events) == (2 * q.numel(), int(q.sum() + k.sum()))
    assert (second.inputs, second.events) == (scores.numel() + v.numel(), int((scores > 0).sum() + v.sum()))
    assert (first.weights, second.weights) == (0, 0)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 6), widths=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 999))
def test_any_linear_layer_counts_every_spike_at_every_output(rows, widths, seed):
    x = integers(2, rows, widths[0], seed=seed)
    row = count(EntangledLinear(*widths), x)
    value = nonzero = events = 0
    for index in product(*map(range, x.shape)):
        events += int(x[index]) > 0
        for _ in range(widths[1]):
            value += int(x[index])
            nonzero += int(x[index]) > 0
    assert (row.accumulates, row.nonzero, row.events, row.binary) == (value, nonzero, events, value == nonzero)
    assert (row.inputs, row.outputs, row.weights) == (x.numel(), 2 * rows * widths[1], widths[0] * widths[1])


@settings(deadline=None, max_examples=40)
@given(
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    seed=st.integers(0, 99),
)
def test_any_convolution_counts_what_all_ones_weights_would_add_up(size, kernel, stride, padding, seed):
    conv = EntangledConv2d(2, 4, kernel, stride=stride, padding=padding)
    x = integers(3, 2, *size, seed=seed, high=2)
    ones = F.conv2d(x, torch.ones_like(conv.weight), None, stride, padding)
    assert count(conv, x).accumulates == ones.sum()


def test_border_pixels_reach_fewer_outputs():
    conv = EntangledConv2d(1, 1, 3, padding=1)
    reached = []
    for y, x in product(range(4), range(4)):
        spike = torch.zeros(1, 1, 4, 4)
        spike[0, 0, y, x] = 1
        reached.append(count(conv, spike).accumulates)
    assert reached == [4, 6, 6, 4, 6, 9, 9, 6, 6, 9, 9, 6, 4, 6, 6, 4]


def test_linear_counts_each_value_at_each_output():
    linear = EntangledLinear(5, 7)
    x = integers(2, 3, 4, 5)
    arrived = sum(int(x[index]) * 7 for index in product(*map(range, x.shape)))
    row = count(linear, x)
    assert (row.kind, row.accumulates, row.macs) == ("linear", arrived, 2 * 3 * 4 * 5 * 7)


def test_product_of_spikes_counts_coincidences():
    q, k = integers(2, 3, 5, 4, high=1), integers(2, 3, 4, 6, seed=1, high=1)
    coincidences = sum(
        bool(q[*batch, i, d]) and bool(k[*batch, d, j])
        for *batch, i, j, d in product(range(2), range(3), range(5), range(6), range(4))
    )
    row = count(SpikeProduct(), q, k)
    assert (row.kind, row.accumulates, row.macs) == ("product", coincidences, 2 * 3 * 5 * 6 * 4)


def test_product_with_integers_counts_the_integer_where_it_meets_a_spike():
    scores, v = integers(2, 3, 3, high=5), integers(2, 3, 4, seed=1, high=1)
    met = sum(
        int(scores[b, i, d]) * int(v[b, d, j]) for b, i, j, d in product(range(2), range(3), range(4), range(3))
    )
    assert count(SpikeProduct(), scores, v).accumulates == met


@pytest.mark.parametrize(
    "layer", [EntangledConv2d(2, 3, 3, padding=1), EntangledLinear(6, 5)], ids=["conv", "linear"]
)
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), factor=st.integers(0, 4))
def test_more_spikes_never_cost_less_and_k_fold_values_cost_k_fold(layer, seed, factor):
    few = integers(2, 2, 5, 6, seed=seed, high=1)
    more = torch.maximum(few, integers(2, 2, 5, 6, seed=seed + 1, high=1))
    cost = count(layer, few).accumulates
    assert count(layer, more).accumulates >= cost
    assert count(layer, factor * few).accumulates == factor * cost


@pytest.mark.parametrize(
    "layer", [EntangledConv2d(2, 3, 3, padding=1), EntangledLinear(6, 5)], ids=["conv", "linear"]
)
def test_silence_costs_nothing(layer):
    assert count(layer, torch.zeros(2, 2, 5, 6)).accumulates == 0


def test_narrow_calls_count_the_width_in_use():
    conv, linear = EntangledConv2d(4, 8, 3, padding=1), EntangledLinear(6, 9)
    x, tokens = integers(2, 2, 5, 5), integers(2, 3, 4)
    narrow = count(conv, x, out_channels=3)
    own = count(EntangledConv2d(2, 3, 3, padding=1), x)
    assert (narrow.macs, narrow.accumulates) == (own.macs, own.accumulates)
    narrow = count(linear, tokens, out_features=5)
    assert (narrow.macs, narrow.accumulates) == (2 * 3 * 4 * 5, tokens.sum() * 5)


def test_layers_of_one_pass_add_up_over_calls_and_images():
    holder, x = Holder(EntangledLinear(4, 3)), integers(2, 5, 4)
    with counting(holder) as counts:
        holder(x)
        holder(x[:1])
    both = x.sum() * 3 + x[:1].sum() * 3
    assert (counts.images, counts.layers["anything"].accumulates) == (3, both)
    assert counts.accumulates_per_image == pytest.approx(float(both) / 3)
