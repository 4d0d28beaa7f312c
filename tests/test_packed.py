"""Features made in advance: the same numbers as features made in training, from the same windows, in plain tars."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import webdataset
from clips import sound
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import rewrite

from dist_train import check as checking
from dist_train import packed, systems, weights
from dist_train import saved as saved_runs
from dist_train.archive import npy
from dist_train.archive.row import CODECS, OLD_ROW, ROW
from dist_train.assembly.options import Options
from dist_train.batched import Batched
from dist_train.config import check
from dist_train.embeddings import embed
from dist_train.engine import Engine
from dist_train.evaluate import clip_windows, evaluate
from dist_train.feed import views, windows
from dist_train.frontend import FrontEnd
from dist_train.packing import Report, pack
from dist_train.parts import Parts
from dist_train.reader import Reader
from dist_train.settings import Config
from dist_train.shards import open_set
from dist_train.storage import Files
from dist_train.stores import indexing
from dist_train.view import choose
from dist_train.world import Place, World

WORLD = World(Place(), torch.device("cpu"), "gloo", 1)
SECONDS = (1.0, 1.0, 0.6, 1.5, 2.3, 0.02)
FRONTS: dict[str, str] = {
    "fbank": "{audio: {seconds: 1.0, target_db: -20.0}, features: {norm: cmvn, bins: 40}}",
    "stereo": "{audio: {seconds: 1.0}, features: {preset: cnn4}}",
    "spectrogram": "{audio: {seconds: 1.0}, features: {name: spectrogram, fft: 1024, scale: db, top_db: 60.0}}",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of two classes; shards of their audio and of their features, by front end."""
    home = tmp_path_factory.mktemp("packed")
    for label, level in (("low", 0.3), ("high", 1.0)):
        (home / "source" / label).mkdir(parents=True)
        for number, seconds in enumerate(SECONDS):
            wave = level * sound(round(44100 * seconds), 2, seed=number + (label == "high") * 10)
            soundfile.write(home / "source" / label / f"{number}.wav", wave, 44100, subtype="PCM_16")
    for name, text in FRONTS.items():
        (home / f"{name}.yaml").write_text(text)
        made(home, name)
        audio = {"sample_rate": 44100, "channels": 2} if name == "stereo" else {}
        report = pack(home / "source", home / f"{name}-audio", Options(folds=2, workers=1, **audio))
        assert report.indexed
    return home


def made(home: Path, name: str, dest: str = "", **options: Any) -> Report:
    """The features of a front end, packed."""
    options = {"folds": 2, "workers": 1, "features": home / f"{name}.yaml"} | options
    return pack(home / "source", home / (dest or f"{name}-features"), Options(**options))


def configured(home: Path, name: str, stored: bool, **sections: Any) -> Config:
    """One front end, from packed features or from audio, without augmentation; all folds are scored."""
    from dist_train.config import parse

    values: dict[str, Any] = parse(FRONTS[name], "test")
    if stored:
        norm = check(values, "test").features.norm
        values = {"audio": {"seconds": 1.0}, "features": {"name": "packed", "norm": norm}}
    kind = "features" if stored else "audio"
    values["data"] = {"shards": [str(home / f"{name}-{kind}")], "eval_folds": [2], "micro_batch": 4, "batch_size": 4}
    values["data"] |= {"threads": 1}
    values["augment"] = {"speed": [1]}
    for section, keys in sections.items():
        values[section] = values.get(section, {}) | keys
    return check(values, "test")


def front_end(config: Config, **options: Any) -> FrontEnd:
    stored = packed.of_view(views(config).train)
    options = {"seed": 0, "device": "cpu", "stored": stored} | options
    return FrontEnd(config.audio, config.augment, config.features, **options)


