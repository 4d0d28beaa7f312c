"""The accelerator's front end equals the CPU's row by row, needs few kernels, and never waits or compiles again."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from clips import index_rows, raw_batch, sound
from torch.utils._python_dispatch import TorchDispatchMode

from dist_train.archive.row import CODECS
from dist_train.batched import Batched
from dist_train.batched.kaldi import Kaldi
from dist_train.batched.polyphase import Polyphase
from dist_train.effects.gaussian import gaussian, noise_keys
from dist_train.effects.mixing import Pairs, alone, mix
from dist_train.frontend import FrontEnd
from dist_train.order import GOLDEN, mix64
from dist_train.resample import Ratio
from dist_train.settings import Audio, Augment, Features, Mixup, SpecAugment
from dist_train.spectra.norm import frame_sums, statistics
from dist_train.window import eval_windows, full_windows, train_windows

PCM = [codec for codec in CODECS if codec < CODECS.FILE]
SPEED = [Fraction(9, 10), Fraction(1), Fraction(11, 10)]
CHANGES: dict[str, Any] = {
    "speed": SPEED,
    "gain_db": (-3.0, 3.0),
    "gain_probability": 0.7,
    "shift": 0.3,
    "shift_probability": 0.7,
    "mixup": Mixup(probability=0.5),
    "spec": SpecAugment(fill="mean"),
}
WAITS = ("_local_scalar_dense", "nonzero", "item", "masked_select", "_unique2", "is_nonzero")


def batch(audio: Audio, augment: Augment, training: bool, seed: int = 0, rows: int = 12, plain: bool = False) -> Any:
    """Clips from 50 samples to 4 s, of one or two channels; all codecs and three rates (or plain: S16 at 16 kHz)."""
    sizes = np.random.default_rng(seed).choice([50, 3000, 9000, 20000, 60000], rows)
    place = np.arange(rows)
    clips = [sound(int(size), 1 + number // 2 % 2, seed=number) for number, size in enumerate(sizes)]
    index = index_rows(clips, 16000 if plain else np.array([16000, 44100, 8000])[(place + seed) % 3].tolist())
    index["codec"] = CODECS.S16 if plain else np.array(PCM)[(place + seed) % len(PCM)]
    ids = np.arange(rows)
    if training:
        return raw_batch(train_windows(index, ids, ids + 1000 * seed, None, audio, augment, 0), clips)
    return raw_batch(eval_windows(index, ids, audio), clips)


def both(audio: Audio, augment: Augment, features: Features, **options: Any) -> tuple[FrontEnd, Batched]:
    options = {"seed": 0, "device": "cpu"} | options
    return FrontEnd(audio, augment, features, **options), Batched(audio, augment, features, **options)


def same_but_features(ours: Any, theirs: Any) -> None:
    assert (ours.frames_B is None) == (theirs.frames_B is None)
    names = ["label_B", "weight_B", "partner_B", "mix_B"] + (["frames_B"] if ours.frames_B is not None else [])
    for name in names:
        one, other = getattr(ours, name), getattr(theirs, name)
        assert one.dtype == other.dtype and torch.equal(one, other), name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("short", ["tile", "pad", "random_pad"])
@pytest.mark.parametrize("channels", ["mono", "first", 2])
def test_equals_the_cpu_front_end_in_float64(training: bool, short: Any, channels: Any) -> None:
    audio = Audio(seconds=0.5, short=short, channels=channels, target_db=-20.0)
    augment = Augment(**CHANGES)
    front, batched = both(audio, augment, Features(dither=1e-4, norm="cmvn"), dtype=torch.float64)
    raw = batch(audio, augment, training)
    theirs, ours = front(raw, training), batched(raw, training)
    same_but_features(ours, theirs)
    torch.testing.assert_close(ours.wave_BT, theirs.wave_BT, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.feat_BTF, theirs.feat_BTF, rtol=0, atol=1e-7)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("features", [{}, {"name": "mfcc", "bins": 40, "ceps": 20}, {"waveform_scale": 32768.0}])
def test_equals_the_cpu_front_end_in_float32(training: bool, features: dict[str, Any]) -> None:
    audio, augment = Audio(seconds=0.5), Augment(**CHANGES)
    front, batched = both(audio, augment, Features(norm="none", **features))
    raw = batch(audio, augment, training, seed=3)
    theirs, ours = front(raw, training), batched(raw, training)
    same_but_features(ours, theirs)
    torch.testing.assert_close(ours.wave_BT, theirs.wave_BT, rtol=0, atol=1e-6)
    if "name" not in features:
        loud = theirs.feat_BTF > theirs.feat_BTF.amax(2, keepdim=True) - 4 * np.log(10)  # 40 dB
        torch.testing.assert_close(ours.feat_BTF[loud], theirs.feat_BTF[loud], rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.feat_BTF, theirs.feat_BTF, rtol=0, atol=0.1)


@pytest.mark.parametrize("norm", ["cmn", "cmvn", "clip", "batch", "none", "dataset"])
@pytest.mark.parametrize("spec", [SpecAugment(), SpecAugment(probability=0.5, freq_masks=0, fill="mean"), None])
def test_norms_and_masks(norm: Any, spec: SpecAugment | None) -> None:
    audio, augment = Audio(seconds=0.5, short="pad", channels=2), Augment(spec=spec)
    front, batched = both(audio, augment, Features(norm=norm, bins=40), dtype=torch.float64)
    front.statistics = batched.statistics = torch.rand(2, 80, dtype=torch.float64) + 1
    for training in (True, False):
        raw = batch(audio, augment, training)
        torch.testing.assert_close(batched(raw, training).feat_BTF, front(raw, training).feat_BTF, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["mel", "spectrogram"])
def test_other_features(name: Any) -> None:
    audio, augment = Audio(seconds=0.5, short="pad"), Augment(**CHANGES)
    front, batched = both(audio, augment, Features(name=name, norm="clip"), dtype=torch.float64)
    for training in (True, False):
        raw = batch(audio, augment, training)
        theirs, ours = front(raw, training), batched(raw, training)
        same_but_features(ours, theirs)
        torch.testing.assert_close(ours.feat_BTF, theirs.feat_BTF, rtol=0, atol=1e-7)


def test_between_class_learning_is_that_of_the_rows() -> None:
    audio, mixup = Audio(seconds=0.5), Mixup(probability=0.7, kind="between_class")
    apart = Batched(audio, Augment(shift=0.3), Features(), seed=0, device="cpu", dtype=torch.float64)
    mixed = Batched(audio, Augment(shift=0.3, mixup=mixup), Features(), seed=0, device="cpu", dtype=torch.float64)
    raw = batch(audio, Augment(), training=True)
    wave_BCT, made = apart(raw, training=True).wave_BT[:, None].clone(), mixed(raw, training=True)
    pairs = Pairs(made.partner_B.numpy(), made.mix_B.numpy(), made.mix_B.numpy(), *alone(len(raw.plan))[3:])
    expected = mix(wave_BCT, pairs, "between_class", audio.sample_rate)
    torch.testing.assert_close(made.wave_BT, expected[:, 0], rtol=0, atol=1e-7)


def test_full_clips_of_different_lengths() -> None:
    audio = Audio(seconds=0.5)
    front, batched = both(audio, Augment(), Features(), dtype=torch.float64)
    clips = [sound(3000), sound(9000), sound(50)]
    raw = raw_batch(full_windows(index_rows(clips, [16000, 44100, 8000]), np.arange(3), audio, 20.0), clips)
    theirs, ours = front(raw, False), batched(raw, False)
    same_but_features(ours, theirs)
    torch.testing.assert_close(ours.feat_BTF, theirs.feat_BTF, rtol=0, atol=1e-7)


def test_sums_for_dataset_norm() -> None:
    audio = Audio(seconds=0.5)
    front, batched = both(audio, Augment(), Features(norm="dataset"))
    raw = batch(audio, Augment(), training=False)
    theirs, ours = (statistics(sums) for sums in (front.sums([raw]), frame_sums(*batched.raw_features(raw))))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@pytest.mark.parametrize("ratio", [Ratio(9, 10), Ratio(11, 10), Ratio(441, 160), Ratio(1, 2), Ratio(3, 1)])
def test_polyphase_equals_torchaudio(ratio: Ratio) -> None:
    bank = Polyphase([Ratio(1, 1), ratio], torch.device("cpu"))
    wave = torch.randn(2, 1, 5000)
    outputs = torch.arange(ratio.length(5000), dtype=torch.int32).expand(2, -1)
    padded = torch.nn.functional.pad(wave, (ratio.width, ratio.width + ratio.orig + bank.taps))
    padded[0, :, : wave.shape[2]] = wave[0]
    conversion = tuple(torch.from_numpy(bank.rows[:, place : place + 1]).int() for place in range(3))
    out = bank(padded, outputs, conversion)
    expected = torchaudio.transforms.Resample(ratio.orig, ratio.new)(wave[1])
    torch.testing.assert_close(out[1], expected, rtol=0, atol=2e-6)
    kept = min(outputs.shape[1], wave.shape[2])
    assert torch.equal(out[0, :, :kept], wave[0, :, :kept])  # no change is an exact copy


def test_fbank_is_as_exact_as_torchaudio() -> None:
    wave = torch.randn(6, 16000) * torch.logspace(-4, -0.5, 6)[:, None] + 0.02
    wave += 0.3 * torch.sin(torch.arange(16000) * 2 * torch.pi * 440 / 16000) * (torch.arange(6) % 2)[:, None]
    theirs = torch.stack([torchaudio.compliance.kaldi.fbank(row[None], num_mel_bins=80) for row in wave])
    wide, narrow = (Kaldi(Audio(), Features(), torch.device("cpu"), kind) for kind in (torch.float64, torch.float32))
    truth = wide.batched(wave.double())
    assert (narrow.batched(wave) - truth).abs().mean() <= 1.5 * (theirs - truth).abs().mean()
    assert (narrow.batched(wave) - truth).abs().max() <= 2 * (theirs - truth).abs().max()


def test_noise_is_splitmix64_from_each_key() -> None:
    out = gaussian(torch.from_numpy(noise_keys(np.arange(50), 7)), 2, 3000)
    assert abs(float(out.mean())) < 0.01 and abs(float(out.std()) - 1) < 0.01
    assert torch.equal(out[3:4], gaussian(torch.from_numpy(noise_keys(np.array([3]), 7)), 2, 3000))
    key = int(noise_keys(np.array([3]), 7).view(np.uint64)[0]) * GOLDEN % 2**64
    place = (np.arange(6000, dtype=np.uint64) + np.uint64(1)) * np.uint64(GOLDEN) + np.uint64(key)
    bits = mix64(place - np.uint64(GOLDEN))
    radius = np.sqrt(-2 * np.log(((bits >> np.uint64(40)) + np.uint64(1)).astype(float) * 2.0**-24))
    expected = radius * np.cos((bits & np.uint64(0xFFFFFF)).astype(float) * 2 * np.pi * 2.0**-24)
    np.testing.assert_allclose(out[3].flatten().numpy(), expected, atol=1e-5)


def test_a_score_does_not_depend_on_batch_mates() -> None:
    audio = Audio(seconds=0.5, short="pad")
    batched = Batched(audio, Augment(), Features(norm="batch"), seed=0, device="cpu")
    raw = batch(audio, Augment(), training=False)
    together = batched(raw, training=False)
    order = np.random.default_rng(0).permutation(len(raw.plan))
    raw.plan, raw.data = raw.plan[order], raw.data[torch.from_numpy(order)]
    again = batched(raw, training=False)
    assert torch.equal(again.feat_BTF, together.feat_BTF[torch.from_numpy(order)])
    for row in range(len(order)):
        alone = type(raw)(plan=raw.plan[row : row + 1], data=raw.data[row : row + 1])
        fresh = Batched(audio, Augment(), Features(norm="batch"), seed=0, device="cpu")
        assert torch.equal(fresh(alone, training=False).wave_BT[0], again.wave_BT[row])


def test_model_precision_does_not_reach_the_features() -> None:
    audio, augment = Audio(seconds=0.5), Augment(**CHANGES)
    batched = Batched(audio, augment, Features(), seed=0, device="cpu")
    raw = batch(audio, augment, training=True)
    expected = batched(raw, training=True).feat_BTF
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = batched(raw, training=True).feat_BTF
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(out, expected)


def test_changes_and_level_come_in_their_order() -> None:
    audio = Audio(seconds=0.5, target_db=-20.0)
    seen: list[str] = []

    def step(name: str, factor: float) -> Any:
        def change(wave_BCT: torch.Tensor, plan: np.ndarray, filled: np.ndarray) -> torch.Tensor:
            assert len(wave_BCT) == len(plan) == len(filled)
            seen.append(name)
            return wave_BCT * factor

        return change

    hooks = {"change": step("change", 0.5), "level": step("level", 2.0)}
    plain = Batched(audio, Augment(**CHANGES), Features(), seed=0, device="cpu")
    hooked = Batched(audio, Augment(**CHANGES), Features(), seed=0, device="cpu", **hooks)
    for training, expected in ((True, ["change", "level"]), (False, ["level"])):
        raw = batch(audio, Augment(**CHANGES), training)
        one, other = plain(raw, training), hooked(raw, training)
        factor = 1.0 if training else 2.0
        torch.testing.assert_close(other.wave_BT, one.wave_BT * factor, rtol=1e-5, atol=1e-7)
        assert seen == expected
        seen.clear()


class Watched(TorchDispatchMode):
    """Counts the operations that a device would run; views are free. A wait for the device is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITS, f"{name} waits for the device"
        views = func.is_view or name in ("empty", "empty_strided", "new_empty", "_reshape_alias", "_unsafe_view")
        self.count += not views
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("plain", [True, False])
def test_nothing_waits_and_rows_that_differ_cost_no_operations(plain: bool) -> None:
    audio, augment = Audio(seconds=0.5), Augment(**CHANGES)
    batched = Batched(audio, augment, Features(dither=1e-4), seed=0, device="cpu")
    batched(batch(audio, augment, training=True, plain=plain), training=True)  # makes its filters, on the host
    counts = []
    for seed, rows in ((1, 12), (2, 12), (3, 9)):
        raw = batch(audio, augment, training=True, seed=seed, rows=rows, plain=plain)
        with Watched() as watched:
            batched(raw, training=True)
        counts.append(watched.count)
    assert len(set(counts)) == 1
    assert counts[0] <= (200 if plain else 400)  # row group by row group: 295 and 535


