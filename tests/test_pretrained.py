"""Start from weights: files of every kind, ours and official names, what is refused, a frozen start that is killed."""

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from launches import CLASSES, Job, Run, arguments, train
from networks import lived
from torch import Tensor, nn

from dist_train import config, models, pretrained, weights
from dist_train.__main__ import main

SHORT = ("run.max_steps=2", "optim.ema=0.9")
NAMES = [f"class{number}" for number in range(5)]
TINY: dict[str, dict[str, Any]] = {
    "ecapa": {"channels": 8, "embedding": 8},
    "campplus": {"channels": 8, "embedding": 8},
    "eres2net": {"channels": 8, "embedding": 8},
    "eres2netv2": {"channels": 8, "embedding": 8},
    "tdnn": {"channels": 8, "embedding": 8},
    "cnn6": {"channels": 8, "embedding": 8},
    "cnn4": {"channels": 8},
}


def _wrapped_twice(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SpeechBrain's names: each convolution and each norm inside a module of its own."""
    kinds = {name: "norm" if isinstance(m, nn.BatchNorm1d) else "conv" for name, m in model.named_modules()}
    return {
        f"{key.rpartition('.')[0]}.{kinds[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value
        for key, value in state.items()
    }


def _renamed(*rules: tuple[str, str]) -> Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]]:
    def rename(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for key, value in state.items():
            name = key
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            found[name] = value
        return found

    return rename


OFFICIAL = {  # the way back from our names to theirs, written out once more
    "ecapa": _wrapped_twice,
    "campplus": _renamed((r"^front\.", "head.")),
    "eres2net": _renamed(),
    "eres2netv2": _renamed(),
    "tdnn": _renamed(
        (r"^frames\.(\d)\.conv\.", r"td_layer\1."),
        (r"^frames\.(\d)\.norm\.", r"bn\1."),
        (r"^segment\.norm1\.", "bn5."),
        (r"^segment\.norm2\.", "bn6."),
        (r"^segment\.pooling\.(\w+)\.conv\.", r"pooling.\1.conv.conv."),
        (r"^segment\.pooling\.(\w+)\.norm\.", r"pooling.\1.norm.norm."),
        (r"^segment\.", ""),
    ),
    "cnn6": _renamed(),
    "cnn4": _renamed((r"^block(\d)\.conv\.", r"conv\1."), (r"^block(\d)\.norm\.", r"bn\1.")),
}


def _tiny(name: str, seed: int, classes: int = 5, bins: int = 24) -> models.Model:
    torch.manual_seed(seed)
    return lived(models.build(name, bins, classes, **TINY[name]))


def _begin(
    model: nn.Module, file: Path, name: str = "ecapa", classes: list[str] = NAMES, **more: Any
) -> pretrained.Report:
    settings = config.check({"model": {"name": name, "pretrained": str(file), **more}}, "test")
    chosen, report = pretrained.begin(settings, model, classes)
    model.load_state_dict(chosen, strict=False)
    return report


def _body(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items() if not key.startswith("head.")}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("headed", [False, True])
@torch.no_grad()
def test_official_names_load(name: str, headed: bool, tmp_path: Path) -> None:
    """The same embeddings from the same weights under the names of the system; and the same logits with its head."""
    source, model = _tiny(name, 1), _tiny(name, 2)
    state = OFFICIAL[name](source, _body(source))
    if headed:
        head = "output" if name == "ecapa" else "lin" if name == "cnn4" else "fc"
        state |= {f"{head}.weight": source.head.weight, f"{head}.bias": source.head.bias}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "their.ckpt")
    report = _begin(model, tmp_path / "their.ckpt", name, pretrained_head="keep" if headed else "drop")
    assert (report.missing, report.unexpected, report.reshaped, report.share) == ([], [], {}, 1.0)
    feat_BTF = torch.randn(2, 60, 24)
    torch.testing.assert_close(model.embed(feat_BTF), source.embed(feat_BTF), rtol=0, atol=0)
    assert torch.equal(model(feat_BTF), source(feat_BTF)) == headed
    assert report.head == ("kept" if headed else "fresh")


