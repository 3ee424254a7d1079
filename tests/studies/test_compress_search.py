"""What a search asks for, which sparsities it tries, and what its rows come to: pure functions, without a network."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tombola.errors import ConfigError
from tombola.runs.configs import validate
from tombola.runs.rows import Row
from tombola.studies.compress.config import CompressConfig
from tombola.studies.compress.outcome import Search, summarise
from tombola.studies.compress.paths import LADDERS, Tried, most_candidates, next_sparsity, start_of
from tombola.studies.compress.report import candidates_table, front_table, lead, pareto_chart, remarks
from tombola.studies.compress.target import Target


def config(**changes: Any) -> CompressConfig:
    content = {"model": "lenet5", "target": "bytes=0.2", "fine_tuning": None, **changes}
    return validate(content, CompressConfig, "test")


class TestTarget:
    @pytest.mark.parametrize(
        ("text", "measure", "value", "is_fraction"),
        [
            ("params=0.2", "params", 0.2, True),
            ("flops=30%", "flops", 0.3, True),
            ("bytes=50k", "bytes", 50_000, False),
            ("bytes=50kB", "bytes", 50_000, False),
            ("memory = 1.5M", "memory", 1_500_000, False),
            ("params=20000", "params", 20_000, False),
            ("latency=0.5", "latency", 0.5, True),
            ("latency=2ms", "latency", 0.002, False),
            ("latency=500us", "latency", 0.0005, False),
            ("latency=1", "latency", 1.0, True),
            ("flops=1e6", "flops", 1_000_000, False),
        ],
    )
    def test_reads(self, text: str, measure: str, value: float, is_fraction: bool) -> None:
        target = Target.parse(text)
        assert (target.measure, target.value, target.is_fraction) == (measure, pytest.approx(value), is_fraction)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("0.2", "params=0.2"),
            ("parameters=0.2", "did you mean 'params'"),
            ("latency=2", "latency=2ms"),
            ("latency=2k", "latency=2ms"),
            ("bytes=50ms", "k, M, G"),
            ("bytes=0", "above 0"),
            ("bytes=-1", "above 0"),
            ("bytes=nan", "above 0"),
            ("bytes=inf", "above 0"),
            ("params=150%", "less than 100 %"),
            ("bytes=", "above 0"),
            ("params=1.5", "a fraction is at most 1"),
            ("bytes=\u0663", "above 0"),
            ("", "params=0.2"),
        ],
    )
    def test_refuses(self, text: str, said: str) -> None:
        with pytest.raises(ConfigError, match="target") as error:
            Target.parse(text)
        assert said in str(error.value)
        assert "\n" not in str(error.value)

    @given(st.text(max_size=12))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        with contextlib.suppress(ConfigError):
            assert Target.parse(f"bytes={text}").value > 0


class TestPaths:
    @given(
        st.lists(st.floats(0.01, 0.99), min_size=1, max_size=8, unique=True),
        st.floats(0, 1),
        st.integers(0, 6),
    )
    def test_ends_between_what_is_good_and_what_is_not(
        self, rungs: list[float], limit: float, refinements: int
    ) -> None:
        ladder = sorted({round(rung, 2) for rung in rungs})
        tried: list[Tried] = []
        while (sparsity := next_sparsity(tried, ladder, refinements)) is not None:
            assert 0 < sparsity < 1
            assert sparsity not in [one.sparsity for one in tried]
            start = start_of(tried, sparsity)
            assert start is None or (start.within and start.sparsity < sparsity)
            tried.append(Tried(len(tried), sparsity, sparsity <= limit))
            assert len(tried) <= len(ladder) + refinements
        good = [one.sparsity for one in tried if one.within]
        worse = [one.sparsity for one in tried if not one.within]
        assert max(good, default=0.0) < min(worse, default=1.0)
        if not worse:
            assert good == ladder  # up to its end
        elif refinements:
            first = next(rung for rung in ladder if rung > limit)
            closer = min(worse) - max(good, default=0.0)
            below = max((rung for rung in ladder if rung <= limit), default=0.0)
            assert closer <= first - below

    def test_a_candidate_that_is_better_again_counts_for_nothing_beyond_one_that_was_not(self) -> None:
        tried = [Tried(0, 0.5, True), Tried(1, 0.9, False), Tried(2, 0.776, True)]
        start = start_of(tried, 0.85)
        assert start is not None
        assert start.level == 2
        assert next_sparsity(tried, (0.5, 0.9, 0.95), 1) is None

    def test_what_cannot_be_made_ends_its_path(self) -> None:
        assert next_sparsity([Tried(0, 0.5, True), Tried(1, 0.9, False, ends=True)], (0.5, 0.9), 2) is None

    def test_the_plan_counts_them_all(self) -> None:
        both = config(refinements=3)
        assert most_candidates(both) == 1 + 2 * (len(LADDERS["weight"]) + 3) + 2 * (len(LADDERS["unit"]) + 3)
        assert most_candidates(config(structures=["unit"], distributions=["global"])) == len(LADDERS["unit"]) + 2


PARENT: Row = {
    "kind": "parent",
    **dict.fromkeys(("structure", "distribution", "level")),
    "params": 1000,
    "bytes": 4000,
    "flops": 2000,
    "validation_accuracy": 0.95,
    "validation_examples": 1000,
    "validation_majority_accuracy": 0.12,
}


def candidate(level: int, accuracy: float, size: int, precision: str = "float32", **changes: Any) -> Row:
    return {
        "kind": "candidate",
        "structure": "weight",
        "distribution": "global",
        "level": level,
        "sparsity": 0.5 + 0.01 * level,
        "precision": precision,
        "refused": None,
        "within": 0.95 - accuracy <= 0.01 + 1e-9,
        "validation_accuracy": accuracy,
        "validation_examples": 1000,
        "params": size // 4,
        "bytes": size,
        "flops": size // 2,
        "engine": "sparse kernels",
        "file": f"{precision}.ticket",
        "nearly_empty": [],
        "sha256": "0" * 64,
        **changes,
    }


def cost(level: int, seconds: float | None, parents: dict[str, float], **changes: Any) -> Row:
    times = {name: [value, value, value] for name, value in parents.items()}
    return {
        "kind": "cost",
        "structure": "weight",
        "distribution": "global",
        "level": level,
        "precision": "float32",
        "batch": 1,
        "reason": None,
        "seconds": None if seconds is None else {"model": [seconds] * 3, "parent": times},
        "clock": "the machine was busy" if seconds is None else None,
        "memory": None,
        "memory_parent": None,
        **changes,
    }


def came_to(*rows: Row, **changes: Any) -> Search:
    return summarise(Path("runs/compress-net-0123abcd"), config(**changes), [PARENT, *rows])


TEST: Row = {"kind": "test", "parent_accuracy": 0.96, "accuracy": 0.95, "examples": 1000, "lost": 14, "won": 4}


class TestOutcome:
    def test_the_smallest_within_the_drop_is_chosen(self) -> None:
        search = came_to(candidate(0, 0.95, 2000), candidate(1, 0.94, 700), candidate(2, 0.93, 300), TEST)
        assert search.chosen is not None
        assert search.chosen.level == 1
        assert search.reached
        assert [one.level for one in search.front] == [0, 1, 2]
        assert [one.level for one in search.kept] == [0, 1]
        assert "17.5% of the model's 4,000 bytes (asked: 20% of the model's; reached)" in lead(search)
        assert "loses 1.00 points of accuracy (95 % CI 0.13 to 1.87), 96.0% before and 95.0% after" in lead(search)

    def test_layers_of_the_chosen_one_that_are_nearly_empty_are_named(self) -> None:
        search = came_to(candidate(0, 0.95, 300, nearly_empty=["fc1.weight"]), candidate(1, 0.2, 200))
        assert remarks(search) == ["The chosen one leaves layers nearly empty: fc1."]

    def test_of_equals_the_smaller_file_and_then_the_more_accurate(self) -> None:
        search = came_to(candidate(0, 0.945, 700), candidate(1, 0.947, 700), candidate(2, 0.944, 700))
        assert search.chosen is not None
        assert search.chosen.level == 1
        assert [one.level for one in search.front] == [1]
        rows = [candidate(0, 0.95, 700), candidate(0, 0.945, 300, "int8", params=700 // 4)]
        chosen = came_to(*rows, target="params=0.5").chosen
        assert chosen is not None
        assert chosen.precision == "int8"

    def test_a_missed_target_is_said(self) -> None:
        search = came_to(candidate(0, 0.95, 2000))
        assert search.reached is False
        assert "target missed: 20% of the model's, 800 bytes, was asked" in lead(search)

    def test_nothing_small_enough_or_good_enough(self) -> None:
        for rows in ([candidate(0, 0.5, 300)], [candidate(0, 0.95, 4000)], [candidate(0, 0.95, 5000)]):
            search = came_to(*rows)
            assert search.chosen is None
            assert search.reached is False
            assert "--max-drop" in lead(search)

    def test_what_is_refused_is_named_once(self) -> None:
        rows = [candidate(level, 0.0, 0, refused="no unit can go", within=False) for level in (0, 1)]
        search = came_to(*rows, candidate(2, 0.95, 100))
        assert remarks(search) == [
            "Refused: weight, global, 50%, float32; weight, global, 51%, float32: no unit can go."
        ]
        assert search.chosen is not None

    def test_latency_is_held_against_the_models_fastest_engine(self) -> None:
        engines = {"torch eager": 4e-4, "ONNX Runtime": 1e-4}
        rows = [candidate(0, 0.95, 2000), candidate(1, 0.95, 1000), cost(0, 8e-5, engines), cost(1, 4e-5, engines)]
        search = came_to(*rows, target="latency=0.5")
        assert search.chosen is not None
        assert (search.chosen.level, search.chosen.parent_engine) == (1, "ONNX Runtime")
        assert search.chosen.fraction("latency") == pytest.approx(0.4)
        assert search.reached
        assert (
            "40 µs on sparse kernels, the model 100 µs on ONNX Runtime in float32: 2.5 times as fast"
            in remarks(search)[0]
        )
        slow = came_to(candidate(0, 0.95, 2000), cost(0, 2e-4, engines), target="latency=0.5")
        assert slow.chosen is None
        assert "Latency" in candidates_table(search).columns

    def test_a_busy_machine_decides_nothing(self) -> None:
        search = came_to(candidate(0, 0.95, 2000), cost(0, None, {}), target="latency=0.5")
        assert search.chosen is None
        assert search.reached is None
        assert lead(search).startswith("Undecided")
        assert remarks(search) == ["Not measured: weight, global, 50%, float32: the machine was busy."]

    def test_what_could_not_be_measured_may_have_been_small_enough(self) -> None:
        engines = {"torch eager": 1e-4}
        rows = [candidate(0, 0.95, 2000), candidate(1, 0.95, 1000), cost(0, 9e-5, engines), cost(1, None, {})]
        search = came_to(*rows, target="latency=0.5")
        assert search.chosen is not None
        assert search.reached is None
        assert "target missed" not in lead(search)
        slow = came_to(rows[0], rows[1], cost(0, 2e-4, engines), cost(1, None, {}), target="latency=0.5")
        assert slow.reached is None
        assert lead(slow).startswith("Undecided")

    def test_a_model_that_learned_nothing_has_nothing_to_lose(self) -> None:
        rows = [{**PARENT, "validation_accuracy": 0.12}, candidate(0, 0.12, 100)]
        assert "learned nothing" in lead(summarise(Path("x"), config(), rows))

    @pytest.mark.parametrize(("lost", "won"), [(0, 0), (14, 4), (4, 14), (200, 0)])
    def test_the_interval_is_bonett_and_prices(self, lost: int, won: int) -> None:
        """Against their formula written out: estimates with one more of each, over n + 2."""
        tested = came_to(candidate(0, 0.95, 100), {**TEST, "lost": lost, "won": won}).tested
        assert tested is not None
        p, q, n = (lost + 1) / 1002, (won + 1) / 1002, 1002
        half = 1.959964 * ((p + q - (p - q) ** 2) / n) ** 0.5
        assert (tested.low, tested.high) == (pytest.approx(100 * (p - q - half)), pytest.approx(100 * (p - q + half)))
        assert tested.low < tested.drop < tested.high

    def test_it_covers_what_is_true_where_few_answers_change(self) -> None:
        """Of a model that truly loses 0.3 points, about 5 % of intervals over 1,000 examples lie wholly below; of
        those that take a change in no example for certain, 20 % do."""
        below = 0
        for lost in numpy.random.default_rng(0).binomial(1000, 0.003, 2000):
            tested = came_to(candidate(0, 0.95, 100), {**TEST, "lost": int(lost), "won": 0}).tested
            assert tested is not None
            below += tested.high < 0.3
        assert below / 2000 <= 0.06

    @given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 5000)), min_size=1, max_size=12))
    def test_nothing_beats_the_front_and_everything_else_is_beaten(self, found: list[tuple[int, int]]) -> None:
        rows = [candidate(level, 0.9 + lost / 1000, size) for level, (lost, size) in enumerate(found)]
        search = came_to(*rows)
        front = [(one.costs.bytes or 0, one.drop or 0) for one in search.front]
        assert front == sorted(front, reverse=True)
        for one in search.candidates:
            size, drop = one.costs.bytes or 0, one.drop or 0
            beaten = any((s <= size and d <= drop) and (s < size or d < drop) for s, d in front)
            assert beaten != ((size, drop) in front)
        assert len(front_table(search).rows) == len(front)

    @given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9000)), min_size=1, max_size=8))
    def test_the_figure_leaves_out_only_what_it_says(self, found: list[tuple[float, int]]) -> None:
        assume(any(size for _, size in found))
        rows = [candidate(level, accuracy, max(size, 1)) for level, (accuracy, size) in enumerate(found)]
        drawn = sum(len(line.x) for line in pareto_chart(came_to(*rows)).series)
        assert drawn == sum(100 * (0.95 - accuracy) <= 5 for accuracy, _ in found)
