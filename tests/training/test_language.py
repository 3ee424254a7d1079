"""Language modelling on a tiny GPT-2: learned, held, killed and resumed; and what is no language is refused."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from sparse_steps import kill_at, recipe
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import DataError, TrainingError
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prune
from tombola.training import Gradual, batches, fit
from tombola.training.batches import epoch_order
from tombola.training.language import LanguageModelling, Tokens
from tombola.training.trained import Trained

pytest.importorskip("transformers")

from transformers import GPT2Config, GPT2LMHeadModel

VOCABULARY, LENGTH = 13, 8
EMBEDDING = ("transformer.wte.weight",)


def counting(count: int, seed: int) -> Tokens:
    """Sequences that go on in steps of 1 to 3, from anywhere: the step has to be seen to say what comes next."""
    chance = torch.Generator().manual_seed(seed)
    first = torch.randint(0, VOCABULARY, (count, 1), generator=chance)
    step = torch.randint(1, 4, (count, 1), generator=chance)
    return Tokens((first + step * torch.arange(LENGTH + 1)) % VOCABULARY)


@pytest.fixture(scope="module")
def task() -> LanguageModelling:
    return LanguageModelling(counting(300, 0), counting(40, 1), counting(50, 2))


def gpt2() -> nn.Module:
    """With dropout, whose chance a continued training must go on with."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model: nn.Module = GPT2LMHeadModel(config)
    return model


def trained(task: LanguageModelling, **more: Any) -> tuple[nn.Module, Trained]:
    model = gpt2()
    masks = prune(model, 0.5, protect=EMBEDDING)
    chosen = recipe(optimizer="adamw", weight_decay=1e-2, length="80it", evaluate_every="20it", ema=0.2)
    return model, fit(model, task, chosen, masks, 5, **more)


