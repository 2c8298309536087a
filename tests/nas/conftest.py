"""One tiny trained run for all tests, and copies of it for those that change it."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from fakes import SPACE, Listener, lasting, write_recipe

import nas
from nas import cli
from spaces import load_space

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    """Tests see no data but their own."""
    monkeypatch.delenv("SPIKEFRONT_DATA", raising=False)
    monkeypatch.delenv("SPIKEFRONT_STORAGE_PASSWORD", raising=False)


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    """Path of the tiny recipe."""
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="session")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "space.toml"
    path.write_text(SPACE)
    return load_space(path)


@pytest.fixture(scope="session")
def finished(recipe, tmp_path_factory):
    """Run of the tiny recipe, which was never interrupted; tests only read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SPIKEFRONT_DATA", raising=False)
        return nas.search(recipe, tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture
def copied(finished, tmp_path):
    """Folder of a copy of the finished run, to be changed."""
    return Path(shutil.copytree(finished.folder, tmp_path / "copied"))


@pytest.fixture
def snapshot():
    def snapshot(folder):
        """Return the content of all files of a folder, as comparable values."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    return snapshot


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Write a user's module and make it importable, here and in Ray workers that start afterwards."""
    written = []

    def own_module(name, source):
        folder = tmp_path / "modules"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(folder)
        written.append(name)

    yield own_module
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture
def command(monkeypatch, capfd):
    def command(*arguments):
        """Run the command ``nas`` in this process; return exit code, standard output and standard error."""
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["nas", *map(str, arguments)])
            patch.setattr(sys, "path", sys.path[:])
            patch.setattr(os, "environ", os.environ.copy())
            with pytest.raises(SystemExit) as exit_:
                cli.main()
        out, err = capfd.readouterr()
        return exit_.value.code or 0, out, err

    return command


@pytest.fixture
def comparable():
    def comparable(run, study="search", rows=None):
        """Return a study's table without what may differ between two runs of one recipe."""
        frame = lasting(run.evaluations(study))
        return frame if rows is None else frame.drop(columns="is_pareto").head(rows)

    return comparable


@pytest.fixture(scope="session")
def trained_once(recipe, tmp_path_factory):
    return nas.train(recipe, tmp_path_factory.mktemp("runs") / "trained").folder


@pytest.fixture
def trained(trained_once, tmp_path):
    """Folder of a run that is trained and not yet searched, to be changed."""
    return Path(shutil.copytree(trained_once, tmp_path / "trained"))


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def quick(monkeypatch):
    """Let who leads a run and who joins it look for each other all the time."""
    monkeypatch.setattr("nas.joining.LISTEN", 0.0)
