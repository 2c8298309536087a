"""Named search spaces, and spaces from a user's own TOML file: one format for both."""

from __future__ import annotations

import tomllib
from pathlib import Path

from spaces.errors import InputError
from spaces.space import SearchSpace

_NAMED = Path(__file__).parent / "named"


def space_names() -> list[str]:
    """Return the names of the spaces that come with Spikefront."""
    return sorted(path.stem for path in _NAMED.glob("*.toml"))


def load_space(name_or_path: str | Path) -> SearchSpace:
    """Return a named space, or the space of a TOML file.

    Args:
        name_or_path: A row of ``space_names()``, or a path ending in ``.toml``.

    Raises:
        InputError: If there is no such space, or if its file breaks a rule.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if str(name_or_path) not in space_names():
            raise InputError(
                f"a space is one of {space_names()} or the path of a .toml file, got {str(name_or_path)!r}"
            )
        path = _NAMED / f"{name_or_path}.toml"
    try:
        return SearchSpace.from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"no space file at {path}; named spaces are {space_names()}") from None
    except (OSError, InputError) as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, too deep, or a number beyond all bounds
        raise InputError(f"{path} must be a TOML file: {error}") from None
