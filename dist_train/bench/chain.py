"""From stored bytes to a batch of features, one core: read, speed, level, Fbank, mean, SpecAugment; macls beside ours.

macls runs its own dataset and collate function in the process, as one of its workers would, on the same clips with the
same settings: speed 0.9, 1, 1.1; -20 dB; 80 bins; one mask each way on half of the clips.
"""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from dist_train.bench import material, peer, reading
from dist_train.bench.pair import Side, paired, seconds
from dist_train.bench.row import ABSENT, Row, Work, rate
from dist_train.frontend import FrontEnd
from dist_train.reader import Reader
from dist_train.settings import Audio, Augment, Features, Noise, Reverb, SpecAugment
from dist_train.storage import Files
from dist_train.view import View
from dist_train.window import train_windows

BATCH = 64


def settings(noise: Path | None = None, rooms: Path | None = None, seconds: float = 3.0) -> tuple[Audio, Augment]:
    """What macls does by default, in our words."""
    masks = SpecAugment(probability=0.5, freq_masks=1, freq_width=8, time_masks=1, time_width=0.05)  # type: ignore[call-arg]
    sounds: dict[str, Any] = {}
    if noise is not None and rooms is not None:
        sounds["noise"] = Noise(shards=[str(noise)], probability=0.5, snr_db=(10.0, 50.0))  # type: ignore[call-arg]
        sounds["reverb"] = Reverb(shards=[str(rooms)], probability=0.5, seconds=0.5)  # type: ignore[call-arg]
    audio = Audio(target_db=-20.0, seconds=seconds)  # type: ignore[call-arg]
    return audio, Augment(spec=masks, **sounds)


def planner(view: View, audio: Audio, augment: Augment) -> reading.Planner:
    """Training windows."""
    return lambda ids, positions: train_windows(view.rows(ids), ids, positions, None, audio, augment, 0)


def ours(view: View, count: int, batch: int, audio: Audio, augment: Augment) -> Side:
    """A call makes the features of `count` clips. ValueError where noise or reverb are asked for but do nothing."""
    front = FrontEnd(audio, augment, Features(), seed=0, device="cpu", listen=0)  # type: ignore[call-arg]
    if augment.noise is not None:
        _check_wired(view, audio, augment)
    stream = reading.Stream(view, batch, planner(view, audio, augment), depth=2)
    return lambda: stream.run(count, lambda raw: front(raw, True))


def _check_wired(view: View, audio: Audio, augment: Augment) -> None:
    """A front end that ignores noise and reverb must not pass for one that is fast at them."""
    plain = augment.model_copy(update={"noise": None, "reverb": None})
    found = []
    for one in (augment, plain):
        front = FrontEnd(audio, one, Features(), seed=0, device="cpu")  # type: ignore[call-arg]
        request = next(reading.requests(view, 16, planner(view, audio, one)))
        with Reader(Files(view.files), iter([request])) as reader:
            found.append(front(next(reader), True).feat_BTF.clone())
    if torch.equal(*found):
        raise ValueError("augment.noise and augment.reverb change nothing: the front end does not know them yet")


def dataset(clip_list: Path, noise: Path | None = None, rooms: Path | None = None) -> Any:
    """macls' dataset with the settings above; None where it is not installed."""
    reader, version = peer.take("macls.data_utils.reader")
    if version == ABSENT:
        return None
    from macls.data_utils.featurizer import AudioFeaturizer

    bank = AudioFeaturizer("Fbank", method_args={"sample_frequency": 16000, "num_mel_bins": 80})
    masks = {"freq_mask_ratio": 0.1, "n_freq_masks": 1, "time_mask_ratio": 0.05, "n_time_masks": 1, "max_time_warp": 0}
    changes = SimpleNamespace(
        speed={"prob": 1.0},
        volume=None,
        noise={"noise_dir": str(noise), "prob": 0.5, "min_snr_dB": 10, "max_snr_dB": 50} if noise else None,
        reverb={"reverb_dir": str(rooms), "prob": 0.5} if rooms else None,
        spec_aug={"prob": 0.5, **masks},
    )
    return reader.MAClsDataset(str(clip_list), bank, aug_conf=changes)