def _save_safetensors(state: dict[str, Tensor], file: Path) -> None:
    """The format by hand: the length of the header, the header, the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    numbers = b""
    for key, value in state.items():
        kind = {torch.float32: "F32", torch.int64: "I64"}[value.dtype]
        data = value.contiguous().numpy().tobytes()
        header[key] = {
            "dtype": kind,
            "shape": list(value.shape),
            "data_offsets": [len(numbers), len(numbers) + len(data)],
        }
        numbers += data
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + numbers)


FORMS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "bare.pt": torch.save,
    "in_model.pth": lambda state, file: torch.save({"iteration": 1, "model": state}, file),
    "theirs.pt": lambda state, file: torch.save(  # not ours, by its step: a number
        {"step": 7, "classes": ["a"], "config": {"model": "ecapa"}, "model": state}, file
    ),
    "twice.ckpt": lambda state, file: torch.save({"model_state_dict": {"embedding_model": state}}, file),
    "parallel.bin": lambda state, file: torch.save({f"module.{key}": value for key, value in state.items()}, file),
    "compiled.pt": lambda state, file: torch.save({f"module._orig_mod.{k}": v for k, v in state.items()}, file),
    "prefix.pt": lambda state, file: torch.save(
        {f"embedding_model.{key}": value for key, value in state.items()} | {"classifier.weight": torch.ones(9, 8)},
        file,
    ),
    "old.pt": lambda state, file: torch.save(state, file, _use_new_zipfile_serialization=False),
    "counters.pt": lambda state, file: torch.save({k: v for k, v in state.items() if "num_b" not in k}, file),
    "half.pt": lambda state, file: torch.save(
        {k: v.half() if v.is_floating_point() else v for k, v in state.items()}, file
    ),
    "plain.safetensors": _save_safetensors,
}


@pytest.mark.parametrize("form", FORMS)
def test_files_of_every_kind(form: str, tmp_path: Path) -> None:
    source, model = _tiny("ecapa", 1), _tiny("ecapa", 2)
    state = _wrapped_twice(source, _body(source))
    FORMS[form](state, tmp_path / form)
    report = _begin(model, tmp_path / form)
    assert (report.missing, report.unexpected, report.reshaped) == ([], [], {})
    assert report.left_out == (["classifier.weight"] if form == "prefix.pt" else [])
    for key, value in _body(source).items():
        if form == "half.pt":
            torch.testing.assert_close(_body(model)[key], value, rtol=1e-3, atol=1e-6)
        elif "num_b" not in key or form != "counters.pt":
            assert torch.equal(_body(model)[key], value), key


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda text: text != "__metadata__"),
        st.tuples(st.lists(st.integers(0, 3), max_size=3), st.booleans()),
        max_size=4,
    )
)
@settings(deadline=None, max_examples=20)
def test_safetensors_of_the_library(tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, Any]) -> None:
    library = pytest.importorskip("safetensors.torch")
    kinds = {key: torch.bfloat16 if half else torch.float64 for key, (_, half) in shapes.items()}
    state = {key: torch.randn(shape, dtype=torch.float64).to(kinds[key]) for key, (shape, _) in shapes.items()}
    file = tmp_path_factory.mktemp("library") / "x.safetensors"
    library.save_file(state, file, {"format": "pt"})
    found, _ = weights.safetensors(file)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) and found[key].dtype == kinds[key] for key in state)


class Trap:
    """What an unpickler would run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("old", [False, True])
def test_nothing_is_unpickled(tmp_path: Path, old: bool) -> None:
    mark, file = tmp_path / "mark", tmp_path / "trap.pth"
    torch.save({"model": {"weight": torch.ones(2)}, "trap": Trap(mark)}, file, _use_new_zipfile_serialization=not old)
    with pytest.raises(ValueError, match="holds more than tensors and is not unpickled") as caught:
        weights.read(str(file))
    assert "convert it: torch.save(" in str(caught.value) and "\n" not in str(caught.value)
    assert not mark.exists()
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"module.pth: holds more than tensors.*Linear"):
        weights.read(str(tmp_path / "module.pth"))


