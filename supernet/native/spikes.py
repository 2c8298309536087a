"""Layers on spikes, compiled: work in proportion to the spikes that arrive, not to the synapses that exist.

Spikes and sums of spikes are small non-negative integers in uint8, channels last: tokens ``(R, C)`` and images
``(B, H, W, C)``. A float32 output is one chain of additions whose order the packed weights fix, so its bits do not
depend on the batch, the number of threads or the slice in use. Tensors are contiguous unless said otherwise.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from supernet.native.compiler import FLAGS, build
from supernet.native.threads import split

PRECISIONS = ("float32", "int8")

BREAK_EVEN_DENSITY = {"float32": 0.6, "int8": 1.0}
"""Mean input value, in events per input, below which a layer is faster than torch's dense one; measured."""

_TILE_ROWS = 288
"""Most weight rows of a tile, 36 KiB: what a 48 KiB L1 cache holds besides lists and sums."""

_BLOCK_BYTES, _BLOCK_PIXELS = 256 * 1024, 512
"""Input bytes and pixels, whichever are more, that visit a tile in turn; their lists stay in the L2 cache."""

_SHARE = 128 * 1024
"""Fewest input bytes worth a thread."""


@dataclass(frozen=True, eq=False)
class Packed:
    """Weights of a layer in column panels, of which every prefix slice is in place.

    Attributes:
        data: ``(panels, tiles, k, k, tile, columns)``, float32 or int16.
        scales: What an integer step is worth, ``(n_out,)``; None for float32.
        n_out: Outputs, or output channels, of the whole layer.
        n_in: Inputs, or input channels, of the whole layer.
        kernel: Kernel size k; 1 for a linear layer.
    """

    data: Tensor
    scales: Tensor | None
    n_out: int
    n_in: int
    kernel: int


