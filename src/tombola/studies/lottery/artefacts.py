"""The files that a lottery study leaves for others, by fixed names, in `results/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tombola.compression.ticket import write_ticket
from tombola.models import ModelSpec, build
from tombola.models.tensors import load_tensors_like
from tombola.pruning import Masks
from tombola.reports import curves
from tombola.reports.page import Section, figure_html, page
from tombola.runs.atomic import make_folder, write_bytes, write_json, write_text
from tombola.runs.folder import RunFolder
from tombola.runs.seeds import derive_seed
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.metrics import Summary
from tombola.studies.lottery.replicate import replicate_folder, replicate_seed, round_folder
from tombola.studies.lottery.report import accuracy_caption, accuracy_chart, summary_markdown
from tombola.studies.lottery.rewind import rewind
from tombola.studies.lottery.verdict import Verdict

SUMMARY = "sparsity_vs_accuracy.json"
NAMES = (
    SUMMARY,
    "winning_ticket_mask.npy",
    "winning_ticket_mask.json",
    "winning_ticket.safetensors",
    "sparsity_curve.html",
    "sparsity_curve.png",
    "summary.md",
    "spec.json",
)
"""Every file of `results/`; `spec.json` is written last but one and names the run it belongs to."""


def write_results(
    folder: RunFolder,
    config: LotteryConfig,
    model: dict[str, Any],
    summaries: Sequence[Summary],
    verdict: Verdict,
) -> None:
    """Writes `results/`. The ticket is replicate 0's, at the verdict's density when it won, else at the target.

    `model` holds the input shape and classes of the data.
    """
    results = folder.results
    make_folder(results)
    chart = accuracy_chart(summaries)
    caption = accuracy_caption(config, verdict)
    curve = figure_html(curves.plotly_figure(chart), caption)
    write_text(
        results / "sparsity_curve.html",
        page(f"{config.name}: accuracy against weights remaining", verdict.sentence, [Section("Curve", curve)]),
    )
    write_bytes(results / "sparsity_curve.png", curves.png(chart))
    write_text(results / "summary.md", summary_markdown(folder, config, summaries, verdict))
    _write_ticket(folder, config, model, summaries, verdict)
    write_json(
        results / SUMMARY,
        {
            "run": folder.root.name,
            "replicates": verdict.replicates,
            "units": {"accuracy": "percent", "intervals": "95 %, Student t"},
            "verdict": asdict(verdict),
            "densities": [summary.to_json() for summary in summaries],
        },
    )


def _write_ticket(
    folder: RunFolder,
    config: LotteryConfig,
    model: dict[str, Any],
    summaries: Sequence[Summary],
    verdict: Verdict,
) -> None:
    target = max(summary.round for summary in summaries)
    index = verdict.round if verdict.outcome == "winning" and verdict.round is not None else target
    spec = replicate_spec(config, model, replicate=0)
    start, masks = stored_ticket(folder, spec, replicate=0, round_index=index)
    network = build(spec)
    rewind(network, start, masks)
    history = {
        "run": folder.root.name,
        "replicate": 0,
        "round": index,
        "density": masks.density,
        "restart": config.rewind,
        "verdict": asdict(verdict),
    }
    write_ticket(folder.results, spec, network, masks, history)


def replicate_spec(config: LotteryConfig, model: dict[str, Any], replicate: int) -> ModelSpec:
    """The spec of a replicate's network, its seed included."""
    return ModelSpec(
        **config.model.model_dump(),
        input_shape=tuple(model["input_shape"]),
        classes=model["classes"],
        seed=derive_seed(replicate_seed(config, replicate), "init"),
    )


def stored_ticket(folder: RunFolder, spec: ModelSpec, replicate: int, round_index: int) -> tuple[dict[str, Any], Masks]:
    """The stored W_0 and masks of a finished round."""
    home: Path = replicate_folder(folder.checkpoints, replicate)
    model = build(spec)
    start = load_tensors_like(home / "initial.safetensors", model.state_dict())
    full = Masks.full(model)
    if round_index == 0:
        return start, full
    tensors = load_tensors_like(round_folder(home, round_index) / "masks.safetensors", full.to_tensors())
    return start, Masks.from_tensors(tensors)
