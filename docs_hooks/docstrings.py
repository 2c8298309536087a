"""Docstrings as Markdown: roles become links, code blocks are fenced, and sources are given where they are cited."""

from __future__ import annotations

import re
import textwrap

from griffe import Alias, Extension, GriffeLoader, Module, NameResolutionError, Object

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([\w.]+)`")
_CODE = re.compile(r"^( *)\.\. code-block:: (\w+)\n\s*\n((?:\1 +\S.*\n|[^\S\n]*\n)+)", re.MULTILINE)
_SOURCE = re.compile(r"^( *)\.\. \[(\w+)\] (.*\n(?:\1 +\S.*\n)*)", re.MULTILINE)
_CITED = re.compile(r"\[(\w+)\]_")


class Docstrings(Extension):
    """Rewrites the docstrings of a package once all of it is loaded."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **_: object) -> None:
        """Rewrite all docstrings of a package."""
        _rewrite(pkg, {})


def _rewrite(obj: Object, known: dict[str, str]) -> None:
    """Rewrite the docstrings of an object and of its members, given the sources that its parents name."""
    if obj.docstring is not None:
        text = obj.docstring.value + "\n"
        known = known | {key: " ".join(source.split()) for _, key, source in _SOURCE.findall(text)}
        obj.docstring.value = _markdown(text, obj, known)
    for member in obj.members.values():
        if not isinstance(member, Alias):
            _rewrite(member, known)


def _markdown(text: str, obj: Object, known: dict[str, str]) -> str:
    text = _CODE.sub(_fenced, _SOURCE.sub("", text))
    text = _ROLE.sub(lambda match: _link(match[1], obj), text)
    cited = dict.fromkeys(_CITED.findall(text))
    text = _CITED.sub(r"[\1]", text).rstrip()
    return "\n".join([text, *(f"\n[{key}] {known[key]}" for key in cited)])


def _fenced(match: re.Match[str]) -> str:
    indent, language, code = match.groups()
    return textwrap.indent(f"```{language}\n{textwrap.dedent(code).strip()}\n```\n\n", indent)


def _link(name: str, obj: Object) -> str:
    """Return a name as code, and a link where the reference has it."""
    first, dot, rest = name.partition(".")
    try:
        identifier = obj.resolve(first) + dot + rest
    except NameResolutionError:
        identifier = name  # begins with a package
    return f'<autoref identifier="{identifier}" optional><code>{name}</code></autoref>'
