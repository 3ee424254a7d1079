"""Config files: YAML in, a validated pydantic object out, and the canonical form that names a run.

The canonical form leaves out defaults, so that a new option with a default renames no old run.
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, cast, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from tombola.errors import ConfigError, StorageError, one_line
from tombola.registry import suggest
from tombola.runs import limits
from tombola.runs.atomic import read_bytes, storage_errors
from tombola.runs.shipped import config_path
from tombola.runs.strict_yaml import parse_yaml

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

CONFIG_SIZE_LIMIT = limits.CONFIG
ERRORS_SHOWN = 3


def _fit_for_a_folder(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", name):
        raise ValueError("a name has at most 40 letters from a to z, digits, - and _, and begins with no sign")
    return name


Name = Annotated[str, AfterValidator(_fit_for_a_folder)]
"""A run's name, which becomes part of its folder's."""


UNNAMED = object()
"""Marks a key that is no part of a run's name: it says how a result is computed, or how many, and not which."""
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], UNNAMED]
"""Where it is computed."""
CheckpointSeconds = Annotated[
    float, Field(ge=0, description="how often a training in progress is saved, in seconds"), UNNAMED
]
Replicates = Annotated[int, UNNAMED]
"""Whole experiments; more can be added to a run later."""


def each_once(thing: str) -> AfterValidator:
    """For keys that are tuples of names: none of them twice."""

    def check(names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"name each {thing} once")
        return names

    return AfterValidator(check)


class _RefusedError(ConfigError, ValueError):
    """A config that Python code cannot make; a ValueError, so that within a validator it is one problem of the key."""


class _InOneLine(ModelMetaclass):
    """Says in one line what pydantic says in many, where a config is made by Python code and not read."""

    if not TYPE_CHECKING:  # which would know no arguments of any config any more

        def __call__(self, *given, **named):
            try:
                return super().__call__(*given, **named)
            except ValidationError as error:
                raise _RefusedError(f"{self.__name__}: {_problems(error, self)}") from None


