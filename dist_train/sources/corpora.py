"""Known data sets as they are published -> a Source, with their own folds, splits and groups.

esc              ESC-50 (meta/esc50.csv, audio/) and ESC-10 (folders `001 - Dog bark`); fold and recording stand in each
                 file's name, FOLD-RECORDING-TAKE[-CLASS].ogg. K. J. Piczak, ACM Multimedia 2015
urbansound8k     metadata/UrbanSound8K.csv, audio/fold1/ ... fold10/. Salamon et al., ACM Multimedia 2014
speechcommands   a folder a word, validation_list.txt and testing_list.txt. P. Warden, arXiv:1804.03209
"""

import re
from pathlib import Path

from dist_train.sources import samples
from dist_train.sources.recordings import SUFFIXES
from dist_train.sources.samples import Sample, Source, below, label
from dist_train.sources.tables import Pick, filtered, needs, no_columns, no_group

ESC_NAME = re.compile(r"(\d)-(\d+)-([A-Z])(?:-\d+)?")
ESC_FOLDER = re.compile(r"\d{3} ?- ?(.+)")
ESC_TABLE = Path("meta/esc50.csv")
URBAN_TABLE = Path("metadata/UrbanSound8K.csv")
SPEECH_LISTS = {"validation_list.txt": "valid", "testing_list.txt": "test"}
NOISE = "_background_noise_"


def is_esc(root: Path) -> bool:
    """ESC-50's table, or numbered class folders only."""
    if (root / ESC_TABLE).is_file():
        return True
    folders = _folders(root) if root.is_dir() else []
    return bool(folders) and all(ESC_FOLDER.fullmatch(folder.name) for folder in folders)


def esc(root: Path, pick: Pick) -> Source:
    """ESC-50 or ESC-10; the group is the recording that clips were cut from."""
    no_group(pick, "esc")
    if (root / ESC_TABLE).is_file():
        return Source("esc", _esc50(root, pick))
    no_columns(pick, "esc")
    found = []
    for folder in _folders(root):
        match = ESC_FOLDER.fullmatch(folder.name)
        if match is None:
            raise ValueError(f"{folder}: ESC-10's class folders are named like `001 - Dog bark`; use --layout folder")
        clips = _recordings(folder)
        if not clips:
            raise ValueError(f"{folder}: the class folder holds no recordings; fill it or delete it")
        found += [_esc_sample(root, clip, label(match[1], str(folder)), str(clip)) for clip in clips]
    if not found:
        raise ValueError(f"{root}: holds neither {ESC_TABLE} nor class folders like `001 - Dog bark`")
    return Source("esc", found)


def _esc50(root: Path, pick: Pick) -> list[Sample]:
    table = root / ESC_TABLE
    needs(table, ("filename", "category"))
    return [
        _esc_sample(
            root,
            samples.existing(root / "audio", row["filename"], where),
            label(row["category"].replace("_", " "), where),
            where,
        )
        for where, row in filtered(table, pick)
    ]


def _esc_sample(root: Path, clip: Path, name: str, where: str) -> Sample:
    match = ESC_NAME.fullmatch(clip.stem)
    if match is None:
        raise ValueError(f"{clip}: ESC's files are named FOLD-RECORDING-TAKE[-CLASS]; use --layout folder")
    return Sample(clip, below(clip, root), (name,), fold=int(match[1]), group=match[2], where=where)


def is_urbansound8k(root: Path) -> bool:
    """UrbanSound8K's table."""
    return (root / URBAN_TABLE).is_file()


def urbansound8k(root: Path, pick: Pick) -> Source:
    """UrbanSound8K; the group is the Freesound recording (fsID) that clips were cut from."""
    no_group(pick, "urbansound8k")
    table = root / URBAN_TABLE
    if not table.is_file():
        raise ValueError(f"{root}: holds no {URBAN_TABLE}")
    needs(table, ("slice_file_name", "fsID", "fold", "class"))
    found = []
    for where, row in filtered(table, pick):
        clip = samples.existing(root / "audio" / f"fold{row['fold'].strip()}", row["slice_file_name"], where)
        name = label(row["class"].replace("_", " "), where)
        fold = samples.fold(row["fold"], where)
        found.append(Sample(clip, below(clip, root), (name,), fold=fold, group=row["fsID"].strip(), where=where))
    return Source("urbansound8k", found)


def is_speechcommands(root: Path) -> bool:
    """Its two lists."""
    return root.is_dir() and all((root / name).is_file() for name in SPEECH_LISTS)


def speechcommands(root: Path, pick: Pick) -> Source:
    """Speech Commands v1 or v2: the group is the speaker; what no list names is for training."""
    no_columns(pick, "speechcommands")
    if not is_speechcommands(root):
        raise ValueError(f"{root}: holds no {' and '.join(SPEECH_LISTS)}")
    split = {}
    for name, part in SPEECH_LISTS.items():
        for number, line in enumerate((root / name).read_text("utf-8").splitlines(), 1):
            if line.strip():
                split[samples.existing(root, line.strip(), f"{root / name} line {number}")] = part
    found, notes = [], []
    for folder in _folders(root):
        clips = _recordings(folder)
        if folder.name == NOISE:
            notes.append(f"{NOISE} ({len(clips)} recordings) is left out: it is noise to add, not a word")
            continue
        if not clips:
            raise ValueError(f"{folder}: the class folder holds no recordings; fill it or delete it")
        name = label(folder.name, str(folder))
        for clip in clips:
            speaker, mark, _ = clip.stem.partition("_nohash_")
            part = split.get(clip, "train")
            found.append(Sample(clip, below(clip, root), (name,), split=part, group=speaker if mark else None))
    return Source("speechcommands", found, notes)


def _folders(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _recordings(folder: Path) -> list[Path]:
    return [clip for clip in sorted(folder.iterdir()) if clip.suffix.lower() in SUFFIXES and clip.name[0] != "."]
