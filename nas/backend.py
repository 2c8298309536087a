"""Opening the store of a run: a SQLite file in its folder, a database elsewhere, or a journal file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from nas.address import PASSWORD, Address, parse_address
from nas.folder import LINK, STORE, has_begun, read_run
from spaces import InputError


@dataclass(frozen=True)
class Storage:
    """Where the studies of a run are.

    Attributes:
        backend: Optuna's storage.
        address: Where it is.
        prefix: What the names of the run's studies begin with.
    """

    backend: BaseStorage
    address: Address
    prefix: str = ""

    @contextmanager
    def sound(self) -> Iterator[None]:
        """Turn what a damaged or unreachable store raises into an InputError."""
        with _sound(self.address):
            yield

    def cached(self) -> Storage:
        """Return the same storage for who reads it again and again: what has ended is read once."""
        return replace(self, backend=get_storage(self.backend))


class _Journal(JournalFileBackend):
    """A journal file whose last line is whole again before anything is added, whatever a full disk left there."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines under the lock.

        Raises:
            OSError: If the file cannot be written, or its lock was lost meanwhile; lines may be there all the same.
        """
        try:
            self._append(logs)
        except RuntimeError as error:  # all that Optuna says of a lock file that is gone
            raise OSError(f"its lock file was taken away while it was held ({error})") from error

    def _append(self, logs: list[dict[str, Any]]) -> None:
        with Path(self._file_path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - 1, 0))
            torn = file.read() not in (b"", b"\n")
        if torn:
            self._mend()
        super().append_logs(logs)

    def _mend(self) -> None:
        """Cut a line that has no end, if it still has none once nobody is writing."""
        self._lock.acquire()
        try:
            with Path(self._file_path).open("r+b") as file:
                end = file.seek(0, 2)
                while end > 0:
                    start = max(end - 4096, 0)
                    file.seek(start)
                    newline = file.read(end - start).rfind(b"\n")
                    if newline >= 0:
                        file.truncate(start + newline + 1)
                        return
                    end = start
                file.truncate(0)
        finally:
            self._lock.release()


def open_storage(folder: Path, address: Address | None = None, prefix: str = "") -> Storage:
    """Return the storage of a run folder, creating it if need be.

    Args:
        folder: Run folder.
        address: Where it is; a SQLite file in the folder by default.
        prefix: What the names of the run's studies begin with.

    Raises:
        InputError: If it cannot be opened or is not a store.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    address = address or parse_address(f"sqlite:///{folder.resolve() / STORE}", folder)
    with _sound(address):
        return Storage(_open(address), address, prefix)


def _open(address: Address) -> BaseStorage:
    if address.kind == "journal":
        path = str(address.file)
        # Links and files made exclusively are safe on NFS, which advisory locks are not everywhere.
        return JournalStorage(_Journal(path, lock_obj=JournalFileOpenLock(path)))
    connect: dict[str, Any] = {}
    if address.file is not None:
        connect = {"timeout": 10}
    elif address.text.startswith(("postgresql://", "postgresql+psycopg2://")):
        connect = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    options = {"connect_args": connect, "pool_pre_ping": address.file is None}
    return RDBStorage(address.url().render_as_string(hide_password=False), engine_kwargs=options)


def open_run_storage(folder: Path, given: Address | None = None) -> Storage:
    """Return the storage of a run, where its ``run.json`` says.

    Args:
        folder: Run folder.
        given: Address that the user has given again, whose password counts.
    """
    return open_storage(folder, *_recorded(folder, given))


def begin_run_storage(folder: Path, given: Address | None = None) -> Storage:
    """Return the storage of a run as :func:`open_run_storage` does, and note that the run has begun."""
    storage = open_run_storage(folder, given)
    if storage.prefix:
        (folder / LINK).write_text(f"{storage.address.text}\n", encoding="utf-8")
    return storage


def find_run_storage(folder: Path, given: Address | None = None) -> Storage | None:
    """Return the storage of a run to be read, or None if its search has not begun."""
    return open_run_storage(folder, given) if has_begun(folder) else None


def _recorded(folder: Path, given: Address | None) -> tuple[Address | None, str]:
    """Return where the storage of a run is, and how the names of its studies begin."""
    values = read_run(folder)
    text = values["recipe"].get("storage")
    if text is None:
        return None, ""
    address = parse_address(text, folder)
    if given is not None and given.text == address.text:
        address = given
    return address, f"{values['id']}/"


_DAMAGES = (
    SQLAlchemyError,
    StorageInternalError,
    RuntimeError,
    AssertionError,
    OSError,
    KeyError,
    ValueError,
    TypeError,
)


TROUBLES = (SQLAlchemyError, StorageInternalError, OSError)
"""What a store raises that may be away, or worse; :func:`unreachable` tells which."""


def unreachable(error: BaseException) -> str | None:
    """Return in a line why a store cannot be used now, though it may be again; None of any other error."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    lost = isinstance(cause, DBAPIError) and cause.connection_invalidated
    if not lost and not isinstance(cause, OperationalError | InterfaceError | PoolTimeoutError | OSError):
        return None
    return _first_line(cause)


def _first_line(cause: BaseException) -> str:
    return (str(getattr(cause, "orig", None) or cause).strip() or type(cause).__name__).splitlines()[0]


@contextmanager
def _sound(address: Address) -> Iterator[None]:
    """Turn what a damaged or unreachable store raises into an InputError."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"{address} needs a driver that is not installed ({error.__cause__ or error}); "
            "pip install 'spikefront[postgres]' brings that of PostgreSQL"
        ) from None
    except _DAMAGES as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        reason = address.without_secrets(_first_line(cause))
        way_out = "choose another run folder"
        if address.file is None:
            way_out = f"see to the server, or to the password ({PASSWORD})"
        elif address.kind == "journal" or address.file.name != STORE:
            way_out = "choose another storage"
        raise InputError(f"{address} must be the store of a run, but: {reason}; {way_out}") from None
