"""All changes of windows together: both paths alike, keyed by position, off in evaluation, free where they are off."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import index_rows, raw_batch, sound
from launches import Job, arguments, make_shards, train
from test_batched import CHANGES, Watched, batch, same_but_features

from dist_train.batched import Batched
from dist_train.config import check
from dist_train.effects import chosen
from dist_train.effects.scene import Scene
from dist_train.frontend import FrontEnd
from dist_train.settings import Audio, Augment, Codec, Cut, CutMix, Features, Mixup, Pass, SpecAugment, Stretch, White
from dist_train.settings.effects import traceless
from dist_train.window import train_windows

SINGLE: dict[str, Any] = {
    "crop": Cut(),
    "stretch": Stretch(rate=(0.6, 1.4), fft=256),
    "polarity": 0.5,
    "low_pass": Pass(hz=(1000.0, 4000.0)),
    "high_pass": Pass(hz=(50.0, 500.0)),
    "white": White(snr_db=(0.0, 20.0)),
    "codec": Codec(band_hz=4000.0),
}
ALL = CHANGES | SINGLE | {"spec": SpecAugment(fill="noise", freq_width=0.1), "cutmix": CutMix(probability=0.4)}


def accelerated(audio: Audio, augment: Augment, features: Features, **options: Any) -> Batched:
    """The accelerator's front end, on any device."""
    options = {"seed": 0, "device": "cpu", "dtype": torch.float64} | options
    scene = Scene(audio, augment, seed=0, device=options["device"], dtype=options["dtype"])
    return Batched(audio, augment, features, change=scene.change, lengths=scene.lengths, **options)


