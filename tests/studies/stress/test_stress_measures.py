"""What is measured of a network, what is done to it and what it learns from, beside the same worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stress_nets import completions, gpt2, small_config
from torch import Tensor, nn

from tombola.runs.rows import Row, rows_of
from tombola.studies.stress.cells import LEARN, CellKey
from tombola.studies.stress.config import label_of
from tombola.studies.stress.living import looking, scoring
from tombola.studies.stress.living.cell import CellSpec, Living
from tombola.studies.stress.living.correlates import correlates
from tombola.studies.stress.living.function import preserved
from tombola.studies.stress.living.learning import Phase
from tombola.studies.stress.living.remedies import reset_dormant, shrink_and_perturb
from tombola.studies.stress.living.removing import pruned
from tombola.studies.stress.living.scoring import end_rows
from tombola.studies.stress.living.state import State, all_kept
from tombola.studies.stress.subjects.curriculum import Curriculum, next_difficulty
from tombola.studies.stress.subjects.networks import open_subject
from tombola.training.completions import Completions
from tombola.training.task import Scored


@pytest.fixture(scope="module")
def task() -> Completions:
    return completions()


def fresh(network: Any) -> Any:
    """A network of the same form with other weights."""
    other = type(network)(network.config).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return other


class Bigram(nn.Module):
    """Says of the next token what a table says of the last one."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, input_ids: Tensor, output_hidden_states: bool) -> Any:
        class Output:
            logits = self.table[input_ids]
            hidden_states = (logits[..., :3],)

        return Output()


def pairs_of(task: Completions) -> tuple[Tensor, Tensor]:
    """The last token and the next one, of all next tokens that count."""
    held_out = task.held_out
    return held_out.ids[:, :-1][held_out.counted], held_out.ids[:, 1:][held_out.counted]


def test_the_cosine_is_that_of_logits_whose_mean_is_taken_off(task: Completions) -> None:
    tables = torch.randn(2, task.vocabulary, task.vocabulary, generator=torch.Generator().manual_seed(0))
    tables += torch.tensor([3.0, -2.0])[:, None, None]
    last, _ = pairs_of(task)
    ours, theirs = (table[last].double() for table in tables)
    ours, theirs = (logits - logits.mean(1, keepdim=True) for logits in (ours, theirs))
    by_hand = (ours * theirs).sum(1) / (ours.pow(2).sum(1) * theirs.pow(2).sum(1)).sqrt()
    found = preserved(Bigram(tables[0]), Bigram(tables[1]), [task])
    assert found["cosine"] == pytest.approx(float(by_hand.mean()), abs=1e-5)
    assert preserved(Bigram(tables[0]), Bigram(tables[0] - 5), [task])["cosine"] == pytest.approx(1)


def test_flips_are_a_fraction_of_what_the_reference_has_right(task: Completions) -> None:
    last, following = pairs_of(task)
    often = int(following.bincount().argmax())
    other = (often + 1) % task.vocabulary
    before, after = torch.zeros(2, task.vocabulary, task.vocabulary)
    before[:, often] = 1
    odd = torch.arange(task.vocabulary) % 2 == 1
    after[odd, other] = after[~odd, often] = 1
    right = following == often
    flipped = right & (last % 2 == 1)
    assert 0 < int(flipped.sum()) < int(right.sum()) < len(last)
    found = preserved(Bigram(before), Bigram(after), [task])
    assert found["flips"] == pytest.approx(int(flipped.sum()) / int(right.sum()))


def test_the_rank_is_of_states_whose_mean_is_taken_off(task: Completions) -> None:
    network = gpt2()
    last = network.transformer.ln_f  # what comes out of it are the last hidden states
    with torch.no_grad():
        last.weight[2:] = 0  # all but two directions say the same at every token
        last.bias.zero_()
        without = correlates(network, [task])["effective_rank"]
        last.bias += 20
        shifted = correlates(network, [task])["effective_rank"]
    assert 1 < without <= 2
    assert shifted == pytest.approx(without, rel=1e-4)


@pytest.mark.parametrize(
    ("difficulty", "accuracy", "then"), [(2, 1.0, 3), (2, 0.0, 1), (2, 0.7, 2), (1, 0.0, 1), (1, 1.0, 2)]
)
def test_what_is_learned_well_becomes_harder(difficulty: int, accuracy: float, then: int) -> None:
    assert next_difficulty("recall", difficulty, accuracy) == then


def test_a_change_has_the_standard_error_of_its_mean_over_items(task: Completions) -> None:
    start = torch.arange(16.0)
    each = start - torch.tensor([1.0, 3.0]).repeat(8)  # 8 items are better by 1, and 8 by 3
    (row,) = end_rows({}, {"names": task}, {"names": Scored(0.0, {"accuracy": 0.0}, 16, each)}, {"names": start})
    assert row["change"] == pytest.approx(2)
    assert row["change_se"] == pytest.approx((16 / 15) ** 0.5 / 16**0.5)


