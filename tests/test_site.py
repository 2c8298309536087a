"""The site of the documentation: every page is listed, every public name has a reference, and it builds strictly."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml
from pages import ROOT
from typer.main import get_command

import evaluators
import nas
import spaces
import supernet.engine
import supernet.neurons
from nas.cli import app

CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
REFERENCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/reference").glob("*.md")))
SHOWN = re.findall(r"^::: ([\w.]+)$", REFERENCE, flags=re.MULTILINE)
"""Names that the reference shows."""

PACKAGES = (nas, spaces, evaluators, supernet.neurons, supernet.engine)
MADE = {"index.md", "contributing.md", "changes.md", "reference/commands.md"}
"""Pages that are made of what lies outside ``docs/``."""


def listed(nav: Any) -> list[str]:
    """Return the pages of a navigation, in order."""
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in listed(entry)]


def test_every_page_is_listed_once_and_nothing_else_is() -> None:
    docs = ROOT / CONFIG["docs_dir"]
    there = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    assert not there & MADE, "mkdocs would show one of the two"
    assert sorted(listed(CONFIG["nav"])) == sorted(there | MADE)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_reference_has_every_public_name(package: Any) -> None:
    shown = [resolve_name(name) for name in SHOWN]
    assert not [name for name in package.__all__ if not any(getattr(package, name) is each for each in shown)]


def test_the_reference_has_what_is_there_and_once() -> None:
    assert len(SHOWN) == len(set(SHOWN)) > 100
    for name in SHOWN:
        resolve_name(name)


@pytest.fixture(scope="module")
def hooks() -> Any:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        from docs_hooks import pages

        return pages


@pytest.mark.parametrize(
    ("source", "uri", "text", "expected"),
    [
        ("README.md", "index.md", "[a](docs/runs.md#columns)", "[a](runs.md#columns)"),
        ("README.md", "index.md", "![a *b*](docs/images/front.png)", "![a *b*](images/front.png)"),
        ("README.md", "index.md", "[a](CONTRIBUTING.md), [b](LICENSE).", "[a](contributing.md), b."),
        ("docs/runs.md", "runs.md", "[`a[0]`](search.md) [b](../README.md)", "[`a[0]`](search.md) [b](index.md)"),
        ("docs/tables.md", "tables.md", "[`x`](../benchmarks/tables)", "`x`"),
        ("docs/reference/nas.md", "reference/nas.md", "[a](../energy.md)", "[a](../energy.md)"),
        ("README.md", "index.md", "[a](https://x.org/docs/a.md) [b](#install)", None),
        ("README.md", "index.md", "```python\nx[0](docs)\n```\n", None),
    ],
)
def test_links_lead_to_pages_of_the_site(source: str, uri: str, text: str, expected: str | None, hooks: Any) -> None:
    assert hooks.site_links(text, source, uri) == (text if expected is None else expected, [])


@pytest.mark.parametrize("target", ["docs/recipe.md", "../README.md", "docs/reference/commands.md"])
def test_links_to_what_the_repository_lacks_are_found(target: str, hooks: Any) -> None:
    assert hooks.site_links(f"[a]({target})", "README.md", "index.md")[1] == [target]


# The built site


@pytest.fixture(scope="module")
def site(hooks: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    return folder


def read(site: Path) -> dict[str, str]:
    """Return the content of all pages by name, as HTML."""
    pages = {}
    for path in site.rglob("*.html"):
        found = re.search(r"<article.*</article>", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        if found:
            pages[path.relative_to(site).as_posix()] = found[0]
    return pages


def test_all_pages_are_built(site: Path) -> None:
    assert set(read(site)) >= {page.replace(".md", ".html") for page in listed(CONFIG["nav"])}


def test_every_name_of_the_reference_can_be_linked_to(site: Path) -> None:
    anchors = {name for text in read(site).values() for name in re.findall(r'id="([\w.]+)"', text)}
    assert set(SHOWN) - {"nas.statistics"} <= anchors
    assert {"nas.statistics.effect_size", "nas.Run.front", "evaluators.Evaluator.__call__"} <= anchors


def test_every_command_is_described(site: Path) -> None:
    text = read(site)["reference/commands.html"]
    for name, command in get_command(app).commands.items():
        assert f"nas {name}</code>" in text
        assert text.count(html.escape(command.help, quote=False)) == 2, f"{name}: in the list, and where it stands"


def test_nothing_of_another_markup_is_left(site: Path) -> None:
    for name, page in read(site).items():
        shown = html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"<(pre|code)\b.*?</\1>", "", page, flags=re.DOTALL)))
        assert not re.findall(r".*(?:``|:[a-z]+:`|^\.\. |\]_|\]\(|^:::).*", shown, flags=re.MULTILINE), name


def test_equations_and_sources_stand_where_they_are_meant(site: Path) -> None:
    step = read(site)["reference/algorithms.html"].partition('id="nas.quantum.quantum_step"')[2].partition("<h3")[0]
    assert "[Sun2004] Sun, Feng, Xu." in step
    assert re.search(r"<code>.*pbest.*</code>", step, flags=re.DOTALL)


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=\"?([^\" >]+)", text)
        assert fetched
        assert not [url for url in fetched if re.match(r"(?:\w+:)?//", url)], path
    for path in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import) *[\"']?(?:https?:)?//", path.read_text(encoding="utf-8"))
