"""Strategies that damage what a user can hand over: plain values, TOML and JSON texts, bytes."""

import json
import math
from copy import deepcopy

from hypothesis import strategies as st

ODD = [
    None, True, False, 0, 1, -1, 2, 3, 7, 300, 2**16, 2**31, 2**63, 2**64, -(2**63), 10**18, 10**400,
    0.0, -0.0, 0.5, 1.5, -2.5, 1e-320, 1e300, 1.8e308, math.inf, -math.inf, math.nan,
    "", " ", "0", "1", "nan", "true", "max", "min", "lif", "digits", "nsga2", "ga", "acc", "energy_mj", "accuracy",
    "op", "key", "width", "math:pi", "builtins:int", "no.such:Thing", ":", "a:", ":b", "../..", "/", ".", "\0",
    "\N{SNOWMAN}", "\N{GRINNING FACE}" * 3, "e\u0301", "\u202e", "a\nb", "\x1b[31m", "x" * 300, "%s", "{0}", "'\"",
    [], [[]], [None], [0], [1, 2], [2, 1], [1, 1], [0.5], [""], ["acc"], ["acc", "acc"], [{}], [[1], [2]],
    {}, {"": 0}, {"a": {"b": {"c": []}}}, {"acc": "max"}, {"acc": 1}, {"max_acc": 0.5}, {"name": "digits"},
]  # fmt: skip
"""Values that are wrong in most places, and right in some."""

LONE = "\ud800"
"""Half of a pair, which JSON can write and UTF-8 cannot."""

DEEP = 3000
"""Levels of nesting beyond what parsers recurse into."""

odd_values = st.one_of(
    st.sampled_from(ODD),
    st.sampled_from(ODD),
    st.integers(-10, 300),
    st.floats(width=64),
    st.text(max_size=6),
    st.lists(st.sampled_from(ODD), max_size=3),
)


def _places(values):
    """Return all containers of nested values, each with one of its keys, and the whole as a key of nothing."""
    found, waiting = [], [values]
    while waiting:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], dict | list):
                waiting.append(container[key])
    return found


@st.composite
def mutated(draw, values, extra=()):
    """Return nested plain values with one to three changes of their structure; ``extra`` are more odd values."""
    values = deepcopy(values)
    odd = st.one_of(odd_values, st.sampled_from(list(extra))) if extra else odd_values
    for _ in range(draw(st.integers(1, 3))):
        places = _places(values)
        if not places:
            break
        container, key = draw(st.sampled_from(places))
        change = draw(st.sampled_from(["replace"] * 4 + ["remove", "add", "rename", "wrap", "copy", "nudge"]))
        if change == "replace":
            container[key] = deepcopy(draw(odd))
        elif change == "remove":
            del container[key]
        elif change == "add" and isinstance(container, dict):
            container[draw(st.sampled_from(["", "x", "name", "max_acc", "\N{SNOWMAN}"]))] = deepcopy(draw(odd))
        elif change == "add":
            container.append(deepcopy(draw(odd)))
        elif change == "rename" and isinstance(container, dict):
            container[draw(st.sampled_from(["", f"{key}s", "name", str(key)[:-1]]))] = container.pop(key)
        elif change == "wrap":
            container[key] = draw(st.sampled_from([[container[key]], {"x": container[key]}]))
        elif change == "copy":
            other, name = draw(st.sampled_from(places))
            if isinstance(other, dict | list) and (name in other if isinstance(other, dict) else name < len(other)):
                container[key] = deepcopy(other[name])
        elif change == "nudge" and isinstance(container[key], int | float):
            container[key] = container[key] * draw(st.sampled_from([-1, 0, 2, 10, 0.1, 1e9])) + draw(
                st.sampled_from([0, 1, -1, 0.5])
            )
    return values


def toml_text(values):
    """Return nested plain values as TOML, each top-level table in one line; what TOML cannot hold is left out."""
    return "".join(f"{_text(key)} = {_toml(value)}\n" for key, value in values.items() if value is not None)


def _text(text):
    return json.dumps(str(text), ensure_ascii=False)


def _toml(value):
    if isinstance(value, dict):
        inside = ", ".join(f"{_text(key)} = {_toml(item)}" for key, item in value.items() if item is not None)
        return f"{{ {inside} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value if item is not None)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    return repr(value)


@st.composite
def damaged(draw, content):
    """Return bytes with one to three changes: flips, cuts, insertions, repetitions."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.sampled_from([1, 1, 2, 8, 64, 4096]))
        change = draw(st.sampled_from(["flip", "flip", "set", "cut", "truncate", "insert", "repeat", "move", "deep"]))
        if change == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "set" and content:
            content[at] = draw(st.integers(0, 255))
        elif change == "cut":
            del content[at : at + length]
        elif change == "truncate":
            del content[at:]
        elif change == "insert":
            content[at:at] = draw(
                st.sampled_from([b"\0", b"\xff", b'"', b"[", b"]", b"=", b"\n", b",", b"-", b"9", b"nan"])
            )
        elif change == "repeat":
            content[at:at] = content[at : at + length]
        elif change == "move":
            chunk = content[at : at + length]
            del content[at : at + length]
            to = draw(st.integers(0, len(content)))
            content[to:to] = chunk
        elif change == "deep":
            content[at:at] = draw(st.sampled_from([b"[", b'{"a":', b"(", b"a."])) * draw(st.sampled_from([2, DEEP]))
    return bytes(content)
