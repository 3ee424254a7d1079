"""Entropy journals: read line by line, damage named by its line, summarised in words whose numbers are those of it."""

from __future__ import annotations

import re
import tempfile
import tracemalloc
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import TASKS, entries, entry, write_journal

from tombola.errors import RunFolderError, StorageError
from tombola.reports.chart import Span
from tombola.studies.stress.shown.eeg import eeg, entropy_map, thinned
from tombola.studies.stress.shown.journal import JOURNAL, LONGEST_LINE, Course, OneLife, read_journal
from tombola.studies.stress.shown.journal_summary import EMPTY, summary
from tombola.studies.stress.shown.journal_survey import gathered


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return write_journal(tmp_path / "diverse_entropy_0.3" / JOURNAL, entries())


class TestReading:
    def test_every_entry_comes_in_order(self, journal: Path) -> None:
        read = list(read_journal(journal))
        assert len(read) == 3 * 7 * 4 * 8
        assert read[0].head == (0, 0)
        assert read[0].task is None
        assert read[-1].life.seed == 2
        assert not read[-1].kept

    def test_it_is_never_whole_in_memory(self, tmp_path: Path) -> None:
        large = write_journal(tmp_path / "large.jsonl", repeat(entry(), 20_000))
        assert large.stat().st_size > 5_000_000
        tracemalloc.start()
        assert sum(1 for _ in read_journal(large)) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 500_000

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"entropy": 1.2}, "not within 0 and 1"),
            ({"entropy": -0.1}, "not within 0 and 1"),
            ({"entropy": "0.5"}, "entropy is no number"),
            ({"entropy": True}, "entropy is no number"),
            ({"layer_idx": -1}, "layer_idx is no whole number"),
            ({"head_idx": 1.5}, "head_idx is no whole number"),
            ({"gate_value": 0.5}, "neither 0 nor 1"),
            ({"meta_model": 3}, "meta_model is no text"),
        ],
    )
    def test_a_damaged_line_is_named(self, tmp_path: Path, change: dict[str, object], said: str) -> None:
        path = write_journal(tmp_path / "j.jsonl", [entry(), entry(), entry(**change), entry()])
        with pytest.raises(RunFolderError, match=rf"line 3 is damaged \(.*{said}"):
            summary(path)

    @pytest.mark.parametrize("line", ["", "{", "[]", '{"entropy": NaN}', "x" * (LONGEST_LINE + 2), '{"cycle_idx": 1}'])
    def test_what_is_no_entry_is_damage(self, journal: Path, line: str) -> None:
        lines = journal.read_text().splitlines()
        lines[6] = line
        journal.write_text("\n".join(lines) + "\n")
        with pytest.raises(RunFolderError, match=r"line 7 is damaged"):
            list(read_journal(journal))

    def test_infinity_is_no_entropy(self, tmp_path: Path) -> None:
        path = write_journal(tmp_path / "j.jsonl", [entry(entropy=float("nan"))])
        with pytest.raises(RunFolderError, match="line 1"):
            list(read_journal(path))

    def test_a_torn_last_line_is_left_out(self, journal: Path) -> None:
        whole = len(list(read_journal(journal)))
        journal.write_bytes(journal.read_bytes()[:-20])
        assert len(list(read_journal(journal))) == whole - 1

    def test_a_missing_journal_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError):
            list(read_journal(tmp_path / "none.jsonl"))


