"""Where image sets come from, their normalisation, and the real files."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from image_files import MNIST, REAL

from spaces import InputError
from supernet.data import DATASETS, ImageData, Normalise, Split, load_data

each_set = pytest.mark.parametrize("name", DATASETS)
each_split = pytest.mark.parametrize("split", ["train", "validation", "test"])


def rows(split):
    return [(image.tobytes(), label) for image, label in zip(split.images, split.labels.tolist(), strict=True)]


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
