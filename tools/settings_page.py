#!/usr/bin/env python3
"""Writes docs/settings.md: every setting of the configuration, with type, range, default and meaning.

Example:
  python tools/settings_page.py

It is made from the classes in dist_train/settings, as configs/schema.json is; a test holds it equal to them.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PAGE = ROOT / "docs/settings.md"
HEAD = """\
# Every setting

Made from the configuration's own classes by `python tools/settings_page.py`; a test keeps it equal to them. A
configuration is a YAML file of sections; on the command line `section.key=value` lies over it:

```
python -m dist_train configs/esc10.yaml run.name=mine optim.lr=5e-4 'data.eval_folds=[2]' augment.mixup.probability=0.5
```

A value is YAML: `true`, `null`, `1e-3`, `[1, 2]`, `{key: value}`. Only `true` and `false` are booleans, so classes and
names may be `yes`, `no` or `007`. An unknown key, a wrong type or a value out of range is an error that names the key.
A section that is `null` is off; giving one of its keys turns it on, with the defaults below for the others.
`python -m dist_train CONFIG --print-config` shows the whole as it was understood. Editors complete and check a YAML
file whose first line is `# yaml-language-server: $schema=schema.json` by [configs/schema.json](../configs/schema.json).

"""
ABOUT = {
    "data": "[shards.md](shards.md), [order.md](order.md), [storage.md](storage.md)",
    "audio": "[features.md](features.md)",
    "augment": "[augmentation.md](augmentation.md)",
    "features": "[features.md](features.md), [encoders.md](encoders.md)",
    "model": "[models.md](models.md), [pretrained.md](pretrained.md)",
    "objective": "[objectives.md](objectives.md)",
    "optim": "[pretrained.md](pretrained.md)",
    "checkpoint": "[recovery.md](recovery.md)",
    "run": "[recovery.md](recovery.md), [clusters.md](clusters.md)",
}
"""Section -> the pages that say more."""
EXAMPLES = {
    "run": "run.name=mine run.epochs=60 run.seed=1",
    "data": "'data.shards=[shards/mine, s3://sounds/shards]' 'data.eval_folds=[1]' data.batch_size=128",
    "audio": "audio.seconds=5.0 audio.short=pad",
    "augment": "'augment.speed=[1]' augment.shift=0.5 augment.mixup.probability=0.4",
    "augment.noise": "'augment.noise.shards=[shards/noise]' 'augment.noise.snr_db=[5, 20]'",
    "augment.spec": "augment.spec.freq_masks=2 augment.spec.time_masks=2",
    "features": "features.name=mel features.bins=64 features.norm=dataset",
    "model": "model.name=campplus model.embedding=192",
    "objective": "objective.name=softmax objective.label_smoothing=0.1",
    "optim": "optim.name=sgd optim.lr=0.1 optim.momentum=0.9 optim.ema=0.999",
    "evaluation": "evaluation.every_epochs=5 evaluation.clip=full",
    "checkpoint": "checkpoint.every_minutes=10 checkpoint.keep=3",
    "log": "log.every=20 log.tensorboard=false",
}
"""Section -> what a command line may say of it; a test reads each."""

Schema = dict[str, Any]


def sections(whole: Schema) -> Iterator[tuple[str, Schema, bool]]:
    """(name, its schema, whether it may be null) of every section in order; the top comes first, with no name."""
    yield "", whole, False

    def below(one: Schema, prefix: str) -> Iterator[tuple[str, Schema, bool]]:
        for key, field in one["properties"].items():
            inner, off = section(field, whole)
            if inner is not None:
                yield f"{prefix}{key}", inner, off
                yield from below(inner, f"{prefix}{key}.")

    yield from below(whole, "")


def section(field: Schema, whole: Schema) -> tuple[Schema | None, bool]:
    """The schema of a field that is a section, and whether it may be null."""
    for one in (field, *field.get("anyOf", [])):
        if "$ref" in one:
            return whole["$defs"][one["$ref"].rpartition("/")[2]], one is not field
    return None, False


def kind(field: Schema) -> str:
    """Type and range, as a person says it."""
    if "anyOf" in field:
        return " or ".join(kind(one) for one in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{_yaml(value)}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return _list(field)
    if isinstance(field.get("type"), list):  # a factor: a fraction as text, or a number
        return "fraction (`9/10`, `0.9`)"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}
    name = names.get(field.get("type", ""), {"null": "`null`", "object": "mapping"}.get(field.get("type", ""), "any"))
    return f"{name}{_range(field)}"


def _list(field: Schema) -> str:
    if "prefixItems" in field:
        inner = list(dict.fromkeys(kind(one) for one in field["prefixItems"]))
        return f"[{', '.join(inner * (len(field['prefixItems']) if len(inner) == 1 else 1))}]"
    least = f" ({field['minItems']} or more)" if field.get("minItems") else ""
    return f"list{least}: {kind(field.get('items', {}))}"


def _range(field: Schema) -> str:
    low = next((f"{mark} {_number(field[key])}" for key, mark in LOW.items() if key in field), "")
    high = next((f"{mark} {_number(field[key])}" for key, mark in HIGH.items() if key in field), "")
    step = f"multiple of {field['multipleOf']}" if "multipleOf" in field else ""
    told = ", ".join(part for part in (low, high, step) if part)
    return f" {told}" if told else ""


LOW = {"minimum": "≥", "exclusiveMinimum": ">"}
HIGH = {"maximum": "≤", "exclusiveMaximum": "<"}


def _number(value: float) -> str:
    return "2^63" if value == 2**63 else f"{value}"


def _yaml(value: Any) -> str:
    """A value as it stands in a configuration."""
    if isinstance(value, str):
        return value or "''"
    return re.sub(r'"([\w/.-]+)"', r"\1", json.dumps(value, ensure_ascii=False))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def row(key: str, field: Schema, needed: bool, whole: Schema) -> str:
    """One line of a table."""
    inner, off = section(field, whole)
    if inner is not None:
        told, default = f"[section](#{_anchor(key)}){' or `null`' if off else ''}", "`null`" if off else "there"
        if off and field.get("default") is not None:
            default = "on"
    else:
        told, default = kind(field), "to be given" if needed else f"`{_yaml(field.get('default'))}`"
    return f"| `{key}` | {_cell(told)} | {_cell(default)} | {_cell(field.get('description', ''))} |\n"


def _anchor(name: str) -> str:
    """GitHub's anchor of a heading."""
    return name.replace(".", "")


