"""Why these: how often each choice is on the front, beside the space it was found in."""

import pandas as pd
import pytest

from nas.gene_shares import SPACE, gene_shares, shares_figure, telling

GENES = {"embed_dim", "timesteps", "depth", "mlp_ratio", "num_heads", "v_threshold", "tau"}


@pytest.fixture(scope="module")
def shares(finished):
    return gene_shares(finished, finished.front())


def test_the_choices_of_each_gene_share_each_group_among_them(shares):
    assert set(shares["gene"]) == GENES
    for _, rows in shares.groupby("gene"):
        for group in shares.columns[2:]:
            assert rows[group].sum() == pytest.approx(1)


def test_shares_of_a_front_are_those_of_counting(shares, finished):
    front = finished.front()
    found = shares.set_index(["gene", "choice"])["front"]
    for width in (8, 16):
        assert found["embed_dim", width] == pytest.approx((front["embed_dim"] == width).mean())
    columns = front[[name for name in front if name.startswith("tau_")]]
    each = columns.apply(lambda row: (row.dropna() == 2.0).mean(), axis=1)
    assert found["tau", 2.0] == pytest.approx(each.mean())


def test_shares_of_the_space_are_those_of_all_its_architectures(shares, finished):
    found = shares.set_index(["gene", "choice"])[SPACE]
    deep = sum(architecture.depth == 2 for architecture in finished.space) / finished.space.size
    assert found["depth", 2] == pytest.approx(deep, abs=0.06)


def test_genes_that_differ_most_come_first_and_are_told(shares):
    apart = (shares["front"] - shares[SPACE]).abs().groupby(shares["gene"], sort=False).sum()
    assert apart.is_monotonic_decreasing
    lines = telling(shares, 7)
    assert all("of the front" in line and "of the space" in line for line in lines)
    row = {"gene": "g", "choice": 4, SPACE: 0.25, "front": 0.75}
    rest = {"gene": "g", "choice": 8, SPACE: 0.75, "front": 0.25}
    assert telling(pd.DataFrame([row, rest])) == ["g 4 makes up 75 % of the front, 25 % of the space"]
    alike = {"gene": "h", "choice": 1, SPACE: 1.0, "front": 1.0}
    assert telling(pd.DataFrame([alike])) == []


def test_a_long_front_is_shown_in_thirds(finished):
    front = pd.concat([finished.evaluations().head(9)])
    shares = gene_shares(finished, front)
    assert list(shares.columns[2:]) == [SPACE, "front", "lowest energy_mj", "between", "highest energy_mj"]
    cheap = front.nsmallest(3, "energy_mj")
    found = shares.set_index(["gene", "choice"])["lowest energy_mj"]
    assert found["timesteps", 1] == pytest.approx((cheap["timesteps"] == 1).mean())


def test_the_figure_has_a_bar_for_each_choice(shares):
    figure = shares_figure(shares)
    assert {trace.name for trace in figure.data} >= {"depth 1", "depth 2", "embed_dim 16"}
    assert len(figure.data) == len(shares)