def test_shapes_on_any_device() -> None:
    """The meta device computes shapes only: no step needs a value."""
    audio, augment = Audio(seconds=0.5, short="random_pad", channels=2), Augment(**CHANGES)
    batched = Batched(audio, augment, Features(norm="clip", dither=1e-3), seed=0, device="meta")
    for training in (True, False):
        raw = batch(audio, augment, training)
        assert batched(raw, training).feat_BTF.shape == (len(raw.plan), 48, 160)


@pytest.mark.full
@pytest.mark.parametrize("plain", [True, False])
def test_few_kernels_and_one_compilation(plain: bool) -> None:
    """Compiled: kernels of ours and of libraries; later batches, smaller ones too, run the same code."""
    from torch._inductor import metrics
    from torch._inductor.utils import run_and_get_code

    torch._dynamo.reset()
    metrics.reset()
    audio, augment = Audio(seconds=0.5), Augment(**CHANGES)
    features = Features(dither=1e-4, norm="cmvn")
    eager = Batched(audio, augment, features, seed=0, device="cpu")
    compiled = Batched(audio, augment, features, seed=0, device="cpu", compile=True)
    raw = batch(audio, augment, True, plain=plain)
    first, codes = run_and_get_code(lambda: compiled(raw, training=True))
    lines = [line for code in codes for line in code.splitlines()]
    calls = [line for line in lines if "extern_kernels." in line or "= torch.ops.aten." in line]
    libraries = [line for line in calls if "view_as_real" not in line]  # a view
    assert metrics.generated_kernel_count + len(libraries) <= 40
    torch.testing.assert_close(first.wave_BT, eager(raw, training=True).wave_BT, rtol=0, atol=1e-6)
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed, rows in ((1, 12), (2, 7), (3, 1)):
            raw = batch(audio, augment, True, seed, rows, plain=plain)
            made, expected = compiled(raw, training=True), eager(raw, training=True)
            torch.testing.assert_close(made.wave_BT, expected.wave_BT, rtol=0, atol=1e-6)
            torch.testing.assert_close(made.feat_BTF, expected.feat_BTF, rtol=0, atol=0.1)


@pytest.mark.full
def test_a_compiled_score_does_not_depend_on_batch_mates() -> None:
    torch._dynamo.reset()
    audio = Audio(seconds=0.5, short="pad")
    batched = Batched(audio, Augment(), Features(), seed=0, device="cpu", compile=True, rows=16)
    raw = batch(audio, Augment(), training=False, rows=8)
    together = batched(raw, training=False)
    with torch.compiler.set_stance("fail_on_recompile"):
        for row in range(len(raw.plan)):
            alone = type(raw)(plan=raw.plan[row : row + 1], data=raw.data[row : row + 1])
            assert torch.equal(batched(alone, training=False).feat_BTF[0], together.feat_BTF[row])
