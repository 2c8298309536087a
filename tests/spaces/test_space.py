"""Search spaces: sizes, vectors, canonical form, sampling, neighbours."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from spaces import LAYER_GENES, NETWORK_GENES, Architecture, InputError, Layer, SearchSpace, load_space, space_names

PROPERTY = settings(deadline=None, max_examples=25)
SPACES = {name: load_space(name) for name in space_names()}


def some(choices):
    """Any non-empty sublist."""
    return st.lists(st.sampled_from(choices), min_size=1, max_size=3, unique=True)


@st.composite
def small_spaces(draw):
    """Spaces of a user's own, small enough to enumerate."""
    genes = {
        "embed_dim": draw(some([8, 16, 24])),
        "timesteps": draw(some([1, 2, 4])),
        "depth": draw(some([1, 2, 3]).filter(lambda depths: depths != [3])),
        "mlp_ratio": draw(st.sampled_from([[1.0], [0.5, 2.0]])),
        "num_heads": draw(st.sampled_from([[1], [2, 4]])),
        "v_threshold": draw(st.sampled_from([[1.0], [0.5]])),
        "tau": draw(st.sampled_from([[2.0], [1.25, 3.0]])),
    }
    return SearchSpace.from_dict(
        {"name": "own", "skeleton": {"image_size": 8, "in_channels": 1, "num_classes": 2}, "genes": genes}
    )


@st.composite
def vectors(draw, space):
    """Real vectors of a space, both edges of every bucket included."""
    indices = [draw(st.integers(0, int(n) - 1)) for n in space.cardinalities]
    return [draw(st.sampled_from([index, index + 0.5, float(np.nextafter(index + 1, 0))])) for index in indices]


named = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)

# --- sizes and enumeration


@PROPERTY
@given(small_spaces())
def test_iteration_yields_every_architecture_once_and_size_counts_them(space):
    architectures = list(space)
    assert len(architectures) == len(set(architectures)) == space.size
    assert len({architecture.key for architecture in architectures}) == space.size
    assert all(architecture in space for architecture in architectures)


def test_the_tiny_space_is_what_one_writes_down_by_hand(tiny):
    layers = [Layer(ratio, heads, 1.0, 2.0) for ratio in (1.0, 2.0) for heads in (1, 2)]
    stacks = [(a,) for a in layers] + [(a, b) for a in layers for b in layers]
    by_hand = {Architecture(width, t, stack) for width in (8, 16) for t in (1, 2) for stack in stacks}
    assert set(tiny) == by_hand
    assert tiny.size == len(by_hand) == 80


def test_depths_need_not_be_consecutive(tiny_values):
    tiny_values["genes"]["depth"] = [3, 1]
    space = SearchSpace.from_dict(tiny_values)
    assert space.size == 4 * (4 + 64) == len(set(space))
    assert {architecture.depth for architecture in space} == {1, 3}


@named
def test_columns_and_cardinalities_describe_the_vector(space):
    assert space.columns[:3] == NETWORK_GENES
    assert space.columns[3:7] == tuple(f"{gene}_0" for gene in LAYER_GENES)
    assert len(space.columns) == len(space.cardinalities) == 3 + 4 * space.max_depth
    deepest = space.decode(space.cardinalities - 1)
    assert tuple(deepest.genes) == space.columns
    for column, cardinality in zip(space.columns, space.cardinalities, strict=True):
        gene = column if column in NETWORK_GENES else column.rpartition("_")[0]
        assert cardinality == len(space.genes[gene].choices)


# --- vectors


@named
@PROPERTY
@given(data=st.data())
def test_encoding_then_decoding_gives_the_architecture_back(space, data):
    architecture = space.decode(data.draw(vectors(space)))
    vector = space.encode(architecture)
    assert vector.dtype == np.int64
    assert space.decode(vector) == architecture
    assert architecture in space


@named
@PROPERTY
@given(data=st.data())
def test_real_vectors_are_floored_so_each_choice_owns_an_equal_bucket(space, data):
    vector = data.draw(vectors(space))
    assert space.decode(vector) == space.decode([int(entry) for entry in vector])