def scored(config: Config) -> dict[str, Any]:
    """Key of each clip of the evaluation view -> features and frames of its windows."""
    view, front = views(config).evaluation, front_end(config)
    assert view is not None
    front.statistics = torch.tensor([[1.0], [2.0]]).expand(2, front.bins)
    found: dict[str, list[Any]] = {}
    with Reader(Files(view.files), clip_windows(view, np.arange(len(view)), config)) as reader:
        for raw in reader:
            assert not raw.bad
            batch = front(raw, training=False)
            frames = [front.frame_count] * len(raw.plan) if batch.frames_B is None else batch.frames_B.tolist()
            for number, feat_TF, count in zip(raw.plan["id"].tolist(), batch.feat_BTF, frames, strict=True):
                found.setdefault(view.key(number), []).append((feat_TF, count))
    return found


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("norm", ["cmn", "cmvn", "dataset", "clip", "none"])
def test_whole_clips_have_the_features_of_training(home: Path, name: str, norm: str) -> None:
    sections: Any = {"audio": {"short": "pad"}, **({} if name == "stereo" else {"features": {"norm": norm}})}
    theirs = scored(configured(home, name, stored=False, **sections))
    ours = scored(configured(home, name, stored=True, **sections))
    assert ours.keys() == theirs.keys() and len(ours) == 6
    whole = 0
    for key, clips in ours.items():
        assert len(clips) == len(theirs[key])
        if len(clips) > 1:
            continue
        (feat, count), (expected, frames) = clips[0], theirs[key][0]
        assert count == frames and feat.shape == expected.shape
        torch.testing.assert_close(feat, expected, rtol=1e-6, atol=2e-6 if norm in ("cmvn", "clip") else 1e-6)
        whole += 1
    assert whole >= 3


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("short", ["tile", "pad"])
@pytest.mark.parametrize("name", ["fbank", "stereo"])
def test_the_accelerators_path_is_the_same(home: Path, name: str, short: str, training: bool) -> None:
    changes = {"speed": [1], "mixup": {"probability": 0.8}, "spec": {"fill": "mean", "freq_width": 5}}
    config = configured(home, name, True, audio={"short": short}, features={"norm": "cmvn"}, augment=changes)
    found = views(config)
    front = front_end(config, dtype=torch.float64)
    options: dict[str, Any] = {"seed": 0, "device": "cpu", "dtype": torch.float64, "stored": front.stored}
    batched = Batched(front.audio, config.augment, config.features, **options)
    requests = (
        windows(found.train, config, WORLD, 0, 12) if training else clip_windows(found.train, np.arange(6), config)
    )
    seen = 0
    with Reader(Files(found.train.files), iter(list(requests))) as reader:
        for raw in reader:
            ours, theirs = front(raw, training), batched(raw, training)
            torch.testing.assert_close(theirs.feat_BTF, ours.feat_BTF, rtol=1e-9, atol=1e-9)
            assert ours.feat_BTF.shape[1:] == (front.frame_count, front.bins)
            assert training or (ours.heard_B.all() and torch.equal(ours.heard_B, theirs.heard_B))
            seen += len(raw.plan)
    assert seen >= 6


def test_what_a_gpu_runs_has_legal_shapes(home: Path) -> None:
    """The meta device computes shapes only."""
    config = configured(home, "stereo", True, audio={"short": "pad"}, augment={"speed": [1], "spec": {"fill": "mean"}})
    front, found = front_end(config, device="meta"), views(config)
    for training, requests in (
        (True, windows(found.train, config, WORLD, 0, 6)),
        (False, clip_windows(found.train, np.arange(6), config)),
    ):
        with Reader(Files(found.train.files), iter(list(requests))) as reader:
            for raw in reader:
                assert front(raw, training).feat_BTF.shape == (len(raw.plan), front.frame_count, 128)


def test_masks_fall_on_the_same_bins_of_both_channels(home: Path) -> None:
    spec = {"freq_masks": 1, "freq_width": 40, "time_masks": 0}
    config = configured(home, "stereo", True, augment={"speed": [1], "spec": spec}, features={"norm": "none"})
    front, view = front_end(config), views(config).train
    assert (front.bins, front.channels) == (128, 2)
    with Reader(Files(view.files), windows(view, config, WORLD, 0, 8)) as reader:
        for raw in reader:
            masked = (front(raw, training=True).feat_BTF == 0).all(1)
            assert torch.equal(masked[:, :64], masked[:, 64:])
            assert masked.any()


