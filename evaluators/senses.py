"""Which way a metric is better."""

from __future__ import annotations

from typing import Literal

Sense = Literal["max", "min"]
