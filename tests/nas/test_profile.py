"""What a space costs before anything is trained."""

import pytest

from evaluators import count_parameters, dense_operations
from nas.profile import profile_space
from spaces import load_space, space_names


def test_rows_are_the_smallest_median_and_largest_with_their_costs(space):
    frame = profile_space(space, samples=11)
    assert frame.columns.tolist() == ["architecture", "parameters", "macs", "energy_mj"]
    assert frame["architecture"].tolist() == ["smallest", "median", "largest"]
    for row, architecture in ((0, space.smallest()), (2, space.largest())):
        counts = dense_operations(space.skeleton, architecture)
        assert frame["parameters"][row] == count_parameters(space.skeleton, architecture)
        assert frame["macs"][row] == counts.macs_per_image
        spiking = counts.macs_per_image - counts.analog_macs_per_image
        by_hand = (4.6 * counts.analog_macs_per_image + 0.9 * 0.2 * spiking) * 1e-9
        assert frame["energy_mj"][row] == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in space_names() if name != "auto-spikformer"])
def test_costs_rise_from_smallest_over_median_to_largest_and_stay_the_same(name):
    space = load_space(name)
    frame = profile_space(space, samples=5)
    for column in ("parameters", "macs", "energy_mj"):
        assert frame[column].is_monotonic_increasing
        assert frame[column][0] < frame[column][2]
    assert profile_space(space, samples=5).equals(frame)


def test_the_full_space_reaches_the_cost_of_the_public_network():
    """Its largest member is a 4-384 with 6 timesteps."""
    frame = profile_space(load_space("auto-spikformer"), samples=1).set_index("architecture")
    assert frame.loc["largest", "parameters"] == 9_330_874 - 4 * 2 * 2 * 384
    once = 1_327_104 + 3_840
    assert frame.loc["largest", "macs"] == pytest.approx(once + 6 * (467.14e6 + 453.0e6 + 12.58e6), rel=1e-4)
