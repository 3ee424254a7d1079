"""What a person writes becomes a checked config, and one line when it cannot."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from tombola.errors import ConfigError, printable
from tombola.runs.configs import CONFIG_SIZE_LIMIT, Config, dump_config, identity_hash, load_config


class Inner(Config):
    learning_rate: float = 1e-2
    batch_size: int = Field(60, ge=1)


class Outer(Config):
    name: str
    training: Inner = Inner()
    densities: tuple[float, ...] = ()
    rates: dict[str, float] = Field(default_factory=dict)
    folder: Path | None = None


class Switched(Config):
    name: str = "a"
    on: bool = False


class OuterOfTomorrow(Outer):
    new_option: int = 3


def _load(folder: Path, text: str | bytes, *overrides: str) -> Outer:
    path = folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(path, Outer, overrides)


def test_an_exponent_without_a_dot_is_a_number(tmp_path: Path) -> None:
    text = "name: a\ntraining: {learning_rate: 1e-3}\ndensities: [5e-1, 2E-1]\n"
    config = _load(tmp_path, text)
    assert config.training.learning_rate == 1e-3
    assert config.densities == (0.5, 0.2)
    config = _load(tmp_path, text, "training.learning_rate=1e-4", "rates.fc1=2e-1")
    assert config.training.learning_rate == 1e-4
    assert config.rates == {"fc1": 0.2}


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "No", "y"])
def test_only_true_and_false_are_booleans(text: str, tmp_path: Path) -> None:
    """As in YAML 1.2: Norway's `no` is text, and no text switches anything."""
    path = tmp_path / "config.yaml"
    path.write_text(f"name: {text}")
    assert load_config(path, Switched).name == text
    for content in (f"'on': {text}", "on: 1", 'on: "true"'):
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"on is true or false \(got "):
            load_config(path, Switched)
    with pytest.raises(ConfigError, match="on is true or false"):
        load_config(path, Switched, [f"on={text}"])
    for value in ("true", "False", "TRUE"):
        path.write_text(f"on: {value}")
        assert load_config(path, Switched).on is (value.lower() == "true")


@pytest.mark.parametrize("text", ["1_000", "-1_0", "1_0.5", "0x1_F", "1_0e3", "1__0"])
def test_a_number_with_underscores_is_refused(text: str, tmp_path: Path) -> None:
    """PyYAML reads 1000, YAML 1.2 text."""
    for content, override in ((f"training: {{batch_size: {text}}}", ()), ("", (f"training.batch_size={text}",))):
        with pytest.raises(ConfigError, match=r"without _, or put text in quotes"):
            _load(tmp_path, f"name: a\n{content}", *override)
    assert _load(tmp_path, f"name: '{text}'").name == text
    assert _load(tmp_path, "name: v1_0").name == "v1_0"


def test_an_override_reaches_keys_that_the_file_does_not_have(tmp_path: Path) -> None:
    config = _load(tmp_path, "name: a\n", "training.batch_size=7", "densities=[0.5]", "name=b")
    assert (config.name, config.training.batch_size, config.densities) == ("b", 7, (0.5,))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.batch_size", "key=value"),
        ("=3", "key=value"),
        ("training..x=3", "key=value"),
        ("name.first=3", "'name' holds a value"),
        ("densities=[1", "--set"),
        ("densities=2001-99-99", "--set"),
        ("training.batch_sise=3", "did you mean 'batch_size'?"),
        ("training.batch_size=many", "training.batch_size"),
    ],
)
def test_an_override_that_cannot_be_used(tmp_path: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, "name: a\n", override)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


