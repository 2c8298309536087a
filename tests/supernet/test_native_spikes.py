"""Each compiled kernel on spikes against plain torch, on ragged shapes, thread counts and instruction sets."""

import threading

import pytest
import torch
import torch.nn.functional as F

from supernet.native import compiler_problem, spikes, threads
from supernet.native.compiler import FLAGS
from supernet.spikformer import ATTENTION_SCALE

problem = compiler_problem()
if problem is not None:
    pytest.skip(problem, allow_module_level=True)

BASELINE = tuple("-march=x86-64" if flag == "-march=native" else flag for flag in FLAGS)
LINEAR = [(1, 1, 1), (5, 13, 7), (9, 8, 32), (67, 300, 97), (300, 577, 64)]
CONV = [(1, 1, 1, 1, 1, 3), (2, 5, 7, 13, 33, 3), (3, 8, 8, 200, 65, 3), (1, 4, 3, 20, 10, 5), (2, 1, 9, 9, 40, 3)]
LARGEST = [1, 3, 255]

each_precision = pytest.mark.parametrize("precision", spikes.PRECISIONS)
each_largest = pytest.mark.parametrize("largest", LARGEST)


@pytest.fixture(params=[1, 2, 3])
def thread_count(request, monkeypatch):
    monkeypatch.setattr(spikes, "_SHARE", 1)  # threads share even the smallest work
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def events(*shape, largest=1, density=0.3, seed=0):
    source = generator(seed)
    values = torch.randint(1, largest + 1, shape, generator=source)
    return (values * (torch.rand(shape, generator=source) < density)).to(torch.uint8)


def weights(*shape, seed=1):
    return torch.randn(shape, generator=generator(seed))


def rounded(weight):
    """Return weights on the grid of ``int8``, in float64."""
    scales = (weight.flatten(1).abs().amax(dim=1) / 127).view(-1, *[1] * (weight.dim() - 1))
    return (weight / scales).round().double() * scales.double()


def reference(x, weight, n_out, precision):
    """Return exact currents of a linear layer or a convolution, channels last, and the error float32 may make."""
    used = rounded(weight) if precision == "int8" else weight.double()
    used = used[:n_out, : x.shape[-1]]

    def run(kernel):
        if kernel.dim() == 2:
            return F.linear(x.double(), kernel)
        pad = kernel.shape[-1] // 2
        return F.conv2d(x.double().movedim(-1, 1), kernel, padding=pad).movedim(1, -1)

    terms = int(x.flatten(1).sum(dim=1, dtype=torch.int64).max()) + 1
    return run(used), run(used.abs()) * (2.0**-23 * (terms if precision == "float32" else 3))


def assert_within(y, expected, error):
    assert y.dtype == torch.float32
    assert y.shape == expected.shape
    assert ((y.double() - expected).abs() <= error + 1e-30).all()


# --- layers


@each_precision
@each_largest
@pytest.mark.parametrize(("rows", "n_in", "n_out"), LINEAR)
def test_a_linear_layer_sums_the_weights_of_its_events(thread_count, rows, n_in, n_out, largest, precision):
    x, weight = events(rows, n_in, largest=largest), weights(n_out + 3, n_in + 5)
    y = spikes.spike_linear(x, spikes.pack(weight, precision), n_out)
    assert_within(y, *reference(x, weight, n_out, precision))


@each_precision
@each_largest
@pytest.mark.parametrize(("images", "height", "width", "c_in", "c_out", "k"), CONV)
def test_a_convolution_sums_the_weights_of_its_events(
    thread_count, images, height, width, c_in, c_out, k, largest, precision
):
    x, weight = events(images, height, width, c_in, largest=largest), weights(c_out + 2, c_in + 3, k, k)
    y = spikes.spike_conv(x, spikes.pack(weight, precision), c_out)
    assert_within(y, *reference(x, weight, c_out, precision))


@each_precision
@pytest.mark.parametrize("density", [0.0, 0.02, 1.0])
def test_layers_are_exact_at_any_density(precision, density):
    x, weight = events(2, 6, 5, 100, density=density), weights(40, 100, 3, 3)
    y = spikes.spike_conv(x, spikes.pack(weight, precision))
    assert_within(y, *reference(x, weight, 40, precision))


@each_precision
def test_an_image_does_not_depend_on_its_neighbours_or_its_thread(thread_count, precision):
    x, packed = events(23, 8, 8, 70, largest=4), spikes.pack(weights(50, 70, 3, 3), precision)
    alone = torch.cat([spikes.spike_conv(image[None], packed) for image in x])
    assert torch.equal(spikes.spike_conv(x, packed), alone)


@each_precision
def test_a_row_does_not_depend_on_its_neighbours_or_its_thread(thread_count, precision):
    x, packed = events(1300, 400, largest=2), spikes.pack(weights(70, 400), precision)
    parts = torch.cat([spikes.spike_linear(part, packed) for part in x.split([1, 2, 700, 597])])
    assert torch.equal(spikes.spike_linear(x, packed), parts)