def test_few_items_weigh_as_much_as_they_have_tokens(task: Completions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "FEW", 5)
    network = gpt2()
    score = task.scores(network, "validation")
    assert score.each is not None
    (row,) = end_rows({}, {"names": task}, {"names": score}, {"names": score.each})
    few = task.first(5).scores(network, "validation")
    assert few.each is not None
    assert abs(float(few.each.mean()) - few.loss) > 1e-3  # items are not of one length
    assert row["few_nats"] == pytest.approx(few.loss, rel=1e-5)


def test_dormant_neurons_read_anew_and_are_read_no_more(task: Completions) -> None:
    network = gpt2()
    other, mlp = fresh(network), network.transformer.h[0].mlp
    with torch.no_grad():
        mlp.c_fc.weight[:, :32] = 0
        mlp.c_fc.bias[:32] = -100  # GELU of it is 0
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert correlates(network, [task])["dormant"] == 32 / 256
    reset_dormant(network, other, [task])
    new = other.transformer.h[0].mlp
    assert mlp.c_fc.weight[:, :32].equal(new.c_fc.weight[:, :32])
    assert mlp.c_fc.bias[:32].equal(new.c_fc.bias[:32])
    assert not mlp.c_proj.weight[:32].any()
    for name, parts in {"c_fc.weight": (slice(None), slice(32, None)), "c_fc.bias": slice(32, None)}.items():
        assert mlp.get_parameter(name)[parts].equal(before[f"transformer.h.0.mlp.{name}"][parts])
    assert mlp.c_proj.weight[32:].equal(before["transformer.h.0.mlp.c_proj.weight"][32:])
    changed = {name for name, value in network.state_dict().items() if not value.equal(before[name])}
    assert changed == {f"transformer.h.0.mlp.{name}" for name in ("c_fc.weight", "c_fc.bias", "c_proj.weight")}


def test_shrunk_weights_are_nine_tenths_and_a_tenth_of_fresh_ones(task: Completions) -> None:
    network = gpt2()
    other = fresh(network)
    by_hand = [
        0.9 * own.detach() + 0.1 * new.detach()
        for own, new in zip(network.parameters(), other.parameters(), strict=True)
    ]
    shrink_and_perturb(network, other, [task])
    torch.testing.assert_close([own.detach() for own in network.parameters()], by_hand)


@pytest.fixture
def living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Living:
    """A dense network before its first unit."""
    monkeypatch.setattr(looking, "QUICK_PROBE_STEPS", 2)
    config = small_config(tmp_path, entropy=False)
    model = config.model[0]
    subject = open_subject(model, True)
    spec = CellSpec(config, CellKey(label_of(model), "dense"), model, tmp_path / "units", subject.loaded.sha256)
    return Living(spec, subject, Curriculum(config, 0, subject.tokenizer))


def beginning(living: Living) -> State:
    return State(living.network(), all_kept(living.subject.layers, living.subject.heads))


def test_with_all_heads_off_nothing_is_read_of_any_head(living: Living) -> None:
    rows, _ = pruned(living, living.moments[0], beginning(living))
    network: Any = living.network()
    with torch.no_grad():
        for block in network.transformer.h:
            block.attn.c_proj.weight.zero_()
    for name, task in living.curriculum.tasks.items():
        (floor,) = rows_of(rows, kind="floor", of="all_off", task=name)
        assert floor["nats"] == pytest.approx(task.scores(network, "validation").loss, rel=1e-5)
    (found,) = rows_of(rows, kind="function", of="all_off")
    by_hand: Row = preserved(living.subject.reference, network, list(living.curriculum.tasks.values()))
    assert by_hand["kl"] > 1e-3
    assert {name: found[name] for name in by_hand} == pytest.approx(by_hand, rel=1e-4)


def test_two_visits_see_other_batches_and_the_control_those_of_the_second(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = next(one for one in living.moments if one.does == LEARN)
    met: list[list[list[int]]] = []
    loss = Completions.loss

    def recorded(self: Completions, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        met.append(batch[0].tolist())
        return loss(self, model, batch)

    monkeypatch.setattr(Completions, "loss", recorded)
    name, seen = living.name_at(moment), []
    first, second = (Phase(living, moment, beginning(living), name, visit) for visit in (1, 2))
    for learn in (first.run, first.alone, second.run):
        learn(living.network())
        seen.append(met.copy())
        met.clear()
    assert len(seen[0]) == first.steps == 2
    assert seen[0] != seen[1] == seen[2]
    of_first, of_second = (sorted(item for batch in batches for item in batch) for batches in seen[:2])
    assert of_first == of_second  # of the same items
