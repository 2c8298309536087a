"""Dense products by whichever library is fastest on this processor.

Measured: on AMD processors oneDNN multiplies float32 about twice as fast as MKL, on Intel ones both are alike.
Without tile instructions, Intel's bfloat16 instructions run at half the rate of float32; AMD's at twice the rate.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor


@cache
def _processor() -> tuple[str, frozenset[str]]:
    """Return vendor and features of the processor, empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", frozenset()
    fields = dict(line.split(":", 1) for line in reversed(text.splitlines()) if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    return fields.get("vendor_id", ""), frozenset(fields.get("flags", "").split())


@cache
def prefers_onednn() -> bool:
    """Return whether oneDNN multiplies float32 matrices faster than torch's default library."""
    return _processor()[0] == "AuthenticAMD" and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]  # torch leaves it untyped


@cache
def fast_bfloat16() -> bool:
    """Return whether this processor multiplies bfloat16 faster than float32."""
    vendor, flags = _processor()
    return "amx_bf16" in flags or (vendor == "AuthenticAMD" and "avx512_bf16" in flags)


def by_float32(x: Tensor) -> bool:
    """Return whether bfloat16 operands on the device of ``x`` are multiplied faster as float32, exactly."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and not fast_bfloat16()


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x weightᵀ`` in the type of ``x``.

    Args:
        x: ``(R, K)``.
        weight: ``(N, K)`` of the same type; may be a slice of a wider matrix.
    """
    if by_float32(x):
        return multiply(x.float(), weight.float()).bfloat16()
    if x.dtype == torch.float32 and x.device.type == "cpu" and prefers_onednn() and x.numel() and weight.numel():
        # Its sums depend on strides: a slice gets those of a matrix of its own, so that both give the same bits.
        rows = weight.stride(-1) == 1
        own = weight.contiguous() if rows else weight.t().contiguous().t()
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, own, None, "none", [], "")
        return product
    return x @ weight.t()


def convolve(x: Tensor, weight: Tensor, padding: tuple[int, ...]) -> Tensor:
    """Return the convolution of stride 1 of channels-last images, channels last, in the type of ``x``."""
    if by_float32(x):
        return convolve(x.float(), weight.float(), padding).bfloat16()
    weight = weight.contiguous(memory_format=torch.channels_last)
    y = F.conv2d(x.contiguous(memory_format=torch.channels_last), weight, padding=padding)
    return y.contiguous(memory_format=torch.channels_last)
