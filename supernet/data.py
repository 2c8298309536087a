"""Image sets in three disjoint splits: training, validation (what a search sees), test (what a report sees).

How a set is split depends on the set alone, never on the seed of a run, so scores of runs can be compared.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spaces import InputError
from supernet.download import Source, data_folder, locate
from supernet.formats import Images, Labels, read_cifar, read_folder, read_idx_pair

_SPLIT_SEED = 20230606


@dataclass(frozen=True)
class Split:
    """Images uint8 ``(N, C, H, W)`` and labels int64 ``(N,)``."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over images and labels: equal for equal splits only."""
        digest = hashlib.sha256()
        self.feed(digest)
        return digest.hexdigest()

    def feed(self, digest: hashlib._Hash) -> None:
        """Add images and labels to a digest."""
        digest.update(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)

    def head(self, count: int | None) -> Split:
        """Return the first ``count`` images, or all if None; splits are shuffled, so any part is a sample."""
        return Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class ImageData:
    """An image set in three disjoint splits.

    Attributes:
        name: Row of ``DATASETS``.
        train: Images that weights and BatchNorm statistics may be fitted on.
        validation: Images that a search scores subnets on.
        test: Images that no decision depends on.
        classes: Class names by label.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Image size in pixels, channels, and number of classes."""
        return self.train.images.shape[2], self.train.images.shape[1], len(self.classes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all images and labels, split by split: equal for equal data only."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            split.feed(digest)
        return digest.hexdigest()

    @property
    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over the training split, pixels in [0, 1]."""
        pixels = self.train.images.astype(np.float64) / 255
        std = np.maximum(pixels.std(axis=(0, 2, 3)), 1e-6)
        return tuple(pixels.mean(axis=(0, 2, 3)).tolist()), tuple(std.tolist())


@dataclass(frozen=True)
class Normalise:
    """Maps uint8 images ``(B, C, H, W)`` to float32 of zero mean and unit deviation per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Images | Tensor) -> Tensor:
        """Return the normalised images."""
        return self.pixels(torch.as_tensor(images).float() / 255)

    def pixels(self, pixels: Tensor) -> Tensor:
        """Return normalised images from pixels in [0, 1]."""
        shape = (1, -1, 1, 1)
        return (pixels - torch.tensor(self.mean).view(shape)) / torch.tensor(self.std).view(shape)

    def batches(self, split: Split, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images and labels in order, the last batch as short as it comes."""
        for start in range(0, len(split), batch_size):
            labels = torch.from_numpy(split.labels[start : start + batch_size])
            yield self(torch.from_numpy(split.images[start : start + batch_size])), labels


def _hold_out(split: Split, fraction: float) -> tuple[Split, Split]:
    """Return a split without a stratified part, and that part; both shuffled, the same in every run."""
    from sklearn.model_selection import train_test_split  # noqa: PLC0415  # takes a second, and workers split nothing

    rest, part = train_test_split(
        np.arange(len(split)),
        test_size=fraction,
        stratify=split.labels,
        random_state=_SPLIT_SEED,
    )
    return Split(split.images[rest], split.labels[rest]), Split(split.images[part], split.labels[part])


def _three_ways(name: str, train: Split, test: Split | None, classes: tuple[str, ...]) -> ImageData:
    """Return a data set whose validation split comes out of the training images."""
    counts = np.bincount(train.labels, minlength=len(classes))
    if len(counts) > len(classes) or counts.min() < 10:
        raise InputError(
            f"{name} needs labels from 0 to {len(classes) - 1} and 10 or more training images of each, got "
            f"{counts.tolist()}"
        )
    if train.images.shape[2] != train.images.shape[3]:
        raise InputError(f"images must be square, got (C, H, W) {train.images.shape[1:]}; pad or crop them first")
    if test is None:
        train, test = _hold_out(train, 0.2)
    else:
        test = _checked_test(name, train, test, len(classes))
    plenty = len(train) > 5_000 and len(train) >= 20 * len(classes)
    train, validation = _hold_out(train, 0.1 if plenty else 0.2)
    return ImageData(name, train, validation, test, classes)


def _checked_test(name: str, train: Split, test: Split, num_classes: int) -> Split:
    """Return an official test split, shuffled, the same in every run."""
    if test.images.shape[1:] != train.images.shape[1:]:
        raise InputError(
            f"test images must have the training images' shape {train.images.shape[1:]}, got {test.images.shape[1:]}"
        )
    if not len(test) or test.labels.max() >= num_classes:
        raise InputError(
            f"{name} needs test images with labels from 0 to {num_classes - 1}, got {np.unique(test.labels).tolist()}"
        )
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(test))
    return Split(test.images[order], test.labels[order])


def _digits(_data_dir: str | Path | None) -> ImageData:
    from sklearn.datasets import load_digits  # noqa: PLC0415  # takes a second, and workers read no set

    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    return _three_ways("digits", Split(pixels, labels.astype(np.int64)), None, tuple("0123456789"))


_MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _idx_source(folders: tuple[str, ...], url: str, checksums: tuple[str, ...]) -> Source:
    downloads = tuple((url + file, f"md5:{md5}") for file, md5 in zip(_MNIST_FILES, checksums, strict=True))
    return Source(folders, _MNIST_FILES, downloads)


_MNIST = _idx_source(
    ("mnist", "MNIST", "MNIST/raw"),
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)
_FASHION_MNIST = _idx_source(
    ("fashion_mnist", "fashion-mnist", "FashionMNIST", "FashionMNIST/raw"),
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)
_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_CIFAR10 = Source(
    ("cifar-10-batches-bin", "cifar10", "cifar10/cifar-10-batches-bin"),
    ("data_batch_1.bin", "test_batch.bin", "batches.meta.txt"),
    (
        (
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "md5:c32a1d4ab5d03f1284b67883e8d87530",
        ),
    ),
)
_CIFAR100 = Source(
    ("cifar-100-binary", "cifar100", "cifar100/cifar-100-binary"),
    ("train.bin", "test.bin", "fine_label_names.txt"),
    (
        (
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "md5:03b5dce01913d631647c71ecec9e9cb8",
        ),
    ),
)


def _idx_set(name: str, source: Source, classes: tuple[str, ...], data_dir: str | Path | None) -> ImageData:
    train_images, train_labels, test_images, test_labels = locate(name, source, data_dir)
    train = Split(*read_idx_pair(train_images, train_labels))
    return _three_ways(name, train, Split(*read_idx_pair(test_images, test_labels)), classes)


def _cifar10(data_dir: str | Path | None) -> ImageData:
    first, test, names = locate("cifar10", _CIFAR10, data_dir)
    batches = [first.with_name(f"data_batch_{index}.bin") for index in range(1, 6)]
    present = [path for path in batches if path.is_file()]
    if present != batches:
        absent = [path.name for path in batches if path not in present]
        warnings.warn(f"cifar10 in {first.parent} lacks {absent}: training on the rest", stacklevel=2)
    return _cifar_set("cifar10", (present, test, names), 1)


def _cifar100(data_dir: str | Path | None) -> ImageData:
    train, test, names = locate("cifar100", _CIFAR100, data_dir)
    return _cifar_set("cifar100", ([train], test, names), 2)


def _cifar_set(name: str, files: tuple[list[Path], Path, Path], label_bytes: int) -> ImageData:
    batches, test, names = files
    images, labels = zip(*(read_cifar(path, label_bytes) for path in batches), strict=True)
    text = names.read_text(encoding="utf-8", errors="replace")
    classes = tuple(line.strip() for line in text.splitlines() if line.strip())
    train = Split(np.concatenate(images), np.concatenate(labels))
    return _three_ways(name, train, Split(*read_cifar(test, label_bytes)), classes)


def _folder_set(data_dir: str | Path | None) -> ImageData:
    """Read ``DIR/train/<class>/*`` and ``DIR/test/<class>/*``, or ``DIR/<class>/*`` to be split."""
    root = data_folder(data_dir)
    if root is None:
        raise InputError("data 'folder' needs a folder of pictures: name it with --data-dir")
    has_splits = (root / "train").is_dir() and (root / "test").is_dir()
    images, labels, classes = read_folder(root / "train" if has_splits else root)
    test = None
    if has_splits:
        test_images, test_labels, test_classes = read_folder(root / "test")
        if test_classes != classes:
            raise InputError(f"test must have the classes of train {list(classes)}, got {list(test_classes)}")
        test = Split(test_images, test_labels)
    return _three_ways("folder", Split(images, labels), test, classes)


SOURCES = {"mnist": _MNIST, "fashion-mnist": _FASHION_MNIST, "cifar10": _CIFAR10, "cifar100": _CIFAR100}
"""Files of the sets that are downloaded."""

DATASETS: dict[str, Callable[[str | Path | None], ImageData]] = {
    "digits": _digits,
    "mnist": lambda data_dir: _idx_set("mnist", _MNIST, tuple("0123456789"), data_dir),
    "fashion-mnist": lambda data_dir: _idx_set("fashion-mnist", _FASHION_MNIST, _FASHION_CLASSES, data_dir),
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "folder": _folder_set,
}


def load_data(name: str, data_dir: str | Path | None = None) -> ImageData:
    """Return an image set by name.

    Args:
        name: Row of ``DATASETS``.
        data_dir: Folder that holds the files; else ``SPIKEFRONT_DATA``, else a checked download.

    Raises:
        InputError: If there is no such set, or a file is missing, truncated or inconsistent.
    """
    if name not in DATASETS:
        raise InputError(f"data must be one of {sorted(DATASETS)}, got {name!r}")
    return DATASETS[name](data_dir)