def _flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_files_that_cannot_be(tmp_path: Path) -> None:
    def told(file: str) -> str:
        with pytest.raises(ValueError) as caught:
            _begin(_tiny("ecapa", 2), tmp_path / file)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    source = _tiny("ecapa", 1)
    state = _wrapped_twice(source, _body(source))
    assert "nowhere.pt: no such file or run folder" in told("nowhere.pt")
    assert "holds no sound checkpoint (step-*.pt)" in told(".")
    torch.save(state, tmp_path / "good.pt")
    shutil.copy(tmp_path / "good.pt", tmp_path / "flipped.pt")
    _flipped(tmp_path / "flipped.pt")
    assert "flipped.pt: cannot be read as weights" in told("flipped.pt") and "is damaged" in told("flipped.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "good.pt").read_bytes()[:999])
    assert "cut.pt: cannot be read as weights" in told("cut.pt")
    (tmp_path / "text.safetensors").write_bytes(b"hello, world")
    assert "text.safetensors: not a whole safetensors file" in told("text.safetensors")
    _save_safetensors(state, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-9])
    assert "cut.safetensors: not a whole safetensors file" in told("cut.safetensors")
    for name, ends in (("endless", [0, torch.inf]), ("before", [-8, -4]), ("behind", [0, 800])):
        header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": ends}}).encode()
        (tmp_path / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
        assert f"{name}.safetensors: not a whole safetensors file" in told(f"{name}.safetensors")
    torch.save({"optimizer": [1, 2], "epoch": 3}, tmp_path / "empty.pt")
    assert "empty.pt: holds no named tensors" in told("empty.pt")
    key = "mfa.conv.conv.weight"
    torch.save(state | {key: torch.full_like(state[key], torch.inf)}, tmp_path / "inf.pt")
    assert "inf.pt: mfa.conv.weight holds values that are not finite" in told("inf.pt")
    torch.save(OFFICIAL["campplus"](nn.Module(), _body(_tiny("campplus", 1))), tmp_path / "campplus.pt")
    assert "holds 0% of this ecapa (90% are needed)" in told("campplus.pt")
    assert "its names are those of model.name=campplus" in told("campplus.pt")
    wide = models.build("ecapa", 24, 5, channels=16, embedding=8)
    torch.save(_wrapped_twice(wide, _body(wide)), tmp_path / "wide.pt")
    assert "blocks.0.conv.weight [16, 24, 5] there, [8, 24, 5] here" in told("wide.pt")
    assert "give the sizes of that network (model.channels" in told("wide.pt")
    less = {key: value for key, value in state.items() if not key.startswith("asp.")}
    torch.save(less, tmp_path / "less.pt")
    assert "8 missing (asp.tdnn.conv.weight, asp.tdnn.conv.bias, asp.tdnn.norm.weight, " in told("less.pt")


def test_a_head_that_cannot_be_kept(tmp_path: Path) -> None:
    source = _tiny("ecapa", 1)
    state = _wrapped_twice(source, _body(source))
    head = {"output.weight": source.head.weight, "output.bias": source.head.bias}

    def told(state: dict[str, Tensor], classes: list[str]) -> str:
        torch.save(state, tmp_path / "x.pt")
        with pytest.raises(ValueError) as caught:
            _begin(_tiny("ecapa", 2, len(classes)), tmp_path / "x.pt", classes=classes, pretrained_head="keep")
        return str(caught.value)

    assert "x.pt: holds no classifier to keep; set model.pretrained_head=drop" in told(state, NAMES)
    assert "its classifier's head.weight is [5, 8] there, [4, 8] here" in told(state | head, NAMES[:4])
    cosines = {"projection.weight": torch.ones(5, 8)}  # of a margin loss, without a bias
    assert "its classifier's head.bias is not there, [5] here" in told(state | cosines, NAMES)


@pytest.fixture(scope="module")
def first(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two steps with a moving average."""
    return train(tmp_path_factory.mktemp("first"), shards, *SHORT)


def _network(classes: int = 4) -> models.Model:
    return models.build("ecapa", 20, classes, channels=8, embedding=16)


def test_our_checkpoints(first: Run, tmp_path: Path) -> None:
    """A file, a run's folder, its checkpoints' folder: the average of the newest; of the best where there is one."""
    payload = first.last()
    names = [name for name, _ in _network().named_parameters()]
    averaged = dict(zip(names, payload["step"]["ema"], strict=False))
    for path in (first.folder, first.folder / "checkpoints", first.saved()[-1]):
        model = _network()
        report = _begin(model, path, classes=list(CLASSES), pretrained_head="keep")
        assert report.averaged and report.origin == "dist_train" and report.head == "kept" and report.share == 1
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, averaged[name]), name
            assert not torch.equal(parameter, payload["step"]["model"][name]), name
        assert "features.bins=20, not 80" in str(report.warning)
    folder = Path(shutil.copytree(first.folder, tmp_path / "best"))
    newest = folder / "checkpoints/step-00000002.pt"
    plain = torch.load(newest, weights_only=True)
    plain["step"]["ema"] = None
    torch.save(plain, folder / "checkpoints/step-00000001.pt")
    (folder / "checkpoints/best.json").write_text('{"step": 1, "value": 0.5, "file": "step-00000001.pt"}')
    model = _network()
    report = _begin(model, folder, classes=list(CLASSES))
    assert report.path.endswith("step-00000001.pt") and not report.averaged and report.head == "fresh"
    assert torch.equal(model.mfa.conv.weight, payload["step"]["model"]["mfa.conv.weight"])


def test_rows_of_our_heads_go_by_name(first: Run) -> None:
    order = ["rain", "gong"]
    model = _network(2)
    _begin(model, first.folder, classes=order, pretrained_head="keep")
    state = first.last()["step"]
    rows = [CLASSES.index(name) for name in order]
    at = [name for name, _ in model.named_parameters()].index("head.weight")
    assert torch.equal(model.head.weight, state["ema"][at][rows])
    with pytest.raises(ValueError, match=r"class 'siren' is not among its 4; set model.pretrained_head=drop"):
        _begin(_network(2), first.folder, classes=["rain", "siren"], pretrained_head="keep")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model.pretrained=nowhere"], "model.pretrained: nowhere: no such file or run folder"),
        (["model.pretrained=FIRST", "model.channels=16"], "of another shape (blocks.0.conv.weight [8, 20, 5] there"),
        (["model.pretrained=FIRST", "model.pooling=tap"], "its moving average is of another network"),
        (["model.pretrained=FIRST", "model.name=campplus"], "holds weights of ecapa, and model.name is campplus"),
        (["model.freeze_epochs=1"], "model: freeze_epochs is for weights of model.pretrained, and there are none"),
        (["model.pretrained_head=keep"], "model: pretrained_head is for weights of model.pretrained"),
    ],
)
def test_runs_that_are_refused(
    first: Run, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], told: str
) -> None:
    """One line, exit 2; and what an earlier run left is still in its place."""
    home = tmp_path / "runs"
    shutil.copytree(first.folder, home / "tiny")
    given = [text.replace("FIRST", str(first.folder)) for text in overrides]
    command = arguments(home, shards, *SHORT, "run.resume=never", *given)
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        assert main(command) == 2
    finally:
        torch.use_deterministic_algorithms(deterministic)
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
    assert (home / "tiny/checkpoints/step-00000002.pt").exists() and (home / "tiny/metrics.jsonl").stat().st_size


def test_another_optimizer_goes_on_with_moments_of_its_own(first: Run, shards: Path, tmp_path: Path) -> None:
    begun = (f"run.resume={first.saved()[-1]}", "optim.ema=0.9", "run.max_steps=4", "optim.name=NAdam")
    begun = (*begun, "model.pretrained=nowhere")  # a run that goes on does not look there
    run = train(tmp_path, shards, *begun)
    assert run.column("step") == [3, 4]
    moments = run.last()["step"]["optimizer"]["state"]
    assert {tuple(sorted(values)) for values in moments.values()} == {("exp_avg", "exp_avg_sq", "mu_product", "step")}
    assert {float(values["step"]) for values in moments.values()} == {2.0}


LENGTH = ("run.max_steps=8", "optim.ema=0.5", "model.freeze_epochs=1.5", "model.pretrained_head=keep")  # 3 of 8 steps


@pytest.mark.full
def test_a_frozen_start_of_two_ranks_killed_twice(first: Run, shards: Path, tmp_path: Path) -> None:
    """Killed while frozen and after; the same end as undisturbed, bit for bit, though the file is gone by then."""
    file = tmp_path / "given.pt"
    shutil.copy(first.saved()[-1], file)
    given = (*LENGTH, f"model.pretrained={file}", "optim.layer_decay=0.7")
    undisturbed = train(tmp_path / "undisturbed", shards, *given, "checkpoint.keep=99", ranks=2)
    note = json.loads((undisturbed.folder / "pretrained.json").read_text())
    assert note["origin"] == "dist_train" and note["missing"] == [] and note["head"] == "kept" and note["averaged"]

    command = arguments(tmp_path / "killed", shards, *given, "checkpoint.every_minutes=1e-6", "checkpoint.keep=99")
    one = Job(command, tmp_path / "killed", 2)
    one.until(lambda: bool(one.run.saved()) and one.run.steps() >= 2)
    one.kill()
    assert "starts from" in one.text() and "moving average" in one.text()
    file.unlink()
    two = Job(command, tmp_path / "killed", 2)
    two.until(lambda: two.run.steps() >= 6)
    two.kill()
    last = Job(command, tmp_path / "killed", 2)
    assert last.wait() == [0, 0], last.text()
    assert last.text().count("starts from") == 1
    assert json.loads((last.run.folder / "pretrained.json").read_text()) == note

    for name in ("loss", "accuracy", "lr", "stream", "grad_norm"):
        assert last.run.column(name) == undisturbed.column(name)
    one_end, other_end = undisturbed.last()["step"], last.run.last()["step"]
    for key, value in one_end["model"].items():
        assert torch.equal(value, other_end["model"][key]), key
    assert all(map(torch.equal, one_end["ema"], other_end["ema"]))
    assert last.run.result() == undisturbed.result()
    _assert_frozen(last.run, first)


def _assert_frozen(run: Run, first: Run) -> None:
    """Every checkpoint of the frozen steps has the body that was given, and a head that moved; the others moved all."""
    names = [name for name, _ in _network().named_parameters()]
    names += [name for name, buffer in _network().named_buffers() if buffer.is_floating_point()]
    begun = dict(zip(names, first.last()["step"]["ema"], strict=True))
    seen = set()
    for path in run.saved():
        payload = torch.load(path, weights_only=True)
        frozen = payload["progress"]["step"] <= 3
        seen.add(frozen)
        for name, value in payload["step"]["model"].items():
            if name in begun:
                moved = not torch.equal(value, begun[name])
                assert moved == (name.startswith("head.") or not frozen), (path.name, name)
    assert seen == {True, False}


def test_a_plateau_goes_on_where_it_was(shards: Path, tmp_path: Path) -> None:
    """Over a stop, the rates are those that the scores of all evaluations ask for."""
    given = (
        *("data.valid_folds=[2]", "evaluation.every_epochs=1", "optim.schedule=plateau", "optim.patience=1"),
        *("optim.warmup_epochs=0", "optim.step_factor=0.5", "optim.name=rmsprop", "optim.arguments={momentum: 0.9}"),
    )
    train(tmp_path, shards, *given, "run.max_steps=5")
    run = train(tmp_path, shards, *given, "run.max_steps=8")
    scores = [record["accuracy"] for record in run.metrics("valid")]
    assert run.column("step") == list(range(1, 9)) and len(scores) == 8
    reductions = [sum(scores[n] <= max(scores[:n]) for n in range(1, count)) for count in range(1, 9)]
    assert run.column("lr") == pytest.approx([1e-3] + [max(1e-5, 1e-3 * 0.5**count) for count in reductions[:-1]])
    assert reductions[-1] > reductions[4] >= 1  # before the stop and after it
