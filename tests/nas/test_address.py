"""Addresses of stores: what they may be, and that no password survives in one."""

from pathlib import Path

import pytest
from fakes import write_recipe

from nas.address import PASSWORD, parse_address
from nas.config import load_recipe
from spaces import InputError

BASE = Path("/somewhere")
SERVER = "postgresql+psycopg2://user@host:5432/name"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("journal:runs.log", "journal:/somewhere/runs.log"),
        ("journal:/shared/runs", "journal:/shared/runs"),
        ("runs/all.log", "journal:/somewhere/runs/all.log"),
        ("sqlite:///all.db", "sqlite:////somewhere/all.db"),
        ("sqlite:////shared/all.db", "sqlite:////shared/all.db"),
        (SERVER, SERVER),
        ("mysql+pymysql://user@host/name?charset=utf8", "mysql+pymysql://user@host/name?charset=utf8"),
    ],
)
def test_an_address_is_whole_and_stays_what_it_is(text, expected):
    address = parse_address(text, BASE)
    assert (address.text, address.password) == (expected, None)
    assert parse_address(address.text, Path("/elsewhere")) == address


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+psycopg2://user:s3cr3t@host:5432/name",
        "postgresql+psycopg2://user@host:5432/name?password=s3cr3t",
        "postgresql+psycopg2://user:s3cr3t@host:5432/name?sslpassword=s3cr3t",
    ],
)
def test_a_password_is_kept_apart(text):
    address = parse_address(text, BASE)
    assert address.text == str(address) == SERVER
    assert address.password == "s3cr3t"
    assert "s3cr3t" in address.url().render_as_string(hide_password=False)
    assert address.without_secrets("login as user with s3cr3t failed") == "login as user with *** failed"


def test_a_password_may_have_the_characters_that_urls_are_made_of():
    address = parse_address("postgresql+psycopg2://user:a%40b%2Fc@host:5432/name", BASE)
    assert (address.text, address.password) == (SERVER, "a@b/c")
    assert address.url().password == "a@b/c"


def test_a_password_can_come_from_the_environment(monkeypatch):
    assert parse_address(SERVER, BASE).url().password is None
    monkeypatch.setenv(PASSWORD, "from outside")
    assert parse_address(SERVER, BASE).url().password == "from outside"
    assert parse_address("postgresql+psycopg2://user:given@host/name", BASE).url().password == "given"
    assert parse_address("sqlite:///all.db", BASE).url().password is None


@pytest.mark.parametrize("text", ["", "study.db", "journal:", "sqlite://", "sqlite:///:memory:", "http", "a b://c"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InputError, match="a storage must"):
        parse_address(text, BASE)


def test_a_url_that_cannot_be_read_is_not_repeated():
    with pytest.raises(InputError) as error:
        parse_address("post gres://user:s3cr3t@host/name", BASE)
    assert "s3cr3t" not in str(error.value)


def test_a_recipe_names_a_storage_beside_itself_and_never_a_password(tmp_path):
    recipe = write_recipe(tmp_path, ('name = "tiny"\n', 'name = "tiny"\nstorage = "journal:all.log"\n'))
    assert load_recipe(recipe).storage == f"journal:{tmp_path}/all.log"
    url = "postgresql+psycopg2://user:s3cr3t@host/name"
    recipe = write_recipe(tmp_path, ('name = "tiny"\n', f'name = "tiny"\nstorage = "{url}"\n'))
    with pytest.raises(InputError, match="a recipe must not hold a password") as error:
        load_recipe(recipe)
    assert "s3cr3t" not in str(error.value)
    with pytest.raises(InputError, match="a storage must be a database URL"):
        load_recipe(write_recipe(tmp_path)).changed(run={"storage": "study.db"})
