"""How far a file's answers are from those of the run that it was made of, on random and on real clips.

In: the run as `load` gives it, what asks the file, waves (B, T) or (B, T, C). Out: the largest difference.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dist_train.inference import Model
from dist_train.window import window_samples

Wave = NDArray[np.float32]
Answer = Callable[[Wave], tuple[NDArray[np.float32], NDArray[np.float32]]]  # (B, C) probabilities, (B, E) embeddings
LIMIT = 1e-4  # of a probability


@dataclass(frozen=True)
class Difference:
    """Of `clips` clips: the largest difference of a probability, and how many have another first guess."""

    clips: int = 0
    largest: float = 0.0
    others: int = 0

    def and_of(self, run_BC: NDArray[np.float64], file_BC: NDArray[np.float32]) -> "Difference":
        """With more clips. A guess that the run holds for as likely as its own, but for LIMIT, is no other."""
        gap_BC = np.abs(run_BC - file_BC)
        largest = float(gap_BC.max()) if np.isfinite(gap_BC).all() else float("inf")
        theirs_B = np.take_along_axis(run_BC, file_BC.argmax(1)[:, None], 1)[:, 0]
        others = int((run_BC.max(1) - theirs_B > LIMIT).sum())
        return Difference(self.clips + len(run_BC), max(self.largest, largest), self.others + others)

    def __str__(self) -> str:
        return f"{self.clips} clips, largest difference of a probability {self.largest:.1e}, other labels {self.others}"


def difference(model: Model, answer: Answer, waves: Iterable[Wave]) -> Difference:
    """The run's probabilities beside the file's. ValueError where the file cannot answer."""
    found = Difference()
    for wave in waves:
        try:
            answered_BC = answer(wave)[0]
        except Exception as error:  # of a runtime's own kind
            reason = " ".join(str(error).split())[:160]
            text = f"the exported {type(model.origin.model).__name__} cannot answer waves of shape {wave.shape}"
            raise ValueError(f"{text} ({reason}); give evaluation.clip=windows, or another --to") from error
        found = found.and_of(model.probabilities(wave), answered_BC)
    return found


def noises(model: Model, seed: int = 0) -> Iterator[Wave]:
    """Random clips: noise, tones and silence at all levels; one sample, about a window, many; one and a few
    at once. None of two or three samples: repeated, they have a few lines of spectrum, and rounding in all others."""
    random, window = np.random.default_rng(seed), window_samples(model.config.audio)
    least = 1 if model.config.evaluation.clip == "windows" else window
    whole = isinstance(model.config.audio.channels, int)
    lengths = (1, window // 40, window // 3, window - 1, window, window + 1, 2 * window, 3 * window + window // 7)
    for number, length in enumerate(max(length, least) for length in lengths):
        rows = 1 + number % 3
        wave = random.normal(size=(rows, length, model.channels)) * 10.0 ** random.uniform(-4, -0.5, (rows, 1, 1))
        if number % 2:
            wave[0] += 0.3 * np.sin(np.arange(length) * random.uniform(0.01, 3.0))[:, None]
        if number % 4 == 1:
            wave[:, length // 2 :] = 0
        yield _shaped(wave.clip(-1, 1), whole)
    yield _shaped(np.zeros((1, 2 * window, model.channels)), whole)


def _shaped(wave_BTC: NDArray[np.float64], whole: bool) -> Wave:
    return np.ascontiguousarray(wave_BTC if whole else wave_BTC[..., 0], np.float32)
