"""Where the time goes: rows that add up, time that lands where it was spent, and nothing left behind."""

import io
import json
import time

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from nas.profile import choose_architecture
from nas.timing import KINDS, PHASES, TimingSettings, time_layers
from spaces import InputError, SearchSpace
from supernet import fused
from supernet.engine import operators
from supernet.extract import extract
from supernet.native import spikes
from supernet.neurons.native import NativeKernels
from supernet.spikformer import build_supernet

FAST = TimingSettings(batch=4, rounds=1)
WITHOUT_ENGINE = ("forward", "backward", "evaluation")
POOLED = "pooling"


@pytest.fixture
def timed(space):
    def timed(neuron="lif", executor="auto", settings=FAST, architecture=None, **images):
        values = space.to_dict()
        values["skeleton"]["neuron"] = neuron
        other = SearchSpace.from_dict(values)
        return time_layers(build_supernet(other, 0, executor), architecture or other.largest(), settings, **images)

    return timed


@pytest.mark.parametrize("neuron", ["lif", "plif"])
@pytest.mark.parametrize("executor", ["auto", "reference"])
def test_every_phase_has_all_kinds_which_add_up_to_its_total(neuron, executor, timed):
    frame = timed(neuron, executor, TimingSettings(batch=4, rounds=2, autocast=executor == "auto"))
    phases = PHASES if executor == "auto" else WITHOUT_ENGINE
    assert frame.columns.tolist() == ["kind", *(f"{p}_{unit}" for p in phases for unit in ("ms", "share"))]
    assert frame["kind"].tolist() == [*KINDS, "total"]
    for phase in phases:
        ms, share = frame[f"{phase}_ms"], frame[f"{phase}_share"]
        assert ms.iloc[:-1].sum() == pytest.approx(ms.iloc[-1], rel=1e-9)
        assert share.iloc[:-1].sum() == pytest.approx(1, rel=1e-9)
        np.testing.assert_allclose(ms / ms.iloc[-1], share)
        never = {"head"} if phase == "calibration" else set()
        assert set(frame["kind"][ms == 0]) == never
    assert (0 < frame.attrs.get("density", 1) < 1) or executor == "reference"


