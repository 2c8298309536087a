"""Named spaces and the user's own TOML files."""

import json
import sys
from math import prod

import numpy as np
import pytest

from spaces import LAYER_GENES, NETWORK_GENES, InputError, SearchSpace, load_space, space_names

OWN = """
name = "own"

[skeleton]
image_size = 12
in_channels = 3
num_classes = 5
stem_pools = [1]
neuron = "plif"
surrogate = "atan"
soft_reset = true

[genes]
embed_dim = [24, 8]
timesteps = [2]
depth = [1, 3]
mlp_ratio = [1, 1.5]
num_heads = [1, 2]
v_threshold = [1]
tau = [2, 1.25]
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="own.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_the_named_spaces_are_these():
    assert space_names() == ["auto-spikformer", "digits", "grey28"]


@pytest.mark.parametrize("name", space_names())
def test_a_named_space_bears_its_own_name_and_has_every_gene(name):
    space = load_space(name)
    assert space.name == name
    assert tuple(space.genes) == (*NETWORK_GENES, *LAYER_GENES)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("auto-spikformer", 8_659_768_320),  # 4·5·(144² + 144³ + 144⁴)
        ("digits", 16 * (81 + 81**2)),
        ("grey28", 16 * (54 + 54**2 + 54**3)),
    ],
)
def test_a_named_space_has_exactly_this_size(name, size):
    assert load_space(name).size == size


def test_auto_spikformer_has_the_choices_of_the_paper():
    genes = {name: gene.choices for name, gene in load_space("auto-spikformer").genes.items()}
    assert genes == {
        "embed_dim": (192, 240, 336, 384),
        "timesteps": (2, 3, 4, 5, 6),
        "depth": (2, 3, 4),
        "mlp_ratio": (3.0, 3.5, 4.0),
        "num_heads": (6, 12),
        "v_threshold": (0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0),
        "tau": (1.25, 2.0, 10.0),
    }


def test_a_space_file_of_one_s_own_is_read_as_written(write):
    space = load_space(write(OWN))
    assert space.name == "own"
    assert space.to_dict()["skeleton"] == {
        "image_size": 12,
        "in_channels": 3,
        "num_classes": 5,
        "stem_pools": [1],
        "neuron": "plif",
        "surrogate": "atan",
        "soft_reset": True,
    }
    assert space.to_dict()["genes"] == {
        "embed_dim": [8, 24],
        "timesteps": [2],
        "depth": [1, 3],
        "mlp_ratio": [1.0, 1.5],
        "num_heads": [1, 2],
        "v_threshold": [1.0],
        "tau": [1.25, 2.0],
    }
    layer = prod(len(space.genes[gene].choices) for gene in LAYER_GENES)
    assert space.size == 2 * (layer + layer**3)


def test_a_path_may_be_text(write):
    assert load_space(str(write(OWN))) == load_space(write(OWN))


@pytest.mark.parametrize("name", space_names())
def test_json_gives_back_the_same_space(name):
    space = load_space(name)
    back = SearchSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert back == space
    rng = np.random.default_rng(0)
    for _ in range(5):
        vector = rng.integers(space.cardinalities)
        assert back.decode(vector) == space.decode(vector)


@pytest.mark.parametrize("name", ["nonsense", "Digits", "", "digits.json", "../digits"])
def test_an_unknown_name_is_refused_with_the_known_ones_named(name):
    with pytest.raises(InputError, match=r"a space is one of \['auto-spikformer', 'digits', 'grey28'\] or the path"):
        load_space(name)


# package.module:Name


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Write a user's module and make it importable."""

    def own_module(source):
        (tmp_path / "module_of_spaces.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "module_of_spaces", raising=False)
        return "module_of_spaces:OWN"

    yield own_module
    sys.modules.pop("module_of_spaces", None)


IMPORTS = (
    "from dataclasses import replace\nfrom spaces import SearchSpace, load_space\nDIGITS = load_space('digits')\n"
)


@pytest.mark.parametrize("made", ["DIGITS", "lambda: DIGITS", "SearchSpace.from_dict(DIGITS.to_dict())"])
def test_a_module_names_a_space_or_what_returns_one(made, own_module):
    assert load_space(own_module(f"{IMPORTS}OWN = {made}\n")) == load_space("digits")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            "3",
            r"is a spaces.SearchSpace, or what returns one .* but 'module_of_spaces:OWN' gives 3; SearchSpace.from",
        ),
        ("lambda: 'digits'", "is a spaces.SearchSpace, or .* gives 'digits'"),
        ("lambda depth: DIGITS", r"space 'module_of_spaces:OWN' cannot be built: .*missing 1 required positional"),
        ("SearchSpace", r"space 'module_of_spaces:OWN' cannot be built: .*missing 3 required positional"),
        ("replace(DIGITS, name='')", r"cannot be built: name must be a non-empty text, got ''"),
        ("replace(DIGITS, genes={})", r"cannot be built: a space has the genes .*, missing \['embed_dim', "),
        ("replace(DIGITS, genes=3)", r"cannot be built: AttributeError: 'int' object"),
        ("type('Mine', (SearchSpace,), {})(DIGITS.name, DIGITS.genes, DIGITS.skeleton)", r"gives Mine\("),
    ],
)
def test_what_a_module_names_must_be_a_space(made, message, own_module):
    with pytest.raises(InputError, match=message):
        load_space(own_module(f"{IMPORTS}OWN = {made}\n"))


