"""Where files are looked for, and what a download may do; the network is a server on this machine."""

import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pooch
import pytest
import requests

from spaces import InputError
from supernet.data import load_data
from supernet.download import Source, data_folder, locate

HELP = r"put its files .* into a folder and name that folder with --data-dir or SPIKEFRONT_DATA"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


def digest(content):
    return "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def server(tmp_path):
    """Folder and address of a web server on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{web.server_address[1]}/"
        web.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache, for this test only."""
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "spikefront"


def archive(**files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"inner/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def archived(address, content, files=("a", "b"), checksum=None):
    return Source(("sub",), files, ((address + "set.tar.gz", checksum or digest(content)),))


# --- data folders


def test_the_argument_comes_before_the_environment(tmp_path, monkeypatch):
    (tmp_path / "argument").mkdir()
    (tmp_path / "environment").mkdir()
    assert data_folder(None) is None
    monkeypatch.setenv("SPIKEFRONT_DATA", str(tmp_path / "environment"))
    assert data_folder(None) == tmp_path / "environment"
    assert data_folder(tmp_path / "argument") == tmp_path / "argument"
    assert data_folder(str(tmp_path / "argument")) == tmp_path / "argument"
    monkeypatch.setenv("SPIKEFRONT_DATA", "")
    assert data_folder(None) is None


@pytest.mark.parametrize("variable", [False, True])
def test_a_data_folder_must_exist(tmp_path, monkeypatch, variable):
    absent = tmp_path / "absent"
    if variable:
        monkeypatch.setenv("SPIKEFRONT_DATA", str(absent))
    message = "the data folder must exist, got .*absent; set --data-dir or SPIKEFRONT_DATA"
    with pytest.raises(InputError, match=message):
        data_folder(None if variable else absent)


def test_a_file_is_no_data_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"the data folder must exist, got .*file"):
        data_folder(tmp_path / "file")


@pytest.mark.parametrize("folder", ["", "sub", "other/sub"])
def test_files_are_found_in_a_data_folder_and_its_usual_sub_folders(tmp_path, folder):
    source = Source(("sub", "other/sub"), ("a.gz", "b"), ())
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name in ("a.gz", "b"):
        (tmp_path / folder / name).write_text("")
    assert locate("set", source, tmp_path) == [tmp_path / folder / "a.gz", tmp_path / folder / "b"]


def test_an_unpacked_file_is_taken_where_there_is_no_packed_one(tmp_path):
    source = Source((), ("a.gz", "b.gz"), ())
    for name in ("a", "b.gz", "b"):
        (tmp_path / name).write_text("")
    assert locate("set", source, tmp_path) == [tmp_path / "a", tmp_path / "b.gz"]


def test_files_scattered_over_sub_folders_are_not_taken_for_one_set(tmp_path):
    source = Source(("sub",), ("a", "b"), ())
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_text("")
    (tmp_path / "sub/b").write_text("")
    message = r"set needs the files \['a', 'b'\] in .* or in one of its sub-folders \['sub'\]; some are missing"
    with pytest.raises(InputError, match=message):
        locate("set", source, tmp_path)


# --- downloads


def test_files_are_downloaded_into_the_cache_and_only_once(server, cache):
    folder, address = server
    for name in ("a.gz", "b.gz"):
        (folder / name).write_bytes(name.encode())
    source = Source((), ("a.gz", "b.gz"), tuple((address + n, digest(n.encode())) for n in ("a.gz", "b.gz")))
    paths = locate("set", source, None)
    assert [path.read_bytes() for path in paths] == [b"a.gz", b"b.gz"]
    assert paths == [cache / "set/a.gz", cache / "set/b.gz"]
    for name in ("a.gz", "b.gz"):
        (folder / name).unlink()
    assert locate("set", source, None) == paths


def test_an_archive_is_downloaded_and_unpacked(server, cache):
    folder, address = server
    content = archive(a=b"1", b=b"2", more=b"3")
    (folder / "set.tar.gz").write_bytes(content)
    paths = locate("set", archived(address, content), None)
    assert [path.read_bytes() for path in paths] == [b"1", b"2"]
    assert all(path.is_relative_to(cache / "set") for path in paths)


def test_a_data_folder_of_the_environment_without_the_set_falls_back_on_a_download(
    server, cache, tmp_path, monkeypatch
):
    folder, address = server
    content = archive(a=b"1", b=b"2")
    (folder / "set.tar.gz").write_bytes(content)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SPIKEFRONT_DATA", str(tmp_path / "empty"))
    assert [path.read_bytes() for path in locate("set", archived(address, content), None)] == [b"1", b"2"]


def test_a_data_folder_given_by_hand_never_falls_back_on_a_download(server, cache, tmp_path):
    folder, address = server
    content = archive(a=b"1", b=b"2")
    (folder / "set.tar.gz").write_bytes(content)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="some are missing"):
        locate("set", archived(address, content), tmp_path / "empty")
    assert not cache.exists()


def test_a_download_with_another_checksum_is_refused_and_not_kept(server, cache):
    folder, address = server
    (folder / "set.tar.gz").write_bytes(archive(a=b"evil", b=b"2"))
    source = archived(address, b"", checksum=digest(b"what was promised"))
    with pytest.raises(InputError, match=rf"set could not be downloaded \(ValueError\); {HELP}"):
        locate("set", source, None)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_server_without_the_file_is_an_input_error(server, cache):
    _, address = server
    with pytest.raises(InputError, match=rf"set could not be downloaded \(HTTPError\); {HELP}"):
        locate("set", archived(address, b""), None)


def test_a_server_that_does_not_answer_is_an_input_error(cache):
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as closed:
        address = f"http://127.0.0.1:{closed.server_address[1]}/"
    with pytest.raises(InputError, match=rf"set could not be downloaded \(ConnectionError\); {HELP}"):
        locate("set", archived(address, b""), None)


@pytest.mark.parametrize(
    "content",
    [b"not a tar archive", archive(a=bytes(20_000), b=b"2")[:60], archive(a=b"1")],
    ids=["no archive", "cut", "without a file of the set"],
)
def test_an_archive_that_does_not_hold_the_set_is_an_input_error(server, cache, content):
    folder, address = server
    (folder / "set.tar.gz").write_bytes(content)
    with pytest.raises(InputError, match=rf"set could not be downloaded \(\w+\); {HELP}"):
        locate("set", archived(address, content), None)


def test_an_archive_cannot_write_outside_the_cache(server, cache, tmp_path):
    folder, address = server
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())
    (folder / "set.tar.gz").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="set could not be downloaded"):
        locate("set", archived(address, buffer.getvalue()), None)
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_without_a_network_every_public_set_says_which_files_it_wants(cache, monkeypatch, name):
    def refuse(url, known_hash, path, fname):
        assert known_hash.startswith("md5:")
        assert len(known_hash) == 4 + 32
        assert url.endswith(fname)
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(InputError, match=rf"{name} could not be downloaded \(ConnectionError\); {HELP}"):
        load_data(name)
