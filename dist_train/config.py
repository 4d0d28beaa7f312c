"""YAML file + `a.b=value` overrides -> a checked `settings.Config`; every mistake is one line that names the key.

YAML 1.2 rules: only `true` and `false` are booleans, `1e-3` is a number, `on`, `yes` and `007` are strings.
"""

import difflib
import json
import re
import reprlib
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from dist_train import presets
from dist_train.settings import Config, effects
from dist_train.settings.packed import refusal

DEEPEST, LONGEST = 40, 100_000  # levels and values of a YAML text
DEMO_SHARDS, DEMO_MIXTURES = "shards/demo", "shards/demo_mixtures"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalar types of YAML 1.2. Errors are also: a key given twice, or one that is no plain text;
    an anchor inside itself; more than DEEPEST levels."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        around: list[str | None] = self.__dict__.setdefault("around", [])  # anchors of the nodes that this one lies in
        if len(around) >= DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"more than {DEEPEST} levels", event.start_mark)
        alias = isinstance(event, yaml.AliasEvent)
        if alias and event.anchor in around:
            raise yaml.composer.ComposerError(None, None, f"`{event.anchor}` holds itself", event.start_mark)
        around.append(None if alias else event.anchor)
        node = super().compose_node(parent, index)
        around.pop()
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no plain text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key `{key.value}` is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_SCALARS = {
    "bool": (r"true|false", "tf"),
    "null": (r"null|~|", "n~\0"),
    "int": (r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?([0-9]+\.[0-9]*([eE][-+]?[0-9]+)?|\.[0-9]+([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.inf)|\.nan",
        "-+.0123456789",
    ),
}
for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(re.sub(r"\.(?=inf|nan)", "", node.value)))


def parse(text: str, where: str) -> Any:
    """The value of a YAML text. Errors: `ValueError` naming `where` and the line."""
    try:
        value = yaml.load(text, Loader=_Loader)  # a SafeLoader: plain values only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ValueError(f"{where}{line}: {problem}; write plain YAML") from None
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # of values that a tag says are of another type
        raise ValueError(
            f"{where}: a value is not of the type that it says ({_short(str(error))}); write plain YAML"
        ) from None
    if _values(value, {}) > LONGEST:
        raise ValueError(f"{where}: its aliases stand for more than {LONGEST} values; write plain YAML")
    return value


def _values(value: Any, known: dict[int, int]) -> int:
    """Values in a value, what aliases name counted each time. `known`: of containers that were counted, by identity."""
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    if inner and id(value) not in known:
        known[id(value)] = sum(_values(one, known) for one in inner)
    return 1 + known.get(id(value), 0)


def load(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """The configuration of a file (none: all defaults) with `a.b=value` overrides laid over it."""
    values = _read(Path(path)) if path is not None else {}
    return over(values, overrides, str(path) if path is not None else "command line")


def over(values: dict[str, Any], overrides: Iterable[str], where: str) -> Config:
    """Plain values with `a.b=value` overrides laid over them, in place. Errors: as `load`."""
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"`{text}` is no override: write section.key=value")
        _place(values, key, parse(value, f"override {key}"))
    return check(values, where)


def check(values: dict[str, Any], where: str) -> Config:
    """Plain values -> Config. Errors: `ValueError` with the key, what is wrong, and the nearest key or the range."""
    _known(values, Config, "", where)
    values = presets.filled(values)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if str(part).isidentifier() or isinstance(part, int))
        message = first["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        if first["type"] == "model_type":
            message = "wants keys of its own, {key: value, ...}"
        given = "" if isinstance(first["input"], dict) else f", not {_short(first['input'])}"
        raise ValueError(f"{where}: {key}: {message}{given}") from None
    _agree(config, where)
    return config


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxlist, _BRIEF.maxdict = 4, 12, 12
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 160


def _short(value: Any) -> str:
    """A value in a message; by aliases a short text can mean a very long one."""
    return _BRIEF.repr(value).partition("\n")[0]


def dump(config: Config) -> str:
    """The whole configuration as YAML that `load` reads back to an equal one."""
    return yaml.dump(plain(config), sort_keys=False, allow_unicode=True, width=120, Dumper=_Dumper)


def plain(config: Config) -> dict[str, Any]:
    """The configuration as plain numbers, strings, lists and dicts."""
    values: dict[str, Any] = config.model_dump(mode="json")
    return values


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(`a.b`, value) pairs of nested dicts."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def schema() -> str:
    """The JSON Schema of the configuration, the text of configs/schema.json."""
    return json.dumps(Config.model_json_schema(), indent=2) + "\n"


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what `_Loader` would read as something else than the string it is."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such configuration; see configs/ for the recipes") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    values = parse(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a configuration is a mapping of sections, not a {type(values).__name__}")
    return values


def _place(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            inner = values[parent] = {}
        values = inner
    values[last] = value


def _section(annotation: Any) -> type[BaseModel] | None:
    """The settings class behind a field's annotation (`Section` or `Section | None`), if it is one."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _known(values: dict[str, Any], section: type[BaseModel], prefix: str, where: str) -> None:
    """Refuse unknown keys, naming the nearest key of the whole configuration."""
    for key, value in values.items():
        if key not in section.model_fields:
            name = f"{prefix}{key}"
            keys = list(_keys(Config, ""))
            tails = {known.rsplit(".", 1)[-1]: known for known in keys}
            near = difflib.get_close_matches(name, keys, 1, 0.6)
            near = near or [tails[tail] for tail in difflib.get_close_matches(str(key), list(tails), 1, 0.6)]
            hint = f"did you mean `{near[0]}`?" if near else "--print-config shows all keys"
            raise ValueError(f"{where}: unknown key `{name}`; {hint}")
        inner = _section(section.model_fields[key].annotation)
        if inner is not None and isinstance(value, dict):
            _known(value, inner, f"{prefix}{key}.", where)


def _keys(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        inner = _section(field.annotation)
        if inner is not None:
            yield from _keys(inner, f"{prefix}{name}.")


def _agree(config: Config, where: str) -> None:
    """Settings that exclude each other."""
    data = config.data
    for kind in ("eval", "valid"):
        given = [f"data.{kind}_{part}" for part in ("shards", "folds", "split") if getattr(data, f"{kind}_{part}")]
        if len(given) > 1:
            raise ValueError(f"{where}: {given[0]} and {given[1]} exclude each other: give one")
    both = set(data.eval_folds) & set(data.valid_folds)
    if both:
        raise ValueError(f"{where}: fold {min(both)} is in data.eval_folds and data.valid_folds: give it to one")
    if data.eval_split is not None and data.eval_split == data.valid_split:
        raise ValueError(f"{where}: data.eval_split and data.valid_split are both `{data.eval_split}`")
    if config.optim.min_lr > config.optim.lr:
        raise ValueError(f"{where}: optim.min_lr ({config.optim.min_lr}) is above optim.lr ({config.optim.lr})")
    if config.optim.schedule == "plateau" and not (data.valid_shards or data.valid_folds or data.valid_split):
        raise ValueError(
            f"{where}: optim.schedule=plateau goes by the score on a validation set; give data.valid_folds, "
            "data.valid_split or data.valid_shards"
        )
    if config.features.name in ("mfcc", "torchaudio_mfcc") and config.features.ceps > config.features.bins:
        raise ValueError(f"{where}: features.ceps ({config.features.ceps}) is above features.bins")
    if config.features.name in ("waveform", "hf") and config.augment.spec is not None:
        name = config.features.name
        raise ValueError(f"{where}: augment.spec masks a spectrum and features.name={name} has none: leave it out")
    if config.features.name == "hf" and config.audio.channels not in ("mono", "first", 1):
        raise ValueError(f"{where}: audio.channels={config.audio.channels}: an encoder hears one channel; take mono")
    if config.features.name == "packed" and (refused := refusal(config.audio, config.augment)):
        raise ValueError(f"{where}: {refused}")
    for reason in effects.impossible(config.audio, config.augment, config.features):
        raise ValueError(f"{where}: {reason}")
    if config.objective.speed_classes and (1 not in config.augment.speed or len(set(config.augment.speed)) < 2):
        raise ValueError(f"{where}: objective.speed_classes wants 1 and another factor in augment.speed; leave it out")
    if config.precision == "fp64" and config.compile:
        raise ValueError(f"{where}: precision=fp64 is for comparisons and is not compiled: set compile=false")
    if config.graphs and not config.compile:
        raise ValueError(f"{where}: graphs=true makes CUDA graphs of compiled blocks: set compile=true as well")
