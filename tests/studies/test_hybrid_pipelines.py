"""Measured pipelines: a row for every part, engine and batch size, or a reason. How long, nobody asks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tombola.compression import measured
from tombola.compression.runtime import sparsify
from tombola.errors import ConfigError, KernelError
from tombola.models import ModelSpec, build
from tombola.models.exits import Exit, find_exit
from tombola.pruning import Masks, prune
from tombola.runs.rows import Row
from tombola.studies.hybrid import pipelines as module
from tombola.studies.hybrid.exits import extractor, features_at, poolings
from tombola.studies.hybrid.forests import Forest, fit_forest, fit_pca
from tombola.studies.hybrid.pipelines import Pipeline, measure_pipelines

COLUMNS = [
    *("kind", "replicate", "network", "exit", "features", "batch", "part", "engine", "dtype", "threads"),
    *("on_torch", "reason", "seconds"),
]
NO_KERNELS = "this processor has neither AVX2 with FMA nor NEON"
TORCH, SPARSE, ONNX = "torch eager", "sparse kernels", "onnxruntime"


@pytest.fixture(scope="module")
def pictures() -> Tensor:
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
def forest(ticket: tuple[nn.Module, Masks], exit: Exit, pictures: Tensor) -> Forest:
    features = features_at(ticket[0], [exit], ["gap"], pictures)[exit.name, "gap"]
    return fit_forest(features, np.arange(64) % 10, 10, trees=5)


def without_clock(rows: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def key(row: Row) -> tuple[Any, ...]:
    return row["network"], row["batch"], row["part"], row["engine"]


def test_a_row_for_every_part_and_batch_size(
    ticket: tuple[nn.Module, Masks], exit: Exit, forest: Forest, pictures: Tensor
) -> None:
    model, masks = ticket
    pixels = pictures.flatten(1).numpy()
    pca = fit_forest(pixels, np.arange(64) % 10, 10, 5, projection=fit_pca(pixels, 4))
    asked = [
        Pipeline("dense", model, exit=exit, pooling="gap", forest=forest),
        Pipeline("ticket", model, masks, exit, "gap", forest),
        Pipeline("dense", model),
        Pipeline("ticket", model, masks),
        Pipeline("pca", forest=pca),
    ]
    rows = measure_pipelines(asked, pictures)
    expected = []
    for batch in (1, 64):
        expected += [
            ("dense", batch, "cnn", TORCH),
            ("dense", batch, "forest", ONNX),
            ("dense", batch, "whole", f"{TORCH} + {ONNX}"),
            ("ticket", batch, "cnn", SPARSE),
            ("ticket", batch, "forest", ONNX),
            ("ticket", batch, "whole", f"{SPARSE} + {ONNX}"),
            ("dense", batch, "whole", TORCH),
            ("ticket", batch, "whole", SPARSE),
            ("pca", batch, "whole", ONNX),
        ]
    assert [key(row) for row in rows] == expected
    for row in rows:
        assert list(row) == COLUMNS
        assert (row["kind"], row["replicate"], row["dtype"], row["threads"]) == ("latency", 0, "float32", 1)
        hybrid = row["network"] != "pca" and (row["part"] != "whole" or "+" in row["engine"])
        assert (row["exit"], row["features"]) == ((exit.name, "gap") if hybrid else (None, None))
        assert (row["reason"], row["on_torch"]) == (None, [])
        low, median, high = row["seconds"]
        assert 0 < low <= median <= high
    assert json.loads(json.dumps(rows)) == rows
    assert without_clock(measure_pipelines(asked, pictures)) == without_clock(rows)


def test_calls_do_what_they_are_called(
    ticket: tuple[nn.Module, Masks], exit: Exit, forest: Forest, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is timed gives features and labels of real batches of the size, under one thread and no gradients."""
    model, masks = ticket
    given: list[tuple[int, list[Any]]] = []

    def watch(ways: dict[int, Any], seconds: float, least_blocks: int) -> dict[int, list[float]]:
        assert torch.get_num_threads() == 1
        assert not torch.is_grad_enabled()
        assert not model.training
        given.append((len(ways), [way() for way in ways.values()]))
        return {way: [1.0, 2.0, 3.0] for way in ways}

    monkeypatch.setattr(module, "interleaved", watch)
    pixels = fit_forest(pictures.flatten(1).numpy(), np.arange(64) % 10, 10, 5)
    asked = [
        Pipeline("ticket", model, masks, exit, "gap", forest),
        Pipeline("ticket", model, masks),
        Pipeline("pixels", forest=pixels),
    ]
    model.train()
    rows = measure_pipelines(asked, pictures, batch_sizes=(64,))
    assert model.training
    model.eval()
    assert [row["seconds"] for row in rows] == [[1.5, 2.0, 2.5]] * 5
    features = features_at(model, [exit], ["gap"], pictures)[exit.name, "gap"]
    ((count, (cnn, labels, whole, logits, by_pixels)),) = given
    assert count == 5
    np.testing.assert_allclose(cnn, features, atol=1e-6)
    np.testing.assert_array_equal(labels, forest.predict(features))
    np.testing.assert_array_equal(whole, labels)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(pictures))
    np.testing.assert_array_equal(by_pixels, pixels.predict(pictures.flatten(1).numpy()))


