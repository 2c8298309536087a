"""``nas doctor``: what this machine has, what each missing piece costs, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from nas.extras import EXTRAS, TRAINING
from spaces import InputError

State = Literal["ok", "missing", "faulty"]

_FAULTS = (ImportError, OSError, RuntimeError, AttributeError)
"""What loading a package raises that is not there, or not whole."""

SHOWN = ("torch", "ray", "pymoo", "optuna", "numpy", "pandas", "moocore", "kornia")
"""Packages whose versions are shown where all is well."""

SMALL_MEMORY = 1 << 30
"""Bytes of shared memory below which Ray keeps its objects on the disk."""


@dataclass(frozen=True)
class Finding:
    """What is there of one piece.

    Attributes:
        piece: What was looked for.
        state: ``ok``, ``missing``, or ``faulty`` if it is there and cannot be used.
        found: What is there.
        cost: What does not work, or not as well, without it; empty if all is well.
        remedy: How to get it; empty if all is well.
    """

    piece: str
    state: State
    found: str
    cost: str = ""
    remedy: str = ""


def examine(data_dir: str | Path | None = None, requirements: Sequence[str] | None = None) -> list[Finding]:
    """Return what this machine has, and what it lacks.

    Args:
        data_dir: Folder to look for images in; else ``SPIKEFRONT_DATA``.
        requirements: What Spikefront needs, as metadata of packages says it; by default what the installed one says.
    """
    needed = _requirements() if requirements is None else [Requirement(text) for text in requirements]
    findings = [_python(), _machine(), *_packages(needed)]
    for check in (_compiler, _gpu, _ray):
        findings.append(check())
    return [*findings, *_extras(needed), *_data(data_dir)]


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")


def _machine() -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    free = shutil.disk_usage(Path.cwd()).free
    return Finding(
        "machine", "ok", f"{os.cpu_count()} cores, {_gib(memory)} memory, {_gib(free)} free in {Path.cwd()}"
    )


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"


# Packages


def _requirements() -> list[Requirement]:
    """Return what the installed Spikefront needs; nothing if it runs from a folder without being installed."""
    try:
        return [Requirement(text) for text in metadata.requires("spikefront") or []]
    except metadata.PackageNotFoundError:
        return []


def _packages(needed: Sequence[Requirement]) -> Iterator[Finding]:
    """Yield what there is of the packages that Spikefront cannot do without."""
    required = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    lacking = [each for each in required if _lack(each) is not None]
    if not required:
        yield Finding(
            "packages", "faulty", "spikefront runs without being installed", "what it needs is not known", _INSTALL
        )
    elif not lacking:
        versions = ", ".join(f"{name} {_version(name)}" for name in SHOWN if _version(name))
        yield Finding("packages", "ok", f"all {len(required)}: {versions}")
    for each in lacking:
        state: State = "missing" if _version(each.name) is None else "faulty"
        cost = "Spikefront, or parts of it, cannot be loaded"
        yield Finding(each.name, state, str(_lack(each)), cost, f"pip install '{each.name}{each.specifier}'")


_INSTALL = "pip install . in a clone"


def _extras(needed: Sequence[Requirement]) -> Iterator[Finding]:
    """Yield what there is of each extra."""
    for extra, purpose in EXTRAS.items():
        wanted = [
            each
            for each in needed
            if each.marker is not None
            and each.marker.evaluate({"extra": extra})
            and not each.marker.evaluate({"extra": ""})
        ]
        if not wanted:  # of a version that has no such extra
            continue
        inner = [Requirement(name) for name in TRAINING] if extra == "train" else []
        lacks = [lack for each in (*wanted, *inner) if (lack := _lack(each)) is not None]
        if lacks:
            remedy = f"pip install 'spikefront[{extra}]'"
            yield Finding(f"[{extra}]", "missing", "; ".join(lacks), f"not to be had: {purpose}", remedy)
        else:
            found = ", ".join(f"{each.name} {_version(each.name)}" for each in wanted)
            yield Finding(f"[{extra}]", "ok", found)


def _lack(requirement: Requirement) -> str | None:
    """Return what is wrong with a package, or None."""
    version = _version(requirement.name)
    if version is None:
        return f"no {requirement.name}"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} {version}, which must be {requirement.specifier}"
    return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


# What computes


def _compiler() -> Finding:
    cost = "neurons and scoring are computed in plain torch, several times slower"
    try:
        compiler = import_module("supernet.native.compiler")
        problem = compiler.compiler_problem()
        command = "" if problem else " ".join(compiler.find_compiler())
    except _FAULTS as error:
        problem, command = f"{type(error).__name__}: {error}", ""
    if problem:
        state: State = "missing" if "is not on the path" in problem else "faulty"
        return Finding("C compiler", state, problem, cost, "install gcc or clang, or set CC to one")
    return Finding("C compiler", "ok", shutil.which(command.split()[0]) or command)


def _gpu() -> Finding:
    cost = "everything is computed on the CPU"
    try:
        torch = import_module("torch")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
        problem = import_module("supernet.neurons.cuda").problem()
    except _FAULTS as error:
        return Finding("GPU", "faulty", f"{type(error).__name__}: {error}", cost, "install torch again")
    if not count:
        built = torch.version.cuda
        remedy = "a machine with an NVIDIA GPU and its driver"
        if built is None:
            remedy += ", and a torch that is built with CUDA (pytorch.org/get-started)"
        return Finding("GPU", "missing", str(problem), cost, remedy)
    if problem:
        slow = "a GPU computes neurons in plain torch, step by step"
        return Finding("GPU", "faulty", f"{names}; {problem}", slow, "pip install 'spikefront[gpu]'")
    return Finding("GPU", "ok", f"{names}, CUDA {torch.version.cuda}")


def _ray() -> Finding:
    cost = "architectures are scored in one process only (pool = 'local'), and by no cluster"
    version = _version("ray")
    if version is None:
        return Finding("Ray", "missing", "no ray", cost, "pip install ray; until then set [workers] pool = 'local'")
    cores, address = os.cpu_count() or 1, os.environ.get("RAY_ADDRESS")
    where = f"joins {address}" if address else f"starts up to {cores} workers of one thread here"
    shared = Path("/dev/shm")
    if shared.is_dir() and (size := shutil.disk_usage(shared).total) < SMALL_MEMORY:
        slow = "Ray keeps what workers share on the disk, which is slower"
        return Finding(
            "Ray", "faulty", f"{version}, with {_gib(size)} of /dev/shm", slow, "in a container, --shm-size=2g"
        )
    return Finding("Ray", "ok", f"{version}; {where}")


# Data


def _data(data_dir: str | Path | None) -> Iterator[Finding]:
    """Yield which image sets are at hand; nothing is downloaded."""
    try:
        download, data = import_module("supernet.download"), import_module("supernet.data")
    except _FAULTS as error:
        yield Finding("data", "faulty", f"{type(error).__name__}: {error}", "no images can be read", _INSTALL)
        return
    variable = str(download.DATA_VARIABLE)
    try:
        root = download.data_folder(data_dir)
        yield Finding("data folder", "ok", "none named; sets are downloaded" if root is None else str(root.resolve()))
    except InputError as error:
        root = None
        yield Finding("data folder", "faulty", str(error), "sets are not found there", f"correct {variable}")
    yield _digits()
    for name, source in data.SOURCES.items():
        paths = download.find(name, source, root)
        if paths is not None:
            yield Finding(name, "ok", str(paths[0].parent))
            continue
        files = ", ".join(source.files)
        yield Finding(
            name,
            "missing",
            "not in the data folder or the cache" if root else "not in the cache",
            f"the first run on {name} downloads it",
            f"let it, or put {files} into a folder that --data-dir or {variable} names",
        )


def _digits() -> Finding:
    try:
        import_module("sklearn.datasets")
    except _FAULTS as error:
        found = f"{type(error).__name__}: {error}"
        return Finding("digits", "missing", found, "no images without a download", "pip install 'scikit-learn>=1.5'")
    return Finding("digits", "ok", "comes with scikit-learn")


def describe(findings: Sequence[Finding]) -> str:
    """Return in lines what is there, and behind it what each missing piece costs and how to get it."""
    width = max(len(finding.piece) for finding in findings)
    lines = [f"{each.state:<8} {each.piece:<{width}}  {' '.join(each.found.split())}" for each in findings]
    lacking = [each for each in findings if each.state != "ok"]
    if lacking:
        lines.append("")
        lines += [f"{each.piece}: {each.cost}\n    {each.remedy}" for each in lacking]
    else:
        lines += ["", "nothing is missing"]
    return "\n".join(lines)
