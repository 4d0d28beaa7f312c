"""Decoding: PCM equal to soundfile bit for bit, channels, mixed batches."""

import numpy as np
import pytest
import torch
from clips import encode, index_rows, raw_batch, sound

from dist_train.archive.row import CODECS
from dist_train.decode import mix, pcm
from dist_train.frontend import FrontEnd
from dist_train.settings import Audio, Augment, Features
from dist_train.window import eval_windows

PCM = [codec for codec in CODECS if codec < CODECS.FILE]


@pytest.mark.parametrize("codec", PCM, ids=lambda codec: codec.name)
@pytest.mark.parametrize("channels", [1, 2])
def test_pcm_equals_soundfile(codec: CODECS, channels: int) -> None:
    wave = np.clip(sound(3000, channels) * 4, -1, 1)
    data, expected = encode(wave, codec)
    padded = np.full(-(-len(data) // 64) * 64, 255, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    out = pcm(torch.from_numpy(padded)[None], codec, channels, 3000, torch.float32)
    torch.testing.assert_close(out[0].T, torch.from_numpy(expected), rtol=0, atol=0)


@pytest.mark.parametrize("codec", [CODECS.U8, CODECS.MULAW, CODECS.ALAW], ids=lambda codec: codec.name)
def test_every_code_of_one_byte(codec: CODECS) -> None:
    from io import BytesIO

    import soundfile
    from clips import SUBTYPES

    codes = np.arange(256, dtype=np.uint8)
    raw = {"samplerate": 8000, "channels": 1, "format": "RAW", "subtype": SUBTYPES[codec]}
    expected, _ = soundfile.read(BytesIO(codes.tobytes()), dtype="float32", **raw)
    out = pcm(torch.from_numpy(codes)[None], codec, 1, 256, torch.float32)
    torch.testing.assert_close(out[0, 0], torch.from_numpy(expected), rtol=0, atol=0)


def test_float64_keeps_every_bit() -> None:
    wave = sound(640)
    data, _ = encode(wave, CODECS.F64)
    out = pcm(torch.frombuffer(bytearray(data), dtype=torch.uint8)[None], CODECS.F64, 1, 640, torch.float64)
    torch.testing.assert_close(out[0, 0], torch.from_numpy(wave[:, 0]), rtol=0, atol=0)


def test_channels() -> None:
    wave = torch.randn(2, 3, 50)
    torch.testing.assert_close(mix(wave, "mono"), wave.mean(1, keepdim=True))
    torch.testing.assert_close(mix(wave, "first"), wave[:, :1])
    torch.testing.assert_close(mix(wave, 2), wave[:, :2])
    torch.testing.assert_close(mix(wave[:, :1], 2), wave[:, [0, 0]])


def test_a_batch_of_all_kinds_equals_each_clip_alone() -> None:
    """Codecs, rates, channels and lengths mixed in one batch: rows come back in their places."""
    clips, parts = [], []
    for number, codec in enumerate([*PCM, *PCM]):
        rate = [8000, 16000, 44100][number % 3]
        clips.append(np.clip(sound(rate // 2 + 1000 * number, 1 + number % 2, seed=number), -1, 1))
        parts.append(index_rows(clips[-1:], rate, codec))
    rows, audio = np.concatenate(parts), Audio(seconds=0.7)
    front = FrontEnd(audio, Augment(), Features(), seed=0, device="cpu")
    plan = eval_windows(rows, np.arange(len(rows)), audio)
    together = front(raw_batch(plan, clips), training=False)
    for row in range(len(plan)):
        alone = front(raw_batch(plan[row : row + 1], clips), training=False)
        assert torch.equal(alone.feat_BTF[0], together.feat_BTF[row])
        assert torch.equal(alone.wave_BT[0], together.wave_BT[row])
        assert alone.wave_BT.abs().max() > 0.05
