"""What can be installed beside what Spikefront cannot do without."""

from __future__ import annotations

EXTRAS = {
    "age": "the algorithm age-moea2",
    "dashboard": "optuna-dashboard, which shows a run that is going on",
    "gpu": "neurons that a GPU computes",
    "mlflow": "--log mlflow:URI",
    "onnx": "exports as ONNX",
    "postgres": "stores on a PostgreSQL server",
    "tables": "Parquet: tables that are searched, and results",
    "tensorboard": "--log tensorboard:FOLDER",
    "train": "training in several processes (nas train --workers)",
}
"""What each extra is for."""

TRAINING = ("pyarrow", "fsspec", "requests")
"""Packages of the extra ``train`` that training in several processes takes, beside Ray itself."""