class Config(BaseModel, metaclass=_InOneLine):
    """Base of every config: unknown keys are errors, values are frozen, NaN and infinities refused.

    Validation is lax on purpose: PyYAML reads `1e-3` as a string, and `--set` hands over strings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    PARTS: ClassVar[tuple[str, ...]] = ()
    """Keys whose value is a config itself, written out, or the name or file of one, which `load_config` reads."""

    @model_validator(mode="before")
    @classmethod
    def _only_booleans_as_booleans(cls, content: Any) -> Any:
        """Lax validation would read `true` as 1, and the text `yes` or the number 1 as true."""
        if isinstance(content, dict):
            for name, value in content.items():
                if name not in cls.model_fields:
                    continue
                wanted = cls.model_fields[name].annotation is bool
                if isinstance(value, bool) and not wanted:
                    raise ValueError(f"{name} cannot be true or false (got {value})")
                if wanted and not isinstance(value, bool):
                    raise ValueError(f"{name} is true or false (got {_shown(value)})")
        return content

    def identity(self) -> dict[str, Any]:
        """The part of the canonical form that names the run: all that changes a result, defaults omitted."""
        return rebuilt(self, lambda part: part.as_named()).model_dump(mode="json", exclude_defaults=True)

    def as_named(self) -> Config:
        """This config, its parts apart, as it names a run: with the default of every key that names none."""
        defaults = {name: field.default for name, field in type(self).model_fields.items() if UNNAMED in field.metadata}
        return self.model_copy(update=defaults) if defaults else self


C = TypeVar("C", bound=Config)


def rebuilt(config: C, change: Callable[[Config], Config]) -> C:
    """`config` with `change` made to it and to every config within it, the innermost first."""
    return cast(C, _rebuilt(config, change))


def parts_of(config: Config) -> list[Config]:
    """`config` and every config within it."""
    found: list[Config] = []

    def look(part: Config) -> Config:
        found.append(part)
        return part

    rebuilt(config, look)
    return found


def _rebuilt(value: Any, change: Callable[[Config], Config]) -> Any:
    if isinstance(value, Config):
        parts = {name: getattr(value, name) for name in type(value).model_fields}
        new = {name: _rebuilt(part, change) for name, part in parts.items()}
        changed = {name: part for name, part in new.items() if part is not parts[name]}
        return change(value.model_copy(update=changed) if changed else value)
    if isinstance(value, tuple) and any(isinstance(part, Config) for part in value):
        return tuple(_rebuilt(part, change) for part in value)
    if isinstance(value, dict) and any(isinstance(part, Config) for part in value.values()):
        return {key: _rebuilt(part, change) for key, part in value.items()}
    return value


def load_config(path: Path, kind: type[C], overrides: Sequence[str] = (), source: str | None = None) -> C:
    """Reads and validates a YAML config; each override is `dotted.key=value`, its value read as YAML.

    A part is found by `config_path`, as a file perhaps beside `path`; overrides reach its keys as if they were written
    out. Raises ConfigError in one line that names the key, and the file or `source`, what the user calls it.
    """
    content = read_content(path)
    for override in overrides:
        _read_parts(content, kind, path)
        apply_override(content, override)
    _read_parts(content, kind, path)
    return validate(content, kind, source or str(path))


def read_content(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, of which nothing is known yet."""
    try:
        with storage_errors("read", path):
            if not path.exists():
                raise ConfigError(f"{path}: no such config file; `tombola configs` lists those that Tombola brings")
        content = parse_yaml(read_bytes(path, CONFIG_SIZE_LIMIT).decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {one_line(error)}") from None
    except StorageError as error:
        raise ConfigError(str(error)) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, found {_kind_of(content)}")
    return content


def _read_parts(content: dict[str, Any], kind: type[Config], path: Path) -> None:
    """Puts what they hold in the place of files that `content`, of the file `path`, names."""
    for name in kind.PARTS:
        if isinstance(content.get(name), str):
            try:
                content[name] = read_content(config_path(content[name], path.parent))
            except (ConfigError, OSError, ValueError) as error:  # the latter where it is no path at all
                raise ConfigError(f"{path}: {name}: {error}") from None


def validate(content: Any, kind: type[C], source: str) -> C:
    """`content` as a config of `kind`; ConfigError with `source` and the key of each problem otherwise."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_problems(error, kind)}") from None


def _problems(error: ValidationError, kind: type[BaseModel]) -> str:
    problems = error.errors(include_url=False)
    more = f" (and {len(problems) - ERRORS_SHOWN} more)" if len(problems) > ERRORS_SHOWN else ""
    return "; ".join(_describe(problem, kind) for problem in problems[:ERRORS_SHOWN]) + more


def parse_value(text: str, source: str) -> Any:
    """A value written as YAML on the command line; ConfigError with `source` otherwise."""
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} {text!r}: {one_line(error)}") from None


def dump_config(config: Config, *, defaults: bool = True) -> str:
    """The config, complete or without its defaults, as YAML that `load_config` reads back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=not defaults), sort_keys=False)


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def identity_hash(study: str, config: Config) -> str:
    """Eight hex digits that name the run of `config`: equal exactly when every result must be equal."""
    canonical = json.dumps([study, config.identity()], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def apply_override(content: dict[str, Any], override: str) -> None:
    """Puts the value of `dotted.key=value` into `content`; ConfigError where it is not written so."""
    key, equals, value = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r}: write it as key=value, for example training.batch_size=32")
    target: Any = content
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override!r}: {part!r} holds a value, not keys")
    target[parts[-1]] = parse_value(value, f"--set {key}=")


def _describe(problem: ErrorDetails, kind: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "config"
    if problem["type"] == "extra_forbidden":
        owner = _model_at(kind, problem["loc"][:-1])
        known = owner.model_fields if owner else ()
        return f"unknown key {key!r}{suggest(problem['loc'][-1], known)}"
    if problem["type"] == "missing":
        return f"{key} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("model_type", "dict_type"):
        message = "input should be keys and values"
    shown = _shown(problem["input"])
    return f"{key}: {message[0].lower()}{message[1:]}" + (
        "" if isinstance(problem["input"], dict) else f" (got {shown})"
    )


def _shown(value: Any) -> str:
    """A short form of `value`, cheap even where a few lines of YAML aliases unfold to billions of items."""
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxstring, brief.maxother = 2, 60, 60
    try:
        given = brief.repr(value)
    except ValueError:  # an integer of thousands of digits
        given = f"a huge {type(value).__name__}"
    return given if len(given) <= 60 else given[:57] + "..."


def _model_at(kind: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """The nested model that a key belongs to, to list the keys it knows."""
    current: type[BaseModel] | None = kind
    for part in location:
        field = current.model_fields.get(str(part)) if current else None
        if field is None:
            return None
        candidates = (field.annotation, *get_args(field.annotation))
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return current


def _kind_of(value: Any) -> str:
    return "an empty file" if value is None else f"a {type(value).__name__}"
