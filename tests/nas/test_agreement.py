"""When a copy of a network is taken for the network: rounding is told from an error."""

import pytest
import torch

from nas.agreement import check_copy, compare_logits
from spaces import InputError


class Constant(torch.nn.Module):
    """A network whose logits are known, in single precision and, moved by so much, in double."""

    def __init__(self, logits, moved=0.0):
        super().__init__()
        self.logits, self.moved = logits, moved

    def forward(self, images):
        return self.logits if images.dtype == torch.float32 else self.logits.double() + self.moved


@pytest.fixture
def logits():
    return torch.randn(16, 3, generator=torch.Generator().manual_seed(2))


def moved(logits, images, by):
    changed = logits.clone()
    changed[:images] += by
    return changed


IMAGES = torch.zeros(16, 1, 2, 2)


def check(logits, theirs, own=0.0):
    return check_copy(Constant(logits, own), IMAGES, theirs, 1e-4, "the copy")


def test_a_copy_that_agrees_says_so(logits):
    found = check(logits, logits + 5e-5)
    assert (found.images, found.differing, found.answers, found.by_rounding) == (16, 0, 0, None)
    assert str(found) == "the logits of all 16 images agree to 0.0001"


def test_few_images_may_differ_and_are_counted(logits):
    theirs = moved(logits, 2, torch.tensor([10.0, 0.0, 0.0]))
    found = check(logits, theirs)
    assert (found.differing, round(found.largest, 5)) == (2, 10.0)
    assert found.answers == int((logits[:2].argmax(1) != 0).sum())
    assert str(found).startswith("2 of 16 images have a logit that differs by more than 0.0001, at most by 10, and")


def test_many_images_may_differ_only_if_rounding_moves_as_many(logits):
    by_rounding = torch.zeros(16, 3, dtype=torch.float64)
    by_rounding[:4] = 0.01
    found = check(logits, moved(logits, 8, 0.01), by_rounding)
    assert (found.differing, found.by_rounding) == (8, 4)
    assert str(found).endswith("; between single and double precision, 4 differ")
    with pytest.raises(InputError, match=r"the copy does not compute what the network computes.*9 of 16 images"):
        check(logits, moved(logits, 9, 0.01), by_rounding)


def test_a_copy_that_is_wrong_everywhere_is_not_taken_for_a_network_that_rounding_moves(logits):
    assert check(logits, logits + 0.03, 0.01).differing == 16
    with pytest.raises(InputError, match="nothing is written"):
        check(logits, logits + 0.5, 0.01)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_differs(logits, value):
    found, difference = compare_logits(logits, moved(logits, 1, value), 1e-4)
    assert (found.differing, found.largest) == (1, torch.inf)
    assert difference[0] == torch.inf
    with pytest.raises(InputError):
        check(logits, moved(logits, 16, value))
