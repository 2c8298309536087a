"""The tutorial runs as it stands, on a few noisy pictures in place of Fashion-MNIST, and is quoted as it prints."""

import gzip
import os
import re
import shlex

import numpy as np
import pytest
from pages import ROOT
from tutorial import PAGE, Block, quote, read_blocks, run_block, shorten
from typer.testing import CliRunner

import nas.config
from nas.cli import app

SHORTER = {"epochs": 1, "warmup_epochs": 0, "evaluations": 12, "population": 4, "calibration_images": 32}
PREFIXES = (("train", 100), ("t10k", 20))
INSTALL = "pip install"


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an IDX file."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes(), 1)


@pytest.fixture
def little_fashion(tmp_path, monkeypatch):
    """A working directory in which the recipe and the pictures of Fashion-MNIST take seconds."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 200, (10, 28, 28))
    images = tmp_path / "data"
    images.mkdir()
    for prefix, count in PREFIXES:
        labels = np.arange(count) % 10
        pixels = patterns[labels] + rng.integers(0, 55, (count, 28, 28))
        (images / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(pixels))
        (images / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    recipe = (ROOT / "nas/recipes/fashion-mnist.toml").read_text(encoding="utf-8")
    for key, value in SHORTER.items():
        recipe, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", recipe, flags=re.MULTILINE)
        assert count == 1, f"the recipe sets {key}"
    (tmp_path / "recipes").mkdir()
    recipe = recipe.replace('pool = "ray"', 'pool = "local"')
    (tmp_path / "recipes/fashion-mnist.toml").write_text(recipe, encoding="utf-8")
    monkeypatch.setattr(nas.config, "_RECIPES", tmp_path / "recipes")
    monkeypatch.setenv("SPIKEFRONT_DATA", str(images))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_runs_in_its_order_and_prints_what_is_quoted(little_fashion, capsys):
    text = (ROOT / PAGE).read_text(encoding="utf-8").replace("accuracy>=0.86", "accuracy>=0.0")
    for block in read_blocks(text):
        printed = ""
        if block.language == "python":
            exec(compile(block.code.replace('energy_mj"] <= budget', 'energy_mj"] <= 1'), "tutorial.md", "exec"), {})
            printed = capsys.readouterr().out
        elif INSTALL not in block.code:
            for line in block.code.splitlines():
                assert line.startswith("nas ")
                result = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
                assert result.exit_code == 0, f"{line}\n{result.output}"
                printed += result.stdout
        assert printed.strip() or block.quoted is None, block.code
    assert (little_fashion / "deployed/seed-0/model.safetensors").exists()
    assert (little_fashion / "runs/fashion-mnist/fidelity.json").exists()


def test_the_page_quotes_a_run_and_installs_as_the_readme_says():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    found = read_blocks(text)
    assert INSTALL in found[0].code
    for block in found:
        assert block.quoted is None or text[slice(*block.quoted)].strip(), f"nothing is quoted of {block.code}"


def test_outputs_are_quoted_behind_their_blocks_and_nothing_else_changes():
    page = "a\n\n```sh\necho 1\n```\n\n```text\nold\n```\n\nb\n\n```python\nx\n```\n\nc\n"
    page += "\n```sh\ny\n```\n\n```text\n```\nd\n"
    found = read_blocks(page)
    assert [(block.language, block.code, block.quoted is None) for block in found] == [
        ("sh", "echo 1\n", False),
        ("python", "x\n", True),
        ("sh", "y\n", False),
    ]
    assert quote(page, ["longer than before\n", "two\n", "three\nfour\n"]) == (
        page.replace("old\n", "longer than before\n").replace("```text\n```\nd", "```text\nthree\nfour\n```\nd")
    )


def test_blocks_run_in_their_folder_and_a_line_that_fails_ends_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    found = run_block(
        Block("sh", "echo here > file\npwd; cat file; echo said >&2; echo ${PYTHONPATH:-none}\n", None), tmp_path
    )
    assert found == f"{os.path.realpath(tmp_path)}\nhere\nnone\n"
    with pytest.raises(SystemExit, match="failed with 1"):
        run_block(Block("sh", "false\necho on\n", None), tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").write_text('python() { echo "ours: $(cat)"; }\n')
    assert run_block(Block("python", "print(1)\n", None), tmp_path) == "ours: print(1)\n\n".replace("\n\n", "\n")


def test_what_is_too_long_or_too_wide_is_quoted_with_dots():
    short = "".join(f"{number}\n" for number in range(20))
    assert shorten(short) == short
    assert shorten(short + "20\n").splitlines() == [*map(str, range(16)), "…", "18", "19", "20"]
    assert shorten("x" * 116 + "\n") == "x" * 116 + "\n"
    assert shorten("x" * 117) == "x" * 114 + " …\n"
