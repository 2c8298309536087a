"""The pages of the documentation as tests read them, and a digits recipe that takes seconds to run them on."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import nas.config

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of code of a page, by its path from the root, in a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@contextmanager
def short_digits_in(folder: Path, *, evaluations: int = 6, train_images: int | None = None) -> Iterator[Path]:
    """Work in a folder in which the recipe ``digits`` takes seconds, inside the block."""
    recipe = (ROOT / "nas/recipes/digits.toml").read_text(encoding="utf-8")
    for key, value in {"epochs": 2, "warmup_epochs": 1, "evaluations": evaluations, "population": 4}.items():
        recipe, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", recipe, flags=re.MULTILINE)
        assert count == 1, f"the digits recipe sets {key}"
    recipe = recipe.replace('pool = "ray"', 'pool = "local"')
    if train_images is not None:
        recipe = recipe.replace("[data]\n", f"[data]\ntrain_images = {train_images}\n")
    (folder / "recipes").mkdir()
    (folder / "recipes" / "digits.toml").write_text(recipe, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas.config, "_RECIPES", folder / "recipes")
        patch.chdir(folder)
        yield folder