@pytest.mark.parametrize("short", ["tile", "pad", "random_pad"])
@pytest.mark.parametrize(("part", "channels"), [("time", "mono"), ("box", 2)])
def test_both_paths_are_equal(short: Any, part: Any, channels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = Audio(seconds=0.5, short=short, channels=channels, target_db=-20.0)
    augment = Augment(**ALL | {"cutmix": CutMix(probability=0.4, part=part)})
    features = Features(dither=1e-4, norm="cmvn")
    raw = batch(audio, augment, training=True)
    theirs = FrontEnd(audio, augment, features, seed=0, device="cpu", dtype=torch.float64)(raw, training=True)
    monkeypatch.setattr(chosen, "alone", chosen.together)
    ours = accelerated(audio, augment, features)(raw, training=True)
    same_but_features(ours, theirs)
    torch.testing.assert_close(ours.wave_BT, theirs.wave_BT, rtol=0, atol=1e-11)
    torch.testing.assert_close(ours.feat_BTF, theirs.feat_BTF, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", [*SINGLE, "cutmix"])
def test_each_change_is_equal_in_float32_and_changes_its_share(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    audio, augment = Audio(seconds=0.5), Augment(**{name: ALL[name]})
    raw = batch(audio, augment, training=True, rows=32, seed=2)
    theirs = FrontEnd(audio, augment, Features(norm="none"), seed=0, device="cpu")(raw, training=True)
    plain = FrontEnd(audio, Augment(), Features(norm="none"), seed=0, device="cpu")(
        batch(audio, Augment(), training=True, rows=32, seed=2), training=True
    )
    changed = (theirs.wave_BT != plain.wave_BT).any(1).float().mean()
    assert 0.2 < changed < 0.8
    monkeypatch.setattr(chosen, "alone", chosen.together)
    ours = accelerated(audio, augment, Features(norm="none"), dtype=torch.float32)(raw, training=True)
    same_but_features(ours, theirs)
    close = (ours.wave_BT - theirs.wave_BT).abs() < 5e-5
    assert close.float().mean() > (0.999 if name == "codec" else 0.999999)


@pytest.mark.parametrize("short", ["tile", "pad"])
def test_a_row_alone_is_what_it_is_in_its_group(short: Any) -> None:
    augment = Augment(**SINGLE | {"speed": CHANGES["speed"], "spec": SpecAugment(fill="noise")})
    audio = Audio(seconds=0.5, short=short)
    clips = [sound(3000 + 1500 * number, seed=number) for number in range(6)]
    front = FrontEnd(audio, augment, Features(), seed=1, device="cpu")
    plan = train_windows(index_rows(clips), np.arange(6), np.arange(6) + 50, None, audio, augment, 1)
    together = front(raw_batch(plan, clips), training=True)
    again = front(raw_batch(plan, clips), training=True)
    assert torch.equal(again.feat_BTF, together.feat_BTF)
    for row in range(6):
        alone = front(raw_batch(plan[row : row + 1], clips), training=True)
        assert torch.equal(alone.wave_BT[0], together.wave_BT[row])
        torch.testing.assert_close(alone.feat_BTF[0], together.feat_BTF[row], rtol=0, atol=1e-5)
    elsewhere = plan.copy()
    elsewhere["position"] += 1000
    other = front(raw_batch(elsewhere, clips), training=True)
    assert (other.wave_BT != together.wave_BT).any(1).float().mean() > 0.8


def test_nothing_of_it_in_evaluation() -> None:
    audio = Audio(seconds=0.5, short="pad")
    raw = batch(audio, Augment(), training=False, rows=6)
    made = [
        front(raw, training=False)
        for augment in (Augment(), Augment(**ALL))
        for front in (
            FrontEnd(audio, augment, Features(), seed=0, device="cpu", dtype=torch.float64),
            accelerated(audio, augment, Features()),
        )
    ]
    for one, other in ((made[0], made[2]), (made[1], made[3])):
        assert torch.equal(one.feat_BTF, other.feat_BTF)
        assert torch.equal(one.frames_B, other.frames_B)
        assert (other.mix_B == 1).all() and torch.equal(other.partner_B, torch.arange(len(raw.plan)))


def test_nothing_waits_and_only_what_is_on_costs_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "alone", chosen.together)
    audio = Audio(seconds=0.5)

    def operations(**changes: Any) -> int:
        augment = Augment(**changes)
        front = accelerated(audio, augment, Features(), dtype=torch.float32)
        front(batch(audio, augment, training=True, rows=6, plain=True), training=True)
        counts = []
        for seed in (1, 2):
            raw = batch(audio, augment, training=True, seed=seed, rows=6, plain=True)
            with Watched() as watched:
                front(raw, training=True)
            counts.append(watched.count)
        assert counts[0] == counts[1]
        return counts[0]

    plain = operations()
    off = {
        name: settings.model_copy(update={"probability": 0.0})
        for name, settings in SINGLE.items()
        if name != "polarity"
    }
    assert operations(**off) == plain
    assert operations(polarity=1.0, crop=Cut(probability=1.0)) == plain
    always = {
        name: settings.model_copy(update={"probability": 1.0})
        for name, settings in SINGLE.items()
        if name != "polarity"
    }
    costs = {"stretch": 110, "low_pass": 35, "high_pass": 35, "white": 50, "codec": 60}
    for name, most in costs.items():
        assert plain < operations(**{name: always[name]}) <= plain + most, name
    assert operations(cutmix=CutMix(probability=1.0)) <= plain + 10
    assert operations(cutmix=CutMix(probability=1.0, part="box")) <= plain + 15


def test_shapes_on_any_device() -> None:
    audio, augment = Audio(seconds=0.5, short="pad", channels=2), Augment(**ALL)
    front = accelerated(audio, augment, Features(), device="meta", dtype=torch.float32)
    raw = batch(audio, augment, training=True)
    assert front(raw, training=True).feat_BTF.shape == (len(raw.plan), 48, 160)


def test_a_stretched_window_of_padded_clips_counts_as_long_as_it_is() -> None:
    audio = Audio(seconds=1.0, short="pad")
    augment = Augment(speed=[Fraction(1)], stretch=Stretch(probability=1.0, rate=(0.5, 2.0), fft=256))
    clips = [sound(8000, seed=number) for number in range(8)]
    plan = train_windows(index_rows(clips), np.arange(8), np.arange(8), None, audio, augment, 0)
    made = FrontEnd(audio, augment, Features(), seed=0, device="cpu")(raw_batch(plan, clips), training=True)
    assert made.frames_B is not None
    lengths = [int(np.flatnonzero(row.numpy())[-1]) + 1 for row in made.wave_BT]
    assert min(lengths) < 6000 and max(lengths) > 11000
    for length, frames in zip(lengths, made.frames_B.tolist(), strict=True):
        assert abs(frames - (1 + (length - 400) // 160)) <= 1


def test_cut_mix_reports_what_it_replaced() -> None:
    clips = [sound(20000, seed=number) for number in range(12)]
    audio, cut = Audio(seconds=1.0), CutMix(probability=1.0)
    augment, plain = Augment(speed=[Fraction(1)], cutmix=cut), Augment(speed=[Fraction(1)])
    plan = train_windows(index_rows(clips), np.arange(12), np.arange(12), None, audio, augment, 0)
    made = FrontEnd(audio, augment, Features(), seed=0, device="cpu")(raw_batch(plan, clips), training=True)
    before = FrontEnd(audio, plain, Features(), seed=0, device="cpu")(raw_batch(plan, clips), training=True).wave_BT
    own, theirs = made.wave_BT == before, made.wave_BT == before[made.partner_B]
    assert (own | theirs).all()
    torch.testing.assert_close(made.mix_B, own.float().mean(1), rtol=0, atol=1e-3)
    assert made.mix_B.min() < 0.2 and made.mix_B.max() > 0.8


B: dict[str, Any] = {
    "audio": {"sample_rate": 22050, "short": "pad"},
    "augment": {
        "speed": [1],
        "white": {"probability": 0.3, "sigma": [0.001, 0.001]},
        "crop": {"probability": 0.4, "keep": [0.5, 1.0]},
        "stretch": {"probability": 0.4, "rate": [0.6, 1.4], "fft": 2048},
    },
    "features": {"name": "mel", "bins": 128, "fft": 2048, "frame_length": 92.88, "frame_shift": 23.22, "norm": "clip"},
}
C: dict[str, Any] = {
    "audio": {"sample_rate": 44100, "channels": 2, "seconds": 4.0, "short": "pad"},
    "augment": {
        "speed": [1],
        "shift": 0.4,
        "spec": {"freq_masks": 2, "freq_width": 0.1, "time_masks": 2, "time_width": 0.1, "fill": "mean"},
    },
    "features": {
        "name": "mel",
        "bins": 64,
        "fft": 1024,
        "scale": "db",
        "top_db": 80.0,
        "norm": "batch",
        "frame_length": 23.22,
    },
}


@pytest.mark.parametrize("values", [B, C])
def test_systems_augmentation_in_one_configuration(values: dict[str, Any]) -> None:
    config = check(values, "here")
    clips = [sound(int(config.audio.sample_rate * 1.5), 1, seed=number) for number in range(4)]
    rows, ids = index_rows(clips, config.audio.sample_rate), np.arange(4)
    plan = train_windows(rows, ids, ids, None, config.audio, config.augment, 0)
    front = FrontEnd(config.audio, config.augment, config.features, seed=0, device="cpu")
    made = front(raw_batch(plan, clips), training=True)
    assert torch.isfinite(made.feat_BTF).all()
    assert made.frames_B is not None and made.frames_B.max() < made.feat_BTF.shape[1]
    assert traceless(config.audio, config.augment, config.features) == []


GAIN = {"gain_db": [-6, 6]}


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ({"augment": GAIN}, "augment.gain_db does nothing: features.norm=cmn"),
        ({"augment": GAIN, "audio": {"target_db": -20, "level": "crop"}}, "augment.gain_db"),
        ({"augment": GAIN | {"noise": {"shards": ["x"]}}}, "augment.gain_db"),
        ({"augment": GAIN, "features": {"name": "mel", "scale": "db", "norm": "clip"}}, "augment.gain_db"),
        ({"augment": GAIN, "features": {"name": "spectrogram", "scale": "linear", "norm": "cmvn"}}, "augment.gain_db"),
        ({"augment": GAIN, "features": {"name": "spectrogram", "scale": "linear", "norm": "cmn"}}, None),
        ({"augment": GAIN, "features": {"name": "waveform", "norm": "none"}}, None),
        ({"augment": GAIN, "features": {"norm": "dataset"}}, None),
        ({"augment": GAIN, "features": {"dither": 1e-4}}, None),
        ({"augment": GAIN | {"mixup": {"probability": 0.5}}}, None),
        ({"augment": GAIN | {"white": {"sigma": [0.001, 0.01]}}}, None),
        ({"augment": GAIN | {"white": {"snr_db": [5, 20]}}}, "augment.gain_db"),
        (
            {"augment": GAIN | {"codec": {}}, "audio": {"target_db": -20, "level": "crop"}},
            "augment.gain_db",
        ),
        ({"augment": {"polarity": 0.5}}, "augment.polarity does nothing: features.name=fbank"),
        ({"augment": {"polarity": 0.5}, "features": {"name": "waveform", "norm": "none"}}, None),
        ({}, None),
    ],
)
def test_what_leaves_no_trace_is_warned_of(values: dict[str, Any], warned: str | None) -> None:
    config = check(values, "here")
    lines = traceless(config.audio, config.augment, config.features)
    assert len(lines) == (warned is not None)
    assert warned is None or lines[0].startswith(warned)
    if "noise" in values.get("augment", {}):
        return  # its bank is not there
    clips, audio = [sound(8000, seed=number) for number in range(4)], config.audio.model_copy(update={"seconds": 0.3})
    made = []
    for augment in (config.augment, config.augment.model_copy(update={"gain_db": None, "polarity": 0.0})):
        plan = train_windows(index_rows(clips), np.arange(4), np.arange(4), None, audio, augment, 0)
        front = FrontEnd(audio, augment, config.features, seed=0, device="cpu", dtype=torch.float64)
        front.statistics = torch.ones(2, front.bins)
        made.append(front(raw_batch(plan, clips), training=True).feat_BTF)
    if values:
        assert torch.allclose(*made, rtol=0, atol=1e-5) == (warned is not None)  # the warning is right


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"augment": {"low_pass": {"hz": [500, 9000]}}}, "augment.low_pass.hz reaches to 9000 Hz"),
        ({"augment": {"codec": {"band_hz": 8000}}}, "augment.codec.band_hz=8000 takes nothing off"),
        ({"augment": {"cutmix": {"probability": 0.5, "part": "box"}}, "features": {"name": "waveform"}}, "part=time"),
        ({"augment": {"mixup": {"probability": 0.6}, "cutmix": {"probability": 0.6}}}, "add up to 1.2, over 1"),
        ({"augment": {"white": {}}}, "give sigma or snr_db, one of them"),
        ({"augment": {"white": {"sigma": [0.1, 0.2], "snr_db": [0, 1]}}}, "give sigma or snr_db, one of them"),
        ({"augment": {"crop": {"keep": [0, 1]}}}, "keep is a range of shares over 0"),
        ({"augment": {"stretch": {"rate": [0.1, 1]}}}, "rate is a range of factors from 0.25 to 4"),
        ({"augment": {"high_pass": {"hz": [500, 50]}}}, "the lower end of hz comes first"),
        ({"augment": {"spec": {"freq_width": 1.5}}}, "augment.spec.freq_width"),
    ],
)
def test_mistakes_are_one_line_with_their_key(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError) as caught:
        check(values, "here")
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_mixup_keeps_its_draws_beside_cut_mix() -> None:
    audio, mixup = Audio(seconds=0.5), Mixup(probability=0.5, kind="between_class")
    raw = batch(audio, Augment(), training=True, rows=24, plain=True)
    one = accelerated(audio, Augment(mixup=mixup), Features())(raw, training=True)
    both = accelerated(audio, Augment(mixup=mixup, cutmix=CutMix(probability=0.3)), Features())(raw, training=True)
    mixed = one.mix_B < 1
    assert torch.equal(one.wave_BT[mixed], both.wave_BT[mixed])
    assert torch.equal(one.mix_B[mixed], both.mix_B[mixed])
    assert (both.mix_B[~mixed] < 1).any()


