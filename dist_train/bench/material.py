"""What is measured on: clips that sound like speech to the arithmetic, the same in every run; or somebody's recordings.

In: a folder. Out: in it, made once, shards with their index, the same clips as files with a list, noise, rooms.
"""

import io
import json
import wave
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dist_train import shards
from dist_train.bench.row import Work
from dist_train.view import View, choose

VOICES = 32  # different clips; the others are the same bytes under other names
CLASSES = 10
AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".opus")


def speech(count: int, rate: int, seed: int) -> NDArray[np.int16]:
    """(count,) int16: noise that falls by 6 dB an octave from 300 Hz on, with syllables of a quarter of a second."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.maximum(np.fft.rfftfreq(count, 1 / rate), 300.0)
    sound = np.fft.irfft(spectrum, count)
    envelope = 0.05 + np.sin(np.pi * 4 * np.arange(count) / rate + rng.uniform(0, np.pi)) ** 2
    sound *= envelope
    return np.asarray(np.round(sound / np.abs(sound).max() * 2**14), np.int16)


def wav(samples: NDArray[np.int16], rate: int) -> bytes:
    """The bytes of a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.tobytes())
    return file.getvalue()


@cache
def voices(seconds: float, rate: int) -> tuple[bytes, ...]:
    """The different clips, as WAV files."""
    return tuple(wav(speech(round(seconds * rate), rate, number), rate) for number in range(VOICES))


def shard_folder(work: Work, count: int, seconds: float, rate: int = 16000) -> Path:
    """Indexed shards of `count` clips."""
    import webdataset

    folder = work.folder / f"shards-{count}-{seconds:g}-{rate}"
    if (folder / "index.json").exists():
        return folder
    folder.mkdir()
    clips = voices(seconds, rate)
    with webdataset.ShardWriter(str(folder / "clips-%05d.tar"), maxcount=10_000, maxsize=2**28, verbose=0) as writer:
        for number in range(count):
            label = json.dumps({"label": str(number % CLASSES)})
            writer.write({"__key__": f"{number:08d}", "wav": clips[number % VOICES], "json": label.encode()})
    shards.build(folder, workers=1)
    return folder


def opened(folder: Path) -> View:
    """All of a folder of shards."""
    return choose([shards.open_set(folder)])


def clip_list(work: Work, count: int, seconds: float, rate: int = 16000) -> Path:
    """The same clips as WAV files, and the list of them: a line PATH<TAB>CLASS NUMBER each."""
    folder = work.folder / f"files-{count}-{seconds:g}-{rate}"
    if not folder.exists():
        folder.mkdir()
        clips = voices(seconds, rate)
        paths = [folder / f"{number:06d}.wav" for number in range(count)]
        for number, path in enumerate(paths):
            path.write_bytes(clips[number % VOICES])
        write_list(folder / "list.txt", [(path, number % CLASSES) for number, path in enumerate(paths)])
    return folder / "list.txt"


def write_list(path: Path, clips: list[tuple[Path, int]]) -> None:
    """A list of files and class numbers."""
    path.write_text("".join(f"{file}\t{label}\n" for file, label in clips), encoding="utf-8")


def noises(work: Work) -> Path:
    """A folder of ten noises of 4 s."""
    return _sounds(work.folder / "noise", (speech(64000, 16000, 1000 + number) for number in range(10)))


def rooms(work: Work) -> Path:
    """A folder of ten room impulse responses of 0.5 s, which fall by 60 dB."""
    rng, decay = np.random.default_rng(2000), 10 ** (-3 * np.arange(8000) / 8000)
    tails = (rng.standard_normal(8000) * decay for _ in range(10))
    return _sounds(work.folder / "rooms", (np.asarray(tail / np.abs(tail).max() * 2**14, np.int16) for tail in tails))


def _sounds(folder: Path, sounds: Iterator[NDArray[np.int16]]) -> Path:
    if not folder.exists():
        folder.mkdir()
        for number, sound in enumerate(sounds):
            (folder / f"{number}.wav").write_bytes(wav(sound, 16000))
    return folder


def recordings(work: Work) -> Path:
    """A list of recordings: those of `--data`, each folder in it a class, else OGG clips of 5 s at 44.1 kHz."""
    import soundfile

    listed = work.folder / "recordings.txt"
    if work.data is not None:
        found = sorted(path for path in work.data.rglob("*") if path.suffix.lower() in AUDIO)
        if not found:
            raise ValueError(f"{work.data}: no recordings ({' '.join(AUDIO)}) in it: name a folder that holds some")
        folders = {name: number for number, name in enumerate(sorted({path.parent for path in found}))}
        write_list(listed, [(path, folders[path.parent]) for path in found])
        return listed
    folder = work.folder / "recordings"
    if not listed.exists():
        clips = []
        for number in range(work.size(VOICES, 4)):
            label = number % 4
            path = folder / f"class{label}" / f"{number:03d}.ogg"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound = speech(220500, 44100, number).astype(np.float32) / 2**15
            soundfile.write(path, sound, 44100, format="OGG", subtype="VORBIS")
            clips.append((path, label))
        write_list(listed, clips)
    return listed


def packed(work: Work, codec: str) -> Path:
    """The recordings as shards: `original` (bytes as they are) or `pcm16` (16 kHz)."""
    from dist_train.assembly.options import Options
    from dist_train.packing import pack

    listed, dest = recordings(work), work.folder / f"packed-{codec}"
    if not (dest / "index.json").exists():
        pack(listed, dest, Options(layout="list", codec=codec, workers=1, folds=0))
    return dest


def waves(work: Work, rows: int, seconds: float = 3.0) -> torch.Tensor:
    """(rows, samples) float32 at 16 kHz; of the recordings of `--data` where there are any."""
    count = round(seconds * 16000)
    if work.data is None:
        sounds: list[NDArray[Any]] = [speech(count, 16000, number) for number in range(min(rows, VOICES))]
        stacked = np.stack([sounds[number % len(sounds)] for number in range(rows)])
        return torch.from_numpy(stacked.astype(np.float32) / 2**15)
    view = opened(packed(work, "pcm16"))
    found = view.rows(np.arange(len(view)))
    clips = []
    for number in range(rows):
        row = found[number % len(found)]
        data = np.memmap(view.files[row["file"]], "<i2", "r", int(row["offset"]), (int(row["frames"]),))
        clips.append(np.resize(data, count).astype(np.float32) / 2**15)
    return torch.from_numpy(np.stack(clips))
