"""Readers of the original files of public image sets, and of image folders. Nothing here unpickles.

All readers return images as uint8 ``(N, C, H, W)`` and labels as int64 ``(N,)``.
"""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spaces import InputError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

_IDX_UINT8 = 0x08
_CIFAR_PIXELS = 3 * 32 * 32
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array of a gzipped or plain IDX file of unsigned bytes.

    Raises:
        InputError: If the file is missing, truncated, or not of this format.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise InputError(f"data file {path} is missing") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} must be a complete gzip file, but {error}; fetch it again") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _IDX_UINT8 or not 1 <= data[3] <= 4:
        raise InputError(f"{path} must be an IDX file of unsigned bytes; its header is {data[:4].hex()}")
    start = 4 + 4 * data[3]
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4)]
    expected = start + prod(shape)
    if len(data) < start or len(data) != expected:
        raise InputError(
            f"{path} must hold {max(start, expected)} bytes by its header, got {len(data)}; it is truncated or "
            "damaged: fetch it again"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def read_idx_pair(images: Path, labels: Path) -> tuple[Images, Labels]:
    """Return grey images ``(N, 1, H, W)`` and labels of an MNIST-like pair of IDX files."""
    pictures, classes = read_idx(images), read_idx(labels)
    if pictures.ndim != 3 or classes.ndim != 1 or len(pictures) != len(classes):
        raise InputError(
            f"{images.name} must hold as many pictures as {labels.name} has labels, got shapes "
            f"{pictures.shape} and {classes.shape}"
        )
    return pictures[:, None], classes.astype(np.int64)


def read_cifar(path: Path, label_bytes: int) -> tuple[Images, Labels]:
    """Return the records of an original CIFAR binary file.

    Args:
        path: File of records: label bytes, then 3,072 bytes of planar RGB.
        label_bytes: 1 for CIFAR-10; 2 for CIFAR-100, whose second byte is the fine label.

    Raises:
        InputError: If the file is missing or does not hold whole records.
    """
    try:
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except FileNotFoundError:
        raise InputError(f"data file {path} is missing") from None
    record = label_bytes + _CIFAR_PIXELS
    if not len(data) or len(data) % record:
        raise InputError(
            f"{path} must hold whole records of {record} bytes, got {len(data)} bytes; it is truncated or "
            "damaged: fetch it again"
        )
    rows = data.reshape(-1, record)
    return rows[:, label_bytes:].reshape(-1, 3, 32, 32), rows[:, label_bytes - 1].astype(np.int64)


def read_folder(folder: Path) -> tuple[Images, Labels, tuple[str, ...]]:
    """Return the pictures of ``folder/<class>/*``, their labels, and the class names in order.

    Raises:
        InputError: If there are no pictures, one cannot be read, or sizes or channels differ.
    """
    if not folder.is_dir():
        raise InputError(f"image folder {folder} is missing")
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    pictures: list[Images] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            if path.suffix.lower() in _PICTURES:
                pictures.append(_read_picture(path))
                labels.append(label)
                if pictures[-1].shape != pictures[0].shape:
                    raise InputError(
                        f"pictures of a folder must share size and channels; {path} has (C, H, W) "
                        f"{pictures[-1].shape}, the first one {pictures[0].shape}"
                    )
    if not pictures:
        raise InputError(f"{folder} must hold one sub-folder of pictures per class, found none")
    return np.stack(pictures), np.array(labels, dtype=np.int64), classes


def _read_picture(path: Path) -> Images:
    try:
        with Image.open(path) as picture:
            deep = picture.mode == "I" or picture.mode.startswith("I;16")  # 16 bits a pixel
            grey = deep or picture.mode in ("1", "L", "LA")
            pixels = np.asarray(picture) // 257 if deep else np.asarray(picture.convert("L" if grey else "RGB"))
            array = pixels.astype(np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} must be a readable picture: {error}") from None
    return array[None] if grey else array.transpose(2, 0, 1)
