"""A clip before and after the changes of training, made by the way that training takes: plan, bytes, front end.

    recording or key of the shards --Clip--> plan of one window (and a partner's) --bytes--> FrontEnd --> Variant

In: a configuration, a clip, perhaps a partner for mixup and CutMix. Out: waveforms and features, a picture of them.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from dist_train.archive.level import measure
from dist_train.archive.row import CODECS
from dist_train.frontend import FrontBatch, FrontEnd
from dist_train.lettering import names
from dist_train.payload import Buffer, Payload, RawBatch
from dist_train.picture import literal
from dist_train.settings import Augment, Config
from dist_train.shards import open_set
from dist_train.sources.recordings import Unreadable, open_cut
from dist_train.spectra.norm import statistics
from dist_train.supply.source import source
from dist_train.view import VIEW_ROW, choose
from dist_train.window import train_windows


@dataclass(frozen=True)
class Clip:
    """A clip's bytes in a file or object of `bytes` bytes, its row as a view has it, and its (16,) levels in time."""

    name: str
    file: Path | str
    bytes: int
    row: NDArray[np.void]
    activity: NDArray[np.uint8]


@dataclass(frozen=True)
class Variant:
    """One window, before and after: (T,) waveforms, the first channel; (frames, bins) features; what was drawn."""

    before_T: Tensor
    after_T: Tensor
    before_TF: Tensor
    after_TF: Tensor
    drawn: str


def recording(path: Path, folder: Path) -> Clip:
    """Any recording that libsndfile or FFmpeg reads, decoded into a file in `folder`. ValueError says why not."""
    try:
        rate, blocks = open_cut(path, None, None)
        sound = np.concatenate(list(blocks))
    except Unreadable as error:
        raise ValueError(f"{path}: {error}") from None
    if not np.isfinite(sound).all():
        raise ValueError(f"{path}: it holds samples that are not finite")
    _, rms, activity = measure(lambda: iter([sound.mean(1, dtype=np.float64)]), len(sound))
    file = folder / f"{len(list(folder.iterdir()))}.f32"
    sound.astype("<f4").tofile(file)
    row = np.zeros(1, VIEW_ROW)
    row["size"], row["frames"], row["channels"] = sound.nbytes, len(sound), sound.shape[1]
    row["rate"], row["codec"], row["rms"] = rate, CODECS.F32, rms
    return Clip(path.stem, file, sound.nbytes, row, activity[None])


def packed(key: str, shards: Sequence[str]) -> Clip:
    """The clip of that key in the first set that has it. ValueError where none has."""
    for folder in shards:
        try:
            one = open_set(folder)
        except ValueError as error:
            raise ValueError(f"{key}: there is no such recording; as a clip's key, {error}") from None
        found = next((row for row in range(len(one)) if one.key(row) == key), None)
        if found is not None:
            view, ids = choose([one]), np.array([found])
            row = view.rows(ids)
            file = int(row["file"][0])
            row["file"] = 0
            return Clip(key.rpartition("/")[2], view.files[file], view.bytes[file], row, view.activity(ids))
    raise ValueError(f"{key}: neither a recording nor a clip's key in {', '.join(shards)}; name one of them")


def variants(config: Config, clips: Sequence[Clip], count: int) -> list[Variant]:
    """`count` windows of the first clip, at as many positions of the stream; the others are its group.

    With features.norm=dataset, mean and deviation are the clips' own. ValueError: settings that do not fit together, or
    a clip that cannot be read.
    """
    if str(config.features.name) == "packed":
        raise ValueError("features.name=packed has no waveforms to show: give the features that were packed")
    plain = Augment(speed=[1])  # type: ignore[call-arg, list-item]
    seed, precise = config.run.seed, {"device": "cpu", "dtype": torch.float32}
    before = FrontEnd(config.audio, plain, config.features, seed=seed, **precise)  # type: ignore[arg-type]
    after = FrontEnd(config.audio, config.augment, config.features, seed=seed, **precise)  # type: ignore[arg-type]
    made = []
    for number in range(count):
        old, new = (_group(config, clips, augment, number) for augment in (plain, config.augment))
        if config.features.norm == "dataset" and before.statistics is None:
            before.statistics = after.statistics = statistics(before.sums([old]))
        made.append(_variant(config, before(old, training=False), after(new, training=True), new))
    return made


