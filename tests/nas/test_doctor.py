"""``nas doctor``: what is there, and with pieces taken away what that costs and how to get them."""

import json
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch

from nas import doctor
from nas.doctor import Finding, describe, examine
from nas.extras import EXTRAS
from supernet import download
from supernet.data import SOURCES
from supernet.native import compiler

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
NEEDED = [
    *PROJECT["dependencies"],
    *(
        f'{text.partition(";")[0].strip()} ; extra == "{extra}"'
        for extra, texts in PROJECT["optional-dependencies"].items()
        for text in texts
    ),
]


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    """An empty cache of downloads."""
    monkeypatch.setattr(download.pooch, "os_cache", lambda name: tmp_path / "cache")


def found(piece, requirements=NEEDED, **options):
    (finding,) = [each for each in examine(requirements=requirements, **options) if each.piece == piece]
    return finding


def absent(monkeypatch, *names):
    """Take packages away."""
    version = metadata.version

    def without(name):
        if name in names:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor.metadata, "version", without)


def unloadable(monkeypatch, *names):
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_every_extra_but_that_of_developers_is_told_of():
    assert set(EXTRAS) == set(PROJECT["optional-dependencies"]) - {"dev", "docs"}


def test_all_that_is_there_is_ok_and_costs_nothing():
    findings = examine(requirements=NEEDED)
    assert len({each.piece for each in findings}) == len(findings)
    for each in findings:
        assert each.found
        assert (each.state == "ok") == (not each.cost) == (not each.remedy)
    pieces = {"python", "machine", "packages", "C compiler", "GPU", "Ray", "data folder", "digits", *SOURCES}
    assert pieces | {f"[{extra}]" for extra in EXTRAS} == {each.piece for each in findings}
    assert f"torch {torch.__version__}" in found("packages").found


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    absent(monkeypatch, "optuna")
    finding = found("optuna")
    assert (finding.state, finding.found) == ("missing", "no optuna")
    assert finding.remedy == "pip install 'optuna>=4.2'"


def test_a_package_that_is_too_old_is_told_of():
    finding = found("numpy", ["numpy>=99", "pandas"])
    assert (finding.state, finding.remedy) == ("faulty", "pip install 'numpy>=99'")
    assert finding.found == f"numpy {metadata.version('numpy')}, which must be >=99"


@pytest.mark.parametrize(
    ("extra", "package"),
    [("tables", "pyarrow"), ("tensorboard", "tensorboard"), ("mlflow", "mlflow-skinny"), ("gpu", "cupy-cuda13x")],
)
def test_a_missing_extra_says_what_does_not_work(extra, package, monkeypatch):
    absent(monkeypatch, package)
    finding = found(f"[{extra}]")
    assert finding.state == "missing"
    assert f"no {package}" in finding.found
    assert finding.cost == f"not to be had: {EXTRAS[extra]}"
    assert finding.remedy == f"pip install 'spikefront[{extra}]'"


def test_what_training_in_several_processes_takes_is_looked_for(monkeypatch):
    absent(monkeypatch, "fsspec")
    finding = found("[train]")
    assert (finding.state, finding.found) == ("missing", "no fsspec")


def test_without_being_installed_it_says_so(monkeypatch):
    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", nothing)
    assert found("packages", None).state == "faulty"


def test_without_a_compiler(monkeypatch):
    compiler.compiler_problem.cache_clear()
    monkeypatch.setenv("CC", "no-such-compiler")
    finding = found("C compiler")
    compiler.compiler_problem.cache_clear()
    assert finding.state == "missing"
    assert "no-such-compiler is not on the path" in finding.found
    assert "plain torch" in finding.cost
    assert "install gcc or clang" in finding.remedy


def test_without_and_with_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cuda = sys.modules.get("supernet.neurons.cuda") or __import__("supernet.neurons.cuda", fromlist=["problem"])
    monkeypatch.setattr(cuda, "problem", lambda: "torch sees no CUDA device")
    finding = found("GPU")
    assert (finding.state, finding.found) == ("missing", "torch sees no CUDA device")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Card")
    monkeypatch.setattr(cuda, "problem", lambda: "CuPy cannot be imported")
    finding = found("GPU")
    assert (finding.state, finding.found) == ("faulty", "Card; CuPy cannot be imported")
    assert finding.remedy == "pip install 'spikefront[gpu]'"
    monkeypatch.setattr(cuda, "problem", lambda: None)
    assert found("GPU") == Finding("GPU", "ok", f"Card, CUDA {torch.version.cuda}")


def test_without_ray_torch_or_scikit_learn_it_still_speaks(monkeypatch):
    absent(monkeypatch, "ray")
    unloadable(monkeypatch, "torch", "supernet.data", "sklearn.datasets", "supernet.native.compiler")
    findings = {each.piece: each for each in examine(requirements=NEEDED)}
    assert findings["Ray"].state == "missing"
    assert "pool = 'local'" in findings["Ray"].remedy
    assert findings["GPU"].state == "faulty"
    assert findings["data"].cost == "no images can be read"
    assert findings["C compiler"].state == "faulty"
    assert "digits" not in findings


def test_without_scikit_learn_there_are_no_digits(monkeypatch):
    unloadable(monkeypatch, "sklearn.datasets")
    assert found("digits").remedy == "pip install 'scikit-learn>=1.5'"


def test_ray_says_where_it_would_score(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert "joins 10.0.0.1:6379" in found("Ray").found
    monkeypatch.setattr(doctor, "SMALL_MEMORY", 1 << 60)
    finding = found("Ray")
    assert (finding.state, finding.remedy) == ("faulty", "in a container, --shm-size=2g")


def test_data_is_found_in_the_folder_or_the_cache_and_nowhere_else(tmp_path, monkeypatch):
    assert {found(name).state for name in SOURCES} == {"missing"}
    folder = tmp_path / "data" / SOURCES["mnist"].folders[0]
    cache = tmp_path / "cache" / "cifar100" / "inner"
    for place, name in ((folder, "mnist"), (cache, "cifar100")):
        place.mkdir(parents=True)
        for file in SOURCES[name].files:
            (place / file).touch()
    assert found("mnist", data_dir=tmp_path / "data") == Finding("mnist", "ok", str(folder))
    assert found("mnist").state == "missing"
    assert found("cifar100") == Finding("cifar100", "ok", str(cache))
    (cache / SOURCES["cifar100"].files[0]).unlink()
    assert found("cifar100").state == "missing"
    monkeypatch.setenv("SPIKEFRONT_DATA", str(tmp_path / "data"))
    assert found("mnist").state == "ok"


def test_a_data_folder_that_is_not_there_is_told_of_and_is_no_error(command, tmp_path):
    code, out, err = command("doctor", "--data-dir", tmp_path / "nowhere", "--json")
    assert (code, err) == (0, "")
    (finding,) = [each for each in json.loads(out) if each["piece"] == "data folder"]
    assert finding["state"] == "faulty"
    assert "the data folder must exist" in finding["found"]


def test_the_command_always_succeeds_and_says_what_is_missing_last(command, monkeypatch):
    absent(monkeypatch, "pyarrow")
    code, out, err = command("doctor")
    assert (code, err) == (0, "")
    assert "[tables]: not to be had: Parquet" in out
    assert "    pip install 'spikefront[tables]'\n" in out
    code, out, _ = command("doctor", "--json")
    assert code == 0
    assert all(set(each) == {"piece", "state", "found", "cost", "remedy"} for each in json.loads(out))


def test_where_nothing_is_missing_that_is_said():
    assert describe([Finding("python", "ok", "3.13")]).endswith("\n\nnothing is missing")