class TestSummary:
    def test_it_says_what_was_put_in(self, journal: Path) -> None:
        said = summary(journal)
        assert said.startswith("# Attention entropy: diverse_entropy_0.3\n")
        assert "8 heads in 2 layers over 27 training steps and 2 cycles, 3 seeds" in said
        assert "Became more diffuse most: layer 0, head 0 (from 0.32 to 0.52 of the maximum)" in said
        assert "Became more focused most: layer 0, head 1 (from 0.33 to 0.24 of the maximum)" in said
        assert "Most focused in the last cycle: layer 0, head 1 (0.24 of the maximum)" in said
        assert "Most diffuse in the last cycle: layer 0, head 0 (0.52 of the maximum)" in said
        assert "heads came to look more widely" in said
        assert "most from verse to code (+0.05" in said
        assert "Pruned heads: in every network layer 1: head 3." in said

    def test_its_numbers_are_those_of_the_entries(self, journal: Path) -> None:
        read = [one for one in read_journal(journal) if one.kept and one.head != (1, 3)]
        ends = [
            np.mean([one.entropy for one in read if one.cycle == cycle and one.life.seed == seed])
            for cycle in (0, 1)
            for seed in range(3)
        ]
        (found,) = gathered(journal).surveys
        first, last, drift = found.mean_of(0), found.mean_of(1), found.drift
        assert first is not None
        assert last is not None
        assert drift is not None
        assert first.mean == pytest.approx(np.mean(ends[:3]))
        assert last.mean == pytest.approx(np.mean(ends[3:]))
        assert drift.mean == pytest.approx(np.mean(ends[3:]) - np.mean(ends[:3]))
        assert drift.n == 3

    def test_no_bullet_has_a_number_without_its_unit(self, journal: Path) -> None:
        units = r"(?: \(95|[;,.)]? | of the maximum|\)|:|$)"
        for line in re.findall(r"^- .*$", summary(journal), flags=re.M):
            for value in re.findall(r"\d\.\d+", line):
                assert re.search(re.escape(value) + units, line)
            if re.search(r"\d\.\d", line):
                assert "of the maximum" in line

    def test_one_seed_claims_nothing(self, tmp_path: Path) -> None:
        said = summary(write_journal(tmp_path / "a" / "b" / "j.jsonl", entries(seeds=1)))
        assert "one seed: whether that is chance is not known" in said
        assert "CI" not in said.split("Every head")[0].replace("Change (95 % CI)", "")

    def test_a_change_that_its_numbers_do_not_show_is_not_named(self, tmp_path: Path) -> None:
        still = [one | {"entropy": 0.99 + 0.001 * one["cycle_idx"]} for one in entries()]
        said = summary(write_journal(tmp_path / "a" / "b" / "j.jsonl", still))
        assert "Became more" not in said

    def test_repeated_cycles_do_not_crash(self, tmp_path: Path) -> None:
        """A journal that was continued says the same cycles again."""
        twice = [*entries(seeds=2), *entries(seeds=2)]
        once = summary(write_journal(tmp_path / "a" / "b" / "one.jsonl", entries(seeds=2)))
        again = summary(write_journal(tmp_path / "a" / "b" / "two.jsonl", twice))
        for said in ("- Drift", "- Pruned heads"):
            assert re.findall(rf"^{said}.*$", once, re.M) == re.findall(rf"^{said}.*$", again, re.M) != []

    def test_draws_of_a_seed_are_averaged(self, tmp_path: Path) -> None:
        drawn = [one | {"meta_draw": draw} for draw in range(3) for one in entries(seeds=2)]
        (found,) = gathered(write_journal(tmp_path / "j.jsonl", drawn)).surveys
        assert len(found.lives) == 6
        assert all(one.change.n == 2 for one in found.summaries)

    def test_models_and_remedies_are_kept_apart(self, tmp_path: Path) -> None:
        both = [one | {"meta_model": name} for name in ("tiny", "other") for one in entries(seeds=2)]
        said = summary(write_journal(tmp_path / "a" / "b" / "j.jsonl", both))
        assert "## tiny" in said
        assert "## other" in said

    def test_heads_of_random_draws_are_not_said_to_be_gone_everywhere(self, tmp_path: Path) -> None:
        rows = [
            entry(head_idx=head, gate_value=float(head != seed), meta_seed=seed) for seed in (0, 1) for head in (0, 1)
        ]
        said = summary(write_journal(tmp_path / "a" / "b" / "j.jsonl", rows))
        assert "in some of 2 networks layer 0: heads 0 and 1" in said

    def test_an_empty_journal_says_so(self, tmp_path: Path) -> None:
        assert EMPTY in summary(write_journal(tmp_path / "a" / "b" / "j.jsonl", []))

    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1), st.integers(0, 5)), max_size=30))
    def test_any_order_of_entries_can_be_summarised(self, drawn: list[tuple[int, int, int, int]]) -> None:
        rows = [
            entry(cycle_idx=c, head_idx=h, gate_value=float(g), meta_step=s, meta_phase=s % 3, meta_task=TASKS[s % 3])
            for c, h, g, s in drawn
        ]
        with tempfile.TemporaryDirectory() as folder:
            assert summary(write_journal(Path(folder) / "a" / "b" / "j.jsonl", rows))


class TestFigures:
    def test_a_trace_is_standardised_and_ends_where_the_head_did(self, journal: Path) -> None:
        drawn = eeg(gathered(journal).courses, [Span(0, 4, "")], "seed 0")
        assert [trace.name for trace in drawn.traces] == [f"{layer}.{head}" for layer in (0, 1) for head in range(4)]
        assert np.std(drawn.traces[0].y) == pytest.approx(1, abs=0.01)
        assert abs(np.mean(drawn.traces[0].y)) < 0.01
        gone = drawn.traces[-1]
        assert (gone.is_ended, gone.x[-1]) == (True, 4)
        assert not drawn.traces[0].is_ended

    def test_it_is_of_the_life_that_comes_first(self, tmp_path: Path) -> None:
        found = gathered(
            write_journal(tmp_path / "j.jsonl", [entry(meta_seed=seed, meta_step=seed) for seed in (4, 1)])
        )
        assert found.first == OneLife("tiny", "none", 4, 0)
        assert [*found.courses[0, 0].steps] == [4]

    def test_a_head_that_is_gone_from_the_start_is_a_cross(self, tmp_path: Path) -> None:
        path = write_journal(tmp_path / "j.jsonl", [entry(gate_value=0.0, entropy=None)])
        (trace,) = eeg(gathered(path).courses, [], "").traces
        assert (trace.x, trace.y, trace.is_ended) == ([0.0], [0.0], True)

    @given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=500), st.integers(1, 100))
    def test_thinning_keeps_the_mean_course(self, values: list[float], points: int) -> None:
        course = Course()
        course.steps.extend(range(len(values)))
        course.entropies.extend(values)
        steps, found = thinned(course, points)
        assert len(steps) == len(found) <= points
        assert min(values) - 1e-9 <= found.min()
        assert found.max() <= max(values) + 1e-9

    def test_the_map_hatches_what_was_removed(self, journal: Path) -> None:
        grid = entropy_map(gathered(journal).surveys[0], "mean entropy")
        assert [len(row) for row in grid.cells] == [4, 4]
        assert grid.cells[1][3].value is None
        assert grid.cells[0][0].text == "0.52"
