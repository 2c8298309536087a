"""The cache of compiled kernels, and what happens where there is no compiler."""

import os
import shlex
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from spaces import InputError, Skeleton
from supernet.engine import Engine
from supernet.engine.operators import NativeOperators, choose_operators
from supernet.native import compiler
from supernet.native.compiler import FLAGS, NativeError, build, compiler_problem, find_compiler
from supernet.neurons import FusedUnavailable, build_neuron, check_executor, executors, integrate, native
from supernet.spikformer import build_supernet

CACHES = (build, compiler_problem, compiler._version, compiler._processor, executors._notice, native.kernels)
FORTY_TWO = "int answer(void) { return 42; }\n"

pytestmark = pytest.mark.skipif(compiler_problem() is not None, reason="needs a C compiler")


def forget():
    for function in CACHES:
        function.cache_clear()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache folder of the test's own, and nothing remembered from before or kept for later."""
    monkeypatch.setenv("SPIKEFRONT_CACHE", str(tmp_path / "kernels"))
    forget()
    yield tmp_path / "kernels"
    monkeypatch.undo()
    forget()


@pytest.fixture
def no_compiler(tmp_path, monkeypatch):
    (tmp_path / "nothing").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("CC", raising=False)


@pytest.fixture
def fake_compiler(tmp_path):
    """Write a command that logs its calls in front of the true compiler, or does something else."""

    def fake_compiler(name="fakecc", after='exec {real} "$@"'):
        real = shlex.join([shutil.which(find_compiler()[0]), *find_compiler()[1:]])
        command, log = tmp_path / name, tmp_path / f"{name}.log"
        command.write_text(f'#!/bin/sh\necho "$@" >> {shlex.quote(str(log))}\n{after.format(real=real)}\n')
        command.chmod(0o755)
        return command, lambda: log.read_text().splitlines() if log.exists() else []

    return fake_compiler


def libraries(folder):
    return sorted(path.name for path in folder.iterdir())


# --- the cache


def test_a_library_is_built_once_and_loaded_from_then_on(folder, fake_compiler, monkeypatch):
    command, calls = fake_compiler()
    monkeypatch.setenv("CC", str(command))
    assert build(FORTY_TWO).answer() == 42
    built = [call for call in calls() if "-shared" in call]
    assert len(built) == 1
    assert all(flag in built[0] for flag in FLAGS)
    first = libraries(folder)
    assert build(FORTY_TWO).answer() == 42
    forget()  # as another process would begin
    assert build(FORTY_TWO).answer() == 42
    assert [call for call in calls() if "-shared" in call] == built
    assert libraries(folder) == first
    assert len(first) == 1
    assert first[0].endswith(".so")


@pytest.mark.parametrize("what", ["source", "flags", "processor", "compiler"])
def test_a_library_of_something_else_is_another_one(folder, what, fake_compiler, monkeypatch):
    build(FORTY_TWO)
    forget()
    source, flags = FORTY_TWO, FLAGS
    if what == "source":
        source = FORTY_TWO.replace("42", "43")
    elif what == "flags":
        flags = tuple(flag.replace("-O3", "-O1") for flag in FLAGS)
    elif what == "processor":
        monkeypatch.setattr(compiler, "_processor", lambda: "another")
    else:
        version = '[ "$1" = --version ] && echo another && exit\nexec {real} "$@"'
        monkeypatch.setenv("CC", str(fake_compiler(after=version)[0]))
    assert build(source, flags).answer() == (43 if what == "source" else 42)
    assert len(libraries(folder)) == 2


