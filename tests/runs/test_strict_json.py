"""JSON of strangers: doubled keys are refused, and that costs no more than reading them."""

from __future__ import annotations

import time

import pytest

from tombola.runs.strict_json import parse_json


@pytest.mark.parametrize("content", ['{"a": 1, "b": 2, "a": 1}', '{"x": [{"b": 0, "a": 1, "a": 2}]}'])
def test_a_key_given_twice_is_named(content: str) -> None:
    with pytest.raises(ValueError, match="key 'a' is given twice"):
        parse_json(content)


def test_many_names_before_the_doubled_one_cost_no_more_than_their_number() -> None:
    """Each of them looked up among all takes half a minute; walked through once it is some hundredths of a second."""
    names = ",".join(f'"{number}":0' for number in range(50_000))
    begin = time.process_time()
    with pytest.raises(ValueError, match="key 'last' is given twice"):
        parse_json(f'{{{names},"last":0,"last":0}}')
    assert time.process_time() - begin < 3