@each_precision
def test_an_output_does_not_depend_on_the_width_of_the_slice(precision):
    x, weight = events(50, 300), weights(130, 300)
    packed = spikes.pack(weight, precision)
    full = spikes.spike_linear(x, packed)
    for n_out in (1, 31, 32, 33, 64, 100):
        assert torch.equal(spikes.spike_linear(x, packed, n_out), full[:, :n_out])


def test_silent_inputs_do_not_change_a_bit():
    x, packed = events(40, 300), spikes.pack(weights(33, 500))
    wider = torch.cat([x, torch.zeros(40, 200, dtype=torch.uint8)], dim=1)
    assert torch.equal(spikes.spike_linear(x, packed), spikes.spike_linear(wider, packed))


@each_precision
@pytest.mark.skipif("x86-64" not in BASELINE[2], reason="the baseline flags are those of x86-64")
def test_every_instruction_set_gives_the_same_bits(monkeypatch, precision):
    try:
        baseline = spikes._library(BASELINE)
    except spikes.NativeError:
        pytest.skip("this compiler does not build for x86-64")
    x, weight = events(3, 9, 7, 130, largest=3), weights(90, 130, 3, 3)
    q = events(4, 9, 40, density=0.5)

    def run():
        layer = spikes.spike_conv(x, spikes.pack(weight, precision))
        return [
            layer,
            spikes.spike_max_pool(x),
            spikes.row_sums(x.view(-1, 130))[0],
            spikes.spike_attention(q, q, q, 2)[0],
        ]

    native = run()
    monkeypatch.setattr(spikes, "_library", lambda: baseline)
    assert all(torch.equal(a, b) for a, b in zip(native, run(), strict=True))


@each_precision
def test_layers_take_an_empty_batch(thread_count, precision):
    packed = spikes.pack(weights(5, 4), precision)
    assert spikes.spike_linear(torch.zeros(0, 4, dtype=torch.uint8), packed, 3).shape == (0, 3)


def test_packed_int8_weights_are_off_by_half_a_step():
    weight = weights(9, 30)
    weight[4] = 0
    identity = torch.eye(30, dtype=torch.uint8)
    packed = spikes.pack(weight, "int8")
    error = (spikes.spike_linear(identity, packed).T - weight).abs()
    assert packed.scales is not None
    assert (error <= 0.5001 * packed.scales[:, None]).all()


def test_many_events_do_not_overflow_int16_sums():
    x, weight = torch.full((9, 300), 255, dtype=torch.uint8), torch.ones(3, 300)
    y = spikes.spike_linear(x, spikes.pack(weight, "int8"))
    torch.testing.assert_close(y, torch.full((9, 3), 255.0 * 300))


# --- the other kernels


@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (5, 63), (7, 64), (4, 65), (3, 9000), (40, 384), (3, 0), (0, 3)]
)
def test_row_sums_are_exact(thread_count, rows, columns):
    x = events(rows, columns, largest=255, density=0.8)
    sums, nonzero = spikes.row_sums(x)
    assert torch.equal(sums, x.sum(dim=1, dtype=torch.int32))
    assert torch.equal(spikes.totals(x), sums)
    assert torch.equal(nonzero, (x != 0).sum(dim=1, dtype=torch.int32))


def test_row_sums_hold_the_largest_values():
    x = torch.full((2, 40000), 255, dtype=torch.uint8)
    sums, nonzero = spikes.row_sums(x)
    assert sums.tolist() == [255 * 40000] * 2
    assert nonzero.tolist() == [40000] * 2


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 2, 3, 5), (3, 7, 8, 70), (5, 9, 1, 33)])
def test_a_pool_takes_the_largest_of_nine(thread_count, shape):
    x = events(*shape, largest=9)
    expected = F.max_pool2d(x.movedim(-1, 1).float(), 3, 2, 1).movedim(1, -1)
    assert torch.equal(spikes.spike_max_pool(x), expected.to(torch.uint8))


@pytest.mark.parametrize(
    ("groups", "n", "width", "heads"), [(1, 1, 1, 1), (3, 7, 24, 3), (5, 64, 80, 2), (2, 9, 66, 1), (1, 700, 96, 2)]
)
def test_attention_is_exact_on_column_slices(thread_count, groups, n, width, heads):
    qkv = events(groups * n, 3 * width, density=0.6)
    q, k, v = (part.unflatten(0, (groups, n)) for part in qkv.split(width, dim=1))
    y, met = spikes.spike_attention(q, k, v, heads)
    a, b, c = (part.double().unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    expected = a @ b.transpose(-2, -1)
    filled = (expected > 0).double()
    assert met == tuple(int(part.sum()) for part in (expected, expected @ c, filled @ c, filled))
    assert torch.equal(y, (expected @ c * ATTENTION_SCALE).transpose(1, 2).flatten(2).float())
    uncounted, nothing = spikes.spike_attention(q, k, v, heads, count=False)
    assert torch.equal(uncounted, y)
    assert nothing is None


@pytest.mark.parametrize("n", [511, 512])
def test_attention_holds_the_largest_sums_on_either_side_of_int16(n):
    q = torch.ones(1, n, 64, dtype=torch.uint8)
    y, met = spikes.spike_attention(q, q, q, 1)
    assert (y == n * 64 / 8).all()
    assert met == (n * n * 64, n * n * 64 * 64, n * n * 64, n * n)


def test_attention_wants_spikes():
    q = events(2, 3, 8)
    with pytest.raises(ValueError, match="0 and 1 only"):
        spikes.spike_attention(q, q, 2 * torch.ones_like(q), 2)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 7, 33), (2, 2, 600, 70)])
