"""C and CUDA sources of a neuron's kernels: a frame of loops around the text of its equations."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from supernet.neurons.equations import Equations, LoopBody, loop_body

_FOLDER = Path(__file__).parent

CPU_TYPES = {
    "float32": ("float", "int32_t", "float"),
    "float64": ("double", "int64_t", "double"),
    "bfloat16": ("float", "int32_t", "uint16_t"),
}
"""By torch's name of the stored type: type of the arithmetic, an integer as wide, stored type."""

CUDA_TYPES = {
    "float32": ("float", "float", 1),
    "float64": ("double", "double", 1),
    "bfloat16": ("float", "unsigned short", 2),
    "float16": ("float", "unsigned short", 2),
}
"""By torch's name of the stored type: type of the arithmetic, stored type, neighbouring neurons of a thread."""


@cache
def cpu_source(equations: Equations, dtype: str) -> str:
    """Return the C source of a neuron for one stored type.

    Args:
        equations: The neuron.
        dtype: Row of ``CPU_TYPES``.
    """
    words = _words(loop_body(equations))
    words |= dict(zip(("SCALAR", "INTEGER", "STORED"), CPU_TYPES[dtype], strict=True))
    words |= {"IS_BFLOAT16": str(int(dtype == "bfloat16")), "IS_DOUBLE": str(int(dtype == "float64"))}
    return _fill("frame.c", words)


@cache
def cuda_source(equations: Equations, dtype: str) -> str:
    """Return the CUDA source of a neuron for one stored type.

    Args:
        equations: The neuron.
        dtype: Row of ``CUDA_TYPES``.
    """
    constants = equations.constants
    words = _words(loop_body(equations))
    words |= dict(zip(("SCALAR", "STORED", "WIDTH"), map(str, CUDA_TYPES[dtype]), strict=True))
    for word in ("bfloat16", "float16"):
        words[f"IS_{word.upper()}"] = str(int(dtype == word))
    values = [f"value{n}" for n in range(len(constants))]
    words |= {
        "IS_DOUBLE": str(int(dtype == "float64")),
        "K_PARAMETERS": "".join(f", double {value}" for value in values),
        "K_VALUES": ", ".join(values) or "0",
        "COLLECT": " ".join(f"by_constant[j][{n}] += (double)learned_{name}[j];" for n, name in enumerate(constants)),
    }
    return _fill("frame.cu", words)


def _words(body: LoopBody) -> dict[str, str]:
    """Return the replacements of a frame that follow from the equations."""
    states, constants = body.states, body.constants

    def each(line: str) -> str:
        return "\n".join(line.format(name=name, n=n) for n, name in enumerate(states))

    zeros = "real {name}[VECTORS] = {{{{0}}}};"
    return {
        "N_STATES": str(len(states)),
        "N_CONSTANTS": str(len(constants)),
        "CONSTANTS": "\n".join(f"const scalar k_{name} = (scalar)k[{n}];" for n, name in enumerate(constants)),
        "DECLARE_STATES": each(zeros.replace("{name}", "v_{name}")),
        "LOAD_STATES": each("const real st_{name} = v_{name}[j];"),
        "SAVE_STATES": each("v_{name}[j] = n_{name};"),
        "KEEP_STATES": each("kt[{n}] = st_{name};"),
        "RESTORE_STATES": each("const real st_{name} = kt[{n}];"),
        "DECLARE_STATE_GRADIENTS": each(zeros.replace("{name}", "g_{name}")),
        "LOAD_STATE_GRADIENTS": each("const real gn_{name} = g_{name}[j];"),
        "SAVE_STATE_GRADIENTS": each("g_{name}[j] = gst_{name};"),
        "DECLARE_LEARNED": "\n".join(f"real learned_{name}[VECTORS] = {{{{0}}}};" for name in constants),
        "LEARN": " ".join(f"learned_{name}[j] += gk_{name};" for name in constants),
        "COLLECT": " ".join(f"gk[{n}] += (double)learned_{name}[j][l];" for n, name in enumerate(constants)),
        "FORWARD": body.forward,
        "BACKWARD": body.backward,
    }


def _fill(frame: str, words: dict[str, str]) -> str:
    source = (_FOLDER / frame).read_text(encoding="utf-8")
    source = source.replace("@WORDS@", "Words")
    for word, text in words.items():
        source = source.replace(f"@{word}@", text)
    return source
