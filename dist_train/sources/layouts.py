"""A source of recordings, in whatever layout it comes -> a Source: its samples with labels, folds, splits, groups.

folder         one folder a class, searched to any depth; `train/`, `valid/`, `test/` or `fold1/`, `fold2/`, ... above
               the class folders become splits or folds
csv, list      a table (tables.py)
kaldi          a data directory with wav.scp (datadir.py)
esc, urbansound8k, speechcommands      known data sets as they come (corpora.py)
fsdkaggle2018, fsd50k                  the same (freesound.py)
voxceleb, voxlingua107                 the same (speech.py)
auto           the first of these that fits; its name goes out in the Source
"""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dist_train.sources import corpora, datadir, freesound, speech, tables
from dist_train.sources.recordings import SUFFIXES
from dist_train.sources.samples import SPLITS, Sample, Source, below, distinct, label
from dist_train.sources.tables import Pick

IGNORED = ("__MACOSX", "@eaDir")


def _folder(root: Path, pick: Pick) -> Source:
    tables.no_columns(pick, "folder")
    if not root.is_dir():
        raise ValueError(f"{root}: the folder layout needs a folder, one folder a class inside")
    parts, folders = {}, _folders(root)
    if folders and all(_part(folder.name) for folder in folders):
        parts = {folder: _part(folder.name) for folder in folders}
        folders = [inner for folder in folders for inner in _folders(folder)]
    if not folders:
        raise ValueError(f"{root}: holds no class folders; put each class's recordings in a folder of its name")
    notes = [f"{part.name}/ is taken as {_said(part.name)}" for part in parts]
    samples = []
    for place in [root, *parts]:
        loose = next((path for path in sorted(place.iterdir()) if _is_recording(path)), None)
        if loose:
            raise ValueError(f"{loose}: lies in no class folder; move it into a folder named as its class")
    ignored: Counter[str] = Counter()
    for folder in folders:
        name, found = label(folder.name, str(folder)), list(_recordings(folder, ignored))
        if not found:
            raise ValueError(f"{folder}: the class folder holds no recordings; fill it or delete it")
        split, fold = _part(folder.parent.name) or (None, None) if parts else (None, None)
        samples += [Sample(path, below(path, root), (name,), split=split, fold=fold) for path in found]
    if ignored:
        notes.append(f"{sum(ignored.values())} other files are ignored ({', '.join(sorted(ignored)[:5])})")
    return Source("folder", samples, notes)


def _part(name: str) -> tuple[str | None, int | None] | None:
    """The (split, fold) that a folder's name states, or None."""
    if name.lower() in SPLITS:
        return SPLITS[name.lower()], None
    found = re.fullmatch(r"fold[-_ ]?(\d{1,3})", name, re.IGNORECASE | re.ASCII)
    return (None, int(found[1])) if found else None


def _said(name: str) -> str:
    split, fold = _part(name) or (None, None)
    return f"fold {fold}" if split is None else f"split {split}"


def _folders(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if path.is_dir() and not _hidden(path.name)]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in IGNORED


def _is_recording(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not _hidden(path.name) and path.is_file()


def _recordings(folder: Path, ignored: Counter[str]) -> Iterator[Path]:
    """All recordings below a folder, in order of name; links are followed, but into no folder twice."""
    seen = set[str]()
    for place, inner, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        inner[:] = [] if real in seen else sorted(name for name in inner if not _hidden(name))
        names = [] if real in seen else sorted(name for name in files if not _hidden(name))
        seen.add(real)
        for name in names:
            path = Path(place, name)
            if _is_recording(path):
                yield path
            else:
                ignored[path.suffix or name] += 1


LAYOUTS = {
    "urbansound8k": (corpora.is_urbansound8k, corpora.urbansound8k),
    "esc": (corpora.is_esc, corpora.esc),
    "speechcommands": (corpora.is_speechcommands, corpora.speechcommands),
    "fsdkaggle2018": (freesound.is_fsdkaggle2018, freesound.fsdkaggle2018),
    "fsd50k": (freesound.is_fsd50k, freesound.fsd50k),
    "kaldi": (datadir.is_kaldi, datadir.kaldi),
    "voxceleb": (speech.is_voxceleb, speech.voxceleb),
    "voxlingua107": (speech.is_voxlingua107, speech.voxlingua107),
    "list": (tables.is_list, tables.read_list),
    "csv": (tables.is_csv, tables.read_csv),
    "folder": (Path.is_dir, _folder),
}
"""Layout -> whether a source looks so, and its reader (root, Pick) -> Source; in auto's order."""


def read(
    root: Path,
    layout: str = "auto",
    group: str | None = None,
    group_regex: str | None = None,
    where: tuple[str, ...] = (),
) -> Source:
    """The samples of a source, sorted by their path below it.

    group: the table's column to take as group. group_regex: searched in each path below the source; its first bracket
    (or, without brackets, all that matches) is the group. where: COLUMN=VALUE conditions that a table's rows must meet.
    ValueError for everything wrong, naming row or file.
    """
    if not root.exists():
        raise ValueError(f"{root}: there is no such file or folder")
    if layout == "auto":
        layout = next((name for name, (fits, _) in LAYOUTS.items() if fits(root)), "")
        if not layout:
            raise ValueError(f"{root}: no layout fits; name one with --layout ({', '.join(LAYOUTS)})")
    source = LAYOUTS[layout][1](root, Pick(group, where))
    if group_regex is not None:
        source = _grouped(source, group_regex)
    distinct(source.samples)
    return dataclasses.replace(
        source, samples=sorted(source.samples, key=lambda sample: (sample.source, sample.start or 0, sample.end or 0))
    )


def _grouped(source: Source, pattern: str) -> Source:
    try:
        find = re.compile(pattern).search
    except re.error as error:
        raise ValueError(f"--group-regex {pattern!r}: {error}") from None
    samples, missed = [], []
    for sample in source.samples:
        found = find(sample.source)
        name = (found[1] if found.re.groups else found[0]) if found else None
        samples.append(dataclasses.replace(sample, group=name or None))
        missed += [] if name else [sample.source]
    if len(missed) == len(samples):
        raise ValueError(f"--group-regex {pattern!r}: fits no path, for example not {missed[0]}")
    note = [f"{len(missed)} recordings fit no group (first: {missed[0]}); each is its own"] if missed else []
    return dataclasses.replace(source, samples=samples, notes=source.notes + note)