@pytest.mark.parametrize("name", FRONTS)
def test_trains_and_scores(home: Path, name: str, tmp_path: Path) -> None:
    model = {"name": "cnn6", "channels": 8, "embedding": 8}
    run = {"dir": str(tmp_path), "name": "packed", "max_steps": 3, "epochs": 9}
    config = configured(
        home,
        name,
        True,
        model=model,
        run=run,
        features={"norm": "dataset"},
        augment={"speed": [1], "mixup": {"probability": 0.5}, "spec": {"freq_width": 3}},
        log={"tensorboard": False},
    )
    parts = Parts(config, WORLD)
    assert Engine(parts).run()
    result = json.loads((tmp_path / "packed" / "result.json").read_text())
    assert 0 <= result["accuracy"] <= 1 and result["step"] == 3
    assert parts.views.evaluation is not None
    again = evaluate(parts.model, parts.views.evaluation, config, parts.front, WORLD, lambda: False)
    assert again is not None and again.values["loss"] == pytest.approx(result["loss"])
    facts = json.loads((tmp_path / "packed" / "environment.json").read_text())
    assert facts["packed"]["settings"]["features"]["name"] == check_name(name)
    assert_hears_both(tmp_path / "packed", home / f"{name}-features", home / f"{name}-audio")
    assert_same_front_end_is_seen(config, tmp_path / "packed", parts)
    saved = parts.payload(torch.zeros(1))["packed"]
    packed.same(saved, parts.front.stored)
    with pytest.raises(ValueError, match="the checkpoint's model was trained on audio, the shards hold features"):
        packed.same(None, parts.front.stored)
    with pytest.raises(ValueError, match=r"was trained on features .* the shards hold audio"):
        packed.same(saved, None)


def assert_same_front_end_is_seen(config: Config, run: Path, parts: Parts) -> None:
    """Weights of packed features fit the same features, and audio by the front end that made them: no warning."""
    model = config.model.model_copy(update={"pretrained": str(run)})
    folder = config.run.model_copy(update={"name": "again", "max_steps": 1})
    assert Engine(Parts(config.model_copy(update={"model": model, "run": folder}), WORLD)).run()
    assert json.loads((run.parent / "again" / "pretrained.json").read_text())["warning"] is None
    needed = systems.trained_with(weights.read(str(run)).config or {})
    heard = packed.made_by(config, parts.front.stored)
    assert heard.features.name != "packed" and systems.warning(("dist_train",), heard, needed) is None
    other = heard.model_copy(update={"features": heard.features.model_copy(update={"low_freq": 50.0})})
    assert "features.low_freq=" in str(systems.warning(("dist_train",), other, needed))


def assert_hears_both(run: Path, features: Path, audio: Path) -> None:
    """A model of packed features embeds clips of a window's length alike, be they features or audio."""
    found = {}
    for folder in (features, audio):
        view = choose([open_set(folder)])
        network = saved_runs.load(run, [], WORLD, packed.of_view(view))
        made = embed(network.model, view, network.config, network.front, lambda done, total: None)
        found[folder] = dict(zip(made.keys.tolist(), made.vectors_NE, strict=True))
    rows = view.rows(np.arange(len(view)))
    whole = [view.key(number) for number in np.flatnonzero(rows["frames"] == rows["rate"])]
    assert len(whole) == 4
    for key in whole:
        np.testing.assert_allclose(found[features][key], found[audio][key], rtol=1e-3, atol=1e-4)


def check_name(name: str) -> str:
    return {"fbank": "fbank", "stereo": "mel", "spectrogram": "spectrogram"}[name]


@pytest.mark.parametrize("name", FRONTS)
def test_a_model_of_packed_features_can_hear_audio(home: Path, name: str) -> None:
    config = configured(home, name, stored=True)
    stored = packed.of_view(views(config).train)
    assert stored is not None
    again = packed.unpacked(config, stored.record())
    assert packed.stored_as(again.audio, again.features) == stored
    assert again.features.norm == config.features.norm and again.audio.seconds == config.audio.seconds
    assert packed.unpacked(config, None) is config
    with pytest.raises(ValueError, match="unknown front end"):
        packed.unpacked(config, stored.record() | {"settings": None})


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.full)])
def test_shards_are_ordinary_tars_of_the_same_bytes(home: Path, tmp_path: Path, workers: int) -> None:
    first = home / "fbank-features" / "shard-000000.tar"
    samples = list(webdataset.WebDataset(str(first), shardshuffle=False).decode())
    assert len(samples) == 12
    for sample in samples:
        assert sample["npy"].dtype == np.float32 and sample["npy"].shape[1] == 40
        assert sample["json"]["label"] in ("low", "high")
    again_root = tmp_path / "again"
    report = pack(home / "source", again_root, Options(folds=2, workers=workers, features=home / "fbank.yaml"))
    assert report.clips == 12
    for name in ("shard-000000.tar", "index.json", "index.npy", "features.json"):
        assert (again_root / name).read_bytes() == (home / "fbank-features" / name).read_bytes()
    again = made(home, "fbank")
    assert again.kept == again.shards == 1
    assert checking.check(home / "fbank-features") == []
    info = open_set(home / "fbank-features").info["features"]
    assert (info["bins"], info["rate"], info["channels"]) == (40, 100, 1)
    assert info == json.loads((home / "fbank-features" / "features.json").read_text())