def macls(clip_list: Path, count: int, batch: int, noise: Path | None = None, rooms: Path | None = None) -> Side | None:
    """A call makes the features of `count` clips; None where it is not installed."""
    clips = dataset(clip_list, noise, rooms)
    if clips is None:
        return None
    from macls.data_utils.collate_fn import collate_fn

    order = np.random.default_rng(1).permutation(len(clips)).tolist()
    random.seed(0)

    def run() -> None:
        for start in range(0, count - batch + 1, batch):
            collate_fn([clips[order[place % len(order)]] for place in range(start, start + batch)])

    return run


def _row(work: Work, name: str, ours_side: Side, macls_side: Side | None, count: int, **said: Any) -> list[Row]:
    pair = paired(ours_side, macls_side, work.times)
    name = f"{name}, {work.malloc} malloc"
    return [rate("chain", name, pair, count, "clips/s", peer="macls", version=peer.take("macls")[1], **said)]


def wav(work: Work) -> list[Row]:
    """3 s WAVs at 16 kHz; ours from shards of them."""
    count, clips, batch = work.size(640, 32), work.size(640, 64), work.size(BATCH, 32)
    view = material.opened(material.shard_folder(work, clips, 3.0))
    theirs = macls(material.clip_list(work, clips, 3.0), count, batch)
    goal = 3.0 if work.malloc == "untuned" else 2.0
    return _row(work, "WAV 16 kHz", ours(view, count, batch, *settings()), theirs, count, goal=goal)


def sounds(work: Work) -> list[Row]:
    """The same with noise and reverb, each on half of the clips."""
    count, clips, batch = work.size(640, 32), work.size(640, 64), work.size(BATCH, 32)
    view = material.opened(material.shard_folder(work, clips, 3.0))
    folders = material.noises(work), material.rooms(work)
    theirs = macls(material.clip_list(work, clips, 3.0), count, batch, *folders)

    made: list[Side] = []

    def run() -> None:
        if not made:  # inside the pair: what it raises becomes the row's note
            made.append(ours(view, count, batch, *settings(*folders)))
        made[0]()

    note = "noise and reverb, probability 0.5 each"
    return _row(work, "WAV 16 kHz, noise, reverb", run, theirs, count, goal=2.5, note=note)


def low_rate(work: Work) -> list[Row]:
    """Half a second at 8 kHz, raised to 16 kHz."""
    count, clips, batch = work.size(320, 32), work.size(320, 64), work.size(BATCH, 32)
    view = material.opened(material.shard_folder(work, clips, 0.5, 8000))
    theirs = macls(material.clip_list(work, clips, 0.5, 8000), count, batch)
    side = ours(view, count, batch, *settings(seconds=0.5))
    return _row(work, "WAV 8 kHz, 0.5 s", side, theirs, count, goal=30.0, note="raised to 16 kHz")


def _recordings(work: Work, codec: str, name: str, **said: Any) -> list[Row]:
    """Their clips are few, for one takes long: each side gives its time for one clip."""
    view = material.opened(material.packed(work, codec))
    counts = work.size(BATCH, 16), work.size(16, 2)
    side = ours(view, counts[0], counts[0], *settings())
    theirs = macls(material.recordings(work), counts[1], counts[1])
    peer_side = None if theirs is None else lambda: seconds(theirs) / counts[1]
    return _row(work, name, lambda: seconds(side) / counts[0], peer_side, 1, **said)


def decoding(work: Work) -> list[Row]:
    """OGG clips of 5 s at 44.1 kHz (or the recordings of --data), decoded each time on both sides."""
    return _recordings(work, "original", "recordings, decoded each time", goal=10.0)


def prepared(work: Work) -> list[Row]:
    """Shards of 16 kHz PCM made of those recordings, against macls on the originals."""
    note = "ours from 16 kHz shards packed before, macls decodes"
    return _recordings(work, "pcm16", "recordings, packed before", goal=100.0, note=note)
