"""`load`, `predict`, `embed`: a recording is given what evaluation scores for it, whatever its form; refusals."""

import functools
import http.client
import io
import itertools
import json
import subprocess
import sys
import threading
import tracemalloc
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from clips import sound
from launches import train
from untrained import by_key, ordered, packed, recordings, scored, untrained

from dist_train import Model, Named, Pcm, embeddings, load
from dist_train import scored as scored_run
from dist_train.assembly.coding import encode
from dist_train.assembly.options import Options
from dist_train.inference.ahead import Bad
from dist_train.inference.sound import Reading
from dist_train.packing import pack
from dist_train.settings import Audio

WAYS: dict[str, tuple[str, ...]] = {
    "windows": ("features.norm=dataset", "objective.name=aam", "evaluation.average=probabilities"),
    "hop": ("evaluation.hop=0.15", "audio.target_db=-20", "audio.short=pad"),
    "full": ("evaluation.clip=full", "evaluation.max_seconds=1", "precision=fp64"),
    "crop level": ("audio.target_db=-20", "audio.level=crop", "features.norm=cmvn"),
    "several": ("objective.name=bce", "model={name: cnn4, channels: 8}"),
    "waveform": ("features={name: waveform}", "model={name: m5, channels: 8}", "audio.seconds=0.8"),
    "stereo": ("audio.channels=2", "audio.sample_rate=22050"),
}
RECURRENT = ("model={name: crnn}", "features.bins=128", "audio.seconds=1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("use")


@pytest.fixture(scope="module")
def sounds(home: Path) -> dict[str, Path]:
    """Recordings by key; shards of them, mono at 16 kHz and stereo at 22.05 kHz."""
    paths = recordings(home / "source")
    packed(home / "source", home / "shards")
    packed(home / "source", home / "stereo", channels=2, sample_rate=22050)
    return by_key(paths, home / "source")


@pytest.fixture(scope="module")
def model(home: Path, sounds: dict[str, Path]) -> Model:
    untrained(home / "run", home / "shards", "features.norm=dataset")
    return load(home / "run", "cpu")


@pytest.mark.parametrize("way", [*WAYS, pytest.param("recurrent", marks=pytest.mark.full)])
def test_a_recording_is_given_what_evaluation_scores(
    way: str, home: Path, sounds: dict[str, Path], tmp_path: Path
) -> None:
    shards = home / ("stereo" if way == "stereo" else "shards")
    parts = untrained(tmp_path / "run", shards, *WAYS.get(way, RECURRENT))
    view, scores = scored(parts)
    model, files = load(tmp_path / "run", "cpu"), ordered(view, sounds)
    found = model.predict(files, top=1)
    np.testing.assert_array_equal(np.stack([one.probabilities for one in found]), scores.probability_NC.numpy())
    assert [one.source for one in found] == [str(path) for path in files] and model.classes == view.classes
    assert model.several == (way == "several")
    alone = model.predict(files[3])
    np.testing.assert_array_equal(alone.probabilities, found[3].probabilities)
    quick = load(tmp_path / "run", "cpu", exact=False).predict(files[3])
    np.testing.assert_allclose(quick.probabilities, alone.probabilities, atol=1e-6)
    vectors = embeddings.embed(parts.model, view, parts.config, parts.front, lambda *_: None).vectors_NE
    np.testing.assert_array_equal(model.embed(files), vectors)
    np.testing.assert_array_equal(model.embed(files[3]), vectors[3])


def test_a_model_of_packed_features_hears_recordings(home: Path, sounds: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "front.yaml").write_text("{audio: {seconds: 0.4}, features: {bins: 20}}")
    packed(home / "source", tmp_path / "features", features=tmp_path / "front.yaml")
    way = ("features={name: packed, norm: cmn}", "evaluation.clip=full", "evaluation.max_seconds=9")
    view, scores = scored(untrained(tmp_path / "run", tmp_path / "features", *way))
    found = load(tmp_path / "run", "cpu").predict(ordered(view, sounds))
    given = np.stack([one.probabilities for one in found])
    np.testing.assert_allclose(given, scores.probability_NC.numpy(), atol=1e-5)


@pytest.mark.full
def test_a_pretrained_encoder(home: Path, sounds: dict[str, Path], tmp_path: Path) -> None:
    from encoders import save

    given = f"features={{name: hf, hf: {{name: '{save(tmp_path / 'encoder', 'wav2vec2')}'}}}}"
    view, scores = scored(untrained(tmp_path / "run", home / "shards", given, "model={name: linear}"))
    found = load(tmp_path / "run", "cpu").predict(ordered(view, sounds))
    np.testing.assert_array_equal(np.stack([one.probabilities for one in found]), scores.probability_NC.numpy())


def test_sound_is_what_packing_makes_of_it(sounds: dict[str, Path]) -> None:
    for path, channels in itertools.product(sounds.values(), (1, 2)):
        audio = Audio(channels="mono" if channels == 1 else channels)
        wav = encode(path, "pcm16", 16000, channels, None, None, 0.0).data
        expected, _ = soundfile.read(io.BytesIO(wav), dtype="int16", always_2d=True)
        whole, rate = soundfile.read(path, dtype="float32")
        for form in (path, str(path), path.read_bytes(), whole, torch.from_numpy(whole), Named("x", whole)):
            np.testing.assert_array_equal(np.concatenate(list(Reading(form, rate, audio))), expected)


def test_what_ffmpeg_reads(sounds: dict[str, Path], tmp_path: Path) -> None:
    wave, rate = soundfile.read(next(iter(sounds.values())), dtype="float32")
    with av.open(str(tmp_path / "a.m4a"), "w") as file:
        stream = file.add_stream("aac", rate=rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T), format="fltp", layout="stereo")
        frame.sample_rate = rate
        for part in (frame, None):
            file.mux(stream.encode(part))
    wav = encode(tmp_path / "a.m4a", "pcm16", 16000, 1, None, None, 0.0).data
    expected, _ = soundfile.read(io.BytesIO(wav), dtype="int16", always_2d=True)
    for form in (tmp_path / "a.m4a", (tmp_path / "a.m4a").read_bytes()):
        np.testing.assert_array_equal(np.concatenate(list(Reading(form, None, Audio()))), expected)


