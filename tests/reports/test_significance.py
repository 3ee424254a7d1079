"""Families of differences: adjusted p values against direct computation, and the rates that they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tombola.reports.intervals import estimate
from tombola.reports.significance import holm, judged, p_value

VALUES = [[-1.2, -0.8, -1.1, -0.7], [0.1, -0.2, 0.3, -0.1], [0.9, 1.4, 0.2, 0.8]]


@pytest.mark.parametrize("values", VALUES)
def test_p_is_that_of_the_t_test(values: list[float]) -> None:
    assert p_value(estimate(values)) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    less = stats.ttest_1samp(values, 0, alternative="less").pvalue
    assert p_value(estimate(values), "below") == pytest.approx(less)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_nothing_and_bonferroni(p: list[float]) -> None:
    """And rejects what the step-down procedure of the paper rejects."""
    adjusted = holm(p)
    assert all(a >= one and a <= min(1, len(p) * one) + 1e-12 for a, one in zip(adjusted, p, strict=True))
    rejected = set()
    for rank, position in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if not (len(p) - rank) * p[position] < 0.05:
            break
        rejected.add(position)
    assert {i for i, a in enumerate(adjusted) if a < 0.05} == rejected


def test_a_family_makes_a_false_claim_in_at_most_one_of_twenty_studies() -> None:
    """Five exits without an effect, correlated, 4 replicates; uncorrected it is one in six or more."""
    rng = np.random.default_rng(0)
    studies, false, plain = 800, 0, 0
    for _ in range(studies):
        shared = rng.normal(size=(4, 1))
        differences = {i: estimate(column) for i, column in enumerate((rng.normal(size=(4, 5)) + 0.5 * shared).T)}
        found = judged(differences)
        false += any(one.side != "open" for one in found.values())
        plain += any((p_value(one) or 1) < 0.05 for one in differences.values())
    allowed = 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5
    assert false / studies < allowed < plain / studies


def test_the_detectable_difference_is_found_in_four_of_five_studies() -> None:
    rng = np.random.default_rng(1)
    spread, studies = 2.0, 800
    (one,) = judged({0: estimate([-spread, 0, spread, 0])}).values()
    assert one.difference.sd is not None
    assert one.detectable is not None
    drawn = rng.normal(-one.detectable, one.difference.sd, (studies, 4))
    found = sum(judged({0: estimate(values)})[0].side == "below" for values in drawn)
    assert found / studies == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / studies) ** 0.5)


def test_more_than_half_an_interval() -> None:
    """What half of an interval promises is found in about every second study only."""
    one = judged({0: estimate(VALUES[1])})[0]
    assert one.difference.half_width is not None
    assert one.detectable is not None
    assert one.detectable > 1.2 * one.difference.half_width


def test_one_replicate_shows_nothing_and_does_not_count() -> None:
    found = judged({"one": estimate([5.0]), "many": estimate(VALUES[0])})
    assert (found["one"].side, found["one"].p, found["one"].detectable) == ("open", None, None)
    assert found["many"].family == 1
    assert found["many"].side == "below"


def test_falls_alone() -> None:
    assert judged({0: estimate(VALUES[2])}, "below")[0].side == "open"
    assert judged({0: estimate(VALUES[0])}, "below")[0].side == "below"
