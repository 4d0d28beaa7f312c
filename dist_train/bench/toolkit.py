"""SpeechBrain's batched front end beside ours, on the device in use: features and speed perturbation.

Not the same features (a Hamming STFT of 400 points in dB, not Kaldi's), and one speed factor a batch, not one a clip;
they are what its recipes run in the same place.
"""

from fractions import Fraction

import torch

from dist_train.bench import material, peer
from dist_train.bench.fbank import ROWS, bank
from dist_train.bench.pair import paired
from dist_train.bench.row import Row, Work, rate
from dist_train.resample import Resamplers, speed_ratio

FACTORS = (Fraction(9, 10), Fraction(11, 10))


def features(work: Work) -> list[Row]:
    """64 clips of 3 s, 80 bins."""
    wave_BT, ours = material.waves(work, ROWS).to(work.device), bank(work.device)
    module, version = peer.take("speechbrain.lobes.features")
    theirs = module.Fbank(sample_rate=16000, n_mels=80).to(work.device) if module else None

    @torch.no_grad()
    def run() -> None:
        assert theirs is not None
        theirs(wave_BT)

    pair = paired(lambda: ours(wave_BT), run if theirs else None, work.times)
    said = {"peer": "speechbrain Fbank", "version": version, "note": f"{work.device.type}; theirs is not Kaldi's"}
    return [rate("speechbrain", "Fbank, 64 x 3 s", pair, ROWS, "clips/s", **said)]


def speed(work: Work) -> list[Row]:
    """64 clips of 3 s to 0.9 and 1.1 of their speed: ours in two parts of 32, theirs whole batches in turn."""
    wave_BT = material.waves(work, ROWS).to(work.device)
    module, version = peer.take("speechbrain.augment.time_domain")
    resamplers = Resamplers(work.device)
    halves = wave_BT[: ROWS // 2], wave_BT[ROWS // 2 :]

    def ours() -> None:
        for part, factor in zip(halves, FACTORS, strict=True):
            ratio = speed_ratio(factor)
            resamplers.convert(part[:, None], ratio, ratio.length(wave_BT.shape[1]))

    whole = [module.SpeedPerturb(16000, speeds=[percent]).to(work.device) for percent in (90, 110)] if module else []

    @torch.no_grad()
    def theirs() -> None:
        for part, perturb in zip(halves, whole, strict=True):
            perturb(part)

    pair = paired(ours, theirs if module else None, work.times)
    said = {"peer": "speechbrain SpeedPerturb", "version": version, "note": work.device.type}
    return [rate("speechbrain", "speed 0.9 and 1.1, 64 x 3 s", pair, ROWS, "clips/s", **said)]
