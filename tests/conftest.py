"""What all tests share: SQLite as fast as they need it, and a database server."""

import sqlite3
from importlib.util import find_spec

import pytest
from postgres import programs, running_server
from sqlalchemy import event
from sqlalchemy.engine import Engine


@event.listens_for(Engine, "connect")
def _trust_the_operating_system(connection, _):
    """Do not wait for the disk at each commit: no test here cuts the power."""
    if not isinstance(connection, sqlite3.Connection):
        return
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server of the tests' own."""
    if programs() is None or find_spec("psycopg2") is None:
        pytest.skip("PostgreSQL's server or psycopg2 is not installed; make test-all installs them if it can")
    with running_server() as server:
        yield server
