"""What a file says of a waveform is what the run says: of any batch and length, by every front end and network.

Files are asked in processes that cannot import torch. Reference of the front end: NumPy in float64; of the windows: the
plan of evaluation.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from launches import Run
from networks import TINY, lived, tiny

from dist_train import config, models, saved
from dist_train.export import beside, clips, facts, interchange, program, small, tensors
from dist_train.export.cut import Cut
from dist_train.export.graph import Graph
from dist_train.export.spectra import Frames, Power
from dist_train.frontend import FrontEnd
from dist_train.inference import Model, load
from dist_train.inference.scorer import Scorer
from dist_train.models import campplus
from dist_train.settings import Augment, Config
from dist_train.view import VIEW_ROW
from dist_train.window import eval_windows

CLASSES = ("a,b", "<b>", "猫", 'q"uote', "no")
WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "dist_train", "torchaudio"):
            raise ImportError(name + " is not to be had here")
sys.meta_path.insert(0, Refuse())
"""


def _settings(**sections: dict[str, Any]) -> Config:
    given = {"audio": {"seconds": 0.7}, "features": {"bins": 20}, "model": {"name": "linear"}}
    return config.check({name: given.get(name, {}) | sections.get(name, {}) for name in given | sections}, "test")


def _model(settings: Config, network: torch.nn.Module | None = None) -> Model:
    """A run as `load` gives it, with a network that was never trained."""
    plain = Augment(speed=[Fraction(1)])  # type: ignore[call-arg]
    front = FrontEnd(settings.audio, plain, settings.features, seed=0, device="cpu", listen=0)
    random = torch.Generator().manual_seed(1)
    if settings.features.norm == "dataset":
        front.statistics = torch.rand(2, front.bins, generator=random, dtype=torch.float64) + 0.5
    if network is None:
        torch.manual_seed(2)
        network = models.build(settings.model.name, front.bins, len(CLASSES), sources=front.channels)
    found = saved.Saved(settings, CLASSES, network.eval().requires_grad_(False), front, Path("step-1.pt"))
    return Model(Scorer(found, padded=False), None)


def _eager(model: Model) -> beside.Answer:
    graph = Graph(model.origin)

    def ask(wave: beside.Wave) -> Any:
        with torch.no_grad():
            return tuple(value.numpy() for value in graph(torch.from_numpy(wave)))

    return ask


FRONT_ENDS: dict[str, dict[str, Any]] = {
    "fbank": {},
    "fbank, hamming": {"window": "hamming", "norm": "cmvn"},
    "fbank, energy": {"use_energy": True, "htk_compat": True, "norm": "none"},
    "fbank, edges": {"snip_edges": False, "norm": "clip", "waveform_scale": 32768.0},
    "fbank, odd": {"win_length": 441, "hop_length": 147, "fft": 450, "power": 1.0, "norm": "batch"},
    "fbank, plain": {"preemphasis": 0.0, "remove_dc": False, "scale": "linear", "norm": "cmvn"},
    "mfcc": {"name": "mfcc", "norm": "dataset"},
    "mfcc, energy": {"name": "mfcc", "use_energy": True, "raw_energy": False},
    "mel": {"name": "mel", "norm": "dataset"},
    "mel, dB": {"name": "mel", "scale": "db", "top_db": 60.0, "norm": "none", "window": "hanning", "fft": 512},
    "mel, ends": {"name": "mel", "pad_mode": "circular", "pad": 30, "normalized": "window", "norm": "none"},
    "spectrogram": {"name": "spectrogram", "bins": None, "power": 1.5, "center": False, "norm": "clip"},
    "torchaudio": {"name": "torchaudio_mfcc", "norm": "none"},
}
SOUNDS: dict[str, dict[str, Any]] = {
    "pad": {"short": "pad"},
    "random_pad": {"short": "random_pad"},
    "level of the clip": {"target_db": -25.0},
    "level of the window": {"target_db": -25.0, "level": "crop", "short": "pad"},
    "two channels": {"channels": 2},
    "two channels, pad": {"channels": 2, "short": "pad", "target_db": -20.0},
}


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_every_front_end(name: str) -> None:
    given = {"bins": 20} | FRONT_ENDS[name]
    features = {key: value for key, value in given.items() if value is not None}
    settings = config.check({"audio": {"seconds": 0.7}, "features": features, "model": {"name": "linear"}}, "test")
    model = _model(settings)
    found = beside.difference(model, _eager(model), beside.noises(model))
    assert found.clips == 16 and found.largest < beside.LIMIT and not found.others


