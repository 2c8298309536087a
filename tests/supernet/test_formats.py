"""Readers of IDX, CIFAR and picture files, on files written here byte by byte."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from spaces import InputError
from supernet.formats import read_cifar, read_folder, read_idx, read_idx_pair


def idx(array):
    """Return an array of bytes in the IDX format of yann.lecun.com."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


# --- IDX


@pytest.mark.parametrize("shape", [(5,), (3, 4), (3, 4, 5), (2, 3, 4, 5), (0, 4, 5)])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_an_idx_file_is_read_as_written(write, shape, packed):
    array = noise(*shape)
    path = write("x.gz", gzip.compress(idx(array))) if packed else write("x", idx(array))
    read = read_idx(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


def test_a_missing_idx_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"data file .*absent is missing"):
        read_idx(tmp_path / "absent")


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_an_idx_file_cut_anywhere_or_with_a_byte_too_many_is_refused(write, shape):
    whole = idx(noise(*shape))
    for length in range(len(whole)):
        with pytest.raises(InputError, match=r"must be an IDX file of unsigned bytes|it is truncated or damaged"):
            read_idx(write("x", whole[:length]))
    with pytest.raises(InputError, match=rf"must hold {len(whole)} bytes by its header, got {len(whole) + 1}"):
        read_idx(write("x", whole + b"\0"))


def test_a_gzip_file_cut_anywhere_is_refused(write):
    whole = gzip.compress(idx(noise(20, 3)))
    for length in range(1, len(whole)):
        with pytest.raises(InputError, match=r"x\.gz must be a complete gzip file, but .*; fetch it again"):
            read_idx(write("x.gz", whole[:length]))


def test_a_damaged_gzip_file_is_refused(write):
    whole = bytearray(gzip.compress(idx(noise(20, 3))))
    whole[-8] ^= 1  # checksum
    with pytest.raises(InputError, match="must be a complete gzip file, but CRC"):
        read_idx(write("x.gz", bytes(whole)))
    with pytest.raises(InputError, match="must be a complete gzip file, but Not a gzipped file"):
        read_idx(write("x.gz", idx(noise(5))))


@pytest.mark.parametrize(
    "header", [b"\0\1\x08\1", b"\1\0\x08\1", b"\0\0\x0d\1", b"\0\0\x08\0", b"\0\0\x08\5", b"PK\3\4"]
)
def test_a_file_of_another_format_is_refused_with_its_header(write, header):
    message = f"must be an IDX file of unsigned bytes; its header is {header.hex()}"
    with pytest.raises(InputError, match=message):
        read_idx(write("x", header + bytes(40)))


def test_a_header_that_promises_the_world_is_refused(write):
    with pytest.raises(InputError, match="it is truncated or damaged"):
        read_idx(write("x", struct.pack(">BBBBIII", 0, 0, 8, 3, *[2**32 - 1] * 3)))


def test_a_pair_of_idx_files_gives_grey_images_and_labels(write):
    pictures, labels = noise(6, 4, 5), np.arange(6, dtype=np.uint8)
    images, classes = read_idx_pair(write("images", idx(pictures)), write("labels.gz", gzip.compress(idx(labels))))
    np.testing.assert_array_equal(images, pictures.reshape(6, 1, 4, 5))
    assert images.dtype == np.uint8
    assert classes.dtype == np.int64
    assert classes.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [((6, 4, 5), (5,)), ((6, 4, 5), (6, 1)), ((6, 4), (6,)), ((6, 1, 4, 5), (6,)), ((6,), (6,))],
)
def test_a_pair_that_does_not_belong_together_is_refused(write, pictures, labels):
    paths = write("images", idx(noise(*pictures))), write("labels", idx(noise(*labels)))
    with pytest.raises(InputError, match="images must hold as many pictures as labels has labels, got shapes"):
        read_idx_pair(*paths)


# --- CIFAR


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_cifar_records_are_planar_pictures_behind_their_labels(write, label_bytes):
    """The last label byte counts: the only one of CIFAR-10, the fine one of CIFAR-100."""
    pictures, labels = noise(4, 3, 32, 32), noise(4, label_bytes, seed=1)
    content = b"".join(label.tobytes() + picture.tobytes() for label, picture in zip(labels, pictures, strict=True))
    images, classes = read_cifar(write("batch.bin", content), label_bytes)
    np.testing.assert_array_equal(images, pictures)
    assert (images.dtype, classes.dtype) == (np.uint8, np.int64)
    assert classes.tolist() == labels[:, -1].tolist()


@pytest.mark.parametrize("length", [0, 1, 3072, 3074, 2 * 3073 - 1])
def test_a_cifar_file_of_broken_records_is_refused(write, length):
    with pytest.raises(
        InputError, match=rf"must hold whole records of 3073 bytes, got {length} bytes; it is truncated"
    ):
        read_cifar(write("batch.bin", bytes(length)), 1)


def test_a_cifar_10_file_is_no_cifar_100_file(write):
    with pytest.raises(InputError, match="must hold whole records of 3074 bytes, got 6146 bytes"):
        read_cifar(write("train.bin", bytes(2 * 3073)), 2)


