"""Files of image sets, made for tests."""

import os
import struct

import numpy as np

REAL = os.environ.get("SPIKEFRONT_DATA")
MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def unique_noise(count, *shape, seed=0):
    """Pictures that are all different, so that bytes tell them apart."""
    pictures = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    assert len({picture.tobytes() for picture in pictures}) == count
    return pictures


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def cifar_records(count, classes, label_bytes, seed):
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % classes).astype(np.uint8)[:, None]
    coarse = np.full((count, label_bytes - 1), 255, dtype=np.uint8)
    return np.hstack([coarse, labels, rng.integers(0, 256, (count, 3072), dtype=np.uint8)])