def _group(config: Config, clips: Sequence[Clip], augment: Augment, number: int) -> RawBatch:
    """The bytes of one window of each clip, as the reader hands them over."""
    rows, ids = np.concatenate([clip.row for clip in clips]), np.arange(len(clips))
    rows["file"], rows["label"] = ids, ids
    activity = np.concatenate([clip.activity for clip in clips])
    plan = train_windows(rows, ids, ids + number * len(clips), activity, config.audio, augment, config.run.seed)
    payload = Payload(plan, Buffer(pin=False), source([clip.file for clip in clips], [clip.bytes for clip in clips]))
    payload.read(0, len(payload.order))
    data, bad = payload.mend()
    if bad:
        raise ValueError(f"{clips[bad[0][0]].name}: {bad[0][1]}")
    return RawBatch(payload.plan, data)


def _variant(config: Config, before: FrontBatch, after: FrontBatch, raw: RawBatch) -> Variant:
    factor, speeds = int(raw.plan["factor"][0]), config.augment.speed
    drawn = f"speed {speeds[factor] if factor < len(speeds) else 1}"
    if len(raw.plan) > 1:
        drawn += f", {float(after.mix_B[0]):.2f} of its own label"
    frames = [batch.feat_BTF[0] if batch.frames_B is None else _valid(batch) for batch in (before, after)]
    return Variant(before.wave_BT[0], after.wave_BT[0], frames[0], frames[1], drawn)


def _valid(batch: FrontBatch) -> Tensor:
    assert batch.frames_B is not None
    return batch.feat_BTF[0, : int(batch.frames_B[0])]


def wav(wave_T: Tensor, rate: int) -> bytes:
    """The bytes of a WAV file of 32-bit floats: what is over full scale is not cut off."""
    file = io.BytesIO()
    soundfile.write(file, wave_T.numpy(), rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def drawing(made: Sequence[Variant], config: Config, title: str) -> Figure:
    """A row a variant: waveform and features before, waveform and features after; scales are the same all over."""
    figure = Figure(figsize=(16, 0.6 + 2.4 * len(made)), dpi=100, layout="constrained")
    literal([figure.suptitle(names([title])[0])])
    height = max(float(wave.abs().max()) for one in made for wave in (one.before_T, one.after_T)) or 1.0
    values = torch.cat([feat.flatten() for one in made for feat in (one.before_TF, one.after_TF)])
    low, high = torch.quantile(values[:: len(values) // 100_000 + 1].float(), torch.tensor([0.01, 0.99])).tolist()
    panels = figure.subplots(len(made), 4, squeeze=False)
    for line, one in zip(panels, made, strict=True):
        halves = ((line[:2], "before", one.before_T, one.before_TF), (line[2:], "after", one.after_T, one.after_TF))
        for (left, right), when, wave_T, feat_TF in halves:
            seconds = len(wave_T) / config.audio.sample_rate
            left.plot(np.arange(len(wave_T)) / config.audio.sample_rate, wave_T.numpy(), linewidth=0.4)
            left.set(xlim=(0, seconds), ylim=(-1.05 * height, 1.05 * height), xlabel="s")
            left.set_title(f"{when}: {one.drawn}" if when == "after" else when, fontsize=9)
            if feat_TF.shape[1] == 1:
                right.plot(feat_TF[:, 0].numpy(), linewidth=0.4)
            else:
                span = (0, len(feat_TF), 0, feat_TF.shape[1])
                right.imshow(feat_TF.T.numpy(), origin="lower", aspect="auto", vmin=low, vmax=high, extent=span)
            right.set(xlabel="frame", ylabel="bin")
            right.set_title(f"features.name={config.features.name}, norm={config.features.norm}", fontsize=9)
    return figure