def test_a_missing_cifar_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"data file .*absent\.bin is missing"):
        read_cifar(tmp_path / "absent.bin", 1)


# --- picture folders


@pytest.fixture
def save(tmp_path):
    def save(name, array, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, **options)
        return path

    return save


@pytest.mark.parametrize("extension", ["png", "bmp", "PNG", "webp"])
def test_colour_pictures_are_read_by_class_in_the_order_of_names(save, tmp_path, extension):
    pictures = noise(4, 6, 5, 3)
    names = ["dog/b", "cat/a", "dog/a", "cat/c"]
    for name, picture in zip(names, pictures, strict=True):
        save(f"{name}.{extension}", picture, **({"lossless": True} if extension == "webp" else {}))
    images, labels, classes = read_folder(tmp_path)
    assert classes == ("cat", "dog")
    assert labels.tolist() == [0, 0, 1, 1]
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(images, pictures[[1, 3, 2, 0]].transpose(0, 3, 1, 2))


def test_grey_pictures_have_one_channel(save, tmp_path):
    picture = noise(6, 5)
    save("a/1.png", picture)
    images, _, _ = read_folder(tmp_path)
    np.testing.assert_array_equal(images, picture[None, None])


@pytest.mark.parametrize("kind", ["palette", "alpha"])
def test_palettes_and_transparency_become_plain_colours(save, tmp_path, kind):
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], dtype=np.uint8)
    picture = Image.fromarray(colours)
    (tmp_path / "a").mkdir()
    (picture.quantize(4) if kind == "palette" else picture.convert("RGBA")).save(tmp_path / "a/1.png")
    images, _, _ = read_folder(tmp_path)
    np.testing.assert_array_equal(images[0], colours.transpose(2, 0, 1))


def test_transparency_leaves_grey_pictures_grey(tmp_path):
    picture = noise(6, 5)
    (tmp_path / "a").mkdir()
    Image.fromarray(picture).convert("LA").save(tmp_path / "a/1.png")
    np.testing.assert_array_equal(read_folder(tmp_path)[0], picture[None, None])


def test_black_and_white_pictures_become_grey(save, tmp_path):
    save("a/1.png", np.array([[True, False], [False, True]]))
    assert read_folder(tmp_path)[0].tolist() == [[[[255, 0], [0, 255]]]]


def test_pictures_of_sixteen_bits_keep_their_shades(save, tmp_path):
    """Medical and depth pictures: 0 ... 65535 becomes 0 ... 255."""
    shades = np.arange(0, 65536, 4096, dtype=np.uint16).reshape(4, 4)
    save("a/1.png", shades)
    images, _, _ = read_folder(tmp_path)
    np.testing.assert_allclose(images[0, 0].astype(float), shades / 257, atol=1)


def test_files_that_are_no_pictures_and_files_outside_classes_are_passed_over(save, tmp_path):
    save("a/1.png", noise(4, 4))
    save("stray.png", noise(9, 9))
    (tmp_path / "a/notes.txt").write_text("a dog")
    (tmp_path / "LICENSE").write_text("free")
    images, labels, classes = read_folder(tmp_path)
    assert (images.shape, labels.tolist(), classes) == ((1, 1, 4, 4), [0], ("a",))


@pytest.mark.parametrize("odd", [(4, 5), (5, 4), (4, 4, 3)])
def test_pictures_of_different_shapes_are_refused_by_name(save, tmp_path, odd):
    save("a/1.png", noise(4, 4))
    save("b/2.png", noise(*odd))
    with pytest.raises(InputError, match=r"must share size and channels; .*2\.png has \(C, H, W\) .*, the first one"):
        read_folder(tmp_path)


def test_a_missing_picture_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"image folder .*absent is missing"):
        read_folder(tmp_path / "absent")


@pytest.mark.parametrize("inside", [None, "a", "a/b/c"])
def test_a_folder_without_pictures_is_refused(tmp_path, inside):
    if inside:
        (tmp_path / inside).mkdir(parents=True)
    with pytest.raises(InputError, match="must hold one sub-folder of pictures per class, found none"):
        read_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "signature"])
def test_a_file_that_only_looks_like_a_picture_is_refused_by_name(tmp_path, content):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").write_bytes(content)
    with pytest.raises(InputError, match=r"1\.png must be a readable picture: "):
        read_folder(tmp_path)


def test_a_truncated_picture_is_refused_by_name(save, tmp_path):
    path = save("a/1.png", noise(20, 20, 3))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"1\.png must be a readable picture: "):
        read_folder(tmp_path)


@pytest.mark.parametrize(("at", "value"), [(11, 12), (36, 0)], ids=["header length", "data length"])
def test_a_picture_with_damaged_chunks_is_refused_by_name(save, tmp_path, at, value):
    """Pillow raises neither OSError nor UnidentifiedImageError for these."""
    path = save("a/1.png", noise(8, 8, 3))
    content = bytearray(path.read_bytes())
    content[at] = value
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"1\.png must be a readable picture: "):
        read_folder(tmp_path)