@pytest.mark.full
@pytest.mark.parametrize("part", ["time", "box"])
def test_compiled_changes_are_equal_and_compiled_once(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "alone", chosen.together)
    torch._dynamo.reset()
    audio, augment = Audio(seconds=0.5, short="pad"), Augment(**ALL | {"cutmix": CutMix(probability=0.4, part=part)})
    eager = accelerated(audio, augment, Features(norm="cmvn"))
    compiled = accelerated(audio, augment, Features(norm="cmvn"), compile=True)
    compiled(batch(audio, augment, training=True, plain=True), training=True)
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed, rows in ((1, 12), (2, 7), (3, 2)):
            raw = batch(audio, augment, True, seed, rows, plain=True)
            made, expected = compiled(raw, training=True), eager(raw, training=True)
            same_but_features(made, expected)
            torch.testing.assert_close(made.wave_BT, expected.wave_BT, rtol=0, atol=1e-9)
            torch.testing.assert_close(made.feat_BTF, expected.feat_BTF, rtol=0, atol=1e-5)


RUN = (
    *("precision=fp64", "run.max_steps=2", "audio.short=pad", "augment.gain_db=[-6, 6]", "augment.crop={}"),
    *("augment.stretch={fft: 256}", "augment.white={snr_db: [5, 20]}", "augment.low_pass={hz: [500, 4000]}"),
    *("augment.cutmix.probability=0.5", "augment.mixup={probability: 0.3, kind: between_class}"),
    *("augment.spec={fill: noise, freq_width: 0.1}", "augment.polarity=0.5"),
)


@pytest.mark.full
def test_a_run_has_the_same_losses_on_any_number_of_ranks(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "shards")
    one, two = (train(tmp_path / f"{ranks}", shards, *RUN, ranks=ranks) for ranks in (1, 2))
    assert one.column("stream") == two.column("stream")
    assert two.column("loss") == pytest.approx(one.column("loss"), rel=0, abs=1e-9)


def test_a_run_says_which_change_leaves_no_trace(tmp_path: Path) -> None:
    given = arguments(tmp_path, make_shards(tmp_path / "shards"), "run.max_steps=1", "augment.gain_db=[1, 2]")
    job = Job(given, tmp_path)
    assert job.wait() == [0], job.text()
    assert "augment.gain_db does nothing: features.norm=cmn takes a gain off" in " ".join(job.text().split())
