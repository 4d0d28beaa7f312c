"""A run's folder -> a Model that says what sounds are: the public way to use what was trained.

from dist_train import load
model = load("runs/esc10")
print(model.predict("dog.ogg").label)
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray

from dist_train import saved
from dist_train.inference import ahead, arrays, exported, timeline
from dist_train.inference.ahead import Bad
from dist_train.inference.clips import Clip
from dist_train.inference.prediction import Prediction, judged
from dist_train.inference.scorer import Scorer
from dist_train.inference.sound import Named, Reading, Sound, named
from dist_train.inference.timeline import Options, Timeline, Way
from dist_train.scoring import unknown
from dist_train.settings import Config
from dist_train.sources.recordings import Unreadable
from dist_train.window import window_samples
from dist_train.world import Place, World

Sounds: TypeAlias = list[Any] | tuple[Sound, ...]
Skip: TypeAlias = Callable[[Bad], None]


class Model:
    """A trained network with its front end. Made by `load`.

    Computation is in fp32 (fp64 where the run is), eager and deterministic: on one machine and number of threads the
    same sound gives the same bits. Any thread may call; calls take turns.
    """

    def __init__(self, scorer: Scorer, threshold: float | None) -> None:
        self._scorer = scorer
        self.threshold = threshold
        """Below this probability a guess is unknown: of RUN/unknown.json; None: without one."""

    @property
    def config(self) -> Config:
        """The run's settings."""
        return self._scorer.found.config

    @property
    def origin(self) -> saved.Saved:
        """The network and its front end, in float32 as the run has them: for exports and pictures, not to change."""
        return self._scorer.found

    @property
    def path(self) -> Path:
        """The checkpoint that was loaded."""
        return self._scorer.found.path

    @property
    def device(self) -> torch.device:
        """What computes."""
        return self._scorer.found.front.device

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of all probabilities."""
        return self._scorer.found.classes

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
        if isinstance(sound, list | tuple):
            return list(self.stream(sound, sample_rate, top=top, threshold=threshold))
        return next(self.stream([_alone(sound)], sample_rate, top=top, threshold=threshold))

    def stream(
        self,
        sounds: Iterable[Sound],
        sample_rate: int | None = None,
        *,
        top: int = 5,
        threshold: float | None = None,
        bad: Skip | None = None,
        threads: int | None = None,
    ) -> Iterator[Prediction]:
        """Predictions of any number of sounds in order, as `predict` makes them, in bounded memory.

        `bad` is called with each sound that cannot be used, and the others go on; without it that is a ValueError.
        `threads`: how many read and decode; default: one a core, at most 8.
        """
        limit = self._limit(threshold)
        for clips in self._clips(sounds, sample_rate, bad, threads):
            rows_NC, _ = self._scorer.probabilities(clips)
            for one, row_C in zip(clips, rows_NC, strict=True):
                yield judged(one.name, row_C, self.classes, one.seconds, self.several, top, limit)

    def embed(self, sound: Sound | Sounds, sample_rate: int | None = None) -> NDArray[np.float32]:
        """(E,) the embedding of a sound, the mean over its windows; of a list (N, E). Sounds are as in `predict`."""
        if not isinstance(sound, list | tuple):
            return next(self.embeddings([_alone(sound)], sample_rate))[1]
        found = [vector_E for _, vector_E in self.embeddings(sound, sample_rate)]
        return np.stack(found) if found else np.zeros((0, self._scorer.width), np.float32)

    def embeddings(
        self,
        sounds: Iterable[Sound],
        sample_rate: int | None = None,
        *,
        bad: Skip | None = None,
        threads: int | None = None,
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """(name, embedding (E,)) of any number of sounds, in bounded memory; `bad` and `threads` as in `stream`."""
        for clips in self._clips(sounds, sample_rate, bad, threads):
            yield from zip((one.name for one in clips), self._scorer.embeddings(clips), strict=True)

    def timeline(
        self,
        sound: Sound,
        sample_rate: int | None = None,
        *,
        hop: float | None = None,
        smooth: str = "median",
        span: float | None = None,
        threshold: float | None = None,
        hysteresis: float = 0.1,
        min_duration: float = 0.0,
    ) -> Timeline:
        """What is heard when in a sound of any length, which is read by the block.

        A window of `seconds` each `hop` s (default: a quarter of one, at most one), averaged where they overlap;
        `smooth` median, exponential or none over `span` s (default: three hops). A label stays until another is
        `hysteresis` more probable; of several, each ends `hysteresis` under the `threshold` at which it begins.
        Segments under `min_duration` s are joined with a neighbour, or left out where there are several labels.
        """
        options: Options = {"hop": hop, "smooth": smooth, "span": span, "threshold": threshold}
        options |= {"hysteresis": hysteresis, "min_duration": min_duration}
        return next(self.timelines([_alone(sound)], sample_rate, **options))

    def timelines(
        self,
        sounds: Iterable[Sound],
        sample_rate: int | None = None,
        *,
        bad: Skip | None = None,
        **options: Unpack[Options],
    ) -> Iterator[Timeline]:
        """Timelines of any number of sounds in order; options as in `timeline`, `bad` as in `stream`."""
        way = self._way(**options)
        for number, sound in enumerate(sounds):
            found = self._timeline(sound, sample_rate, way, number)
            if isinstance(found, Timeline):
                yield found
            elif bad is None:
                raise ValueError(str(found))
            else:
                bad(found)

    def _way(self, **options: Unpack[Options]) -> Way:
        options["threshold"] = self._limit(options.get("threshold"))
        return Way(self.sample_rate, window_samples(self.config.audio), **options)

    def _timeline(self, sound: Sound, rate: int | None, way: Way, number: int | None = None) -> Timeline | Bad:
        reading, name = Reading(sound, rate, self.config.audio), named(sound, number)
        cells, hearing = timeline.Cells(way.step, len(self.classes)), self.config.evaluation
        alone = hearing.model_copy(update={"clip": "windows", "hop": None})  # each window is a clip
        try:
            for group in timeline.groups(timeline.windows(reading, way.size, way.step), hearing.batch_size):
                held = [Clip(name, frames_TC, 0.0) for _, frames_TC in group]
                rows_NC, heard_N = self._scorer.probabilities(held, alone, padded=False)
                for (start, frames_TC), row_C, heard in zip(group, rows_NC, heard_N, strict=True):
                    cells.add(start, len(frames_TC), bool(heard), row_C)
        except (Unreadable, OSError) as error:
            return ahead.refused(name, error)
        samples = max(1, int(reading.seconds * self.sample_rate + 1e-6))
        return timeline.drawn(name, reading.seconds, cells.mean(samples), self.classes, self.several, way)

    def probabilities(self, wave_BT: NDArray[np.float32] | torch.Tensor) -> NDArray[np.float64]:
        """(B, C) of waves of equal length at `sample_rate`, float of full scale 1, (B, T) or (B, T, channels).

        The low level: no file, no conversion, nothing rounded to int16, batches as they come, never padded; equal to
        what `predict` gives up to rounding in fp32. ValueError for other shapes, or samples that are not finite.
        """
        waves_BTC = arrays.batch(wave_BT, self.channels)
        held = [Clip(f"row {number}", wave_TC, 0.0) for number, wave_TC in enumerate(waves_BTC)]
        return self._scorer.probabilities(held, padded=False)[0] if held else np.zeros((0, len(self.classes)))

    def _limit(self, threshold: float | None) -> float | None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold:g}: a probability lies between 0 and 1")
        limit = self.threshold if threshold is None else threshold
        return 0.5 if limit is None and self.several else limit

    def _clips(
        self, sounds: Iterable[Sound], rate: int | None, bad: Skip | None, threads: int | None
    ) -> Iterator[list[Clip]]:
        """Those that can be used, in handfuls that fill batches."""
        audio, rows = self.config.audio, self.config.evaluation.batch_size
        for handful in ahead.handfuls(ahead.clips(sounds, rate, audio, threads), rows * window_samples(audio)):
            good = list[Clip]()
            for one in handful:
                if isinstance(one, Clip):
                    good.append(one)
                elif bad is None:
                    raise ValueError(str(one))
                else:
                    bad(one)
            if good:
                yield good


def _alone(sound: Sound) -> Named:
    """Under a name without a number."""
    return sound if isinstance(sound, Named) else Named(named(sound), sound)


def load(
    run: str | os.PathLike[str],
    device: str | torch.device | None = None,
    overrides: Iterable[str] = (),
    *,
    exact: bool = True,
) -> Model:
    """The model of a run's folder: of its best checkpoint where a validation set chose one, else of its newest; or of
    a file that `tools/export.py RUN --to safetensors` made of one.

    device: default a GPU if there is one, else the CPU. overrides: settings in the place of the run's, such as
    `evaluation.clip=full`. exact: a sound's probabilities do not depend on what is predicted beside it, by a bit; with
    False small batches are not padded, and a single sound takes a fraction of the time, equal up to rounding in fp32.
    ValueError: no run there, no sound checkpoint, no such device, or overrides that do not fit.
    """
    path = Path(run)
    world = World(Place(), _device(device), "gloo", torch.get_num_threads())
    if path.suffix == exported.SUFFIX and not path.is_dir():
        found, threshold = exported.read(path, overrides, world)
    else:
        found, threshold = saved.load(path, list(overrides), world), unknown.read(path)
    found.model.requires_grad_(False)
    return Model(Scorer(found, exact), threshold)


def _device(asked: str | torch.device | None) -> torch.device:
    """ValueError: it is not here."""
    try:
        device = torch.device(asked if asked is not None else "cuda" if torch.cuda.is_available() else "cpu")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the second from a torch that was built without CUDA
        why = str(error).partition("\n")[0]
        why = "no device; give cpu, cuda, cuda:1 or mps" if why.startswith("Expected one of") else why
        raise ValueError(f"device {asked}: {why}") from None
    return device
