"""Where the store of a run is: its address as everybody may see it, and the password that no file keeps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

from spaces import InputError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

PASSWORD = "SPIKEFRONT_STORAGE_PASSWORD"
"""Environment variable with the password of a store's server; without it the driver looks where it always does."""

_RULE = (
    "a storage must be a database URL such as postgresql+psycopg2://user@host/name, or journal:PATH or a path ending "
    "in .log for a journal file"
)


@dataclass(frozen=True)
class Address:
    """Where a store is.

    Attributes:
        kind: ``database`` for what SQLAlchemy opens, ``journal`` for a file of JSON lines.
        text: Its URL, or ``journal:`` and a whole path; never with a password.
        password: Given with it, or None.
    """

    kind: Literal["database", "journal"]
    text: str
    password: str | None = None

    @property
    def file(self) -> Path | None:
        """File that holds it, or None if a server does."""
        if self.kind == "journal":
            return Path(self.text.removeprefix("journal:"))
        url = _url(self.text)
        return Path(url.database or "") if url.get_backend_name() == "sqlite" else None

    def url(self) -> URL:
        """Return the URL to connect with, with the password if there is one."""
        url, password = _url(self.text), self.password or os.environ.get(PASSWORD)
        return url if self.file is not None or password is None else url.set(password=password)

    def without_secrets(self, text: str) -> str:
        """Return a text in which the password is masked."""
        for secret in {self.password, os.environ.get(PASSWORD)} - {None, ""}:
            text = text.replace(str(secret), "***")
        return text

    def __str__(self) -> str:
        if self.file is not None:
            return str(self.file)
        return self.text


def parse_address(text: str, base: Path) -> Address:
    """Return the address that a recipe or an option names.

    Args:
        text: URL, ``journal:PATH``, or a path ending in ``.log``.
        base: Folder that paths are relative to.

    Raises:
        InputError: If it is none; the text is not repeated, as it may hold a password.
    """
    if "://" not in text:
        path = text.removeprefix("journal:")
        if not path or not (text.startswith("journal:") or path.endswith(".log")):
            raise InputError(f"{_RULE}, got {text!r}")
        return Address("journal", f"journal:{(base / path).resolve()}")
    url = _url(text)
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise InputError("a storage must outlive the process, so sqlite:/// needs the path of a file")
        return Address("database", f"{url.drivername}:///{(base / url.database).resolve()}")
    password = None if url.password is None else str(url.password)
    secret = [key for key in url.query if "pass" in key.lower()]
    for key in secret:
        value = url.query[key]
        password = password or (value if isinstance(value, str) else value[-1])
    bare = url._replace(password=None).difference_update_query(secret)
    return Address("database", bare.render_as_string(hide_password=False), password)


def _url(text: str) -> URL:
    from sqlalchemy import engine, exc  # noqa: PLC0415  # 0.15 s, which reading a recipe without a URL need not take

    try:
        return engine.make_url(text)
    except (exc.ArgumentError, ValueError):
        raise InputError(f"{_RULE}; this URL cannot be read (characters of a password may need %-escapes)") from None


def parse_recorded(text: str, base: Path) -> str:
    """Return the address that a recipe may record.

    Raises:
        InputError: If it is none, or has a password.
    """
    address = parse_address(text, base)
    if address.password is not None:
        raise InputError(
            f"a recipe must not hold a password, but its storage {address} has one; give it by {PASSWORD}, by what "
            "the database's driver reads (such as ~/.pgpass), or in --storage"
        )
    return address.text


Recorded = Annotated[str, AfterValidator(lambda text: parse_recorded(text, Path.cwd()))]
"""Address of a storage in a recipe."""