OTHERS = [pytest.param(one, marks=pytest.mark.full) for one in ({"name": "mel"}, {"snip_edges": False, "norm": "clip"})]


@pytest.mark.parametrize("features", [{}, *OTHERS], ids=str)
@pytest.mark.parametrize("name", SOUNDS)
def test_every_kind_of_window(name: str, features: dict[str, Any]) -> None:
    model = _model(_settings(audio=SOUNDS[name], features=features))
    found = beside.difference(model, _eager(model), beside.noises(model))
    assert found.clips == 16 and found.largest < beside.LIMIT and not found.others


@pytest.mark.parametrize(
    "evaluation", [{"hop": 0.25}, {"average": "probabilities"}, {"clip": "full", "max_seconds": 1.5}], ids=str
)
@pytest.mark.parametrize("objective", ["softmax", "bce"])
def test_every_way_to_score(evaluation: dict[str, Any], objective: str) -> None:
    model = _model(_settings(evaluation=evaluation, objective={"name": objective}))
    found = beside.difference(model, _eager(model), beside.noises(model))
    assert found.clips == 16 and found.largest < beside.LIMIT and not found.others


def test_the_comparison_finds_a_difference() -> None:
    model = _model(_settings())

    def wrong(wave: beside.Wave) -> Any:
        chances, vectors = _eager(model)(wave)
        return chances[:, ::-1], vectors

    found = beside.difference(model, wrong, beside.noises(model))
    assert found.largest > 1e-3 and found.others
    nothing = beside.Difference().and_of(np.zeros((1, 2)), np.full((1, 2), np.nan, np.float32))
    assert nothing.largest == np.inf


def test_comparing_tells_how_far_it_is(
    tmp_path: Path,
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dist_train.screen.QUIET", 0.0)
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.full(9000, 0.1), 16000)
    tool, model = script("export"), _model(_settings())
    options = tool.parser().parse_args(["RUN", "--to", "onnx", "--check", str(tmp_path)])
    tool.checked(options)
    tool.compare(options, model, _eager(model))
    out, error = capsys.readouterr()
    assert "real clips: 3 clips, largest difference" in out
    assert "random clips: 9 of 9, " in error and "real clips: 3 of 3, " in error


@limits(max_examples=60, deadline=None)
@given(st.integers(1, 4000), st.integers(2, 900), st.integers(0, 1200))
def test_windows_are_those_of_evaluation(samples: int, window: int, hop: int) -> None:
    settings = _settings(
        audio={"sample_rate": 1000, "seconds": window / 1000}, evaluation={"hop": hop / 1000} if hop else {}
    )
    cut = Cut(settings.audio, settings.evaluation, 1)
    rows = np.zeros(1, VIEW_ROW)
    rows["frames"], rows["rate"] = samples, 1000
    plan = eval_windows(rows, np.zeros(1, np.int64), settings.audio, settings.evaluation.hop)
    wave = torch.arange(1.0, samples + 1)[None, None]
    found, count, filled = cut(wave)
    assert count == len(plan) and filled == window
    for row, start in zip(found[:, 0], plan["start"].tolist(), strict=True):
        place = (np.arange(start, start + window)) % samples
        np.testing.assert_array_equal(row.numpy(), place + 1)


