"""Speech data sets as they are published -> a Source: speakers, and languages.

voxceleb       SPEAKER/VIDEO/00001.wav (VoxCeleb1) or .m4a (VoxCeleb2), below `wav`, `aac`, `dev/aac`, ...; the class is
               the speaker. A. Nagrani et al., arXiv:1706.08612 and 1806.05622
voxlingua107   LANGUAGE/VIDEO---FROM-TO.wav, `dev/` with the same inside; the class is the language. J. Valk and
               T. Alumae, arXiv:2011.12998
"""

import re
from collections.abc import Iterator
from pathlib import Path

from dist_train.sources.recordings import SUFFIXES
from dist_train.sources.samples import Sample, Source, below, label
from dist_train.sources.tables import Pick, no_columns

SPEAKER = re.compile(r"id\d{5}")
ABOVE = re.compile(r"wav|aac|dev|test|vox[12]_\w+|VoxCeleb[12]")  # folders that speakers' folders may lie in
IDENTIFICATION = "iden_split.txt"
PARTS = {"1": "train", "2": "valid", "3": "test"}
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]+)?")
CUT = re.compile(r"(.+?)(?:__U__S\d+)?---[\d.]+-[\d.]+")


def is_voxceleb(root: Path) -> bool:
    """Folders called id10001 and the like."""
    return root.is_dir() and any(_speakers(root))


def voxceleb(root: Path, pick: Pick) -> Source:
    """VoxCeleb1 or 2: the group is the video. iden_split.txt, where it lies beside, gives the splits of VoxCeleb1."""
    no_columns(pick, "voxceleb")
    speakers = list(_speakers(root))
    if not speakers:
        raise ValueError(f"{root}: holds no speakers' folders like wav/id10001 or dev/aac/id00012")
    split, notes = _identification(root), []
    found = []
    for speaker in speakers:
        for clip in _clips(speaker):
            if clip.parent == speaker:
                raise ValueError(f"{clip}: VoxCeleb's clips lie in SPEAKER/VIDEO/; use --layout folder")
            video, name = clip.parent.name, f"{speaker.name}/{clip.parent.name}/{clip.name}"
            found.append(Sample(clip, below(clip, root), (speaker.name,), split=split.pop(name, None), group=video))
    if not found:
        raise ValueError(f"{root}: the speakers' folders hold no recordings")
    if split:
        notes.append(f"{IDENTIFICATION} names {len(split)} clips that are not there (first: {min(split)})")
    unnamed = sum(sample.split is None for sample in found)
    if (root / IDENTIFICATION).is_file() and unnamed:
        notes.append(f"{unnamed} clips are not in {IDENTIFICATION} and have no split")
    return Source("voxceleb", found, notes)


def _speakers(root: Path) -> Iterator[Path]:
    """Speakers' folders: in the root, or deeper in the folders that the archives unpack to."""
    for path in sorted(root.iterdir()):
        if SPEAKER.fullmatch(path.name) and path.is_dir():
            yield path
        elif ABOVE.fullmatch(path.name) and path.is_dir():
            yield from _speakers(path)


def _identification(root: Path) -> dict[str, str]:
    """`id10001/VIDEO/00001.wav` -> split; empty without the list."""
    path = root / IDENTIFICATION
    if not path.is_file():
        return {}
    found = {}
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        part, _, name = line.strip().partition(" ")
        if not line.strip():
            continue
        if part not in PARTS or not name:
            raise ValueError(f"{path} line {number}: is not 1, 2 or 3 and a clip; is it the published list?")
        found[name.strip()] = PARTS[part]
    return found


def is_voxlingua107(root: Path) -> bool:
    """Folders of languages whose clips are named after a video and a cut of it."""
    languages = _languages(root) if root.is_dir() else []
    first = next((clip for folder in languages for clip in _clips(folder)), None)
    return first is not None and CUT.fullmatch(first.stem) is not None


def voxlingua107(root: Path, pick: Pick) -> Source:
    """VoxLingua107: the group is the video, or the clip where its name tells none; `dev/` is for testing.

    Its authors' development set is what results are published on.
    """
    no_columns(pick, "voxlingua107")
    dev = root / "dev"
    parts = [(root, "train" if dev.is_dir() else None), *([(dev, "test")] if dev.is_dir() else [])]
    found, notes = [], [f"{dev.name}/ is taken as split test, the rest as train"] if dev.is_dir() else []
    for place, split in parts:
        for folder in _languages(place):
            for clip in _clips(folder):
                match = CUT.fullmatch(clip.stem)
                name, group = label(folder.name, str(folder)), match[1] if match else None
                found.append(Sample(clip, below(clip, root), (name,), split=split, group=group))
    if not found:
        raise ValueError(f"{root}: holds no languages' folders like et/VIDEO---0100.000-0107.000.wav")
    return Source("voxlingua107", found, notes)


def _languages(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    folders = (path for path in sorted(root.iterdir()) if path.is_dir())
    return [path for path in folders if LANGUAGE.fullmatch(path.name) and path.name != "dev"]


def _clips(folder: Path) -> Iterator[Path]:
    for clip in sorted(folder.rglob("*")):
        if clip.suffix.lower() in SUFFIXES and clip.name[0] != ".":
            yield clip
