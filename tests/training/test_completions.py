"""Completions of prompts: what counts is counted, padding changes nothing, and one task may give way to another."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_steps import kill_at, recipe
from torch import nn
from torch.nn import functional

from tombola.data.text.items import Item, TextTask
from tombola.errors import DataError, TrainingError
from tombola.models.tensors import content_sha256
from tombola.pruning import prune
from tombola.training import fit
from tombola.training.completions import Completions, Mixed
from tombola.training.sentences import Sentences

WORDS = 128


class Characters:
    """A tokenizer of ASCII characters; with a begin token (0) or without one."""

    def __init__(self, bos_token_id: int | None = 0) -> None:
        self.bos_token_id = bos_token_id

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        return {"input_ids": [list(text.encode()) for text in texts]}


def gpt2() -> nn.Module:
    pytest.importorskip("transformers")
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"vocab_size": WORDS, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model: nn.Module = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    return model


def spelled(count: int, first: int = 0) -> tuple[Item, ...]:
    """A letter, and then the letter twice."""
    said = [chr(97 + (first + at) % 26) for at in range(count)]
    return tuple(Item(f"{at + first}{letter}:", letter * (1 + at % 3)) for at, letter in enumerate(said))


@pytest.fixture(scope="module")
def task() -> Completions:
    return Completions.of(TextTask("spelled", "", spelled(40), spelled(20, 40)), Characters())


def hand_made(*items: tuple[str, str], **more: Any) -> Completions:
    given = tuple(Item(*item) for item in items)
    return Completions.of(TextTask("hand", "", given, (Item("held", "out"),)), Characters(**more))


def test_only_completions_count_and_the_first_of_their_tokens_does() -> None:
    task = hand_made(("ab", "cd"), ("", "efg"))
    ids, counted = task.train.ids, task.train.counted
    assert ids[0, :5].tolist() == [0, *b"abcd"]
    assert ids[1, :4].tolist() == [0, *b"efg"]
    assert counted[:, :4].tolist() == [[False, False, True, True], [True, True, True, False]]
    assert task.tokens_per_epoch == 5 + 4


def test_without_a_begin_token_the_first_of_an_item_without_a_prompt_is_read_only() -> None:
    task = hand_made(("ab", "cd"), ("", "efg"), bos_token_id=None)
    assert task.train.ids[:, :4].tolist() == [[*b"abcd"], [*b"efg", 0]]
    assert task.train.counted[:, :3].tolist() == [[False, True, True], [True, True, False]]


@given(prompt=st.text("xy", max_size=12), completion=st.text("ab", min_size=1, max_size=9), begins=st.booleans())
def test_a_long_prompt_loses_its_beginning_and_a_completion_nothing(prompt: str, completion: str, begins: bool) -> None:
    length = 8
    given = (Item(prompt, completion),)
    made = TextTask("hand", "", given, (Item("held", "out"),))
    wanted = len(completion) if begins or prompt else len(completion) - 1
    if not 0 < wanted <= length:
        with pytest.raises(DataError, match="the task hand: the completion"):
            Completions.of(made, Characters(0 if begins else None), length)
        return
    train = Completions.of(made, Characters(0 if begins else None), length).train
    size = int(train.lengths)
    assert size <= length + 1
    said = bytes(train.ids[0, begins:size].tolist()).decode()
    assert (prompt + completion).endswith(said)
    assert len(said) == min(len(prompt + completion), length + 1 - begins)
    assert bytes(train.ids[0, 1:][train.counted[0]].tolist()).decode() == completion[-wanted:]


def test_items_are_padded_as_far_as_the_longest_only(task: Completions) -> None:
    longest = max(len(item.text) for item in spelled(40) + spelled(20, 40))
    assert task.train.ids.shape == (40, 1 + longest)


def test_scores_are_those_of_torch_one_item_at_a_time(task: Completions, monkeypatch: pytest.MonkeyPatch) -> None:
    """So neither padding nor the others in a chunk change any."""
    monkeypatch.setattr("tombola.training.completions.CHUNK", 7 * task.held_out.ids.shape[1])
    model = gpt2().train()
    scored = task.scores(model, "test")
    assert model.training
    model.eval()
    nats, right, expected = [], 0, []
    for item in spelled(20, 40):
        ids = torch.tensor([[0, *item.text.encode()]])
        with torch.no_grad():
            logits = model(ids[:, :-1]).logits[0, len(item.prompt) :]
        targets = ids[0, 1 + len(item.prompt) :]
        every = functional.cross_entropy(logits, targets, reduction="none")
        right += int((logits.argmax(1) == targets).sum())
        nats += every.tolist()
        expected.append(float(every.mean()))
    assert scored.each is not None
    torch.testing.assert_close(scored.each, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    assert scored.loss == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    assert scored.values == {"nats": scored.loss, "accuracy": right / len(nats)}
    assert task.scores(model, "validation").loss == scored.loss


def test_the_loss_of_all_items_is_their_score(task: Completions) -> None:
    model = gpt2().eval()
    batch = task.batches(40, 0).at(0)
    assert task.loss(model, batch).item() == pytest.approx(task.scores(model, "train").loss, rel=1e-5)


def test_what_is_not_counted_gives_no_gradient(task: Completions) -> None:
    ids, counted = task.batches(8, 0).at(0)
    logits = torch.randn(*counted.shape, WORDS, requires_grad=True)
    task.loss(_Says(logits), (ids, counted)).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.abs().sum(2) > 0, counted)


class _Says(nn.Module):
    """Always the same logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_a_model_may_know_more_tokens_and_not_fewer(task: Completions) -> None:
    scored = task.scores(nn.Embedding(WORDS + 40, WORDS + 40), "test")
    assert math.isfinite(scored.loss)
    with pytest.raises(TrainingError, match="knows 4 tokens, and the sequences have 12"):
        task.scores(nn.Embedding(WORDS, 4), "test")


