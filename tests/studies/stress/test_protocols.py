"""What tasks are made of: disjoint, of the size asked for, short enough, and the same for the same seed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.data.text import TextTask, tiny_tokenizer
from tombola.data.text.generated import LEVELS
from tombola.data.text.items import Item
from tombola.data.text.shipped_text import PRETRAINING, text_of
from tombola.data.text.user_tasks import SHIPPED
from tombola.data.text.written import ABOUT, windows
from tombola.errors import ConfigError, DataError
from tombola.runs.seeds import derive_seed
from tombola.studies.stress.subjects.protocols import PROBE, PROTOCOLS, Protocol, harder, probe_task, protocol_tasks

SIZES = (320, 256)
LEVELLED = [(name, level) for name, levels in LEVELS.items() for level in range(1, levels + 1)]
CONTRADICTING = (("sentiment", "sentiment-flipped"), ("continued", "reversed"), ("literal", "idiomatic"))


def every_task(seed: int) -> list[TextTask]:
    tasks = [task for protocol in PROTOCOLS for task in protocol_tasks(protocol, seed)]
    return [*tasks, probe_task(seed), *(harder(name, level, seed) for name, level in LEVELLED)]


def texts(items: tuple[Item, ...]) -> set[str]:
    return {item.text for item in items}


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_train_and_held_out_share_nothing(seed: int) -> None:
    for task in every_task(seed):
        train, held_out = texts(task.train), texts(task.held_out)
        assert (len(train), len(held_out)) == SIZES, task.name
        assert not train & held_out, task.name
        assert not {item.prompt for item in task.train if item.prompt} & {item.prompt for item in task.held_out}


def test_what_is_held_out_is_in_no_text_that_is_read_before() -> None:
    read = "\n".join(text_of(kind, "pretraining") for kind in PRETRAINING)
    for kind in ABOUT:
        read_for_task = read if kind == PROBE else read + text_of(kind, "train")
        assert not [text for text in windows(kind, "held_out") if text in read_for_task], kind


@pytest.mark.parametrize("replicate", range(5))
def test_no_network_meets_what_it_is_scored_on(replicate: int) -> None:
    """In no task of its protocol, at no level that its tasks may come to, and not before it was given to the study."""
    seed, read = derive_seed(42, "stress", replicate), "\n".join(text_of(kind, "pretraining") for kind in PRETRAINING)
    for protocol in PROTOCOLS:
        tasks = protocol_tasks(protocol, seed, 320, 128)
        harder_ones = [harder(task.name, level, seed, 320, 128) for task in tasks for level in levels_of(task.name)]
        met = {item.text: task.name for task in (*tasks, *harder_ones) for item in task.train}
        begun = {beginning(task, item) for task in (*tasks, *harder_ones) for item in task.train}
        for task in tasks:
            held_out = texts(task.held_out)
            assert not [(text, met[text]) for text in held_out if text in met], task.name
            assert not [text for text in held_out if text in read], task.name
            if task.name in LEVELS:
                assert not begun & {beginning(task, item) for item in task.held_out}, task.name


def levels_of(name: str) -> range:
    """Those that are harder than the first, by which a task is scored."""
    return range(2, LEVELS.get(name, 1) + 1)


def beginning(task: TextTask, item: Item) -> tuple[str, str]:
    """What an item asks, in whatever task it does; a run of letters may have another mark after it."""
    marked = task.name in ("continued", "reversed")
    return ("runs" if marked else task.name, item.prompt[:-1] if marked else item.prompt)


@pytest.mark.parametrize("pair", CONTRADICTING)
@pytest.mark.parametrize("seed", [0, 7])
def test_contradicting_tasks_leak_no_label(pair: tuple[str, str], seed: int) -> None:
    """The inputs are the same, the answers never; what one holds out the other does not train on."""
    tasks = {task.name: task for task in protocol_tasks("conflict", seed)}
    one, other = (tasks[name] for name in pair)
    for a, b in ((one, other), (other, one)):
        assert not {item.prompt for item in a.held_out} & {item.prompt for item in b.train}
    answers = [{item.prompt: item.completion for item in (*task.train, *task.held_out)} for task in (one, other)]
    shared = answers[0].keys() & answers[1].keys()
    assert len(shared) == sum(SIZES)
    assert all(answers[0][prompt] != answers[1][prompt] for prompt in shared)


def test_a_review_has_two_labels_in_equal_numbers() -> None:
    (task,) = (task for task in protocol_tasks("conflict", 3) if task.name == "sentiment")
    for part in (task.train, task.held_out):
        assert sum(item.completion == "P" for item in part) == len(part) // 2


@given(protocol=st.sampled_from(sorted(PROTOCOLS)), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=10)
def test_tasks_are_a_function_of_protocol_and_seed(protocol: Protocol, seed: int) -> None:
    tasks = protocol_tasks(protocol, seed, 12, 9)
    assert tasks == protocol_tasks(protocol, seed, 12, 9)
    assert [task.name for task in tasks] == list(PROTOCOLS[protocol])
    assert all(
        task.train != other.train for task, other in zip(tasks, protocol_tasks(protocol, seed ^ 1, 12, 9), strict=True)
    )


def test_every_item_has_64_tokens_at_most() -> None:
    """With the token that begins it."""
    pytest.importorskip("transformers")
    tokenizer = tiny_tokenizer()
    every = {(part, text) for part in ("train", "held_out") for kind in ABOUT for text in windows(kind, part)}
    whole = [text for _, text in every] + [item.text for task in every_task(5) for item in task.train + task.held_out]
    assert max(map(len, tokenizer(whole, add_special_tokens=False)["input_ids"])) <= 63


def test_no_task_of_somebodys_own_has_the_name_of_a_shipped_one() -> None:
    assert {task.name for task in every_task(0)} == SHIPPED


def test_the_probe_is_in_no_protocol() -> None:
    assert PROBE not in {name for names in PROTOCOLS.values() for name in names}
    assert probe_task(0).name == PROBE


def test_levels_are_harder() -> None:
    assert [harder("recall", level, 0, 8, 8).difficulty for level in (1, 2)] == [1, 2]
    lengths = [
        [sum(len(item.text) for item in harder(name, level, 0).train) for level in (1, LEVELS[name])] for name in LEVELS
    ]
    assert all(short < long for short, long in lengths)


def test_no_beginning_of_a_run_is_in_both_parts() -> None:
    for name in ("continued", "reversed"):
        for level in range(1, LEVELS[name] + 1):
            task = harder(name, level, 4)
            train, held_out = ({item.prompt[:-1] for item in part} for part in (task.train, task.held_out))
            assert not train & held_out


def test_sums_are_right() -> None:
    for level in range(1, LEVELS["arithmetic"] + 1):
        for item in harder("arithmetic", level, 1).held_out:
            assert eval(item.prompt.rstrip("=")) == int(item.completion.rstrip("."))


def test_every_value_of_a_recall_is_what_its_key_had() -> None:
    for item in harder("recall", 3, 2).held_out:
        said, _, key = item.prompt.partition(";")
        pairs = {said[at]: said[at + 1] for at in range(0, len(said), 2)}
        again = key + item.completion
        assert {again[at]: again[at + 1] for at in range(0, len(again), 2)} == pairs


@pytest.mark.parametrize(("name", "level"), [("german", 1), ("recall", 0), ("recall", 7), ("../x", 1)])
def test_levels_that_do_not_exist_are_refused(name: str, level: int) -> None:
    with pytest.raises(ConfigError, match=r"has no levels|difficulty of recall is 1 to 6"):
        harder(name, level, 0)


def test_more_items_than_there_are_is_an_error() -> None:
    with pytest.raises(DataError, match=r"the task german has .* items, not 5000: ask for fewer"):
        protocol_tasks("diverse", 0, 5000)
    with pytest.raises(DataError, match="hardly more than"):
        harder("arithmetic", 1, 0, 3000, 10)


def test_unknown_protocols_are_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown protocol 'divers' .did you mean 'diverse'"):
        protocol_tasks("divers", 0)


def test_a_task_that_holds_out_what_it_trains_on_is_refused() -> None:
    with pytest.raises(DataError, match="is to be trained on and is held out, too"):
        TextTask("x", "", (Item("a", "b"),), (Item("", "ab"),))