@pytest.mark.parametrize("name", ["no_such_module:OWN", "module_of_spaces:MISSING", "module_of_spaces:", ":OWN"])
def test_a_space_that_cannot_be_imported_is_refused(name, own_module):
    own_module(IMPORTS)
    with pytest.raises(InputError, match=rf"space '{name}' cannot be imported: "):
        load_space(name)


def test_a_module_that_fails_is_refused_with_the_place(own_module):
    name = own_module(f"{IMPORTS}OWN = 1 / 0\n")
    with pytest.raises(InputError, match=r"imported: ZeroDivisionError: .* \(module_of_spaces.py, line \d+\)"):
        load_space(name)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no space file at .*absent\.toml; named spaces are .*digits"):
        load_space(tmp_path / "absent.toml")


def test_a_folder_is_no_space_file(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InputError, match=r"folder\.toml"):
        load_space(tmp_path / "folder.toml")


@pytest.mark.parametrize(
    "text", ["name = ", "[genes\n", "name = 'a'\nname = 'b'", b"name = '\xff'", "a = " + "[" * 9999], ids=range(5)
)
def test_a_file_that_is_not_toml_is_refused(write, text):
    with pytest.raises(InputError, match=r"own\.toml must be a TOML file: "):
        load_space(write(text))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "own"', "", "exactly the keys .*, got"),
        ('name = "own"', 'name = "own"\nseed = 1', "exactly the keys .*, got .*seed"),
        ('name = "own"', "name = 3", "name must be a non-empty text, got 3"),
        ('name = "own"', 'name = ""', "name must be a non-empty text, got ''"),
        ("image_size = 12", "", "skeleton must have .*image_size.*, got"),
        ("image_size = 12", "image_size = 12.0", "image_size must be a positive integer, got 12.0"),
        ("image_size = 12", "image_size = 12\nwidth = 3", "skeleton must have .* may have .*, got .*width"),
        ("stem_pools = [1]", "stem_pools = [4]", "stem_pools must list different stages"),
        ("stem_pools = [1]", "stem_pools = 1", "stem_pools must"),
        ('neuron = "plif"', 'neuron = ["plif"]', "neuron must be"),
        ("soft_reset = true", 'soft_reset = "yes"', "soft_reset must be true or false"),
        ("depth = [1, 3]", "", r"missing \['depth'\]"),
        ("depth = [1, 3]", "depth = 3", "depth must be a non-empty list of positive integers, got 3"),
        ("depth = [1, 3]", "depth = []", r"depth must be a non-empty list of positive integers, got \[\]"),
        ("depth = [1, 3]", "depth = [1, true]", "choices of depth must be positive integers, got True"),
        ("depth = [1, 3]", 'depth = ["1"]', "choices of depth must be positive integers, got '1'"),
        ("depth = [1, 3]", "depth = [1, 1]", r"choices of depth must differ, got \[1, 1\]"),
        ("tau = [2, 1.25]", "tau = [2, nan]", "choices of tau must be numbers above 1, got nan"),
        ("tau = [2, 1.25]", "tau = [2, inf]", "choices of tau must be numbers above 1, got inf"),
        ("tau = [2, 1.25]", "tau = [2, 1.0]", "choices of tau must be numbers above 1, got 1.0"),
        ("tau = [2, 1.25]", "tau = [2]\nalpha = [1]", r"unknown \['alpha'\]"),
        ("embed_dim = [24, 8]", "embed_dim = [24, 20]", "choices of embed_dim must be positive multiples of 8"),
        ("num_heads = [1, 2]", "num_heads = [1, 3]", "embed_dim 8 with num_heads 3"),
        ("mlp_ratio = [1, 1.5]", "mlp_ratio = [1, 1.3]", "embed_dim 8 with mlp_ratio 1.3"),
        ('neuron = "plif"', 'neuron = "if"', "the if neuron does not leak"),
    ],
)
def test_a_space_file_that_breaks_a_rule_is_refused_with_its_path(write, old, new, message):
    assert old in OWN
    with pytest.raises(InputError, match=rf"own\.toml: .*{message}"):
        load_space(write(OWN.replace(old, new)))