def test_gpt2_learns_under_masks_and_goes_on_after_a_kill(task: Completions, tmp_path: Path) -> None:
    def trained(**more: Any) -> tuple[nn.Module, Any]:
        model = gpt2()
        masks = prune(model, 0.3, protect=("transformer.wte.weight",))
        chosen = recipe(optimizer="adamw", learning_rate=1e-2, batch_size=8, length="60it", evaluate_every="20it")
        return model, fit(model, task, chosen, masks, 5, **more)

    model, whole = trained()
    assert task.scores(model, "test").loss < 0.7 * task.scores(gpt2(), "test").loss
    assert task.scores(model, "test").loss < task.naive("test").loss
    assert whole.masks.removed_nonzeros(model) == 0
    again: dict[str, Any] = {"checkpoint": tmp_path / "checkpoint.safetensors", "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        trained(on_evaluation=kill_at(40), **again)
    resumed, _ = trained(**again)
    assert content_sha256(resumed.state_dict()) == content_sha256(model.state_dict())


def test_naive_is_who_knows_frequencies_alone() -> None:
    labels = tuple(Item(f"{at}", "PN"[at % 2]) for at in range(40))
    task = Completions.of(TextTask("labels", "", labels[:20], labels[20:]), Characters())
    known = task.naive("test")
    assert known.loss == pytest.approx(math.log(2), abs=0.06)
    assert known.values["accuracy"] == 0.5
    other = hand_made(("x", "aab"), ("y", "a"))  # of what is held out it has seen nothing
    assert other.naive("test").loss == pytest.approx(math.log(other.vocabulary))
    assert other.naive("test").values["accuracy"] == 0


def test_a_quick_look_sees_the_first_items(task: Completions) -> None:
    model = gpt2()
    quick, whole = task.first(5), task.scores(model, "test")
    found = quick.scores(model, "test")
    assert (quick.count("test"), task.count("test"), quick.count("train")) == (5, 20, 40)
    assert found.each is not None
    assert whole.each is not None
    torch.testing.assert_close(found.each, whole.each[:5], rtol=1e-5, atol=1e-6)


def test_valid_tokens_are_those_before_the_end_of_an_item(task: Completions) -> None:
    batch = ids, _ = task.batches(40, 1).at(0)
    order = [int(torch.nonzero((task.train.ids == row).all(1))[0]) for row in ids]
    expected = task.train.lengths[order] - 1
    assert torch.equal(task.valid_of(batch).sum(1), expected)
    assert torch.equal(task.valid_of(batch), torch.arange(ids.shape[1] - 1) < expected[:, None])


def test_one_task_gives_way_to_another() -> None:
    letters = Completions.of(TextTask("old", "", spelled(30), spelled(10, 40)), Characters())
    digits = tuple(Item("long prompt ", str(at)) for at in range(1000, 1030))
    new = Completions.of(TextTask("new", "", digits, (Item("?", "0000"),)), Characters())
    mixed = Mixed(letters, new, steps=50, seed=3)
    source = mixed.batches(16, 8)
    fraction = [float((source.at(at)[0][:, 1] == ord("l")).float().mean()) for at in range(50)]
    assert sum(fraction[:10]) / 10 < 0.3
    assert sum(fraction[40:]) / 10 > 0.7
    assert fraction[49] == 1
    assert all(torch.equal(a, b) for a, b in zip(source.at(7), mixed.batches(16, 8).at(7), strict=True))
    assert mixed.name == "new"
    model = gpt2()
    assert mixed.scores(model, "test").loss == pytest.approx(new.scores(model, "test").loss, rel=1e-5)
    assert mixed.identity() != Mixed(letters, new, steps=51, seed=3).identity()
    assert math.isfinite(mixed.loss(model, source.at(0)).item())


def test_the_inputs_of_criteria_are_what_a_model_reads(task: Completions) -> None:
    model = gpt2()
    masks = prune(
        model,
        0.5,
        criterion="taylor",
        batches=task.scoring(8, 2, 0),
        loss=task.criterion_loss,
        protect=("transformer.wte.weight",),
    )
    assert masks.sparsity == pytest.approx(0.5, abs=1e-3)
    assert task.inputs(10, 5)[0].shape == (5, task.train.ids.shape[1] - 1)


@pytest.mark.parametrize(
    ("ids", "counted", "said"),
    [
        (torch.zeros(2, 4), torch.ones(2, 3, dtype=torch.bool), "torch.float32"),
        (torch.zeros(2, 4, dtype=torch.int64), torch.ones(2, 4, dtype=torch.bool), "are not"),
        (torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.bool), "a token must count"),
    ],
)
def test_what_cannot_be_scored_is_refused(ids: torch.Tensor, counted: torch.Tensor, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Sentences(ids, counted, torch.full((2,), 4))
