"""The house: imports go down only, one door per heavy dependency, and nothing that runs what it reads."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "spaces": set(),
    "supernet": {"spaces"},
    "evaluators": {"spaces", "supernet"},
    "nas": {"spaces", "supernet", "evaluators"},
}
"""Floors, from the ground up, and the floors below each."""

LIBRARIES = {
    "spaces": {"numpy"},
    "supernet": {"numpy", "torch", "cupy", "kornia", "sklearn", "safetensors", "PIL", "platformdirs"}
    | {"pooch", "requests"},
    "evaluators": {"numpy", "torch"},
}
"""Third-party packages of the lower floors; the top floor may use any."""

DOORS = {
    "ray": {"nas/ray_pool.py", "nas/ray_actor.py", "nas/ray_cluster.py", "nas/distributed.py"},
    "optuna": {"nas/backend.py", "nas/drivers.py", "nas/storage.py", "nas/results.py", "nas/shown_storage.py"},
    "optuna_dashboard": {"nas/dashboard.py"},
    "sqlalchemy": {"nas/address.py", "nas/backend.py"},
    "pymoo": {"nas/"},
    "cupy": {"supernet/neurons/"},
    "mlflow": {"nas/logs.py"},
    "onnx": {"nas/onnx_graph.py"},
    "onnxruntime": {"nas/onnx_graph.py"},
}
"""Files, or folders, in which a heavy dependency may be imported."""

CODE_READERS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "ruamel"}
MODULES = sorted(path for floor in MAY_IMPORT for path in (ROOT / floor).rglob("*.py"))
names = [str(path.relative_to(ROOT)) for path in MODULES]


def parse(source):
    return ast.parse(source if isinstance(source, str) else source.read_text(encoding="utf-8"))


def imported(source):
    """Return the dotted names of all modules that code imports, anywhere in it and also for types only."""
    found = set()
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in ("import_module", "__import__"):
            found |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return found


def packages(source):
    return {name.split(".")[0] for name in imported(source)}


def dotted(node):
    """Return ``a.b.c`` for such an expression, or nothing for any other."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(source):
    """Return the calls and imports by which reading a file could run code in it."""
    found = sorted(packages(source) & CODE_READERS)
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in ("eval", "exec", "compile", "torch.load", "torch.jit.load", "__import__"):
                found.append(name)
            if any(word.arg in ("allow_pickle", "weights_only") for word in node.keywords):
                found.append(f"{name} with an option of unpickling")
    return found


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_imports_go_down_only(path):
    floor = path.relative_to(ROOT).parts[0]
    floors = packages(path) & set(MAY_IMPORT)
    assert floors <= MAY_IMPORT[floor] | {floor}


@pytest.mark.parametrize("path", [p for p in MODULES if "nas" not in p.relative_to(ROOT).parts[:1]], ids=str)
def test_lower_floors_use_their_own_libraries_only(path):
    floor = path.relative_to(ROOT).parts[0]
    foreign = packages(path) - set(MAY_IMPORT) - set(sys.stdlib_module_names)
    assert foreign <= LIBRARIES[floor]


@pytest.mark.parametrize("library", DOORS)
def test_heavy_dependencies_have_one_door(library):
    users = {str(path.relative_to(ROOT)) for path in MODULES if library in packages(path)}
    strangers = {user for user in users if not any(user == door or user.startswith(door) for door in DOORS[library])}
    assert not strangers


def test_results_know_of_optuna_no_more_than_what_a_trial_is():
    assert {name for name in imported(ROOT / "nas/results.py") if name.startswith("optuna")} <= {
        "optuna.trial.FrozenTrial",
        "optuna.trial.TrialState",
    }


def test_every_door_is_in_use():
    used = {library for library in DOORS if any(library in packages(path) for path in MODULES)}
    assert {"ray", "optuna", "sqlalchemy", "pymoo"} <= used


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_nothing_that_is_read_can_run(path):
    assert dangers(path) == []


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_modules_fit_into_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_everything_is_caught_in_one_place_only():
    def catches_all(node):
        if not isinstance(node, ast.ExceptHandler):
            return False
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        return any(kind is None or dotted(kind) in ("Exception", "BaseException") for kind in caught)

    places = [name for name, path in zip(names, MODULES, strict=True) if any(map(catches_all, ast.walk(parse(path))))]
    assert places == ["nas/evaluation.py"]


def test_the_walk_sees_all_floors():
    assert {name.split("/")[0] for name in names} == set(MAY_IMPORT)
    assert len(names) > 40


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("import ray", "ray"),
        ("import ray.util as u", "ray"),
        ("from ray.util import ActorPool", "ray"),
        ("def f():\n    import torch.nn", "torch"),
        ("if TYPE_CHECKING:\n    from nas.run import Run", "nas"),
        ("from importlib import import_module\nimport_module('optuna.study')", "optuna"),
    ],
)
def test_the_scanner_finds_a_planted_import(source, package):
    assert package in packages(source)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load('x')",
        "import pickle",
        "from pickle import loads",
        "np.load('x', allow_pickle=True)",
        "import yaml",
        "eval('1')",
        "exec('1')",
        "import joblib",
    ],
)
def test_the_scanner_finds_a_planted_danger(source):
    assert dangers(source)


@pytest.mark.parametrize("source", ["model.eval()", "re.compile('x')", "model.load_state_dict(x)", "json.load(f)"])
def test_the_scanner_finds_no_danger_in_what_is_harmless(source):
    assert dangers(source) == []