def test_decoding_reads_each_entry_as_an_index_into_its_gene():
    assert SPACES["digits"].decode([1, 2, 1, 0, 1, 2, 0, 2, 0, 1, 2]) == Architecture(
        24, 3, (Layer(1.0, 2, 1.2, 1.5), Layer(3.0, 1, 1.0, 3.0))
    )


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_uniform_real_falls_into_each_of_n_buckets_alike(n, tiny_values):
    tiny_values["genes"]["timesteps"] = list(range(1, n + 1))
    space = SearchSpace.from_dict(tiny_values)
    grid = (np.arange(60 * n) + 0.5) / 60  # evenly over [0, n)
    vector = np.zeros(len(space.columns))
    counts = Counter()
    for vector[1] in grid:
        counts[space.decode(vector).timesteps] += 1
    assert counts == dict.fromkeys(range(1, n + 1), 60)


@named
@pytest.mark.parametrize("excess", ["n", "-1", "-tiny", "nan", "inf", "-inf"])
def test_entries_outside_their_gene_are_refused_by_name(space, excess):
    for at, (column, n) in enumerate(zip(space.columns, space.cardinalities, strict=True)):
        vector = np.zeros(len(space.columns))
        vector[at] = n if excess == "n" else -1e-9 if excess == "-tiny" else float(excess)
        with pytest.raises(InputError, match=rf"^{column} must be in \[0, {n}\), got {vector[at]}"):
            space.decode(vector)


@pytest.mark.parametrize("shape", [(10,), (12,), (0,), (1, 11), ()])
def test_a_vector_of_another_length_is_refused(shape):
    with pytest.raises(InputError, match="a vector of space 'digits' has 11 entries, got shape"):
        SPACES["digits"].decode(np.zeros(shape))


def test_decoding_leaves_the_vector_as_it_is():
    vector = np.full(11, 0.5)
    SPACES["digits"].decode(vector)
    assert (vector == 0.5).all()


# --- inactive genes and canonical form


@named
@PROPERTY
@given(data=st.data())
def test_genes_of_missing_layers_do_not_matter(space, data):
    vector, other = np.array(data.draw(vectors(space))), np.array(data.draw(vectors(space)))
    architecture = space.decode(vector)
    active = len(NETWORK_GENES) + architecture.depth * len(LAYER_GENES)
    other[:active] = vector[:active]
    assert space.decode(other) == architecture
    assert space.decode(other).key == architecture.key
    np.testing.assert_array_equal(space.canonical(other), space.canonical(vector))


@named
@PROPERTY
@given(data=st.data())
def test_genes_of_existing_layers_do_matter(space, data):
    vector = np.floor(data.draw(vectors(space)))
    architecture = space.decode(vector)
    active = len(NETWORK_GENES) + architecture.depth * len(LAYER_GENES)
    position = data.draw(st.integers(0, active - 1))
    vector[position] = (vector[position] + 1) % space.cardinalities[position]
    changed = space.decode(vector)
    assert (changed == architecture) == (space.cardinalities[position] == 1)
    assert (changed.key == architecture.key) == (space.cardinalities[position] == 1)


@named
@PROPERTY
@given(data=st.data())
def test_canonical_form_is_its_own_canonical_form_and_repeats_the_last_layer(space, data):
    vector = data.draw(vectors(space))
    canonical = space.canonical(vector)
    np.testing.assert_array_equal(space.canonical(canonical), canonical)
    layers = canonical[len(NETWORK_GENES) :].reshape(-1, len(LAYER_GENES))
    depth = space.decode(vector).depth
    assert (layers[depth:] == layers[depth - 1]).all()


def test_vectors_of_one_architecture_share_one_canonical_vector(tiny):
    """All vectors of the space, grouped by architecture: 2·2·2·2²·2² = 128 vectors, 80 architectures."""
    vectors_of = {}
    for vector in np.ndindex(*tiny.cardinalities):
        vectors_of.setdefault(tiny.decode(vector).key, set()).add(tuple(tiny.canonical(vector)))
    assert len(vectors_of) == 80
    assert {len(canonical) for canonical in vectors_of.values()} == {1}
    assert len(set.union(*vectors_of.values())) == 80


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (Architecture(64, 1, (Layer(1.0, 1, 1.0, 2.0),)), r"embed_dim must be one of \[16, 24, 32, 48\], got 64"),
        (Architecture(16, 9, (Layer(1.0, 1, 1.0, 2.0),)), r"timesteps must be one of \[1, 2, 3, 4\], got 9"),
        (Architecture(16, 1, (Layer(1.0, 1, 1.0, 2.0),) * 3), r"depth must be one of \[1, 2\], got 3"),
        (Architecture(16, 1, ()), r"depth must be one of \[1, 2\], got 0"),
        (Architecture(16, 1, (Layer(1.5, 1, 1.0, 2.0),)), "mlp_ratio must be one of .*, got 1.5"),
        (Architecture(16, 1, (Layer(1.0, 3, 1.0, 2.0),)), "num_heads must be one of .*, got 3"),
        (Architecture(16, 1, (Layer(1.0, 1, 0.9, 2.0),)), "v_threshold must be one of .*, got 0.9"),
        (Architecture(16, 1, (Layer(1.0, 1, 1.0, 2.5),)), "tau must be one of .*, got 2.5"),
    ],
)
def test_an_architecture_of_another_space_cannot_be_encoded_and_is_not_in_the_space(architecture, message):
    with pytest.raises(InputError, match=message):
        SPACES["digits"].encode(architecture)
    assert architecture not in SPACES["digits"]