def test_wide_frames_and_halves(home: Path) -> None:
    one = open_set(home / "spectrogram-features")
    assert set(one.rows["channels"]) == {513} and set(one.rows["codec"]) == {CODECS.F32}
    made(home, "spectrogram", "half", feature_type="float16")
    half = open_set(home / "half")
    assert set(half.rows["codec"]) == {CODECS.F16} and half.rows["size"].sum() * 2 == one.rows["size"].sum()
    config = configured(home, "spectrogram", True)
    whole = scored(config)
    small = scored(config.model_copy(update={"data": config.data.model_copy(update={"shards": [str(home / "half")]})}))
    for key, clips in whole.items():
        for (feat, _), (rough, _) in zip(clips, small[key], strict=True):
            assert 0 < (feat - rough).abs().max() < 0.1


def test_a_damaged_array_is_named(home: Path, tmp_path: Path) -> None:
    raw = bytearray((home / "fbank-features" / "shard-000000.tar").read_bytes())
    for name in ("index.json", "index.npy", "activity.npy", "keys.npy", "keys.bin", "classes.txt", "features.json"):
        (tmp_path / name).write_bytes((home / "fbank-features" / name).read_bytes())
    one = open_set(home / "fbank-features")
    raw[int(one.rows["offset"][3]) + 5] ^= 1
    (tmp_path / "shard-000000.tar").write_bytes(raw)
    (line,) = checking.check(tmp_path)
    assert one.key(3) in line and "its audio is not what was indexed" in line


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((5, 3), np.int16), "a .npy of type <i2: features are little-endian floats"),
        (np.zeros((5, 3), ">f4"), "a .npy of type >f4"),
        (np.zeros(5, np.float32), r"a .npy of shape \(5,\): features have the shape \(frames, bins\)"),
        (np.asfortranarray(np.zeros((5, 3), np.float32)), "in Fortran's order"),
        (np.zeros((0, 3), np.float32), "a .npy of shape"),
    ],
)
def test_arrays_that_are_no_features(array: np.ndarray, said: str) -> None:
    file = io.BytesIO()
    np.save(file, array)
    with pytest.raises(ValueError, match=said):
        npy.parse(file, len(file.getvalue()), 100)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200), cut=st.integers(0, 300))
def test_a_header_is_never_trusted(data: bytes, cut: int) -> None:
    file = io.BytesIO()
    np.save(file, np.ones((4, 3), np.float32))
    good = file.getvalue()
    for text in (data, npy.MAGIC + b"\x01\x00" + data, good[: min(cut, len(good) - 1)], good + data + b"x"):
        with pytest.raises(ValueError):
            npy.parse(io.BytesIO(text), len(text), 100)
    assert npy.parse(io.BytesIO(good), len(good), 50).frames == 4


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_anybodys_arrays(tmp_path: Path) -> None:
    """No word of the front end: 100 frames a second, and another such set of the same width may stand beside it."""
    values = np.random.default_rng(0).standard_normal((8, 50, 7)).astype(np.float32)
    members = {}
    for number, array in enumerate(values):
        members |= {f"{number}.npy": saved(array), f"{number}.cls": b"%d" % (number % 2)}
    tar(tmp_path / "a.tar", members)
    indexing.build(tmp_path)
    one = open_set(tmp_path)
    said = {"bins": 7, "channels": 1, "rate": 100, "settings": None}
    assert {name: one.info["features"][name] for name in said} == said
    data = {"shards": [str(tmp_path)], "micro_batch": 4, "batch_size": 4}
    values_of = {"data": data, "audio": {"seconds": 0.5}, "features": {"name": "packed", "norm": "none"}}
    config = check(values_of | {"augment": {"speed": [1]}}, "test")
    view, front = views(config).train, front_end(config)
    with Reader(Files(view.files), clip_windows(view, np.arange(8), config)) as reader:
        batch = front(next(reader), training=False)
    np.testing.assert_array_equal(batch.feat_BTF.numpy(), values)