ALIASES_OF_ALIASES = "name:\n- &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"- &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(30)
)
BAD_FILES = {
    "empty": (b"", "an empty file"),
    "comment": (b"# nothing\n", "an empty file"),
    "list": (b"- 1\n- 2\n", "a list"),
    "text": (b"hello", "a str"),
    "binary": (bytes(range(256)), "not readable as YAML"),
    "NUL": (b"name: a\0", "not readable as YAML"),
    "open bracket": (b"name: [1", "not readable as YAML"),
    "deep": (b"[" * 100_000, "not readable as YAML"),
    "huge": (b"#" * (CONFIG_SIZE_LIMIT + 1), "more than"),
    "object": (b"name: !!python/object/apply:os.getcwd []", "not readable as YAML"),
    "two documents": (b"name: a\n---\nname: b\n", "not readable as YAML"),
    "impossible date": (b"name: 2001-99-99", "not readable as YAML"),
    "value of another tag": (b"name: !!int x", "not readable as YAML"),
    "mapping of another tag": (b"name: !!map [1]", "not readable as YAML"),
    "digits": (b"name: " + b"1" * 5_000, "not readable as YAML"),
    "hexadecimal digits": (b"name: 0x" + b"f" * 5_000, "name"),
    "duplicate key": (b"name: a\nname: b\n", "key 'name' is given twice"),
    "duplicate key inside": (b"name: a\ntraining: {batch_size: 1, batch_size: 2}", "key 'batch_size' is given twice"),
    "unknown key": (b"nam: a\n", "unknown key 'nam' (did you mean 'name'?)"),
    "unknown key inside": (b"name: a\ntraining: {learning_rat: 1}", "(did you mean 'learning_rate'?)"),
    "missing key": (b"densities: []\n", "name is missing"),
    "wrong type": (b"name: a\ntraining: {batch_size: [1]}", "training.batch_size"),
    "out of range": (b"name: a\ntraining: {batch_size: 0}", "training.batch_size"),
    "not a number": (b"name: a\ntraining: {learning_rate: .nan}", "training.learning_rate"),
    "infinite": (b"name: a\ntraining: {learning_rate: .inf}", "training.learning_rate"),
    "itself": (b"name: &x [*x]", "name"),
    "billions of aliases": (ALIASES_OF_ALIASES.encode(), "more than 10,000 keys and values"),
    "many problems": (b"a: 1\nb: 2\nc: 3\nd: 4\n", "(and 2 more)"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_used_is_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    content, says = BAD_FILES[case]
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, content)
    message = str(caught.value)
    assert says in message
    assert str(tmp_path / "config.yaml") in message
    assert "\n" not in message
    assert len(message) < 1_000


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "no.yaml", tmp_path, tmp_path / ("x" * 300), Path("a\0b")):
        with pytest.raises(ConfigError) as caught:
            load_config(path, Outer)
        assert printable(str(path)) in str(caught.value)
        assert "\n" not in str(caught.value)


@given(content=st.binary(max_size=60) | st.text("ab:-[]{}&*!?|>'\"#%@,0x1e.~<= \n\t", max_size=40).map(str.encode))
@settings(max_examples=150)
def test_any_bytes_are_a_config_or_a_config_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        message = ""
        try:
            _load(Path(folder), content)
        except ConfigError as error:
            message = str(error)
        assert "\n" not in message


FINITE = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(
    st.builds(
        Outer,
        name=WORDS,
        training=st.builds(Inner, learning_rate=FINITE, batch_size=st.integers(1, 10**9)),
        densities=st.lists(FINITE, max_size=3).map(tuple),
        rates=st.dictionaries(WORDS, FINITE, max_size=3),
        folder=st.sampled_from([None, Path("/a b/c"), Path("1e-3")]),
    )
)
@settings(max_examples=100)
def test_a_dumped_config_loads_back_equal(config: Outer) -> None:
    with tempfile.TemporaryDirectory() as folder:
        loaded = _load(Path(folder), dump_config(config))
    assert loaded == config
    assert identity_hash("s", loaded) == identity_hash("s", config)


def test_the_identity_names_what_was_asked_and_nothing_more(tmp_path: Path) -> None:
    short = _load(tmp_path, "name: a\n")
    spelled_out = _load(tmp_path, "name: a\ntraining: {batch_size: 60, learning_rate: 1e-2}\ndensities: []\n")
    assert identity_hash("lottery", short) == identity_hash("lottery", spelled_out)
    assert identity_hash("lottery", short) == identity_hash("lottery", OuterOfTomorrow(name="a"))
    others = [
        identity_hash("lottery", _load(tmp_path, "name: b\n")),
        identity_hash("lottery", _load(tmp_path, "name: a\n", "training.batch_size=61")),
        identity_hash("lottery", OuterOfTomorrow(name="a", new_option=4)),
        identity_hash("hybrid", short),
    ]
    assert len({identity_hash("lottery", short), *others}) == 5


def test_the_hash_of_old_runs_stays() -> None:
    assert identity_hash("lottery", Outer(name="a", densities=(0.5,))) == "17454258"


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer(name="a").name = "b"  # type: ignore[misc]


def test_a_config_that_python_code_makes_wrongly_is_one_line() -> None:
    for made, said in (
        (lambda: Inner(batch_size=0), "Inner: batch_size: input should be greater"),
        (lambda: Inner(rate=1), "Inner: unknown key 'rate'"),  # type: ignore[call-arg]
        (lambda: Outer(name="a", training={"batch_size": "b"}), "Outer: training.batch_size: "),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match=f"^{said}") as caught:
            made()
        assert "\n" not in str(caught.value)


def test_a_part_that_is_no_keys_and_values() -> None:
    with pytest.raises(ConfigError, match=r"Outer: training: input should be keys and values \(got 3\)$"):
        Outer(name="a", training=3)  # type: ignore[arg-type]