def test_the_folder_is_made_for_its_user_alone(folder):
    build(FORTY_TWO)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_without_a_variable_libraries_lie_in_the_user_s_cache(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("SPIKEFRONT_CACHE", "")
    monkeypatch.setattr(compiler, "user_cache_path", lambda name: tmp_path / "home" / name)
    build(FORTY_TWO)
    assert len(libraries(tmp_path / "home" / "spikefront" / "kernels")) == 1
    assert not folder.exists()


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    text = f"must be yours alone to write to, but {folder} is not; set SPIKEFRONT_CACHE to another folder"
    with pytest.raises(NativeError) as caught:
        build(FORTY_TWO)
    assert text in str(caught.value)
    assert libraries(folder) == []


def test_a_folder_of_somebody_else_is_refused(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12_345)
    with pytest.raises(NativeError, match="must be yours alone to write to"):
        build(FORTY_TWO)


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch, where):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPIKEFRONT_CACHE", str(tmp_path / where))
    with pytest.raises(
        NativeError, match=r"cannot be written to: .*; set SPIKEFRONT_CACHE to another folder"
    ) as caught:
        build(FORTY_TWO)
    assert str(tmp_path / where) in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_is_named(folder):
    folder.mkdir(mode=0o500)
    with pytest.raises(NativeError, match="cannot be written to"):
        build(FORTY_TWO)


@pytest.mark.parametrize("content", [b"", b"no library at all"])
def test_a_damaged_library_is_named_and_deleting_it_helps(folder, monkeypatch, content):
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "_compile", lambda *arguments: arguments[-1].write_bytes(content))
        with pytest.raises(NativeError, match="cannot be loaded") as caught:
            build(FORTY_TWO)
    (library,) = folder.iterdir()
    assert str(caught.value).endswith(f"; delete {library}")
    with pytest.raises(NativeError, match="cannot be loaded"):
        build(FORTY_TWO)
    library.unlink()
    assert build(FORTY_TWO).answer() == 42


def test_two_threads_may_build_the_same_at_once(folder, fake_compiler, monkeypatch):
    command, calls = fake_compiler(after='sleep 0.2\nexec {real} "$@"')
    monkeypatch.setenv("CC", str(command))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: build(FORTY_TWO).answer(), range(2)))
    assert found == [42, 42]
    assert len(libraries(folder)) == 1
    assert sum("-shared" in call for call in calls()) == 2


def test_two_processes_may_build_the_same_at_once(folder):
    code = f"import sys; sys.path.insert(0, {str(Path(compiler.__file__).parents[2])!r})\n"
    code += f"from supernet.native.compiler import build; print(build({FORTY_TWO!r}).answer())"
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120) for process in running] == [("42\n", "")] * 2
    assert len(libraries(folder)) == 1


# --- compilers


def test_the_variable_cc_may_carry_arguments(fake_compiler, monkeypatch):
    command, calls = fake_compiler("cc with spaces")
    monkeypatch.setenv("CC", shlex.join([str(command), "-DANSWER=42"]))
    assert find_compiler() == [str(command), "-DANSWER=42"]
    assert build("int answer(void) { return ANSWER; }\n").answer() == 42
    assert all(call.startswith("-DANSWER=42 ") for call in calls())


def test_without_the_variable_the_first_compiler_on_the_path_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", " ")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("cc", "clang", "gcc"):
        (tmp_path / name).touch(0o755)
        assert find_compiler() == [name]


def test_no_compiler_is_a_problem_with_a_way_out(no_compiler, folder):
    text = "need a C compiler, but gcc, clang or cc is not on the path; install gcc, or set CC"
    with pytest.raises(NativeError, match=text):
        build(FORTY_TWO)
    assert text in compiler_problem()
    assert not folder.exists()


def test_a_compiler_that_is_asked_for_and_missing_is_named(monkeypatch):
    monkeypatch.setenv("CC", "no-such-cc -O2")
    with pytest.raises(NativeError, match="but no-such-cc is not on the path; install gcc, or set CC"):
        find_compiler()


def test_a_variable_cc_that_is_no_command_is_a_problem_with_a_way_out(monkeypatch):
    monkeypatch.setenv("CC", "gcc 'unfinished")
    assert "set CC" in compiler_problem()


def test_a_source_that_does_not_compile_shows_its_first_error(folder):
    with pytest.raises(NativeError, match=r"cannot build a kernel: .*error.*; install gcc, or set CC"):
        build("int answer(void) { return nothing_of_that_name; }\n")
    assert libraries(folder) == []


