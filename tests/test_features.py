"""Features: equal to torchaudio, exact on ragged batches, normalised as said; the front end as a whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from clips import index_rows, raw_batch, sound

from dist_train.config import check
from dist_train.features import Fbank
from dist_train.frontend import FrontEnd
from dist_train.presets import PRESETS, preset
from dist_train.settings import Audio, Augment, Features, Mixup, Noise, Reverb, SpecAugment
from dist_train.spectra.norm import frame_sums, normalise, statistics
from dist_train.window import eval_windows, full_windows, train_windows

CPU = torch.device("cpu")


def kaldi(wave_BT: torch.Tensor, **options: Any) -> torch.Tensor:
    options = {"num_mel_bins": 80} | options
    return torch.stack([torchaudio.compliance.kaldi.fbank(row[None], **options) for row in wave_BT])


def loud_and_quiet(rows: int, samples: int) -> torch.Tensor:
    """Noise, tones and an offset at levels 60 dB apart."""
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(rows, samples, generator=generator) * torch.logspace(-4, -0.5, rows)[:, None]
    tone = torch.sin(torch.arange(samples) * 2 * torch.pi * 440 / 16000)
    return wave + 0.3 * tone * (torch.arange(rows) % 2)[:, None] + 0.02


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"waveform_scale": 32768.0, "window": "hamming"}, {"window_type": "hamming"}),
        ({"bins": 23, "window": "blackman"}, {"num_mel_bins": 23, "window_type": "blackman"}),
        ({"low_freq": 60.0, "high_freq": -400.0}, {"low_freq": 60.0, "high_freq": -400.0}),
        ({"preemphasis": 0.0, "window": "hanning"}, {"preemphasis_coefficient": 0.0, "window_type": "hanning"}),
        ({"frame_length": 32.0, "frame_shift": 8.0}, {"frame_length": 32.0, "frame_shift": 8.0}),
    ],
)
def test_fbank_equals_torchaudio(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    wave = loud_and_quiet(7, 16123)
    expected = kaldi(wave * ours.get("waveform_scale", 1.0), **theirs)
    out = Fbank(Audio(), Features(**ours), CPU, exact=True)(wave)
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [1.0, 32768.0])
@pytest.mark.parametrize("offset", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("window", ["povey", "hanning", "blackman", "hamming"])
def test_fbank_is_as_near_to_float64_as_torchaudio(scale: float, offset: float, window: str) -> None:
    wave = loud_and_quiet(8, 32000) + offset
    wide = kaldi(wave.double() * scale, window_type=window)
    theirs = (kaldi(wave * scale, window_type=window) - wide).abs()
    ours = (Fbank(Audio(), Features(window=window, waveform_scale=scale), CPU)(wave) - wide).abs()
    assert ours.max() <= max(2e-6, 2 * theirs.max())
    assert ours.mean() <= max(5e-6, 1.2 * theirs.mean())
    loud = wide > wide.amax(-1, keepdim=True) - 60 * np.log(10) / 10
    assert ours[loud].max() <= max(3e-4, 1.5 * theirs[loud].max())


def test_fbank_in_float64() -> None:
    wave = loud_and_quiet(3, 5000).double()
    torch.testing.assert_close(Fbank(Audio(), Features(), CPU, torch.float64)(wave), kaldi(wave), rtol=0, atol=1e-11)


def test_mfcc_equals_torchaudio() -> None:
    wave = loud_and_quiet(5, 9000)
    expected = [torchaudio.compliance.kaldi.mfcc(row[None], num_mel_bins=40, num_ceps=20) for row in wave]
    out = Fbank(Audio(), Features(name="mfcc", bins=40, ceps=20), CPU, exact=True)(wave)
    torch.testing.assert_close(out, torch.stack(expected), rtol=1e-6, atol=5e-5)


def test_padding_is_never_seen() -> None:
    bank, wave = Fbank(Audio(), Features(), CPU), loud_and_quiet(6, 8000)
    lengths = [400, 401, 559, 560, 4000, 8000]
    junk = wave.clone()
    for row, length in enumerate(lengths):
        junk[row, length:] = 7.0
    out = bank(junk)
    for row, length in enumerate(lengths):
        alone = bank(wave[row : row + 1, :length])
        assert alone.shape[1] == bank.frames(length) == 1 + (length - 400) // 160
        # a product with one row may sum in another order: the last bit of the mel energies
        torch.testing.assert_close(alone[0], out[row, : alone.shape[1]], rtol=0, atol=2e-6)


@pytest.mark.parametrize("norm", ["cmn", "cmvn", "clip", "batch", "dataset", "none"])
def test_norms_over_valid_frames_only(norm: str) -> None:
    feat, frames = torch.randn(3, 9, 4) * 3 + 5, torch.tensor([9, 4, 1])
    moments = torch.tensor([[1.0] * 4, [2.0] * 4])
    out = normalise(feat.clone(), frames, norm, moments)
    axes = {"cmn": (0,), "cmvn": (0,), "clip": (0, 1)}.get(norm)
    for row, count in enumerate(frames.tolist()):
        own = feat[row, :count]
        assert not out[row, count:].any()
        if norm == "batch":
            every = torch.cat([feat[other, :length].flatten() for other, length in enumerate(frames.tolist())])
            expected = (own - every.mean()) / every.std()
        elif axes:
            expected = own - own.mean(axes, keepdim=True)
            if norm != "cmn":
                unbiased = 1 if norm == "clip" else 0
                expected = expected / own.var(axes, correction=unbiased, keepdim=True).clamp(min=1e-10).sqrt()
        else:
            expected = (own - 1) / 2 if norm == "dataset" else own
        torch.testing.assert_close(out[row, :count], expected, rtol=1e-4, atol=1e-4)
    full = normalise(feat.clone(), None, norm, moments)
    torch.testing.assert_close(full, normalise(feat.clone(), torch.tensor([9, 9, 9]), norm, moments))


def test_dataset_statistics_are_exact_in_any_order() -> None:
    feat = torch.randn(40, 30, 8) * 4 - 6
    weight = torch.ones(40)
    weight[3] = 0
    whole = frame_sums(feat, None, weight)
    parts = [frame_sums(feat[cut], None, weight[cut]) for cut in (slice(13, 40), slice(0, 5), slice(5, 13))]
    assert torch.equal(whole, torch.stack(parts).sum(0))
    kept = feat[weight > 0].flatten(0, 1).double()
    expected = torch.stack([kept.mean(0), kept.std(0, correction=0)])
    torch.testing.assert_close(statistics(whole), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="no readable frame"):
        statistics(torch.zeros(3, 8, dtype=torch.int64))


def make(features: Features | None = None, audio: Audio | None = None, **options: Any) -> FrontEnd:
    options = {"seed": 0, "device": "cpu"} | options
    return FrontEnd(audio or Audio(seconds=0.5), Augment(), features or Features(), **options)


def scored(front: FrontEnd, clips: list[np.ndarray], **options: Any) -> Any:
    rows = index_rows(clips, **options)
    return front(raw_batch(eval_windows(rows, np.arange(len(clips)), front.audio), clips), training=False)


def test_a_score_does_not_depend_on_batch_mates() -> None:
    clips = [sound(2000 * number + 900, seed=number) for number in range(1, 9)]
    for norm in ("cmn", "clip", "batch"):
        front = make(Features(norm=norm))
        plan = eval_windows(index_rows(clips), np.arange(8), front.audio)
        together = front(raw_batch(plan, clips), training=False).feat_BTF
        for order in (np.arange(len(plan))[::-1], np.array([3]), np.array([0, 5, 5, 2])):
            again = front(raw_batch(plan[order], clips), training=False).feat_BTF
            assert torch.equal(again, together[torch.from_numpy(order.copy())])


def test_whole_chain_equals_torchaudio() -> None:
    clips = [sound(9000, seed=1), sound(30000, seed=2)]
    batch = scored(make(Features(norm="cmn")), clips)
    first = torch.from_numpy(np.round(clips[0][:8000, 0] * 32768) / 32768).float()
    expected = kaldi(first[None])[0]
    assert batch.frames_B is None
    torch.testing.assert_close(batch.wave_BT[0], first, rtol=0, atol=2**-15)
    torch.testing.assert_close(batch.feat_BTF[0], expected - expected.mean(0), rtol=0, atol=2e-2)


def test_padded_clips_count_their_own_frames() -> None:
    front = make(audio=Audio(seconds=0.5, short="pad"))
    batch = scored(front, [sound(3000), sound(8000), sound(100)])
    assert batch.frames_B.tolist() == [17, 48, 1]
    assert batch.feat_BTF.shape == (3, 48, 80)
    assert not batch.feat_BTF[0, 17:].any()
    torch.testing.assert_close(batch.feat_BTF[0, :17].mean(0), torch.zeros(80), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["mel", "spectrogram"])
def test_spectra_take_the_same_path(name: str) -> None:
    settings = Features(name=name, fft=512, norm="none")
    front = make(settings, audio=Audio(seconds=0.5, short="pad", channels=2))
    clips = [sound(3000, 2), sound(8000, 2), sound(100, 2)]
    batch = scored(front, clips)
    assert batch.feat_BTF.shape == (3, front.frame_count, front.bins)
    assert batch.frames_B.tolist() == [19, 51, 2]
    wave = batch.wave_BT[1]
    options = {
        "n_fft": 512,
        "win_length": 400,
        "hop_length": 160,
        "window_fn": lambda size: torch.hann_window(size).pow(0.85),
    }
    if name == "mel":
        spectrum = torchaudio.transforms.MelSpectrogram(n_mels=80, f_min=20.0, **options)(wave)
    else:
        spectrum = torchaudio.transforms.Spectrogram(**options)(wave)
    expected = spectrum.clamp(min=1e-10).log().T
    torch.testing.assert_close(batch.feat_BTF[1, :, : front.bins // 2], expected, rtol=0, atol=1e-3)


def test_full_clips_of_different_lengths() -> None:
    clips = [sound(3000), sound(9000), sound(50)]
    front = make(Features(norm="cmvn"))
    plan = full_windows(index_rows(clips), np.arange(3), front.audio, max_seconds=20)
    batch = front(raw_batch(plan, clips), training=False)
    assert batch.frames_B.tolist() == [17, 54, 1]
    for row in range(2):
        alone = front(raw_batch(plan[row : row + 1], clips), training=False)
        count = int(batch.frames_B[row])
        torch.testing.assert_close(alone.feat_BTF[0], batch.feat_BTF[row, :count], rtol=0, atol=1e-4)


def test_channels_lie_side_by_side() -> None:
    front = make(audio=Audio(seconds=0.5, channels=2), features=Features(bins=40))
    assert (front.frame_count, front.bins) == (48, 80)
    stereo = sound(8000, 2)
    batch = scored(front, [stereo])
    for channel in range(2):
        alone = scored(make(Features(bins=40)), [stereo[:, channel : channel + 1]])
        torch.testing.assert_close(batch.feat_BTF[..., 40 * channel :][..., :40], alone.feat_BTF, rtol=0, atol=1e-5)


def test_model_precision_does_not_reach_the_features() -> None:
    clips, front = [sound(8000)], make()
    expected = scored(front, clips).feat_BTF
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = scored(front, clips).feat_BTF
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(out, expected)


def test_noise_rooms_and_level_reach_the_windows(tmp_path: Path) -> None:
    for name, wave in (("noise", sound(40000, seed=9)), ("room", np.eye(400, 1) + np.eye(400, 1, -300))):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", wave, 16000, subtype="FLOAT")
    (tmp_path / "noise" / "torn.wav").write_bytes(b"RIFF")
    noise = Noise(shards=[str(tmp_path / "noise")], probability=1.0, snr_db=(0.0, 0.0))
    reverb = Reverb(shards=[str(tmp_path / "room")], probability=1.0)
    clips = [sound(20000, seed=number) for number in range(4)]
    made: dict[str, torch.Tensor] = {}
    for name, augment, audio in (
        ("plain", Augment(), Audio(seconds=1.0)),
        ("noise", Augment(noise=noise), Audio(seconds=1.0)),
        ("reverb", Augment(reverb=reverb), Audio(seconds=1.0)),
        ("level", Augment(noise=noise, reverb=reverb), Audio(seconds=1.0, target_db=-20.0, level="crop")),
    ):
        front = FrontEnd(audio, augment, Features(), seed=0, device="cpu")
        assert len(front.bad) == (augment.noise is not None)
        raw = raw_batch(train_windows(index_rows(clips), np.arange(4), np.arange(4), None, audio, augment, 0), clips)
        made[name] = front(raw, training=True).wave_BT
        quiet = front(raw, training=False).wave_BT
        if name != "level":
            assert torch.equal(quiet, made.setdefault("scored", quiet))
    power = {name: wave.square().mean(1) for name, wave in made.items()}
    torch.testing.assert_close(power["noise"], 2 * power["plain"], rtol=0.1, atol=0)
    torch.testing.assert_close(power["reverb"], power["plain"], rtol=1e-4, atol=0)
    torch.testing.assert_close(power["level"], torch.full((4,), 0.01), rtol=1e-4, atol=0)
    echo = made["plain"][:, 300:] + made["plain"][:, :-300]
    shape = torch.nn.functional.cosine_similarity(made["reverb"][:, 300:], echo)
    assert shape.min() > 0.9999


def test_float64_throughout() -> None:
    clips = [sound(8000), sound(3000)]
    wide = make(dtype=torch.float64)
    plan = train_windows(index_rows(clips), np.arange(2), np.arange(2), None, wide.audio, wide.augment, 0)
    raw = raw_batch(plan, clips)
    narrow = make()(raw, training=True).feat_BTF
    out = wide(raw, training=True).feat_BTF
    assert out.dtype == torch.float64
    torch.testing.assert_close(out.float(), narrow, rtol=0, atol=2e-2)


def test_dataset_norm_from_batches() -> None:
    clips = [sound(8000, seed=number) for number in range(6)]
    front = make(Features(norm="dataset"))
    plan = eval_windows(index_rows(clips), np.arange(6), front.audio)
    sums = front.sums([raw_batch(plan[:2], clips), raw_batch(plan[2:], clips)])
    assert torch.equal(sums, front.sums([raw_batch(plan, clips)]))
    front.statistics = statistics(sums)
    feat = front(raw_batch(plan, clips), training=False).feat_BTF
    torch.testing.assert_close(feat.mean((0, 1)), torch.zeros(80), rtol=0, atol=1e-3)
    torch.testing.assert_close(feat.std((0, 1)), torch.ones(80), rtol=0, atol=1e-2)


def test_bad_rows_keep_weight_zero() -> None:
    clips = [sound(8000), sound(8000)]
    front = make()
    plan = eval_windows(index_rows(clips), np.arange(2), front.audio)
    plan["weight"][1] = 0
    batch = front(raw_batch(plan, clips), training=False)
    assert batch.weight_B.tolist() == [1, 0]
    assert batch.label_B.tolist() == [0, 1]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_set_a_whole_front_end(name: str) -> None:
    config = check({"audio": {"seconds": 0.5}, "features": {"preset": name}}, "test")
    front = FrontEnd(config.audio, config.augment, config.features, seed=0, device="cpu")
    batch = scored(front, [0.1 * sound(8000)])
    assert torch.isfinite(batch.feat_BTF).all()
    level = (batch.wave_BT**2).mean().sqrt()
    assert bool(abs(level - 0.1) < 0.02) == name.startswith("macls")


def test_what_a_gpu_runs_has_legal_shapes_and_strides() -> None:
    """The branches for devices other than the CPU, on the meta device, which computes shapes only."""
    clips = [sound(3000 + 2000 * number, 2, seed=number) for number in range(6)]
    spec = SpecAugment(fill="mean")
    change = Augment(gain_db=(-3.0, 3.0), shift=0.2, mixup=Mixup(probability=0.9), spec=spec)
    for short in ("tile", "random_pad", "pad"):
        for features in (Features(norm="cmvn", dither=1e-3), Features(name="mfcc", bins=40, norm="clip")):
            audio = Audio(seconds=0.5, short=short, target_db=-20.0, channels=2)
            front = FrontEnd(audio, change, features, seed=0, device="meta")
            rows = index_rows(clips, [16000, 44100, 8000, 44100, 16000, 44100])
            plan = train_windows(rows, np.arange(6), np.arange(6), None, audio, change, 0)
            made = front(raw_batch(plan, clips), training=True)
            assert made.feat_BTF.shape == (6, front.frame_count, front.bins)
            plan = eval_windows(rows, np.arange(6), audio)
            made = front(raw_batch(plan, clips), training=False)
            assert made.feat_BTF.shape == (len(plan), front.frame_count, front.bins)


def test_unknown_preset_names_the_known() -> None:
    with pytest.raises(ValueError, match=r"kaldi, macls, .*3dspeaker, wespeaker, speechbrain, panns, vggish"):
        preset("speechbrian")


def test_settings_that_make_no_frame() -> None:
    with pytest.raises(ValueError, match=r"audio.seconds=0.02 .*frame_length=25 ms"):
        make(audio=Audio(seconds=0.02))
    with pytest.raises(ValueError, match=r"features.high_freq=9000 do not fit audio.sample_rate=16000"):
        make(Features(high_freq=9000.0))
    with pytest.raises(ValueError, match=r"features.ceps=90 exceeds features.bins=80"):
        make(Features(name="mfcc", ceps=90))
    with pytest.raises(ValueError, match=r"frame_shift=0.01 ms"):
        make(Features(frame_shift=0.01))
    with pytest.raises(ValueError, match=r"audio.sample_rate: features.preset=macls fixes it to 16000"):
        check({"audio": {"sample_rate": 8000}, "features": {"preset": "macls"}}, "test")