@pytest.mark.parametrize("table", ["skeleton", "genes"])
def test_a_table_must_be_a_table(tiny_values, table):
    tiny_values[table] = 3
    with pytest.raises(InputError, match=f"{table} must be a table, got 3"):
        SearchSpace.from_dict(tiny_values)


REFERENCE = """
[reference]
embed_dim = 24
timesteps = 2
depth = 3
mlp_ratio = [1, 1, 1.5]
num_heads = 2
v_threshold = 1
tau = 2
"""


@pytest.mark.parametrize("name", space_names())
def test_a_named_space_has_a_reference_as_the_published_networks_are_set(name):
    reference = load_space(name).reference
    assert reference in load_space(name)
    assert reference.timesteps == 4
    assert {(layer.v_threshold, layer.tau) for layer in reference.layers} == {(1.0, 2.0)}
    assert len(set(reference.layers)) == 1


def test_the_reference_of_the_published_space_is_spikformer_4_384():
    reference = load_space("auto-spikformer").reference
    assert (reference.embed_dim, reference.depth) == (384, 4)
    assert (reference.layers[0].mlp_ratio, reference.layers[0].num_heads) == (4.0, 12)


def test_a_reference_has_one_value_for_all_layers_or_one_for_each(write):
    space = load_space(write(OWN + REFERENCE))
    assert [layer.mlp_ratio for layer in space.reference.layers] == [1.0, 1.0, 1.5]
    assert [layer.num_heads for layer in space.reference.layers] == [2, 2, 2]
    assert space.with_input(32, 3, 10).reference == space.reference
    assert load_space(write(OWN)).reference is None
    assert space == load_space(write(OWN))  # which networks there are does not depend on it
    assert SearchSpace.from_dict(space.to_dict()).reference is None
    with pytest.raises(InputError, match="embed_dim must be one of"):
        space.with_reference(load_space("digits").reference)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tau = 2\n", "", r"reference must have exactly the genes .*, got \['depth'"),
        ("tau = 2\n", "tau = 2\nwidth = 3\n", r"reference must have exactly the genes .*'width'\]"),
        ("depth = 3", "depth = 2", r"depth must be one of \[1, 3\], got 2"),
        ("depth = 3", "depth = [3]", r"depth must be one of \[1, 3\], got \[3\]"),
        ("[1, 1, 1.5]", "[1, 1.5]", r"mlp_ratio of the reference must be one value, or one for each of 3 layers"),
        ("num_heads = 2", "num_heads = 4", r"num_heads must be one of \[1, 2\], got 4"),
        ("num_heads = 2", "num_heads = true", r"num_heads must be a finite number, got True"),
        ("v_threshold = 1", "v_threshold = 'one'", r"v_threshold must be a finite number, got 'one'"),
    ],
)
def test_a_reference_that_breaks_a_rule_is_refused(write, old, new, message):
    assert old in REFERENCE
    with pytest.raises(InputError, match=rf"own\.toml: {message}"):
        load_space(write(OWN + REFERENCE.replace(old, new)))


def test_a_reference_must_be_a_table(write):
    with pytest.raises(InputError, match=r"reference must be a table, got 'large'"):
        load_space(write('reference = "large"\n' + OWN))