def pack(weight: Tensor, precision: str = "float32") -> Packed:
    """Return the packed weights of a linear layer, or of a convolution of stride 1 that keeps the image's size.

    Args:
        weight: ``(n_out, n_in)``, or ``(c_out, c_in, k, k)`` with k odd; float32 and finite.
        precision: ``float32``, exact, or ``int8``: each output's weights rounded to 255 levels, symmetric about 0,
            by the largest magnitude among all its inputs.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {list(PRECISIONS)}, got {precision!r}")
    if weight.dtype != torch.float32 or weight.dim() not in (2, 4) or weight.device.type != "cpu":
        raise ValueError(f"weight must be float32 (n_out, n_in) or (c_out, c_in, k, k) on the CPU: {_facts(weight)}")
    full = weight.detach()[:, :, None, None] if weight.dim() == 2 else weight.detach()
    n_out, n_in, kernel, other = full.shape
    if kernel != other or kernel % 2 == 0 or not n_out or not n_in:
        raise ValueError(f"weight must have an odd, square kernel and no empty side, got {_facts(weight)}")
    scales = None
    if precision == "int8":
        scales = (full.abs().amax(dim=(1, 2, 3)) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        full = (full / scales[:, None, None, None]).round().to(torch.int16)
    columns = 32 if scales is None else 64  # 128 bytes per input
    tile = -(-n_in // -(-n_in * kernel // _TILE_ROWS) // 8) * 8  # tiles of like size
    panels, tiles = -(-n_out // columns), -(-n_in // tile)
    padded = full.new_zeros(panels * columns, tiles * tile, kernel, kernel)
    padded[:n_out, :n_in] = full
    # The kernel reads int16 outputs in pairs, j and j + 32 in one 32-bit lane.
    lanes = padded.view(panels, columns // 32, 32, tiles, tile, kernel, kernel).permute(0, 3, 5, 6, 4, 2, 1)
    data = lanes.reshape(panels, tiles, kernel, kernel, tile, columns).contiguous()
    return Packed(data, scales, n_out, n_in, kernel)


def spike_linear(x: Tensor, packed: Packed, n_out: int | None = None) -> Tensor:
    """Return the float32 currents ``(R, n_out)`` of a linear layer's prefix slice.

    Args:
        x: Events ``(R, n_in)``, uint8; ``n_in`` up to the packed one.
        packed: Weights of the whole layer, of kernel size 1.
        n_out: Outputs of the slice, all by default.
    """
    _check("x", x, torch.uint8, 2)
    if packed.kernel != 1:
        raise ValueError(f"a linear layer has kernel size 1, got {packed.kernel}")
    return _layer(x[:, None, None], packed, n_out).flatten(1)


def spike_conv(x: Tensor, packed: Packed, c_out: int | None = None) -> Tensor:
    """Return the float32 currents ``(B, H, W, c_out)`` of a prefix slice of a 'same' convolution of stride 1.

    Args:
        x: Events ``(B, H, W, c_in)``, uint8; ``c_in`` up to the packed one.
        packed: Weights of the whole layer.
        c_out: Output channels of the slice, all by default.
    """
    _check("x", x, torch.uint8, 4)
    return _layer(x, packed, c_out)


def _layer(x: Tensor, packed: Packed, n_out: int | None) -> Tensor:
    images, height, width, n_in = x.shape
    n_out = packed.n_out if n_out is None else n_out
    tiles, tile = packed.data.shape[1], packed.data.shape[4]
    limits = {"input": (n_in, packed.n_in), "output": (n_out, packed.n_out), "image": (width, 2**24 // tile)}
    for side, (n, most) in limits.items():
        if not 1 <= n <= most:
            raise ValueError(f"the {side} width must be in [1, {most}], got {n}")
    if not height:
        raise ValueError(f"images must have a height of 1 or more, got {_facts(x)}")
    y = x.new_empty(images, height, width, n_out, dtype=torch.float32)
    pixels = height * width
    block = max(1, _BLOCK_BYTES // (pixels * n_in), _BLOCK_PIXELS // pixels)
    sizes = (height, width, n_in, n_out, packed.kernel, tile, tiles, block)
    _run("spike_layer", (x, packed.data, y, packed.scales, *sizes), images, pixels * n_in)
    return y


def row_sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return for every row of ``(R, C)`` uint8 its sum and the number of its entries above 0, int32 ``(R,)`` each."""
    sums, nonzero = torch.empty(2, len(x), dtype=torch.int32)
    _sum_rows(x, sums, nonzero)
    return sums, nonzero


def totals(x: Tensor) -> Tensor:
    """Return the sum of every row of ``(R, C)`` uint8, int32 ``(R,)``; faster than :func:`row_sums`."""
    sums = torch.empty(len(x), dtype=torch.int32)
    _sum_rows(x, sums, None)
    return sums


def _sum_rows(x: Tensor, sums: Tensor, nonzero: Tensor | None) -> None:
    _check("x", x, torch.uint8, 2)
    rows, columns = x.shape
    if columns > 2**23:
        raise ValueError(f"rows must have {2**23} values or less, got {columns}")
    _run("spike_row_sums", (x, sums, nonzero, columns), rows, columns)