def test_token_means_are_rounded_once(thread_count, shape):
    x = events(*shape, largest=255, density=0.9)
    expected = (x.double().sum(dim=(0, 2)) / (shape[0] * shape[2])).float()
    assert torch.equal(spikes.token_mean(x), expected)


# --- what is refused


BYTES = torch.zeros(4, 6, dtype=torch.uint8)
IMAGES = torch.zeros(2, 3, 4, 6, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda p: spikes.spike_linear(BYTES.float(), p), "x must be a contiguous uint8 tensor of 2"),
        (lambda p: spikes.spike_linear(BYTES[:, ::2], p), "contiguous"),
        (lambda p: spikes.spike_linear(IMAGES, p), "2 dimensions"),
        (
            lambda p: spikes.spike_linear(torch.zeros(1, 9, dtype=torch.uint8), p),
            r"input width must be in \[1, 6\], got 9",
        ),
        (lambda p: spikes.spike_linear(BYTES, p, 6), r"output width must be in \[1, 5\], got 6"),
        (lambda p: spikes.spike_linear(BYTES, spikes.pack(torch.zeros(5, 6, 3, 3))), "kernel size 1, got 3"),
        (lambda p: spikes.spike_conv(IMAGES.movedim(1, 2), p), "contiguous"),
        (
            lambda p: spikes.spike_conv(IMAGES[:, :0].contiguous(), p),
            r"height of 1 or more, got uint8 \(2, 0, 4, 6\)",
        ),
        (lambda p: spikes.spike_conv(IMAGES[:, :, :0].contiguous(), p), r"image width must be in \[1, "),
        (lambda p: spikes.pack(torch.zeros(5, 6, 2, 2)), "odd, square"),
        (lambda p: spikes.pack(torch.zeros(5, 6, 3, 5)), "odd, square"),
        (lambda p: spikes.pack(torch.zeros(0, 6)), "no empty side"),
        (lambda p: spikes.pack(torch.zeros(5, 6).half()), "weight must be float32"),
        (lambda p: spikes.pack(torch.zeros(5, 6), "int4"), r"precision must be one of \['float32', 'int8'\]"),
        (lambda p: spikes.row_sums(BYTES.T), "contiguous"),
        (lambda p: spikes.spike_max_pool(BYTES), "4 dimensions"),
        (lambda p: spikes.spike_attention(BYTES, BYTES, BYTES, 1), r"uint8 \(G, N, D\)"),
        (lambda p: spikes.spike_attention(IMAGES[0], IMAGES[0], IMAGES[0], 4), "divide the width 6, got 4"),
        (
            lambda p: spikes.spike_attention(IMAGES[0], IMAGES[0], IMAGES[1, :, :, :3], 1),
            "one shape and even stride; v: uint8",
        ),
        (lambda p: spikes.spike_attention(*[IMAGES[0].transpose(1, 2)] * 3, 1), "even stride; q: uint8"),
        (lambda p: spikes.token_mean(IMAGES[:0]), "a mean needs a timestep and a token"),
    ],
)
def test_wrong_arguments_are_named(call, text):
    with pytest.raises(ValueError, match=text):
        call(spikes.pack(torch.zeros(5, 6)))


def test_every_precision_has_a_break_even_density():
    assert set(spikes.BREAK_EVEN_DENSITY) == set(spikes.PRECISIONS)


# --- threads


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 100])
def test_ranges_cover_all_rows_once(thread_count, rows):
    seen, lock = [], threading.Lock()

    def run(first, stop):
        with lock:
            seen.extend(range(first, stop))

    threads.split(run, rows)
    assert sorted(seen) == list(range(rows))


def test_one_thread_stays_with_the_caller():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    callers = []
    threads.split(lambda *_: callers.append(threading.current_thread()), 100)
    torch.set_num_threads(before)
    assert callers == [threading.current_thread()]


def test_few_rows_are_not_shared_out(thread_count):
    ranges = []
    threads.split(lambda first, stop: ranges.append((first, stop)), 19, least=10)
    assert ranges == [(0, 19)]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failure_reaches_the_caller_after_all_ranges_ended(thread_count, failing):
    done = []

    def run(first, stop):
        if first <= [0, 14, 29][failing] < stop:
            raise OverflowError("here")
        done.append(first)

    with pytest.raises(OverflowError, match="here"):
        threads.split(run, 30)
    assert len(done) == thread_count - 1
