"""Image sets: disjoint and stratified splits, the same in every run, and what makes a set unusable."""

import gzip
import io
import os
import struct
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from PIL import Image

from spaces import InputError
from supernet.data import DATASETS, ImageData, Normalise, Split, load_data

REAL = os.environ.get("SPIKEFRONT_DATA")
MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def unique_noise(count, *shape, seed=0):
    """Pictures that are all different, so that bytes tell them apart."""
    pictures = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    assert len({picture.tobytes() for picture in pictures}) == count
    return pictures


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    """Write an MNIST-like set of 200 training and 30 test pictures; return its folder."""

    def mnist(folder="", packed=True, **change):
        content = {
            "train_images": unique_noise(200, 6, 6),
            "train_labels": np.arange(200, dtype=np.uint8) % 10,
            "test_images": unique_noise(30, 6, 6, seed=1),
            "test_labels": np.arange(30, dtype=np.uint8) % 10,
        } | change
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, array in zip(MNIST, content.values(), strict=True):
            path = tmp_path / folder / name
            if packed:
                path.with_name(name + ".gz").write_bytes(gzip.compress(idx(array), 1))
            else:
                path.write_bytes(idx(array))
        return tmp_path

    return mnist


def cifar_records(count, classes, label_bytes, seed):
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % classes).astype(np.uint8)[:, None]
    coarse = np.full((count, label_bytes - 1), 255, dtype=np.uint8)
    return np.hstack([coarse, labels, rng.integers(0, 256, (count, 3072), dtype=np.uint8)])


@pytest.fixture
def cifar10(tmp_path):
    def cifar10(folder="", batches=(1, 2, 3, 4, 5), size=30):
        root = tmp_path / folder
        root.mkdir(parents=True, exist_ok=True)
        for index in batches:
            (root / f"data_batch_{index}.bin").write_bytes(cifar_records(size, 10, 1, index).tobytes())
        (root / "test_batch.bin").write_bytes(cifar_records(20, 10, 1, 9).tobytes())
        (root / "batches.meta.txt").write_text("\n".join(f"class {i}" for i in range(10)) + "\n\n")
        return tmp_path

    return cifar10


@pytest.fixture
def cifar100(tmp_path):
    def cifar100(folder=""):
        root = tmp_path / folder
        root.mkdir(parents=True, exist_ok=True)
        (root / "train.bin").write_bytes(cifar_records(1000, 100, 2, 0).tobytes())
        (root / "test.bin").write_bytes(cifar_records(100, 100, 2, 9).tobytes())
        (root / "fine_label_names.txt").write_text("\n".join(f"class{i}" for i in range(100)))
        return tmp_path

    return cifar100


@pytest.fixture
def pictures(tmp_path):
    def pictures(folder, counts, shape=(4, 4, 3), seed=0):
        """Write ``counts`` pictures by class name; return the data folder."""
        for number, (name, count) in enumerate(counts.items()):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            for index, picture in enumerate(unique_noise(count, *shape, seed=100 * seed + number)):
                Image.fromarray(picture).save(tmp_path / folder / name / f"{index:03}.png")
        return tmp_path

    return pictures


@pytest.fixture
def any_set(mnist, cifar10, cifar100, pictures):
    """Return the small version of a set by name."""

    def any_set(name):
        if name == "digits":
            return load_data(name)
        if name == "folder":
            return load_data(name, pictures("own", {"a": 20, "b": 25, "c": 15}) / "own")
        root = {"mnist": mnist, "fashion-mnist": mnist, "cifar10": cifar10, "cifar100": cifar100}[name]()
        return load_data(name, root)

    return any_set


each_set = pytest.mark.parametrize("name", DATASETS)


def rows(split):
    return [(image.tobytes(), label) for image, label in zip(split.images, split.labels.tolist(), strict=True)]


# --- splits


@each_set
def test_a_set_has_three_splits_of_bytes_and_labels(any_set, name):
    data = any_set(name)
    assert isinstance(data, ImageData)
    assert data.name == name
    size, channels, classes = data.input_shape
    for split in (data.train, data.validation, data.test):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert split.images.shape == (len(split), channels, size, size)
        assert split.labels.shape == (len(split),)
        assert set(split.labels.tolist()) == set(range(classes))
    assert len(data.classes) == classes


