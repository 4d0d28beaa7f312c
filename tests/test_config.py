"""YAML and overrides -> settings: the scalars of YAML 1.2, mistakes named with their key, a dump that reads back."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train import config
from dist_train.__main__ import main, resolve
from dist_train.settings import Config


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            (word, word)
            for word in ("yes", "no", "on", "off", "Yes", "True", "FALSE", "y", "007", "0x1F", "1_000", "1:30")
        ),
        *(("true", True), ("false", False), ("null", None), ("~", None), ("", None)),
        *(
            ("0", 0),
            ("-12", -12),
            ("+3", 3),
            ("1e-3", 1e-3),
            ("1E5", 1e5),
            (".5", 0.5),
            ("2.", 2.0),
            ("-1.5e+2", -150.0),
            (".inf", float("inf")),
        ),
        *(("9/10", "9/10"), ("2024-01-01", "2024-01-01"), ("1.2.3", "1.2.3"), ("'12'", "12")),
    ],
)
def test_scalars_of_yaml_1_2(text: str, value: Any) -> None:
    found = config.parse(text, "here")
    assert (type(found), found) == (type(value), value)


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]))  # PyYAML itself loses U+0085


@given(st.recursive(TEXT | st.integers() | st.booleans() | st.none(), lambda inner: st.lists(inner, max_size=3)))
def test_a_plain_value_survives_yaml(value: Any) -> None:
    assert config.parse(config.yaml.dump(value, Dumper=config._Dumper, allow_unicode=True), "here") == value


WORDS = TEXT.filter(bool) | st.sampled_from(["yes", "on", "007", "null", "1e3", "~", "0", "true", "a: b", "#"])
LENGTHS = st.floats(min_value=1e-3, max_value=1e3)
CONFIGS = st.fixed_dictionaries(
    {
        "run": st.fixed_dictionaries({"name": st.none() | WORDS, "seed": st.integers(0, 2**63 - 1)}),
        "data": st.fixed_dictionaries(
            {
                "shards": st.lists(WORDS, min_size=1, max_size=3),
                "eval_folds": st.lists(st.integers(0, 32767), max_size=3),
            }
        ),
        "augment": st.fixed_dictionaries(
            {
                "speed": st.lists(
                    st.fractions(Fraction(1, 4), Fraction(4), max_denominator=100), min_size=1, max_size=4
                ),
                "gain_db": st.none() | st.tuples(LENGTHS, LENGTHS).map(sorted),
                "mixup": st.fixed_dictionaries({"probability": st.floats(0, 1)}),
                "spec": st.none() | st.just({}),
            }
        ),
        "optim": st.fixed_dictionaries({"lr": LENGTHS, "min_lr": st.just(0), "ema": st.none() | st.just(0.999)}),
        "audio": st.fixed_dictionaries({"channels": st.sampled_from(["mono", "first", 1, 8])}),
        "compile": st.booleans(),
    }
)


@settings(deadline=None)
@given(CONFIGS)
def test_a_dump_reads_back(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    before = config.check(values, "here")
    file = tmp_path_factory.getbasetemp() / "dumped.yaml"
    file.write_text(config.dump(before), encoding="utf-8")
    assert config.load(file) == before


@given(st.sampled_from([*sorted(dict(config.flat(config.plain(Config())))), "augment.spec.probability"]))
def test_every_default_may_be_given(key: str) -> None:
    value = dict(config.flat(config.plain(Config()))).get(key, 0.5)
    assert dict(config.flat(config.plain(config.load(None, [f"{key}={json.dumps(value)}"]))))[key] == value


def test_overrides_lie_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "data: {shards: [one, two], batch_size: 3}\naugment: {spec: null}\n# a comment\noptim: {lr: 1e-2}\n"
    )
    found = resolve(
        str(file), ["data.batch_size=5", "augment.spec.freq_masks=1", "augment.speed=[0.9, 1]", "optim.lr=2"]
    )
    assert found.data.shards == ["one", "two"] and found.data.batch_size == 5
    assert found.augment.spec is not None and found.augment.spec.freq_masks == 1
    assert found.augment.speed == [Fraction(9, 10), Fraction(1)]
    assert (found.optim.lr, found.run.name) == (2.0, "mine")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("optim: {learning_rate: 1}", "unknown key `optim.learning_rate`"),
        ("optim: {weight_decays: 1}", "did you mean `optim.weight_decay`?"),
        ("batch_size: 3", "did you mean `data.batch_size`?"),
        ("augment: {spec: {freq_mask: 1}}", "did you mean `augment.spec.freq_masks`?"),
        ("xyzzy: 1", "--print-config shows all keys"),
        ("augment: {stretch: true}", "augment.stretch: wants keys of its own, {key: value, ...}, not True"),
        ("run: {epochs: '3'}", "run.epochs: input should be a valid integer, not '3'"),
        ("run: {deterministic: yes}", "run.deterministic: input should be a valid boolean, not 'yes'"),
        ("run: {name: 007}\ndata: {shards: 3}", "data.shards: input should be a valid list, not 3"),
        ("augment: {speed: [1/0]}", "augment.speed.0"),
        ("augment: {speed: [5]}", "must lie between 1/4 and 4, not 5"),
        ("augment: {gain_db: [3, -3]}", "the lower end of gain_db comes first: [-3.0, 3.0]"),
        ("features: {name: mel, dither: 1.0}", "dither has no effect with name=mel"),
        ("features: {name: fbank, center: false}", "center has no effect with name=fbank"),
        ("features: {name: mel, center: false, pad_mode: constant}", "pad_mode has no effect with center=False"),
        ("features: {hop_length: 160, frame_shift: 12.5}", "frame_shift has no effect with hop_length=160"),
        ("features: {name: fbank, scale: db}", "fbank has power=1 or 2 and scale=ln or linear"),
        ("features: {name: mel, top_db: 80}", "top_db is for scale=db"),
        ("augment: {noise: {shards: [n], snr_db: [20, 5]}}", "the lower end of snr_db comes first"),
        ("augment: {reverb: {shards: [n], wet: [0.5, 1.5]}}", "wet is a range of shares from 0 to 1"),
        ("log: {profile: [5, 3]}", "profile is the first and the last step"),
        ("graphs: true", "graphs=true makes CUDA graphs of compiled blocks"),
        ("optim: {lr: 1e-6}", "optim.min_lr (1e-05) is above optim.lr (1e-06)"),
        ("data: {eval_folds: [1], eval_split: test}", "data.eval_folds and data.eval_split exclude each other"),
        ("precision: fp64\ncompile: true", "precision=fp64 is for comparisons and is not compiled"),
        ("data: 3", "data"),
        ("- data", "a configuration is a mapping of sections, not a list"),
        ("optim: {lr: 1\n", "line 2"),
        ("optim: {lr: 1}\noptim: {lr: 2}", "line 2: key `optim` is given twice"),
        ("optim: !!python/object:os.system {}", "line 1"),
        ("\tdata: 1", "line 1"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        config.load(file)
    assert told in str(caught.value) and str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_every_setting_is_described() -> None:
    schema = Config.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    lacking = [name for one in sections for name, field in one["properties"].items() if not field.get("description")]
    assert lacking == []


def test_print_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("")
    assert main([str(file), "optim.lr=0.5", "--print-config"]) == 0
    shown = config.parse(capsys.readouterr().out, "shown")
    assert shown["optim"]["lr"] == 0.5 and shown["run"]["name"] == "mine"
    assert set(dict(config.flat(shown))) == set(dict(config.flat(config.plain(Config()))))


def test_the_schema_file_is_the_generated_one(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    assert main(["--print-schema"]) == 0
    assert (root / "configs/schema.json").read_text(encoding="utf-8") == capsys.readouterr().out


def test_every_recipe_is_sound(root: Path) -> None:
    for path in sorted((root / "configs").glob("*.yaml")):
        assert config.load(path).data.shards
