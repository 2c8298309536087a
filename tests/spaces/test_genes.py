"""Genes: which choices are allowed, alone and together."""

import pytest

from spaces import LAYER_GENES, NETWORK_GENES, Gene, InputError, SearchSpace

WHOLE = ("embed_dim", "timesteps", "depth", "num_heads")
REAL = ("mlp_ratio", "v_threshold", "tau")


def test_the_two_tables_of_genes_are_all_genes():
    assert {*NETWORK_GENES, *LAYER_GENES} == {*WHOLE, *REAL}


@pytest.mark.parametrize("name", [*NETWORK_GENES, *LAYER_GENES])
def test_choices_are_kept_in_rising_order_and_typed(name):
    gene = Gene(name, [24, 8, 16])
    assert gene.choices == (8, 16, 24)
    assert {type(choice) for choice in gene.choices} == {int if name in WHOLE else float}
    assert [gene.index(choice) for choice in (8, 16, 24)] == [0, 1, 2]


def test_index_of_a_value_that_is_no_choice_is_refused():
    with pytest.raises(InputError, match=r"depth must be one of \[2, 3, 4\], got 7"):
        Gene("depth", (2, 3, 4)).index(7)


def test_an_unknown_gene_is_refused_with_the_known_ones_named():
    with pytest.raises(InputError, match=r"genes are .*'tau'.*, got 'width'"):
        Gene("width", (1,))


@pytest.mark.parametrize("name", [*NETWORK_GENES, *LAYER_GENES])
@pytest.mark.parametrize("choices", [[], (), 8, "8", None, {8: 1}])
def test_choices_must_be_a_list_with_something_in_it(name, choices):
    with pytest.raises(InputError, match=f"{name} must be a non-empty list of"):
        Gene(name, choices)


@pytest.mark.parametrize("name", [*NETWORK_GENES, *LAYER_GENES])
@pytest.mark.parametrize("value", [True, False, "8", None, float("nan"), float("inf"), float("-inf"), -8, 0, [8], 8j])
def test_a_choice_must_be_a_positive_finite_number(name, value):
    with pytest.raises(InputError, match=f"choices of {name} must be .*, got"):
        Gene(name, [16, value])


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [8.0, 8.5])
def test_a_choice_of_a_counting_gene_is_written_without_a_point(name, value):
    with pytest.raises(InputError, match=f"choices of {name} must be .*, got {value}"):
        Gene(name, [value])


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("embed_dim", 12, "positive multiples of 8"),
        ("embed_dim", 4, "positive multiples of 8"),
        ("tau", 1.0, "numbers above 1"),
        ("tau", 1, "numbers above 1"),
        ("tau", 0.5, "numbers above 1"),
        ("depth", 0, "positive integers"),
        ("v_threshold", 0.0, "positive numbers"),
        ("v_threshold", -1.0, "positive numbers"),
        ("mlp_ratio", 0.0, "positive numbers"),
    ],
)
def test_a_choice_that_breaks_its_gene_s_rule_is_refused(name, value, rule):
    with pytest.raises(InputError, match=f"choices of {name} must be {rule}, got {value}"):
        Gene(name, (value,))


def test_a_whole_number_too_large_for_a_real_gene_is_refused():
    with pytest.raises(InputError, match="choices of tau must be"):
        Gene("tau", (10**400,))


@pytest.mark.parametrize(
    ("name", "choices"), [("depth", [2, 3, 2]), ("tau", [2.0, 2]), ("v_threshold", [1.0, 0.5, 1.0])]
)
def test_a_choice_given_twice_is_refused(name, choices):
    with pytest.raises(InputError, match=f"choices of {name} must differ, got"):
        Gene(name, choices)


@pytest.mark.parametrize("name", [*NETWORK_GENES, *LAYER_GENES])
def test_a_space_needs_every_gene(tiny_values, name):
    del tiny_values["genes"][name]
    with pytest.raises(InputError, match=rf"missing \['{name}'\], unknown \[\].*fix a gene by .* one value"):
        SearchSpace.from_dict(tiny_values)


def test_a_space_with_an_unknown_gene_is_refused(tiny_values):
    tiny_values["genes"]["kernel"] = [3]
    with pytest.raises(InputError, match=r"missing \[\], unknown \['kernel'\]"):
        SearchSpace.from_dict(tiny_values)


def test_every_width_must_be_divisible_by_every_number_of_heads(tiny_values):
    tiny_values["genes"] |= {"embed_dim": [16, 24], "num_heads": [1, 3]}
    with pytest.raises(InputError, match="divisible by every num_heads choice, got embed_dim 16 with num_heads 3"):
        SearchSpace.from_dict(tiny_values)


def test_every_hidden_width_must_be_whole(tiny_values):
    tiny_values["genes"]["mlp_ratio"] = [2.0, 3.3]
    with pytest.raises(InputError, match=r"must be a whole number, got embed_dim 8 with mlp_ratio 3\.3"):
        SearchSpace.from_dict(tiny_values)


@pytest.mark.parametrize(
    ("width", "ratio", "hidden"), [(8, 0.125, 1), (240, 3.5, 840), (40, 1.1, 44), (200, 1.1, 220), (120, 2.05, 246)]
)
def test_a_hidden_width_that_is_whole_on_paper_is_accepted(tiny_values, width, ratio, hidden):
    tiny_values["genes"] |= {"embed_dim": [width], "mlp_ratio": [ratio]}
    (layer,) = SearchSpace.from_dict(tiny_values).smallest().layers
    assert round(width * layer.mlp_ratio) == hidden


def test_a_neuron_without_leak_has_one_tau(tiny_values):
    tiny_values["skeleton"]["neuron"] = "if"
    assert SearchSpace.from_dict(tiny_values).size == 80
    tiny_values["genes"]["tau"] = [2.0, 3.0]
    with pytest.raises(InputError, match=r"if neuron does not leak.* one choice, got \[2.0, 3.0\]; .*lif or plif"):
        SearchSpace.from_dict(tiny_values)


@pytest.mark.parametrize("neuron", ["lif", "plif", "package.module:Name"])
def test_a_leaky_neuron_may_search_tau(tiny_values, neuron):
    tiny_values["skeleton"]["neuron"] = neuron
    tiny_values["genes"]["tau"] = [2.0, 3.0]
    assert SearchSpace.from_dict(tiny_values).size == 4 * (8 + 64)