@each_set
def test_no_image_is_in_two_splits_and_none_is_lost(any_set, name):
    data = any_set(name)
    splits = [rows(split) for split in (data.train, data.validation, data.test)]
    total = {"digits": 1797, "folder": 60, "mnist": 230, "fashion-mnist": 230, "cifar10": 170, "cifar100": 1100}[name]
    assert sum(len(split) for split in splits) == total
    assert len({image for split in splits for image, _ in split}) == total  # all pictures differ, in digits too


@each_set
def test_splits_are_stratified(any_set, name):
    data = any_set(name)
    classes = data.input_shape[2]
    everything = np.bincount(np.concatenate([data.train.labels, data.validation.labels]), minlength=classes)
    validation = np.bincount(data.validation.labels, minlength=classes)
    assert (np.abs(validation - 0.2 * everything) <= 1).all()
    if name in ("digits", "folder"):
        test = np.bincount(data.test.labels, minlength=classes)
        assert (np.abs(test - 0.2 * (everything + test)) <= 1).all()


@each_set
def test_a_set_is_split_alike_in_every_call_whatever_the_global_seed(any_set, name):
    first = any_set(name)
    np.random.seed(123)  # noqa: NPY002
    second = any_set(name)
    for split in ("train", "validation", "test"):
        assert rows(getattr(first, split)) == rows(getattr(second, split))


def test_validation_is_a_fifth_of_small_sets_and_a_tenth_of_large_ones(mnist):
    small = load_data("mnist", mnist())
    assert (len(small.train), len(small.validation), len(small.test)) == (160, 40, 30)
    many = {"train_images": np.zeros((6000, 2, 2), np.uint8), "test_images": np.zeros((30, 2, 2), np.uint8)}
    large = load_data("mnist", mnist(train_labels=(np.arange(6000) % 10).astype(np.uint8), **many))
    assert (len(large.train), len(large.validation)) == (5400, 600)


def test_digits_are_the_images_of_scikit_learn_scaled_to_bytes():
    from sklearn.datasets import load_digits

    data = load_data("digits")
    assert data.input_shape == (8, 1, 10)
    assert (len(data.train), len(data.validation), len(data.test)) == (1149, 288, 360)
    sixteenths, labels = load_digits(return_X_y=True)
    expected = {np.rint(x * 15.9375).astype(np.uint8).tobytes(): y for x, y in zip(sixteenths, labels, strict=True)}
    for split in (data.train, data.validation, data.test):
        assert all(expected[image] == label for image, label in rows(split))
    assert data.train.images.max() == 255


each_split = pytest.mark.parametrize("split", ["train", "validation", "test"])


@each_split
def test_the_head_of_a_split_is_a_sample_of_all_classes(split):
    head = getattr(load_data("digits"), split).head(60)
    assert len(head) == 60
    assert len(set(head.labels.tolist())) == 10


@each_split
def test_the_head_of_a_split_whose_files_are_sorted_is_a_sample_too(split, pictures):
    pictures("train", {"a": 30, "b": 30})
    data = load_data("folder", pictures("test", {"a": 30, "b": 30}, seed=1))
    assert set(getattr(data, split).head(10).labels.tolist()) == {0, 1}


def test_the_head_of_a_split_is_its_first_images_or_all():
    split = Split(unique_noise(5, 1, 2, 2), np.arange(5))
    assert rows(split.head(2)) == rows(split)[:2]
    assert rows(split.head(None)) == rows(split)
    assert rows(split.head(9)) == rows(split)


# --- IDX sets


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        *(("mnist", folder) for folder in ("", "mnist", "MNIST", "MNIST/raw")),
        *(("fashion-mnist", f) for f in ("", "fashion_mnist", "fashion-mnist", "FashionMNIST", "FashionMNIST/raw")),
    ],
)
@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
def test_idx_sets_are_found_where_people_keep_them(mnist, name, folder, packed):
    data = load_data(name, mnist(folder, packed))
    assert data.input_shape == (6, 1, 10)
    test = [(picture.tobytes(), index % 10) for index, picture in enumerate(unique_noise(30, 6, 6, seed=1))]
    assert sorted(rows(data.test)) == sorted(test)
    labels = {picture.tobytes(): index % 10 for index, picture in enumerate(unique_noise(200, 6, 6))}
    for split in (data.train, data.validation):
        assert all(labels[image] == label for image, label in rows(split))


def test_the_environment_names_the_data_folder(mnist, monkeypatch):
    monkeypatch.setenv("SPIKEFRONT_DATA", str(mnist("mnist")))
    assert load_data("mnist").input_shape == (6, 1, 10)


