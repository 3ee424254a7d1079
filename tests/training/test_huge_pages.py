"""Large pages change where memory lies in the machine, and nothing that a program sees."""

from __future__ import annotations

import torch

from tombola.training.huge_pages import prefer_large_pages


def test_content_and_address_stay() -> None:
    for count in (0, 1, 5_000_000):
        numbers = torch.arange(count, dtype=torch.float32)
        address, before = numbers.data_ptr(), numbers.clone()
        prefer_large_pages(numbers)
        prefer_large_pages(numbers[count // 3 :])
        assert numbers.data_ptr() == address
        assert torch.equal(numbers, before)
