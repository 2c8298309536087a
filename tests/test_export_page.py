"""The page on exports runs as it stands, on a shortened digits recipe, and says what is measured."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT, blocks, short_digits_in
from typer.testing import CliRunner

import nas
import nas.config
from nas.cli import app
from nas.export import FORMATS

pytest.importorskip("onnx")

PAGE = (ROOT / "docs/export.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def short_digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory in which the digits recipe takes seconds."""
    with short_digits_in(tmp_path_factory.mktemp("export-page")) as folder:
        yield folder


def test_commands_and_code_run_as_written(short_digits: Path) -> None:
    lines = [line.split("#")[0].strip() for block in blocks("docs/export.md", "sh") for line in block.splitlines()]
    assert [line.split()[1] for line in lines] == ["search", "export", "export", "evaluate", "evaluate", "export"]
    for line in lines:
        key = nas.Run("runs/digits").front().iloc[0].key if "KEY" in line else ""
        result = CliRunner().invoke(app, shlex.split(line.replace("KEY", key))[1:], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        assert result.stdout.strip(), line
    for code in blocks("docs/export.md", "python"):
        exec(compile(code, "export.md", "exec"), {})


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_its_section(name: str) -> None:
    assert f"### {name}\n" in PAGE


def test_the_page_quotes_what_was_measured() -> None:
    results = json.loads((ROOT / "benchmarks/results/export_formats.json").read_text(encoding="utf-8"))
    del results["machine"]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")]
    shown = {(row[0].strip("`"), row[1]): row[2:] for row in rows if len(row) == 5}
    expected = {
        (name, copy): [f"{row['differing']} of {row['images']}", str(row["answers"]), f"{row['largest']:.2g}"]
        for name, copies in results.items()
        for copy, row in copies.items()
    }
    assert shown == expected