@pytest.mark.parametrize("missing", range(4))
def test_an_idx_set_with_a_missing_file_is_refused(mnist, missing):
    root = mnist("mnist")
    (root / "mnist" / f"{MNIST[missing]}.gz").unlink()
    with pytest.raises(InputError, match=r"mnist needs the files .*train-images-idx3-ubyte.gz.*; some are missing"):
        load_data("mnist", root)


@pytest.mark.parametrize("damaged", range(4))
def test_an_idx_set_with_a_truncated_file_is_refused(mnist, damaged):
    root = mnist()
    path = root / f"{MNIST[damaged]}.gz"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=f"{MNIST[damaged]}.gz must be a complete gzip file, but"):
        load_data("mnist", root)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_idx_set_with_a_label_too_few_is_refused(mnist, split):
    root = mnist(**{f"{split}_labels": np.zeros(29, np.uint8)})
    with pytest.raises(InputError, match=r"images-idx3-ubyte\.gz must hold as many pictures as .*labels.*\(29,\)"):
        load_data("mnist", root)


def test_training_labels_beyond_the_classes_are_refused(mnist):
    labels = np.arange(200, dtype=np.uint8) % 11
    with pytest.raises(InputError, match="mnist needs labels from 0 to 9 and 10 or more training images of each"):
        load_data("mnist", mnist(train_labels=labels))


def test_test_labels_beyond_the_classes_are_refused(mnist):
    with pytest.raises(InputError, match="labels from 0 to 9"):
        load_data("mnist", mnist(test_labels=np.arange(30, dtype=np.uint8) % 11))


def test_an_empty_test_split_is_refused(mnist):
    empty = {"test_images": np.zeros((0, 6, 6), np.uint8), "test_labels": np.zeros(0, np.uint8)}
    with pytest.raises(InputError, match="test"):
        load_data("mnist", mnist(**empty))


def test_a_class_with_too_few_training_images_is_refused_with_the_counts(mnist):
    labels = np.arange(200, dtype=np.uint8) % 9
    labels[:9] = 9
    with pytest.raises(InputError, match=r"10 or more training images of each, got \[2\d, .*, 9\]"):
        load_data("mnist", mnist(train_labels=labels))


def test_pictures_that_are_not_square_are_refused(mnist):
    with pytest.raises(InputError, match=r"images must be square, got \(C, H, W\) \(1, 6, 5\); pad or crop"):
        load_data("mnist", mnist(train_images=unique_noise(200, 6, 5)))


def test_test_pictures_of_another_size_are_refused(mnist):
    with pytest.raises(InputError, match=r"must have the training images' shape \(1, 6, 6\), got \(1, 7, 7\)"):
        load_data("mnist", mnist(test_images=unique_noise(30, 7, 7)))


# --- CIFAR


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-bin", "cifar10", "cifar10/cifar-10-batches-bin"])
def test_cifar_10_is_read_from_its_five_batches(cifar10, folder):
    data = load_data("cifar10", cifar10(folder))
    assert data.input_shape == (32, 3, 10)
    assert data.classes == tuple(f"class {i}" for i in range(10))
    assert (len(data.train), len(data.validation), len(data.test)) == (120, 30, 20)
    records = np.concatenate([cifar_records(30, 10, 1, index) for index in range(1, 6)])
    labels = {record[1:].tobytes(): record[0] for record in records}
    for split in (data.train, data.validation):
        assert all(labels[image] == label for image, label in rows(split))
    assert sorted(rows(data.test)) == sorted((r[1:].tobytes(), r[0]) for r in cifar_records(20, 10, 1, 9))


def test_cifar_10_with_four_batches_warns_which_one_is_missing_and_trains_on_the_rest(cifar10):
    root = cifar10(batches=(1, 2, 4, 5))
    with pytest.warns(UserWarning, match=r"cifar10 in .* lacks \['data_batch_3\.bin'\]: training on the rest"):
        data = load_data("cifar10", root)
    assert len(data.train) + len(data.validation) == 120


def test_whole_cifar_10_does_not_warn(cifar10):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data("cifar10", cifar10())


@pytest.mark.parametrize("missing", ["data_batch_1.bin", "test_batch.bin", "batches.meta.txt"])
def test_cifar_10_without_a_file_that_it_cannot_do_without_is_refused(cifar10, missing):
    root = cifar10()
    (root / missing).unlink()
    with pytest.raises(InputError, match=r"cifar10 needs the files .*; some are missing"):
        load_data("cifar10", root)


