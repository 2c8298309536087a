"""Pages that lie outside ``docs/``, links among all of them as GitHub follows them, and the page of all commands."""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from nas.cli import app

ROOT = Path(__file__).parents[1]
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
"""Pages of the site by files of the repository outside ``docs/``."""

COMMANDS = "reference/commands.md"
"""Page of all commands, which is made anew by each build."""

_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")

log = logging.getLogger("mkdocs.hooks.pages")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in ``docs/``."""
    for source, uri in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, COMMANDS, content=commands()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page with links for the site."""
    uri = page.file.src_uri
    source = next((file for file, outside in OUTSIDE.items() if outside == uri), f"docs/{uri}")
    text, broken = site_links(markdown, source, uri)
    for target in broken:
        log.warning("%s links to %s, which is not in the repository", source, target)
    return text


def site_links(markdown: str, source: str, uri: str) -> tuple[str, list[str]]:
    """Return a page whose links go to pages of the site, and the targets that are not in the repository.

    A link to a file that the site does not have becomes its text.

    Args:
        markdown: Text of the page, with links relative to its file.
        source: Path of that file in the repository.
        uri: Path of the page in the site.
    """
    broken = []

    def link(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (ROOT / path).exists():
            broken.append(target)
        there = OUTSIDE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if there is None:
            return text
        return f"{image}[{text}]({posixpath.relpath(there, posixpath.dirname(uri) or '.')}{anchor or ''})"

    parts = _FENCED.split(markdown)  # every second one is code
    parts[::2] = [_LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts), broken


def commands() -> str:
    """Return the page of all commands, with what ``--help`` says of each."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="nas")
    for name in command.list_commands(context):
        each = command.get_command(context, name)
        each.short_help = each.help  # in full
    return get_docs_for_click(obj=command, ctx=context, name="nas", title="The command nas")
