"""The wheel has all that the packages need and nothing else, and works where there is no repository."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest
from pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Files of the repository, relative to its root."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone, so that nobody knows which files are the repository's")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def copy(tracked: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository without anything that its folder has beside it."""
    folder = tmp_path_factory.mktemp("repository")
    for path in tracked:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return folder


def pip_wheel(repository: Path, out: Path, *options: str) -> Path:
    """Run ``pip wheel .`` without dependencies, and return the wheel."""
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--quiet", *options, "-w", out]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


def test_every_package_is_listed(tracked: list[Path]) -> None:
    folders = {path.parent for path in tracked if path.name == "__init__.py"}
    ours = {".".join(folder.parts) for folder in folders if folder.parts[0] not in ("tests", "benchmarks")}
    assert sorted(PACKAGES) == sorted(ours)


def test_the_wheel_has_the_files_of_the_packages_and_no_others(
    copy: Path, tracked: list[Path], tmp_path: Path
) -> None:
    wheel = pip_wheel(copy, tmp_path, "--no-build-isolation")  # needs no network
    with ZipFile(wheel) as opened:
        inside = {Path(name) for name in opened.namelist() if ".dist-info/" not in name}
    floors = {package for package in PACKAGES if "." not in package}
    assert inside == {path for path in tracked if path.parts[0] in floors}
    assert {path.suffix for path in inside} == {".py", ".toml", ".c", ".cu", ".css", ".js", ".typed"}


# An installation


@pytest.fixture(scope="module")
def installed(copy: Path) -> Iterator[Callable[..., str]]:
    """Install the wheel for itself; return what runs a command there, away from the repository."""
    with tempfile.TemporaryDirectory() as name:  # more than a gigabyte, so that it is not kept
        folder = Path(name)
        for inner in ("work", "cache", "wheels"):
            (folder / inner).mkdir()
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SPIKEFRONT_", "VIRTUAL_"))}
        environment["XDG_CACHE_HOME"] = str(folder / "cache")  # so that the shipped C is compiled
        bin_ = folder / "venv" / "bin"

        def run(program: str, *arguments: str) -> str:
            """Return the standard output of a program of the environment."""
            command = [bin_ / program, *arguments]
            result = subprocess.run(
                command, cwd=folder / "work", env=environment, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, f"{program} {arguments}\n{result.stdout}\n{result.stderr}"
            return result.stdout

        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        wheel = pip_wheel(copy, folder / "wheels")
        install = [bin_ / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel]
        subprocess.run(install, cwd=folder, check=True)
        yield run


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_installed_packages_are_those_of_the_wheel(installed: Callable[..., str]) -> None:
    code = (
        "import json, importlib, importlib.metadata as m, sys\n"
        f"places = [importlib.import_module(name).__file__ for name in {PACKAGES!r}]\n"
        "about = m.metadata('spikefront')\n"
        "print(json.dumps({'places': places, 'prefix': sys.prefix, 'path': sys.path, 'name': about['Name'],"
        " 'version': about['Version'], 'license': about['License-Expression'], 'python': about['Requires-Python'],"
        " 'commands': [e.name for e in m.distribution('spikefront').entry_points]}))"
    )
    found = json.loads(installed("python", "-c", code))
    assert all(Path(place).is_relative_to(found["prefix"]) for place in found["places"])
    assert not any(Path(place).is_relative_to(ROOT) for place in found["path"])
    project = PROJECT["project"]
    assert (found["name"], found["version"]) == (project["name"], project["version"])
    assert (found["license"], found["python"]) == (project["license"], project["requires-python"])
    assert found["commands"] == ["nas"]
    assert installed("nas", "--version") == f"spikefront {project['version']}\n"
    assert "digits" in installed("nas", "doctor")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_digits_are_searched_where_there_is_no_repository(installed: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "digits"
    shown = installed("nas", "search", "digits", "--out", str(out))
    assert f"report: {out / 'report.html'}" in shown
    assert (out / "report.html").stat().st_size > 1_000_000
    front = pd.read_csv(out / "front.csv")
    listed = json.loads(installed("nas", "front", str(out), "-f", "json"))
    assert [row["key"] for row in listed] == front["key"].tolist()
    assert len(front) >= 5
    assert front["accuracy"].max() > 0.9