def test_gpt2_learns_under_masks_and_goes_on_after_a_kill(task: LanguageModelling, tmp_path: Path) -> None:
    model, whole = trained(task)
    before = task.scores(gpt2(), "validation")
    assert before.loss == pytest.approx(math.log(VOCABULARY), abs=0.2)  # it knows nothing
    assert whole.early_stop.loss < 0.8 * before.loss
    assert whole.early_stop.values["accuracy"] > 2 / VOCABULARY
    assert whole.masks.removed_nonzeros(model) == 0
    again: dict[str, Any] = {"checkpoint": tmp_path / "checkpoint.safetensors", "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        trained(task, on_evaluation=kill_at(60), **again)
    resumed, end = trained(task, **again)
    assert end.evaluations == whole.evaluations
    assert content_sha256(resumed.state_dict()) == content_sha256(model.state_dict())


def test_scores_are_those_of_torch_over_all_sequences(task: LanguageModelling, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of another size than the part has."""
    monkeypatch.setattr("tombola.training.language.CHUNK", 7 * (LENGTH + 1))
    model = gpt2().train()
    scored = task.scores(model, "test")
    assert model.training
    ids = task.ids["test"]
    with torch.no_grad():
        logits = model.eval()(ids[:, :-1]).logits
    every = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(50, LENGTH)
    assert scored.each is not None
    torch.testing.assert_close(scored.each.float(), every.mean(1))
    assert (scored.loss, scored.examples) == (scored.values["nats"], 50)
    assert scored.loss == pytest.approx(float(every.mean()))
    assert scored.values["accuracy"] == float((logits.argmax(2) == ids[:, 1:]).double().mean())


def test_an_evaluation_makes_few_logits_at_a_time(task: LanguageModelling, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many words there are."""
    monkeypatch.setattr("tombola.training.language.LOGITS", 7 * (LENGTH + 1) * VOCABULARY)
    model, seen = gpt2(), []
    model.register_forward_hook(lambda module, arguments, output: seen.append(output.logits.numel()))
    task.scores(model, "test")
    assert (len(seen), max(seen)) == (1 + 8, 7 * LENGTH * VOCABULARY)  # one sequence first, to see how many words
    monkeypatch.setattr("tombola.training.language.LOGITS", 1)  # less than a sequence
    task.scores(model, "test")
    assert len(seen) == 9 + 1 + 50


def test_a_model_of_more_words_than_the_data_have_makes_as_few_logits(
    task: LanguageModelling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every pretrained one does."""
    words = 10 * VOCABULARY
    monkeypatch.setattr("tombola.training.language.LOGITS", 3 * (LENGTH + 1) * words)
    model, seen = nn.Embedding(words, words), []
    model.register_forward_hook(lambda module, arguments, output: seen.append(output.numel()))
    task.scores(model, "test")
    assert max(seen) == 3 * LENGTH * words


def test_the_order_of_an_epoch_is_drawn_once(task: LanguageModelling, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(batches, "epoch_order", lambda *epoch: drawn.append(epoch) or epoch_order(*epoch))
    source = task.batches(100, 4)
    whole = torch.cat([source.at(iteration) for iteration in range(6)])
    task.scoring(100, 3, 4)
    assert drawn == [(300, 4, 0), (300, 4, 1), (300, 4, 0)]
    expected = torch.cat([task.ids["train"][epoch_order(300, 4, epoch)] for epoch in (0, 1)])
    assert torch.equal(whole, expected)


def test_the_loss_is_the_one_that_transformers_would_have(task: LanguageModelling) -> None:
    model, batch = gpt2().eval(), task.batches(16, 0).at(3)
    theirs = model(batch[:, :-1], labels=batch[:, :-1]).loss  # which leaves out the last token
    mine = task.loss(model, batch[:, :-1])
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_masks_may_change_by_a_criterion_that_looks_at_data(task: LanguageModelling) -> None:
    model = gpt2()
    evolution = Gradual(criterion="taylor", sparsity=0.5, every="5it", end="10it", protect=EMBEDDING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fit(model, task, recipe(length="15it"), Masks.full(model), 5, evolution=evolution)
    assert found.masks.sparsity == pytest.approx(0.5, abs=1e-3)
    assert found.masks.removed_nonzeros(model) == 0


def test_a_text_is_cut_so_that_every_token_is_said_once() -> None:
    tokens = Tokens.of_text(torch.arange(12), 4)
    assert tokens.ids.tolist() == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (torch.zeros(3, 4), "torch.float32"),
        (torch.zeros(3, dtype=torch.int64), "(3,)"),
        (torch.zeros(3, 1, dtype=torch.int64), "(3, 1)"),
        (torch.zeros(0, 4, dtype=torch.int64), "(0, 4)"),
        (torch.full((3, 4), -100), "begin at 0"),
    ],
)
def test_what_is_no_text_is_refused(ids: Tensor, said: str) -> None:
    with pytest.raises(DataError) as caught:
        Tokens(ids)
    assert said in str(caught.value)


def test_too_short_a_text_is_refused() -> None:
    with pytest.raises(DataError, match="a text of 4 tokens is too short for one sequence of 4 and the next token"):
        Tokens.of_text(torch.arange(4), 4)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Embedding(5, VOCABULARY), "the model fails on 1 sequence of 8 tokens: IndexError"),
        (
            nn.Sequential(nn.Embedding(VOCABULARY, 4), nn.Flatten(), nn.Linear(32, VOCABULARY)),
            r"shape \(1, 13\) for 1 sequence of 8",
        ),
        (nn.Embedding(VOCABULARY, 4), "knows 4 tokens, and the sequences have 13"),
    ],
)
def test_a_model_of_something_else_is_refused_in_one_line(model: nn.Module, said: str, task: LanguageModelling) -> None:
    with pytest.raises(TrainingError, match=said):
        task.scores(model, "validation")


def test_fast_paths_are_not_taken(task: LanguageModelling) -> None:
    with pytest.raises(TrainingError, match="knows classification only, and this task is language modelling"):
        fit(gpt2(), task, recipe(engine="sparse"), prune(gpt2(), 0.5, protect=EMBEDDING), 5)
