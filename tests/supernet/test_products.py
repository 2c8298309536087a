"""Dense products equal those of plain torch whichever library computes them, and processors are told apart."""

import pathlib

import pytest
import torch
import torch.nn.functional as F

from supernet import products
from supernet.products import convolve, multiply

CACHES = (products._processor, products.prefers_onednn, products.fast_bfloat16)


def drop_caches():
    for function in CACHES:
        function.cache_clear()


@pytest.fixture(params=[False, True], ids=["default", "onednn"])
def onednn(request, monkeypatch):
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("needs oneDNN")
    monkeypatch.setattr(products, "prefers_onednn", lambda: request.param)


@pytest.fixture(params=[False, True], ids=["slow bf16", "fast bf16"])
def bfloat16(request, monkeypatch):
    monkeypatch.setattr(products, "fast_bfloat16", lambda: request.param)


@pytest.fixture
def cpuinfo(monkeypatch):
    """Let the system describe another processor, or none."""
    read = pathlib.Path.read_text

    def cpuinfo(text):
        def read_text(self, *args, **options):
            if str(self) != "/proc/cpuinfo":
                return read(self, *args, **options)
            if text is None:
                raise FileNotFoundError(str(self))
            return text

        monkeypatch.setattr(pathlib.Path, "read_text", read_text)
        drop_caches()

    yield cpuinfo
    monkeypatch.undo()
    drop_caches()


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def events(*shape, dtype=torch.float32):
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(5)).to(dtype)


def slices(wide):
    """Yield a matrix, and parts of it that do not lie densely in memory."""
    yield wide
    yield wide[:5]
    yield wide[:7, :6]
    yield wide[:1, :1]


# --- matrices


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [0, 1, 13])
def test_a_product_is_that_of_torch_also_for_slices(onednn, rows, dtype):
    for weight in slices(normal(11, 9, seed=1, dtype=dtype)):
        x = normal(rows, weight.shape[1], dtype=dtype)
        y = multiply(x, weight)
        assert (y.dtype, y.shape) == (dtype, (rows, len(weight)))
        torch.testing.assert_close(y.double(), x.double() @ weight.double().t(), rtol=1e-5, atol=1e-5)


def test_factors_may_lie_transposed_or_spread_out_in_memory(onednn):
    x, weight = normal(9, 13), normal(9, 22, seed=1)
    for factors in ((x.t(), weight.t()), (x.t().contiguous(), weight.t()), (x.t(), weight.t()[::2])):
        torch.testing.assert_close(multiply(*factors), factors[0] @ factors[1].t(), rtol=1e-5, atol=1e-5)


def test_a_product_with_nothing_to_add_up_is_zero(onednn):
    assert torch.equal(multiply(torch.ones(3, 0), torch.ones(2, 0)), torch.zeros(3, 2))


def test_onednn_is_asked_for_single_precision_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(products, "prefers_onednn", lambda: asked.append(1) or False)
    monkeypatch.setattr(products, "fast_bfloat16", lambda: True)
    multiply(normal(3, 4, dtype=torch.float64), normal(2, 4, dtype=torch.float64))
    multiply(normal(3, 4, dtype=torch.bfloat16), normal(2, 4, dtype=torch.bfloat16))
    assert asked == []
    multiply(normal(3, 4), normal(2, 4))
    assert asked == [1]


def test_bfloat16_operands_are_multiplied_exactly_and_rounded_once(onednn, bfloat16):
    for weight in slices(normal(11, 9, seed=1, dtype=torch.bfloat16)):
        x = events(13, weight.shape[1], dtype=torch.bfloat16)
        y, exact = multiply(x, weight), x.double() @ weight.double().t()
        assert y.dtype == torch.bfloat16
        assert ((y.double() - exact).abs() <= exact.abs() * 2.0**-8 + 1e-5).all()


def test_bfloat16_sums_are_not_kept_in_bfloat16(onednn, bfloat16):
    """300 ones: eight bits of mantissa would stop at 256."""
    x = torch.ones(1, 300, dtype=torch.bfloat16)
    assert multiply(x, x).item() == 300


# --- convolutions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("padding", "size"), [((1, 1), (5, 4)), ((1, 1), (1, 1)), ((2, 0), (4, 6))])
def test_a_convolution_is_that_of_torch_channels_last_also_for_slices(padding, size, dtype):
    wide = normal(6, 5, 3, 3, seed=1, dtype=dtype)
    for weight in (wide, wide[:4, :3], wide[:1, :1]):
        x = normal(2, weight.shape[1], *size, dtype=dtype)
        for images in (x, x.contiguous(memory_format=torch.channels_last)):
            y = convolve(images, weight, padding)
            assert y.dtype == dtype
            assert y.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(y, F.conv2d(x, weight, padding=padding), rtol=1e-5, atol=1e-5)


def test_a_bfloat16_convolution_is_exact_and_rounded_once(bfloat16):
    weight = normal(6, 5, 3, 3, seed=1, dtype=torch.bfloat16)[:4, :3]
    x = events(2, 3, 5, 4, dtype=torch.bfloat16)
    y, exact = convolve(x, weight, (1, 1)), F.conv2d(x.double(), weight.double(), padding=1)
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert ((y.double() - exact).abs() <= exact.abs() * 2.0**-8 + 1e-5).all()


def test_only_bfloat16_on_a_processor_without_it_goes_through_single_precision(monkeypatch):
    for fast in (False, True):
        monkeypatch.setattr(products, "fast_bfloat16", lambda fast=fast: fast)
        assert products.by_float32(torch.zeros(1, dtype=torch.bfloat16)) != fast
        assert not products.by_float32(torch.zeros(1, dtype=torch.bfloat16, device="meta"))
        assert not any(products.by_float32(torch.zeros(1, dtype=t)) for t in (torch.float32, torch.float16))


# --- processors

TEXT = """processor\t: 0
vendor_id\t: {vendor}
model name\t: Some: Processor
flags\t\t: fpu sse2 {flags}

processor\t: 1
vendor_id\t: Another
flags\t\t: fpu
power management:
"""


@pytest.mark.parametrize(
    ("vendor", "flags", "onednn", "bfloat16"),
    [
        ("AuthenticAMD", "avx2", True, False),
        ("AuthenticAMD", "avx512_bf16", True, True),
        ("GenuineIntel", "avx512_bf16", False, False),
        ("GenuineIntel", "avx512_bf16 amx_bf16", False, True),
        ("GenuineIntel", "amx_bf16_of_the_future", False, False),
    ],
)
def test_the_first_processor_of_the_system_decides(cpuinfo, monkeypatch, vendor, flags, onednn, bfloat16):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    cpuinfo(TEXT.format(vendor=vendor, flags=flags))
    assert products._processor() == (vendor, frozenset({"fpu", "sse2", *flags.split()}))
    assert (products.prefers_onednn(), products.fast_bfloat16()) == (onednn, bfloat16)


@pytest.mark.parametrize("text", [None, "", "Processor : ARMv8\nFeatures : fp asimd\n"], ids=["none", "empty", "arm"])
def test_a_system_that_does_not_tell_gets_the_defaults(cpuinfo, text):
    cpuinfo(text)
    assert products._processor() == ("", frozenset())
    assert (products.prefers_onednn(), products.fast_bfloat16()) == (False, False)


def test_a_torch_without_onednn_is_not_asked_for_it(cpuinfo, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    cpuinfo(TEXT.format(vendor="AuthenticAMD", flags="avx2"))
    assert not products.prefers_onednn()
    torch.testing.assert_close(multiply(torch.ones(2, 3), torch.ones(4, 3)), torch.full((2, 4), 3.0))
