"""``import nas`` is silent, quick, and brings nothing heavy along."""

import json
import os
import subprocess
import sys

import pytest

import evaluators
import nas

HEAVY = ("torch", "ray", "pymoo", "optuna", "pandas", "plotly", "kornia", "sklearn", "cupy", "sqlalchemy", "pydantic")

CODE = """
import time
began = time.perf_counter()
import {module}
seconds = time.perf_counter() - began
import json, sys
print(json.dumps({{"seconds": seconds, "modules": sorted(sys.modules)}}))
"""


def imported_alone(module):
    """Import a module in a process of its own, warnings being errors; return seconds and the modules loaded."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE.format(module=module)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert (result.returncode, result.stderr) == (0, "")
    (line,) = result.stdout.splitlines()
    return json.loads(line)


def test_import_nas_is_silent_and_quick_and_loads_nothing_heavy():
    loaded = imported_alone("nas")
    assert loaded["seconds"] < 2
    assert not set(HEAVY) & set(loaded["modules"])


def test_spaces_work_without_torch():
    assert not set(HEAVY) & set(imported_alone("spaces")["modules"])


def test_evaluators_work_without_the_search():
    loaded = set(imported_alone("evaluators.table")["modules"])
    assert "torch" in loaded
    assert not {"nas", "ray", "pymoo", "optuna", "plotly", "kornia", "sklearn"} & loaded


def test_evaluators_are_loaded_when_they_are_used():
    assert not set(HEAVY) & set(imported_alone("evaluators")["modules"])


def test_results_work_without_torch():
    assert not {"torch", "ray", "kornia", "sklearn", "plotly"} & set(imported_alone("nas.run")["modules"])


@pytest.mark.parametrize("name", evaluators.__all__)
def test_every_public_name_of_the_evaluators_has_a_home(name):
    assert getattr(evaluators, name) is not None


def test_an_unknown_evaluator_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'evaluators' has no attribute 'acuracy'"):
        evaluators.acuracy  # noqa: B018  # looking it up is what is tested


@pytest.mark.parametrize("name", nas.__all__)
def test_public_names_are_there_when_asked_for(name):
    assert getattr(nas, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'nas' has no attribute 'serach'"):
        nas.serach  # noqa: B018  # looking it up is what is tested
