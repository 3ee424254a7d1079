"""Examples from Python code: the same tensors whatever they come in, and refused by name where they are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from tombola.data import DataConfig, Normalisation, load_data, normalised
from tombola.data.dataset import Examples
from tombola.data.given import given_examples, given_parts
from tombola.errors import DataError
from tombola.runs import limits

INPUTS, TARGETS = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3
FORMS: dict[str, Any] = {
    "tensors": (INPUTS, TARGETS),
    "arrays": (INPUTS.numpy(), TARGETS.numpy().astype(np.int32)),
    "lists of numbers": [INPUTS.numpy(), TARGETS.numpy()],
    "examples": Examples(INPUTS, TARGETS),
    "a data set": TensorDataset(INPUTS, TARGETS),
    "a list of pairs": list(zip(INPUTS, TARGETS.tolist(), strict=True)),
    "a loader": DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=4),
    "a training loader": DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=4, shuffle=True, drop_last=True),
    "a loader without batches": DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=None),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_give_the_same(form: str) -> None:
    found = given_examples(FORMS[form])
    assert torch.equal(found.inputs, INPUTS)
    assert torch.equal(found.targets, TARGETS)
    assert (found.inputs.dtype, found.targets.dtype) == (torch.float32, torch.int64)


def test_a_data_set_gives_its_parts() -> None:
    data = load_data(DataConfig(name="digits"), 0)
    assert given_parts(data) == (data.train, data.validation, data.test)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ((INPUTS, TARGETS.float()), "not classes"),
        ((INPUTS, TARGETS[:4]), "10 inputs but 4 targets"),
        ([(INPUTS[0], 1), (INPUTS[1, :2], 0)], "differ in shape"),
        ([INPUTS[0]], "not pairs"),
        ([], "is empty"),
        (7, "int is no pair"),
        ((INPUTS.to(torch.complex64), TARGETS), "complex"),
        (
            DataLoader(TensorDataset(INPUTS, TARGETS), sampler=WeightedRandomSampler([1.0] * 10, 10)),
            "samples by WeightedRandomSampler",
        ),
    ],
)
def test_what_is_no_examples_is_said(part: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"training: .*{said}"):
        given_examples(part, "training")


def test_inputs_that_were_normalised_are_refused() -> None:
    """The model of a ticket would say that it takes them as they were before."""
    with pytest.raises(DataError, match="normalised already"):
        given_parts(normalised(load_data(DataConfig(name="digits"), 0), Normalisation((0.5,), (0.5,))))


def test_more_than_memory_should_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DATA", 50)
    with pytest.raises(DataError, match="more than 50 bytes"):
        given_examples(DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=4), "training")


@pytest.mark.parametrize("data", [None, (INPUTS, TARGETS), [1, 2, 3, 4]])
def test_other_things_are_no_data(data: Any) -> None:
    with pytest.raises(DataError, match="three parts"):
        given_parts(data)
