"""SQLite as fast as tests need it, for all of them, once."""

import sqlite3

from sqlalchemy import event
from sqlalchemy.engine import Engine


@event.listens_for(Engine, "connect")
def _trust_the_operating_system(connection, _):
    """Do not wait for the disk at each commit: no test here cuts the power."""
    if not isinstance(connection, sqlite3.Connection):
        return
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")
