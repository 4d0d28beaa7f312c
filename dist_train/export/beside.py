"""What the run itself says of waveforms, and how far a file's answers are from it.

In: a saved run; waveforms (B, T) or (B, C, T) of any length at its rate. Out: probabilities by the run's own front end
and network, as evaluation comes to them; the largest difference.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dist_train.payload import ALIGN, RawBatch
from dist_train.row import CODECS
from dist_train.saved import Saved
from dist_train.view import VIEW_ROW
from dist_train.window import eval_windows, full_windows, window_samples

Wave = NDArray[np.float32]
Answer = Callable[[Wave], tuple[NDArray[Any], NDArray[Any]]]  # probabilities (B, C), embeddings (B, E)
LIMIT = 1e-4  # of a probability


@dataclass(frozen=True)
class Difference:
    """The largest difference of a probability, and of how many clips the first guess is another."""

    clips: int
    largest: float
    others: int


class Run:
    """A saved run's own answers."""

    def __init__(self, saved: Saved) -> None:
        self.saved = saved
        self.config = saved.config

    @torch.no_grad()
    def __call__(self, wave: Wave) -> tuple[NDArray[Any], NDArray[Any]]:
        """Probabilities (B, C) and embeddings (B, E), float64."""
        clips = [self._clip(row if row.ndim == 2 else row[None]) for row in wave]
        return np.stack([value for value, _ in clips]), np.stack([vector for _, vector in clips])

    def _clip(self, wave_CT: Wave) -> tuple[NDArray[Any], NDArray[Any]]:
        batch = self.saved.front(_raw(wave_CT, self.saved), training=False)
        vector_WE = self.saved.model.embed(batch.feat_BTF, batch.frames_B)  # type: ignore[operator]
        logits_WC = self.saved.model.head(vector_WE)[:, : len(self.saved.classes)].double()  # type: ignore[operator]
        heard_W = batch.heard_B
        assert heard_W is not None, "the front end says so in evaluation"
        kept = heard_W if heard_W.any() else ~heard_W
        several, by_logits = self.config.objective.name == "bce", self.config.evaluation.average == "logits"
        value_WC = logits_WC if by_logits else _probabilities(logits_WC, several)
        mean_C = value_WC[kept].mean(0)
        mean_C = _probabilities(mean_C, several) if by_logits else mean_C
        return mean_C.numpy(), vector_WE.double()[kept].mean(0).numpy()


def _probabilities(logits: torch.Tensor, several: bool) -> torch.Tensor:
    return logits.sigmoid() if several else logits.softmax(-1)


def _raw(wave_CT: Wave, saved: Saved) -> RawBatch:
    """A clip's windows, as the reader would have them of a file of its samples."""
    audio, settings = saved.config.audio, saved.config.evaluation
    channels, frames = wave_CT.shape
    rows = np.zeros(1, VIEW_ROW)
    rows["frames"], rows["rate"], rows["channels"], rows["codec"] = frames, audio.sample_rate, channels, CODECS.F32
    rows["rms"] = np.sqrt(np.square(wave_CT.mean(0, dtype=np.float64)).mean())
    ids = np.zeros(1, np.int64)
    if settings.clip == "full":
        plan = full_windows(rows, ids, audio, settings.max_seconds)
    else:
        plan = eval_windows(rows, ids, audio, settings.hop)
    width = 4 * channels
    data = np.zeros((len(plan), -(-int(plan["count"].max()) * width // ALIGN) * ALIGN), np.uint8)
    samples = np.ascontiguousarray(wave_CT.T, "<f4").view(np.uint8).reshape(frames, width)
    for row, (first, count) in zip(data, zip(plan["first"].tolist(), plan["count"].tolist(), strict=True), strict=True):
        begin, end = max(first, 0), min(first + count, frames)
        row[(begin - first) * width : (end - first) * width] = samples[begin:end].ravel()
    return RawBatch(plan, torch.from_numpy(data))


def difference(run: Answer, file: Answer, waves: Sequence[Wave]) -> Difference:
    """A file's answers beside the run's. A guess that the run itself holds for as likely as another is no other."""
    clips, largest, others = 0, 0.0, 0
    for wave in waves:
        wanted_BC, found_BC = run(wave)[0], file(wave)[0]
        gap_BC = np.abs(wanted_BC - found_BC)
        largest = max(largest, float("inf") if not np.isfinite(gap_BC).all() else float(gap_BC.max()))
        lost_B = wanted_BC.max(1) - np.take_along_axis(wanted_BC, found_BC.argmax(1)[:, None], 1)[:, 0]
        others += int((lost_B > 0).sum())
        clips += len(wave)
    return Difference(clips, largest, others)


def noises(saved: Saved, seed: int = 0) -> Iterator[Wave]:
    """Random clips: noise, tones and clicks at all levels, silence; one sample, about a window, many; alone and few."""
    random, window = np.random.default_rng(seed), window_samples(saved.config.audio)
    least = 1 if saved.config.evaluation.clip == "windows" else window
    channels = saved.front.channels
    lengths = (1, 2, window // 3, window - 1, window, window + 1, 2 * window, 3 * window + window // 7)
    for number, length in enumerate(max(length, least) for length in lengths):
        shape = (1 + number % 3, channels, length)
        wave = random.normal(size=shape) * 10.0 ** random.uniform(-4, -0.5, (shape[0], 1, 1))
        if number % 2:
            wave[0] += 0.3 * np.sin(np.arange(length) * random.uniform(0.01, 3.0))
            wave[:, :, length // 2 :] = 0 if number % 4 == 1 else wave[:, :, length // 2 :]
        wave = wave.clip(-1, 1).astype(np.float32)
        yield wave if isinstance(saved.config.audio.channels, int) else wave[:, 0]
    silence = np.zeros((1, channels, 2 * window), np.float32)
    yield silence if isinstance(saved.config.audio.channels, int) else silence[:, 0]