def test_an_array_beside_audio_is_not_the_audio(tmp_path: Path) -> None:
    file = io.BytesIO()
    soundfile.write(file, sound(800), 16000, format="WAV", subtype="PCM_16")
    tar(tmp_path / "a.tar", {"x.wav": file.getvalue(), "x.npy": saved(np.zeros(3)), "x.cls": b"0"})
    indexing.build(tmp_path)
    assert "features" not in open_set(tmp_path).info
    tar(tmp_path / "b.tar", {"y.npy": saved(np.zeros((9, 4), "<f4")), "y.cls": b"0"})
    with pytest.raises(ValueError, match="holds audio, features of 4 bins: one set of shards holds one kind"):
        indexing.build(tmp_path)


def test_an_index_of_before_is_read(home: Path, tmp_path: Path) -> None:
    for path in (home / "fbank-audio").iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    rows = np.load(tmp_path / "index.npy")
    assert OLD_ROW.itemsize == ROW.itemsize == 64
    rows["reserved"] = 0  # they had no checksums
    rewrite(tmp_path, rows.view(OLD_ROW), sealed=False)
    assert np.array_equal(np.asarray(open_set(tmp_path).rows), rows)


def test_shards_of_another_kind_are_refused_by_name(home: Path) -> None:
    def run(shards: list[str], name: str, **more: Any) -> None:
        values: dict[str, Any] = {"data": {"shards": [str(home / one) for one in shards]}, "features": {"name": name}}
        views(check(values | {"augment": {"speed": [1]}} | more, "test"))

    with pytest.raises(ValueError, match=r"fbank-audio: holds audio, and features.name=packed takes features"):
        run(["fbank-audio"], "packed")
    with pytest.raises(
        ValueError, match=r"fbank-features: holds features, 40 bins .*name=fbank.*set features.name=pack"
    ):
        run(["fbank-features"], "fbank")
    with pytest.raises(ValueError, match=r"spectrogram-features: holds features of another front end than .*fbank"):
        run(["fbank-features", "spectrogram-features"], "packed")


def test_features_are_no_noise(home: Path) -> None:
    noise = {"shards": [str(home / "fbank-features")]}
    config = configured(home, "fbank", False, augment={"speed": [1], "noise": noise})
    with pytest.raises(ValueError, match="fbank-features: holds packed features, not sound"):
        front_end(config)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "augment.speed needs waveforms .* set augment.speed=\\[1\\]"),
        ({"augment": {"speed": [1], "gain_db": [-3, 3]}}, "augment.gain_db needs waveforms"),
        ({"augment": {"speed": [1], "shift": 0.2}}, "augment.shift needs waveforms"),
        ({"augment": {"speed": [1], "noise": {"shards": ["x"]}}}, "augment.noise needs waveforms"),
        ({"augment": {"speed": [1], "reverb": {"shards": ["x"]}}}, "augment.reverb needs waveforms"),
        ({"augment": {"speed": [1], "mixup": {"kind": "between_class"}}}, "augment.mixup.kind=between_class needs"),
        ({"audio": {"sample_rate": 8000}}, "audio.sample_rate was settled when the features were packed"),
        ({"audio": {"target_db": -20.0}}, "audio.target_db was settled"),
        ({"audio": {"crop": "active"}}, "audio.crop=active needs waveforms"),
        ({"audio": {"short": "random_pad"}}, "audio.short=random_pad needs waveforms"),
        ({"features": {"name": "packed", "bins": 40}}, "bins has no effect with name=packed"),
    ],
)
def test_what_needs_waveforms_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check({"features": {"name": "packed"}} | values, "test")


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("{features: {name: waveform}}", {}, "features.name=waveform makes no features of audio"),
        ("{audio: {channels: first}}", {}, "audio.channels=first cannot be packed"),
        ("{audio: {target_db: -20.0, level: crop}}", {}, "audio.level=crop needs windows"),
        ("{}", {"sample_rate": 8000}, "--sample-rate 8000: --features settles it, 16000"),
        ("{}", {"codec": "flac"}, "--codec flac: --features settles it"),
        ("{}", {"feature_type": "int8"}, "--feature-type int8: is none of float32, float16"),
        (
            "{features: {name: spectrogram, scale: linear, waveform_scale: 32768.0}}",
            {"feature_type": "float16"},
            "float16",
        ),
    ],
)
def test_what_cannot_be_packed(home: Path, tmp_path: Path, text: str, options: dict[str, Any], said: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        pack(home / "source", tmp_path / "out", Options(features=tmp_path / "c.yaml", workers=1, folds=2, **options))
