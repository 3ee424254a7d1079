"""The embedded model, `--model tiny`: a small GPT-2, pre-trained here from the text in the package, once, and kept.

It lies in the user's cache as transformers saves models, under a hash of everything that made it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tombola.data.text.shipped_text import CHECKSUMS, FOLDER
from tombola.data.text.tokenizer import tiny_tokenizer
from tombola.errors import StorageError
from tombola.models.causal.package import quiet, transformers
from tombola.pruning import Masks
from tombola.runs import limits, stopping
from tombola.runs.atomic import TEMPORARY_SUFFIX, make_folder, read_bytes, read_json, storage_errors, write_json
from tombola.runs.cache import cache_folder
from tombola.studies.stress.subjects.pretraining import pretraining_task
from tombola.training import Recipe, fit
from tombola.training.trained import Evaluation

OnProgress = Callable[[int, int, float], None]
"""(steps done, steps in all, nats per token on text that is not learned)."""
VERSION = 1
"""Of the code that makes windows and model: another one makes another model."""
SEED = 0
EVERY = "100it"
"""How often it is looked at, and said how far it is."""
SEALS = "checksums.json"
POSITIONS = 128
WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class Size:
    """Width, layers and heads, and how long it is pre-trained."""

    width: int
    layers: int
    heads: int
    steps: int
    learning_rate: float


USUAL = Size(64, 4, 8, 2_400, 2e-3)
QUICK = Size(64, 2, 8, 1_300, 3e-3)


def tiny_model(quick: bool = False, cache: Path | None = None, on_progress: OnProgress | None = None) -> Path:
    """The folder of the embedded model, which is pre-trained where it is not there yet.

    That takes about 3 minutes of one core, 45 seconds of the quick one. A process that was killed is continued;
    of two at once one waits for the other. A folder that is damaged is made anew.

    Args:
        quick: The small one, of 2 layers and a width of 64.
        cache: Where models are kept; by default the user's cache.
        on_progress: Called from time to time while it is pre-trained.

    Returns:
        Path: a folder with `config.json`, `model.safetensors` and `tokenizer.json`, for `from_pretrained`.

    Raises:
        ModelError: where transformers is not installed.
        StorageError: where the cache cannot be written.
    """
    transformers()
    size = QUICK if quick else USUAL
    home = cache_folder("tiny") if cache is None else cache
    folder = home / _key(size)
    if _is_whole(folder):
        return folder
    make_folder(home)
    with _alone(home / f"{folder.name}.lock"):
        if not _is_whole(folder):  # nobody made it while we waited
            _make(folder, size, on_progress)
    return folder


def _key(size: Size) -> str:
    """A hash of what the model depends on: sizes, text, how it is trained, and torch, whose numbers it has."""
    made_of = {
        "size": asdict(size),
        "text": read_json(FOLDER / CHECKSUMS),
        "recipe": _recipe(size).model_dump(mode="json", exclude={"evaluate_every"}),
        "torch": torch.__version__,
        "version": VERSION,
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]


def _recipe(size: Size) -> Recipe:
    return Recipe(
        optimizer="adamw",
        learning_rate=size.learning_rate,
        weight_decay=1e-2,
        batch_size=16,
        length=f"{size.steps}it",
        evaluate_every=EVERY,
        schedule="cosine",
        warmup="50it",
        engine="dense",
    )


def _make(folder: Path, size: Size, on_progress: OnProgress | None) -> None:
    for leftover in folder.parent.glob(f".{folder.name}.*{TEMPORARY_SUFFIX}"):  # of one who was killed while saving
        shutil.rmtree(leftover, ignore_errors=True)
    work = folder.with_name(f"{folder.name}.making")
    make_folder(work)
    checkpoint = work / "checkpoint.safetensors"
    try:
        model = _pretrained(size, checkpoint, on_progress)
    except StorageError:
        if not checkpoint.exists():
            raise
        checkpoint.unlink()  # a damaged one, or another machine's
        model = _pretrained(size, checkpoint, on_progress)
    _save(model, folder)
    shutil.rmtree(work, ignore_errors=True)


def _pretrained(size: Size, checkpoint: Path, on_progress: OnProgress | None) -> nn.Module:
    def said(evaluation: Evaluation, total: int) -> None:
        if on_progress is not None:
            on_progress(evaluation.iteration, total, evaluation.loss)

    with torch.random.fork_rng(devices=[]):
        model = _untrained(size)
        task = pretraining_task(tiny_tokenizer(), SEED)
        fit(
            model,
            task,
            _recipe(size),
            Masks.full(model),
            SEED,
            checkpoint=checkpoint,
            on_evaluation=said,
        )
    return model.eval()


def _untrained(size: Size) -> nn.Module:
    package, begin = transformers(), tiny_tokenizer().bos_token_id
    config = package.GPT2Config(
        vocab_size=len(tiny_tokenizer()),
        n_positions=POSITIONS,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own function, in one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=begin,
        eos_token_id=begin,
    )
    torch.manual_seed(SEED)
    model: nn.Module = package.GPT2LMHeadModel(config)
    return model


def _save(model: Any, folder: Path) -> None:
    """The whole folder or none: it gets its name last."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    with storage_errors("write", folder):
        try:
            with quiet():
                model.save_pretrained(temporary)
                tiny_tokenizer().save_pretrained(temporary)
            sums = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
            write_json(temporary / SEALS, sums)
            stopping.check()
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether all files are there and have their checksums."""
    if not (folder / SEALS).is_file():
        return False
    try:
        sums = read_json(folder / SEALS, limits.SPEC)
        return {"config.json", "model.safetensors", "tokenizer.json"} <= sums.keys() and all(
            _sha256(folder / Path(name).name) == sum_ for name, sum_ in sums.items()
        )
    except (StorageError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, limits.GIB)).hexdigest()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds the lock file at `path`, after whoever holds it now."""
    with storage_errors("lock", path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            stopping.check()
            time.sleep(WAIT_SECONDS)
        yield