@pytest.mark.parametrize(
    ("after", "text"), [("echo broken >&2; exit 3", "broken"), ("exit 3", "no message")], ids=["message", "none"]
)
def test_a_compiler_that_fails_is_a_problem_and_leaves_nothing(folder, fake_compiler, monkeypatch, after, text):
    monkeypatch.setenv("CC", str(fake_compiler(after=after)[0]))
    assert f"cannot build a kernel: {text}; install gcc, or set CC" in compiler_problem()
    assert libraries(folder) == []


def test_a_command_that_cannot_be_run_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "cc").write_bytes(b"\x7fELF of no machine")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    assert "cannot be run" in compiler_problem()


def test_a_failure_is_not_remembered_by_build(no_compiler, monkeypatch):
    with pytest.raises(NativeError):
        build(FORTY_TWO)
    monkeypatch.setenv("PATH", os.defpath)
    assert build(FORTY_TWO).answer() == 42


# --- who computes neurons


@pytest.fixture
def current():
    return 3 * torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))


def neuron_of(executor):
    return build_neuron(Skeleton(8, 1, 3), executor)


def test_auto_without_a_compiler_warns_once_and_gives_the_same_spikes(no_compiler, current):
    neuron = neuron_of("auto")
    with pytest.warns(FusedUnavailable, match="need a C compiler, .*; plain torch computes them") as caught:
        spikes = neuron(current)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(neuron(current), spikes)
        assert torch.equal(neuron_of("auto")(current.double()), spikes.double())
        assert neuron.compiled(current, current.dtype) is None
    assert torch.equal(spikes, integrate(current, neuron.equations, neuron.constants(1.0, 2.0)))
    assert 0 < spikes.mean() < 1


def test_native_without_a_compiler_is_refused_with_a_way_out(no_compiler, current):
    text = (
        "executor 'native' cannot be used here: .* is not on the path; install gcc, or set CC; or use executor 'auto'"
    )
    for call in (neuron_of("native"), neuron_of("native").train(), lambda _: check_executor("native")):
        with pytest.raises(InputError, match=text):
            call(current)


def test_an_unknown_executor_is_refused_with_the_known_ones(current):
    for call in (neuron_of("numba"), lambda _: check_executor("numba")):
        with pytest.raises(InputError, match=r"executor must be one of \['auto', 'reference', .*\], got 'numba'"):
            call(current)


def test_reference_needs_no_compiler_and_warns_of_nothing(no_compiler, current):
    check_executor("reference")
    assert neuron_of("reference")(current).mean() > 0


def test_training_and_scoring_work_without_a_compiler_and_warn_once(no_compiler, make_space, make_images):
    space = make_space()
    supernet = build_supernet(space, 0)
    with pytest.warns(FusedUnavailable) as caught:
        supernet.train()(make_images(4), space.largest()).sum().backward()
    assert len(caught) == 1
    (result,) = Engine(supernet).score([space.smallest()], [make_images(4)], [make_images(2)])
    assert result.logits.shape == (2, 3)
    assert supernet.stem.stages[0].conv.weight.grad is not None


def test_operators_are_compiled_where_they_can_be(monkeypatch):
    cpu = torch.device("cpu")
    assert isinstance(choose_operators(cpu, "auto", "exact"), NativeOperators)
    assert isinstance(choose_operators(cpu, "native", "exact"), NativeOperators)
    assert not isinstance(choose_operators(cpu, "reference", "exact"), NativeOperators)


def test_an_engine_that_is_asked_for_native_operators_does_not_take_others(no_compiler, make_space):
    with pytest.raises(InputError, match="executor 'native' cannot be used here"):
        Engine(build_supernet(make_space(), 0), executor="native")


@pytest.mark.parametrize("wrong", [{"executor": "numba"}, {"precision": "fp8"}], ids=["executor", "precision"])
def test_an_engine_refuses_what_it_does_not_know(make_space, wrong):
    with pytest.raises((InputError, ValueError), match="must be one of"):
        Engine(build_supernet(make_space(), 0), **wrong)


def test_native_refuses_tensors_that_are_not_in_this_machine_s_memory():
    code = f"import sys; sys.path.insert(0, {str(Path(compiler.__file__).parents[2])!r})\n"
    code += "import torch; from supernet.neurons import LIF; LIF(executor='native')(torch.zeros(2, 3, device='meta'))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert "computes on the CPU" in result.stderr
