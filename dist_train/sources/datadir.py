"""Kaldi's data directories -> a Source.

    wav.scp     RECORDING PATH
    segments    UTTERANCE RECORDING START END, in seconds, where recordings are cut
    utt2lang    UTTERANCE LANGUAGE: the class; without it the class is utt2spk's speaker
    utt2spk     UTTERANCE SPEAKER: the group, where the class is the language

The source is such a directory, or a folder of them called train, dev, test, ... after their splits. Paths are absolute,
or relative to the directory or to a folder above it, as Kaldi's are to where its run.sh was started.
"""

import os
from pathlib import Path

from dist_train.sources import samples
from dist_train.sources import text as coded
from dist_train.sources.samples import SPLITS, Sample, Source, label, nfc
from dist_train.sources.tables import Pick, no_columns

ABOVE = 3  # data/train of egs/NAME/s5: a path may start there


def is_kaldi(root: Path) -> bool:
    """A directory with wav.scp and classes, or folders of splits that are such."""
    return root.is_dir() and bool(_parts(root))


def kaldi(root: Path, pick: Pick) -> Source:
    """The kaldi layout. A name in messages and keys is the utterance's."""
    no_columns(pick, "kaldi")
    parts = _parts(root) if root.is_dir() else []
    if not parts:
        raise ValueError(f"{root}: holds no wav.scp beside utt2lang or utt2spk, nor folders train, test, ... that do")
    found, notes = [], []
    for folder, split in parts:
        found += _utterances(folder, "" if split is None else f"{folder.name}/", split)
        if split:
            notes.append(f"{folder.name}/ is taken as split {split}")
    if not found:
        raise ValueError(f"{root}: wav.scp has no lines")
    named = "utt2lang" if (parts[0][0] / "utt2lang").is_file() else "utt2spk"
    return Source("kaldi", found, [*notes, f"classes are those of {named}"])


def _parts(root: Path) -> list[tuple[Path, str | None]]:
    """Data directories and their splits."""
    if _is_directory(root):
        return [(root, None)]
    inner = (path for path in sorted(root.iterdir()) if path.name.lower() in SPLITS and _is_directory(path))
    return [(path, SPLITS[path.name.lower()]) for path in inner]


def _is_directory(folder: Path) -> bool:
    return (folder / "wav.scp").is_file() and any((folder / name).is_file() for name in ("utt2lang", "utt2spk"))


def _utterances(folder: Path, prefix: str, split: str | None) -> list[Sample]:
    files = {name: _recording(folder, text, where) for name, (text, where) in _lines(folder / "wav.scp").items()}
    speaker, language = (_lines(folder / name) for name in ("utt2spk", "utt2lang"))
    found = []
    for name, (recording, start, end, where) in _segments(folder, list(files)).items():
        if recording not in files:
            raise ValueError(f"{where}: recording {recording} is not in {folder / 'wav.scp'}")
        of = language or speaker
        if name not in of:
            raise ValueError(f"{where}: utterance {name} is not in utt2{'lang' if language else 'spk'}")
        group = nfc(speaker[name][0]) if language and name in speaker else None
        classes = (label(of[name][0], of[name][1]),)
        found.append(Sample(files[recording], prefix + nfc(name), classes, None, split, group, start, end, where))
    return found


def _segments(folder: Path, recordings: list[str]) -> dict[str, tuple[str, float | None, float | None, str]]:
    """Utterance -> recording, start, end, line. Without a file each recording is one utterance."""
    path = folder / "segments"
    if not path.is_file():
        return {name: (name, None, None, f"{folder / 'wav.scp'}") for name in recordings}
    found: dict[str, tuple[str, float | None, float | None, str]] = {}
    for name, (text, where) in _lines(path).items():
        fields = text.split()
        if len(fields) != 3:
            raise ValueError(f"{where}: is not UTTERANCE RECORDING START END")
        end = "" if fields[2].startswith("-") else fields[2]  # -1: the recording's end
        found[name] = (fields[0], *samples.cut(fields[1], end, where), where)
    return found


def _recording(folder: Path, text: str, where: str) -> Path:
    if text.endswith("|"):
        raise ValueError(f"{where}: is a command, and none is run: write the files out and name them in wav.scp")
    for place in [folder, *list(folder.resolve().parents)[:ABOVE]]:
        if os.path.isfile(place / text):
            return place / text
    return samples.existing(folder, text, where)


def _lines(path: Path) -> dict[str, tuple[str, str]]:
    """First word of each line -> the rest, and `FILE line N`; empty without the file."""
    if not path.is_file():
        return {}
    found: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(coded.read(path).splitlines(), 1):
        where = f"{path} line {number}"
        name, *rest = line.split(None, 1)[:2] or [""]
        if not name:
            continue
        if not rest:
            raise ValueError(f"{where}: {name} stands alone on its line")
        if name in found:
            raise ValueError(f"{where}: {name} is there twice, first at {found[name][1]}")
        found[name] = rest[0].strip(), where
    return found
