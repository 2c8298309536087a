"""Training settings: rules, and the learning-rate schedule by hand."""

import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces import InputError
from supernet.settings import PRECISIONS, TrainSettings

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "training.epochs must be 1 or more, got 0"),
        ({"batch_size": 1}, r"training.batch_size must be 2 or more \(BatchNorm needs two images\), got 1"),
        ({"learning_rate": 0.0}, r"training.learning_rate must be above 0, got 0\.0"),
        ({"learning_rate": -1e-3}, "training.learning_rate must be above 0, got -0.001"),
        ({"learning_rate": NAN}, "training.learning_rate must be above 0, got nan"),
        ({"learning_rate": INF}, "training.learning_rate must be above 0, got inf"),
        ({"min_learning_rate": -1e-9}, "training.min_learning_rate must be from 0 to learning_rate 0.0005, got"),
        ({"min_learning_rate": 1e-3}, "training.min_learning_rate must be from 0 to learning_rate 0.0005, got"),
        ({"min_learning_rate": NAN}, "training.min_learning_rate must be from 0 .*, got nan"),
        ({"warmup_epochs": -1}, "training.warmup_epochs must be 0 or more and below epochs 300, got -1"),
        ({"warmup_epochs": 300}, "training.warmup_epochs must be 0 or more and below epochs 300, got 300"),
        ({"epochs": 20}, "training.warmup_epochs must be 0 or more and below epochs 20, got 20"),
        ({"warmup_epochs": NAN}, "training.warmup_epochs must be .*, got nan"),
        ({"weight_decay": -0.1}, r"training.weight_decay must be 0 or more, got -0\.1"),
        ({"weight_decay": INF}, "training.weight_decay must be 0 or more, got inf"),
        ({"label_smoothing": 1.0}, r"training.label_smoothing must be in \[0, 1\), got 1\.0"),
        ({"label_smoothing": -0.1}, r"training.label_smoothing must be in \[0, 1\), got -0\.1"),
        ({"mixup": -0.1}, r"training.mixup must be 0 or more, got -0\.1"),
        ({"mixup": NAN}, "training.mixup must be 0 or more, got nan"),
        ({"clip_norm": -1.0}, r"training.clip_norm must be 0 or more, got -1\.0"),
        ({"precision": "float16"}, r"training.precision must be one of \['float32', 'bfloat16'\], got 'float16'"),
        ({"sampling": "all"}, r"training.sampling must be one of \['sandwich', 'single'\], got 'all'"),
        ({"checkpoint_every": 0}, "training.checkpoint_every must be 1 or more, got 0"),
        ({"threads": -1}, "training.threads must be from 0 to 1024, got -1"),
        ({"threads": 1025}, "training.threads must be from 0 to 1024, got 1025"),
        ({"parts": 1}, "training.parts must be 0, or from 2 to 64 and at most batch_size 128, got 1"),
        ({"parts": -2}, "training.parts must be 0, or from 2 to 64 and at most batch_size 128, got -2"),
        ({"parts": 65}, "training.parts must be 0, or from 2 to 64 and at most batch_size 128, got 65"),
        ({"parts": 3, "batch_size": 2}, "training.parts must be 0, or .* at most batch_size 2, got 3"),
    ],
)
def test_a_setting_outside_its_range_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        TrainSettings(**change)


def test_settings_at_the_edge_of_their_range_are_accepted():
    edge = TrainSettings(
        epochs=1,
        batch_size=2,
        learning_rate=1e-3,
        min_learning_rate=1e-3,
        warmup_epochs=0,
        weight_decay=0,
        label_smoothing=0,
        mixup=0,
        clip_norm=0,
    )
    assert edge.learning_rate_at(0.0) == edge.learning_rate_at(1.0) == 1e-3


def test_the_defaults_are_those_of_the_public_spikformer():
    defaults = TrainSettings()
    assert (defaults.epochs, defaults.batch_size, defaults.warmup_epochs) == (300, 128, 20)
    assert (defaults.learning_rate, defaults.min_learning_rate, defaults.weight_decay) == (5e-4, 1e-5, 0.06)
    assert (defaults.label_smoothing, defaults.mixup, defaults.precision) == (0.1, 0.5, PRECISIONS[0])


def test_settings_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        TrainSettings().epochs = 3


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0.0, 0.0),
        (0.5, 2.5e-4),
        (1.0, 5e-4),
        (2.0, 1e-3),
        (4.0, 1e-5 + 0.99e-3 * (1 + math.sqrt(0.5)) / 2),  # a quarter of the half cosine
        (6.0, (1e-3 + 1e-5) / 2),
        (8.0, 1e-5 + 0.99e-3 * (1 - math.sqrt(0.5)) / 2),
        (10.0, 1e-5),
    ],
)
def test_the_learning_rate_warms_up_linearly_and_falls_along_half_a_cosine(epoch, expected):
    schedule = TrainSettings(epochs=10, warmup_epochs=2, learning_rate=1e-3, min_learning_rate=1e-5)
    assert schedule.learning_rate_at(epoch) == pytest.approx(expected, rel=1e-12, abs=1e-18)


@settings(deadline=None, max_examples=30)
@given(epochs=st.integers(1, 50), share=st.floats(0, 0.9), moments=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_the_learning_rate_rises_then_falls_and_stays_between_its_ends(epochs, share, moments):
    schedule = TrainSettings(epochs=epochs, warmup_epochs=share * epochs, learning_rate=0.5, min_learning_rate=0.1)
    early, late = sorted(moment * epochs for moment in moments)
    low, high = schedule.learning_rate_at(early), schedule.learning_rate_at(late)
    assert 0 <= low <= 0.5
    assert 0 <= high <= 0.5
    if late < schedule.warmup_epochs:
        assert low <= high
    if early >= schedule.warmup_epochs:
        assert low >= high - 1e-12
        assert high >= 0.1 - 1e-12