@pytest.mark.parametrize("thing", [None, 3, "16", {}, np.zeros(11)])
def test_only_architectures_are_in_a_space(thing):
    assert thing not in SPACES["digits"]


# --- sampling


def test_sampling_is_uniform_over_distinct_architectures(tiny):
    rng = np.random.default_rng(3)
    counts = Counter(tiny.sample(rng) for _ in range(80 * 60))
    assert len(counts) == 80
    assert chisquare([counts[architecture] for architecture in tiny]).pvalue > 0.01
    depths = Counter({depth: sum(n for a, n in counts.items() if a.depth == depth) for depth in (1, 2)})
    assert chisquare([depths[1], depths[2]], [4800 * 4 / 20, 4800 * 16 / 20]).pvalue > 0.01


def test_sampling_genes_is_uniform_in_each_gene_depth_included():
    space, rng = SPACES["digits"], np.random.default_rng(4)
    samples = [space.sample_genes(rng) for _ in range(2000)]
    for column in ("embed_dim", "timesteps", "depth", "mlp_ratio_0", "num_heads_0", "v_threshold_0", "tau_0"):
        counts = Counter(sample.genes[column] for sample in samples)
        gene = column.removesuffix("_0")
        assert sorted(counts) == list(space.genes[gene].choices)
        assert chisquare(list(counts.values())).pvalue > 0.01, column


def test_sampling_architectures_nearly_always_gives_deep_ones_and_sampling_genes_does_not():
    space, rng = SPACES["auto-spikformer"], np.random.default_rng(5)
    deep = sum(space.sample(rng).depth == 4 for _ in range(300))
    deep_by_gene = sum(space.sample_genes(rng).depth == 4 for _ in range(300))
    assert deep > 290  # expected 298 = 300 · 144 ⁴ / (144² + 144³ + 144⁴)
    assert 70 < deep_by_gene < 130  # expected 100


@named
@pytest.mark.parametrize("draw", ["sample", "sample_genes"])
def test_samples_are_in_the_space_and_follow_from_the_generator(space, draw):
    first, second = ([getattr(space, draw)(rng) for _ in range(20)] for rng in map(np.random.default_rng, (7, 7)))
    assert first == second
    assert len(set(first)) > 1
    assert all(architecture in space for architecture in first)


def test_sampling_leaves_the_global_generator_alone(tiny):
    before = np.random.get_state()[1].copy()  # noqa: NPY002  # the global generator is what is watched
    tiny.sample(np.random.default_rng(0))
    tiny.sample_genes(np.random.default_rng(0))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002  # the global generator is what is watched


# --- neighbours and extremes


@named
@PROPERTY
@given(data=st.data())
def test_neighbours_differ_in_exactly_one_gene_and_all_of_them_are_there(space, data):
    architecture = space.decode(data.draw(vectors(space)))
    neighbours = list(space.neighbours(architecture))
    active = len(NETWORK_GENES) + architecture.depth * len(LAYER_GENES)
    assert len(neighbours) == len(set(neighbours)) == sum(int(n) - 1 for n in space.cardinalities[:active])
    for neighbour in neighbours:
        assert neighbour in space
        shared = architecture.genes.keys() & neighbour.genes.keys()
        assert sum(neighbour.genes[column] != architecture.genes[column] for column in shared) == 1


