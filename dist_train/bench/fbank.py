"""Batched Fbank beside torchaudio's, clip by clip, and kaldi-native-fbank's; and how exact each is against float64."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dist_train.bench import material, peer
from dist_train.bench.pair import paired
from dist_train.bench.row import Row, Work, rate
from dist_train.features import Fbank
from dist_train.settings import Audio, Features

ROWS = 64
CPU = torch.device("cpu")


def bank(device: torch.device = CPU) -> Fbank:
    """Kaldi's 80 bins."""
    return Fbank(Audio(), Features(), device)  # type: ignore[call-arg]


def torchaudio_loop(kaldi: Any, wave_BT: Tensor) -> Tensor:
    """(B, T) -> (B, frames, 80), one clip after another."""
    rows = [kaldi.fbank(row[None], num_mel_bins=80, sample_frequency=16000.0) for row in wave_BT]
    return torch.stack(rows)


def native_loop(native: Any, wave_BT: Tensor) -> list[Any]:
    """The same by kaldi-native-fbank."""
    options = native.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = 16000
    options.mel_opts.num_bins = 80
    found = []
    for row in wave_BT:
        online = native.OnlineFbank(options)
        online.accept_waveform(16000, row.numpy())
        online.input_finished()
        found.append(np.stack([online.get_frame(number) for number in range(online.num_frames_ready)]))
    return found


def speed(work: Work) -> list[Row]:
    """A batch of clips of 3 s, one after another by the peers."""
    count, ours = work.size(ROWS, 16), bank()
    wave_BT = material.waves(work, count)
    kaldi, version = peer.take("torchaudio.compliance.kaldi")
    native, native_version = peer.take("kaldi_native_fbank")
    said = {"peer": "torchaudio loop", "version": version, "goal": 2.5}
    loop = paired(lambda: ours(wave_BT), (lambda: torchaudio_loop(kaldi, wave_BT)) if kaldi else None, work.times)
    rows = [rate("fbank", f"{count} x 3 s", loop, count, "clips/s", **said)]
    said = {"peer": "kaldi-native-fbank", "version": native_version, "goal": 11.0}
    loop = paired(lambda: ours(wave_BT), (lambda: native_loop(native, wave_BT)) if native else None, work.times)
    return [*rows, rate("fbank", f"{count} x 3 s", loop, count, "clips/s", **said)]


def errors(values: Tensor, exact: Tensor) -> dict[str, float]:
    """Mean and largest absolute difference, and the share of values that differ by more than 1e-4."""
    gap = (values.double() - exact).abs()
    return {"mean": float(gap.mean()), "max": float(gap.max()), "share over 1e-4": float((gap > 1e-4).double().mean())}


def accuracy(work: Work) -> list[Row]:
    """Against torchaudio's own formulas in float64."""
    kaldi, version = peer.take("torchaudio.compliance.kaldi")
    wave_BT = material.waves(work, work.size(ROWS, 16))
    if kaldi is None:
        return [Row("fbank", "error against float64", "log mel", peer="torchaudio", version=version, note=version)]
    exact = torchaudio_loop(kaldi, wave_BT.double())
    ours, theirs = errors(bank()(wave_BT), exact), errors(torchaudio_loop(kaldi, wave_BT), exact)
    said: dict[str, Any] = {"peer": "torchaudio", "version": version}
    return [
        Row(
            *("fbank", f"{name} error against float64", "share" if name.startswith("share") else "log mel"),
            ours=ours[name],
            peer_value=theirs[name],
            ratio=theirs[name] / ours[name] if ours[name] else None,
            goal=1.0 if name == "mean" else None,
            **said,
        )
        for name in ours
    ]
