"""Where the files of public image sets are: in a data folder, in the cache, or on the net."""

from __future__ import annotations

import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import pooch

from spaces import InputError

DATA_VARIABLE = "SPIKEFRONT_DATA"
"""Environment variable that names the data folder when no argument does."""


@dataclass(frozen=True)
class Source:
    """Files of a public set.

    Attributes:
        folders: Sub-folders of a data folder in which people keep the set.
        files: Names of the files that are read.
        downloads: URL and checksum of each download: the files themselves, or one tar archive of them.
    """

    folders: tuple[str, ...]
    files: tuple[str, ...]
    downloads: tuple[tuple[str, str], ...]


def data_folder(data_dir: str | Path | None) -> Path | None:
    """Return the folder to look for data in: the argument, else ``SPIKEFRONT_DATA``, else None.

    Raises:
        InputError: If the folder does not exist.
    """
    chosen = data_dir or os.environ.get(DATA_VARIABLE)
    if not chosen:
        return None
    if not Path(chosen).is_dir():
        raise InputError(f"the data folder must exist, got {chosen}; set --data-dir or {DATA_VARIABLE}")
    return Path(chosen)


def locate(name: str, source: Source, data_dir: str | Path | None) -> list[Path]:
    """Return the paths of a set's files, downloading them into the user's cache if need be.

    Raises:
        InputError: If the files are neither in the data folder nor to be had from the net.
    """
    root = data_folder(data_dir)
    if root is not None:
        found = _within(root, source)
        if found is not None:
            return found
        if data_dir:
            raise InputError(
                f"{name} needs the files {list(source.files)} in {root} or in one of its sub-folders "
                f"{list(source.folders)}; some are missing"
            )
    return _download(name, source)


def find(name: str, source: Source, root: Path | None) -> list[Path] | None:
    """Return the paths of a set's files if they are in a data folder or in the user's cache, and download nothing."""
    found = None if root is None else _within(root, source)
    if found is not None:
        return found
    cache = _cache(name)
    cached = [next(cache.rglob(file), None) for file in source.files] if cache.is_dir() else [None]
    paths = [path for path in cached if path is not None]
    return paths if len(paths) == len(source.files) else None


def _within(root: Path, source: Source) -> list[Path] | None:
    for folder in ("", *source.folders):
        paths = [_plain_or_gz(root / folder / file) for file in source.files]
        if all(path.is_file() for path in paths):
            return paths
    return None


def _cache(name: str) -> Path:
    return Path(pooch.os_cache("spikefront")) / name


def _plain_or_gz(path: Path) -> Path:
    """Return the unpacked sibling of a ``.gz`` path where only that exists."""
    plain = path.with_suffix("")
    return plain if path.suffix == ".gz" and not path.exists() and plain.is_file() else path


def _download(name: str, source: Source) -> list[Path]:
    cache = _cache(name)
    try:
        fetched = [
            Path(pooch.retrieve(url, known_hash=checksum, path=cache, fname=url.rsplit("/", 1)[1]))
            for url, checksum in source.downloads
        ]
        if fetched[0].suffixes[-2:] != [".tar", ".gz"]:
            return fetched
        with tarfile.open(fetched[0]) as archive:
            archive.extractall(cache, filter="data")
        return [next(cache.rglob(file)) for file in source.files]
    except (OSError, ValueError, EOFError, zlib.error, tarfile.TarError, StopIteration) as error:
        raise InputError(
            f"{name} could not be downloaded ({type(error).__name__}); put its files {list(source.files)} into a "
            f"folder and name that folder with --data-dir or {DATA_VARIABLE}"
        ) from None
