"""A run's folder -> a Model that says what sounds are: the public way to use what was trained.

from dist_train import load
model = load("runs/esc10")
print(model.predict("dog.ogg").label)
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray

from dist_train import saved
from dist_train.evaluate import Sums, Values, clip_logits, window_values
from dist_train.inference import known
from dist_train.inference.ahead import Bad, clip, clips, handfuls
from dist_train.inference.arrays import batch
from dist_train.inference.clips import Clip, summed
from dist_train.inference.prediction import Prediction, judged
from dist_train.inference.sound import Sound, named
from dist_train.precision import exact
from dist_train.settings import Config, Evaluation
from dist_train.window import window_samples
from dist_train.world import Place, World

Sounds: TypeAlias = list[Any] | tuple[Sound, ...]
_BATCHES = 8  # batches that a handful of clips fills


class Model:
    """A trained network with its front end. Made by `load`.

    Computation is in fp32 (fp64 where the run is), eager and deterministic: on one machine and number of threads the
    same sound gives the same bits. Any thread may call; calls take turns.
    """

    def __init__(self, found: saved.Saved, device: torch.device, threshold: float | None, exact: bool) -> None:
        self._saved, self._exact = found, exact
        self._lock = threading.Lock()
        self.device = device
        self.threshold = threshold
        """Below this probability a guess is unknown: of RUN/unknown.json; None: without one."""

    @property
    def config(self) -> Config:
        """The run's settings."""
        return self._saved.config

    @property
    def origin(self) -> saved.Saved:
        """The network and its front end, in float32 as the run has them: for exports and pictures, not to change."""
        return self._saved

    @property
    def path(self) -> Path:
        """The checkpoint that was loaded."""
        return self._saved.path

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of all probabilities."""
        return self._saved.classes

    @property
    def sample_rate(self) -> int:
        """What the network hears, Hz; sounds of other rates are converted."""
        return self.config.audio.sample_rate

    @property
    def channels(self) -> int:
        """Channels that the network hears."""
        channels = self.config.audio.channels
        return channels if isinstance(channels, int) else 1

    @property
    def seconds(self) -> float:
        """Length of the windows that the network was trained on."""
        return self.config.audio.seconds

    @property
    def several(self) -> bool:
        """Whether a sound has any number of labels (objective.name=bce)."""
        return self.config.objective.name == "bce"

    @overload
    def predict(
        self, sound: Sound, sample_rate: int | None = None, *, top: int = 5, threshold: float | None = None
    ) -> Prediction: ...
    @overload
    def predict(
        self, sound: Sounds, sample_rate: int | None = None, *, top: int = 5, threshold: float | None = None
    ) -> list[Prediction]: ...
    def predict(
        self, sound: Sound | Sounds, sample_rate: int | None = None, *, top: int = 5, threshold: float | None = None
    ) -> Prediction | list[Prediction]:
        """What a sound is; of a list, a list.

        sound: path, bytes of a file, address (s3://, gs://, az://, https://), `Pcm`, or array or tensor (frames,) or
        (frames, channels) of float with full scale 1, int16, int32 or uint8. sample_rate: of arrays, Hz. top: best
        guesses to tell. threshold: below it a guess is unknown; default: `self.threshold`, and .5 where a sound may
        have several labels. The probabilities are those that evaluation gives the clip. ValueError names a sound that
        cannot be used, and says why.
        """
        one = not isinstance(sound, list | tuple)
        sounds = [sound] if one else sound
        found = list(self.stream(sounds, sample_rate, top=top, threshold=threshold))  # type: ignore[arg-type]
        return found[0] if one else found

    def stream(
        self,
        sounds: Iterable[Sound],
        sample_rate: int | None = None,
        *,
        top: int = 5,
        threshold: float | None = None,
        bad: Callable[[Bad], None] | None = None,
        threads: int | None = None,
    ) -> Iterator[Prediction]:
        """Predictions of any number of sounds in order, as `predict` makes them, in bounded memory.

        `bad` is called with each sound that cannot be used, and the others go on; without it that is a ValueError.
        `threads`: how many read and decode; default: one a core, at most 8.
        """
        limit = self._limit(threshold)
        for held, sums in self._handfuls(sounds, sample_rate, self._values, len(self.classes), bad, threads):
            for one, mean_C in zip(held, self._probabilities(sums), strict=True):
                yield judged(one.name, mean_C, self.classes, one.seconds, self.several, top, limit)

    @overload
    def embed(self, sound: Sound, sample_rate: int | None = None) -> NDArray[np.float32]: ...
    @overload
    def embed(self, sound: Sounds, sample_rate: int | None = None) -> NDArray[np.float32]: ...
    def embed(self, sound: Sound | Sounds, sample_rate: int | None = None) -> NDArray[np.float32]:
        """(E,) the embedding of a sound, the mean over its windows; of a list (N, E). Sounds are as in `predict`."""
        one = not isinstance(sound, list | tuple)
        sounds = [sound] if one else sound
        found = [vector for _, vector in self.embeddings(sounds, sample_rate)]  # type: ignore[arg-type]
        return found[0] if one else np.stack(found) if found else np.zeros((0, self._width), np.float32)

    def embeddings(
        self,
        sounds: Iterable[Sound],
        sample_rate: int | None = None,
        *,
        bad: Callable[[Bad], None] | None = None,
        threads: int | None = None,
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """(name, embedding (E,)) of any number of sounds in order, in bounded memory; `bad` as in `stream`."""
        values: Values = self._saved.model.embed  # type: ignore[assignment]
        for held, sums in self._handfuls(sounds, sample_rate, values, self._width, bad, threads):
            for one, mean_E in zip(held, sums.mean().float().numpy(), strict=True):
                yield one.name, mean_E

    def probabilities(self, wave_BT: NDArray[np.float32] | torch.Tensor) -> NDArray[np.float64]:
        """(B, C) of waves of equal length at `sample_rate`, float of full scale 1, (B, T) or (B, T, channels).

        The low level: no file, no conversion, nothing rounded to int16, batches as they come, never padded; equal to
        what `predict` gives up to rounding in fp32. ValueError for other shapes, or samples that are not finite.
        """
        waves = batch(wave_BT, self.channels)
        held = [Clip(f"row {number}", wave_TC, 0.0) for number, wave_TC in enumerate(waves)]
        if not held:
            return np.zeros((0, len(self.classes)))
        return self._probabilities(self._summed(held, self._values, len(self.classes), self.config.evaluation, False))

    @property
    def _values(self) -> Values:
        return partial(window_values, self._saved.model, self.config, len(self.classes))

    @property
    def _width(self) -> int:
        return int(self._saved.model.head.in_features)  # type: ignore[union-attr, arg-type]

    def _limit(self, threshold: float | None) -> float | None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold:g}: a probability lies between 0 and 1")
        limit = self.threshold if threshold is None else threshold
        return 0.5 if limit is None and self.several else limit

    def _handfuls(
        self,
        sounds: Iterable[Sound],
        rate: int | None,
        values: Values,
        width: int,
        bad: Callable[[Bad], None] | None,
        threads: int | None,
    ) -> Iterator[tuple[list[Clip], Sums]]:
        """Good clips by the handful with the sums of their windows."""
        settings = self.config.evaluation
        samples = _BATCHES * settings.batch_size * window_samples(self.config.audio)
        pairs = ((named(sound, number), sound) for number, sound in enumerate(sounds))
        one = isinstance(sounds, list) and len(sounds) == 1  # without a thread: a single sound is answered sooner
        found: Iterable[Clip | Bad]
        if one:
            found = [clip(name, sound, rate, self.config.audio) for name, sound in pairs]
        else:
            found = clips(pairs, rate, self.config.audio, threads)
        for handful in handfuls(found, samples):
            good = list[Clip]()
            for item in handful:
                if isinstance(item, Clip):
                    good.append(item)
                elif bad is None:
                    raise ValueError(str(item))
                else:
                    bad(item)
            if good:
                yield good, self._summed(good, values, width, settings, self._exact)

    def _summed(self, held: Sequence[Clip], values: Values, width: int, settings: Evaluation, padded: bool) -> Sums:
        """By one thread at a time: the front end's memory is used again, and precision is a switch of the process."""
        with self._lock, torch.no_grad(), exact(self.device):
            return summed(held, self._saved.front, settings, values, width, padded)

    def _probabilities(self, found: Sums) -> NDArray[np.float64]:
        """(N, C) of clips, as scores.npz has them."""
        logits_NC = clip_logits(found.mean(), self.config)
        return (logits_NC.sigmoid() if self.several else logits_NC.softmax(1)).numpy()


def load(
    run: str | os.PathLike[str],
    device: str | torch.device | None = None,
    overrides: Iterable[str] = (),
    *,
    exact: bool = True,
) -> Model:
    """The model of a run's folder: of its best checkpoint where a validation set chose one, else of its newest.

    device: default a GPU if there is one, else the CPU. overrides: settings in the place of the run's, such as
    `evaluation.clip=full`. exact: a sound's probabilities do not depend on what is predicted beside it, by a bit; with
    False small batches are not padded, and a single sound takes a fraction of the time, equal up to rounding in fp32.
    ValueError: no run there, no sound checkpoint, or overrides that do not fit.
    """
    folder = Path(run)
    place = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    found = saved.load(folder, list(overrides), World(Place(), place, "gloo", torch.get_num_threads()))
    for parameter in found.model.parameters():
        parameter.requires_grad_(False)
    return Model(found, place, known.threshold(folder), exact)