@pytest.mark.parametrize("damaged", ["data_batch_1.bin", "data_batch_4.bin", "test_batch.bin"])
def test_cifar_10_with_a_truncated_batch_is_refused(cifar10, damaged):
    root = cifar10()
    (root / damaged).write_bytes((root / damaged).read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{damaged} must hold whole records of 3073 bytes, got"):
        load_data("cifar10", root)


def test_cifar_10_with_more_labels_than_names_is_refused(cifar10):
    root = cifar10()
    (root / "batches.meta.txt").write_text("one\ntwo\n")
    with pytest.raises(InputError, match="cifar10 needs labels from 0 to 1 and"):
        load_data("cifar10", root)


@pytest.mark.parametrize("folder", ["", "cifar-100-binary", "cifar100", "cifar100/cifar-100-binary"])
def test_cifar_100_is_read_by_its_fine_labels(cifar100, folder):
    data = load_data("cifar100", cifar100(folder))
    assert data.input_shape == (32, 3, 100)
    assert (len(data.train), len(data.validation), len(data.test)) == (800, 200, 100)
    assert sorted(rows(data.test)) == sorted((r[2:].tobytes(), r[1]) for r in cifar_records(100, 100, 2, 9))


# --- folders of pictures


def test_a_folder_of_classes_is_split_three_ways(pictures):
    data = load_data("folder", pictures("own", {"b": 20, "a": 30}) / "own")
    assert data.classes == ("a", "b")
    assert data.input_shape == (4, 3, 2)
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 8, 10)


def test_a_folder_with_train_and_test_keeps_its_test_pictures_for_the_test(pictures):
    pictures("train", {"a": 20, "b": 20})
    root = pictures("test", {"a": 5, "b": 5}, seed=1)
    data = load_data("folder", root)
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 8, 10)
    on_disk = {np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() for path in (root / "test").rglob("*.png")}
    assert {image for image, _ in rows(data.test)} == on_disk


def test_grey_pictures_make_a_grey_set(pictures):
    data = load_data("folder", pictures("own", {"a": 20, "b": 20}, shape=(4, 4)) / "own")
    assert data.input_shape == (4, 1, 2)


def test_a_test_folder_with_other_classes_is_refused(pictures):
    pictures("train", {"a": 20, "b": 20})
    root = pictures("test", {"a": 5, "c": 5})
    with pytest.raises(InputError, match=r"test must have the classes of train \['a', 'b'\], got \['a', 'c'\]"):
        load_data("folder", root)


def test_test_pictures_in_another_size_than_training_pictures_are_refused(pictures):
    pictures("train", {"a": 20, "b": 20})
    root = pictures("test", {"a": 5, "b": 5}, shape=(5, 5, 3))
    with pytest.raises(InputError, match=r"must have the training images' shape \(3, 4, 4\), got \(3, 5, 5\)"):
        load_data("folder", root)