@pytest.mark.parametrize("fft", [8, 30, 450, 512, 1024])
@pytest.mark.parametrize("length", [7, 8, 400, 1000])
def test_spectra_beside_numpy(fft: int, length: int) -> None:
    if length > fft:
        return
    random = np.random.default_rng(0)
    window, frames = random.uniform(0.1, 1, length), random.normal(size=(2, 3, length)).astype(np.float32)
    power = Power(torch.from_numpy(window), fft)
    wanted = np.abs(np.fft.rfft(frames.astype(np.float64) * window, fft)) ** 2
    lines = power(torch.from_numpy(frames)).numpy()
    np.testing.assert_allclose(lines[..., power.order], wanted, rtol=0, atol=2e-6 * wanted.max())
    bank = torch.rand(fft // 2 + 1, 5, dtype=torch.float64).float()
    mixed = torch.from_numpy(lines) @ power.bank(bank)
    np.testing.assert_allclose(mixed, wanted @ bank.double().numpy(), rtol=0, atol=2e-6 * wanted.max() * fft)


@pytest.mark.parametrize(("length", "shift"), [(400, 160), (640, 320), (441, 147), (5, 3), (7, 7), (4, 9)])
def test_frames_are_those_that_lie_within(length: int, shift: int) -> None:
    wave = torch.randn(2, 3000)
    frames = Frames(length, shift)
    wanted = wave.unfold(1, length, shift)
    assert torch.equal(frames(wave), wanted)
    torch.testing.assert_close(frames.mean(wave), wanted.mean(2, keepdim=True), rtol=0, atol=1e-6)


ASK = """
import json, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
chances = session.run(["probabilities"], {"wave": np.load(sys.argv[2])})[0]
print(json.dumps([json.loads(facts["classes"]), facts["sample_rate"], chances.tolist()]))
"""


def test_a_tiny_file_answers_as_the_run_does_with_and_without_torch(tmp_path: Path) -> None:
    """Of every batch and length here; of one in a process that cannot import torch."""
    model = _model(_settings(model={"embedding": 8}))
    graph = Graph(model.origin)
    data = interchange.model(program.program(graph), graph, facts.facts(model, "x")).SerializeToString()
    found = beside.difference(model, interchange.answer(data), beside.noises(model))
    assert found.clips == 16 and found.largest < beside.LIMIT and not found.others
    wave = (0.1 * np.random.default_rng(5).normal(size=(2, 30000))).astype(np.float32)
    (tmp_path / "tiny.onnx").write_bytes(data)
    np.save(tmp_path / "wave.npy", wave)
    classes, rate, chances = json.loads(_elsewhere(ASK, tmp_path / "tiny.onnx", tmp_path / "wave.npy"))
    assert classes == list(CLASSES) and rate == "16000"
    np.testing.assert_allclose(chances, model.probabilities(wave), rtol=0, atol=1e-5)


@pytest.mark.parametrize("divisor", [1, 2, 3, 100])
def test_whole_numbers_are_divided_as_in_python(divisor: int) -> None:
    """Those under 0 too: sizes are rounded up as -(-n // 2)."""
    numbers = np.arange(-250, 251)
    found = interchange.quotient(numbers, np.array(divisor))
    np.testing.assert_array_equal(getattr(found, "value", found), numbers // divisor)


@pytest.fixture(scope="module")
def made(finished: Run, tmp_path_factory: pytest.TempPathFactory, script: Callable[[str], ModuleType]) -> Path:
    """An ONNX file of a run that was trained, by the tool."""
    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    assert script("export").main([str(finished.folder), "--to", "onnx", "--out", str(path), "--clips", "20"]) == 0
    return path


def _elsewhere(code: str, *arguments: Any) -> str:
    """What a Python without torch prints."""
    command = [sys.executable, "-c", WITHOUT_TORCH + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.full
def test_the_page_labels_recordings_without_torch_as_the_run_does(
    made: Path, finished: Run, root: Path, tmp_path: Path
) -> None:
    """Of any rate, of two channels and shorter than a window."""
    code = (root / "docs/export.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    random, files = np.random.default_rng(0), []
    for number, (rate, frames, channels) in enumerate([(16000, 9000, 1), (44100, 70000, 2), (8000, 900, 1)]):
        wave = 0.3 * random.normal(size=(frames, channels)) * np.sin(np.arange(frames) * 0.05 * (number + 1))[:, None]
        files.append(tmp_path / f"{number}.wav")
        soundfile.write(files[-1], wave.clip(-1, 1), rate)
    said = [line.split("\t") for line in _elsewhere(code, made, *files).splitlines()]
    model = load(finished.folder, device="cpu")
    assert [name for name, _, _ in said] == list(map(str, files))
    for (_, label, chance), wanted in zip(said, model.predict(list(files)), strict=True):
        assert label == wanted.label and float(chance) == pytest.approx(wanted.probability, abs=2e-4)


@pytest.mark.full
def test_the_file_says_what_it_is(made: Path, finished: Run) -> None:
    session = interchange.session(made.read_bytes())
    told = session.get_modelmeta().custom_metadata_map
    model = load(finished.folder, device="cpu")
    assert json.loads(told["classes"]) == list(model.classes)
    assert (told["sample_rate"], told["channels"], told["seconds"]) == ("16000", "1", "0.4")
    assert (told["task"], told["threshold"], told["run"]) == ("softmax", "", "tiny")
    assert json.loads(told["settings"])["features"]["bins"] == 20
    assert {one.name for one in session.get_outputs()} == {"probabilities", "embedding"}
    assert session.get_inputs()[0].shape == ["batch", "samples"]
    assert str(finished.folder).encode() not in made.read_bytes() and b"dist_train/" not in made.read_bytes()
    assert not [path for path in made.parent.iterdir() if path != made]


@pytest.mark.full
def test_all_lengths_and_batches(made: Path, finished: Run) -> None:
    model = load(finished.folder, device="cpu", exact=False)
    answer = interchange.answer(made.read_bytes())
    random = np.random.default_rng(3)
    for batch, samples in ((1, 1), (5, 3), (2, 6399), (1, 6400), (3, 6401), (1, 16000 * 60)):
        wave = (0.1 * random.normal(size=(batch, samples))).astype(np.float32)
        assert beside.difference(model, answer, [wave]).largest < 1e-5
        rounded = (np.rint(wave * 32768) / 32768).astype(np.float32)
        wanted = model.embed(list(rounded), 16000)
        np.testing.assert_allclose(answer(rounded)[1], wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.full
def test_a_file_that_answers_otherwise_is_refused(
    made: Path, finished: Run, script: Callable[[str], ModuleType]
) -> None:
    tool = script("export")
    options = tool.parser().parse_args([str(finished.folder), "--to", "onnx", "--limit", "1e-12", "--clips", "0"])
    with pytest.raises(tool.Apart, match=r"random clips: a probability differs by .*, over --limit 1e-12; no file"):
        tool.compare(options, load(finished.folder, device="cpu", exact=False), interchange.answer(made.read_bytes()))


def test_weights_start_another_run(
    finished: Run, tmp_path: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    from dist_train import pretrained, weights

    path = tmp_path / "tiny.safetensors"
    assert script("export").main([str(finished.folder), "--to", "safetensors", "--out", str(path)]) == 0
    assert "4 classes" in capsys.readouterr().out
    model = load(finished.folder, device="cpu")
    found = weights.read(str(path))
    ours = model.origin.model.state_dict()
    assert ours.keys() == found.state.keys()
    assert all(torch.equal(value, found.state[name]) for name, value in ours.items())
    assert found.classes == model.classes and found.config is not None
    overrides = [f"model.pretrained={path}", "model.pretrained_head=keep"]
    settings = config.load(finished.folder / "config.yaml", overrides)
    network = models.build("ecapa", 20, 4, channels=8, embedding=16)
    state, report = pretrained.begin(settings, network, model.classes)
    assert report.share == 1.0 and report.head == "kept" and report.warning is None
    wanted = model.origin.model.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in state.items()) and "head.weight" in state


def test_weights_are_loaded_as_the_run_is(
    finished: Run, tmp_path: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """By `load` and by tools/predict.py, with the threshold that the run had."""
    from safetensors.torch import save_file

    path, wav, run = tmp_path / "mine.safetensors", tmp_path / "x.wav", load(finished.folder, device="cpu")
    run.threshold = 0.999
    path.write_bytes(tensors.written(run.origin, facts.facts(run, "tiny")))
    model, wave = load(path, device="cpu"), 0.2 * np.random.default_rng(0).normal(size=20000)
    soundfile.write(wav, wave.clip(-1, 1), 22050)
    one, other = run.predict(wav), model.predict(wav)
    assert np.array_equal(one.probabilities, other.probabilities) and one.labels == other.labels
    assert (model.classes, model.threshold, model.path) == (run.classes, 0.999, path)
    assert script("predict").main([str(path), str(wav), "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["probability"] == pytest.approx(one.probability, abs=1e-6)
    save_file({"a": torch.zeros(1)}, tmp_path / "theirs.safetensors")
    for name, key, said in (
        ("theirs", "seed=1", "weights without classes and settings"),
        ("none", "seed=1", "no such file"),
        ("mine", "model.channels=4", "another model"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            load(tmp_path / f"{name}.safetensors", overrides=[key.replace("seed", "run.seed")])
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sections", "size"),
    [
        ({"objective": {"name": "aam", "speed_classes": True}, "augment": {"speed": [0.9, 1, 1.1]}}, 15),
        ({"features": {"bins": 20, "norm": "dataset"}, "precision": "fp64"}, 5),
    ],
    ids=["a head of speeds", "statistics"],
)
def test_weights_bring_what_lies_beside_them(sections: dict[str, Any], size: int, tmp_path: Path) -> None:
    from dist_train import parts
    from dist_train.world import Place, World

    settings = config.check({"features": {"bins": 20}, "model": {"name": "linear"}} | sections, "test")
    wide = torch.float64 if settings.precision == "fp64" else torch.float32
    world = World(Place(), torch.device("cpu"), "gloo", 1)
    model = _model(settings, parts.network(settings, 20, len(CLASSES), world, wide))
    path = tmp_path / "x.safetensors"
    path.write_bytes(tensors.written(model.origin, facts.facts(model, "x")))
    found = load(path, device="cpu", exact=False)
    assert found.origin.model.head.weight.shape[0] == size  # type: ignore[union-attr]
    assert found.origin.model.head.weight.dtype == wide  # type: ignore[union-attr]
    if model.origin.front.statistics is not None:
        assert found.origin.front.statistics is not None
        assert torch.equal(found.origin.front.statistics, model.origin.front.statistics)
    assert found.config.features == settings.features and found.classes == CLASSES


def test_what_is_refused(
    finished: Run, tmp_path: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    tool, run = script("export"), str(finished.folder)
    for arguments, said in (
        ([str(tmp_path), "--to", "onnx"], "no run there"),
        ([run, "--to", "onnx", "--out", str(tmp_path / "a.pt2")], "a file of --to onnx ends in .onnx"),
        ([run, "--to", "torch", "--int8", "static"], "--int8 is for --to onnx"),
        ([run, "--to", "safetensors", "--half"], "--half is for --to onnx"),
        ([run, "--to", "safetensors", "--limit", "0.1"], "weights are written as the run has them"),
        ([run, "--to", "safetensors", "--check", "x.wav"], "weights are written as the run has them"),
        ([run, "--to", "onnx", "--clips", "-1"], "--clips is a number from 0 on"),
        ([run, "--to", "onnx", "model.chanels=8"], "unknown key `model.chanels`"),
    ):
        assert tool.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("export: ") and said in error and error.count("\n") == 1, error
    assert not list(tmp_path.iterdir()) and not list(finished.folder.glob("model.*"))
    settings = _settings()
    hidden = settings.model_copy(update={"features": settings.features.model_copy(update={"name": "hf"})})
    origin = _model(settings).origin
    with pytest.raises(ValueError, match=r"features.name=hf cannot be exported; features of fbank, .* can") as error:
        Graph(saved.Saved(hidden, origin.classes, origin.model, origin.front, origin.path))
    assert "\n" not in str(error.value)


NETWORKS = [(name, clip) for clip in ("windows", "full") for name in TINY]
PROGRAMS = ("linear", "resnet_mini", "ecapa", "campplus")  # that are asked for whole clips as programs of torch too


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "clip"), NETWORKS)
def test_every_network(name: str, clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ONNX and as a program of torch, of any batch and length; whole clips of as many frames as may be."""
    monkeypatch.setattr(campplus, "STAGES", ((1, 1), (2, 2), (1, 2)))  # of 52 layers no two differ in kind
    bins = TINY[name][0]
    features = {"name": "waveform", "norm": "none"} if name == "m5" else {"bins": bins}
    parts = {"audio": {"seconds": 0.7}, "model": {"name": name}, "evaluation": {"clip": clip, "max_seconds": 3.0}}
    settings = config.check({"features": features} | parts, "test")
    model = _model(settings, lived(tiny(name)))
    graph = Graph(model.origin)
    followed = program.program(graph)
    if clip == "windows" or name in PROGRAMS:
        found = beside.difference(model, program.answer(program.written(followed, {})), beside.noises(model))
        assert found.largest < beside.LIMIT and not found.others
    proto = interchange.model(followed, graph, facts.facts(model, name))
    found = beside.difference(model, interchange.answer(proto.SerializeToString()), beside.noises(model))
    assert found.largest < beside.LIMIT and not found.others


@pytest.mark.full
def test_a_program_runs_without_this_package(
    finished: Run, tmp_path: Path, script: Callable[[str], ModuleType]
) -> None:
    path = tmp_path / "tiny.pt2"
    assert script("export").main([str(finished.folder), "--to", "torch", "--out", str(path), "--clips", "5"]) == 0
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "dist_train":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import json, torch
more = {"classes": ""}
module = torch.export.load(sys.argv[1], extra_files=more).module()
print(json.dumps([json.loads(more["classes"]), module(torch.linspace(-1, 1, 5000)[None])[0].tolist()]))
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=200, cwd="/")
    assert done.returncode == 0, done.stderr
    classes, chances = json.loads(done.stdout)
    model = load(finished.folder, device="cpu", exact=False)
    assert classes == list(model.classes)
    wave = np.linspace(-1, 1, 5000, dtype=np.float32)[None]
    np.testing.assert_allclose(chances, model.probabilities(wave), rtol=0, atol=1e-5)
    assert script("export").main([str(finished.folder), "--to", "torch", "--out", str(path), "--limit", "1e-13"]) == 1


@pytest.mark.full
@pytest.mark.parametrize("kind", ["static", "dynamic", "half"])
def test_small_files(
    kind: str, finished: Run, made: Path, tmp_path: Path, script: Callable[[str], ModuleType], capsys: Any
) -> None:
    """The front end stays as it is; what the file loses is what the tool prints."""
    path, given = tmp_path / "small.onnx", ["--half"] if kind == "half" else ["--int8", kind]
    assert script("export").main([str(finished.folder), "--to", "onnx", "--out", str(path), *given]) == 0
    printed = capsys.readouterr().out
    model = load(finished.folder, device="cpu", exact=False)
    view = clips.scored(model)
    assert view is not None
    large, less = (interchange.answer(file.read_bytes()) for file in (made, path))
    right = [0, 0]
    for clip in clips.packed(view, model, len(view)):
        for number, answer in enumerate((large, less)):
            right[number] += int(answer(clip.wave)[0].argmax() == clip.truth)
    before, after = (count / len(view) for count in right)
    assert f"accuracy {before:.4f} before, {after:.4f} after" in printed
    assert interchange.session(path.read_bytes()).get_modelmeta().custom_metadata_map["run"] == "tiny"
    import onnx

    nodes = onnx.load(str(path)).graph.node
    assert not [node for node in nodes if node.op_type == "MatMulInteger" and "spectra" in " ".join(node.input)]
    assert small.loss(model, large, less, clips.packed(view, model, 10)).beside.largest < 0.3


def test_real_clips_are_what_evaluation_hears(finished: Run, tmp_path: Path) -> None:
    """Shards at another rate than the run's, too: the run's scores of them are the answers for these waves."""
    from dist_train import scored

    model = load(finished.folder, device="cpu", exact=False)
    view, wanted = clips.scored(model), scored.read(finished.folder)
    assert view is not None
    found = [model.probabilities(clip.wave)[0] for clip in clips.packed(view, model, len(view))]
    np.testing.assert_allclose(found, wanted.probability_NC, rtol=0, atol=1e-5)
    wave = np.clip(0.2 * np.random.default_rng(0).normal(size=20000), -1, 1)
    soundfile.write(tmp_path / "x.flac", wave, 22050)
    (real,) = clips.recordings([tmp_path], model)
    same = soxr.resample(soundfile.read(tmp_path / "x.flac", dtype="float32")[0], 22050, 16000, quality="VHQ")
    np.testing.assert_allclose(real.wave[0], np.rint(same * 32768) / 32768, rtol=0, atol=2.0**-14)
    (tmp_path / "empty").mkdir()
    for name, said in (("none.wav", "none.wav: cannot be read"), ("empty", "no recording lies there")):
        with pytest.raises(ValueError, match=said):
            list(clips.recordings([tmp_path / name], model))