def test_a_deeper_neighbour_repeats_the_last_layer_and_a_shallower_one_drops_layers():
    space = SPACES["grey28"]
    a, b = Layer(1.0, 2, 0.8, 1.5), Layer(3.0, 4, 1.2, 3.0)
    by_depth = {n.depth: n for n in space.neighbours(Architecture(32, 1, (a, b))) if n.depth != 2}
    assert by_depth == {1: Architecture(32, 1, (a,)), 3: Architecture(32, 1, (a, b, b))}


def test_neighbours_of_an_architecture_by_hand(tiny):
    base = Architecture(8, 1, (Layer(1.0, 1, 1.0, 2.0),))
    assert set(tiny.neighbours(base)) == {
        Architecture(16, 1, base.layers),
        Architecture(8, 2, base.layers),
        Architecture(8, 1, base.layers * 2),
        Architecture(8, 1, (Layer(2.0, 1, 1.0, 2.0),)),
        Architecture(8, 1, (Layer(1.0, 2, 1.0, 2.0),)),
    }


def test_neighbours_of_a_stranger_are_refused(tiny):
    with pytest.raises(InputError, match="embed_dim must be one of"):
        next(tiny.neighbours(Architecture(64, 1, (Layer(1.0, 1, 1.0, 2.0),))))


@PROPERTY
@given(small_spaces())
def test_smallest_and_largest_are_in_the_space_and_bound_every_architecture(space):
    small, large = space.smallest(), space.largest()
    assert small in space
    assert large in space
    for architecture in space:
        for bound, sign in ((small, 1), (large, -1)):
            assert all(sign * getattr(architecture, gene) >= sign * getattr(bound, gene) for gene in NETWORK_GENES)
            for layer, extreme in zip(architecture.layers, bound.layers, strict=False):
                assert sign * layer.mlp_ratio >= sign * extreme.mlp_ratio
                assert sign * layer.num_heads >= sign * extreme.num_heads


def test_smallest_is_the_least_and_largest_the_most_excitable():
    space = SPACES["digits"]
    assert space.smallest() == Architecture(16, 1, (Layer(1.0, 1, 1.2, 3.0),))
    assert space.largest() == Architecture(48, 4, (Layer(3.0, 4, 0.8, 1.5),) * 2)


def test_another_input_changes_the_skeleton_and_nothing_else(tiny):
    changed = tiny.with_input(28, 3, 7)
    assert (changed.skeleton.image_size, changed.skeleton.in_channels, changed.skeleton.num_classes) == (28, 3, 7)
    assert changed.genes == tiny.genes
    assert changed.name == tiny.name
    assert tiny.skeleton.image_size == 8


# --- what a search asks of any space


@named
@PROPERTY
@given(data=st.data())
def test_entries_that_are_not_active_do_not_matter_and_active_ones_do(space, data):
    vector = np.floor(data.draw(vectors(space))).astype(np.int64)
    active, architecture = space.active(vector), space.decode(vector)
    assert active.sum() == len(architecture.genes)
    for position, n in enumerate(space.cardinalities):
        changed = vector.copy()
        changed[position] = (changed[position] + 1) % n
        assert (space.decode(changed) != architecture) == (bool(active[position]) and n > 1)


@named
@PROPERTY
@given(data=st.data())
def test_genes_by_column_name_the_architecture_again(space, data):
    architecture = space.decode(data.draw(vectors(space)))
    assert space.architecture(architecture.genes) == architecture
    vector = space.encode(architecture)
    active = {
        c: space.choices(c)[i] for c, i, on in zip(space.columns, vector, space.active(vector), strict=True) if on
    }
    assert active == architecture.genes


@named
def test_all_genes_are_numbers_in_order(space):
    assert space.ordered.all()
    assert space.ordered.shape == space.cardinalities.shape
    assert all(list(space.choices(column)) == sorted(space.choices(column)) for column in space.columns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": None}, r"missing \['depth'\]"),
        ({"tau_0": None}, r"missing \['tau_0'\]"),
        ({"tau_9": 2.0}, r"unknown \['tau_9'\]"),
        ({"depth": 10**15}, "missing .*'tau_5'"),
        ({"depth": "2"}, "depth must be a finite number, got '2'"),
        ({"num_heads_0": 1.5}, "num_heads must be a whole number, got 1.5"),
    ],
)
def test_genes_that_are_no_architecture_are_refused(tiny, change, message):
    genes = {**tiny.smallest().genes, **change}
    with pytest.raises(InputError, match=message):
        tiny.architecture({name: value for name, value in genes.items() if value is not None})