@pytest.mark.parametrize(
    ("owner", "name", "grown"),
    [
        (fused, "linear", {"forward": "linear layers"}),
        (fused, "attend", {"forward": "attention products"}),
        (fused, "max_pool", {"forward": POOLED}),
        (fused, "norm_fire", {"forward": "normalisation and neurons"}),
        (fused._Linear, "backward", {"backward": "linear layers"}),
        (fused._Attend, "backward", {"backward": "attention products"}),
        (fused._NormFire, "backward", {"backward": "normalisation and neurons"}),
        (fused._MaxPool, "backward", {"backward": POOLED}),
        (F, "cross_entropy", {"forward": "head"}),
        (F, "batch_norm", {"evaluation": "normalisation and neurons"}),
        (spikes, "spike_linear", dict.fromkeys(["calibration", "scoring"], "linear layers")),
        (spikes, "spike_attention", dict.fromkeys(["calibration", "scoring"], "attention products")),
        (spikes, "spike_max_pool", dict.fromkeys(["calibration", "scoring"], POOLED)),
        (spikes, "token_mean", {"scoring": "head"}),
        (NativeKernels, "moments", {"calibration": "normalisation and neurons"}),
        (operators.TorchOperators, "fire", dict.fromkeys(["calibration", "scoring"], "normalisation and neurons")),
        (operators.TorchOperators, "fire_attention", {"scoring": "normalisation and neurons"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_time_lands_at_the_kind_that_spends_it(owner, name, grown, timed, monkeypatch):
    """What sleeps at every call is by far the largest row of its phase."""
    function = getattr(owner, name)

    def slow(*arguments, **options):
        time.sleep(0.01)
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, staticmethod(slow) if name == "backward" else slow)
    frame = timed().set_index("kind").drop(index="total")
    for phase, kind in grown.items():
        assert frame[f"{phase}_ms"].idxmax() == kind, frame[f"{phase}_ms"]
        assert frame.loc[kind, f"{phase}_ms"] >= 10
        assert frame.drop(index=kind)[f"{phase}_ms"].sum() < frame.loc[kind, f"{phase}_ms"] + 10


@pytest.mark.parametrize(("index", "kind"), [(1, "first convolution"), (8, "stem convolutions")])
def test_the_first_convolution_is_told_from_the_others_by_its_input(index, kind, timed, monkeypatch):
    """In the tiny space the first stage has 1 input channel and 2 outputs, the last ones 8 and more."""
    backward = fused._Convolve.backward

    def slow(ctx, *gradients):
        if (ctx.saved_tensors[1].shape[1] >= 8) == (index == 8) and ctx.saved_tensors[1].shape[1] in (1, 8, 16):
            time.sleep(0.01)
        return backward(ctx, *gradients)

    monkeypatch.setattr(fused._Convolve, "backward", staticmethod(slow))
    frame = timed().set_index("kind").drop(index="total")
    assert frame["backward_ms"].idxmax() == kind


def test_the_neuron_behind_the_attention_is_no_attention_product(timed, monkeypatch):
    def slow_forward(self, x, timesteps, k, affine, *more):
        if affine is None:  # only the currents of the attention are not normalised
            time.sleep(0.01)
        return forward(self, x, timesteps, k, affine, *more)

    def slow_backward(self, x, timesteps, k, affine, *more):
        if affine is None:
            time.sleep(0.01)
        return backward(self, x, timesteps, k, affine, *more)

    forward, backward = NativeKernels.forward, NativeKernels.backward
    monkeypatch.setattr(NativeKernels, "forward", slow_forward)
    monkeypatch.setattr(NativeKernels, "backward", slow_backward)
    frame = timed().set_index("kind").drop(index="total")
    for phase in ("forward", "backward", "scoring"):
        assert frame[f"{phase}_ms"].idxmax() == "normalisation and neurons"


def test_a_smaller_architecture_and_given_images_are_what_is_timed(space, timed, monkeypatch):
    seen = []
    forward = fused._Convolve.forward

    def watch(ctx, x, weight, *more):
        seen.append((x.shape, weight.shape))
        return forward(ctx, x, weight, *more)

    monkeypatch.setattr(fused._Convolve, "forward", staticmethod(watch))
    small = space.smallest()
    timed(architecture=small, training=torch.zeros(9, 1, 8, 8), scored=torch.zeros(3, 1, 8, 8))
    assert {x[1] for x, _ in seen} == {4}, "a batch of the images given"
    assert max(weight[0] for _, weight in seen) == small.embed_dim


def test_nothing_is_left_behind(space):
    supernet = build_supernet(space, 0)
    supernet.train().blocks[0].eval()
    modes = [module.training for module in supernet.modules()]
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    calls = {name: getattr(fused, name) for name in ("linear", "convolve", "norm_fire", "attend", "max_pool")}
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    expected = extract(supernet, space.smallest())(torch.ones(2, 1, 8, 8))
    time_layers(supernet, space.smallest(), TimingSettings(batch=3, rounds=1, threads=2))
    assert [module.training for module in supernet.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert all(parameter.grad is None for parameter in supernet.parameters())
    for module in supernet.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        assert not any(hooks)
        assert "constant_list" not in vars(module)
        assert "compiled" not in vars(module)
    assert all(getattr(fused, name) is call for name, call in calls.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads
    assert torch.equal(extract(supernet, space.smallest())(torch.ones(2, 1, 8, 8)), expected)


def test_threads_are_those_of_before_even_if_a_call_fails(timed, monkeypatch):
    def fail(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(fused, "attend", fail)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="no memory"):
        timed(settings=TimingSettings(batch=2, rounds=1, threads=threads + 1))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("key", ["batch", "threads", "rounds"])
def test_numbers_have_a_least_value(key):
    with pytest.raises(InputError, match=rf"{key} must be \d or more, got 0"):
        TimingSettings(**{key: 0})


def test_precisions_executors_and_architectures_must_exist(space, timed):
    with pytest.raises(InputError, match=r"precision must be one of \['exact', 'bf16', 'int8'\], got 'half'"):
        TimingSettings(precision="half")
    with pytest.raises(InputError, match="executor must be one of"):
        timed(executor="abacus")
    with pytest.raises(InputError, match="architecture must be 'smallest', 'median' or 'largest', got 'widest'"):
        choose_architecture(space, "widest")
    larger = SearchSpace.from_dict({**space.to_dict(), "genes": {**space.to_dict()["genes"], "embed_dim": [32]}})
    with pytest.raises(InputError, match="must fit into the network"):
        timed(architecture=larger.largest())


def test_the_median_architecture_lies_between_the_others(space):
    from evaluators import dense_operations

    assert choose_architecture(space, "smallest") == space.smallest()
    assert choose_architecture(space, "largest") == space.largest()
    median = choose_architecture(space, "median", 11)
    macs = [dense_operations(space.skeleton, a).macs_per_image for a in (space.smallest(), median, space.largest())]
    assert macs[0] < macs[1] < macs[2]
    assert choose_architecture(space, "median", 11) == median


# On the command line

TIME = ["--time", "--batch", 4, "--rounds", 1]


def test_the_command_prints_a_table_json_and_csv(command, recipe):
    path = recipe.parent / "space.toml"
    code, out, err = command("profile", path, *TIME, "--precision", "int8", "--threads", 2)
    assert (code, err) == (0, "")
    assert out.startswith("tiny, largest: embed_dim 16, timesteps 2, depth 2\n")
    assert "a trained network fires at other rates" in out
    assert "batch 4, 2 thread(s), executor auto, median of 1 round(s)" in out
    assert "by the engine, int8" in out
    assert all(kind in out for kind in (*KINDS, "total", *(f"{phase} ms" for phase in PHASES)))
    code, out, err = command("profile", path, *TIME, "--architecture", "median", "--samples", 3, "-f", "json")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["kind"] for row in rows] == [*KINDS, "total"]
    assert sum(row["scoring_ms"] for row in rows[:-1]) == pytest.approx(rows[-1]["scoring_ms"])
    code, out, err = command("profile", path, *TIME, "--executor", "reference", "-f", "csv")
    frame = pd.read_csv(io.StringIO(out))
    assert (code, err) == (0, "")
    assert [name[:-3] for name in frame.columns if name.endswith("_ms")] == [*WITHOUT_ENGINE]


def test_the_command_times_the_supernet_of_a_run_on_its_images(command, finished, snapshot):
    before = snapshot(finished.folder)
    key = finished.front()["key"].iloc[0]
    code, out, err = command("profile", "--run", finished.folder, *TIME, "--architecture", key)
    assert (code, err) == (0, "")
    assert "trained weights, 4 training and 4 validation images" in out
    assert snapshot(finished.folder) == before
    code, out, _ = command("profile", "--run", finished.folder, *TIME, "--executor", "reference")
    assert code == 0
    assert "runs with this executor score by evaluation" in out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["digits", "--time", "--batch", 1], "batch must be 2 or more, got 1"),
        (["digits", "--time", "--rounds", 0], "rounds must be 1 or more, got 0"),
        (["digits", "--time", "--threads", -1], "threads must be 1 or more, got -1"),
        (["digits", "--time", "--precision", "half"], "precision must be one of"),
        (["digits", "--time", "--executor", "abacus"], "executor must be one of"),
        (["digits", "--time", "--architecture", "widest"], "architecture must be 'smallest', 'median' or 'largest'"),
        (["digits", "--batch", 4, "--rounds", 1], "--batch, --rounds must go with --time"),
        (["--run", "nowhere"], "--run must go with --time"),
        (["--run", "nowhere", "--time"], "is not a run folder"),
        (["--run", "nowhere", "--time", "--image-size", 8], "a run has its own images, got --image-size"),
        (["digits", "--run", "nowhere", "--time"], "a space, or a run folder by --run, and not both"),
        ([], "a space, or a run folder by --run, and not both"),
        (["mars", "--time"], "a space is one of"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_wrong_options_are_one_line_and_exit_code_2(words, text, command):
    code, out, err = command("profile", *words)
    assert (code, out) == (2, "")
    assert text in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_cupy_is_refused_where_only_the_cpu_is_timed(space, monkeypatch):
    monkeypatch.setattr("nas.timing.check_executor", lambda executor: None)
    with pytest.raises(InputError, match="layers are timed on the CPU, got executor 'cupy'"):
        time_layers(build_supernet(space, 0, "cupy"), space.largest(), FAST)
