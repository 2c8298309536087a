"""Fuzzed inputs need neither the disk's word nor more than one thread."""

import sqlite3

import pytest
import torch
from sqlalchemy import event
from sqlalchemy.engine import Engine

torch.set_num_threads(1)


@event.listens_for(Engine, "connect")
def _trust_the_operating_system(connection, _):
    """Do not wait for the disk at each commit: no test here cuts the power."""
    if not isinstance(connection, sqlite3.Connection):
        return
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    """Tests see no data but their own."""
    monkeypatch.delenv("SPIKEFRONT_DATA", raising=False)