def test_an_address_is_fetched(model: Model, sounds: dict[str, Path]) -> None:
    path = list(sounds.values())[1]
    folder = functools.partial(Quiet, directory=path.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), folder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/{path.name}"
        found = model.predict(address)
        assert found.source == address
        np.testing.assert_array_equal(found.probabilities, model.predict(path).probabilities)
        with pytest.raises(ValueError, match=r"/absent\.wav: is not there"):
            model.predict(address.replace(path.name, "absent.wav"))
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and logs nothing."""

    def log_message(self, *_: Any) -> None: ...


def test_arrays_of_integers_and_raw_pcm(model: Model) -> None:
    wave = (np.random.default_rng(0).normal(size=(8000, 2)) * 3000).clip(-32768, 32767).astype("<i2")
    expected = model.predict(wave, 16000).probabilities
    for same in (wave.astype("<i4") * 65536, wave / 32768, (wave / 32768).astype("f4"), torch.from_numpy(wave)):
        np.testing.assert_array_equal(model.predict(same, 16000).probabilities, expected)
    for kind, scale in (("<i2", 1), ("<i4", 65536), ("<f4", 1 / 32768)):
        data = (wave * np.dtype(kind).type(scale)).astype(kind).tobytes() + b"\0"  # a frame that was cut is left out
        name = {"<i2": "s16", "<i4": "s32", "<f4": "f32"}[kind]
        for file in (data, io.BytesIO(data)):
            found = model.predict(Pcm(file, 16000, 2, name))
            np.testing.assert_array_equal(found.probabilities, expected)
            assert found.seconds == 0.5 and found.source == "pcm"
    first = np.stack([wave[:, 0], wave[:, 0]], 1)
    np.testing.assert_array_equal(
        model.predict(first, 16000).probabilities, model.predict(wave[:, 0], 16000).probabilities
    )
    quiet = (wave[:, 0] // 256 + 128).astype(np.uint8)
    np.testing.assert_array_equal(
        model.predict(quiet, 16000).probabilities,
        model.predict((quiet.astype(np.int16) - 128) * np.int16(256), 16000).probabilities,
    )


def test_probabilities_of_waves_in_memory(model: Model) -> None:
    waves = (np.random.default_rng(1).normal(size=(5, 6400)) * 3000).astype(np.int16)
    expected = np.stack([model.predict(wave, 16000).probabilities for wave in waves])
    for given in (waves / np.float32(32768), torch.from_numpy(waves / np.float32(32768)), waves[..., None] / 32768):
        found = model.probabilities(given)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert model.probabilities(np.zeros((0, 6400), np.float32)).shape == (0, 2)
    for wrong in (waves, waves[0] / 32768, np.zeros((2, 0))):
        with pytest.raises(ValueError, match="give waves of float"):
            model.probabilities(wrong)
    with pytest.raises(ValueError, match="row 1: it holds samples that are not finite"):
        model.probabilities(np.array([[0.0] * 6400, [np.nan] * 6400]))


def test_thresholds_and_labels(home: Path, model: Model, tmp_path: Path) -> None:
    wave = np.random.default_rng(0).normal(size=16000) * 0.1
    best = model.predict(wave, 16000)
    assert best.known and best.labels == (best.label,) and best.said == best.label == best.top[0][0]
    assert [name for name, _ in best.top] == sorted(model.classes, key=lambda name: -dict(best.top)[name])
    low, high = np.nextafter(best.probability, 0), np.nextafter(best.probability, 1)
    assert model.predict(wave, 16000, threshold=low).known
    unknown = model.predict(wave, 16000, threshold=high)
    assert not unknown.known and unknown.said == "unknown" and unknown.label == best.label
    assert model.predict(wave, 16000, top=1).top == best.top[:1]
    (home / "run/unknown.json").write_text(json.dumps({"threshold": float(high)}))
    try:
        limited = load(home / "run", "cpu")
        assert limited.threshold == high and not limited.predict(wave, 16000).known
        assert limited.predict(wave, 16000, threshold=0.0).known
        (home / "run/unknown.json").write_text("{}")
        with pytest.raises(ValueError, match=r"unknown\.json: cannot be read"):
            load(home / "run")
    finally:
        (home / "run/unknown.json").unlink()
    with pytest.raises(ValueError, match="a probability lies between 0 and 1"):
        model.predict(wave, 16000, threshold=1.5)


def test_what_cannot_be_used_is_named(model: Model, sounds: dict[str, Path], tmp_path: Path) -> None:
    whole = next(iter(sounds.values())).read_bytes()
    files = {"text.wav": b"no audio at all", "empty.ogg": b"", "cut.wav": whole[:5000], "text.m4a": b"nothing"}
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(800, np.nan), 16000, "FLOAT", format="WAV")
    files |= {"nan.wav": buffer.getvalue()}
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(0), 16000, format="WAV")
    files |= {"none.wav": buffer.getvalue()}
    wave = np.zeros(1600)
    cases: list[tuple[Any, int | None, str]] = [
        (tmp_path / "absent.wav", None, "absent.wav: cannot be read: No such file or directory"),
        (tmp_path, None, "is a folder"),
        (b"", None, "bytes 1: is an empty file"),
        (b"some text", None, "bytes 1: cannot be read"),
        (wave, None, "array 1: an array does not say its rate; give sample_rate"),
        (wave, 16000.5, "array 1: sample_rate=16000.5 is no rate"),
        (np.zeros((2, 1600)), 16000, "has more channels than frames"),
        (np.zeros((2, 2, 2)), 16000, "give .frames,. or .frames, channels."),
        (np.zeros(1600, np.int64), 16000, "samples of type int64"),
        (np.full(1600, 3000.0), 16000, "reaches 3000, and full scale is 1"),
        (np.full(1600, np.inf), 16000, "reaches inf|not finite"),
        (np.full(1600, np.nan), 16000, "not finite"),
        (np.zeros(0), 16000, "holds no samples"),
        (0.5, 16000, "array 1: shape ..; give .frames,."),
        (Pcm(b"\0", 16000), None, "pcm 1: holds no samples"),
        (Pcm(b"\0\0", 16000, kind="u7"), None, "raw PCM of kind 'u7' is not known"),
    ]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        cases.append((tmp_path / name, None, f"{name}: "))
    for wrong, rate, said in cases:
        good = np.ones(100) * 0.1
        with pytest.raises(ValueError, match=said) as error:
            model.predict([Named("good", Pcm(good.astype("<f4").tobytes(), 16000, kind="f32")), wrong], rate)
        assert "\n" not in str(error.value)
        with pytest.raises(ValueError, match=said.replace(" 1:", ":")):
            model.timeline(wrong, rate)
    refused: list[Bad] = []
    mixed = [next(iter(sounds.values())), *(tmp_path / name for name in files), *list(sounds.values())[1:4]]
    found = list(model.stream(mixed, bad=refused.append))
    assert [one.source for one in found] == [str(path) for path in list(sounds.values())[:4]]
    assert [Path(one.name).name for one in refused] == list(files)


def test_a_timeline_by_plain_arithmetic(model: Model) -> None:
    wave = sound(round(44100 * 2.37), 2, seed=5)
    wave[44100 : 44100 + 40000] = 0  # of digital silence, more than two windows
    found = model.timeline(wave, 44100, hop=0.15, smooth="none", hysteresis=0)
    frames_T = np.concatenate(list(Reading(wave, 44100, model.config.audio)))[:, 0]
    starts = [*range(0, len(frames_T) - 6400, 2400), len(frames_T) - 6400]
    rows = model.probabilities(np.stack([frames_T[start : start + 6400] / np.float32(32768) for start in starts]))
    sums, counts = np.zeros((len(frames_T), 2)), np.zeros(len(frames_T))
    for start, row in zip(starts, rows, strict=True):
        if frames_T[start : start + 6400].any():
            sums[start : start + 6400] += row
            counts[start : start + 6400] += 1
    parts = [slice(begin, begin + 2400) for begin in range(0, len(frames_T), 2400)]
    expected = np.array([sums[part].sum(0) / (counts[part].sum() or np.nan) for part in parts])
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert np.isnan(expected).any() and not np.isnan(expected).all()
    assert found.seconds == len(wave) / 44100 == found.segments[-1].end and found.segments[0].start == 0
    gap = [cell * 0.15 for cell in np.flatnonzero(np.isnan(expected[:, 0]))]
    assert not [span for span in found for at in gap if span.start <= at + 0.01 < span.end]
    short = model.timeline(wave[:4000], 44100)
    assert len(short) == 1 and short.segments[0].end == 4000 / 44100
    assert short.segments[0].label == model.predict(wave[:4000], 44100).label
    silent = model.timeline(np.zeros(16000), 16000)
    assert len(silent) == 0 and silent.seconds == 1.0


def test_a_long_recording_is_read_by_the_block(model: Model) -> None:
    class Pipe:
        left = 16000 * 300 * 2

        def read(self, size: int) -> bytes:
            size = min(size, self.left, 100_000)
            self.left -= size
            return bytes([1, 2]) * (size // 2)

    tracemalloc.start()
    try:
        found = model.timeline(Pcm(Pipe(), 16000), hop=0.4)  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.seconds == 300 and found.segments[-1].end == 300
    assert peak < 6e6, f"{peak / 1e6} MB"  # its samples alone are 9.6 MB as int16


@pytest.mark.full
def test_esc10_from_its_own_files_scores_what_the_run_scored(esc10: Path, tmp_path: Path) -> None:
    assert pack(esc10, tmp_path / "shards", Options()).indexed
    run = train(tmp_path / "home", tmp_path / "shards", "run.epochs=1", "audio.seconds=3", "features.norm=dataset")
    held = scored_run.read(run.folder)
    paths = by_key(sorted(esc10.rglob("*.ogg")), esc10)
    found = list(load(run.folder, "cpu").stream([paths[str(name)] for name in held.keys]))
    assert len(found) == 80
    np.testing.assert_array_equal(np.stack([one.probabilities for one in found]), held.probability_NC)


def test_ten_thousand_sounds_stream_in_order(model: Model) -> None:
    taken = 0

    def many() -> Any:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield Named(f"{number}", np.full(80, 0.01 + number % 7 / 100, np.float32))

    stream = model.stream(many(), 16000, top=1)
    first = list(itertools.islice(stream, 300))
    assert [one.source for one in first] == [str(number) for number in range(300)]
    assert taken < 2500  # no more is read than a handful holds
    np.testing.assert_array_equal(first[0].probabilities, first[7].probabilities)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert model.predict([]) == [] and model.embed([]).shape == (0, 16)


def test_threads_take_turns(model: Model) -> None:
    waves = (np.random.default_rng(2).normal(size=(8, 9000)) * 0.1).astype(np.float32)
    expected = [model.predict(wave, 16000).probabilities for wave in waves]
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.__setitem__(n, model.predict(waves[n], 16000).probabilities))
        for n in range(len(waves))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, row in enumerate(expected):
        np.testing.assert_array_equal(found[number], row)


def test_importing_is_cheap_and_loading_refuses_in_one_line(
    home: Path, model: Model, tmp_path: Path, environment: dict[str, str]
) -> None:
    code = (
        "import dist_train, sys; dist_train.__all__; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
    with pytest.raises(ValueError, match="no run there; name a folder that training made"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"unknown key `evaluation\.clips`"):
        load(home / "run", overrides=["evaluation.clips=full"])
    assert load(home / "run", "cpu", ["evaluation.hop=0.1"]).config.evaluation.hop == 0.1
    with pytest.raises(AttributeError, match="nothing"):
        _ = __import__("dist_train").nothing


def test_a_device_that_is_not_there(home: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="device toaster: no device; give cpu, cuda"):
        load(home / "run", "toaster")

    def built_without(*size: int, device: torch.device) -> torch.Tensor:
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch, "empty", built_without)
    with pytest.raises(ValueError, match="device cuda: Torch not compiled with CUDA enabled"):
        load(home / "run", "cuda")


def test_the_server_of_the_page(home: Path, model: Model, sounds: dict[str, Path], root: Path) -> None:
    page = (root / "docs/use.md").read_text(encoding="utf-8")
    code = page.split("## A server")[1].split("```python\n")[1].split("```")[0]
    code = code.replace("runs/demo", str(home / "run")).replace("8000", "0")
    served: list[ThreadingHTTPServer] = []
    names: dict[str, Any] = {"__name__": "served"}
    serve = ThreadingHTTPServer.serve_forever

    def keep(server: ThreadingHTTPServer) -> None:
        served.append(server)

    with pytest.MonkeyPatch.context() as patch:  # the page's own server, that it can be stopped
        patch.setattr(ThreadingHTTPServer, "serve_forever", keep)
        exec(compile(code, "use.md", "exec"), names)
    patched = served[0]
    thread = threading.Thread(target=serve, args=(patched,), daemon=True)
    thread.start()
    try:
        host, port = patched.server_address[:2]
        assert host == "127.0.0.1"
        file = next(iter(sounds.values()))
        link = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        link.request("POST", "/", file.read_bytes())
        answer = link.getresponse()
        said = json.loads(answer.read())
        expected = model.predict(file)
        assert answer.status == 200 and said["label"] == expected.label
        assert said["probability"] == pytest.approx(expected.probability, abs=1e-6)
        link.request("POST", "/", b"no sound")
        answer = link.getresponse()
        assert answer.status == 400 and "cannot be read" in json.loads(answer.read())["error"]
    finally:
        patched.shutdown()
        patched.server_close()