def test_ten_pictures_of_each_class_are_enough_for_any_number_of_classes(tmp_path):
    """630 classes: a tenth of the training pictures is less than one of each."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "BMP")
    for index in range(6300):
        folder = tmp_path / f"{index // 10:03}"
        folder.mkdir(exist_ok=True)
        (folder / f"{index % 10}.bmp").write_bytes(buffer.getvalue())
    data = load_data("folder", tmp_path)
    for split in (data.train, data.validation, data.test):
        assert len(set(split.labels.tolist())) == 630


def test_a_class_with_too_few_pictures_is_refused(pictures):
    root = pictures("own", {"a": 20, "b": 9})
    with pytest.raises(InputError, match=r"folder needs labels from 0 to 1 and 10 or more .*, got \[20, 9\]"):
        load_data("folder", root / "own")


def test_the_folder_set_needs_a_folder():
    with pytest.raises(InputError, match="data 'folder' needs a folder of pictures: name it with --data-dir"):
        load_data("folder")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="must hold one sub-folder of pictures per class, found none"):
        load_data("folder", tmp_path)


# --- names, folders, downloads


def test_an_unknown_set_is_refused_with_the_known_ones_named():
    with pytest.raises(
        InputError, match=r"data must be one of \['cifar10', 'cifar100', 'digits', .*\], got 'imagenet'"
    ):
        load_data("imagenet")


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_a_data_folder_that_does_not_exist_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"the data folder must exist, got .*absent"):
        load_data(name, tmp_path / "absent")


def copy_instead_of_download(monkeypatch, tmp_path, served):
    """Let downloads come from a folder; return the list of addresses asked for."""
    asked = []

    def retrieve(url, known_hash, path, fname):
        asked.append((url, known_hash))
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / fname).write_bytes((served / fname).read_bytes())
        return str(Path(path) / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    return asked


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_without_a_folder_an_idx_set_is_downloaded_file_by_file(mnist, tmp_path, monkeypatch, name):
    asked = copy_instead_of_download(monkeypatch, tmp_path, mnist("served") / "served")
    assert load_data(name).input_shape == (6, 1, 10)
    assert [url.rsplit("/", 1)[1] for url, _ in asked] == [f"{file}.gz" for file in MNIST]
    assert len({checksum for _, checksum in asked}) == 4


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_without_a_folder_cifar_is_downloaded_as_an_archive(cifar10, cifar100, tmp_path, monkeypatch, name):
    inner = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}[name]
    root = {"cifar10": cifar10, "cifar100": cifar100}[name](inner)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        tar.add(root / inner, inner)
    served = tmp_path / "served"
    served.mkdir()
    (served / f"{name.replace('cifar', 'cifar-')}-binary.tar.gz").write_bytes(buffer.getvalue())
    asked = copy_instead_of_download(monkeypatch, tmp_path, served)
    assert load_data(name).input_shape == (32, 3, 10 if name == "cifar10" else 100)
    assert len(asked) == 1


# --- normalisation


def test_moments_are_those_of_the_training_split_by_channel(any_set):
    data = any_set("cifar10")
    mean, std = data.moments
    for channel in range(3):
        pixels = data.train.images[:, channel].astype(float).ravel() / 255
        assert mean[channel] == pytest.approx(sum(pixels) / len(pixels), rel=1e-9)
        assert std[channel] == pytest.approx(np.sqrt(np.mean((pixels - mean[channel]) ** 2)), rel=1e-9)


def test_normalised_training_images_have_zero_mean_and_unit_deviation(any_set):
    data = any_set("cifar10")
    images = Normalise(*data.moments)(data.train.images)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_normalisation_by_hand():
    normalise = Normalise((0.5, 0.2), (0.25, 0.1))
    images = np.array([[[[0, 255]], [[51, 102]]]], dtype=np.uint8)  # (1, 2, 1, 2)
    expected = torch.tensor([[[[-2.0, 2.0]], [[0.0, 2.0]]]])
    torch.testing.assert_close(normalise(images), expected)
    torch.testing.assert_close(normalise(torch.from_numpy(images)), expected)
    torch.testing.assert_close(normalise.pixels(torch.from_numpy(images).float() / 255), expected)


@pytest.mark.parametrize("value", [0, 51, 255])
def test_a_constant_channel_is_normalised_to_about_zero(value):
    split = Split(np.full((20, 1, 2, 2), value, np.uint8), np.zeros(20, np.int64))
    data = ImageData("grey", split, split, split, ("a",))
    assert Normalise(*data.moments)(split.images).abs().max() < 1


@each_set
@each_split
def test_batches_give_every_image_in_order_with_its_label(any_set, name, split):
    data = any_set(name)
    normalise, part = Normalise(*data.moments), getattr(data, split).head(23)
    batches = list(normalise.batches(part, 5))
    assert [len(labels) for _, labels in batches] == [min(5, len(part) - start) for start in range(0, len(part), 5)]
    torch.testing.assert_close(torch.cat([images for images, _ in batches]), normalise(part.images.copy()))
    assert torch.cat([labels for _, labels in batches]).tolist() == part.labels.tolist()


@each_set
def test_every_split_may_be_written_to_so_that_torch_does_not_warn(any_set, name):
    data = any_set(name)
    for split in (data.train, data.validation, data.test):
        assert split.images.flags.writeable
        assert split.labels.flags.writeable


# --- real files


@pytest.mark.skipif(not REAL, reason="SPIKEFRONT_DATA names no folder with the real files")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_files_have_their_known_shape(name):
    try:
        data = load_data(name, REAL)
    except InputError as error:
        if "some are missing" not in str(error):
            raise
        pytest.skip(str(error))
    assert data.input_shape == (28, 1, 10)
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert np.bincount(data.test.labels).sum() == 10_000
    mean, std = data.train.head(5_000).images.mean() / 255, data.train.head(5_000).images.std() / 255
    known = {"mnist": (0.1307, 0.3081), "fashion-mnist": (0.2860, 0.3530)}[name]
    assert (mean, std) == pytest.approx(known, abs=0.01)
