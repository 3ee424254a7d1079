"""Seeds are the same for ever, and different for everything that differs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tombola.runs.seeds import derive_seed

PARTS = st.lists(
    st.integers() | st.text(st.characters(exclude_characters="\x1f", exclude_categories=["Cs"])), max_size=4
)


def test_known_values_stay() -> None:
    assert derive_seed(0, "replicate", 3, "order", 7) == 2712519728503603709
    assert derive_seed(0) == 3696793467068528757


@given(PARTS)
def test_a_seed_is_deterministic_and_fits_63_bits(parts: list[int | str]) -> None:
    assert derive_seed(*parts) == derive_seed(*parts)
    assert 0 <= derive_seed(*parts) < 2**63


@given(PARTS, PARTS)
def test_different_paths_give_different_seeds(one: list[int | str], other: list[int | str]) -> None:
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)


def test_a_number_and_its_text_differ() -> None:
    assert derive_seed(0, 1) != derive_seed(0, "1")


def test_neighbouring_replicates_do_not_collide() -> None:
    seeds = {derive_seed(seed, "replicate", index) for seed in range(30) for index in range(300)}
    assert len(seeds) == 9_000
