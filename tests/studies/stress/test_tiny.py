"""The embedded model: made once, whole or not at all, the same after a kill, anew where it is damaged."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest
import torch

from tombola.data.text import tiny_tokenizer
from tombola.data.text.shipped_text import text_of
from tombola.models.causal.hub import load_language_model
from tombola.models.tensors import content_sha256
from tombola.studies.stress.subjects import tiny
from tombola.studies.stress.subjects.pretraining import LENGTH, pretraining_task
from tombola.studies.stress.subjects.tiny import Size, tiny_model

pytest.importorskip("transformers")

SMALL = Size(width=16, layers=1, heads=2, steps=60, learning_rate=1e-2)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "QUICK", SMALL)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "QUICK", SMALL)
        nats: list[float] = []
        return tiny_model(True, tmp_path_factory.mktemp("tiny"), lambda done, total, loss: nats.append(loss)), nats


def test_it_is_an_ordinary_folder_of_a_model_that_learned(made: tuple[Path, list[float]]) -> None:
    folder, nats = made
    found = load_language_model(folder)
    assert found.model_type == "gpt2"
    assert found.tokenizer is not None
    assert len(found.tokenizer) == 512
    text = "And God said unto Noah"
    assert found.tokenizer(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]
    assert nats[-1] < 0.9 * math.log(512)
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f"{folder.name}.lock"}


def test_it_is_made_once_and_chance_goes_on_as_before(made: tuple[Path, list[float]], tmp_path: Path) -> None:
    folder, _ = made
    before = torch.random.get_rng_state()
    assert tiny_model(True, folder.parent, lambda *_: pytest.fail("it is made again")) == folder
    tiny_model(True, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (tmp_path / folder.name / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_other_sizes_and_other_text_are_other_models(
    made: tuple[Path, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny._key(SMALL) == made[0].name
    assert tiny._key(tiny.USUAL) != tiny._key(SMALL)
    monkeypatch.setattr(tiny, "read_json", lambda path: {"german.train.txt": "0"})
    assert tiny._key(SMALL) != made[0].name


def test_killed_it_goes_on_to_the_same_weights(
    made: tuple[Path, list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tiny.fit
    monkeypatch.setattr(tiny, "fit", lambda *given, **named: real(*given, **named, checkpoint_seconds=0))
    steps: list[int] = []

    def killed(done: int, total: int, loss: float) -> None:
        steps.append(done)
        if len(steps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(tiny, "EVERY", "20it")
    with pytest.raises(KeyboardInterrupt):
        tiny_model(True, tmp_path, killed)
    assert not [path for path in tmp_path.iterdir() if (path / "config.json").exists()]
    folder = tiny_model(True, tmp_path, killed)
    assert steps == [20, 40, 40, 60]
    same = [load_language_model(path).model.state_dict() for path in (folder, made[0])]
    assert content_sha256(same[0]) == content_sha256(same[1])


@pytest.mark.parametrize("harm", ["a byte", "cut", "no seals", "a seal of nothing", "elsewhere"])
def test_what_is_damaged_is_not_used(made: tuple[Path, list[float]], tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in made[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert tiny._is_whole(folder)
    weights, seals = folder / "model.safetensors", folder / tiny.SEALS
    content = weights.read_bytes()
    if harm == "a byte":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "cut":
        weights.write_bytes(content[:100])
    elif harm == "no seals":
        seals.unlink()
    elif harm == "a seal of nothing":
        seals.write_text("{}")
    else:
        weights.unlink()
    assert not tiny._is_whole(folder)


def test_a_damaged_folder_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / tiny._key(SMALL)
    (folder / "deep").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"no")
    (tmp_path / f"{folder.name}.making").mkdir()
    (tmp_path / f"{folder.name}.making" / "checkpoint.safetensors").write_bytes(b"nor this")
    (tmp_path / f".{folder.name}.1.tombola-tmp").mkdir()
    assert tiny_model(True, tmp_path) == folder
    assert load_language_model(folder).model_type == "gpt2"
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, f"{folder.name}.lock"}
    assert not (folder / "deep").exists()


def test_two_at_once_make_one(tmp_path: Path) -> None:
    """The second waits; both get the folder."""
    made, started, found = [], threading.Event(), []

    def said(done: int, total: int, loss: float) -> None:
        made.append(threading.get_ident())
        started.set()

    first = threading.Thread(target=lambda: found.append(tiny_model(True, tmp_path, said)))
    first.start()
    assert started.wait(120)
    found.append(tiny_model(True, tmp_path, said))
    first.join()
    assert len(set(made)) == 1
    assert found[0] == found[1]


def test_windows_say_every_pretraining_token_once() -> None:
    tokenizer = tiny_tokenizer()
    task = pretraining_task(tokenizer)
    rows = torch.cat([task.ids["train"], task.ids["validation"]])
    assert rows.shape[1] == LENGTH + 1
    assert bool((rows[:, 0] == tokenizer.bos_token_id).all())
    assert not bool((rows[:, 1:] == tokenizer.bos_token_id).any())
    said = "".join(tokenizer.decode(row[1:]) for row in task.ids["train"][:5])
    assert text_of("english", "pretraining").startswith(said)
    learned = {tuple(row.tolist()) for row in task.ids["train"]}
    assert not [row for row in task.ids["validation"] if tuple(row.tolist()) in learned]
    assert torch.equal(task.ids["train"], pretraining_task(tokenizer).ids["train"])
