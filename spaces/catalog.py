"""Named search spaces, spaces from a user's own TOML file in the same format, and spaces from a user's own module."""

from __future__ import annotations

import tomllib
from pathlib import Path

from spaces.errors import InputError
from spaces.resolve import refusing, resolve
from spaces.space import SearchSpace

_NAMED = Path(__file__).parent / "named"


def space_names() -> list[str]:
    """Return the names of the spaces that come with Spikefront."""
    return sorted(path.stem for path in _NAMED.glob("*.toml"))


def load_space(name_or_path: str | Path) -> SearchSpace:
    """Return a named space, the space of a TOML file, or the space that a user's own module names.

    Args:
        name_or_path: A row of ``space_names()``, a path ending in ``.toml``, or ``package.module:Name`` of a
            ``SearchSpace``, or of what returns one when it is called without arguments.

    Raises:
        InputError: If there is no such space, or if it breaks a rule.
    """
    path, name = Path(name_or_path), str(name_or_path)
    if path.suffix != ".toml":
        if ":" in name:
            return _own_space(name)
        if name not in space_names():
            raise InputError(
                f"a space is one of {space_names()} or the path of a .toml file or package.module:Name, got {name!r}"
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


def _own_space(name: str) -> SearchSpace:
    """Return the space that ``package.module:Name`` names, checked as that of a file is."""
    found: object = resolve({}, name, "space")
    with refusing(f"space {name!r} cannot be built"):
        made = found() if callable(found) else found
        if type(made) is SearchSpace:  # code of a subclass would not be in the plain values that a run keeps
            return SearchSpace.from_dict(made.to_dict()).with_reference(made.reference)
    raise InputError(
        f"a space of one's own is a spaces.SearchSpace, or what returns one without arguments, but {name!r} gives "
        f"{made!r}; SearchSpace.from_dict makes one of the values that a space file has"
    )
