"""Fuzzed inputs need neither the disk's word nor more than one thread."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    """Tests see no data but their own."""
    monkeypatch.delenv("SPIKEFRONT_DATA", raising=False)
