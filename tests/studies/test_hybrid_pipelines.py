"""Measured pipelines: a row for every part, engine and batch size, or a reason. How long, nobody asks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tombola.compression import measured
from tombola.compression.latency import Blocks
from tombola.compression.runtime import sparsify
from tombola.errors import ConfigError, KernelError
from tombola.models import ModelSpec, build
from tombola.models.exits import Exit, find_exit
from tombola.pruning import Masks, prune
from tombola.runs.rows import Row
from tombola.studies.hybrid.exits import features_at, poolings
from tombola.studies.hybrid.forests import Forest, fit_forest, fit_pca
from tombola.studies.hybrid.pipelines import Pipeline, measure_pipelines

COLUMNS = [
    *("kind", "network", "exit", "features", "batch", "part", "engine", "dtype", "threads"),
    *("on_torch", "reason", "clock", "seconds"),
]
NO_KERNELS = "this processor has neither AVX2 with FMA nor NEON"
TORCH, SPARSE, ONNX = "torch eager", "sparse kernels", "onnxruntime"


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def ticket() -> tuple[nn.Module, Masks]:
    spec = ModelSpec(architecture="vgg11", input_shape=(1, 32, 32), classes=10, seed=3, widths=(6, 6, 7, 8, 8))
    model = build(spec)
    masks = prune(model, 0.7)
    masks.apply_(model)
    return model.eval(), masks


@pytest.fixture(scope="module")
def exit(ticket: tuple[nn.Module, Masks]) -> Exit:
    return find_exit(ticket[0], "block2_conv1")


@pytest.fixture(scope="module")
def forest(ticket: tuple[nn.Module, Masks], exit: Exit, images: Tensor) -> Forest:
    features = features_at(ticket[0], [exit], ["gap"], images)[exit.name, "gap"]
    return fit_forest(features, np.arange(64) % 10, 10, trees=5)


def without_clock(rows: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key not in ("clock", "seconds")} for row in rows]


def key(row: Row) -> tuple[Any, ...]:
    return row["network"], row["batch"], row["part"], row["engine"]


def test_a_row_for_every_part_and_batch_size(
    ticket: tuple[nn.Module, Masks], exit: Exit, forest: Forest, images: Tensor
) -> None:
    model, masks = ticket
    pixels = images.flatten(1).numpy()
    pca = fit_forest(pixels, np.arange(64) % 10, 10, 5, projection=fit_pca(pixels, 4))
    asked = [
        Pipeline("dense", images, model, Masks.full(model), exit, "gap", forest),
        Pipeline("ticket", images, model, masks, exit, "gap", forest, in_parts=True),
        Pipeline("ticket", images, model, masks),
        Pipeline("pca", images, forest=pca),
    ]
    prepared: list[tuple[int, int]] = []
    rows = measure_pipelines(asked, on_prepared=lambda *numbers: prepared.append(numbers))
    assert prepared == [(1, 4), (2, 4), (3, 4), (4, 4)]
    expected = []
    for batch in (1, 64):
        expected += [
            ("dense", batch, "whole", f"{TORCH} + {ONNX}"),
            ("dense", batch, "whole", f"{SPARSE} + {ONNX}"),
            ("ticket", batch, "cnn", TORCH),
            ("ticket", batch, "whole", f"{TORCH} + {ONNX}"),
            ("ticket", batch, "cnn", SPARSE),
            ("ticket", batch, "whole", f"{SPARSE} + {ONNX}"),
            ("ticket", batch, "forest", ONNX),
            ("ticket", batch, "whole", TORCH),
            ("ticket", batch, "whole", SPARSE),
            ("pca", batch, "whole", ONNX),
        ]
    assert [key(row) for row in rows] == expected
    for row in rows:
        assert list(row) == COLUMNS
        assert (row["kind"], row["dtype"], row["threads"]) == ("latency", "float32", 1)
        hybrid = row["network"] != "pca" and (row["part"] != "whole" or "+" in row["engine"])
        assert (row["exit"], row["features"]) == ((exit.name, "gap") if hybrid else (None, None))
        assert (row["reason"], row["clock"], row["on_torch"]) == (None, None, [])
        low, median, high = row["seconds"]
        assert 0 < low <= median <= high
    assert json.loads(json.dumps(rows)) == rows
    assert without_clock(measure_pipelines(asked)) == without_clock(rows)


def test_calls_do_what_they_are_called(
    ticket: tuple[nn.Module, Masks], exit: Exit, forest: Forest, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is timed gives features and labels of real batches of the size, under one thread and no gradients."""
    model, masks = ticket
    given: list[tuple[int, list[Any]]] = []

    def watch(ways: dict[int, Any], seconds: float, least_blocks: int) -> dict[int, Blocks]:
        assert torch.get_num_threads() == 1
        assert not torch.is_grad_enabled()
        assert not model.training
        given.append((len(ways), [way() for way in ways.values()]))
        return {way: Blocks([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) for way in ways}

    monkeypatch.setattr(measured, "interleaved", watch)
    pixels = fit_forest(images.flatten(1).numpy(), np.arange(64) % 10, 10, 5)
    asked = [
        Pipeline("ticket", images, model, masks, exit, "gap", forest, in_parts=True),
        Pipeline("ticket", 2 * images, model, masks),
        Pipeline("pixels", images, forest=pixels),
    ]
    model.train()
    rows = measure_pipelines(asked, batch_sizes=(64,))
    assert model.training
    model.eval()
    assert [row["seconds"] for row in rows] == [[1.5, 2.0, 2.5]] * 8
    features = features_at(model, [exit], ["gap"], images)[exit.name, "gap"]
    ((count, (cnn, whole, sparse_cnn, sparse_whole, labels, logits, sparse_logits, by_pixels)),) = given
    assert count == 8
    np.testing.assert_array_equal(labels, forest.predict(features))
    for found, classes in ((cnn, whole), (sparse_cnn, sparse_whole)):
        np.testing.assert_allclose(found, features, atol=1e-6)
        np.testing.assert_array_equal(classes, labels)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(2 * images))
        torch.testing.assert_close(sparse_logits, logits, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(by_pixels, pixels.predict(images.flatten(1).numpy()))


def test_kernels_are_chosen_once_for_all_that_cuts_a_network_at_an_exit(
    ticket: tuple[nn.Module, Masks], exit: Exit, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the masks of what is before the exit; torch pools behind it, and nothing else is left to torch."""
    model, masks = ticket
    asked_for: list[list[str]] = []

    def watch(part: nn.Module, within: Masks, *rest: Any) -> nn.Module:
        asked_for.append(list(within))
        return sparsify(part, within, *rest)

    monkeypatch.setattr(measured, "sparsify", watch)
    asked = [Pipeline("ticket", images, model, masks)]
    for kind in poolings:
        features = features_at(model, [exit], [kind], images)[exit.name, kind]
        forest = fit_forest(features, np.arange(64) % 10, 10, 5)
        asked.append(Pipeline("ticket", images, model, masks, exit, kind, forest))
    rows = measure_pipelines(asked, (8,))
    assert asked_for == [list(masks), ["conv_1.weight", "conv_2.weight"]]
    assert [(row["features"], row["engine"].split(" + ")[0]) for row in rows] == [
        (kind, engine) for kind in (None, *poolings) for engine in (TORCH, SPARSE)
    ]
    assert all(row["seconds"] and row["reason"] is None and row["on_torch"] == [] for row in rows)


class TestReasons:
    def test_no_kernels(
        self,
        ticket: tuple[nn.Module, Masks],
        exit: Exit,
        forest: Forest,
        images: Tensor,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The rest is measured all the same."""

        def without(*_: Any) -> nn.Module:
            raise KernelError(NO_KERNELS)

        monkeypatch.setattr(measured, "sparsify", without)
        model, masks = ticket
        cut = Pipeline("ticket", images, model, masks, exit, "gap", forest, in_parts=True)
        rows = measure_pipelines([cut, Pipeline("ticket", images, model, masks)], (1,))
        assert [(row["part"], row["reason"], row["seconds"] is None) for row in rows] == [
            ("cnn", None, False),
            ("whole", None, False),
            ("cnn", NO_KERNELS, True),
            ("whole", NO_KERNELS, True),
            ("forest", None, False),
            ("whole", None, False),
            ("whole", NO_KERNELS, True),
        ]

    def test_a_call_that_fails_takes_no_other_with_it(
        self, ticket: tuple[nn.Module, Masks], exit: Exit, forest: Forest, images: Tensor
    ) -> None:
        """A forest of other features, and one of other pixels."""
        model, masks = ticket
        asked = [
            Pipeline("dense", images, model, masks, exit, "grid", forest, in_parts=True),
            Pipeline("pixels", images, forest=forest),
            Pipeline("dense", images, model, masks),
        ]
        rows = measure_pipelines(asked, (1, 3))
        assert [row["batch"] for row in rows] == [1] * 8 + [3] * 8
        for start in (0, 8):
            cnn, whole, sparse_cnn, sparse_whole, labels, pixels, *networks = rows[start : start + 8]
            for row in (cnn, sparse_cnn, *networks):
                assert row["reason"] is None
                assert row["seconds"] is not None
            for row in (labels, whole, sparse_whole, pixels):
                assert "takes float32 features (n, 6)" in row["reason"]
                assert row["seconds"] is None

    def test_nothing_to_measure(self) -> None:
        assert measure_pipelines([]) == []

    def test_half_a_pipeline_is_refused(
        self, ticket: tuple[nn.Module, Masks], exit: Exit, forest: Forest, images: Tensor
    ) -> None:
        model, masks = ticket
        network = {"model": model, "masks": masks}
        halves: list[dict[str, Any]] = [
            {},
            {"model": model},
            {"masks": masks, "forest": forest},
            {"exit": exit, "pooling": "gap"},
            {**network, "exit": exit, "pooling": "gap"},
            {**network, "forest": forest},
            {**network, "forest": forest, "exit": exit},
            {**network, "in_parts": True},
            {"forest": forest, "pooling": "gap"},
            {"forest": forest, "in_parts": True},
        ]
        for half in halves:
            with pytest.raises(ConfigError, match="a pipeline is a model with its masks, a forest, or both"):
                Pipeline("half", images, **half)