def spike_max_pool(x: Tensor) -> Tensor:
    """Return the 3x3 maxima, stride 2 and padding 1, of ``(B, H, W, C)``: uint8 ``(B, (H+1)//2, (W+1)//2, C)``."""
    _check("x", x, torch.uint8, 4)
    images, height, width, channels = x.shape
    y = x.new_empty(images, (height + 1) // 2, (width + 1) // 2, channels)
    _run("spike_max_pool", (x, y, height, width, channels), images, height * width * channels)
    return y


class Met(NamedTuple):
    """What met in the two products of an attention, over all heads.

    Attributes:
        scores: Sum of all entries of ``q k^T``, the coincidences of a query's and a key's spike.
        mixed: Sum of all entries of ``q k^T v``, unscaled.
        mixed_nonzero: The same with every entry of ``q k^T`` above 0 taken as 1.
        entries: Entries of ``q k^T`` above 0.
    """

    scores: int
    mixed: int
    mixed_nonzero: int
    entries: int


def spike_attention(q: Tensor, k: Tensor, v: Tensor, num_heads: int, count: bool = True) -> tuple[Tensor, Met | None]:
    """Return the currents ``q k^T v / 8`` of all heads and, if asked to count, what met in the products.

    The products are exact: they are summed as whole numbers, int16 where ``N D / num_heads < 2**15``.

    Args:
        q: Spikes ``(G, N, D)``, uint8 in {0, 1}. Tokens may be strided, alike in all three, so that these can be
            column slices of one ``(G N, 3 D)`` tensor.
        k: Spikes of the same shape.
        v: Spikes of the same shape.
        num_heads: Divisor of D; a head is ``D / num_heads`` neighbouring channels.
        count: Whether to count.

    Returns:
        Currents ``(G, N, D)`` float32, and the counts.
    """
    for name, part in (("q", q), ("k", k), ("v", v)):
        alike = q.dim() == 3 and part.shape == q.shape and 0 < _token_stride(part) == _token_stride(q)
        if not alike or part.dtype != torch.uint8 or part.device.type != "cpu":
            raise ValueError(f"q, k, v must be uint8 (G, N, D), of one shape and even stride; {name}: {_facts(part)}")
    groups, n, width = q.shape
    if num_heads < 1 or not width or width % num_heads:
        raise ValueError(f"num_heads must divide the width {width}, got {num_heads}")
    y = torch.empty(groups, n, width)
    totals = torch.zeros(groups, len(Met._fields), dtype=torch.int64) if count else None
    arguments = (q, k, v, _token_stride(q), y, n, width, num_heads, totals)
    _run("spike_attention", arguments, groups, n * width, ValueError("q, k and v must hold 0 and 1 only"))
    return y, None if totals is None else Met(*totals.sum(dim=0).tolist())


def token_mean(x: Tensor) -> Tensor:
    """Return the means ``(B, D)``, float32, of ``(T, B, N, D)`` uint8 over T and N, correctly rounded."""
    _check("x", x, torch.uint8, 4)
    steps, images, tokens, width = x.shape
    if not steps or not tokens:
        raise ValueError(f"a mean needs a timestep and a token, got {_facts(x)}")
    y = torch.empty(images, width)
    _run("spike_token_mean", (x, y, steps, images, tokens, width), images, steps * tokens * width)
    return y


def _run(name: str, arguments: tuple[object, ...], rows: int, cost: int, refusal: Exception | None = None) -> None:
    """Call a kernel on ranges of rows, its last two arguments, of `cost` bytes each; raise what it reports."""

    def run(first: int, stop: int) -> None:
        status = _call(name, *arguments, first, stop)
        if status:
            raise MemoryError(f"in {name}") if status == 1 else refusal or ValueError("more events than a list holds")

    split(run, rows, _SHARE // max(1, cost))


def _call(name: str, *arguments: object) -> int:
    return int(getattr(_library(), name)(*map(_convert, arguments)))


def _convert(value: object) -> object:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_int64(value) if isinstance(value, int) else value  # or None, a null pointer


@cache
def _library(flags: tuple[str, ...] = FLAGS) -> ctypes.CDLL:
    return build(Path(__file__).with_name("spikes.c").read_text(encoding="utf-8"), flags)


def _check(name: str, x: Tensor, dtype: torch.dtype, dim: int) -> None:
    if x.dtype != dtype or x.dim() != dim or x.device.type != "cpu" or not x.is_contiguous():
        rule = f"contiguous {str(dtype).removeprefix('torch.')} tensor of {dim} dimensions on the CPU"
        raise ValueError(f"{name} must be a {rule}, got {_facts(x)}")


def _token_stride(x: Tensor) -> int:
    """Return the distance of tokens in ``(G, N, D)``, 0 if it is not one distance or channels are not neighbours."""
    groups, n, width = x.shape
    stride = x.stride(1) if n > 1 else x.stride(0) if groups > 1 else width
    even = (groups < 2 or x.stride(0) == n * stride) and (width < 2 or x.stride(2) == 1)
    return stride if even and stride >= width else 0


def _facts(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)} with strides {x.stride()} on {x.device}"