def page() -> str:
    """The whole page in Markdown."""
    from dist_train.settings import Config

    whole = Config.model_json_schema()
    found = list(sections(whole))
    links = [f"[{name}](#{_anchor(name)})" for name, _, _ in found if name]
    lines = [HEAD, f"Sections: {', '.join(links)}.\n\n"]
    for name, one, off in found:
        about = f" More: {ABOUT[name]}." if name in ABOUT else ""
        lines.append(f"## {name or 'The whole'}\n\n{one.get('description', '')}{about}")
        lines.append(" Off (`null`) unless given.\n\n" if off and not _on(name, whole) else "\n\n")
        if name in EXAMPLES:
            lines.append(f"```\n{EXAMPLES[name]}\n```\n\n")
        lines.append("| key | type and range | default | |\n|---|---|---|---|\n")
        prefix = f"{name}." if name else ""
        needed = one.get("required", [])
        lines += [row(f"{prefix}{key}", field, key in needed, whole) for key, field in one["properties"].items()]
        lines.append("\n")
    return "".join(lines).rstrip("\n") + "\n"


def _on(name: str, whole: Schema) -> bool:
    """Whether a section that may be null is on by default."""
    parent, _, key = name.rpartition(".")
    one = next(schema for other, schema, _ in sections(whole) if other == parent)
    return one["properties"][key].get("default") is not None


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 written, 2 bad arguments."""
    form = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=form).parse_args(argv)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
