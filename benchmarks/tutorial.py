"""Run docs/tutorial.md as it stands, in a fresh clone, and write what it prints into the page.

Every block of ``sh`` and ``python`` is run in its order, in the clone; a block of ``text`` behind one quotes its
standard output. Takes between one and two hours on two cores.

    python benchmarks/tutorial.py --write        # run all, and quote it
    python benchmarks/tutorial.py --folder DIR   # go on in a clone of before, behind the blocks that it has run
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs/tutorial.md")
RECORD = "tutorial.json"
"""File in the clone that has what each block has printed."""
_FENCED = re.compile(r"^```(sh|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", flags=re.DOTALL | re.MULTILINE)
_WIDTH, _HEAD, _TAIL = 116, 16, 3
"""Columns of a quoted line, and lines from the beginning and the end of an output that is too long to be quoted."""


@dataclass(frozen=True)
class Block:
    """A block of the page that runs.

    Attributes:
        language: ``sh`` or ``python``.
        code: What it has.
        quoted: Where the page quotes its output, from and to; None if it does not.
    """

    language: str
    code: str
    quoted: tuple[int, int] | None


def read_blocks(text: str) -> list[Block]:
    """Return the blocks of a page that run, in their order."""
    return [
        Block(found[1], found[2], None if found[3] is None else found.span(3)) for found in _FENCED.finditer(text)
    ]


def run_block(block: Block, folder: Path) -> str:
    """Run a block in a folder, and return its standard output; errors and progress go to standard error.

    Raises:
        SystemExit: If a line of it fails.
    """
    activate = ". .venv/bin/activate\n" if (folder / ".venv/bin/activate").exists() else ""
    code = block.code if block.language == "sh" else f"python - <<'END'\n{block.code}\nEND\n"
    environment = {**os.environ, "COLUMNS": str(_WIDTH)}
    environment.pop("PYTHONPATH", None)
    command = ["bash", "-euo", "pipefail", "-c", activate + code]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"this block has failed with {done.returncode}:\n{block.code}\n{done.stdout}")
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def shorten(output: str) -> str:
    """Return an output as it is quoted: dots stand for what is left out in the middle, and at the ends of lines."""
    lines = [line if len(line) <= _WIDTH else f"{line[: _WIDTH - 2]} …" for line in output.splitlines()]
    if len(lines) > _HEAD + _TAIL + 1:
        lines[_HEAD:-_TAIL] = ["…"]
    return "".join(f"{line}\n" for line in lines)


def quote(text: str, outputs: list[str]) -> str:
    """Return a page in which each block that has a quotation quotes its output."""
    for block, output in reversed(list(zip(read_blocks(text), outputs, strict=True))):
        if block.quoted is not None:
            text = text[: block.quoted[0]] + shorten(output) + text[block.quoted[1] :]
    return text


def clone(folder: Path) -> None:
    """Clone the repository, at its last commit, into a folder."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder)], check=True)


def main() -> None:
    """Run the page, and say how long each block has taken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="clone to work in; a temporary one by default")
    parser.add_argument("--write", action="store_true", help="quote the outputs in docs/tutorial.md")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="tutorial-"))
    if not (folder / PAGE).exists():
        clone(folder)
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    record = folder / RECORD
    ran = json.loads(record.read_text(encoding="utf-8")) if record.exists() else []
    for number, block in enumerate(read_blocks(text)):
        if number < len(ran) and ran[number]["code"] == block.code:
            continue
        del ran[number:]
        print(f"--- {block.code}", file=sys.stderr, flush=True)
        began = time.monotonic()
        output = run_block(block, folder)
        ran.append({"code": block.code, "output": output, "seconds": round(time.monotonic() - began, 1)})
        record.write_text(json.dumps(ran, indent=1), encoding="utf-8")
        print(f"{output}--- {ran[-1]['seconds']} s", file=sys.stderr, flush=True)
    print(f"{len(ran)} blocks in {sum(each['seconds'] for each in ran) / 60:.0f} minutes, in {folder}")
    if given.write:
        (ROOT / PAGE).write_text(quote(text, [each["output"] for each in ran]), encoding="utf-8")


if __name__ == "__main__":
    main()
