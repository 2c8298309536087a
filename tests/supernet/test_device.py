"""Where to compute: what a recipe asks for, what there is, and what goes together."""

import subprocess
import sys

import pytest
import torch

from spaces import InputError
from supernet.device import keep_large_blocks, resolve_device


@pytest.fixture(params=[False, True], ids=["without a GPU", "with a GPU"])
def has_gpu(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    return request.param


def test_auto_is_a_gpu_where_there_is_one_that_the_executor_can_use(has_gpu):
    assert resolve_device("auto").type == ("cuda" if has_gpu else "cpu")
    assert resolve_device("auto", "native").type == "cpu"
    assert resolve_device("cpu").type == "cpu"


def test_a_gpu_that_is_asked_for_must_be_there(has_gpu):
    if has_gpu:
        assert resolve_device("cuda").type == "cuda"
    else:
        with pytest.raises(InputError, match="needs a GPU that torch can use, found none; set device to 'auto'"):
            resolve_device("cuda")


@pytest.mark.parametrize(("device", "executor"), [("cuda", "native"), ("cpu", "cupy")])
def test_executor_and_device_must_go_together(device, executor, has_gpu):
    with pytest.raises(InputError, match=f"executor '{executor}' computes on .*, got device '{device}'; set either"):
        resolve_device(device, executor)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_large_blocks_are_kept_once_asked_for():
    """Fresh 64 MiB blocks cost page faults each time by default, and only once when they are kept."""
    code = """
import resource, torch
from supernet.device import keep_large_blocks
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.empty(1 << 24).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults()
assert keep_large_blocks()
faults()
print(first, faults())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    mapped, kept = map(int, result.stdout.split())
    assert kept < mapped


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_large_blocks() is False
