"""The bandit: a pure function of its rewards, that is pulled most where they are best."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.studies.stress.cells import CellKey
from tombola.studies.stress.config import StressConfig
from tombola.studies.stress.search import Arm, arms_of, is_spent, next_arm, pulled_of, search

CONFIG = StressConfig(model=("tiny",), strategies=("magnitude", "random"), levels=(0.1, 0.5), search=40)
BEST: Arm = ("magnitude", 0.5)


def searched(reward: Any, config: StressConfig = CONFIG) -> list[dict[str, Any]]:
    """The rows of a search whose cells give `reward(key)`."""
    rows: list[dict[str, Any]] = []

    def live(key: CellKey) -> None:
        if not any(row["kind"] == "probe" and CellKey(*(row[n] for n in key.columns)) == key for row in rows):
            rows.append({"kind": "probe", "of": "network", **key.columns, "unit": 9, "nats": -reward(key)})

    search(config, rows, live, rows.extend)
    return rows


def test_a_bandit_finds_the_best_arm_and_chance_does_not_care() -> None:
    rows = searched(lambda key: float((key.strategy, key.level) == BEST) + 0.01 * key.seed)
    pulls = {who: Counter(arm for arm, _ in pulled_of(rows, who)) for who in ("bandit", "random")}
    assert sum(pulls["bandit"].values()) == sum(pulls["random"].values()) == 40
    assert pulls["bandit"].most_common(1)[0][0] == BEST
    assert pulls["bandit"][BEST] > pulls["random"][BEST]
    assert set(pulls["bandit"]) == set(arms_of(CONFIG))  # each once, whatever came of it
    assert is_spent(CONFIG, rows)
    assert not is_spent(CONFIG, rows[:-1])


def test_both_controllers_share_the_networks_of_an_arm() -> None:
    rows = searched(lambda key: key.level)
    lived = Counter(tuple(row[n] for n in ("strategy", "level", "seed")) for row in rows if row["kind"] == "probe")
    assert max(lived.values()) == 1
    assert len(lived) < 80


@given(st.lists(st.floats(-5, 0), min_size=4, max_size=12), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_a_search_that_is_cut_anywhere_goes_on_to_the_same_end(rewards: list[float], seed: int) -> None:
    config = CONFIG.model_copy(update={"search": len(rewards), "seed": seed})
    arms = arms_of(config)

    def reward(key: CellKey) -> float:
        return rewards[(arms.index((key.strategy, key.level)) + key.seed) % len(rewards)]

    whole = pulled_of(searched(reward, config), "bandit")
    for cut in range(len(whole)):
        assert next_arm(config, "bandit", whole[:cut]) == whole[cut][0]


def test_a_search_of_equal_rewards_goes_on() -> None:
    assert len(pulled_of(searched(lambda key: -3.0), "bandit")) == 40


def test_own_tasks_do_not_become_harder() -> None:
    with pytest.raises(ValueError, match="no levels of difficulty"):
        StressConfig(adaptive=True, tasks=Path("own.jsonl"))


@pytest.mark.parametrize("other", [{"replicates": 2}, {"model": ("tiny", "gpt2")}])
def test_what_goes_with_no_search(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a search"):
        StressConfig(**{**CONFIG.model_dump(), **other})
