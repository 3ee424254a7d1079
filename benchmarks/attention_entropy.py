"""What recording the entropy of every head adds to a training step of a small GPT-2, on one thread.

    python benchmarks/attention_entropy.py [--blocks 31]

Steps without a recorder and with one, of the first 4 sequences and of all 16, take turns within one run; the figures
are medians over blocks. The model has 4 layers of 8 heads and 128 numbers (the tiny one of `tombola stress` has 64),
batches of 16 sequences of 64 tokens. Recording is wanted to add 25 % at most.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from tombola.models.causal.entropy import EntropyRecorder
from tombola.runs.folder import machine

BATCH, LENGTH = 16, 64
STEPS_PER_BLOCK = 3
WAYS = {"without": 0, "first 4 sequences": 4, "all 16 sequences": BATCH}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--blocks", type=int, default=31, help="interleaved blocks of each (at least 15)")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPT2Config(n_embd=128, n_layer=4, n_head=8, vocab_size=512, n_positions=LENGTH)
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for block in range(options.blocks + 1):
        for way, sequences in WAYS.items():
            taken = seconds_of_a_step(model, optimizer, sequences)
            if block:  # the first one is not counted
                seconds[way].append(taken)
    print(f"{machine()}, torch {torch.__version__}, one thread; {BATCH} sequences of {LENGTH} tokens")
    without = statistics.median(seconds["without"])
    for way, taken in seconds.items():
        ratio = statistics.median(t / base for t, base in zip(taken, seconds["without"], strict=True))
        print(f"{way:>18}: {statistics.median(taken) * 1e3:6.1f} ms a step, {ratio:.3f} of {without * 1e3:.1f} ms")


def seconds_of_a_step(model: nn.Module, optimizer: torch.optim.Optimizer, sequences: int) -> float:
    """The mean over one block of steps."""
    heard: list[float] = []
    recorder = EntropyRecorder(model, lambda _, entropy: heard.extend(entropy.tolist()), sequences)
    with recorder if sequences else nullcontext():
        began = time.perf_counter()
        for _ in range(STEPS_PER_BLOCK):
            ids = torch.randint(512, (BATCH, LENGTH))
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
        taken = time.perf_counter() - began
    assert len(heard) == (STEPS_PER_BLOCK * 32 if sequences else 0)
    return taken / STEPS_PER_BLOCK


if __name__ == "__main__":
    main()
