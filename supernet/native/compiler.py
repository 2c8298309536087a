"""The host's C compiler, and a cache of what it built.

A library is named by the hash of its source, its flags, the compiler's version and the processor's features, so a
changed kernel, another compiler or another machine that shares the home folder builds anew. Kernels are written in
plain C with GCC's vector extensions and built for the machine they run on, so one source serves every instruction
set.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

FLAGS = (
    "-std=gnu11",
    "-O3",
    "-march=native",
    "-ffp-contract=off",  # spikes equal those of separately rounded operations
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
)
"""Compiler flags. Nothing here lets the compiler reorder floating-point sums."""

CACHE_VARIABLE = "SPIKEFRONT_CACHE"
"""Environment variable that names the folder of built libraries."""


_PROBE = """#include <stdint.h>
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error the kernels need a little-endian processor
#endif
typedef float real __attribute__((vector_size(64)));
typedef int32_t mask __attribute__((vector_size(64)));
typedef uint8_t bytes __attribute__((vector_size(16)));
void spikefront_probe(real *x, bytes *b) {
  const mask fired = (mask)(*x >= 0);
  *b = __builtin_convertvector(fired, bytes);
  *x = __builtin_convertvector(__builtin_convertvector(*b, mask), real) * 2.0f;
}
"""
"""What the kernels ask of a compiler, in small."""


class NativeError(RuntimeError):
    """There is no compiler, or it cannot build a kernel."""


def find_compiler() -> list[str]:
    """Return the command of a C compiler: ``$CC``, or the first of gcc, clang and cc on the path.

    Raises:
        NativeError: If there is none.
    """
    try:
        asked = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise NativeError(f"CC must be a command, got {os.environ['CC']!r} ({error}); set CC, or unset it") from None
    for command in [asked] if asked else [["gcc"], ["clang"], ["cc"]]:
        if shutil.which(command[0]):
            return command
    looked = asked[0] if asked else "gcc, clang or cc"
    raise NativeError(f"compiled kernels need a C compiler, but {looked} is not on the path; install gcc, or set CC")


@cache
def compiler_problem() -> str | None:
    """Return why kernels cannot be compiled on this machine, or None if they can."""
    try:
        build(_PROBE)
    except NativeError as error:
        return str(error)
    return None


@cache
def build(source: str, flags: tuple[str, ...] = FLAGS) -> ctypes.CDLL:
    """Return the library of a C source, built if the cache does not have it.

    Args:
        source: One translation unit; only the standard headers are there.
        flags: Compiler flags.

    Raises:
        NativeError: If it cannot be built or loaded.
    """
    command = find_compiler()
    identity = "\0".join([source, *flags, _version(tuple(command)), _processor()])
    folder = kernel_folder()
    library = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.so"
    if not library.exists():
        _compile(command, flags, source, library)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NativeError(f"a compiled kernel cannot be loaded: {error}; delete {library}") from None


def _compile(command: list[str], flags: tuple[str, ...], source: str, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent, prefix="build-") as scratch:
        unit, built = Path(scratch) / "kernel.c", Path(scratch) / "kernel.so"
        unit.write_text(source, encoding="utf-8")
        try:
            result = subprocess.run(
                [*command, *flags, str(unit), "-o", str(built), "-lm"],
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NativeError(f"{command[0]} cannot be run: {error}; install gcc, or set CC") from None
        if result.returncode:
            lines = result.stderr.strip().splitlines() or ["no message"]
            first = next((line for line in lines if "error" in line), lines[0])
            raise NativeError(f"{command[0]} cannot build a kernel: {first}; install gcc, or set CC")
        built.replace(library)  # whole or not there, whoever builds it at the same time


@cache
def _version(command: tuple[str, ...]) -> str:
    try:
        shown = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NativeError(f"{command[0]} cannot be run: {error}; install gcc, or set CC") from None
    return shown.stdout


@cache
def _processor() -> str:
    """Return what distinguishes processors that ``-march=native`` builds differently for."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line for line in lines if line.startswith(("model name", "cpu family", "model\t", "flags", "Features"))]
    return "\n".join(sorted(set(named)) or [platform.machine(), platform.processor()])


def kernel_folder() -> Path:
    """Return the folder of built libraries, which nobody but its user may write to."""
    chosen = os.environ.get(CACHE_VARIABLE)
    folder = Path(chosen) if chosen else user_cache_path("spikefront") / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            raise NativeError(
                f"built kernels are run, so their folder must be yours alone to write to, but {folder} is not; "
                f"set {CACHE_VARIABLE} to another folder"
            )
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NativeError(
            f"built kernels are kept in {folder}, which cannot be written to: {error.strerror}; set "
            f"{CACHE_VARIABLE} to another folder"
        ) from None
    return folder
