"""Image sets: disjoint and stratified splits, the same in every run, and what makes a set unusable."""

import io
import warnings

import numpy as np
import pytest
from image_files import MNIST, cifar_records, unique_noise
from PIL import Image

from spaces import InputError
from supernet.data import DATASETS, ImageData, Split, load_data

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
    np.random.seed(123)  # noqa: NPY002  # the global generator is what is watched
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