@pytest.mark.parametrize("kind", list(poolings))
def test_sparse_kernels_take_the_cut_network_over(
    ticket: tuple[nn.Module, Masks], exit: Exit, kind: str, pictures: Tensor
) -> None:
    """With the masks of what is before the exit; only the largest values are left to torch."""
    model, masks = ticket
    part = extractor(model, exit, kind)
    within = module._within(masks, part)
    assert list(within) == ["conv_1.weight", "conv_2.weight"]
    sparse = sparsify(part, within, pictures[:8], batch_sizes=(8,))
    assert sparse.unsupported == (["features: MeanAndMost"] if kind == "gap+max" else [])
    with torch.no_grad():
        torch.testing.assert_close(sparse(pictures[:8]), part(pictures[:8]), rtol=0, atol=1e-5)


def test_what_torch_keeps_is_named(
    ticket: tuple[nn.Module, Masks], exit: Exit, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, masks = ticket
    monkeypatch.setattr(measured, "sparsify", sparsify)
    features = features_at(model, [exit], ["gap+max"], pictures)[exit.name, "gap+max"]
    forest = fit_forest(features, np.arange(64) % 10, 10, 5)
    rows = measure_pipelines([Pipeline("ticket", model, masks, exit, "gap+max", forest)], pictures, (8,))
    assert [(row["part"], row["on_torch"], row["reason"]) for row in rows] == [
        ("cnn", ["features: MeanAndMost"], None),
        ("forest", [], None),
        ("whole", ["features: MeanAndMost"], None),
    ]


class TestReasons:
    def test_no_kernels(
        self,
        ticket: tuple[nn.Module, Masks],
        exit: Exit,
        forest: Forest,
        pictures: Tensor,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The rest is measured all the same."""

        def without(*_: Any) -> nn.Module:
            raise KernelError(NO_KERNELS)

        monkeypatch.setattr(measured, "sparsify", without)
        model, masks = ticket
        asked = [Pipeline("ticket", model, masks, exit, "gap", forest), Pipeline("ticket", model, masks)]
        rows = measure_pipelines([*asked, Pipeline("dense", model)], pictures, (1,))
        assert [(row["part"], row["reason"], row["seconds"] is None) for row in rows] == [
            ("cnn", NO_KERNELS, True),
            ("forest", None, False),
            ("whole", NO_KERNELS, True),
            ("whole", NO_KERNELS, True),
            ("whole", None, False),
        ]

    def test_a_call_that_fails_takes_no_other_with_it(
        self, ticket: tuple[nn.Module, Masks], exit: Exit, forest: Forest, pictures: Tensor
    ) -> None:
        """A forest of other features, and one of other pixels."""
        model, _ = ticket
        asked = [
            Pipeline("dense", model, exit=exit, pooling="grid", forest=forest),
            Pipeline("pixels", forest=forest),
            Pipeline("dense", model),
        ]
        rows = measure_pipelines(asked, pictures, (1, 3))
        assert [row["batch"] for row in rows] == [1] * 5 + [3] * 5
        for start in (0, 5):
            cnn, labels, whole, pixels, network = rows[start : start + 5]
            for row in (cnn, network):
                assert row["reason"] is None
                assert row["seconds"] is not None
            for row in (labels, whole, pixels):
                assert "takes float32 features (n, 6)" in row["reason"]
                assert row["seconds"] is None

    def test_nothing_to_measure(self, pictures: Tensor) -> None:
        assert measure_pipelines([], pictures) == []

    def test_half_a_pipeline_is_refused(self, ticket: tuple[nn.Module, Masks], exit: Exit, forest: Forest) -> None:
        model, _ = ticket
        halves: list[dict[str, Any]] = [
            {},
            {"exit": exit, "pooling": "gap"},
            {"model": model, "exit": exit, "pooling": "gap"},
            {"model": model, "forest": forest},
            {"model": model, "forest": forest, "exit": exit},
            {"forest": forest, "pooling": "gap"},
        ]
        for half in halves:
            with pytest.raises(ConfigError, match="a pipeline is a model, a forest, or both"):
                Pipeline("half", **half)
